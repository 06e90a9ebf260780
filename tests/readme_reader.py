"""A newcomer who does what the README says, from top to bottom, in an empty folder.

Commands are those of its `bash` blocks, complete ones in running text (`python -m …`), and Python snippets. A snippet
that begins with a file name is saved under that name. Only sizes are made smaller, and what the quickstart does with
the same command is not done again.
"""

from __future__ import annotations

import ast
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from quickstart_run import COMMAND, Quickstart
from quickstart_run import SMALLER as QUICKSTART_SMALLER

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")

_QUICKSTART = dict(setting.split("=", 1) for setting in QUICKSTART_SMALLER)
_CORPUS = " ".join(f"--gin.{shlex.quote(text)}" for text in ast.literal_eval(_QUICKSTART["Recipe.corpus_settings"]))
_STEPS = "--gin.TRAIN_STEPS=3 --gin.WARMUP_STEPS=1 --gin.BATCH_SIZE=2 --gin.EvaluationConfig.max_rows=4"
_SAVES = "--gin.CheckpointConfig.every_steps=1"
SMALLER = {
    # as in the small quickstart
    "gin/corpora/installed.gin": f"gin/corpora/quickstart.gin {_CORPUS}",
    "--size 16384": f"--size {_QUICKSTART['VOCABULARY_SIZE']}",
    "--gin.VOCAB_SIZE=16384": f"--gin.VOCAB_SIZE={_QUICKSTART['VOCABULARY_SIZE']}",
    "--seq_length 2048": f"--seq_length {_QUICKSTART['SEQUENCE_LENGTH']}",
    # further
    "--seq_length 4096": "--seq_length 512",
    "--gin_file=gin/runs/pretrain.gin": f"--gin_file=gin/runs/pretrain.gin --gin_file=gin/models/tiny.gin {_STEPS}",
    "--gin_file=gin/runs/continual_pretrain.gin": f"--gin_file=gin/runs/continual_pretrain.gin {_STEPS} {_SAVES}",
    "--gin_file=gin/runs/lora.gin": f"--gin_file=gin/runs/lora.gin {_STEPS}",
    "gin/corpora/environments.gin": "gin/corpora/environments.gin --env household,sqlite --episodes 60",
    "python -m tools.evaluate": "python -m tools.evaluate --max_rows 8 --max_calls 4 --sample_tokens 8",
}
QUICKSTART_FOLDERS = {
    "work/corpus": "work/quickstart/corpus",
    "work/vocabulary": "work/quickstart/vocabulary",
    "work/rows": "work/quickstart/rows_agent",
    "work/rows_base": "work/quickstart/rows_base",
}
"""Folder of the README → the quickstart's, which the same command made: it is copied, and not made twice."""


class Elsewhere(NamedTuple):
    """Where a command is run that the reader does not run: in what way, by which file, and the words there."""

    how: str
    file: str
    words: str


ELSEWHERE = {
    "pip install -e .": Elsewhere("as the next, which brings more", ".ci/run", "pip install --quiet -e '.[test]'"),
    "pip install -e '.[test]'": Elsewhere("on a bare machine", ".ci/run", "pip install --quiet -e '.[test]'"),
    "python -m pytest": Elsewhere("on a bare machine", ".ci/run", "python -m pytest"),
    "pip install -e '.[tpu]'": Elsewhere(
        "not: it is for another machine; there is such an extra", "setup.py", '"tpu": ['
    ),
    "python -m tools.build_corpus --config gin/corpora/forge.gin --out work/forge": Elsewhere(
        "not: it fetches packages; the same pipeline from packages that are at hand",
        "tests/forge/test_forge_build.py",
        "config(catalogues)",
    ),
    "python -m train --coordinator=host0:8476 --processes=2 --process_id=0 ...": Elsewhere(
        "several processes on one machine, told by the environment; the options mean the same",
        "tests/parallel/test_distributed.py",
        'given("--coordinator=host0:8476", "--processes=4", "--process_id=0")',
    ),
    "python -m tools.compile_check --gin_file=gin/runs/tpu/llama3_8b_v5e_16x16.gin --topology=v5e:16x16": Elsewhere(
        "a small model for a small slice",
        "tests/compile_check/test_compile_check.py",
        '"tools.compile_check", "--topology=',
    ),
    "python -m tools.launch local --processes=2 -- python -m train ...": Elsewhere(
        "with processes of its own", "tests/tools/test_launch.py", "local"
    ),
    "python -m tools.prove_checkpoints --out DIR": Elsewhere(
        "with fewer kills", "tests/tools/test_prove_checkpoints.py", '"tools.prove_checkpoints", "--out"'
    ),
    "python -m tools.benchmark train": Elsewhere(
        "with a small model, in the tests' own process", "tests/tools/test_benchmark_steps.py", 'main(["train", '
    ),
}


@dataclass(frozen=True)
class Done:
    """What came of a command.

    Attributes:
        output: what it printed, errors included.
        made: what it is told to write, and has written.
    """

    output: str
    made: tuple[Path, ...] = ()


def section(title: str) -> str:
    """The text below a heading."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def commands(text: str = README) -> list[str]:
    """Every command, in order; a Python snippet as `python -c …`."""
    found = []
    for language, block, inline in re.findall(r"```(\w*)\n(.*?)```|`(python\s+-m\s[^`]+)`", text, re.DOTALL):
        if language == "bash":
            lines = block.replace("\\\n", " ").splitlines()
            whole = [line for line in lines if line.strip() and not line.startswith("#")]
            found += [part for line in whole for part in line.split(" && ")]
        elif language == "python" and not _file_name(block):
            found.append(shlex.join(["python", "-c", block]))
        found.append(inline)
    tidy = [command if "\n" in command and " -c " in command else " ".join(command.split()) for command in found]
    return [command for command in dict.fromkeys(tidy) if command]


def _file_name(snippet: str) -> str:
    match = re.match(r"# (\w+\.py)\n", snippet)
    return match[1] if match else ""


def smaller(command: str) -> list[str]:
    """Its words, with what makes it small."""
    for large, small in SMALLER.items():
        command = command.replace(large, small)
    return shlex.split(command)


class Reader:
    """Someone who has the README and the quickstart's results before them.

    Args:
        folder: where the commands are given: not the repository. It already holds `path/to/…`, the reader's own.
        quickstart: what its command left.
    """

    def __init__(self, folder: Path, quickstart: Quickstart) -> None:
        self.folder, self.quickstart = folder, quickstart
        self._done: dict[str, Done] = {}
        self._stuck_at = ""
        for snippet in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
            if name := _file_name(snippet):
                (folder / name).write_text(snippet)
        for mine, its in QUICKSTART_FOLDERS.items():
            shutil.copytree(quickstart.folder / its, folder / mine)

    def do(self, command: str) -> Done:
        """What came of a command, after everything that stands before it."""
        for earlier in commands():
            if earlier not in self._done and earlier not in ELSEWHERE:
                assert not self._stuck_at, f"not come to; this failed: {self._stuck_at}"
                self._stuck_at = earlier
                self._done[earlier] = self._do(earlier)
                self._stuck_at = ""
            if earlier == command:
                return self._done[command]
        raise AssertionError(f"not in the README: {command}")

    def output(self, *words: str) -> Done:
        """The same for the one command that holds all of `words`."""
        (command,) = [command for command in commands() if all(word in command for word in words)]
        return self.do(command)

    def _do(self, command: str) -> Done:
        if command == COMMAND:
            return Done(self.quickstart.output)
        if self._is_quickstarts(command):
            return Done(self.quickstart.output)
        words = smaller(command)
        assert words[0] == "python", f"neither run nor listed in ELSEWHERE: {command}"
        results = [self.folder / path for path in _results(words)]
        assert not any(path.exists() for path in results), command
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=self.folder, env=_environment(words), check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        return Done(done.stdout, tuple(path for path in results if path.exists()))

    def _is_quickstarts(self, command: str) -> bool:
        """Whether the quickstart gave this command: the same program with the same options, in its own folders."""
        wanted = {QUICKSTART_FOLDERS.get(word, word) for word in smaller(command)}
        given = [set(shlex.split(line[2:])) for line in self.quickstart.output.splitlines() if line.startswith("$ ")]
        return any(wanted <= words for words in given)


def _results(words: list[str]) -> list[str]:
    """What a command is told to write."""
    named = [after for word, after in itertools.pairwise(words) if word == "--out"]
    named += [word.partition("=")[2] for word in words if word.startswith("--gin.RUN_DIR=")]
    return named + ([words[-1]] if "export" in words else [])


def _environment(words: list[str]) -> dict[str, str]:
    """Nothing of ours is set; two devices where the command is for several."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("HEPHAESTUS_")}
    own |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    if "--gin.MeshConfig.fsdp=-1" in words:
        own["XLA_FLAGS"] = f"{own.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    return own
