"""What the README says, done literally: `readme_reader.py` gives every command, and here is what must come of it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import jax
import numpy as np
import own_model
import pytest
from quickstart_run import COMMAND, Quickstart
from readme_reader import ELSEWHERE, README, ROOT, Reader, commands, section

from hephaestus_jax.config import PARTS, ComputeConfig, TrainConfig
from hephaestus_jax.data.mixture import open_mixture
from hephaestus_jax.formats.chat import FAMILIES
from hephaestus_jax.formats.records import ApiDoc
from hephaestus_jax.formats.store import Corpus
from hephaestus_jax.gin_files import load_gin
from hephaestus_jax.hf.safetensors_files import open_tensors, read_tensor
from hephaestus_jax.model.decoder import abstract_parameters, decode, output_kernel
from hephaestus_jax.starting_point import open_starting_point
from tools.benchmark.__main__ import BENCHMARKS

RUN = [command for command in commands() if command not in ELSEWHERE]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, quickstart: Quickstart) -> Reader:
    """A reader with a model and data of their own."""
    folder = tmp_path_factory.mktemp("reader")
    own_model.write_model(folder / "path/to/hf_model")
    own_model.write_data(folder / "path/to/data", folder / "path/to/notes")
    write_petstore(folder / "path/to/petstore")
    return Reader(folder, quickstart)


def write_petstore(folder: Path) -> None:
    """Operations for the README's own source, and a file that is no JSON."""
    words = ("Buys a pet for the shop", "Finds the owners of a lost animal", "Feeds every fish in one tank at night")
    operations = [
        {
            "name": f"POST /pets/{number}", "description": f"{told}, and tells what became of it.",
            "parameters": {"id": {"type": "string", "description": "Which one."}},
        }
        for number, told in enumerate(words)
    ]  # fmt: skip
    (folder / "north").mkdir(parents=True)
    (folder / "north" / "pets.json").write_text(json.dumps(operations))
    (folder / "broken.json").write_text("{")


# --- every command


@pytest.mark.slow
@pytest.mark.parametrize("command", RUN, ids=lambda command: command[:60])
def test_it_runs_and_writes_what_it_says(reader: Reader, command: str) -> None:
    done = reader.do(command)
    assert done.output.strip()
    assert "Traceback" not in done.output
    named = {word.partition("=")[2] for word in shlex.split(command) if word.startswith("--gin.RUN_DIR=")}
    if "--dry_run" in command:
        assert not done.made
    elif named and command != COMMAND:
        assert {str(path.relative_to(reader.folder)) for path in done.made} == named


def test_a_source_of_ones_own_becomes_a_corpus(reader: Reader) -> None:
    done = reader.output("tools.build_corpus", "petstore_source")
    (folder,) = done.made
    corpus = Corpus(folder)
    docs = [record for _, record in corpus.read("agent_docs", "train")]
    assert {doc.name for doc in docs if isinstance(doc, ApiDoc)} == {f"POST /pets/{number}" for number in range(3)}
    assert corpus.manifest["quarantine"]["counts"] == {"malformed JSON": 1} and "quarantined: 1 inputs" in done.output
    assert "POST /pets/1" in (folder / "corpus_report.html").read_text("utf-8")
    (snippet,) = re.findall(r"```python\n(# petstore_source.py.*?)```", README, re.DOTALL)
    assert len(snippet.strip().splitlines()) <= 20


def test_commands_that_are_run_elsewhere() -> None:
    assert not set(ELSEWHERE) - set(commands()), "listed, and no longer in the README"
    for elsewhere in ELSEWHERE.values():
        assert elsewhere.words in (ROOT / elsewhere.file).read_text("utf-8"), elsewhere


def test_that_commands_are_found() -> None:
    """A parser that finds nothing would pass everything."""
    assert COMMAND in commands()
    assert sum("-m train --gin_file=gin/runs/continual_pretrain.gin" in command for command in RUN) >= 5
    assert sum(command.startswith("python -c ") for command in RUN) == 1
    tools = [*(ROOT / "tools").glob("[a-z]*.py"), *(path.parent for path in (ROOT / "tools").glob("*/__main__.py"))]
    assert len(tools) >= 10
    for tool in tools:
        assert any(f"-m tools.{tool.stem} " in command for command in commands()), tool.name
    told = commands("```bash\na && b\n# no\nc \\\n  d\n```\nand `python -m\ne` but `python f`\n```python\n# g.py\n```")
    assert told == ["a", "b", "c d", "python -m e"]


# --- what comes of them


@pytest.mark.slow
def test_from_records_to_rows(reader: Reader) -> None:
    assert re.search(r"\bdone: \d+ steps in work/quickstart, ", reader.do(COMMAND).output)
    shown = reader.output("tools.inspect work/rows").output
    assert "licence" in shown and "row 0 of the run" in shown
    assert "agent_docs" in reader.output("python -c").output
    assert "0 leaks" in reader.output("tools.scan_leaks").output
    spec = json.loads((reader.folder / "work/rows/mixture.json").read_text())
    assert spec["stages"][0]["rates"] == {"agent_docs": 750, "agent_trajectories": 250, "code": 1000, "text": 1000}


@pytest.mark.slow
def test_train(reader: Reader) -> None:
    assert "done: step 3 of 3" in reader.output("gin/runs/pretrain.gin").output
    dry, run = (c for c in RUN if "--gin.RUN_DIR=work/agent" in c)
    output = reader.do(dry).output
    assert all(words in output for words in ("parameters", "epochs", "FLOPs", "memory per device", "estimated time"))
    output = reader.do(run).output
    assert "started with params of step 3 of work/base" in output
    assert "held-out agent_trajectories" in output
    table = reader.output("tools.evaluate").output
    assert "agent_docs, nats/token" in table and "right call before" in table
    assert "agent against base" in reader.output("tools.report").output
    assert (reader.folder / "work/report.html").read_text("utf-8").startswith("<!")
    named = re.findall(r"^\| (`.*?) \|", section("Train"), re.MULTILINE)
    present = {path.name for path in (reader.folder / "work/agent").iterdir()}
    assert set(re.findall(r"`([\w.]+)/?`", " ".join(named))) - present == {"bad_rows.jsonl", "huggingface"}


# --- the reader's own model and data


@pytest.mark.slow
def test_own_data(reader: Reader) -> None:
    output = reader.output("--data path/to/data").output
    assert "1 quarantined: 1 malformed JSON (first: chats.jsonl:4" in output
    assert "user_data train: 20 records" in output and "user_data validation: 1 records" in output
    (aside,) = (reader.folder / "work/mine").glob("quarantine*train.json")
    assert "chats.jsonl:4" in aside.read_text()
    for name in ("my_chats", "my_notes", "code", "text"):
        assert re.search(rf"^{name} +\d+ ", reader.output("--import my_tasks").output, re.MULTILINE)


@pytest.mark.slow
def test_own_rows_are_in_the_models_own_template(reader: Reader) -> None:
    transformers = pytest.importorskip("transformers")
    reader.output("--data path/to/data")
    theirs = transformers.AutoTokenizer.from_pretrained(reader.folder / "path/to/hf_model")
    row = own_model.conversation("Bonn")
    messages = [dict(message) for message in row["messages"]]
    call = dict(messages[2]["tool_calls"][0]["function"])
    messages[2]["tool_calls"] = [{"function": {**call, "arguments": json.loads(call["arguments"])}}]
    wanted = theirs.apply_chat_template(messages, tools=row["tools"], tokenize=True, return_dict=True)["input_ids"]
    (held_out,) = open_mixture(str(reader.folder / "work/mine")).validation.values()
    (row,) = held_out.read(np.arange(len(held_out))).tokens_NL
    assert row[: len(wanted)].tolist() == wanted


@pytest.mark.slow
def test_own_model_comes_back(reader: Reader) -> None:
    assert "are the same (21 tensors bit for bit, " in reader.output("convert_checkpoint verify").output
    began, exported = reader.folder / "path/to/hf_model", reader.folder / "work/mine_hf"
    card = "BASE_MODEL_CARD.md"  # where the base model's README.md goes, for the new model has its own
    assert {path.name for path in exported.iterdir()} == {path.name for path in began.iterdir()} | {card}
    for path in began.iterdir():
        same = path.read_bytes() == (exported / path.name.replace("README.md", card)).read_bytes()
        assert same != (path.suffix == ".safetensors"), path.name
    before, after = (open_tensors(folder) for folder in (began, exported))
    for name in before:
        assert (before[name].dtype, before[name].shape) == (after[name].dtype, after[name].shape)
        changed = np.mean(read_tensor(before[name]) != read_tensor(after[name]))
        assert changed > (0.1 if before[name].shape[1:] else -1), name  # norms move by less than bfloat16 can tell


@pytest.mark.slow
def test_transformers_computes_what_the_run_does(reader: Reader) -> None:
    """The exported folder, by its own means, against the run's checkpoint, by ours."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    reader.output("convert_checkpoint export work/mine_run")
    exported = reader.folder / "work/mine_hf"
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32).eval()
    request = own_model.conversation("Bonn")["messages"][:2]
    ids = tokenizer.apply_chat_template(request, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        wanted = theirs(ids["input_ids"]).logits.numpy()

    point = open_starting_point(reader.folder / "work/mine_run")
    params = point.restore({"params": abstract_parameters(point.model)}).state["params"]
    params = jax.tree.map(lambda value: value.astype("bfloat16").astype("float32"), params)  # as it was exported
    tokens = ids["input_ids"].numpy()
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    hidden = decode(params, point.model, ComputeConfig(dtype="float32"), tokens, np.ones_like(tokens), positions)
    assert np.abs(hidden @ output_kernel(params) - wanted).max() <= 1e-4
    assert np.abs(wanted).max() > 0.1
    assert tokenizer.decode(theirs.generate(ids["input_ids"], max_new_tokens=4, do_sample=False)[0])


@pytest.mark.slow
def test_accelerators(reader: Reader) -> None:
    assert (
        "mesh data 1 × fsdp 2 × expert 1 × context 1 × tensor 1: 2 cpu device(s)"
        in reader.output("--gin.MeshConfig.fsdp=-1").output
    )


# --- what it says without commands


def test_settings_it_names() -> None:
    """Each is one, and takes the value."""
    named = [text.strip() for text in re.findall(r"`--gin\.([^`]+)`", README)]
    settings = [text for line in named for text in line.split(" --gin.")]
    assert len(settings) >= 10
    quoted = [re.sub(r"^([\w.]+=)\"(.*)\"$", r"\1\2", text) for text in settings]
    needed = ["RUN_DIR=run", "MIXTURE=rows"]
    config = load_gin(TrainConfig, ["gin/runs/pretrain.gin"], [*needed, *quoted], also=PARTS)
    assert (config.mesh.fsdp, config.optimizer.kind, config.compute.remat) == (8, "muon", "full")
    assert config.evaluation.files == ("mine=path/to/file.jsonl",)


def test_names_it_gives() -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).is_file(), link
    for file in re.findall(
        r"gin/[a-z]+/\w+\.gin|requirements/\w+\.txt|tools/\w+\.ipynb|hephaestus_jax/\w+\.py", README
    ):
        assert (ROOT / file).is_file(), file
    (listed,) = re.findall(r"`--chat` knows (.*?), and\s+`template_file:DIR`", README, re.DOTALL)
    families = re.findall(r"`([^`]+)`", listed)
    assert len(families) >= 7 and set(families) <= set(FAMILIES)
    (listed,) = re.findall(r"`python -m tools\.benchmark (.*?) measure", README, re.DOTALL)
    assert set(re.findall(r"(\w+)`", listed)) == set(BENCHMARKS)


def test_the_map_of_the_house_is_true() -> None:
    house = section("The house")
    named = re.findall(r"^    (?:  )?([a-z_]+)/ ", house, re.MULTILINE)
    package = {path.parent.name for path in (ROOT / "hephaestus_jax").glob("*/__init__.py")}
    assert package == set(named) & package
    assert set(named) - package <= {path.name for path in ROOT.iterdir() if path.is_dir()}
    files = {name for line in re.findall(r"^      ((?:\w+\.py *)+)", house, re.MULTILINE) for name in line.split()}
    assert len(files) >= 10 and all((ROOT / "hephaestus_jax" / name).is_file() for name in files)
