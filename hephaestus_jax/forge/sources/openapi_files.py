"""A user's own API descriptions: `--sources openapi_files=FOLDER`."""

from __future__ import annotations

from collections.abc import Iterator

from hephaestus_jax.forge.openapi.operations import read_openapi
from hephaestus_jax.forge.sources.source import SourceFile, source
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import Record


@source("openapi_files", files=("**/*.json", "**/*.yaml", "**/*.yml"))
def read_openapi_files(file: SourceFile, quarantine: Quarantine) -> Iterator[Record]:
    """Operations of OpenAPI 3 and Swagger 2 files, JSON or YAML, in a folder of the user's."""
    yield from read_openapi(file, quarantine)
