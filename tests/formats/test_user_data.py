"""A user's own corpus: every form, every kind of damage, and the same records from any start."""

import gzip
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import (
    ApiAction,
    CodeAction,
    Document,
    MessageAction,
    TextObservation,
    Tool,
    Trajectory,
    WebObservation,
    identify,
    record_id,
)
from hephaestus_jax.formats.user_data import UserDataSource

CALL = {"type": "function", "id": "a", "function": {"name": "f", "arguments": '{"x": 1}'}}
MESSAGES = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "a", "content": "1"},
]
TOOLS = [{"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object"}}}]
ADP = {
    "id": "one",
    "content": [
        {"class_": "text_observation", "content": "hi", "source": "user"},
        {"class_": "code_action", "language": "python", "content": "1", "description": None, "tool_call_id": "a"},
        {"class_": "text_observation", "content": "1", "source": "environment", "tool_call_id": "a"},
    ],
}


def write_lines(path, rows):
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    data = b"".join(line + b"\n" for line in lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_parquet(path, rows, row_group_size=3):
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=row_group_size)
    return path


def records(source):
    found = list(source.read(0, source.count()))
    assert found == [identify(record) for _, record in found]
    return [record for _, record in found]


def texts(source, start, stop):
    return [record.text for _, record in source.read(start, stop)]


def test_text_with_everything_a_row_may_state(tmp_path):
    row = {"text": "x", "license": "CC0-1.0", "url": "https://example.org/a", "language": "de"}
    write_lines(tmp_path / "sub" / "a.jsonl", [row, {"text": ""}, {"text": "z", "licence": ["MIT"], "host": "h"}])
    source = UserDataSource(tmp_path, licence="Apache-2.0")
    first, second, third = records(source)
    assert isinstance(first, Document) and (first.text, first.slice, first.language) == ("x", "text", "de")
    assert first.provenance.source == "sub/a.jsonl"
    assert first.provenance.path == "sub/a.jsonl:1"
    assert (first.provenance.licence, first.provenance.host) == ("CC0-1.0", "example.org")
    assert len(first.provenance.version) == 32
    assert (second.text, second.provenance.licence, second.provenance.path) == ("", "Apache-2.0", "sub/a.jsonl:2")
    assert (third.provenance.licence, third.provenance.host) == ('["MIT"]', "h")
    assert source.kind == "Document"
    assert records(UserDataSource(tmp_path, slice="code"))[0].slice == "code"


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_messages_and_adp_from_every_kind_of_file(tmp_path, suffix):
    rows = {"messages": {"messages": MESSAGES, "tools": TOOLS}, "adp": ADP}
    for name, row in rows.items():
        path = tmp_path / f"{name}{suffix}"
        if suffix == ".parquet":
            write_parquet(path, [row])
        else:
            write_lines(path, [row])
    source = UserDataSource(tmp_path)
    adp, messages = records(source)
    assert source.kind == "Trajectory" and not source.quarantine
    assert isinstance(messages, Trajectory) and isinstance(adp, Trajectory)
    assert messages.steps == (
        TextObservation("hi", "user"),
        ApiAction("f", {"x": 1}, tool_call_id="a"),
        TextObservation("1", "environment", "a"),
    )
    assert messages.tools == (Tool("f", "", {"type": "object"}),)
    assert adp.name == "one"
    assert adp.steps[1] == CodeAction("python", "1", tool_call_id="a")


def test_nested_columns_of_parquet_as_json_strings_and_with_null_fields(tmp_path):
    page = {"class_": "web_observation", "html": None, "axtree": "t", "url": "u", "viewport_size": [1, 2]}
    content = [*ADP["content"], {**page, "image_observation": None}, {"class_": "message_action", "content": "bye"}]
    write_parquet(tmp_path / "a.parquet", [{**ADP, "content": content}])
    as_text = {"id": "two", "content": json.dumps(content), "details": json.dumps({"n": None}), "license": "MIT"}
    write_parquet(tmp_path / "b.parquet", [as_text])
    nested, texts = records(UserDataSource(tmp_path))
    assert nested.steps == texts.steps
    assert nested.steps[3:] == (WebObservation(axtree="t", url="u", viewport_size=[1, 2]), MessageAction("bye"))
    assert texts.details["n"] is None
    assert texts.provenance.licence == "MIT"


def test_a_version_of_adp_without_links_is_read_when_stated(tmp_path):
    unlinked = [{k: v for k, v in step.items() if k != "tool_call_id"} for step in ADP["content"]]
    write_lines(tmp_path / "a.jsonl", [{**ADP, "content": unlinked}])
    assert UserDataSource(tmp_path, adp_version="1.1.0").count() == 1
    with pytest.raises(UserError, match=r"malformed ADP trajectory .*a.jsonl:1: content\[1\].tool_call_id"):
        UserDataSource(tmp_path).count()


def test_bad_lines_are_counted_with_reason_and_place(tmp_path):
    write_lines(
        tmp_path / "a.jsonl",
        [
            {"text": "one"},
            b"{not json",
            b"",
            b'{"text": "\xff"}',
            b'{"text": "\\ud800"}',
            b"[1]",
            {"text": 3},
            {"text": None},
            {"messages": MESSAGES},
            b"[" * 100_000,
            {"text": "two"},
            b'{"text": "cut off',
        ],
    )
    source = UserDataSource(tmp_path)
    assert [record.text for record in records(source)] == ["one", "two"]
    assert [record.provenance.path for record in records(source)] == ["a.jsonl:1", "a.jsonl:11"]
    assert source.quarantine.counts == {
        "malformed JSON": 3,
        "undecodable bytes": 2,
        "another form": 1,
        "malformed text": 1,
        "not an object": 1,
        "unknown form": 1,
    }
    places = {example.place for example in source.quarantine.examples}
    assert places == {f"a.jsonl:{line}" for line in (2, 4, 5, 6, 7, 8, 9, 10, 12)}


def test_malformed_conversations_are_quarantined_with_the_place_inside(tmp_path):
    broken = [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]
    write_lines(tmp_path / "a.jsonl", [{"messages": MESSAGES}, {"messages": broken}])
    source = UserDataSource(tmp_path)
    assert source.count() == 1
    (example,) = source.quarantine.examples
    assert example.reason == "malformed messages"
    assert example.detail.startswith("messages[0].tool_calls[0].function.arguments: not JSON")


def test_files_are_read_in_order_of_their_names(tmp_path):
    write_lines(tmp_path / "b.jsonl", [{"text": "3"}])
    write_lines(tmp_path / "a" / "z.jsonl.gz", [{"text": "1"}, {"text": "2"}])
    write_parquet(tmp_path / "c.parquet", [{"text": "4"}])
    (tmp_path / "README.md").write_text("about")
    write_lines(tmp_path / ".hidden" / "x.jsonl", [{"text": "no"}])
    source = UserDataSource(tmp_path)
    assert [record.text for record in records(source)] == ["1", "2", "3", "4"]
    assert source.ignored == ("README.md",)
    assert records(UserDataSource(tmp_path / "b.jsonl"))[0].provenance.source == "b.jsonl"


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    root = tmp_path_factory.mktemp("many")
    bad = b"not json"
    write_lines(root / "a.jsonl", [{"text": "a0"}, bad, {"text": "a1é"}, b"", {"text": "a2"}])
    write_lines(root / "b.jsonl.gz", [bad, *({"text": f"b{i}"} for i in range(7)), bad])
    write_lines(root / "c.jsonl", [bad])  # a file without a good row
    write_parquet(root / "d.parquet", [{"text": None if i in (2, 9) else f"d{i}"} for i in range(11)])
    return root


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_range_is_the_same_part_of_the_whole(many, data):
    source = UserDataSource(many)
    whole = texts(source, 0, source.count())
    assert whole == ["a0", "a1é", "a2", *(f"b{i}" for i in range(7)), *(f"d{i}" for i in range(11) if i not in (2, 9))]
    worker = pickle.loads(pickle.dumps(source))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(whole)))
        stop = data.draw(st.integers(start, len(whole)))
        assert texts(source, start, stop) == texts(worker, start, stop) == whole[start:stop]


def test_two_readers_of_one_source_do_not_disturb_each_other(many):
    source = UserDataSource(many)
    whole = texts(source, 0, source.count())
    first, second = source.read(0, len(whole)), source.read(0, len(whole))
    pairs = [(a.record.text, b.record.text) for a, b in zip(first, second, strict=True)]
    assert pairs == list(zip(whole, whole, strict=True))
    abandoned = source.read(3, 8)
    next(abandoned)
    del abandoned
    assert texts(source, 3, 8) == whole[3:8]


def test_a_pickled_source_brings_its_index(many, monkeypatch):
    source = UserDataSource(many)
    source.count()
    pickled = pickle.dumps(source)
    monkeypatch.setattr("hephaestus_jax.formats.user_data._build_index", lambda source: pytest.fail("indexed again"))
    assert pickle.loads(pickled).count() == source.count()
    assert pickle.loads(pickled).quarantine.to_json() == source.quarantine.to_json()


def test_the_fingerprint_follows_bytes_and_options(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": "one"}])
    first = UserDataSource(tmp_path).fingerprint()
    assert UserDataSource(tmp_path).fingerprint() == first
    assert UserDataSource(tmp_path, licence="MIT").fingerprint() != first
    assert UserDataSource(tmp_path, slice="code").fingerprint() != first
    write_lines(path, [{"text": "two"}])
    assert UserDataSource(tmp_path).fingerprint() != first
    renamed = tmp_path / "b.jsonl"
    write_lines(path, [{"text": "one"}]).rename(renamed)
    assert UserDataSource(tmp_path).fingerprint() != first


def test_the_same_bytes_give_the_same_records_wherever_they_lie(tmp_path):
    for name in ("here", "there"):
        write_lines(tmp_path / name / "a.jsonl", [{"text": "one"}])
    here, there = UserDataSource(tmp_path / "here"), UserDataSource(tmp_path / "there")
    assert here.fingerprint() == there.fingerprint()
    assert record_id(records(here)[0]) == record_id(records(there)[0])


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    write_lines(tmp_path / "a.jsonl", [b"\xef\xbb\xbf" + b'{"text": "x"}'])
    assert records(UserDataSource(tmp_path))[0].text == "x"


def truncated(path, keep=0.6):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def test_what_cannot_be_read_at_all_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="no file or directory at .*nowhere; check the path"):
        UserDataSource(tmp_path / "nowhere").count()
    (tmp_path / "notes.csv").write_text("a,b")
    with pytest.raises(UserError, match=r"holds no \*.jsonl .*only notes.csv; convert the data"):
        UserDataSource(tmp_path).count()
    write_lines(tmp_path / "a.jsonl", [b"oops", {"words": "x"}])
    with pytest.raises(UserError, match=r"no row can be read .*2 quarantined: 1 malformed JSON \(first: a.jsonl:1"):
        UserDataSource(tmp_path).count()
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n', encoding="utf-16")
    with pytest.raises(UserError, match="undecodable bytes .*convert the file"):
        UserDataSource(tmp_path).count()
    (tmp_path / "a.jsonl").write_bytes(b"")
    with pytest.raises(UserError, match="no row can be read .*nothing quarantined"):
        UserDataSource(tmp_path).count()


def test_damaged_files_are_one_clear_line(tmp_path):
    rows = [{"text": f"text {i}" * 50} for i in range(500)]
    truncated(write_parquet(tmp_path / "a.parquet", rows))
    with pytest.raises(UserError, match=r"a.parquet: truncated or not Parquet .*fetch the file again or remove it"):
        UserDataSource(tmp_path).count()
    (tmp_path / "a.parquet").unlink()
    truncated(write_lines(tmp_path / "a.jsonl.gz", rows))
    with pytest.raises(UserError, match=r"a.jsonl.gz: truncated or not gzip .*fetch the file again or remove it"):
        UserDataSource(tmp_path).count()
    (tmp_path / "a.jsonl.gz").write_bytes(b'{"text": "not gzip"}\n')
    with pytest.raises(UserError, match="truncated or not gzip"):
        UserDataSource(tmp_path).count()
    (tmp_path / "a.jsonl.gz").unlink()
    path = write_parquet(tmp_path / "a.parquet", rows, row_group_size=100)
    data = bytearray(path.read_bytes())
    data[200:260] = bytes(60)
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"a.parquet: (damaged|truncated or not) Parquet"):
        UserDataSource(tmp_path).count()


def test_documents_mixed_with_trajectories_are_refused_with_the_mend(tmp_path):
    write_lines(tmp_path / "a.jsonl", [{"text": "x"}])
    write_lines(tmp_path / "b.jsonl", [{"messages": MESSAGES}])
    with pytest.raises(UserError, match=r"mixes text \(a.jsonl\) and messages \(b.jsonl\); give documents"):
        UserDataSource(tmp_path).count()


def test_a_file_that_changed_since_it_was_indexed_is_refused(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": "x"}])
    source = UserDataSource(tmp_path)
    source.count()
    write_lines(path, [{"text": "longer"}])
    with pytest.raises(UserError, match="a.jsonl has changed since it was indexed"):
        records(source)
    path.unlink()
    with pytest.raises(UserError, match="a.jsonl: cannot be read"):
        records(source)


def test_arguments_are_checked(tmp_path):
    write_lines(tmp_path / "a.jsonl", [{"text": "x"}])
    with pytest.raises(UserError, match="slice of .* is 'agent_docs'"):
        UserDataSource(tmp_path, slice="agent_docs")
    with pytest.raises(UserError, match="records 0 to 2 of 1 do not exist"):
        list(UserDataSource(tmp_path).read(0, 2))


def test_quarantine_counts_exactly_and_keeps_the_first_examples():
    first, second = Quarantine(max_examples=2), Quarantine(max_examples=2)
    for line in range(3):
        first.add("malformed JSON", f"a:{line}", "x" * 1000)
    second.add("malformed JSON", "b:0", "no")
    second.add("not an object", "b:1", "two\nlines \ud800")
    assert not Quarantine() and Quarantine().summary() == "nothing quarantined"
    first.merge(second)
    assert first.total == len(first) == 5
    assert first.counts == {"malformed JSON": 4, "not an object": 1}
    assert [example.place for example in first.examples] == ["a:0", "a:1", "b:1"]
    assert len(first.examples[0].detail) == 300
    assert first.examples[2].detail == "two lines ?"
    restored = Quarantine.from_json(json.loads(json.dumps(first.to_json())))
    assert restored == first
    assert first.summary().startswith("5 quarantined: 4 malformed JSON (first: a:0: x")
    with pytest.raises(UserError, match="max_examples"):
        Quarantine(max_examples=-1)
