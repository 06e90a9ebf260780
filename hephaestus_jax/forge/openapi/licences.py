"""The licence that a description states about itself (`info.license`), as SPDX where it can be told."""

from __future__ import annotations

import re

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from hephaestus_jax.forge.installed.licences import UNKNOWN, spdx_licence
from hephaestus_jax.forge.openapi.documents import text_of
from hephaestus_jax.formats.records import Json

_LONGEST = 100  # characters of a licence's name that are kept
_CREATIVE_COMMONS = re.compile(
    r"creativecommons\.org/(?:licenses/(?P<kind>by[a-z-]*)|publicdomain/(?P<zero>zero))/(?P<version>\d\.\d)"
    r"(?:/(?P<place>[a-z]{2})(?![a-z]))?",
    re.IGNORECASE,
)
_ADDRESSES = (
    (r"apache\.org/licen[cs]es/licen[cs]e-2\.0|opensource\.org/licen[cs]es?/apache-2\.0", "Apache-2.0"),
    (r"opensource\.org/licen[cs]es?/mit\b|mit-license\.org", "MIT"),
    (r"opensource\.org/licen[cs]es?/bsd-3-clause", "BSD-3-Clause"),
    (r"opensource\.org/licen[cs]es?/bsd-2-clause", "BSD-2-Clause"),
    (r"gnu\.org/licen[cs]es/agpl-3\.0|opensource\.org/licen[cs]es?/agpl-3\.0", "AGPL-3.0-only"),
    (r"gnu\.org/licen[cs]es/lgpl-3\.0", "LGPL-3.0-only"),
    (r"gnu\.org/licen[cs]es/gpl-3\.0", "GPL-3.0-only"),
    (r"mozilla\.org/(?:en-us/)?mpl/2\.0", "MPL-2.0"),
    (r"nationalarchives\.gov\.uk/doc/open-government-licence/version/3", "OGL-UK-3.0"),
    (r"spdx\.org/licen[cs]es/([\w.+-]+?)(?:\.html|\.json)?/?$", r"\1"),
)
# Names as people write them; the first that matches.
_NAMES = (
    (r"apache\D{0,30}2(\.0)?\b", "Apache-2.0"),
    (r"\bagpl-?\s?v?3\D{0,8}or later|affero general public licen[cs]e v?3(\.0)? or later", "AGPL-3.0-or-later"),
    (r"\bagpl-?\s?v?3|affero general public licen[cs]e,? (version |v)?3", "AGPL-3.0-only"),
    (r"\blgpl\D{0,12}2\.1|lesser general public licen[cs]e,? (version |v)?2\.1", "LGPL-2.1-only"),
    (r"\blgpl\D{0,12}3|lesser general public licen[cs]e,? (version |v)?3", "LGPL-3.0-only"),
    (r"\bgpl-?\s?v?3|(gnu )?general public licen[cs]e,? (version |v)?3", "GPL-3.0-only"),
    (r"\bgpl-?\s?v?2|(gnu )?general public licen[cs]e,? (version |v)?2", "GPL-2.0-only"),
    (r"mozilla public licen[cs]e,? (version |v)?2|\bmpl[ -]?v?2", "MPL-2.0"),
    (r"\bcc0\b|\bcc-?zero\b", "CC0-1.0"),
    (r"\bbsd[ -]?3|3-clause bsd|new bsd", "BSD-3-Clause"),
    (r"\bbsd[ -]?2|2-clause bsd|simplified bsd", "BSD-2-Clause"),
    (r"^(the )?mit( licen[cs]e)?( \(mit\))?$|\bmit licen[cs]e\b", "MIT"),
    (r"^(the )?unlicense", "Unlicense"),
    (r"^eclipse public licen[cs]e\D{0,12}2", "EPL-2.0"),
)
_CC_NAME = re.compile(
    r"^(?:cc|creative commons)\b[ -]?(?P<kind>.*?)[ -]*v?(?P<version>[1-4]\.0)\b(?P<rest>.*)", re.IGNORECASE
)
_CC_WORDS = (
    ("nc", ("noncommercial", "non-commercial", "-nc", " nc")),
    ("sa", ("sharealike", "share-alike", "share alike", "-sa", " sa")),
    ("nd", ("noderiv", "no-deriv", "-nd", " nd")),
)


def stated_licence(licence: Json) -> str:
    """SPDX of `info.license`, else the words it uses, else "unknown".

    What names itself in SPDX (`identifier`, `x-spdx`) comes first, then the name, then the address.
    """
    if isinstance(licence, str):
        licence = {"name": licence}
    if not isinstance(licence, dict):
        return UNKNOWN
    name, address = _words(licence.get("name")), _words(licence.get("url"))
    for expression in (_words(licence.get("identifier")), _words(licence.get("x-spdx"))):
        if expression and (found := spdx_licence(expression, None, ())) not in (UNKNOWN, ""):
            return found
    named, linked = _from_name(name), _from_address(address)
    if named and linked and linked.startswith(named):  # "CC-BY-3.0", of which the address says the country
        return linked
    return named or linked or name[:_LONGEST] or address[:_LONGEST] or UNKNOWN


def _from_name(name: str) -> str | None:
    if len(name) > 3 * _LONGEST:
        return None
    if found := _CC_NAME.search(name):
        return _creative_commons(f" {found['kind']} {found['rest']}".lower(), found["version"])
    for pattern, spdx in _NAMES:
        if re.search(pattern, name, re.IGNORECASE):
            return spdx
    try:
        return canonicalize_license_expression(name)
    except InvalidLicenseExpression:
        spdx = spdx_licence(None, name, ())
        return None if spdx in (UNKNOWN, name) else spdx


def _creative_commons(words: str, version: str) -> str | None:
    if "zero" in words or "0 " in words[:4]:
        return "CC0-1.0"
    if "by" not in words and "attribution" not in words:
        return None
    kinds = [short for short, signs in _CC_WORDS if any(sign in words for sign in signs)]
    return "-".join(["CC-BY", *(kind.upper() for kind in kinds), version])


def _from_address(address: str) -> str | None:
    if found := _CREATIVE_COMMONS.search(address):
        if found["zero"]:
            return "CC0-1.0"
        place = f"-{found['place'].upper()}" if found["place"] and found["version"] != "4.0" else ""
        return f"CC-{found['kind'].upper()}-{found['version']}{place}"
    for pattern, spdx in _ADDRESSES:
        if named := re.search(pattern, address, re.IGNORECASE):
            return named.expand(spdx)
    return None


def _words(value: Json) -> str:
    return " ".join(text_of(value).split()) if isinstance(value, str) else ""
