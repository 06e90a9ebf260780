"""Source archives from the package indexes that pip is configured with, taken as they are.

`pip download` of a source archive runs its build backend to learn its metadata, and nothing fetched may be run here.
`pypi_simple` speaks the same protocol (PEP 503, PEP 691) and only downloads.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import requests
from pypi_simple import (
    PYPI_SIMPLE_ENDPOINT,
    DistributionPackage,
    NoSuchProjectError,
    PyPISimple,
    UnparsableFilenameError,
    UnsupportedContentTypeError,
    UnsupportedRepoVersionError,
)
from requests.auth import AuthBase, HTTPBasicAuth

from hephaestus_jax.forge.fetch import Unavailable, run_client
from hephaestus_jax.forge.sources.source import Package

SILENCE = 120  # seconds that an index may take to answer, or to go on
_NO_INDEX = (NoSuchProjectError, UnparsableFilenameError, UnsupportedContentTypeError, UnsupportedRepoVersionError)


def download(package: Package, folder: Path) -> None:
    """Downloads a source archive into `folder`, from the first index that lists it; its sha256 is not looked at.

    Raises:
        Unavailable: no index has it, or pip, whose settings say which are asked, is not installed.
    """
    told = f"{package.name} {package.version}"
    settings = _pip_settings(told)
    reasons = []
    for index in _indexes(settings):
        try:
            with requests.Session() as session:
                session.verify = settings.get("cert") or True
                if _download(package, index, session, folder):
                    return
                reasons.append(f"{index.hostname} lists no such source archive")
        except requests.RequestException as error:  # its words may hold the address of a file, with a key in it
            status = error.response.status_code if error.response is not None else type(error).__name__
            reasons.append(f"{index.hostname}: {status}")
        except (*_NO_INDEX, ValueError) as error:
            reasons.append(f"{index.hostname}: {type(error).__name__}")
    raise Unavailable(f"{told}: {'; '.join(reasons) or 'pip is set up without an index on the network'}")


def _download(package: Package, index: SplitResult, session: requests.Session, folder: Path) -> bool:
    auth = _HostPassword(index) if index.username else None
    plain = index._replace(netloc=index.netloc.rpartition("@")[2])
    client = PyPISimple(urlunsplit(plain), auth=auth, session=session)
    page = client.get_project_page(package.name, timeout=SILENCE)
    found = next((item for item in page.packages if _is_pinned(item, package)), None)
    if found is not None:
        client.download_package(found, folder / "sdist", verify=False, timeout=SILENCE)
    return found is not None


def _is_pinned(item: DistributionPackage, package: Package) -> bool:
    if "sha256" in item.digests:
        return item.digests["sha256"] == package.sha256
    return item.package_type == "sdist" and item.version == package.version


def _pip_settings(told: str) -> dict[str, str]:
    listed = run_client([sys.executable, "-m", "pip", "config", "list"], told)
    pairs = [line.partition("=")[::2] for line in listed.splitlines() if "=" in line]
    settings: dict[str, str] = {}
    for section in ("global.", "download.", ":env:."):  # as pip ranks them
        for key, value in pairs:
            if key.startswith(section):
                settings[key.removeprefix(section)] = str(ast.literal_eval(value))
    return settings


def _indexes(settings: dict[str, str]) -> Iterator[SplitResult]:
    """Those on the network; a folder that serves as an index is none, its files belong into the package folder."""
    if settings.get("no-index", "").lower() not in ("1", "true", "yes", "on"):
        for url in (settings.get("index-url", PYPI_SIMPLE_ENDPOINT), *settings.get("extra-index-url", "").split()):
            if (parts := urlsplit(url)).scheme in ("https", "http"):
                yield parts


class _HostPassword(AuthBase):
    """The user and the password that stand in the address of an index, told to its host alone."""

    def __init__(self, index: SplitResult) -> None:
        self._index = index

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        index, asked = self._index, urlsplit(str(request.url))
        if (asked.scheme, asked.hostname, asked.port) != (index.scheme, index.hostname, index.port):
            return request
        return HTTPBasicAuth(unquote(index.username or ""), unquote(index.password or ""))(request)
