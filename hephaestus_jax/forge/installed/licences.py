"""Licences as SPDX expressions, from what a distribution states about itself.

Sources, most precise first: the License-Expression field (PEP 639), the License field, the licence classifiers, the
text of the licence file. What cannot be named in SPDX is kept in the words of the distribution.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

UNKNOWN = "unknown"

# The longest License field that is a name; anything longer is the text of the licence itself.
_LONGEST_NAME = 100

_CLASSIFIERS = {
    "Academic Free License (AFL)": "AFL-3.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": None,  # says neither 2-clause nor 3-clause; the licence file does
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 (LGPLv2)": "LGPL-2.0-only",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "zlib/libpng License": "Zlib",
}

# Spellings met in License fields, after `_plain`.
_NAMES = {
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache software": "Apache-2.0",
    "apache software 2.0": "Apache-2.0",
    "bsd 2-clause": "BSD-2-Clause",
    "simplified bsd": "BSD-2-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "3-clause bsd": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "modified bsd": "BSD-3-Clause",
    "isc": "ISC",
    "mit": "MIT",
    "expat": "MIT",
    "mpl 2.0": "MPL-2.0",
    "mozilla public 2.0": "MPL-2.0",
    "psf": "PSF-2.0",
    "python software foundation": "PSF-2.0",
    "unlicense": "Unlicense",
}

# Passages that only the named licence contains, in lower case without commas; the first that is found names it.
_PASSAGES: tuple[tuple[str, str], ...] = (
    ("Apache-2.0", "apache license version 2.0"),
    ("MPL-2.0", "mozilla public license version 2.0"),
    ("MIT", "permission is hereby granted free of charge to any person obtaining a copy"),
    ("ISC", "permission to use copy modify and/or distribute this software for any purpose with or without fee"),
    ("ISC", "permission to use copy modify and distribute this software for any purpose with or without fee"),
    ("PSF-2.0", "python software foundation license version 2"),
)


def spdx_licence(
    expression: str | None, licence: str | None, classifiers: Iterable[str], texts: Sequence[str] = ()
) -> str:
    """The licence as an SPDX expression, else in the stated words, else "unknown".

    Args:
        expression: the License-Expression field.
        licence: the License field: a name, an expression, or a whole licence text.
        classifiers: all classifiers; those that are not about licences are ignored.
        texts: the contents of the licence files.

    Several licence classifiers with nothing more precise beside them are joined with AND: they do not say whether the
    user may choose, and AND is the reading that a licence filter cannot get wrong.
    """
    for stated in (expression, licence):
        found = _from_name(stated or "")
        if found:
            return found
    named = [c.split(" :: ")[-1] for c in classifiers if c.startswith("License ::") and c.count(" :: ") > 1]
    licence_texts = [text for text in (licence or "", *texts) if len(text) > _LONGEST_NAME]
    from_texts = next((found for text in licence_texts if (found := _from_text(text))), None)
    from_classifiers = sorted({_CLASSIFIERS.get(name) or from_texts or name for name in named})
    if from_classifiers:
        return " AND ".join(from_classifiers)
    return from_texts or _stated_words(licence or "") or next(filter(None, map(_stated_words, texts)), UNKNOWN)


def _from_name(stated: str) -> str | None:
    """SPDX expression of a short licence name, None when the name leaves it open ("BSD", "Dual License")."""
    stated = " ".join(stated.split())
    if not stated or len(stated) > _LONGEST_NAME:
        return None
    try:
        return canonicalize_license_expression(stated)
    except InvalidLicenseExpression:
        return _NAMES.get(_plain(stated))


def _plain(name: str) -> str:
    words = re.sub(r"[,()\"']|\bthe\b|\blicen[cs]e\b|\bversion\b|\bv(?=\d)", " ", name.lower())
    return " ".join(words.split())


def _from_text(text: str) -> str | None:
    words = " ".join(re.sub(r"[#*=_,]+", " ", text).lower().split())
    # Licence files of large packages append the licences of what they bundle; the package's own comes first.
    own = words[:12_000]
    found = [(own.index(passage), name) for name, passage in _PASSAGES if passage in own]
    bsd = own.find("redistribution and use in source and binary forms")
    if bsd >= 0:
        clause = own[bsd : bsd + 1600]
        third = (
            "neither the name" in clause or "may not be used to endorse" in clause or "may be used to endorse" in clause
        )
        found.append((bsd, "BSD-3-Clause" if third else "BSD-2-Clause"))
    return min(found)[1] if found else None


def _stated_words(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    first = next((line for line in lines if line and not line.lower().startswith("copyright")), "")
    return first if len(first) <= _LONGEST_NAME else ""
