"""What lies in a checkpoint directory, and how one checkpoint is laid out on disk.

DIR/STEP/                    one whole checkpoint; appears in one rename
  state/                     the arrays (OCDBT), as a nested dictionary by their names
  facts/metadata             JSON: next row, seed, digests of what the run is made of
  digests/metadata           JSON: name, shape, dtype and content digests of every array, digest of the facts
DIR/STEP.orbax-checkpoint-tmp/   a save that is open, or was killed
DIR/STEP.deleting/           a checkpoint that the keep policy drops
DIR/set_aside/STEP-N/        a damaged checkpoint
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from hephaestus_jax.checkpoints.digests import array_digests, first_difference
from hephaestus_jax.checkpoints.processes import Damaged
from hephaestus_jax.errors import UserError

FORMAT = 1
STATE, FACTS, DIGESTS = "state", "facts", "digests"
SET_ASIDE = "set_aside"
_OPEN_SAVE = re.compile(r"\d+\.orbax-checkpoint-tmp.*")
_HALF_DELETED = re.compile(r"\d+\.deleting")
_JSON_FILE = "metadata"
_ERRNO_NOT_DAMAGE = (errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT)
_NOT_DAMAGE = ("PERMISSION_DENIED", "UNAUTHENTICATED", "UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED")


# ---- names


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their path, such as "params/final_norm/scale"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    if len(named) != len(leaves):
        raise ValueError("two leaves of the state have the same name; a key must not contain '/'")
    return named


def nested(named: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves by path as nested dictionaries, the form in which they are stored."""
    tree: dict[str, Any] = {}
    for name, leaf in named.items():
        *folders, last = name.split("/")
        branch = tree
        for folder in folders:
            branch = branch.setdefault(folder, {})
        branch[last] = leaf
    return tree


# ---- directories


def open_directory(directory: str | os.PathLike) -> epath.Path:
    """A local path or URL as a path; local ones become absolute."""
    text = os.fspath(directory)
    return epath.Path(text if "://" in text else os.path.abspath(os.path.expanduser(text)))


def whole_steps(directory: epath.Path) -> list[int]:
    """Steps of the checkpoints in `directory` whose saving was finished, ascending."""
    if not directory.exists():
        return []
    found = ocp.path.step.standard_name_format().find_all(directory)
    return sorted(one.step for one in found if one.path.name == str(one.step))


def open_saves(directory: str | os.PathLike) -> list[str]:
    """Names of the folders of saves that are open, or were killed, in a local directory."""
    path = open_directory(directory)
    return sorted(name for name in _names(path) if _OPEN_SAVE.fullmatch(name))


def _names(directory: epath.Path) -> list[str]:
    return [path.name for path in directory.iterdir()] if directory.exists() else []


def _is_unfinished(name: str, directory: epath.Path, whole: set[str]) -> bool:
    """Whether that is what a killed process left; buckets have no rename, a save is written in its place there."""
    in_place = "://" in str(directory) and name.isdecimal() and name not in whole
    return in_place or bool(_OPEN_SAVE.fullmatch(name) or _HALF_DELETED.fullmatch(name))


def remove_unfinished(directory: epath.Path) -> list[str]:
    """Removes what killed processes left half written or half deleted; the names of saves among it."""
    whole = {str(step) for step in whole_steps(directory)}
    names = sorted(name for name in _names(directory) if _is_unfinished(name, directory, whole))
    for name in names:
        (directory / name).rmtree(missing_ok=True)
    return [name for name in names if not _HALF_DELETED.fullmatch(name)]


def remove_failed(directory: epath.Path, seconds: float = 5.0) -> None:
    """Removes the folder of a save that failed in this process, whose other writes may still be going on."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if not remove_unfinished(directory):
                return
        except OSError:  # a file appeared meanwhile
            pass
        time.sleep(0.05)


def delete(directory: epath.Path, step: int) -> None:
    """Deletes a checkpoint; one that is half deleted never looks like a whole one."""
    path = directory / str(step)
    if "://" not in str(directory):
        path = path.rename(directory / f"{step}.deleting")
    path.rmtree(missing_ok=True)


def set_aside(directory: epath.Path, step: int) -> str:
    """Moves a damaged checkpoint out of the way; its new path.

    Raises:
        UserError: it cannot be moved.
    """
    aside = directory / SET_ASIDE
    try:
        aside.mkdir(parents=True, exist_ok=True)
        taken = {path.name for path in aside.iterdir()}
        number = next(n for n in range(1, len(taken) + 2) if f"{step}-{n}" not in taken)
        target = aside / f"{step}-{number}"
        (directory / str(step)).rename(target)
    except OSError as error:
        raise UserError(f"cannot move the damaged checkpoint {directory / str(step)} to {aside}: {error}") from error
    return str(target)


def names_set_aside(directory: epath.Path) -> list[str]:
    """Names of the damaged checkpoints that were moved out of the way."""
    aside = directory / SET_ASIDE
    return sorted(path.name for path in aside.iterdir()) if aside.exists() else []


# ---- the index: what a checkpoint says about itself


@dataclass(frozen=True)
class ArrayEntry:
    """One saved array: shape, dtype by name, and a content digest per slab of its first axis."""

    shape: tuple[int, ...]
    dtype: str
    slabs: tuple[str, ...]

    @property
    def kind(self) -> str:
        """Shape and dtype, as in "float32[4, 8]"."""
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Index:
    """Every array of a checkpoint by name, and the digest of its facts."""

    arrays: Mapping[str, ArrayEntry]
    facts: str

    @classmethod
    def of(cls, arrays: Mapping[str, jax.Array], facts: Mapping[str, Any]) -> Index:
        """What is about to be saved; waits until the arrays have been computed."""
        digests = array_digests(arrays)
        entries = {n: ArrayEntry(a.shape, a.dtype.name, digests[n]) for n, a in arrays.items()}
        return cls(entries, json_digest(facts))

    def to_json(self) -> dict[str, Any]:
        """As stored, with a digest of its own."""
        value = {"format": FORMAT, **asdict(self)}
        return {**value, "sha256": json_digest(value)}

    @classmethod
    def from_json(cls, value: Any) -> Index:
        """Reads what `to_json` gave.

        Raises:
            Damaged: it is not what was written.
            UserError: a later version of the project wrote it.
        """
        own = value.pop("sha256", None) if isinstance(value, dict) else None
        if json_digest(value) != own:
            raise Damaged(f"file {DIGESTS}/{_JSON_FILE}: does not match its own digest")
        if value["format"] != FORMAT:
            raise UserError(f"the checkpoint has format {value['format']}, this version reads {FORMAT}; upgrade")
        arrays = {
            name: ArrayEntry(tuple(entry["shape"]), entry["dtype"], tuple(entry["slabs"]))
            for name, entry in value["arrays"].items()
        }
        return cls(arrays, value["facts"])

    def damage(self, arrays: Mapping[str, jax.Array]) -> str:
        """How the contents of restored arrays differ from what was saved, as words; empty if they do not.

        All processes call it together.
        """
        differences = []
        for name, found in array_digests(arrays).items():
            entry = self.arrays[name]
            rows = entry.shape[0] if entry.shape else 1
            if difference := first_difference(rows, entry.slabs, found):
                differences.append(f"array {name}: {difference}")
        more = f" (and {len(differences) - 1} more arrays)" if len(differences) > 1 else ""
        return differences[0] + more if differences else ""


def json_digest(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


# ---- reading


def reason(error: BaseException) -> str:
    """An error as one short line; TensorStore's are stripped of specifications and of all paths but the last name."""
    error = _root(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    if code := re.search(r"os_error_code='(\d+)'", text):
        return os.strerror(int(code[1]))
    text = re.sub(r" \[\w+(\[\d+\])?=.*|Error opening \"\w+\" driver: ", "", text)
    text = re.sub(r'.*local file "(?:[^"]*/)?([^"/]+)": ', r"file \1: ", text)
    text = text if isinstance(error, ValueError | OSError) and text else f"{type(error).__name__} {text}".strip()
    return text if len(text) <= 300 else text[:297] + "..."


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:  # Orbax wraps what TensorStore says
        error = error.__cause__
    return error


def raise_unless_damage(error: BaseException, path: epath.Path) -> None:
    """Raises unless the error says something about what is stored: `UserError` where the storage could not be read."""
    root = _root(error)
    if isinstance(root, MemoryError | jax.errors.JaxRuntimeError):
        raise error
    unreachable = isinstance(root, OSError) and root.errno in _ERRNO_NOT_DAMAGE
    if unreachable or any(name in str(root) for name in _NOT_DAMAGE):
        raise UserError(f"cannot read checkpoint {path}: {reason(root)}; mend that and start again") from error


def read_json(path: epath.Path, item: str) -> Any:
    """The JSON of `item` in the checkpoint at `path`.

    Raises:
        Damaged: it is missing or not JSON.
        UserError: the storage cannot be read.
    """
    try:
        return json.loads((path / item / _JSON_FILE).read_bytes())
    except FileNotFoundError as error:
        raise Damaged(f"file {item}/{_JSON_FILE}: is missing") from error
    except (ValueError, OSError) as error:
        raise_unless_damage(error, path)
        raise Damaged(f"file {item}/{_JSON_FILE}: {reason(error)}") from error


def read_index(path: epath.Path) -> Index:
    """The index of the checkpoint at `path`; raises as `read_json` does."""
    return Index.from_json(read_json(path, DIGESTS))


def read_facts(path: epath.Path, index: Index) -> dict[str, Any]:
    """The facts of the checkpoint at `path`, checked; raises as `read_json` does."""
    facts = read_json(path, FACTS)
    if json_digest(facts) != index.facts:
        raise Damaged(f"file {FACTS}/{_JSON_FILE}: does not match its digest")
    return facts


def read_arrays(path: epath.Path, abstract: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    """The arrays of those names, shapes, dtypes and shardings from the checkpoint at `path`, contents unchecked.

    Every process reads its own shards; none waits for another.

    Raises:
        Damaged: one cannot be read; the first such is named.
        UserError: the storage cannot be read.
    """
    try:
        return _restore(path, abstract)
    except Exception as error:  # Orbax and TensorStore raise many kinds, down to plain Exception
        raise_unless_damage(error, path)
        raise Damaged(_unreadable(path, abstract) or f"the arrays: {reason(error)}") from error


def _unreadable(path: epath.Path, abstract: Mapping[str, jax.ShapeDtypeStruct]) -> str:
    """Reads array by array to name those that cannot be."""
    failures = []
    for name, array in abstract.items():
        try:
            _restore(path, {name: array})
        except Exception as error:
            raise_unless_damage(error, path)
            failures.append(f"{name}: {reason(error)}")
    if not failures:
        return ""
    if len(failures) == len(abstract):
        return f"every array, the first of them {failures[0]}"
    return f"array {failures[0]}" + (f" (and {len(failures) - 1} more arrays)" if len(failures) > 1 else "")


def _restore(path: epath.Path, abstract: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = {
        name: ocp.ArrayRestoreArgs(sharding=array.sharding or default, global_shape=array.shape, dtype=array.dtype)
        for name, array in abstract.items()
    }
    handler = ocp.PyTreeCheckpointHandler()
    args = ocp.args.PyTreeRestore(item=nested(abstract), restore_args=nested(wanted), partial_restore=True)
    try:
        return named_leaves(handler.restore(path / STATE, args=args))
    finally:
        handler.close()
