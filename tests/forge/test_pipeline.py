import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from mini_installation import ALPHA, write_installation, write_package

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge import pipeline, stages
from hephaestus_jax.forge.config import ForgeConfig
from hephaestus_jax.forge.holdout import Api
from hephaestus_jax.forge.hygiene.licences import is_permissive
from hephaestus_jax.forge.leaks import LeakScanner, held_out_of, scan_corpus
from hephaestus_jax.forge.ledger import table
from hephaestus_jax.forge.pipeline import build_corpus, without_duplicates
from hephaestus_jax.forge.stages import Finished
from hephaestus_jax.forge.work import WorkFolder
from hephaestus_jax.formats.records import ApiDoc, Document, Record, Trajectory
from hephaestus_jax.formats.store import Corpus
from hephaestus_jax.reports.corpus_report import write_corpus_report
from tools import build_corpus as command
from tools._command import run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_installation(tmp_path / "site")


@pytest.fixture
def only_frobnicate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Holds out the API that the installation uses everywhere, whatever the keyed choice would be."""
    choose = pipeline.choose

    def chosen(apis: list[Api], *arguments: object, **named: object) -> object:
        def blocked(api: Api) -> Api:  # a parameter of that name forbids it
            return dataclasses.replace(api, parameters=(*api.parameters, api.qualname.split(".")[0]))

        return choose([a if "frobnicate" in a.name else blocked(a) for a in apis], *arguments, **named)

    monkeypatch.setattr(pipeline, "choose", chosen)


def config(site: Path, **fields: object) -> ForgeConfig:
    values = {
        "sources": ("installed",),
        "packages": ("alpha", "beta"),
        "site_directories": (str(site),),
        "include_doctests": False,
        "workers": 1,
    }
    return ForgeConfig(**values | {"heldout_fraction": 0.2, "validation_fraction": 0.0} | fields)  # type: ignore[arg-type]


def records(corpus: Corpus, slice_name: str, split: str = "train") -> list[Record]:
    return [record for _, record in corpus.read(slice_name, split)]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def names(found: list[Record]) -> set[str]:
    return {record.name for record in found if isinstance(record, ApiDoc | Trajectory)}


def test_the_held_out_api_is_in_validation_and_nowhere_else(site: Path, tmp_path: Path, only_frobnicate: None) -> None:
    corpus = build_corpus(config(site), tmp_path / "c")
    assert names(records(corpus, "agent_docs", "validation")) == {"alpha.frobnicate_matrix"}
    train = names(records(corpus, "agent_docs"))
    assert "alpha.count_beans" in train and "alpha.UnravelledSpline.pull_apart_knots" in train
    documents = [record for name in ("code", "text") for record in records(corpus, name)]
    everything = "\n".join(record.text for record in documents if isinstance(record, Document))
    assert "frobnicate" not in everything and "settle(" not in everything and "SETTLED" not in everything
    assert "def count_beans" in everything and "def stir_soup_slowly" in everything and "taste_soup" not in everything
    assert "Beans are counted by hand." in everything and "Soup is stirred slowly" in everything
    assert "from alpha.settling import UnravelledSpline\n" in everything
    docs = [record for record in records(corpus, "agent_docs") if isinstance(record, ApiDoc)]
    weigh = next(record for record in docs if record.name == "alpha.weigh_beans")
    assert "frobnicate" not in weigh.description and "kitchen scale" in weigh.description
    assert weigh.provenance.processing == ("cut: 0 definitions of held-out APIs, 1 pieces that use or describe them",)
    held_out = held_out_of(corpus.directory)
    assert held_out.words == {"frobnicate_matrix", "settle"}
    assert list(scan_corpus(corpus, LeakScanner(held_out))) == []
    assert not (tmp_path / "c.work").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sandbox needs Linux")
def test_executed_examples_share_the_side_of_their_api(site: Path, tmp_path: Path, only_frobnicate: None) -> None:
    tasting = site / "beta" / "kitchen.py"
    examples = """
    >>> from alpha import frobnicate_matrix as settle
    >>> stir_soup_slowly(settle([[1], [2]]), 3)
    '[[2], [4]] stirred for 3 minutes'
    """
    stirred = 'minutes: for how long.\n    """'
    assert stirred in tasting.read_text()
    text = tasting.read_text().replace(stirred, stirred.removesuffix('"""') + examples.lstrip() + '"""')
    varying = "with which spoon.\n\n    >>> import time\n    >>> time.time_ns()"
    tasting.write_text(text.replace("with which spoon.", varying))
    corpus = build_corpus(config(site, include_doctests=True), tmp_path / "c")
    train, validation = (records(corpus, "agent_trajectories", split) for split in ("train", "validation"))
    assert names(train) == {"alpha.count_beans", "alpha.weigh_beans"}
    assert names(validation) == {"alpha.frobnicate_matrix"} and "[[2, 4], [6, 8]]" in str(validation[0])
    assert "frobnicate" not in str(train) and all(isinstance(r, Trajectory) and r.success for r in train)
    account = corpus.manifest["accounts"]["agent_trajectories"]
    reasons = {"trajectory uses a held-out API": 1, "doctest: no kept example uses the API and prints something": 1}
    assert account["read"] == 5 and account["dropped"] == reasons
    assert corpus.manifest["doctests"]["beta"]["dropped"] == {"differs": 1}
    assert corpus.manifest["doctests"]["alpha"]["docstrings"] == 3
    assert list(scan_corpus(corpus, LeakScanner(held_out_of(corpus.directory)))) == []


def test_the_manifest_accounts_for_everything(site: Path, tmp_path: Path, only_frobnicate: None) -> None:
    (site / "beta" / "broken.py").write_text("def broken(:\n")
    record = site / "beta-1.0.dist-info" / "RECORD"
    record.write_text(record.read_text() + "beta/broken.py,,\nbeta/missing.py,,\n")
    corpus = build_corpus(config(site), tmp_path / "c")
    manifest = corpus.manifest
    for name, account in manifest["accounts"].items():
        written = {split: corpus.count(name, split) for split in ("train", "validation")}
        assert account["records"] == written
        assert account["read"] == sum(account["dropped"].values()) + sum(written.values())
    cut = {name: account["cut"]["records"] for name, account in manifest["accounts"].items()}
    assert cut == {"agent_docs": 1, "agent_trajectories": 0, "code": 4, "text": 1}
    assert manifest["accounts"]["code"]["cut"]["text_bytes"] > 1000
    assert manifest["quarantine"]["counts"] == {"python syntax": 1, "unreadable file": 1}
    assert manifest["sources"]["beta"]["licence"].startswith("GPL") and manifest["sources"]["alpha"]["version"] == "1.0"
    assert sum(s["records"].get("code/train", 0) for s in manifest["sources"].values()) == corpus.count("code", "train")
    assert manifest["held_out"]["apis"] == 1 and "workers" not in manifest["configuration"]
    assert "agent_docs" in table(corpus) and "MB of text" in table(corpus)


def test_the_bytes_do_not_depend_on_the_workers(site: Path, tmp_path: Path) -> None:
    options = {"validation_fraction": 0.2, "heldout_fraction": 0.3, "seed": 2}
    build_corpus(config(site, **options), tmp_path / "one")
    build_corpus(config(site, workers=2, **options), tmp_path / "two")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    folders = {file.rpartition("/")[0] for file in digests(tmp_path / "one")}
    assert {"agent_docs/train", "agent_docs/validation", "code/train"} <= folders


class Killed(Exception):
    """The end of a build."""


def test_a_killed_build_goes_on_where_it_was(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_corpus(config(site), tmp_path / "whole")
    read: Counter[str] = Counter()
    finished: Counter[str] = Counter()
    real_read, real_finish = stages.read, stages.finish
    deaths = iter(["read", "finish", ""])
    death = ""

    def read_or_die(unit, options):  # type: ignore[no-untyped-def]
        if death == "read" and read:
            raise Killed
        read[unit.name] += 1
        return real_read(unit, options)

    def finish_or_die(contents, *arguments):  # type: ignore[no-untyped-def]
        if death == "finish" and finished:
            raise Killed
        finished[contents.documents[0].provenance.source] += 1
        return real_finish(contents, *arguments)

    monkeypatch.setattr(stages, "read", read_or_die)
    monkeypatch.setattr(stages, "finish", finish_or_die)
    for death in deaths:
        if death:
            with pytest.raises(Killed):
                build_corpus(config(site), tmp_path / "resumed")
            assert not (tmp_path / "resumed").exists()
        else:
            build_corpus(config(site), tmp_path / "resumed")
    assert read == {"alpha": 1, "beta": 1} and finished == {"alpha": 1, "beta": 1}
    assert digests(tmp_path / "resumed") == digests(tmp_path / "whole")


def test_work_is_not_reused_for_what_changed(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "write_sorted_corpus", die)
        with pytest.raises(KeyboardInterrupt):
            build_corpus(config(site), tmp_path / "c")
    counting = site / "alpha" / "counting.py"
    counting.write_text(counting.read_text().replace("kitchen scale", "bathroom scale"))
    corpus = build_corpus(config(site), tmp_path / "c")
    found = " ".join(str(record) for record in records(corpus, "agent_docs"))
    assert "bathroom scale" in found and "kitchen scale" not in found


def test_copies_are_dropped_and_counted(site: Path, tmp_path: Path) -> None:
    copied = {file.replace("alpha", "gamma"): text for file, text in ALPHA.items()}
    copied["gamma/counting.py"] += "\n        GRAMS = 1\n"
    write_package(site, "gamma", copied)
    corpus = build_corpus(config(site, packages=("alpha", "gamma"), heldout_fraction=0.0), tmp_path / "c")
    dropped = corpus.manifest["accounts"]["code"]["dropped"]
    assert dropped == {"exact duplicate": 2, "near-duplicate": 1}
    assert {r.provenance.source for r in records(corpus, "code")} == {"alpha"}


def test_near_duplicate_apis_share_a_side_across_packages(site: Path, tmp_path: Path) -> None:
    copied = {file.replace("alpha", "gamma"): text.replace("alpha", "gamma") for file, text in ALPHA.items()}
    write_package(site, "gamma", copied)
    for seed in range(4):
        corpus = build_corpus(config(site, packages=("alpha", "gamma"), seed=seed), tmp_path / f"c{seed}")
        held = {name.split(".", 1)[1] for name in names(records(corpus, "agent_docs", "validation"))}
        trained = {name.split(".", 1)[1] for name in names(records(corpus, "agent_docs", "train"))}
        assert held and not held & trained


def test_a_validation_file_gives_training_nothing(site: Path, tmp_path: Path) -> None:
    sides = Counter[str]()
    for seed in range(6):
        options = {"validation_fraction": 0.4, "heldout_fraction": 0.0, "seed": seed}
        corpus = build_corpus(config(site, **options), tmp_path / f"c{seed}")
        validation = {stages.file_of(r.provenance.path) for r in records(corpus, "code", "validation")}
        train = [r for name in ("agent_docs", "code", "text") for r in records(corpus, name)]
        assert validation.isdisjoint(stages.file_of(r.provenance.path) for r in train)
        sides.update(validation)
        reason = "stands in a file whose code is validation"
        lost = corpus.manifest["accounts"]["agent_docs"]["dropped"].get(reason, 0)
        assert lost == corpus.manifest["accounts"]["agent_docs"]["read"] - corpus.count("agent_docs", "train")
    assert len(sides) >= 2  # not always the same


def test_validation_documents_are_whole(site: Path, tmp_path: Path, only_frobnicate: None) -> None:
    corpus = build_corpus(config(site, validation_fraction=0.5, seed=1), tmp_path / "c")
    found = [r for name in ("code", "text") for r in records(corpus, name, "validation")]
    assert any("frobnicate" in r.text for r in found if isinstance(r, Document))
    assert all(not r.provenance.processing for r in found)


def test_sampling_takes_a_part_and_counts_the_rest(site: Path, tmp_path: Path) -> None:
    whole = build_corpus(config(site), tmp_path / "whole").manifest["accounts"]
    part = build_corpus(config(site, sample=0.5, seed=3), tmp_path / "part").manifest["accounts"]
    for name in ("agent_docs", "code"):
        assert part[name]["read"] == whole[name]["read"]
        assert 0 < part[name]["dropped"]["not in the sample"] < part[name]["read"]


def test_licences(site: Path, tmp_path: Path) -> None:
    corpus = build_corpus(config(site, licence_policy="permissive"), tmp_path / "c")
    assert list(corpus.manifest["sources"]) == ["alpha"] and list(corpus.manifest["refused_licences"]) == ["beta"]
    assert is_permissive("MIT OR GPL-3.0-only") and is_permissive("(MIT AND BSD-3-Clause)")
    assert not is_permissive("MIT AND GPL-3.0-only") and not is_permissive("unknown")


def test_records_that_say_the_same_are_kept_once_and_validation_has_them() -> None:
    first = Finished(summaries={("code", "train"): [("a", 1), ("b", 1), ("a", 1)]})
    second = Finished(summaries={("code", "train"): [("b", 1)], ("code", "validation"): [("a", 1)]})
    kept = without_duplicates({"p": first, "q": second})
    assert kept["p", ("code", "train")] == [1] and kept["q", ("code", "train")] == []
    assert kept["q", ("code", "validation")] == [0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sample": 0.0}, "sample is 0.0"),
        ({"heldout_fraction": 0.7}, "heldout_fraction is 0.7"),
        ({"workers": 0}, "workers must be 1 or more"),
        ({"packages": ()}, "packages is empty"),
        ({"licence_policy": "free"}, "must be one of permissive, stated, any"),
    ],
)
def test_impossible_configurations_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ForgeConfig(**fields)  # type: ignore[arg-type]


def test_folders_that_hold_something_else_are_not_replaced(site: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("…")
    with pytest.raises(UserError, match="is no corpus"):
        build_corpus(config(site), tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.tex").exists()


def build(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.build_corpus", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def overrides(site: Path, **fields: object) -> list[str]:
    values = {
        "sources": ("installed",),
        "packages": ("alpha", "beta"),
        "site_directories": (str(site),),
        "include_doctests": False,
    } | fields
    return [f"--gin.ForgeConfig.{name}={value!r}" for name, value in values.items()]


def test_the_command_builds_and_prints_a_table(site: Path, tmp_path: Path) -> None:
    done = build("--config", "gin/corpora/installed.gin", "--out", tmp_path / "c", *overrides(site), "--gin.WORKERS=1")
    assert done.returncode == 0, done.stderr
    assert "agent_docs          train" in done.stdout and "peak memory" in done.stdout and "GB" in done.stdout
    assert Corpus(tmp_path / "c").count("code", "train") > 0
    assert json.loads((tmp_path / "c" / "heldout.json").read_text())["families"] == []  # 2 % of 6 is none


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["read-facts", "clean-index", "finished-facts"])
def test_a_build_that_is_killed_outright_resumes_to_the_same_bytes(site: Path, tmp_path: Path, stage: str) -> None:
    options = overrides(site, workers=2, heldout_fraction=0.3)
    arguments = ["--config", "gin/corpora/installed.gin", *options, "--out"]
    command = [sys.executable, "-m", "tools.build_corpus", *arguments, str(tmp_path / "killed")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not list((tmp_path / "killed.work" / stage).glob("*.pickle")):
        time.sleep(0.002)
    process.kill()
    process.wait()
    for _ in range(500):  # its workers must not be left behind
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.05)
    else:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail("workers outlive a build that was killed")
    assert build(*arguments, tmp_path / "killed").returncode == 0
    corpus = build_corpus(config(site, heldout_fraction=0.3, validation_fraction=0.01), tmp_path / "undisturbed")
    write_corpus_report(corpus, tmp_path / "undisturbed" / "corpus_report.html")
    assert digests(tmp_path / "killed") == digests(tmp_path / "undisturbed")
    assert not (tmp_path / "killed.work").exists()


def test_two_builds_of_one_corpus_do_not_mix(site: Path, tmp_path: Path) -> None:
    with WorkFolder(tmp_path / "c.work").locked(), pytest.raises(UserError, match="in use by another build"):
        build_corpus(config(site), tmp_path / "c")
    assert build_corpus(config(site), tmp_path / "c").count("code", "train")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gin.ForgeConfig.packages=('nowhere',)"], "not installed: nowhere"),
        (["--gin.ForgeConfig.smaple=0.1"], "did you mean sample?"),
        (["--gin.WROKERS=1"], "did you mean WORKERS?"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["build_corpus", "--config", "gin/corpora/installed.gin", "--out", str(tmp_path / "c"), *arguments]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        run(command.main)
    errors = capsys.readouterr().err
    assert ended.value.code == 2 and message in errors and errors.count("\n") == 1, errors
    assert not (tmp_path / "c.work").exists()


def test_a_mistake_ends_the_process_too(tmp_path: Path) -> None:
    done = build("--config", "gin/corpora/installed.gin", "--out", tmp_path / "c", "--gin.WORKERS=many")
    assert done.returncode == 2 and "workers is 'many'" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "c.work").exists()
