"""A small corpus and a small vocabulary with the control tokens of the Llama 3 chat template."""

from dataclasses import replace
from pathlib import Path

import pytest

from hephaestus_jax.data.sentencepiece_training import VocabularyConfig, train_sentencepiece
from hephaestus_jax.formats.chat import chat_renderer
from hephaestus_jax.formats.records import (
    SLICES,
    ApiAction,
    ApiDoc,
    Document,
    MessageAction,
    Provenance,
    Record,
    TextObservation,
    Tool,
    Trajectory,
)
from hephaestus_jax.formats.store import write_corpus


def _origin(number: int) -> Provenance:
    return Provenance("shop", "1.2", "MIT", "example.org", f"shop/prices.py:{number}")


def _doc(number: int) -> ApiDoc:
    schema = {"type": "object", "properties": {"item": {"type": "string", "description": "what to look up"}}}
    return ApiDoc(
        f"shop.price_{number}",
        "shop",
        f"Price of item number {number}.",
        _origin(number),
        f"price_{number}(item)",
        schema,
    )


def _trajectory(number: int) -> Trajectory:
    steps = (
        TextObservation(f"What does item {number} cost?", "user"),
        ApiAction(f"price_{number}", {"item": str(number)}, tool_call_id="call_1", outcome="ok"),
        TextObservation(f"{number}.99", "environment", tool_call_id="call_1"),
        MessageAction(f"It costs {number}.99 euros."),
    )
    return Trajectory(steps, _origin(number), (Tool(f"price_{number}", "Looks up a price."),), success=True)


def make_record(slice_name: str, number: int) -> Record:
    """Record `number` of a slice."""
    if slice_name == "agent_docs":
        return _doc(number)
    if slice_name == "agent_trajectories":
        return _trajectory(number)
    if slice_name == "agent_environments":
        return replace(_trajectory(number), details={"episode": {"environment": "shop"}})
    text = f"def price_{number}():\n    return {number}\n" if slice_name == "code" else f"Item {number} is on sale.\n"
    return Document(text * (1 + number % 7), slice_name, _origin(number), "python" if slice_name == "code" else "en")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 training and 20 validation records of each slice."""
    directory = tmp_path_factory.mktemp("corpus") / "shop"
    ranges = {"train": range(400), "validation": range(400, 420)}
    records = {(s, split): [make_record(s, n) for n in numbers] for s in SLICES for split, numbers in ranges.items()}
    write_corpus(directory, records, {"name": "shop"})
    return directory


@pytest.fixture(scope="session")
def vocabulary(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece model of 340 ids."""
    texts = [make_record("text", n).text for n in range(200)] + [make_record("code", n).text for n in range(200)]
    out = tmp_path_factory.mktemp("vocabulary")
    train_sentencepiece(texts, out, VocabularyConfig(size=340, controls=chat_renderer("llama3").controls))
    return out
