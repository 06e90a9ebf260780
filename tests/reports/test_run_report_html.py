"""The page: its figures by value, nothing from elsewhere, nothing hostile, nothing that makes it fail."""

import copy
import json
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tools.report
from hephaestus_jax.formats.records import Document, Provenance
from hephaestus_jax.formats.store import write_corpus
from hephaestus_jax.reports.run_report import make_report, terminal
from hephaestus_jax.reports.run_report_html import SECTIONS, html_page
from tests.reports.page_reader import Page
from tests.reports.run_folders import CONFIG, METRICS, RECORD, evaluation, records, write_pair, write_run
from tools._command import run as run_tool


def page_of(*arguments, **options):
    return Page("".join(html_page(make_report(list(arguments), **options))))


def test_the_tables_of_losses_and_rankings(tmp_path):
    page = page_of(*write_pair(tmp_path))
    losses = page.tables["losses"]
    assert losses[0] == ["run", "nats/token", "bits/byte", "relative", "difference (nats/token)",
                         "95 % interval (nats/token)", "verdict", "records", "tokens"]  # fmt: skip
    assert losses[1] == ["agent_docs documentation of held-out APIs"]
    assert losses[2] == ["control", "5.0000", "2.4045", "", "", "", "baseline", "24", "240"]
    assert losses[3][:5] == ["agent", "4.5000", "2.1640", "−10.0 %", "−0.5000"]
    assert re.fullmatch(r"−0\.5\d\d\d to −0\.4\d\d\d", losses[3][5]) and losses[3][6:] == ["▲ better", "24", "240"]
    assert [row[6] for row in losses if row[0] == "agent"] == ["▲ better", "▼ worse", "= no difference shown"]
    ranking = [row for row in page.tables["ranking"] if row[0] == "agent"]
    assert [row[1] for row in ranking[:3]] == ["100.0", "50.0", "75.0"] and ranking[0][3] == "+50.0"
    assert [row[-1] for row in ranking[:3]] == ["12", "12", "24"]
    assert [row[1] for row in page.tables["ranking"] if row[0] == "(trivial rule)"] == ["37.5"] * 3
    other = page.tables["ranking"].index(["run", "total (%)", "per byte (%)"])
    assert page.tables["ranking"][other + 1] == ["wrong function without a model: shorter call 37.5 %"]
    assert page.tables["ranking"][other + 2] == ["control", "62.5", "87.5"]
    assert "trivial rule: the shorter call wins" in page.sections["ranking"]


def test_the_verdict_comes_first_and_says_costs_and_limits(tmp_path):
    page = page_of(*write_pair(tmp_path))
    assert next(iter(page.sections)) == "verdict" and list(page.sections) == [name for name, _, _ in SECTIONS]
    verdict, limits = page.sections["verdict"], page.sections["limits"]
    assert "agent against control: of 3 slices, better on 1 (agent_docs), worse on 1 (code), no difference" in verdict
    for heading in ("Better than control", "Cost: worse than control", "Not achieved: no gain over control shown"):
        assert heading in verdict
    assert (
        "12,345 parameters, and no run here took more than 1,024 tokens" in limits
        and "control seed 3, agent seed 3" in limits
    )
    assert "There are 6 intervals here, each of 95 %: if nothing differed at all, about 0.3" in limits
    assert "trained on the same mixture and differ otherwise: schedule.peak" in limits


def test_curves_mixture_throughput_configuration_provenance(tmp_path):
    page = page_of(*write_pair(tmp_path))
    mixture = page.tables["mixture"]  # 4 steps of 4 rows: a quarter of 16 rows of 64 tokens is documentation
    assert mixture[1] == ["control mixture agent_code, 4 steps"]
    assert mixture[2][:6] == ["agent_docs", "25.0 %", "4", "0.400", "256", "10"]
    assert mixture[3][:6] == ["code", "75.0 %", "12", "0.300", "768", "40"]
    speed = page.tables["throughput"][1]  # 256 tokens a step of 2 s
    assert speed == ["control", "4", "1,024", "800", "128", "100", "2.000", "8 s", "–", "25.0 %", "–"]
    assert ["train", "75.0", "75.0"] in page.tables["throughput"]
    assert page.tables["configuration"] == [["setting", "control", "agent"], ["ScheduleConfig.peak", "0.001", "0.002"]]
    complete = [text for text in page.pre if "TrainConfig.batch_size = 4\n" in text]
    assert len(complete) == 2 and "ScheduleConfig.peak = 0.002" in complete[1] and "mark" in page.tags
    provenance = {row[0]: row[1:] for row in page.tables["provenance"]}
    assert provenance["digest of model"] == ["d" * 32] * 2 and provenance["version of jax"] == ["0.10.2"] * 2
    assert provenance["parameters"] == ["12,345"] * 2 and provenance["began with"] == ["scratch, seed 3"] * 2


def test_the_curve_of_held_out_loss_lies_where_its_values_are(tmp_path):
    lines = [{**line, "code/nats_per_token": 5.5} if line.get("step") == 0 else line for line in METRICS]
    middle = {"kind": "eval", "step": 1, "code/nats_per_token": 5.0, "code/bits_per_byte": 2.0}
    text = "".join(html_page(make_report([write_run(tmp_path / "run", metrics=[*lines, middle])])))
    figure = text[text.index("Held-out loss: code") :].partition("</figure>")[0]
    path = re.search(r"class='line s0' d='M([\d. L]+)'", figure)[1]
    (x0, y0), (x1, y1), (x4, y4) = (tuple(map(float, point.split())) for point in path.split("L"))
    assert (x1 - x0) / (x4 - x0) == pytest.approx(1 / 4, abs=0.01)  # steps 0, 1, 4
    assert (y1 - y0) / (y4 - y0) == pytest.approx((5.5 - 5.0) / (5.5 - 4.0), abs=0.01)
    assert y4 > y0  # down the page
    assert "tokens of the run, padding included" in figure and "nats/token" in figure and ">run</text>" in figure


def test_different_vocabularies_are_compared_in_bits_per_byte_only(tmp_path):
    control = write_run(tmp_path / "control", evaluated=evaluation({"code": records((0.0,))}))
    other = evaluation({"code": records((0.0,))}, vocabulary="voc2")
    page = page_of(control, write_run(tmp_path / "other", evaluated=other))
    assert page.tables["losses"][0][:4] == ["run", "bits/byte", "relative", "difference (bits/byte)"]
    assert page.tables["losses"][3][-3:] == ["? not compared", "24", "240"]
    assert (
        "Losses are compared in bits per byte, because the runs have different vocabularies" in page.sections["losses"]
    )
    assert "Training loss is left out" in page.sections["curves"] and "nats/token" not in page.sections["curves"]


def test_the_corpus(tmp_path):
    def document(text, source, licence):
        provenance = Provenance(source=source, version="1.0", licence=licence, path=text)
        return Document(text=text, slice="code", language="python", provenance=provenance)

    train = [document(f"x = {n}\n", "small", "MIT") for n in range(3)] + [document("y" * 5000, "large", "BSD")]
    about = {
        "accounts": {"code": {"text_bytes": {"train": 2_500_000}}},
        "held_out": {"apis": 39, "families": 32, "rule": "by <hash>"},
        "sources": {
            "small": {"version": "1.0", "licence": "MIT", "records": {"code/train": 3}},
            "large": {"version": "2.0", "licence": "BSD", "records": {"code/train": 1}},
        },
    }
    write_corpus(tmp_path / "corpus", {("code", "train"): train}, about)
    page = page_of(write_run(tmp_path / "run"), corpus=str(tmp_path / "corpus"))
    table = page.tables["corpus"]
    assert table[1][:4] == ["code", "train", "4", "2.50"]
    assert table[2] == ["package", "version", "licence", "code (records)", "records (MB as JSON)"]
    assert table[3] == ["large", "2.0", "BSD", "1", "0.01"]  # 5 kB
    assert table[4][:4] == ["small", "1.0", "MIT", "3"]
    assert table[6:] == [["MIT", "1", "3"], ["BSD", "1", "1"]]
    assert "39 APIs of 32 families are held out" in page.sections["corpus"] and "by <hash>" in page.sections["corpus"]


HOSTILE = "</pre></title><script>alert(1)</script><img src=x onerror=y>'\"&\x1b[31m\u202e\x00"


CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f\u202e]")


def test_hostile_text_stays_text(tmp_path):
    value = evaluation({"code<img>": records((0.0,))}, {"wrong<img>": [1.0] * 5})
    value["samples"] = [{"prompt": HOSTILE, "completion": HOSTILE, "temperature": HOSTILE}]
    value["groups"] = HOSTILE
    value["ranking"] |= {
        "normalisation": HOSTILE,
        "examples": [dict.fromkeys(("api", "prompt", "gold", "corrupted"), HOSTILE)],
    }
    name = "run<script>alert(2)<"
    path = write_run(tmp_path / name, evaluated=value, config=CONFIG + f"X.y = {HOSTILE!r}\n", init_from=HOSTILE)
    report = make_report([path], title=HOSTILE)
    text = "".join(html_page(report))
    page = Page(text)
    assert not page.tags & {"script", "img", "link", "iframe"}
    assert not CONTROLS.search(text) and "␛[31m⟨U+202E⟩␀" in text
    assert any(pre.startswith("</pre></title><script>alert(1)") for pre in page.pre)
    assert not CONTROLS.search(terminal(report))
    for name, value in page.attributes:
        assert not name.startswith("on") and (name not in ("src", "href") or value.startswith("#"))
    assert "http" not in text.partition("<body>")[0]


def test_a_run_alone_with_nothing_but_metrics(tmp_path):
    page = page_of(write_run(tmp_path / "run", record=None, config=None, metrics=METRICS[:3]))
    assert "stands alone" in page.sections["verdict"] and "There is no run.json" in page.sections["verdict"]
    assert "No call was ranked" in page.sections["ranking"] and "No sample" in page.sections["samples"]
    assert "No corpus was named" in page.sections["corpus"] and "No run says" in page.sections["mixture"]
    assert "steps of the run" in page.sections["curves"]


EXAMPLES = 80
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def places(value, path=()):
    """Every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_no_damage_makes_it_fail(tmp_path_factory, data):
    slices = {"code": records((0.0, 0.1), groups=2)}
    files = {"run.json": RECORD, "evaluation.json": evaluation(slices, {"wrong_function": [1.0, -1.0]})}
    files |= {f"line {number}": line for number, line in enumerate(METRICS)}
    damaged = data.draw(st.sampled_from(sorted(files)))
    value = copy.deepcopy(files[damaged])
    path = data.draw(st.sampled_from(list(places(value))))
    new = data.draw(JSON)
    if not path:
        value = new
    else:
        inner = value
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = new
    files[damaged] = value
    folder = tmp_path_factory.mktemp("runs")
    whole = write_run(folder / "whole", evaluated=evaluation(slices, {"wrong_function": [1.0, -1.0]}))
    metrics = [files[f"line {number}"] for number in range(len(METRICS))]
    run = write_run(folder / "damaged", record=None, metrics=metrics, evaluated=files["evaluation.json"])
    (folder / "damaged" / "run.json").write_text(json.dumps(files["run.json"]))
    report = make_report(data.draw(st.permutations([whole, run])))
    assert terminal(report)
    Page("".join(html_page(report)))


def test_the_command(tmp_path, capsys, monkeypatch):
    pair = write_pair(tmp_path)
    out = tmp_path / "new" / "report.html"
    monkeypatch.setattr(sys, "argv", ["report", *pair, "--title", "Mine", "--out", str(out)])
    run_tool(tools.report.main)
    printed = capsys.readouterr().out
    assert printed.startswith("Mine\n") and f"wrote {out} (" in printed
    assert Page(out.read_text("utf-8")).tables["losses"][2][1] == "5.0000"
    monkeypatch.setattr(sys, "argv", ["report", *pair, "--out", str(tmp_path / "control")])
    with pytest.raises(SystemExit, match="2"):
        run_tool(tools.report.main)
    assert re.fullmatch(r"error: cannot write .*control: .*; give --out another file\n", capsys.readouterr().err)


def test_jax_is_not_imported():
    program = "import sys, tools.report; sys.exit(any(name in sys.modules for name in ('jax', 'tensorflow', 'pandas')))"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
