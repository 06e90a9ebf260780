import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.cutting import Cutter, Matcher
from hephaestus_jax.forge.holdout import Family, HeldOut
from hephaestus_jax.forge.leaks import Leak, LeakScanner, held_out_of, scan_corpus, scan_texts, summary
from hephaestus_jax.formats.records import (
    ApiAction,
    ApiDoc,
    ApiError,
    ApiExample,
    CodeAction,
    Document,
    MessageAction,
    Provenance,
    Record,
    TextObservation,
    Tool,
    Trajectory,
    identify,
    record_id,
    slice_of,
)
from hephaestus_jax.formats.store import Corpus, write_corpus

DOCSTRING = """Frobnicates every row of the given matrix until its trace has finally settled down.

Args:
  matrix: the rows of numbers that are to be settled, at least two of them.
"""
HELD_OUT = HeldOut(
    (
        Family(("pkg.core.frob_matrix",), ("pkg.frob_matrix",), ("frob_matrix",), (DOCSTRING,)),
        Family(("pkg.Unraveller", "pkg.Unraveller.pull_knots"), (), ("Unraveller", "pull_knots"), ("Short.",)),
    ),
    common=("rows of numbers that are to be settled",),
)
SCANNER = LeakScanner(HELD_OUT)
ORIGIN = Provenance("other", "1", "MIT", "example.org", "frob_matrix.py")


def code(text: str) -> Document:
    return Document(text, "code", ORIGIN, "python")


def prose(text: str) -> Document:
    return Document(text, "text", ORIGIN, "en")


def doc(**fields: object) -> ApiDoc:
    return ApiDoc(**{"name": "o.f", "provider": "o", "description": "Fine.", "provenance": ORIGIN} | fields)  # type: ignore[arg-type]


def trajectory(*steps: object, **fields: object) -> Trajectory:
    return Trajectory((*steps, TextObservation("done", "environment")), ORIGIN, **fields)  # type: ignore[arg-type]


def write(directory: Path, train: Iterable[Record], held_out: HeldOut = HELD_OUT) -> Corpus:
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in train:
        groups.setdefault((slice_of(record), "train"), []).append(record)
    groups["text", "validation"] = [prose("Validation may name frob_matrix.")]
    corpus = write_corpus(directory, groups, {})
    (directory / "heldout.json").write_text(json.dumps(held_out.to_json()))
    return corpus


CLEAN = [
    code("def frob_matrix_all(x):\n    return x._frob_matrix, x.frob_matrix2, Frob_Matrix, unraveller\n"),
    prose("Each row of a given matrix, until its trace has settled."),
    prose("Now rows of numbers that are to be settled, as everybody says."),
    doc(),
    trajectory(CodeAction("python", "import pkg\npkg.core.other(1)")),
]
PLANTED = [
    ("definition", code("import os\n\ndef frob_matrix(matrix, patience=3):\n    return matrix\n")),
    ("definition", code("class Unraveller(Base):\n    pass\n")),
    ("definition", code("class Other:\n    async def pull_knots(self): ...\n")),
    ("re-export", code("from pkg.core import other, frob_matrix\n")),
    ("re-export", code("from pkg.core import (\n    other,\n    frob_matrix as f,\n)\n")),
    ("re-export", code("__all__ = [\n    'other',\n    'frob_matrix',\n]\n")),
    ("re-export", code('x = getattr(pkg, "frob_matrix")\n')),
    ("call", code("import pkg as p\ny = p.frob_matrix([[1]])\n")),
    ("call", code("y = self.tool.pull_knots ()\n")),
    ("dotted name", code("settle = pkg.core.frob_matrix\nsettle(1)\n")),
    ("name", code("# frob_matrix is used below\n")),
    ("name", prose("The function `frob_matrix` settles matrices.")),
    ("name", prose("An escaped frob\\_matrix settles matrices.")),
    ("call", code("USAGE = 'first\\nfrob_matrix(m)'\n")),
    ("name", code("PATTERN = r'\\bfrob_matrix\\b'\n")),
    ("docstring", code("USAGE = 'Every row of the given\\nmatrix until its\\ttrace has'\n")),
    ("docstring", code(f'def settle(m):\n    """{DOCSTRING}"""\n')),
    ("docstring", code("# Every row of the given\n#   matrix until its trace HAS finally\n")),
    ("docstring", prose("It frobnicates every row, of `the given matrix`, until its trace...")),
    ("docstring", doc(description="A near-duplicate: every row of the given matrix until its trace has gone.")),
    ("docstring", doc(errors=(ApiError("E", "The given matrix until its trace has finally settled"),))),
    ("call", doc(examples=(ApiExample("pkg.frob_matrix(1)"),))),
    ("call", doc(examples=(ApiExample("f(1)", "see frob_matrix(1)"),))),
    ("name", doc(parameters={"type": "object", "properties": {"frob_matrix": {}}})),
    ("name", doc(returns={"items": [{"x-python-type": "Unraveller"}]})),
    ("dotted name", doc(name="pkg.frob_matrix")),
    ("call", trajectory(CodeAction("python", "from pkg import *\nfrob_matrix(1)"))),
    ("dotted name", trajectory(ApiAction("pkg.frob_matrix", {"matrix": [[1]]}))),
    ("dotted name", trajectory(ApiAction("o.f", {"function": {"name": ["pkg.frob_matrix"]}}))),
    ("name", trajectory(MessageAction("I would use frob_matrix."))),
    ("docstring", trajectory(TextObservation(DOCSTRING, "environment"))),
    ("dotted name", trajectory(tools=(Tool("pkg.frob_matrix", "x"),))),
    ("docstring", trajectory(tools=(Tool("o.settle", DOCSTRING),))),
    ("call", trajectory(details={"setup": "frob_matrix(2)"})),
]


def test_clean_records_show_nothing(tmp_path: Path) -> None:
    assert list(scan_corpus(write(tmp_path / "c", CLEAN), SCANNER)) == []


@pytest.mark.parametrize(("kind", "record"), PLANTED)
def test_planted_leaks_are_found(kind: str, record: Record) -> None:
    leaks = SCANNER.scan_record(*identify(record))
    assert kind in {leak.kind for leak in leaks}
    assert all(leak.trace in leak.context or leak.kind == "docstring" or "\n" in leak.context for leak in leaks)


def test_every_planted_record_is_named_in_a_corpus(tmp_path: Path) -> None:
    records = [*CLEAN, *(record for _, record in PLANTED)]
    leaks = list(scan_corpus(write(tmp_path / "c", records), SCANNER))
    found = {leak.place.split()[1] for leak in leaks}
    assert found == {record_id(record) for _, record in PLANTED}
    assert summary(leaks).startswith(f"{len(leaks):,} leaks: ")
    assert summary([]) == "0 leaks"


def test_provenance_is_not_training_text() -> None:
    assert ORIGIN.path == "frob_matrix.py" and SCANNER.scan_record(*identify(CLEAN[0])) == []


def test_an_empty_list_finds_nothing() -> None:
    assert LeakScanner(HeldOut()).scan("frob_matrix" + DOCSTRING, "here") == []


def test_decoded_texts() -> None:
    leaks = list(scan_texts([("row 1", "all well"), ("row 2", "x = frob_matrix(1)")], 2, SCANNER))
    assert leaks == [Leak("row 2", "call", "frob_matrix", "x = frob_matrix(1)")]


def test_the_scan_finds_what_the_cutter_would_cut_and_the_other_way_round() -> None:
    cutter = Cutter(HELD_OUT)
    for record in CLEAN:
        assert cutter.cut(record) is record
    for _, record in PLANTED:
        assert cutter.cut(record) is not record


_PIECES = [
    *("every", "Row", "of the", "given", "\\Nu", "\\nu", "matrix", "until", "its", "trace", "frob", "_matrix"),
    *("\\_matrix", " ", " ", " ", "\n", ", ", "\\n", "\\", "_", "-", "1", "(", "İ", "é"),
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(_PIECES), min_size=1, max_size=40), st.lists(st.sampled_from(_PIECES), max_size=40))
def test_scan_and_cutter_agree_on_what_a_leak_is(docstring: list[str], text: list[str]) -> None:
    base = "every row of the given matrix until its trace has settled "
    held_out = HeldOut((Family(("p.f",), (), ("frob_matrix",), (base + "".join(docstring), "Ωmega \\Nabla " + base)),))
    scanner = LeakScanner(held_out)
    assert set(scanner._windows) == held_out.windows
    for candidate in ("".join(text), "".join(docstring), base.upper() + "".join(text), "x" + "".join(docstring)):
        assert bool(scanner.scan(candidate, "here")) == Matcher(held_out).matches(candidate)


def test_missing_and_damaged_lists(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"heldout\.json does not exist"):
        held_out_of(tmp_path)
    (tmp_path / "heldout.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        held_out_of(tmp_path)


def scan(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.scan_leaks", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])


def test_the_command_reports_by_exit_status(tmp_path: Path) -> None:
    write(tmp_path / "clean", CLEAN)
    clean = scan("--corpus", tmp_path / "clean")
    assert (clean.returncode, clean.stdout) == (0, "0 leaks\n"), clean.stderr
    write(tmp_path / "planted", [*CLEAN, PLANTED[0][1]])
    planted = scan("--corpus", tmp_path / "planted")
    assert planted.returncode == 1 and "definition of 'frob_matrix'" in planted.stdout
    assert planted.stdout.endswith("1 leaks: 1 definition\n")
    missing = scan("--corpus", tmp_path / "nothing")
    assert missing.returncode == 2 and missing.stderr.startswith("error: ") and missing.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("sentencepiece")
    from hephaestus_jax.data.sentencepiece_training import VocabularyConfig, train_sentencepiece

    out = tmp_path_factory.mktemp("vocabulary")
    train_sentencepiece([str(record) for record in CLEAN] * 5, out, VocabularyConfig(size=330))
    return str(out)


def scan_built_cache(directory: Path, vocabulary: str, documents: list[Document], length: int) -> list[Leak]:
    """Builds a real cache of the documents, metadata included, and scans its rows."""
    from hephaestus_jax.data.cache import Cache
    from hephaestus_jax.data.cache_build import build_cache
    from hephaestus_jax.data.task import CorpusSource, RenderedTask
    from hephaestus_jax.data.vocabularies import load_vocabulary
    from hephaestus_jax.formats.documents import CodeRenderer
    from tools.scan_leaks import scan_cache

    write(directory / "corpus", [dataclasses.replace(document, slice="code") for document in documents])
    source = CorpusSource(str(directory / "corpus"), "code", "train")
    task = RenderedTask("planted", "train", source, CodeRenderer(metadata=True), vocabulary)
    built = build_cache(task, directory / "caches", length)
    return list(scan_cache(Cache.open(str(built.path)), load_vocabulary(vocabulary), SCANNER))


def test_leaks_in_cache_rows_are_found(tmp_path: Path, vocabulary: str) -> None:
    clean = [record for record in CLEAN if isinstance(record, Document)]
    assert scan_built_cache(tmp_path / "clean", vocabulary, clean, 64) == []
    leaks = scan_built_cache(tmp_path / "planted", vocabulary, [*clean, code("y = p.frob_matrix([[1]])\n")], 64)
    assert [(leak.kind, leak.trace) for leak in leaks] == [("call", "frob_matrix")]
    assert "planted row" in leaks[0].place


@pytest.mark.parametrize("text", ["x frob_matrix y", f"x {DOCSTRING[:80]} y"])
def test_leaks_cut_in_two_by_the_end_of_a_row_are_found(tmp_path: Path, vocabulary: str, text: str) -> None:
    at_seam = 0
    for padding in range(30, 60, 3):
        document = code("." * padding + text + "." * 60)
        leaks = scan_built_cache(tmp_path / str(padding), vocabulary, [document], 64)
        assert leaks, padding
        at_seam += all("begins" in leak.place for leak in leaks)
    assert at_seam  # some fell on a seam alone


def test_dataclasses_of_leaks_print_as_one_line() -> None:
    leak = SCANNER.scan("a\nb\nfrob_matrix\nc", "here")[0]
    assert "\n" not in str(leak) and dataclasses.asdict(leak)["trace"] == "frob_matrix"


def test_half_a_word_at_the_edge_of_what_is_looked_at_is_no_name():
    from tools.scan_leaks import SEAM, _head, _tail

    cut_in = "Frob" + "nicate(" + "x" * (SEAM - len("nicate("))
    assert _tail(cut_in) == "(" + "x" * (SEAM - len("nicate("))
    assert _head("x" * (SEAM - 3) + " Frobnicate") == "x" * (SEAM - 3) + " "
    assert _tail("Frobnicate()") == _head("Frobnicate()") == "Frobnicate()"
