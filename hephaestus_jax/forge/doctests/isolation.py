"""What keeps an executed docstring from harming the machine: Linux namespaces, resource limits, an audit hook.

Standard library only, and Linux only: this module runs inside the sandboxed worker, before any package under test is
imported. The kernel does the real work where it permits unprivileged namespaces; the audit hook refuses the same deeds
in Python, so that a refusal can be counted, and stands alone where namespaces are forbidden. Which measures were in
force is reported by name (`Isolation`), never assumed.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CLONE = {
    "user": 0x10000000,
    "network": 0x40000000,
    "mount": 0x00020000,
    "pid": 0x20000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
}
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_MOVE, _MS_REC, _MS_PRIVATE = 2, 4, 8, 4096, 8192, 16384, 1 << 18
_MS_RDONLY = 1
_SYS_MOUNT_SETATTR = 442  # the same number on every architecture
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
_DEVICES = ("null", "zero", "full", "random", "urandom")

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Asks the kernel to send this process a signal when the one that started it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0), "prctl")


def adopt_orphans() -> None:
    """Makes this process the parent of every process below it whose own parent ends."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl")


@dataclass
class Isolation:
    """The measures in force, by name; `measures` grows as the worker closes itself in."""

    measures: list[str] = field(default_factory=list)

    @property
    def is_init(self) -> bool:
        """Whether this process is process 1 of its own namespace, and so may kill everything it can see."""
        return "pid namespace" in self.measures and os.getpid() == 1


def enter_namespaces(scratch: Path, scratch_bytes: int) -> Isolation:
    """Moves this single-threaded process into namespaces of its own and returns which of them the kernel granted.

    Afterwards there is no network, the file system is read-only but for `scratch` (a memory disk of `scratch_bytes`
    bytes), `/dev` holds five harmless devices, and the next process that this one forks is process 1 of a process
    namespace; that process calls `close_namespaces`.
    """
    isolation = Isolation()
    uid, gid = os.geteuid(), os.getegid()
    if _libc.unshare(_CLONE["user"] | _CLONE["network"]) != 0:
        return isolation
    isolation.measures += ["user namespace", "network namespace"]
    try:
        _map_ids(uid, gid)
    except OSError as error:
        isolation.measures.append(f"no mapping of user ids ({error})")
    for name in ("ipc", "uts", "mount", "pid"):
        if _libc.unshare(_CLONE[name]) == 0:
            isolation.measures.append(f"{name} namespace")
    if "uts namespace" in isolation.measures:
        _libc.sethostname(b"sandbox", 7)
    if "mount namespace" in isolation.measures:
        _restrict_mounts(scratch, scratch_bytes, isolation)
    return isolation


def close_namespaces(isolation: Isolation) -> None:
    """Shows this process nothing but its own process namespace, and gives up the power to change any namespace."""
    if isolation.is_init:
        flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
        if _libc.mount(b"proc", b"/proc", b"proc", flags, None) == 0:  # forbidden where /proc is partly masked
            isolation.measures.append("own /proc")
    if "user namespace" in isolation.measures:
        _drop_capabilities()


def _map_ids(uid: int, gid: int) -> None:
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def _restrict_mounts(scratch: Path, scratch_bytes: int, isolation: Isolation) -> None:
    """Everything read-only; a memory disk on `scratch`; a minimal /dev; no sockets of services under /run."""
    target = os.fsencode(scratch)
    try:
        _check(_libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None), "make / private")
        options = f"size={scratch_bytes},nr_inodes=65536,mode=0700".encode()
        _check(_libc.mount(b"tmpfs", target, b"tmpfs", _MS_NOSUID | _MS_NODEV, options), "mount scratch")
        devices = scratch / ".dev"
        devices.mkdir()
        # A disk of its own, so that the read-only attribute of / below reaches it and not the scratch folder.
        _check(_libc.mount(b"tmpfs", os.fsencode(devices), b"tmpfs", _MS_NOSUID, b"size=65536,mode=0755"), "mount dev")
        for name in _DEVICES:
            (devices / name).touch()
            source, node = f"/dev/{name}".encode(), os.fsencode(devices / name)
            _check(_libc.mount(source, node, None, _MS_BIND, None), f"bind /dev/{name}")
        _check(_libc.mount(os.fsencode(devices), b"/dev", None, _MS_MOVE, None), "move /dev")
        devices.rmdir()
        _set_attributes(b"/", set_=_MS_RDONLY | _MS_NOSUID)  # MOUNT_ATTR_* equal MS_* for these two
        _set_attributes(target, clear=_MS_RDONLY)
        if os.path.isdir("/run") and not str(scratch).startswith("/run/") and not sys.prefix.startswith("/run/"):
            _check(_libc.mount(b"tmpfs", b"/run", b"tmpfs", _MS_RDONLY, b"size=4096"), "mask /run")
    except OSError as error:
        isolation.measures.append(f"no read-only file system ({error})")
    else:
        isolation.measures.append("read-only file system")


def _set_attributes(path: bytes, set_: int = 0, clear: int = 0) -> None:
    attributes = _MountAttributes(attr_set=set_, attr_clr=clear)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    flags = ctypes.c_uint(_AT_RECURSIVE)
    result = _libc.syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, path, flags, ctypes.byref(attributes), size)
    _check(result, "mount_setattr")


def _drop_capabilities() -> None:
    """Gives up every capability for good, so that nothing below can be undone from within."""
    for capability in range(64):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)  # fails past the last capability the kernel knows
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this process
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def limit(which: int, soft: int, hard: int | None = None) -> None:
    """Lowers one resource limit, never above the limit already in force."""
    _, ceiling = resource.getrlimit(which)
    hard = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(which, (soft, hard))


class Refused(PermissionError):
    """A deed that the sandbox does not allow."""


# Audit events, https://docs.python.org/3/library/audit_events.html
_NETWORK = {
    "ftplib.connect",
    "http.client.connect",
    "smtplib.connect",
    "socket.__new__",
    "socket.bind",
    "socket.connect",
    "socket.getaddrinfo",
    "socket.gethostbyaddr",
    "socket.gethostbyname",
    "socket.gethostname",
    "socket.getnameinfo",
    "socket.getservbyname",
    "socket.getservbyport",
    "socket.sendmsg",
    "socket.sendto",
    "socket.sethostname",
    "urllib.Request",
    "webbrowser.open",
}
_PROCESS = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.system",
    "pty.spawn",
    "subprocess.Popen",
}
_SIGNAL = {"os.kill", "os.killpg", "resource.prlimit", "resource.setrlimit", "signal.pthread_kill"}
_NATIVE = {"ctypes.dlopen", "ctypes.dlsym", "ctypes.dlsym/handle", "sqlite3.enable_load_extension"}
# event → (index of a path that it changes, index of the descriptor that the path is relative to) among its arguments
_CHANGES: dict[str, tuple[tuple[int, int | None], ...]] = {
    "os.chmod": ((0, 2),),
    "os.chown": ((0, 3),),
    "os.link": ((0, 2), (1, 3)),
    "os.mkdir": ((0, 2),),
    "os.remove": ((0, 1),),
    "os.removexattr": ((0, None),),
    "os.rename": ((0, 2), (1, 3)),
    "os.rmdir": ((0, 1),),
    "os.setxattr": ((0, None),),
    "os.symlink": ((1, 2),),
    "os.truncate": ((0, None),),
    "os.utime": ((0, 3),),
    "shutil.rmtree": ((0, None),),
    "sqlite3.connect": ((0, None),),
}
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_READABLE = (
    "/usr",
    "/lib",
    "/lib64",
    "/bin",
    "/sys",
    "/dev",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/etc/localtime",
    "/etc/mime.types",
)


class Guard:
    """An audit hook. Refuses what leaves the sandbox and keeps the names of the events it refused.

    It always refuses the network and writing outside `scratch`; once `strict` it also refuses new processes, signals,
    native libraries, and reading anything but `readable`: what importing a package may need, its docstrings may not.
    """

    def __init__(self, scratch: Path, readable: tuple[str, ...]) -> None:
        self.scratch = os.path.realpath(scratch)
        self.readable = tuple(os.path.realpath(path) for path in (*readable, *_READABLE, self.scratch))
        self.strict = False
        self.refused: list[str] = []
        self._checks: dict[str, Callable[[str, tuple[Any, ...]], bool]] = {
            **dict.fromkeys(_NETWORK, lambda *_: False),
            **dict.fromkeys(_PROCESS | _SIGNAL | _NATIVE, lambda *_: not self.strict),
            **dict.fromkeys(_CHANGES, self._may_change),
            "open": self._may_open,
            "socket.__new__": lambda _, arguments: arguments[1] in (-1, 1),  # AF_UNIX: event loops wake up by one
        }

    def install(self) -> None:
        """Hooks in; there is no way back for this process and its children."""
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        check = self._checks.get(event)
        if check is not None and not check(event, arguments):
            self.refused.append(event)
            raise Refused(f"the sandbox refuses {event}")

    def _may_open(self, _: str, arguments: tuple[Any, ...]) -> bool:
        path, mode, flags = arguments
        if isinstance(path, int):  # a descriptor that is already open
            return True
        if (flags or 0) & _WRITE_FLAGS or (mode and set(mode) & set("wax+")):
            return self._inside(path, (self.scratch, "/dev/null"))
        return not self.strict or self._inside(path, self.readable)

    def _may_change(self, event: str, arguments: tuple[Any, ...]) -> bool:
        for index, folder in _CHANGES[event]:
            path = arguments[index]
            if folder is not None and arguments[folder] != -1:
                path = os.path.join(os.readlink(f"/proc/self/fd/{arguments[folder]}"), os.fsdecode(path))
            if not isinstance(path, int) and not self._inside(path, (self.scratch,)):
                return False
        return True

    def _inside(self, path: Any, roots: tuple[str, ...]) -> bool:
        text = os.fsdecode(path)
        if text == ":memory:":  # SQLite's name for no file
            return True
        real = os.path.realpath(text)
        return not text.startswith("file:") and any(real == root or real.startswith(root + "/") for root in roots)


def reason_for(refused: list[str]) -> str:
    """Why an example was dropped, given the events that were refused while it ran."""
    return "network" if not _NETWORK.isdisjoint(refused) else "refused"
