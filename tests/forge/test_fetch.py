"""Fetching pinned packages: what is not the pinned file, or would leave its folder, is refused."""

import base64
import hashlib
import io
import json
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge import fetch, sdists
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


class _Index:
    """A package index on this machine: addresses and what they answer; anything else is not found."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[str, bytes]] = {}
        self.asked: list[tuple[str, str]] = []  # path and Authorization of every request
        self.password = ""
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append((self.path, self.headers.get("Authorization", "")))
                allowed = not index.password or index.asked[-1][1] == index.password
                kind, body = index.answers.get(self.path, ("", b""))
                self.send_response(401 if not allowed else 200 if kind else 404)
                self.send_header("Content-Type", kind or "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def serve_json(self, content: bytes, file: str = "/files/docs-1.0.tar.gz", told: bytes | None = None) -> None:
        """The project "docs" with one source archive, as PEP 691 tells it."""
        self.answers["/files/docs-1.0.tar.gz"] = ("application/gzip", content)
        digest = hashlib.sha256(told if told is not None else content).hexdigest()
        listed = [{"filename": "docs-1.0.tar.gz", "url": file, "hashes": {"sha256": digest}}]
        page = {"meta": {"api-version": "1.0"}, "name": "docs", "files": listed}
        self.answers["/simple/docs/"] = ("application/vnd.pypi.simple.v1+json", json.dumps(page).encode())


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Index]:
    made = _Index()
    _configured(monkeypatch, {"global.index-url": f"http://{made.host}/simple"})
    yield made
    made.server.shutdown()
    made.server.server_close()


def _configured(monkeypatch: pytest.MonkeyPatch, settings: dict[str, str]) -> None:
    listed = "".join(f"{key}={value!r}\n" for key, value in settings.items())
    monkeypatch.setattr(sdists, "run_client", lambda command, told: listed)


def _sdist(content: bytes) -> Package:
    return Package("pypi", "docs", "1.0", hashlib.sha256(content).hexdigest(), "MIT", sdist=True)


def test_a_source_archive_is_fetched_and_nothing_of_it_runs(tmp_path: Path, index: _Index) -> None:
    ran = f"open({str(tmp_path / 'ran')!r}, 'w')".encode()
    archive = _tar(tmp_path / "a", {"docs-1.0/setup.py": ran, "docs-1.0/docs/guide.rst": b"Guide"}).read_bytes()
    index.serve_json(archive)
    kept = fetch.fetch(_sdist(archive), tmp_path / "kept")
    folder = fetch.unpack(kept, tmp_path / "out")
    assert kept.name.endswith(".tar.gz") and kept.read_bytes() == archive
    assert (folder / "docs-1.0" / "docs" / "guide.rst").read_bytes() == b"Guide" and not (tmp_path / "ran").exists()
    asked = len(index.asked)
    assert fetch.fetch(_sdist(archive), tmp_path / "kept") == kept and len(index.asked) == asked


def test_an_index_of_html_pages_serves_too(tmp_path: Path, index: _Index) -> None:
    index.serve_json(b"archive")
    link = b'<a href="../../files/docs-1.0.tar.gz">docs-1.0.tar.gz</a>'  # without a sha256
    index.answers["/simple/docs/"] = ("text/html", b"<!DOCTYPE html><html><body>" + link + b"</body></html>")
    assert fetch.fetch(_sdist(b"archive"), tmp_path / "kept").read_bytes() == b"archive"


def test_a_source_archive_that_is_not_the_pinned_one_is_refused(tmp_path: Path, index: _Index) -> None:
    index.serve_json(b"other", told=b"archive")
    with pytest.raises(fetch.Unavailable, match="expected sha256"):
        fetch.fetch(_sdist(b"archive"), tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_source_archive_that_no_index_has_says_why(
    tmp_path: Path, index: _Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(fetch.Unavailable, match=r"docs 1.0: 127.0.0.1: NoSuchProjectError"):
        fetch.fetch(_sdist(b"archive"), tmp_path / "kept")
    index.serve_json(b"another")
    with pytest.raises(fetch.Unavailable, match="lists no such source archive"):
        fetch.fetch(_sdist(b"archive"), tmp_path / "kept")
    index.serve_json(b"archive", file="/files/gone.tar.gz?key=secret")
    with pytest.raises(fetch.Unavailable, match="127.0.0.1: 404") as told:
        fetch.fetch(_sdist(b"archive"), tmp_path / "kept")
    assert "secret" not in str(told.value)
    _configured(monkeypatch, {":env:.no-index": "1"})
    with pytest.raises(fetch.Unavailable, match="without an index on the network"):
        fetch.fetch(_sdist(b"archive"), tmp_path / "kept")


def test_further_indexes_are_asked_and_a_password_stays_with_its_host(
    tmp_path: Path, index: _Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = _Index()  # without the project; the files of `index` lie there as well
    index.password = "Basic " + base64.b64encode(b"user:p@ss").decode()
    index.serve_json(b"archive", file=f"http://{other.host}/files/docs-1.0.tar.gz")
    other.answers["/files/docs-1.0.tar.gz"] = ("application/gzip", b"archive")
    settings = {
        "global.index-url": "http://127.0.0.1:9/simple",  # what `download` says outranks it
        "download.index-url": f"http://{other.host}/simple",
        "global.extra-index-url": f"file:///nowhere http://user:p%40ss@{index.host}/simple",
    }
    _configured(monkeypatch, settings)
    assert fetch.fetch(_sdist(b"archive"), tmp_path / "kept").read_bytes() == b"archive"
    assert [path for path, _ in index.asked] == ["/simple/docs/"] and index.asked[0][1] == index.password
    assert [told for _, told in other.asked] == ["", ""]
    other.server.shutdown()
    other.server.server_close()


def test_only_pypi_has_source_archives() -> None:
    with pytest.raises(UserError, match="only PyPI has source archives"):
        Package("npm", "docs", "1.0", "0" * 64, "MIT", sdist=True)
