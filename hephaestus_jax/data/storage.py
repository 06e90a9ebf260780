"""Files on any key-value store that TensorStore reaches: local paths, `gs://`, `memory://` and its other drivers.

One `ts.Context` is shared by the process, so that everything opened on `memory://` sees the same memory and all caches
share one pool for the indices of their shards.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import tensorstore as ts

from hephaestus_jax.errors import UserError

INDEX_POOL_BYTES = 256 << 20  # shard indices (16 bytes per row and array) and rows kept in memory, per process
COPIES_IN_FLIGHT = 16

# recheck_cached_data (set on every array) makes TensorStore trust what this pool holds: caches never change once built.
CONTEXT = ts.Context({"cache_pool": {"total_bytes_limit": INDEX_POOL_BYTES}})


class MissingKeyError(UserError):
    """Nothing is stored under that key."""


@dataclass(frozen=True)
class Storage:
    """A directory-like place: a local path, `file:///…`, `gs://bucket/…`, `memory://…`, or any other TensorStore URL.

    Keys are relative paths with forward slashes. Picklable; two storages of equal `url` are equal.
    """

    url: str

    def __post_init__(self) -> None:
        url = os.fspath(self.url)  # a pathlib.Path is welcome
        if not url:
            raise UserError("empty storage path; give a local directory or a URL such as gs://bucket/folder")
        object.__setattr__(self, "url", url if "://" in url else os.path.abspath(os.path.expanduser(url)))

    def __str__(self) -> str:
        return self.url

    def join(self, key: str) -> Storage:
        """The storage under `key`."""
        return Storage(posixpath.join(self.url, key))

    def read(self, key: str, byte_range: slice | None = None) -> bytes:
        """The bytes under `key`, or some of them: `slice(-8, None)` reads the last eight.

        Raises:
            MissingKeyError: nothing is there.
            UserError: the store cannot be read, or holds fewer bytes than asked for.
        """
        try:
            result = _open(self.url).read(key, byte_range=byte_range).result()
        except (ValueError, OSError) as error:
            raise self._error("read", key, error) from error
        if result.state != "value":
            raise MissingKeyError(f"{self._name(key)} does not exist")
        return result.value

    def read_json(self, key: str) -> Any:
        """The JSON value under `key`.

        Raises:
            UserError: nothing is there, or it is not JSON.
        """
        data = self.read(key)
        try:
            return json.loads(data)
        except ValueError as error:
            raise UserError(f"{self._name(key)} is damaged: {error}") from error

    def exists(self, key: str) -> bool:
        """Whether something is stored under `key`."""
        try:
            self.read(key, slice(0, 0))
        except MissingKeyError:
            return False
        return True

    def write(self, key: str, value: bytes) -> None:
        """Stores `value` under `key`: a reader sees all of it or nothing, and it is durable on return.

        Raises:
            UserError: the store cannot be written.
        """
        try:
            _open(self.url).write(key, value).result()
        except (ValueError, OSError) as error:
            raise self._error("write", key, error) from error

    def write_json(self, key: str, value: Any) -> None:
        """Stores `value` as JSON with sorted keys."""
        self.write(key, (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())

    def list(self, prefix: str = "") -> list[str]:
        """Every key that begins with `prefix`, sorted.

        Raises:
            UserError: the store cannot be listed.
        """
        try:
            keys = _open(self.url).list(_with_prefix(prefix)).result()
        except (ValueError, OSError) as error:
            raise self._error("list", prefix, error) from error
        return sorted(key.decode() for key in keys)

    def zarr_spec(self, key: str) -> dict[str, Any]:
        """TensorStore spec of the zarr3 array under `key`: open it with `context=CONTEXT`."""
        kvstore = dict(_kvstore_spec(self.url))
        kvstore["path"] += key.strip("/") + "/"
        return {"driver": "zarr3", "kvstore": kvstore}

    def _name(self, key: str) -> str:
        return posixpath.join(self.url, key)

    def _error(self, action: str, key: str, error: Exception) -> UserError:
        return UserError(f"cannot {action} {self._name(key)}: {first_line(error)}")


def copy(source: Storage, target: Storage, last: Iterable[str] = ("manifest.json", "mixture.json")) -> int:
    """Copies every key of `source` to `target` and returns how many; keys named `last` go last.

    A reader of `target` that starts from a manifest therefore finds everything or nothing. Sixteen values are in
    flight, so memory is bounded by sixteen of the largest.
    """
    names = set(last)
    keys = sorted(source.list(), key=lambda key: (posixpath.basename(key) in names, key))
    store = _open(target.url)
    writing: deque[tuple[str, ts.Future]] = deque()

    def finish_one() -> None:
        key, future = writing.popleft()
        try:
            future.result()
        except (ValueError, OSError) as error:
            raise target._error("write", key, error) from error

    for key in keys:
        is_last = posixpath.basename(key) in names
        while writing and (is_last or len(writing) >= COPIES_IN_FLIGHT):
            finish_one()
        writing.append((key, store.write(key, source.read(key))))
    while writing:
        finish_one()
    return len(keys)


def first_line(error: BaseException) -> str:
    """What went wrong in one line: the system's own words where TensorStore quotes them among its own."""
    code = re.search(r"\[os_error_code='(\d+)'\]", str(error))
    if code:
        return os.strerror(int(code[1]))
    text = " ".join(str(error).split(" [source locations=")[0].split())
    return text[:500] or type(error).__name__


def _kvstore_spec(url: str) -> dict[str, Any]:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        spec: dict[str, Any] = {"driver": "file", "path": os.path.abspath(unquote(rest) if separator else url)}
    elif scheme == "memory":
        spec = {"driver": "memory", "path": rest}
    elif scheme == "gs":
        bucket, _, path = rest.partition("/")
        spec = {"driver": "gcs", "bucket": bucket, "path": path}
    else:
        try:
            spec = ts.KvStore.Spec(url).to_json()
        except ValueError as error:
            raise UserError(f"cannot read the storage URL {url!r}: {first_line(error)}") from error
    path = spec.get("path", "")
    return {**spec, "path": path if not path or path.endswith("/") else path + "/"}


@lru_cache(maxsize=256)
def _open(url: str) -> ts.KvStore:
    try:
        return ts.KvStore.open(_kvstore_spec(url), context=CONTEXT).result()
    except (ValueError, OSError) as error:
        raise UserError(f"cannot open the storage {url}: {first_line(error)}") from error


def _with_prefix(prefix: str) -> ts.KvStore.KeyRange | None:
    if not prefix:
        return None
    return ts.KvStore.KeyRange(prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1))
