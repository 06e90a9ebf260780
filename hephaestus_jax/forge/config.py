"""What the build of a corpus is told, and checks before it begins."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Literal

from hephaestus_jax.errors import UserError

# Terms that ask for no more than a notice. A licence that is not listed, or not stated, is not taken for permissive.
PERMISSIVE = frozenset({
    "0BSD", "Apache-2.0", "BSD-1-Clause", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC-BY-4.0", "CC0-1.0", "HPND",
    "ISC", "MIT", "MIT-0", "MIT-CMU", "NCSA", "PSF-2.0", "Python-2.0", "Unlicense", "X11", "Zlib",
})  # fmt: skip


@dataclass(frozen=True)
class InstalledCorpusConfig:
    """A corpus from the installed Python packages and the standard library.

    Args:
        packages: distributions to read, the standard library as "python"; all that are installed when None.
        site_directories: where to look for them; the running interpreter's own when None.
        include_tests: whether test files are read too.
        include_doctests: whether the examples in docstrings are executed (in a sandbox) for trajectories.
        sample: fraction of the files of each distribution that is used; all files are read even so, because public
            names are only known from the whole.
        licences: "permissive" leaves out distributions whose licence asks for more than a notice, or is unknown.
        heldout_fraction: share of the documented APIs that training never sees.
        heldout_max_uses: a name that occurs more often in code and text cannot be held out by it.
        validation_fraction: share of the files whose code and text go to validation.
        seed: keys every choice.
        workers: processes; the corpus has the same bytes for any number.
    """

    packages: tuple[str, ...] | None = None
    site_directories: tuple[str, ...] | None = None
    include_tests: bool = False
    include_doctests: bool = True
    sample: float = 1.0
    licences: Literal["any", "permissive"] = "any"
    heldout_fraction: float = 0.02
    heldout_max_uses: int = 100
    validation_fraction: float = 0.01
    seed: int = 0
    workers: int = os.cpu_count() or 1

    def __post_init__(self) -> None:
        if not 0 < self.sample <= 1:
            raise UserError(f"sample is {self.sample}; give a fraction above 0 and up to 1")
        for name in ("heldout_fraction", "validation_fraction"):
            if not 0 <= getattr(self, name) <= 0.5:
                raise UserError(f"{name} is {getattr(self, name)}; give a fraction from 0 to 0.5")
        if self.heldout_max_uses < 1 or self.workers < 1:
            raise UserError("heldout_max_uses and workers must be 1 or more")
        if self.packages is not None and not self.packages:
            raise UserError("packages is empty; name at least one distribution, or None for all that are installed")
        if self.licences not in ("any", "permissive"):
            raise UserError(f"licences is {self.licences!r}; it must be 'any' or 'permissive'")

    def allows(self, licence: str) -> bool:
        """Whether a distribution under this SPDX licence expression may be read."""
        return self.licences == "any" or is_permissive(licence)


def is_permissive(expression: str) -> bool:
    """Whether an SPDX expression grants a choice (OR) of terms that are all (AND) permissive."""
    choices = re.split(r"\s+OR\s+", expression.replace("(", " ").replace(")", " "))
    return any(all(term.strip() in PERMISSIVE for term in re.split(r"\s+AND\s+", choice)) for choice in choices)
