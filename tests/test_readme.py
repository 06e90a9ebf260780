"""What the README says, done literally: only sizes and the choice of packages are made smaller."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
SMALLER = {
    "gin/corpora/installed.gin": "gin/corpora/installed_sample.gin --gin.PACKAGES=\"('gin-config','optax','python')\""
    " --gin.SAMPLE=0.03 --gin.HELDOUT_FRACTION=0.1 --gin.VALIDATION_FRACTION=0.2",
    "--size 16384": "--size 1500",
    "--seq_length 2048": "--seq_length 256",
    "--seq_length 4096": "--seq_length 256",
    "--gin.VOCAB_SIZE=16384": "--gin_file=gin/models/tiny.gin --gin.VOCAB_SIZE=1500 --gin.TRAIN_STEPS=3"
    " --gin.BATCH_SIZE=2 --gin.EvaluationConfig.max_rows=4",
}


def _section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def _blocks(section: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def _commands(block: str) -> list[str]:
    lines = block.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _run(command: str, folder: Path) -> str:
    """Runs one command of the README in `folder`, which is not the repository."""
    for large, small in SMALLER.items():
        command = command.replace(large, small)
    words = shlex.split(command)
    assert words[0] == "python"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), str(folder)])}
    result = subprocess.run(
        [sys.executable, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the section "From records to rows" was followed."""
    folder = tmp_path_factory.mktemp("reader")
    for command in _commands(_blocks(_section("From records to rows"), "bash")[0]):
        output = _run(command, folder)
        if "tools.build_cache" in command:
            assert "agent_trajectories" in output and "epochs" in output
        if "tools.inspect" in command:
            assert "licence" in output and "row 0 of the run" in output
    return folder


@pytest.mark.slow
def test_from_records_to_rows(folder: Path) -> None:
    spec = json.loads((folder / "work/rows/mixture.json").read_text())
    assert spec["stages"][0]["rates"] == {"agent_docs": 750, "agent_trajectories": 250, "code": 1000, "text": 1000}
    (folder / "snippet.py").write_text(_blocks(_section("From records to rows"), "python")[0])
    assert "agent_docs" in _run("python snippet.py", folder)
    (scan,) = re.findall(r"`(python -m tools.scan_leaks [^`]*)`", README)
    assert "0 leaks" in _run(scan, folder)


@pytest.mark.slow
def test_your_own_data(folder: Path) -> None:
    data = folder / "path/to/data"
    data.mkdir(parents=True)
    turns = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]
    (data / "chats.jsonl").write_text("\n".join(json.dumps({"messages": turns, "n": n}) for n in range(50)))
    (alone,) = _commands(_blocks(_section("Your own data"), "bash")[0])
    assert "user_data" in _run(alone.replace("path/to/hf_model", "work/vocabulary"), folder)
    (snippet,) = _blocks(_section("Your own data"), "python")
    (folder / "my_tasks.py").write_text(snippet)
    rest = "--seq_length 256 --out work/mixed --corpus work/corpus --vocabulary work/vocabulary"
    (command,) = re.findall(r"python -m tools.build_cache --import my_tasks .*(?= \.\.\.)", snippet)
    assert "my_chats" in _run(f"{command} {rest}", folder)


def test_the_map_of_the_house_is_true() -> None:
    root = Path(__file__).parent.parent
    named = re.findall(r"^    (?:  )?([a-z_]+)/ ", _section("The house"), re.MULTILINE)
    package = [name for name in named if (root / "hephaestus_jax" / name).is_dir()]
    assert set(named) - set(package) <= {path.name for path in root.iterdir() if path.is_dir()}
    assert set(package) == {path.parent.name for path in (root / "hephaestus_jax").glob("*/__init__.py")}


@pytest.mark.slow
def test_train(folder: Path) -> None:
    rows, base, dry, agent = _commands(_blocks(_section("Train"), "bash")[0])
    _run(rows, folder)
    assert "done: step 3 of 3" in _run(base, folder)
    assert "estimated time" in _run(dry, folder)
    assert not (folder / "work/agent").exists()
    output = _run(agent, folder)
    assert "started with params of step 3 of work/base" in output
    assert "held-out agent_trajectories" in output
    assert "this run is complete" in _run(agent, folder)
    section = _section("Train")
    for name in ("metrics.jsonl", "tensorboard", "checkpoints", "config.gin", "run.json"):
        assert (folder / "work/agent" / name).exists()
        assert name in section
