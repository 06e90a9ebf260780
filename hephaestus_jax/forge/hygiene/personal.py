"""Data about persons in text: e-mail addresses, phone numbers, credit cards, public IP addresses."""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Callable, Iterator

import phonenumbers

from hephaestus_jax.forge.hygiene.emails import emails_in
from hephaestus_jax.forge.hygiene.secrets import Hit

# what a text with any number of a person holds
_NUMBERS = re.compile(
    r"\d\.\d{1,3}\.\d{1,3}\.\d|\d[-.]\d{4}(?!\d)|\+\d|\d{4}[ -]?\d{6}|\d{4}[ -]\d{4}"
    r"|[23][0-9a-fA-F]{3}:[0-9a-fA-F]{0,4}:"
)
_HOME_NUMBER = re.compile(r"0\d[\d ()/-]{5}")
_PHONE = re.compile(
    r"(?<![\w+.,/=#:-])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,5}(?:[ .-]?\d{2,5}){1,4}"
    r"|\(\d{3}\) ?\d{3}[-.]\d{4}|\d{3}-\d{3}-\d{4}|\d{3}\.\d{3}\.\d{4})(?![\w]|[-.,/]\d)"
)
# as people write it at home: only where a word says that it is a phone number
_NATIONAL_PHONE = re.compile(r"(?<![\w+.,/=#:-])\(?0\d{1,4}\)?[ /-]?\d{2,5}(?:[ -]?\d{2,5}){0,4}(?![\w]|[-.,/:]\d)")
_PHONE_WORDS = re.compile(
    r"(?:\b|_)(?:t[eé]l[eé]?f?|(?:t[eé]l[eé]|cell|mobile|home|work)?phones?|mobile|fax|whatsapp|handy|msisdn)",
    re.IGNORECASE,
)
_REGIONS = ("GB", "DE", "FR", "IT", "NL", "BE", "CH", "AT", "AU", "JP", "IN", "BR")
# counted, or one digit over and over
_SHOWN_DIGITS = re.compile(r"1234567|987654321|9876543$|1234$|12345$|11?22334455|11223344|(\d)\1{4}|(\d)\2{3}$|1212$")
_OF_SERVICES = frozenset({
    phonenumbers.PhoneNumberType.TOLL_FREE, phonenumbers.PhoneNumberType.PREMIUM_RATE,
    phonenumbers.PhoneNumberType.SHARED_COST, phonenumbers.PhoneNumberType.UAN,
    phonenumbers.PhoneNumberType.VOICEMAIL,
})  # fmt: skip
_CARD = re.compile(r"(?<![\w.-])\d{4}([ -]?)(?:\d{4}\1\d{4}\1\d{4}|\d{6}\1\d{5})(?![\w-]|\.\d)")
_CARD_WORDS = re.compile(r"card|visa|mastercard|amex|\bpan\b", re.IGNORECASE)
_CARD_NUMBER = re.compile(r"(?:4\d\d\d|5[1-5]\d\d|2[2-7]\d\d|6011|65\d\d|35\d\d)\d{12}|3[47]\d{13}")
_TEST_CARDS = frozenset({
    "4111111111111111", "4242424242424242", "4012888888881881", "4000056655665556", "5555555555554444",
    "5105105105105100", "378282246310005", "371449635398431", "6011111111111117", "6011000990139424",
    "3530111333300000", "4222222222222", "2223003122003222", "5200828282828210", "4000000000000002",
    "4000002500003155",
})  # fmt: skip
_NETWORK = r"(?!/\d)"  # a network, as lists of a service's own addresses have it
_IPV4 = re.compile(r"(?<![\w.:/\\-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)" + _NETWORK)
_IPV4_AFTER_SLASHES = re.compile(r"(?<=//)(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IPV6 = re.compile(
    r"(?<![\w:.])[23][0-9a-fA-F]{3}:[0-9a-fA-F]{0,4}:(?:[0-9a-fA-F]{0,4}:){0,5}[0-9a-fA-F]{1,4}(?![\w:/])"
)
_IP_WORDS = re.compile(r"(?:\b|_)ip(?:v4|s)?(?:\b|_)|[a-z]Ip\b|address", re.IGNORECASE)
_VERSION_WORDS = re.compile(r"version|release|\bver\b|\bv$|oid\b|section|agent|chrome|firmware", re.IGNORECASE)
# of a service's own machines, and of those who use it
_MACHINE_WORDS = re.compile(
    r"public|outgoing|gateway|egress|ingress|ingest|endpoint|prefix|server|peer|subnet|cidr|\bnat\b|dns|floating"
    r"|elastic|allocat|start|end\b|range|balanc|static|mask|route|tunnel|outside|inside|instance|ec2|compute|backup"
    r"|\bvm\b|\bhosts?\b",
    re.IGNORECASE,
)
_PERSON_WORDS = re.compile(
    r"remote|client|user|visit|customer|forwarded|src_?ip|source_?ip|actor|log(?:ged)?_?in|session|seen|browser|country"
    r"|\bcity|geo|e-?mail|near\b|sign_?up|consent|fraud",
    re.IGNORECASE,
)
# public name servers that documentation names, and masks
_KNOWN_IPS = frozenset({
    "8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "1.2.3.4", "5.6.7.8", "4.3.2.1", "2.2.2.2", "3.3.3.3",
    "4.4.4.4",
})  # fmt: skip
_CONTEXT, _NEAR = 40, 20  # characters before a number that may say what it is
_AROUND = 80  # characters on both sides of an address that may say whose it is


def personal_in(text: str, name: str) -> Iterator[Hit]:
    """Data about persons in `text`, which is the value of what is called `name` ("" if it stands alone)."""
    yield from emails_in(text)
    if not _NUMBERS.search(text) and not _HOME_NUMBER.search(text):
        return
    for match in _PHONE.finditer(text):
        if _is_phone(match[0]):
            yield Hit("phone number", match[0], _phone_like(match[0]))
    for match in _NATIONAL_PHONE.finditer(text):
        around = f"{name} {text[max(0, match.start() - _NEAR) : match.start()]}"
        if _PHONE_WORDS.search(around) and _is_national_phone(match[0]):
            yield Hit("phone number", match[0], _digits_like(match[0], "2025550100"))
    for match in _CARD.finditer(text):
        around = f"{name} {text[max(0, match.start() - _CONTEXT) : match.start()]}"
        if _is_card(match[0], bool(match[1]) or _CARD_WORDS.search(around) is not None):
            yield Hit("credit card", match[0], _digits_like(match[0], "4242424242424242"))
    for pattern in (_IPV4, _IPV4_AFTER_SLASHES):
        for match in pattern.finditer(text):
            before = f"{name} {text[max(0, match.start() - _CONTEXT) : match.start()]}"
            if _is_public_ipv4(match[0], before) and _is_of_person(text, match, name):
                yield Hit("IP address", match[0], lambda n: f"203.0.113.{10 + n % 240}")
    for match in _IPV6.finditer(text):
        if _is_public(match[0]) and _is_of_person(text, match, name):
            yield Hit("IP address", match[0], lambda n: f"2001:db8::{1 + n:x}")


def _is_shown_number(digits: str) -> bool:
    """Whether documentation made up a phone number to be seen."""
    return "555" in digits or len(set(digits)) < 4 or _SHOWN_DIGITS.search(digits) is not None


def _is_national_phone(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    if not 8 <= len(digits) <= 13 or _is_shown_number(digits):
        return False
    return any(phonenumbers.is_valid_number(phonenumbers.parse(text, region)) for region in _REGIONS)


def _is_phone(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    if not 10 <= len(digits) <= 15 or _is_shown_number(digits):
        return False
    try:
        number = phonenumbers.parse(text, None if text.startswith("+") else "US")
    except phonenumbers.NumberParseException:
        return False
    return phonenumbers.is_valid_number(number) and phonenumbers.number_type(number) not in _OF_SERVICES


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
    if not told or digits in _TEST_CARDS or len(set(digits)) < 4 or not _CARD_NUMBER.fullmatch(digits):
        return False
    if re.search(r"(\d)\1{3}|456789|567890", digits):
        return False
    doubled = [int(d) * (1 + place % 2) for place, d in enumerate(reversed(digits))]
    return sum(d // 10 + d % 10 for d in doubled) % 10 == 0


def _is_public_ipv4(text: str, before: str) -> bool:
    if text in _KNOWN_IPS or not _is_public(text) or _VERSION_WORDS.search(before):
        return False
    numbers = [int(part) for part in text.split(".")]
    if numbers[3] in (0, 255) or len(set(numbers)) < 3 or _is_counted(numbers):
        return False
    # 2.5.29.17 may be a version, an object identifier or a section; its surroundings must say that it is an address
    unlikely_version = numbers[0] > 2 and sum(number >= 20 for number in numbers) >= 2
    return unlikely_version or _IP_WORDS.search(before[-_NEAR:]) is not None


def _is_of_person(text: str, match: re.Match[str], name: str) -> bool:
    """Whether what stands around an address says that somebody came from there, and nothing that it is a machine's."""
    before, after = text[max(0, match.start() - _AROUND) : match.start()], text[match.end() : match.end() + _AROUND]
    if _MACHINE_WORDS.search(f"{name} {before}") or _MACHINE_WORDS.search(after[:_NEAR]):
        return False
    return _PERSON_WORDS.search(f"{name} {before} {after}") is not None


def _is_counted(numbers: list[int]) -> bool:
    """Whether the numbers go up in even or small steps: 12.34.56.78, 123.124.125.126."""
    steps = [after - before for before, after in itertools.pairwise(numbers)]
    return len(set(steps)) == 1 or all(0 <= step <= 2 for step in steps)


def _is_public(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False
