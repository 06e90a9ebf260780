"""The confined worker: a machine with one folder, a shell and a Python interpreter, closed in by Linux namespaces.

Started by `process.py`. Speaks JSON lines: each request names an operation of `Machine`, each reply is its result.
Everything that an episode starts ends with the command that started it, but for the interpreter of `interpreter.py`.
Standard library only, and Linux only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hephaestus_jax.forge.confinement import interpreter
from hephaestus_jax.forge.doctests.isolation import (
    _libc,
    adopt_orphans,
    close_namespaces,
    die_with_parent,
    enter_namespaces,
    limit,
)
from hephaestus_jax.forge.doctests.supervisor import end_children, supervise

HOME = Path("/srv")  # exists on every Debian, is empty there, and is covered by a memory disk of the worker's own
WORK, ASIDE = HOME / "work", HOME / ".aside"
_NEEDED = {"user namespace", "network namespace", "mount namespace", "pid namespace", "read-only file system"}
_SCRATCH_BYTES, _FILE_BYTES = 64 << 20, 8 << 20
_COMMAND_MEMORY_BYTES, _SESSION_MEMORY_BYTES = 256 << 20, 1 << 30  # of address space, for each process
_READ_BYTES = 1 << 16  # of one file, for the picture of the folder
_OUTPUT_BYTES = 1 << 16
_PROCESSES, _SESSION_PROCESSES = 40, 12
_PROCESS_NUMBER = re.compile(r"^(bash: line \d+:) +\d+ (?=\S)", re.MULTILINE)  # of a child that a signal ended
_NOBODY = 65534
_PR_SET_DUMPABLE = 4
_PINNED = 1_700_000_000  # every time of change, in seconds since 1970: listings must be the same on any day
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin", "HOME": str(HOME), "LC_ALL": "C", "TZ": "UTC", "TERM": "dumb", "COLUMNS": "80",
    "TIME_STYLE": "long-iso",
    "TMPDIR": str(HOME / "tmp"), "PYTHONHASHSEED": "0",
}  # fmt: skip

Tree = dict[str, list[Any]]  # path → [kind ("file", "folder", "link"), mode, text or target of the link]


class Machine:
    """The folder `WORK` and what runs in it. One operation at a time; each returns what JSON can say."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds  # that one command or cell may take
        self._session: _Session | None = None

    def begin(self, files: Tree) -> Tree:
        """A new episode: ends everything, and fills the folder with `files`."""
        self.end()
        for folder in (WORK, ASIDE, HOME / "tmp"):
            _remove(folder)
        (HOME / "tmp").mkdir()
        write_tree(WORK, files)
        return read_tree(WORK)

    def end(self) -> None:
        """Ends the interpreter and all else that runs."""
        if self._session is not None:
            self._session.close()
            self._session = None
        end_children(is_init=True)

    def shell(self, command: str) -> dict[str, Any]:
        """Runs a command in a new shell: {"output", "status" (None if it was ended), "tree" afterwards}."""
        try:
            output, status = self._bash(command)
        except ValueError:
            output, status = "bash: the command is not text\n", 126
        except (OSError, subprocess.SubprocessError):
            output, status = "bash: cannot start in the working directory\n", 126
        _pin(WORK)
        return {"output": output, "status": status, "tree": read_tree(WORK)}

    def write(self, path: str, text: str) -> dict[str, Any]:
        """Writes a file, with the folders it needs: {"problem" ("" if none), "tree"}."""
        target = Path(os.path.normpath(WORK / path))
        problem = "" if target.is_relative_to(HOME) else "it is outside the home folder"
        try:
            if not problem:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text, encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            problem = os.strerror(error.errno or 0)
        except ValueError:
            problem = "the path or the text is not text"
        _pin(WORK)
        return {"problem": problem, "tree": read_tree(WORK)}

    def rehearse(self, commands: list[list[str]]) -> list[dict[str, Any]]:
        """What these ["shell", command] and ["write", path, text] would do one after the other; leaves no trace."""
        with self._copy():
            return [getattr(self, name)(*arguments) for name, *arguments in commands]

    def python(self, code: str) -> dict[str, Any]:
        """Runs code in the interpreter, starting it if there is none: {"output", "error", "names", "lost", "tree"}."""
        if self._session is None:
            self._session = _Session(self._seconds)
        answer = self._session.ask({"code": code})
        if answer is None:
            self.end()
            answer = {"output": "", "error": True, "names": {}, "lost": True}
        _pin(WORK)
        return {"lost": False, **answer, "tree": read_tree(WORK)}

    def evaluate(self, expressions: list[str]) -> list[str]:
        """The values of expressions in a copy of the interpreter, as text; "!" and the error's name for a failure."""
        if self._session is None:
            self._session = _Session(self._seconds)
        answer = self._session.ask({"evaluate": expressions})
        if answer is None:
            self.end()
            return ["!Timeout"] * len(expressions)
        return answer["values"]

    def rehearse_python(self, cells: list[str], expressions: list[str]) -> dict[str, Any]:
        """Runs cells in an interpreter and a folder of their own: {"cells": as of `python`, "values"}."""
        kept, self._session = self._session, None
        try:
            with self._copy():
                session = _Session(self._seconds)
                answers = []
                for cell in cells:
                    answer = session.ask({"code": cell}) or {"output": "", "error": True, "names": {}}
                    answers.append({**answer, "tree": read_tree(WORK)})
                values = (session.ask({"evaluate": expressions}) or {"values": []})["values"]
                session.close()
        finally:
            self._session = kept
        return {"cells": answers, "values": values}

    @contextlib.contextmanager
    def _copy(self) -> Any:
        """Puts the folder aside and a copy in its place, for a while. The folder itself stays the same inode."""
        tree = read_tree(WORK)
        os.rename(WORK, ASIDE)
        try:
            write_tree(WORK, tree)
            yield
        finally:
            _remove(WORK)
            os.rename(ASIDE, WORK)

    def _bash(self, command: str) -> tuple[str, int | None]:
        process = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-c", command], executable="/bin/bash",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=WORK, env=_ENVIRONMENT,
            start_new_session=True,
        )  # fmt: skip
        assert process.stdout is not None
        data, whole = _read(process.stdout.fileno(), process, time.monotonic() + self._seconds)
        status = process.poll() if whole else None
        end_children(is_init=True)
        process.returncode = 0  # it has been reaped
        process.stdout.close()
        output = _PROCESS_NUMBER.sub(r"\1 ", data.decode("utf-8", "replace"))
        return output, None if status is None or status < 0 else status


class _Session:
    """The interpreter: a forked process that keeps its names from one request to the next."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._number = seconds, 0
        self._end, other = socket.socketpair()
        self._child = os.fork()
        if self._child == 0:
            with contextlib.suppress(BaseException):
                os.chdir(WORK)
                os.dup2(other.fileno(), 3)
                os.dup2(0, 2)  # /dev/null
                os.closerange(4, 1 << 12)  # above all the way to our owner
                limit(resource.RLIMIT_AS, _SESSION_MEMORY_BYTES)
                limit(resource.RLIMIT_NPROC, _SESSION_PROCESSES)
                interpreter.serve(socket.socket(fileno=3), seconds)
            os._exit(0)
        other.close()
        self._file = self._end.makefile("rwb")

    def ask(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Its answer; None if it has not given one in time. Ends whatever else the request has started."""
        self._number += 1
        deadline = time.monotonic() + 2 * self._seconds
        try:
            self._file.write(json.dumps({**message, "number": self._number}).encode() + b"\n")
            self._file.flush()
            while (left := deadline - time.monotonic()) > 0:
                self._end.settimeout(left)
                line = self._file.readline(64 << 20)
                answer = json.loads(line) if line.endswith(b"\n") else {"number": self._number, "lost": True}
                if answer.get("number") == self._number:
                    return None if answer.get("lost") else answer
        except (OSError, ValueError, AttributeError):
            pass
        finally:
            self._end_others()
        return None

    def _end_others(self) -> None:
        """Kills every process but the worker and this one."""
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) not in (1, self._child):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(name), signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(int(name), os.WNOHANG)

    def close(self) -> None:
        """Kills it."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._end.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)


def _read(descriptor: int, process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bool]:
    """What a process prints, and whether it has ended in time without printing too much."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN | select.POLLHUP)
    parts, size, closed = [], 0, False
    while time.monotonic() < deadline and size <= _OUTPUT_BYTES:
        ended = process.poll() is not None  # asked first: all that it printed is in the pipe by then
        if not closed and poller.poll(0 if ended else 20):
            part = os.read(descriptor, 1 << 16)
            parts.append(part)
            size += len(part)
            closed = not part
        elif ended:  # or something in the background holds the pipe open
            return b"".join(parts), True
        elif closed:
            time.sleep(0.0005)
    return b"".join(parts)[:_OUTPUT_BYTES], False


def read_tree(root: Path) -> Tree:
    """A picture of a folder; of long files the beginning and the length. What cannot be seen is "hidden"."""
    tree: Tree = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder, name)
            try:
                tree[str(path.relative_to(root))] = _entry(path)
            except OSError:
                tree[str(path.relative_to(root))] = ["hidden", 0, ""]
    return dict(sorted(tree.items()))


def _entry(path: Path) -> list[Any]:
    state = path.lstat()
    mode = stat.S_IMODE(state.st_mode)
    if stat.S_ISLNK(state.st_mode):
        return ["link", 0, os.readlink(path)]
    if stat.S_ISDIR(state.st_mode):
        return ["folder", mode, ""]
    if stat.S_ISREG(state.st_mode):
        return ["file", mode, _text_of(path, state.st_size)]
    return ["other", mode, ""]


def _text_of(path: Path, size: int) -> str:
    try:
        with open(path, "rb") as file:
            text = file.read(_READ_BYTES).decode("utf-8", "surrogateescape")
    except PermissionError:
        return "(unreadable)"
    return text if size <= _READ_BYTES else f"{text}… ({size} bytes)"


def write_tree(root: Path, tree: Tree) -> None:
    """Makes a folder as pictured."""
    root.mkdir(parents=True)
    for name, (kind, mode, text) in sorted(tree.items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "folder":
            path.mkdir(exist_ok=True)
        elif kind == "link":
            path.symlink_to(text)
        elif kind == "file":
            path.write_bytes(text.encode("utf-8", "surrogateescape"))
            path.chmod(mode)
    for name, (kind, mode, _) in sorted(tree.items(), reverse=True):
        if kind == "folder":
            (root / name).chmod(mode)
    _pin(root)


def _pin(root: Path) -> None:
    for folder, _, files in os.walk(root, topdown=False):
        for path in (*(Path(folder, name) for name in files), Path(folder)):
            with contextlib.suppress(OSError):
                os.utime(path, (_PINNED, _PINNED), follow_symlinks=False)


def _remove(folder: Path) -> None:
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
        return
    _open_up(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _open_up(folder: Path) -> None:
    """Makes a folder and those below it accessible, whatever a command did to their modes."""
    with contextlib.suppress(OSError):
        folder.chmod(0o700)
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                _open_up(Path(entry.path))


def _become_nobody() -> None:
    """Gives up being the superuser, whom the kernel does not limit in the number of processes."""
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # else /proc/self belongs to the superuser still


def main() -> None:
    """Closes this process in, then answers requests until the input ends."""
    die_with_parent()
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    seconds, for_python = float(sys.argv[2]), sys.argv[3] == "python"
    if for_python:
        interpreter.load()
    if os.geteuid() == 0:
        _become_nobody()
    isolation = enter_namespaces(HOME, _SCRATCH_BYTES)
    lacking = sorted(_NEEDED - set(isolation.measures))
    if lacking:
        sys.exit(f"this machine does not grant {', '.join(lacking)}")
    supervise()
    adopt_orphans()
    close_namespaces(isolation)
    limit(resource.RLIMIT_FSIZE, _FILE_BYTES)
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_NPROC, _PROCESSES)
    if not for_python:  # on itself as well, so that commands can be started without a fork of Python's
        limit(resource.RLIMIT_AS, _COMMAND_MEMORY_BYTES)
    os.umask(0o022)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.chdir(HOME)
    machine = Machine(seconds)
    replies.write(json.dumps(isolation.measures).encode() + b"\n")
    replies.flush()
    for line in requests:
        operation, *arguments = json.loads(line)
        replies.write(json.dumps(getattr(machine, operation)(*arguments)).encode() + b"\n")
        replies.flush()
