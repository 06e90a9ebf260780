"""Makes site directories with installed distributions, for tests."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

from hephaestus_jax.forge.installed.distributions import Distribution, iter_distributions


def install(site: Path, name: str, files: Mapping[str, str | bytes], metadata: str = "", body: str = "") -> None:
    """Writes the files of a distribution and the metadata an installer would leave behind."""
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    header = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{textwrap.dedent(metadata).strip()}"
    everything = {**files, f"{info}/METADATA": f"{header.rstrip()}\n\n{body}", f"{info}/INSTALLER": "pip\n"}
    for path, content in everything.items():
        target = site / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
    record = "".join(f"{path},,\n" for path in [*everything, f"{info}/RECORD"])
    (site / info / "RECORD").write_text(record)


def installed(site: Path, name: str) -> Distribution:
    """One distribution of a site directory."""
    return next(found for found in iter_distributions([name], paths=[str(site)]))
