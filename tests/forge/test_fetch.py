"""Fetching pinned packages: what is not the pinned file, or would leave its folder, is refused."""

import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge import fetch
from hephaestus_jax.forge.sources import Package


def _zip(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for name, target in (links or {}).items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, target)
    return path


def _tar(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_regular_files_are_unpacked_and_links_are_not(tmp_path: Path, pack) -> None:
    archive = pack(tmp_path / "a", {"p/x.json": b"{}", "p/q/y": b"y"}, {"p/out": "/etc"})
    folder = fetch.unpack(archive, tmp_path / "out" / "p-1")
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == ["p/q/y", "p/x.json"]
    assert not os.path.lexists(folder / "p" / "out")
    (folder / "p" / "x.json").write_bytes(b"kept")  # unpacked once, not again
    assert (fetch.unpack(archive, folder) / "p" / "x.json").read_bytes() == b"kept"


@pytest.mark.parametrize("pack", [_zip, _tar])
@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "a\\..\\evil"])
def test_an_archive_never_leaves_its_folder(tmp_path: Path, pack, name: str) -> None:
    archive = pack(tmp_path / "a", {"fine": b"1", name: b"evil"})
    with pytest.raises(UserError, match="outside its folder"):
        fetch.unpack(archive, tmp_path / "deep" / "out")
    assert not [path for path in tmp_path.rglob("*evil*")] and not (tmp_path / "deep" / "out").exists()


@pytest.mark.parametrize("pack", [_zip, _tar])
def test_an_archive_bomb_stops_at_the_bound(tmp_path: Path, pack, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(tmp_path / "a", {"zeros": bytes(1 << 22)})
    monkeypatch.setattr(fetch, "MAX_BYTES", 1 << 21)
    with pytest.raises(UserError, match="unpacks to more than"):
        fetch.unpack(archive, tmp_path / "out")
    monkeypatch.setattr(fetch, "MAX_BYTES", 1 << 30)
    monkeypatch.setattr(fetch, "MAX_FILES", 3)
    with pytest.raises(UserError, match="more than 3 files"):
        fetch.unpack(pack(tmp_path / "b", {str(n): b"" for n in range(9)}), tmp_path / "out")
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("out")]


@pytest.mark.parametrize("cut", [10, 200])
def test_a_truncated_archive_is_one_line(tmp_path: Path, cut: int) -> None:
    archive = _tar(tmp_path / "a", {"x": os.urandom(4000)})
    archive.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(UserError, match="cannot be unpacked"):
        fetch.unpack(archive, tmp_path / "out")


def _client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A command `npm` that does what `script` says."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "npm").write_text("#!/bin/sh\n" + script)
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def _package(content: bytes) -> Package:
    return Package("npm", "specs", "1.0.0", hashlib.sha256(content).hexdigest(), "MIT")


def test_a_fetched_package_is_kept_and_not_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # npm pack specs@1.0.0 --pack-destination FOLDER ...
    _client(tmp_path, monkeypatch, f'printf content > "$4/specs-1.0.0.tgz"; echo x >> {tmp_path}/calls\n')
    kept = fetch.fetch(_package(b"content"), tmp_path / "kept")
    assert kept.read_bytes() == b"content" and fetch.fetch(_package(b"content"), tmp_path / "kept") == kept
    assert (tmp_path / "calls").read_text() == "x\n"
    kept.write_bytes(b"damaged")
    assert fetch.fetch(_package(b"content"), tmp_path / "kept").read_bytes() == b"content"
    assert (tmp_path / "calls").read_text() == "x\nx\n"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ('printf other > "$4/specs-1.0.0.tgz"', "expected sha256 .* got specs-1.0.0.tgz with sha256"),
        ("exit 0", "got no file"),
        ("echo 'npm error code E404' >&2; exit 1", "npm error code E404"),
        ("exit 3", "exit status 3"),
    ],
)
def test_what_cannot_be_had_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, told: str) -> None:
    _client(tmp_path, monkeypatch, script)
    with pytest.raises(fetch.Unavailable, match=told):
        fetch.fetch(_package(b"content"), tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_client_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(fetch.Unavailable, match="npm is not installed"):
        fetch.fetch(_package(b"content"), tmp_path / "kept")
