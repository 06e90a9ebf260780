"""What a report says of runs: differences, intervals, verdicts, and what is missing."""

import json
import math

import pytest

from hephaestus_jax.errors import UserError
from hephaestus_jax.reports.run_report import make_report, terminal
from hephaestus_jax.reports.verdicts import chance_sentences
from tests.reports.run_folders import (
    METRICS,
    RECORD,
    eval_line,
    evaluation,
    records,
    train_line,
    write_pair,
    write_run,
)


def notes(report, run=0):
    return " ".join(report.runs[run].notes)


def cell(report, name, run):
    rows = {**report.comparison.losses, **report.comparison.accuracies}[name]
    return next(cell for cell in rows if cell.run == run)


def verdicts(report, run):
    return {finding.subject: finding.verdict for finding in report.findings if finding.run == run}


def test_differences_intervals_and_verdicts(tmp_path):
    report = make_report(list(write_pair(tmp_path)))
    assert report.baseline == "control" and report.title == "agent against control"
    docs = cell(report, "agent_docs", "agent")
    assert docs.nats_per_token == pytest.approx(4.5)
    assert docs.bits_per_byte == pytest.approx(1.5 / math.log(2))
    difference = docs.difference
    assert difference.value == pytest.approx(-0.5) and difference.relative == pytest.approx(-0.1)
    assert -0.56 < difference.low < -0.5 < difference.high < -0.44 and difference.groups == 12
    code = cell(report, "code", "agent").difference
    assert code.value == pytest.approx(0.25) and 0.2 < code.low < 0.25 < code.high < 0.3
    text = cell(report, "text", "agent").difference
    assert text.value == pytest.approx(0, abs=1e-9) and text.low < 0 < text.high
    assert cell(report, "code", "control").difference is None
    assert verdicts(report, "agent") == {
        "agent_docs": "better", "code": "worse", "text": "no difference shown",
        "wrong_function": "better", "missing_argument": "no difference shown", "all": "no difference shown",
    }  # fmt: skip


def test_accuracies_count_ties_by_half_and_weigh_pairs(tmp_path):
    report = make_report(list(write_pair(tmp_path)))
    missing = cell(report, "missing_argument", "agent")
    assert missing.accuracy == pytest.approx(0.5) and missing.pairs == 12
    assert missing.low < 0.5 < missing.high and missing.difference.low < 0 < missing.difference.high
    together = cell(report, "all", "agent")
    assert together.accuracy == pytest.approx(0.75) and together.pairs == 24
    assert together.difference.value == pytest.approx(0.25) and together.difference.groups == 12
    said = chance_sentences(report.comparison)
    assert [line.partition(":")[0] for line in said] == ["control", "agent"]
    assert "wrong function" in said[0] and "wrong function" not in said[1] and "missing argument 50.0 %" in said[1]


def test_the_terminal_says_what_was_and_what_was_not_achieved(tmp_path):
    text = terminal(make_report(list(write_pair(tmp_path))))
    lines = [line.split() for line in text.splitlines()]
    assert ["agent_docs", "control", "5.0000", "2.4045", "baseline"] in lines
    agent = next(line for line in lines if line[:2] == ["agent", "4.5000"])
    assert agent[2:6] == ["2.1640", "−10.0", "%", "−0.5000"] and agent[-1] == "better"
    headings = ["Better than control", "Cost: worse than control", "Not achieved: no gain over control shown"]
    places = [text.index(f"  {heading}\n") for heading in headings]
    assert places == sorted(places)
    cost = text[places[1] :].splitlines()[1]
    assert cost.startswith("    code: agent is worse than control: 5.2500 against 5.0000 nats/token, +0.2500")
    assert "No cost against control shown" in text and "which includes 0" in text
    assert "gold call ranked first in 100.0 % against 50.0 % of 12 pairs, +50.0 percentage points" in text
    assert "Not achieved: rankings that are not shown to be better than chance" in text
    throughput = next(line for line in lines if line[:2] == ["control", "12,345"])
    assert throughput[2:] == ["4", "1,024", "128", "8", "s", "25.0", "%", "75.0", "%"]


def test_the_baseline_can_be_any_run_and_need_not_be_named_twice(tmp_path):
    control, agent = write_pair(tmp_path)
    swapped = make_report([control, agent], baseline=agent)
    assert swapped.baseline == "agent" and verdicts(swapped, "control")["agent_docs"] == "worse"
    added = make_report([agent], baseline=control + "/")
    assert [run.name for run in added.runs] == ["control", "agent"]
    assert verdicts(added, "agent")["agent_docs"] == "better"


def test_what_others_began_with_is_told_apart(tmp_path):
    worse, zero = evaluation({"agent_docs": records((0.4, 0.5))}), evaluation({"agent_docs": records((0.0,))})
    base = write_run(tmp_path / "base", metrics=None, evaluated=worse)
    control = write_run(tmp_path / "control", metrics=None, evaluated=zero, init_from=base)
    report = make_report([base, control], baseline=control)
    (said,) = report.verdicts()
    assert said.title == "base against control (for reference: control began with base)"
    assert [heading for heading, _ in said.groups] == ["Worse than control"]  # and not "Not achieved"


def test_what_others_began_with_by_way_of_an_export_is_named(tmp_path):
    base, control, agent = (
        write_run(tmp_path / name, evaluated=evaluation({})) for name in ("base", "control", "agent")
    )
    report = make_report([base, control, agent], baseline=control, references=[base])
    assert report.begun_from == {"base": ("control", "agent")}
    assert report.title == "agent against control"
    for wrong in (control, str(tmp_path)):
        with pytest.raises(UserError, match="runs of the report other than the baseline"):
            make_report([base, control], baseline=control, references=[wrong])


@pytest.mark.parametrize("name", ["vocabulary", "corpus", "mixture", "options"])
def test_other_inputs_are_not_paired(tmp_path, name):
    zero = evaluation({"code": records((0.0,))}, {"wrong_function": [1.0] * 9})
    other = evaluation({"code": records((-1.0,))}, {"wrong_function": [-1.0] * 9}, **{name: "z"})
    control = write_run(tmp_path / "control", evaluated=zero)
    agent = write_run(tmp_path / "agent", evaluated=other)
    report = make_report([control, agent])
    assert verdicts(report, "agent") == {"code": "not compared", "wrong_function": "not compared"}
    difference = cell(report, "code", "agent").difference
    assert math.isnan(difference.low) and f"different inputs ({name})" in difference.why_not
    text = terminal(report)
    assert "no paired comparison of agent and control is possible, because the two were evaluated with" in text
    if name == "vocabulary":
        assert report.comparison.measure == "bits/byte" and "have different vocabularies" in text
        assert difference.value == pytest.approx(-1 / 3 / math.log(2))
    else:
        assert report.comparison.measure == "nats/token" and difference.value == pytest.approx(-1)


@pytest.mark.parametrize("column", ["id", "group"])
def test_other_records_are_not_compared_at_all(tmp_path, column):
    changed = records((-1.0,))
    changed[column][3] = "another"
    control = write_run(tmp_path / "control", evaluated=evaluation({"code": records((0.0,))}))
    report = make_report([control, write_run(tmp_path / "agent", evaluated=evaluation({"code": changed}))])
    difference = cell(report, "code", "agent").difference
    assert math.isnan(difference.value) and difference.why_not == "the records evaluated are not the same"


def test_one_group_gives_no_verdict_and_few_groups_a_warning(tmp_path):
    for groups, verdict in ((1, "not compared"), (5, "better")):
        folder = tmp_path / str(groups)
        control = write_run(folder / "control", evaluated=evaluation({"code": records((0.0,), groups)}))
        agent = write_run(folder / "agent", evaluated=evaluation({"code": records((-1.0, -1.1), groups)}))
        report = make_report([control, agent])
        assert verdicts(report, "agent") == {"code": verdict}
        words = "all of it is one group" if groups == 1 else "only 5 groups, so the interval is itself uncertain"
        assert words in terminal(report)


def test_without_evaluations_losses_are_those_of_training(tmp_path):
    control = write_run(tmp_path / "control")
    agent = write_run(tmp_path / "agent", metrics=[*METRICS[:-2], eval_line(4, code=3.5), METRICS[-1]])
    report = make_report([control, agent])
    found = cell(report, "code", "agent")
    assert (found.nats_per_token, found.bits_per_byte, found.step) == (3.5, 1.75, 4)
    assert found.difference.value == pytest.approx(-0.5) and found.difference.verdict == "not compared"
    text = terminal(report)
    assert "agent and control have no evaluation.json with this slice (difference −0.5000 nats/token (−12.5 %))" in text
    assert "control was not evaluated: losses as measured during training after step 4" in text
    # other validation rows: no difference at all
    spec = json.loads(json.dumps(RECORD["identity"]["mixture"]))
    spec["validation"]["code"]["digest"] = "v2"
    other = write_run(tmp_path / "other", mixture=spec)
    assert math.isnan(cell(make_report([control, other]), "code", "other").difference.value)


def test_an_unknown_or_other_vocabulary_during_training_leaves_bits_per_byte(tmp_path):
    control = write_run(tmp_path / "control")
    other = write_run(tmp_path / "other", vocabulary="voc2")
    report = make_report([control, other])
    assert report.comparison.measure == "bits/byte"
    assert "Nats per token are left out: the runs have different vocabularies" in terminal(report)
    unknown = write_run(tmp_path / "unknown", record=None)
    assert "the vocabulary of unknown is not known" in make_report([control, unknown]).comparison.why_measure


def test_a_crashed_run(tmp_path):
    lines = [
        METRICS[0],
        train_line(1, None, bad=1),
        "{torn",
        "[]",
        '{"kind": "train", "step": "x"}',
        train_line(2, 5.0),
    ]
    report = make_report([write_run(tmp_path / "run", metrics=lines)])
    assert [point.loss for point in report.runs[0].metrics.train] == [None, 5.0]
    said = notes(report)
    assert "3 damaged line(s)" in said and "It stopped at step 2 of 4" in said and "1 step(s) were dropped" in said
    assert "No process of it ended by itself" in said and "no evaluation.json" in said
    text = terminal(report)
    assert "run: it stands alone" in text and "run: It stopped at step 2 of 4." in text


def test_a_model_that_is_only_a_hugging_face_folder(tmp_path):
    folder = tmp_path / "llama"
    write_run(folder, record=None, metrics=None, config=None)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "llama.json").write_text(json.dumps(evaluation({"code": records((0.0,))})))
    report = make_report([str(folder)], evaluations=str(tmp_path / "out"))
    assert cell(report, "code", "llama").nats_per_token == pytest.approx(5.0)
    assert report.runs[0].parameters == 12345 and report.runs[0].origin == {"model_type": "llama"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: "{",
        lambda value: json.dumps([]),
        lambda value: json.dumps({**value, "format": 2}),
        lambda value: json.dumps({**value, "slices": [1]}),
        lambda value: json.dumps(value).replace('"r003"', '"r002"'),
        lambda value: json.dumps(value).replace("50.0", "NaN", 1),
        lambda value: json.dumps({**value, "ranking": {"per_pair": {"id": ["a"], "group": [], "corruption": []}}}),
    ],
)
def test_a_damaged_evaluation_is_named_and_the_rest_reported(tmp_path, damage):
    folder = write_run(tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").write_text(damage(evaluation({"code": records((0.0,))})))
    report = make_report([folder])
    assert report.runs[0].evaluation is None and "evaluate again" in notes(report)
    assert cell(report, "code", "run").nats_per_token == 4.0  # of metrics.jsonl
    assert "evaluate again" in terminal(report)


def test_a_corruption_without_pairs(tmp_path):
    value = evaluation({"code": records((0.0,))}, {"wrong_function": [1.0] * 4})
    value["ranking"]["corruptions"]["missing_argument"] = {"pairs": 0, "accuracy": None}
    report = make_report([write_run(tmp_path / name, evaluated=value) for name in ("control", "agent")])
    found = cell(report, "missing_argument", "agent")
    assert math.isnan(found.low) and found.difference.why_not == "evaluation.json has no such pairs"
    assert "evaluation.json has no such pairs" in terminal(report)


def test_names_are_as_long_as_it_takes(tmp_path):
    paths = [write_run(tmp_path / folder / "agent") for folder in ("first", "second")]
    assert [run.name for run in make_report(paths).runs] == ["first/agent", "second/agent"]


def test_mistakes_are_one_line(tmp_path):
    run = write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    for paths, words in (
        ([], "no run to report on"),
        ([str(tmp_path / "nothing")], "there is no run at"),
        ([str(tmp_path / "empty")], "neither run.json, metrics.jsonl nor evaluation.json"),
        ([run, run + "/../run"], "is given twice"),
    ):
        with pytest.raises(UserError, match=words):
            make_report(paths)
    with pytest.raises(UserError, match="no corpus at"):
        make_report([run], corpus=str(tmp_path / "empty"))


def test_an_evaluation_of_another_step_is_told(tmp_path):
    value = evaluation({"code": records((0.0,))})
    fresh, stale = (write_run(tmp_path / name, evaluated=value) for name in ("fresh", "stale"))
    path = tmp_path / "stale" / "evaluation.json"
    changed = json.loads(path.read_text())
    changed["model"]["step"] = 2
    path.write_text(json.dumps(changed))
    text = terminal(make_report([fresh, stale]))
    assert text.count("is of step 2, and the run is at step 4: evaluate it again") == 1
