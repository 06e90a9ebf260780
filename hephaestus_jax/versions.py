"""What a result was made with."""

from __future__ import annotations

from importlib import metadata

from hephaestus_jax import __version__


def versions_of(*packages: str) -> dict[str, str]:
    """The version of this project and of installed packages, by name; "not installed" where one is not."""
    versions = {"hephaestus_jax": __version__}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions
