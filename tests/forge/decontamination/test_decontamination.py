import json
import pickle
import random
import re
from pathlib import Path

import pytest

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.decontamination.benchmarks import GoldCall, Item, read_bfcl, read_jsonl
from hephaestus_jax.forge.decontamination.check import Contamination, Decontaminator
from hephaestus_jax.formats.records import (
    ApiAction,
    ApiDoc,
    Document,
    MessageAction,
    Provenance,
    TextObservation,
    Tool,
    Trajectory,
)

FROM = Provenance("s", "1", "MIT")
QUESTION = "Can you book 3 rooms at the Grand Hotel Vienna for Mrs. Okafor from 12 May until 17 May, with breakfast?"
SCHEMA = {
    "type": "dict",
    "properties": {
        "hotel_name": {"type": "string", "description": "The full name of the hotel to make the reservation in."},
        "rooms": {"type": "integer", "description": "How many rooms are needed by the party."},
        "arrival": {"type": "string", "description": "The day of arrival, in the format DD-MM-YYYY."},
        "breakfast": {"type": "boolean", "description": "Whether breakfast is included in the price."},
    },
    "required": ["hotel_name", "rooms"],
}
TOOL = Tool("book_hotel_rooms", "Reserves rooms in a hotel for a party of guests, with meals if they want any.", SCHEMA)
ITEM = Item(
    "bench",
    "item_7",
    (QUESTION, "How old am I?"),
    (TOOL,),
    (GoldCall("book_hotel_rooms", ("grand hotel vienna", "3", "12-05-2026")),),
)


@pytest.fixture(scope="module")
def checker() -> Decontaminator:
    others = [
        Item("bench", f"other_{n}", tools=(Tool(f"get_{word}", f"Returns the {word} of a {thing} by its identifier."),))
        for n, (word, thing) in enumerate((w, t) for w in ("price", "colour", "owner") for t in ("car", "dog", "stamp"))
    ]
    return pickle.loads(pickle.dumps(Decontaminator([ITEM, *others])))


def _api(tool: Tool) -> ApiDoc:
    return ApiDoc(tool.name, "x.com", tool.description, FROM, parameters=tool.parameters, interface="tool")


def _renamed(schema: dict) -> dict:
    return {**schema, "properties": {f"p{n}": part for n, part in enumerate(schema["properties"].values())}}


def _reordered(schema: dict) -> dict:
    return {**schema, "properties": dict(reversed(schema["properties"].items()))}


SYNONYMS = {"Reserves": "Books", "guests": "people", "meals": "food", "full": "complete", "needed": "wanted"}


def _paraphrased(text: str) -> str:
    words = [SYNONYMS.get(word, word) for word in text.split()]
    return " ".join(word for place, word in enumerate(words) if place % 7 != 5)


def _paraphrased_schema(schema: dict) -> dict:
    parts = {k: {**p, "description": _paraphrased(p["description"])} for k, p in schema["properties"].items()}
    return {**schema, "properties": parts}


@pytest.mark.parametrize(
    "tool",
    [
        TOOL,
        Tool("fn_81", TOOL.description, SCHEMA),
        Tool("fn_81", TOOL.description, _reordered(SCHEMA)),
        Tool("fn_81", TOOL.description, _renamed(SCHEMA)),
        Tool(TOOL.name, _paraphrased(TOOL.description), _paraphrased_schema(SCHEMA)),
        Tool("fn_81", _paraphrased(TOOL.description), _reordered(_paraphrased_schema(SCHEMA))),
    ],
    ids=["verbatim", "renamed", "reordered", "parameters renamed", "paraphrased", "all but parameters' names"],
)
def test_functions_are_found_in_disguise(tool: Tool, checker: Decontaminator) -> None:
    found = checker.check(_api(tool))
    assert found is not None and (found.benchmark, found.item, found.rule) == ("bench", "item_7", "function"), found
    on_offer = Trajectory((ApiAction("x", {}),), FROM, tools=(Tool("other", "Says hello."), tool))
    assert checker.check(on_offer) == found


def test_other_functions_of_the_same_kind_stay(checker: Decontaminator) -> None:
    flights = {"type": "object", "properties": {
        "airline": {"type": "string", "description": "The name of the airline."},
        "seats": {"type": "integer", "description": "How many seats are needed."},
        "departure": {"type": "string", "description": "The day of departure, in the format DD-MM-YYYY."},
    }}  # fmt: skip
    hotels = {"type": "object", "properties": {
        "city": {"type": "string", "description": "Where to look for hotels."},
        "stars": {"type": "integer", "description": "The fewest stars."},
        "breakfast": {"type": "boolean"},
    }}  # fmt: skip
    for tool in [
        Tool("book_flight", "Books seats of a flight for a group of passengers.", flights),
        Tool("find_hotels", "Lists hotels in a city, the best ones first.", hotels),
        Tool("book_hotel_rooms", "Opens the catalogue of a library.", {"type": "object", "properties": {}}),
        Tool("noop", "", {"type": "object", "properties": {}}),
        Tool("get_weight", "Returns the weight of a parcel by its number."),
    ]:
        assert checker.check(_api(tool)) is None, tool.name


def _asked(text: str) -> Trajectory:
    return Trajectory((TextObservation(text, "user"), MessageAction("Done.")), FROM)


@pytest.mark.parametrize(
    "text",
    [
        QUESTION,
        QUESTION.upper(),
        re.sub(r"\d+", lambda match: str(int(match[0]) * 7), QUESTION),
        f"Hello! {QUESTION} Thank you very much.",
        QUESTION.replace("Okafor", "Smith"),
        "how old am i",
    ],
)
def test_questions_are_found(text: str, checker: Decontaminator) -> None:
    found = checker.check(_asked(text))
    assert found is not None and (found.item, found.rule) == ("item_7", "question")


def test_phrases_are_anybodys(checker: Decontaminator) -> None:
    for text in [
        "Can you book 3 rooms at the",
        "Ask her: how old am I? She will tell you at once.",
        "from 12 May until 17 May",
    ]:
        assert checker.check(_asked(text)) is None
    assert checker.check(Document("12 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18", "text", FROM)) is None
    assert checker.check(Document(f"# A page\n\nExample: {QUESTION}\n", "text", FROM)) is not None
    described = checker.check(Document(f"- `book`: {TOOL.description}\n- `go`: goes.", "text", FROM))
    assert described is not None and described.rule == "description"


def test_gold_calls_are_found_under_any_name(checker: Decontaminator) -> None:
    renamed = ApiAction("reserve", {"p": "12-05-2026", "q": {"r": ["Grand Hotel Vienna"]}, "n": 3})
    assert checker.check(Trajectory((renamed,), FROM)) == Contamination(
        "bench", "item_7", "call", "reserve(12-05-2026, 3, grand hotel vienna)"
    )
    assert checker.check(Trajectory((ApiAction("reserve", {"hotel": "Grand Hotel Vienna", "n": 3}),), FROM)) is None


def test_boilerplate_does_not_count() -> None:
    plain = Decontaminator([ITEM])
    grams = plain.grams_in(_asked(QUESTION))
    assert grams and Decontaminator([ITEM], boilerplate=grams).check(_asked(QUESTION)) is None
    assert not plain.grams_in(_asked("Something else altogether that nobody would have asked in such words."))


def test_jsonl_of_any_kind(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    lines = [
        {"id": "a", "question": [[{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]]},
        {"messages": [{"role": "user", "content": "M"}], "tools": [{"type": "function", "function": {"name": "f"}}]},
        {"input": "one", "more": {"output": ["two"]}},
        "just a text",
    ]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    items = read_jsonl(path)
    assert [(item.benchmark, item.id) for item in items] == [
        ("mine", "a"),
        *(("mine", f"mine.jsonl:{n}") for n in (2, 3, 4)),
    ]
    assert [item.texts for item in items] == [("Q",), ("M",), ("one", "two"), ("just a text",)]
    assert [tool.name for item in items for tool in item.tools] == ["f"]
    path.write_text("{}\n{")
    with pytest.raises(UserError, match=r"mine\.jsonl:2"):
        read_jsonl(path)
    with pytest.raises(UserError, match="no such file"):
        read_jsonl(tmp_path / "none.jsonl")


def test_the_layout_of_bfcl(tmp_path: Path) -> None:
    files = {
        "BFCL_v4_simple.json": {"id": "s_0", "question": [[{"role": "user", "content": QUESTION}]], "function": [
            {"name": TOOL.name, "description": TOOL.description, "parameters": SCHEMA}]},
        "possible_answer/BFCL_v4_simple.json": {"id": "s_0", "ground_truth": [
            {TOOL.name: {"hotel_name": ["Grand Hotel Vienna", "Grand"], "rooms": [3], "breakfast": [""]}}]},
        "possible_answer/BFCL_v4_multi.json": {"id": "m_0", "ground_truth": [
            ["mv(source='a.pdf', n=2.0)", "not python("]]},
        "multi_turn_func_doc/math_api.json": {"name": "add", "description": "Adds.", "parameters": {"type": "dict"}},
    }  # fmt: skip
    for name, line in files.items():
        path = tmp_path / "bfcl_eval" / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(line))
    items = {(item.id, bool(item.calls)): item for item in read_bfcl(tmp_path)}
    assert set(items) == {("s_0", False), ("s_0", True), ("m_0", True), ("math_api:add", False)}
    assert items["s_0", False].texts == (QUESTION,) and items["s_0", False].tools == (TOOL,)
    assert items["s_0", True].calls == (GoldCall(TOOL.name, ("grand hotel vienna", "3")),)
    assert items["m_0", True].calls == (GoldCall("mv", ("a.pdf", "2")),)
    assert items["math_api:add", False].tools[0].name == "add"
    with pytest.raises(UserError, match="bfcl-eval"):
        read_bfcl(tmp_path / "bfcl_eval" / "data" / "multi_turn_func_doc")


def test_order_of_records_does_not_matter(checker: Decontaminator) -> None:
    records = [_api(TOOL), _asked(QUESTION), _asked("Good morning to everybody in this room today.")]
    first = [checker.check(record) for record in records]
    shuffled = list(enumerate(records))
    random.Random(0).shuffle(shuffled)
    assert all(checker.check(record) == first[place] for place, record in shuffled)
