"""What the build of a corpus is told, and checks before it begins."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.hygiene.licences import POLICIES, Policy, allowed

INSTALLED = "installed"  # the Python packages of this installation
PYTHON_PACKAGES = "python_packages"  # pinned wheels, fetched


@dataclass(frozen=True)
class ForgeConfig:
    """A corpus from the sources that are named.

    Args:
        sources: names from `forge.sources`, "installed" (the packages of this installation and the standard library)
            or "python_packages" (pinned wheels); all that read without being asked to when None. "NAME=FOLDER" reads
            a folder of the user's in place of the packages of a source.
        licence_policy: "permissive" leaves out what asks for more than a notice, or states no licence; "stated" leaves
            out what states none; per record.
        languages: of text and documentation that is kept, ISO 639 codes; what is too short to tell is kept.
        provider_cap: at most so many APIs of one provider; no bound when None.
        benchmarks: what is kept out: "bfcl" (fetched), and files of JSON lines.
        compose: whether documented example calls are composed into trajectories.
        package_folder: where fetched packages are kept; the user's cache when None.
        packages: of "installed", the distributions to read, the standard library as "python"; all when None.
        site_directories: where to look for them; the running interpreter's own when None.
        include_tests: whether their test files are read too.
        include_doctests: whether the examples in docstrings are executed (in a sandbox) for trajectories.
        sample: fraction of the files of each source that is used; all Python files are read even so, because public
            names are only known from the whole.
        heldout_fraction: share of the documented APIs that training never sees.
        heldout_max_uses: a name that occurs more often in code and text cannot be held out by it.
        validation_fraction: share of the files whose code and text go to validation, and of each source's trajectories:
            all that call a tool go together.
        seed: keys every choice.
        workers: processes; the corpus has the same bytes for any number.
        beam_options: of another Beam runner than the in-process one, for instance ("--runner=FlinkRunner",).
    """

    sources: tuple[str, ...] | None = None
    licence_policy: Policy = "any"
    languages: tuple[str, ...] = ("en",)
    provider_cap: int | None = None
    benchmarks: tuple[str, ...] = ()
    compose: bool = True
    package_folder: str | None = None
    packages: tuple[str, ...] | None = None
    site_directories: tuple[str, ...] | None = None
    include_tests: bool = False
    include_doctests: bool = True
    sample: float = 1.0
    heldout_fraction: float = 0.02
    heldout_max_uses: int = 100
    validation_fraction: float = 0.01
    seed: int = 0
    workers: int = os.cpu_count() or 1
    beam_options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.sample <= 1:
            raise UserError(f"sample is {self.sample}; give a fraction above 0 and up to 1")
        for name in ("heldout_fraction", "validation_fraction"):
            if not 0 <= getattr(self, name) <= 0.5:
                raise UserError(f"{name} is {getattr(self, name)}; give a fraction from 0 to 0.5")
        if self.heldout_max_uses < 1 or self.workers < 1:
            raise UserError("heldout_max_uses and workers must be 1 or more")
        if self.provider_cap is not None and self.provider_cap < 1:
            raise UserError(f"provider_cap is {self.provider_cap}; give 1 or more, or None for no bound")
        for name, what in (("packages", "distribution"), ("sources", "source"), ("languages", "language")):
            if getattr(self, name) is not None and not getattr(self, name):
                raise UserError(f"{name} is empty; name at least one {what}" + ", or None for all" * (name[0] != "l"))
        if self.licence_policy not in POLICIES:
            raise UserError(f"licence_policy is {self.licence_policy!r}; it must be one of {', '.join(POLICIES)}")

    def allows(self, licence: str) -> bool:
        """Whether what is under this licence expression may be used."""
        return allowed(licence, self.licence_policy)
