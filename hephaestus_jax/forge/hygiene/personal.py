"""Data about persons in text: e-mail addresses, phone numbers, credit cards, public IP addresses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator

import phonenumbers

from hephaestus_jax.forge.hygiene.secrets import Hit

_EMAIL = re.compile(
    r"(?<![\w.+/@%:$}>-])([A-Za-z0-9][A-Za-z0-9._%+-]{0,63})@((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+"
    r"([A-Za-z]{2,18}))(?![\w@/(-]|\.\w|:[\w/~])"
)
_TOP_LEVEL = frozenset({
    "com", "org", "net", "edu", "gov", "mil", "int", "info", "biz", "name", "io", "ai", "app", "dev", "cloud", "tech",
    "online", "site", "store", "shop", "blog", "xyz", "me", "tv", "co", "ac", "email", "agency", "digital",
    "solutions", "systems", "software", "network", "company", "group", "world", "today", "live", "news", "media",
    "team", "global",
})  # fmt: skip
_COUNTRIES = frozenset(region.lower() for region in phonenumbers.SUPPORTED_REGIONS) | {"uk", "eu", "su"}
# reserved for documentation (RFC 2606), or accounts of machines
_SHOWN_DOMAINS = re.compile(
    r"(?:^|\.)(?:example|test|invalid|localhost|local)$|(?:^|\.)example\.|(?:^|\.)examples?\d*\."
    r"|gserviceaccount\.com$|(?:^|\.)(?:your|my)[\w-]*\.|^(?:domain|email|mail|company|server|host|foo|bar|acme)\.\w+$",
    re.IGNORECASE,
)
# what a text with any number of a person holds
_NUMBERS = re.compile(
    r"\d\.\d{1,3}\.\d{1,3}\.\d|\d[-.]\d{4}(?!\d)|\+\d|\d{4}[ -]?\d{6}|\d{4}[ -]\d{4}"
    r"|[23][0-9a-fA-F]{3}:[0-9a-fA-F]{0,4}:"
)
_PHONE = re.compile(
    r"(?<![\w+.,/=#:-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,5}(?:[ .-]?\d{2,5}){1,4}"
    r"|\(\d{3}\) ?\d{3}[-.]\d{4}|\d{3}-\d{3}-\d{4})(?![\w]|[-.,/]\d)"
)
_CARD = re.compile(r"(?<![\w.-])\d{4}([ -]?)(?:\d{4}\1\d{4}\1\d{4}|\d{6}\1\d{5})(?![\w-]|\.\d)")
_CARD_WORDS = re.compile(r"card|visa|mastercard|amex|\bpan\b", re.IGNORECASE)
_CARD_PREFIX = re.compile(r"4|5[1-5]|2[2-7]|3[47]|6011|65|35")
_TEST_CARDS = frozenset({
    "4111111111111111", "4242424242424242", "4012888888881881", "4000056655665556", "5555555555554444",
    "5105105105105100", "378282246310005", "371449635398431", "6011111111111117", "6011000990139424",
    "3530111333300000", "4222222222222", "2223003122003222", "5200828282828210", "4000000000000002",
    "4000002500003155",
})  # fmt: skip
_NETWORK = r"(?!/(?:\d|1\d|2[0-8])(?!\d))"  # of so many addresses that it is nobody's
_IPV4 = re.compile(r"(?<![\w.:/\\-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)" + _NETWORK)
_IPV4_AFTER_SLASHES = re.compile(r"(?<=//)(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IPV6 = re.compile(
    r"(?<![\w:.])[23][0-9a-fA-F]{3}:[0-9a-fA-F]{0,4}:(?:[0-9a-fA-F]{0,4}:){0,5}[0-9a-fA-F]{1,4}(?![\w:/])"
)
_IP_WORDS = re.compile(r"(?:\b|_)ip(?:v4|s)?(?:\b|_)|[a-z]Ip\b|address", re.IGNORECASE)
_VERSION_WORDS = re.compile(r"version|release|\bver\b|\bv$|oid\b|section|agent|chrome|firmware", re.IGNORECASE)
# public name servers that documentation names, and masks
_KNOWN_IPS = frozenset({
    "8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "1.2.3.4", "5.6.7.8", "4.3.2.1", "2.2.2.2", "3.3.3.3",
    "4.4.4.4",
})  # fmt: skip
_CONTEXT, _NEAR = 40, 20  # characters before a number that may say what it is


def personal_in(text: str, name: str) -> Iterator[Hit]:
    """Data about persons in `text`, which is the value of what is called `name` ("" if it stands alone)."""
    if "@" in text:
        yield from _emails(text)
    if not _NUMBERS.search(text):
        return
    for match in _PHONE.finditer(text):
        if _is_phone(match[0]):
            yield Hit("phone number", match[0], _phone_like(match[0]))
    for match in _CARD.finditer(text):
        around = f"{name} {text[max(0, match.start() - _CONTEXT) : match.start()]}"
        if _is_card(match[0], bool(match[1]) or _CARD_WORDS.search(around) is not None):
            yield Hit("credit card", match[0], _digits_like(match[0], "4242424242424242"))
    for pattern in (_IPV4, _IPV4_AFTER_SLASHES):
        for match in pattern.finditer(text):
            before = f"{name} {text[max(0, match.start() - _CONTEXT) : match.start()]}"
            if _is_public_ipv4(match[0], before):
                yield Hit("IP address", match[0], lambda n: f"203.0.113.{10 + n % 240}")
    for match in _IPV6.finditer(text):
        if _is_public(match[0]):
            yield Hit("IP address", match[0], lambda n: f"2001:db8::{1 + n:x}")


def _emails(text: str) -> Iterator[Hit]:
    for match in _EMAIL.finditer(text):
        top = match[3].lower()
        if top not in _TOP_LEVEL and top not in _COUNTRIES:
            continue
        if _SHOWN_DOMAINS.search(match[2]) or match[1].lower() in ("git", "hg", "svn"):
            continue
        yield Hit("e-mail", match[0], lambda n: f"user{n + 1 if n else ''}@example.com")


def _is_phone(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    if "555" in digits or not 10 <= len(digits) <= 15 or len(set(digits)) < 4 or "1234567" in digits:
        return False
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, None if text.startswith("+") else "US"))
    except phonenumbers.NumberParseException:
        return False


def _phone_like(text: str) -> Callable[[int], str]:
    """A number that is reserved for fiction, 202 555 0100 to 0199, with the same separators where they fit."""

    def placeholder(number: int) -> str:
        national = f"20255501{number % 100:02d}"
        if not text.startswith("+"):
            return _digits_like(text, national)(number)
        between = next((c for c in text if c in " .-"), "")
        return between.join(["+1", national[:3], national[3:6], national[6:]])

    return placeholder


def _digits_like(text: str, digits: str) -> Callable[[int], str]:
    def placeholder(number: int) -> str:
        left = iter(digits)
        return "".join(next(left, "0") if c.isdigit() else c for c in text)

    return placeholder


def _is_card(text: str, told: bool) -> bool:
    digits = re.sub(r"\D", "", text)
    if not told or digits in _TEST_CARDS or len(set(digits)) < 4 or not _CARD_PREFIX.match(digits):
        return False
    doubled = [int(d) * (1 + place % 2) for place, d in enumerate(reversed(digits))]
    return sum(d // 10 + d % 10 for d in doubled) % 10 == 0


def _is_public_ipv4(text: str, before: str) -> bool:
    if text in _KNOWN_IPS or not _is_public(text) or _VERSION_WORDS.search(before):
        return False
    numbers = [int(part) for part in text.split(".")]
    # 2.5.29.17 may be a version, an object identifier or a section; its surroundings must say that it is an address
    unlikely_version = numbers[0] > 2 and sum(number >= 20 for number in numbers) >= 2
    return unlikely_version or _IP_WORDS.search(before[-_NEAR:]) is not None


def _is_public(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False
