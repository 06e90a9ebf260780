"""Words for names and values: `VpcId` as "VPC ID", `["a", "b"]` as "a and b"; and whether a text states a value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from hephaestus_jax.formats.records import Json


def word_set(text: str) -> frozenset[str]:
    """The words of a list."""
    return frozenset(text.split())


_PARTS = re.compile(r"[A-Z]+s?(?![a-z])|[A-Z]?[a-z]+|\d+|[A-Z]+")
_ACRONYMS = word_set(
    "acl acm ami api arn asn aws az cdn cidr cpu csv db dhcp dns ebs ec2 ecs efs eks fqdn gcp gpu guid html http https "
    "iam iban id imei ip ipv4 ipv6 iso json jwt kms lun mac mfa nat nfs nic os pdf php pin qr ram rds rest rsa s3 saml "
    "sdk sip sku sms sns sql sqs ssh ssl sso tcp tls ttl udp uri url utc uuid vat vlan vm vpc vpn xml yaml zip"
)
_NUMBERED = re.compile(r"\b(s|ec|IPv|md|sha|route|oauth|base|v) (?=\d)()", re.I)  # "s 3" is "s3"
_PLAIN = re.compile(r"[^\s\"'`,;()\[\]{}]+")
_WORDS_OF_TRUTH = {True: ("true", "yes", "on"), False: ("false", "no", "off"), None: ("null", "none")}


@lru_cache(maxsize=65536)
def name_words(name: str) -> tuple[str, ...]:
    """The words of an identifier, in lower case: `maxResults`, `max_results` and `max-results` are alike."""
    return tuple(part.lower() for part in _PARTS.findall(name))


def human(name: str) -> str:
    """An identifier as people say it: "VPC ID", "max results"."""
    words = name_words(name)
    return _NUMBERED.sub(r"\1\2", " ".join(_spoken(word) for word in words)) or name


def _spoken(word: str) -> str:
    if word in _ACRONYMS:
        return word.upper()
    return word[:-1].upper() + "s" if word.endswith("s") and word[:-1] in _ACRONYMS else word


def singular(word: str) -> str:
    """A word, or an identifier that ends with it, in the singular: "VpcIds" is "VpcId"."""
    lowered = word.lower()
    if (len(word) <= 3 and lowered != "ids") or lowered.endswith(("ss", "us", "is", "ous")):
        return word
    for ending, instead in (
        ("statuses", "status"),
        ("aliases", "alias"),
        ("ies", "y"),
        ("sses", "ss"),
        ("xes", "x"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("s", ""),
    ):
        if lowered.endswith(ending):
            kept = len(word) - len(ending)
            return word[:kept] + (instead if ending == "ies" else word[kept : kept + len(instead)])
    return word


def is_plural(name: str) -> bool:
    """Whether an identifier ends with a word in the plural: "max_results", but not "status" or "address"."""
    return singular(words[-1]) != words[-1] and words[-1] != "alias" if (words := name_words(name)) else False


def spelled(value: Json) -> str:
    """A value as people write it in a sentence: bare, quoted where needed, lists joined, objects as JSON."""
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) and value[-1] not in ".:!?" else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple) and value and all(isinstance(item, str | int | float) for item in value):
        return joined([spelled(item) for item in value])
    return json.dumps(value, ensure_ascii=False)


def joined(parts: Sequence[str], last: str = "and") -> str:
    """ "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}" if parts else ""


def capitalised(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def is_said(value: Json, text: str) -> bool:
    """Whether `text` states a scalar value, verbatim or in an obvious spelling."""
    if value is None or isinstance(value, bool):
        lowered = text.lower()
        return any(_stands_in(word, lowered) for word in _WORDS_OF_TRUTH[value])
    if isinstance(value, str):
        forms: Iterable[str] = (value, json.dumps(value, ensure_ascii=False)[1:-1]) if value else ('""',)
    else:
        forms = (json.dumps(value), f"{value:,}")
        if isinstance(value, float) and value.is_integer():
            forms = (*forms, str(int(value)))
    return any(_stands_in(form, text) for form in forms)


def _stands_in(part: str, text: str) -> bool:
    """Whether `part` occurs in `text` as a word of its own."""
    start = text.find(part)
    while start >= 0:
        end = start + len(part)
        before, after = text[start - 1 : start], text[end : end + 1]
        if not (_glued(before, part[0]) or _glued(part[-1], after)):
            return True
        start = text.find(part, start + 1)
    return False


def _glued(one: str, other: str) -> bool:
    return bool(one and other) and (one.isalnum() or one == "_") and (other.isalnum() or other == "_")


def scalars(value: Json) -> list[Json]:
    """Every scalar within a JSON value, in order."""
    if isinstance(value, Mapping):
        return [scalar for item in value.values() for scalar in scalars(item)]
    if isinstance(value, list | tuple):
        return [scalar for item in value for scalar in scalars(item)]
    return [value]
