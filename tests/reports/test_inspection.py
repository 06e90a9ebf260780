"""Rows of real caches, decoded; found by number, by record id and by text; and the command over them."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel

from hephaestus_jax.data.cache import Cache
from hephaestus_jax.data.cache_build import build_cache
from hephaestus_jax.data.mixture import open_mixture
from hephaestus_jax.data.mixture_spec import MixtureSpec, Stage, save_mixture_spec
from hephaestus_jax.data.task import CorpusSource, RenderedTask
from hephaestus_jax.data.vocabularies import load_vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.documents import CodeRenderer, TextRenderer
from hephaestus_jax.formats.records import Document, Provenance, record_id
from hephaestus_jax.formats.store import Corpus, write_corpus
from hephaestus_jax.reports import inspection as inspection_module
from hephaestus_jax.reports.inspection import Inspection, inspected_tokens, with_paths
from tools import inspect as tool

ROOT = Path(__file__).parents[2]
LENGTH = 48


def document(number, slice_name):
    text = f"{slice_name} number {number}: é and 你好 🙂, " + "x" * (number % 60)
    return Document(text, slice_name, Provenance(f"{slice_name}-{number % 3}", "1", "MIT", "h.org", f"file:{number}"))


RECORDS = {slice_name: [document(number, slice_name) for number in range(60)] for slice_name in ("code", "text")}


def write_vocabulary(path, extra=()):
    """A byte-level tokenizer.json with two control tokens."""
    vocabulary = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    added = [
        {
            "id": 256 + i,
            "content": content,
            "special": True,
            **dict.fromkeys(("single_word", "lstrip", "rstrip"), False),
        }
        for i, content in enumerate(("<|begin_of_text|>", "<|end_of_text|>", *extra))
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    spec = {"version": "1.0", "added_tokens": [{**token, "normalized": False} for token in added], "normalizer": None}
    spec.update(pre_tokenizer=byte_level, post_processor=None, decoder=byte_level, truncation=None, padding=None)
    path.write_text(json.dumps({**spec, "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}))
    return str(path)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A mixture of two tasks over a corpus; its folder."""
    root = tmp_path_factory.mktemp("inspection")
    vocabulary = write_vocabulary(root / "tokenizer.json")
    write_corpus(root / "corpus", {(name, "train"): records for name, records in RECORDS.items()}, {})
    parts = {}
    for name, renderer in (("code", CodeRenderer(metadata=True)), ("text", TextRenderer())):
        source = CorpusSource(str(root / "corpus"), name, "train")
        made = build_cache(
            RenderedTask(name, "train", source, renderer, vocabulary), root / "mixture" / "caches", LENGTH
        )
        parts[name] = made.as_part(root / "mixture")
        identity = made.manifest.vocabulary
    spec = MixtureSpec("two", 5, 3, LENGTH, identity, parts, (Stage(0, {"code": 1, "text": 2}),))
    save_mixture_spec(str(root / "mixture"), spec)
    return root


@pytest.fixture(scope="module")
def vocabulary(built):
    return load_vocabulary(built / "tokenizer.json")


@pytest.fixture(scope="module")
def inspection(built, vocabulary):
    return Inspection.open(str(built / "mixture"), vocabulary)


def test_tokens_join_to_the_decoded_text(vocabulary):
    rng = np.random.default_rng(0)
    for _ in range(200):
        ids_T = rng.integers(0, vocabulary.size, rng.integers(0, 20))
        made = list(inspected_tokens(vocabulary, ids_T, np.ones(len(ids_T))))
        assert "".join(token.text for token in made) == vocabulary.decode(ids_T)
        assert [token.id for token in made] == ids_T.tolist()
    made = list(inspected_tokens(vocabulary, vocabulary.encode("🙂!"), np.zeros(5)))
    assert [token.text for token in made] == ["", "", "", "🙂", "!"]


def test_tokens_join_to_the_decoded_text_of_a_vocabulary_that_puts_spaces_in_front():
    mistral = pytest.importorskip("mistral_common")
    files = sorted((Path(mistral.__file__).parent / "data").glob("tokenizer.model*")) + sorted(
        (Path(mistral.__file__).parent / "data").glob("*instruct*.model*")
    )
    if not files:
        pytest.skip("this mistral-common carries no SentencePiece model")
    vocabulary = load_vocabulary(files[0])
    assert vocabulary.dummy_prefix
    ids_T = np.concatenate([[vocabulary.bos_id], vocabulary.encode("Hello  é there"), [vocabulary.eos_id]])
    made = list(inspected_tokens(vocabulary, ids_T, np.ones(len(ids_T))))
    assert "".join(token.text for token in made) == vocabulary.decode(ids_T) == "<s>Hello  é there</s>"


def test_every_record_is_shown_with_its_text_weights_and_origin(inspection):
    texts = {}
    for cache in inspection.caches:
        alone = Inspection(inspection.vocabulary, (cache,))
        for row in alone.rows(range(len(cache))):
            assert row.length == LENGTH and row.place == f"of cache {cache.manifest.task} train"
            for segment in row.segments:
                assert segment.tokens[0].weight == 0 and segment.tokens[0].control
                texts.setdefault(segment.record_id, {})[segment.part] = segment
    for records in RECORDS.values():
        for record in records:
            parts = texts[record_id(record)]
            learned = [token.id for part in sorted(parts) for token in parts[part].tokens if token.weight]
            assert b"".join(inspection.vocabulary.pieces(learned)).decode() == record.text + "<|end_of_text|>"
            assert (parts[0].source, parts[0].version, parts[0].licence) == (record.provenance.source, "1", "MIT")
            if record.slice == "code":
                assert parts[0].text.startswith("<|begin_of_text|>URL: h.org\n\n")


def test_rows_of_a_mixture_are_those_of_the_run(built, inspection):
    mixture = open_mixture(str(built / "mixture"))
    numbers = [0, 1, 2, 500]
    located = mixture.locate(np.array(numbers))
    for number, row, task, epoch, cache_row in zip(numbers, inspection.rows(numbers), *located, strict=True):
        name = mixture.task_names[task]
        assert row.row == number
        assert row.place == f"of the run, row {cache_row:,} of cache {name} train, epoch {epoch}"
        tokens = mixture.caches[name].read(np.array([cache_row])).tokens_NL[0]
        assert [token.id for segment in row.segments for token in segment.tokens] == tokens[: row.tokens].tolist()


def test_a_record_is_found_in_every_row_that_holds_a_piece(inspection):
    longest = max(RECORDS["text"], key=lambda record: len(record.text))
    wanted = record_id(longest)
    rows = list(inspection.record(wanted))
    assert len(rows) > 1
    parts = [segment.part for row in rows for segment in row.segments if segment.record_id == wanted]
    assert sorted(parts) == list(range(len(rows)))
    with pytest.raises(UserError, match="in none of these caches: code train, text train"):
        list(inspection.record("0" * 32))
    with pytest.raises(UserError, match="is no record id"):
        list(inspection.record("xyz"))


def test_search_finds_exactly_the_rows_that_hold_the_text(inspection, capsys):
    for query in ("number 7:", "你好", "<|end_of_text|>", "h.org\n\ncode"):
        found = [(row.place, row.row) for row in inspection.search(query)]
        expected = []
        for cache in inspection.caches:
            for row in Inspection(inspection.vocabulary, (cache,)).rows(range(len(cache))):
                if any(query in segment.text for segment in row.segments):
                    expected.append((row.place, row.row))
        assert found == expected and found
    assert list(inspection.search("<|end_of_text|><|begin_of_text|>")) == []  # across two segments is not inside one
    assert "rows/s" in capsys.readouterr().err
    with pytest.raises(UserError, match="empty text"):
        list(inspection.search(""))


def test_search_reads_no_further_than_it_must(inspection, monkeypatch):
    monkeypatch.setattr(inspection_module, "SEARCH_ROWS", 4)
    read = []
    original = Cache.read
    monkeypatch.setattr(Cache, "read", lambda self, rows: read.extend(rows) or original(self, rows))
    next(inspection.search("code number"))
    assert 0 < len(read) <= 6  # one batch, then the row itself for its tokens and for its segments
    assert len(inspection.caches[0]) > 12


def test_one_task_or_one_cache_alone(built, vocabulary, inspection):
    text = Inspection.open(str(built / "mixture" / "mixture.json"), vocabulary, task="text")
    assert {row.place for row in text.search("number")} == {"of cache text train"}
    assert [row.place for row in text.rows([0])] == ["of cache text train"]
    alone = Inspection.open(inspection.caches[0].url, vocabulary)
    assert [row.place for row in alone.rows([0])] == ["of cache code train"]
    with pytest.raises(UserError, match="its rows are 0 to"):
        list(alone.rows([10_000]))
    with pytest.raises(UserError, match="row -1 is negative"):
        list(inspection.rows([-1]))
    with pytest.raises(UserError, match="no task 'prose'; choose one of code, text"):
        Inspection.open(str(built / "mixture"), vocabulary, task="prose")


def test_another_vocabulary_is_refused(built, tmp_path):
    other = load_vocabulary(write_vocabulary(tmp_path / "tokenizer.json", extra=("<|more|>",)))
    with pytest.raises(UserError, match="was tokenised with vocabulary"):
        Inspection.open(str(built / "mixture"), other)


def test_the_corpus_tells_each_records_place(built, inspection):
    rows = list(with_paths(inspection.rows([0, 1]), Corpus(built / "corpus")))
    places = {record_id(record): record.provenance.path for records in RECORDS.values() for record in records}
    told = [(segment.path, places[segment.record_id]) for row in rows for segment in row.segments]
    assert told and all(path == place for path, place in told)
    assert all(
        dataclasses.replace(s, path="") == t
        for a, b in zip(rows, inspection.rows([0, 1]), strict=True)
        for s, t in zip(a.segments, b.segments, strict=True)
    )


def run_tool(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["inspect", *map(str, arguments)])
    tool.main()
    return capsys.readouterr().out


def test_the_command_shows_rows_in_the_terminal(built, monkeypatch, capsys):
    common = (built / "mixture", "--vocabulary", built / "tokenizer.json")
    out = run_tool(monkeypatch, capsys, *common, "--row", 3, 1)
    assert out.startswith("legend: ") and "\x1b" not in out
    assert out.index("row 3 of the run") < out.index("row 1 of the run")
    assert run_tool(monkeypatch, capsys, *common).count("row ") >= 3
    coloured = run_tool(monkeypatch, capsys, *common, "--search", "number 9:", "--limit", 1, "--color", "always")
    assert ";1;4mnumber 9:\x1b[0m" in coloured
    assert coloured.count("positions used") == 1
    found = run_tool(
        monkeypatch, capsys, *common, "--record", record_id(RECORDS["code"][3]), "--corpus", built / "corpus"
    )
    assert "code-0 1 · licence MIT · file:3 ·" in found
    assert run_tool(monkeypatch, capsys, *common, "--row", 0, "--tokens").count("|") > 40


def test_the_command_writes_a_page(built, monkeypatch, capsys, tmp_path):
    page = tmp_path / "new" / "rows.html"
    common = (built / "mixture", "--vocabulary", built / "tokenizer.json")
    out = run_tool(monkeypatch, capsys, *common, "--search", "你好", "--html", page)
    assert out.startswith(f"wrote {page}")
    assert page.read_text().count("class='segment'") >= 3 and "你" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{mixture}",), "error: no vocabulary: give --vocabulary FILE"),
        (("{root}/nowhere", "--vocabulary", "{vocabulary}"), "error: no cache at"),
        (
            ("{mixture}", "--vocabulary", "{vocabulary}", "--search", "no such text"),
            "error: no row holds 'no such text'",
        ),
        (("{mixture}", "--vocabulary", "{vocabulary}", "--limit", "0"), "error: --limit is 0"),
        (
            ("{mixture}", "--vocabulary", "{vocabulary}", "--row", str(1 << 70)),
            f"error: row {1 << 70} is beyond every run",
        ),
        (("{mixture}", "--vocabulary", "{vocabulary}", "--html", "{root}"), "error: cannot write"),
    ],
)
def test_errors_of_the_command_are_one_line(built, arguments, message):
    places = {"root": built, "mixture": built / "mixture", "vocabulary": built / "tokenizer.json"}
    command = [sys.executable, "-m", "tools.inspect", *(argument.format(**places) for argument in arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(message) and "Traceback" not in done.stderr
    assert done.stdout == ""


def test_the_command_finds_damage(built, monkeypatch, capsys, tmp_path):
    copy = tmp_path / "mixture"
    shutil.copytree(built / "mixture", copy)
    assert " caches as they were built, " in run_tool(monkeypatch, capsys, copy, "--verify")
    victim = max(
        (path for path in copy.rglob("*") if "segment_record" in str(path) and path.is_file()), key=os.path.getsize
    )
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(bytes(content))
    with pytest.raises(UserError, match="was changed since the cache was built"):
        run_tool(monkeypatch, capsys, copy, "--verify")
