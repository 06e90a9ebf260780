"""Which records a licence policy lets into a corpus."""

from __future__ import annotations

import re
from typing import Literal, get_args

from hephaestus_jax.errors import UserError

Policy = Literal["permissive", "stated", "any"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

# Terms that ask for no more than a notice. A licence that is not listed, or not stated, is not taken for permissive.
PERMISSIVE = frozenset({
    "0BSD", "Apache-2.0", "BSD-1-Clause", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC-BY-4.0", "CC0-1.0", "HPND",
    "ISC", "MIT", "MIT-0", "MIT-CMU", "NCSA", "PSF-2.0", "Python-2.0", "Unlicense", "X11", "Zlib",
})  # fmt: skip


def allowed(licence: str, policy: Policy) -> bool:
    """Whether a record under this licence (`Provenance.licence`) may stay.

    "permissive": terms that ask for no more than a notice; "stated": any terms, as long as some are stated; "any": all.

    Raises:
        UserError: there is no such policy.
    """
    if policy not in POLICIES:
        raise UserError(f"licence policy {policy!r} is none of {', '.join(POLICIES)}")
    if policy == "permissive":
        return is_permissive(licence)
    return policy == "any" or licence.strip().lower() not in ("", "unknown", "none", "noassertion", "n/a")


def is_permissive(expression: str) -> bool:
    """Whether an SPDX expression grants a choice (OR) of terms that are all (AND) permissive."""
    choices = re.split(r"\s+OR\s+", expression.replace("(", " ").replace(")", " "))
    return any(all(term.strip() in PERMISSIVE for term in re.split(r"\s+AND\s+", choice)) for choice in choices)
