"""A small world for tests of evaluation: a corpus with unseen APIs, its vocabulary, validation rows, and models."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from parameters import reader

from hephaestus_jax.checkpoints import Checkpointer
from hephaestus_jax.config import CheckpointConfig, ModelConfig
from hephaestus_jax.data.cache_build import build_cache
from hephaestus_jax.data.mixture_spec import MixtureSpec, Stage, save_mixture_spec
from hephaestus_jax.data.sentencepiece_training import VocabularyConfig, train_sentencepiece
from hephaestus_jax.data.task import CorpusSource, RenderedTask
from hephaestus_jax.data.vocabularies import load_vocabulary
from hephaestus_jax.formats.records import (
    SLICES,
    ApiAction,
    ApiDoc,
    ApiExample,
    CodeAction,
    Document,
    Provenance,
    TextObservation,
    Tool,
    Trajectory,
)
from hephaestus_jax.formats.rendering import RecordRenderer
from hephaestus_jax.formats.store import Corpus, write_corpus
from hephaestus_jax.hf.config_files import TokenIds
from hephaestus_jax.hf.exporting import export_model
from hephaestus_jax.model.decoder import abstract_parameters

LENGTH = 256
CHAT = "llama3"
VERBS = ("rotate", "scale", "shift", "stack", "sort", "count", "merge", "split", "clip", "round")


def provenance(path: str) -> Provenance:
    return Provenance("pkg", "1.0", "MIT", "pypi.org/project/pkg", path)


def doc(name: str, examples: tuple[ApiExample, ...] = ()) -> ApiDoc:
    schema = {"type": "object", "properties": {"x": {"type": "number"}, "axis": {"default": 0}, "mode": {}}}
    words = f"{name.rpartition('.')[2].capitalize()} an array along an axis.\n\nMore is said of {name} here."
    return ApiDoc(
        name, "pkg", words, provenance("pkg/a.py:1"), f"{name}(x, axis=0, mode=None)", schema, None, (), examples
    )


def tool_trajectory(name: str, others: tuple[str, ...], x: float) -> Trajectory:
    steps = (
        TextObservation(f"Please use {name} on {x} with mode fast.", "user"),
        ApiAction(name, {"x": x, "mode": "fast"}, tool_call_id="c0", outcome="ok"),
        TextObservation(f"array([{x}])", "environment", tool_call_id="c0"),
        ApiAction(name, {"x": x + 1, "axis": 1}, tool_call_id="c1", outcome="ok"),
    )
    tools = tuple(Tool(tool, f"The tool {tool}.") for tool in (name, *others))
    return Trajectory(steps, provenance("pkg/t.py:2"), tools, name=name, details={"api": name})


def code_trajectory(name: str, value: int) -> Trajectory:
    last = name.rpartition(".")[2]
    steps = (
        TextObservation(f"How is `{name}` used? Run it, please.", "user"),
        CodeAction(
            "python", f"import pkg\nrows = [{value}, 2]\ncolumns = (3, {value})", tool_call_id="c0", outcome="ok"
        ),
        TextObservation("", "environment", tool_call_id="c0"),
        CodeAction("python", f"print(pkg.{last}(rows, axis={value}))", tool_call_id="c1", outcome="ok"),
        TextObservation("[1]", "environment", tool_call_id="c1"),
        CodeAction("python", f"pkg.{last}(columns, mode='slow')", tool_call_id="c2", outcome="error"),
    )
    return Trajectory(steps, provenance("pkg/t.py:9"), name=name, details={"api": name})  # announces no tool: short


def corpus(folder: Path) -> Corpus:
    """Ten known APIs; unseen are `twirl` and `squash` (with trajectories), `Blender` (with an example) and `hush`."""
    known = [f"pkg.{verb}" for verb in VERBS]
    example = ApiExample("import pkg\npkg.Blender(rows, mode='soft', axis=2)", "Blender(2)", "Blend the rows.")
    records: dict[tuple[str, str], list[Any]] = {
        ("agent_docs", "train"): [doc(name) for name in known] + [doc("pkg.Mixer"), doc("pkg.Twister")],
        ("agent_docs", "validation"): [
            doc("pkg.twirl", (ApiExample("pkg.twirl(1)"),)), doc("pkg.squash"), doc("pkg.hush"),
            doc("pkg.Blender", (example,)),
        ],
        ("agent_trajectories", "train"): [tool_trajectory(name, ("pkg.sort",), n) for n, name in enumerate(known)],
        ("agent_trajectories", "validation"): [
            tool_trajectory("pkg.twirl", ("pkg.squash", "pkg.sort"), 2.5), code_trajectory("pkg.squash", 5),
        ],
        ("code", "train"): [
            Document(f"def f{n}(rows):\n    return pkg.sort(rows)[{n}]\n", "code", provenance("c.py")) for n in range(9)
        ],
        ("code", "validation"): [
            Document(f"class C{n}:\n    rows = {n}\n\n" * 20, "code", provenance(f"{n}.py")) for n in range(3)
        ],
        ("text", "train"): [Document(f"Array number {n} is rotated along its axis.", "text", provenance("R.md"))
                            for n in range(5)],
        ("text", "validation"): [Document("An array is shifted before it is sorted.", "text", provenance("S.md"))],
    }  # fmt: skip
    made = write_corpus(folder, records, {})
    family = {"names": ["pkg.squash", "pkg.twirl"], "aliases": ["pkg.twirl2"], "words": [], "docstrings": []}
    (folder / "heldout.json").write_text(json.dumps({"families": [family]}))
    return made


def vocabulary(folder: Path, corpus: Corpus) -> str:
    """A SentencePiece model with the chat family's control tokens."""
    renderer = RecordRenderer(chat=CHAT)
    texts = [renderer.render(record).text for name in SLICES for _, record in corpus.read(name, "train")]
    plain = [text.replace("<|", "").replace("|>", "") for text in texts]
    train_sentencepiece(plain, folder, VocabularyConfig(size=340, controls=renderer.controls))
    return str(folder)


def mixture(folder: Path, corpus: Corpus, vocabulary: str) -> str:
    """The validation rows of all slices; training rows of the text alone."""
    renderer = RecordRenderer(chat=CHAT)

    def part(name: str, split: str) -> Any:
        source = CorpusSource(str(corpus.directory), name, split)
        built = build_cache(RenderedTask(name, split, source, renderer, vocabulary), folder / "caches", LENGTH)
        return built.manifest.vocabulary, built.as_part(folder)

    identity, text = part("text", "train")
    validation = {name: part(name, "validation")[1] for name in SLICES if corpus.count(name, "validation")}
    stages = (Stage(0, {"text": 1}),)
    save_mixture_spec(str(folder), MixtureSpec("all", 0, 1, LENGTH, identity, {"text": text}, stages, validation))
    return str(folder)


def model(vocab_size: int = 340, **changes: Any) -> ModelConfig:
    sizes: dict[str, Any] = dict(embed_dim=16, mlp_dim=24, num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8)
    return ModelConfig("tiny", vocab_size, **{**sizes, "max_positions": LENGTH, **changes})


def parameters(config: ModelConfig, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)

    def values(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        scale = path[-1].key == "scale"
        return jax.numpy.asarray(rng.uniform(0.5, 1.5, leaf.shape) if scale else 0.3 * rng.standard_normal(leaf.shape),
                                 "float32")  # fmt: skip

    return jax.tree.map_with_path(values, abstract_parameters(config))


def write_run(folder: Path, config: ModelConfig, params: Any, digest: str, step: int = 3) -> str:
    """What a training run leaves that another thing begins from: run.json and a checkpoint."""
    fields = {f"model.{name}": value for name, value in vars(config).items()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"identity": {**fields, "vocabulary": digest}}))
    checkpoints = Checkpointer(str(folder / "checkpoints"), CheckpointConfig())
    checkpoints.save(step, {"params": params, "opt_state": {"count": jax.numpy.zeros(2)}}, {}, force=True)
    checkpoints.close()
    return str(folder)


def write_hugging_face(folder: Path, config: ModelConfig, params: Mapping[str, Any], tokenizer: str) -> str:
    """The same weights as a Hugging Face model with its tokenizer."""
    files = {"tokenizer.model": (Path(tokenizer) / "tokenizer.model").read_bytes()}
    known = load_vocabulary(tokenizer)
    ids = TokenIds(known.bos_id, known.eos_id, known.pad_id)
    export_model(folder, config, reader(params), files=files, ids=ids, progress=False)
    return str(folder)
