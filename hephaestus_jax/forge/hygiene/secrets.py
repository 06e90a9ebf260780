"""Keys, tokens and passwords in text, told from the placeholders that documentation shows in their place."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import ahocorasick_rs


class Hit(NamedTuple):
    """Something to replace: what it is, its text, and what takes its place (n: the how-manieth of its kind)."""

    category: str
    text: str
    placeholder: Callable[[int], str]


# by how they begin; what follows is random. In brackets what stays of it.
_TOKENS = {
    "AWS key": r"\b(A(?:KI|SI)A)[A-Z2-7]{16}\b",
    "GitHub token": r"\b(gh[pousr]_|github_pat_)[A-Za-z0-9_]{22,}",
    "GitLab token": r"\b(glpat-)[A-Za-z0-9_-]{20,}",
    "Slack token": r"\b(xox[abeoprs]-|xapp-\d-)[A-Za-z0-9-]{16,}",
    "Slack webhook": r"(hooks\.slack\.com/services/)T[A-Z0-9]{8,}/B[A-Z0-9]{8,}/[A-Za-z0-9]{20,}",
    "Discord webhook": r"(discord(?:app)?\.com/api/webhooks/)\d{15,20}/[A-Za-z0-9_-]{40,}",
    "Telegram token": r"\b(bot)\d{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])",
    "Mailgun key": r"\b(key-)[0-9a-f]{32}(?![0-9a-f])",
    "Stripe key": r"\b((?:sk|rk)_(?:live|test)_)[A-Za-z0-9]{16,}|\b(whsec_)[A-Za-z0-9+/]{16,}={0,2}",
    "Google key": r"\b(AIza)[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])|\b(ya29\.)[A-Za-z0-9_-]{20,}",
    "OpenAI key": r"\b(sk-(?:proj-|ant-)?)[A-Za-z0-9_-]{32,}",
    "registry token": r"\b(npm_|hf_|pypi-AgEI|dop_v1_|SG\.)[A-Za-z0-9_.-]{30,}",
    "JWT": r"\b(eyJ)[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{16,}",
}
_TOKEN = re.compile("|".join(f"(?P<t{n}>{pattern})" for n, pattern in enumerate(_TOKENS.values())))
_PRIVATE_KEY = re.compile(r"PRIVATE KEY(?: BLOCK)?-----((?:\\n|[\sA-Za-z0-9+/=:,.-]){40,}?)-----END")
_PREFIXES = (
    "AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "xapp-", "key-", "bot",
    "discord.com/", "discordapp.com/", "hooks.slack.com/", "sk_", "rk_", "whsec_", "AIza", "ya29.", "sk-", "npm_",
    "hf_", "pypi-", "dop_v1_", "SG.", "eyJ", "PRIVATE KEY", "Bearer ", "bearer ", "Basic ", "basic ",
)  # fmt: skip
_BASIC_AUTH = re.compile(r"://([^\s:@/\"'<>{}$*\\]{1,64}):([^\s:@/\"'<>{}$*\\]{3,128})@[\w.-]+")
_CURL_USER = re.compile(r"\s(?:-u|--user)[ =]+[\"']?([^\s:@\"'<>{}$*\\]{1,64}):([^\s:@\"'<>{}$*\\]{8,128})(?![\w@])")
_BEARER = re.compile(r"[Bb]earer[ ]+([A-Za-z0-9._~+/-]{20,}={0,2})")
_BASIC = re.compile(r"[Bb]asic[ ]+([A-Za-z0-9+/]{12,512}={0,2})(?![A-Za-z0-9+/=])")
_SECRET_WORDS = (
    r"secret|passw(?:or)?d|passphrase|api[_-]?key|access[_-]?key|account[_-]?key|private[_-]?key|auth[_-]?key"
    r"|(?:access|auth|refresh|bearer|id|session|security|oauth|api|bot|user)[_-]?token|credential"
)
# what follows a word of a secret's name: the rest of the name, and the value
_ASSIGNED = re.compile(r"([\w-]{0,24})[\"']?[ \t]*(?:[:=]|=>)[ \t]*[\"']?([A-Za-z0-9+/_.~-]{16,256}={0,2})(?![\w.(\[])")
_SECRET_NAME = re.compile(_SECRET_WORDS + "|^token$", re.IGNORECASE)
_ACCOUNT_KEY = re.compile(r"account[_-]?key", re.IGNORECASE)  # often the name of an account
# names and addresses of secrets, and tokens that say where a list goes on
_NO_SECRET_NAME = re.compile(
    r"next|page|continu|encrypt|hashed|cursor|sync|idempot|client[_-]?token"
    r"|(?:id|name|arn|uri|url|path|file|type|version|hash|digest)s?$",
    re.IGNORECASE,
)
_SHOWN_WORDS = re.compile(
    r"example|sample|dummy|fake|placeholder|redacted|your|test[_-]?key|changeme|xxxx|XXXX|\*\*\*|\.\.\.|1234567|abcdef"
    r"|eyJzdWIiOiIxMjM0NTY3ODkw|secret|token|passw|0000000|1111111|AAAAAAAA"
    r"|567890|abcd1234|a1b2c3|1a2b3c|qwerty|asdf|sdlf|lkj",
    re.IGNORECASE,
)
_PLAIN_PASSWORDS = re.compile(
    r"p?ass(?:word|wd)?\d{0,4}|pwd|secret|token|x-oauth-basic|key|port|\d{1,5}", re.IGNORECASE
)
_MIXED = re.compile(r"[a-z][A-Z].*[A-Z][a-z].*[a-z][A-Z]")  # changes its case often
_ZIGZAG = re.compile(r"(?:[A-Za-z]\d)+[A-Za-z]?|a123b45c\w*")  # typed by hand over the keyboard
_WORD = re.compile(r"[A-Za-z][a-z]{4,}")  # CamelCase ones too
_CONSONANTS = re.compile(r"[^aeiouy]{5}", re.IGNORECASE)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def secrets_in(text: str, name: str) -> Iterator[Hit]:
    """Secrets in `text`, which is the value of what is called `name` ("" if it stands alone)."""
    for place, sign in _SIGNS.find(text):
        if match := _TOKEN.match(text, place):
            number = next(n for n in range(len(_TOKENS)) if match[f"t{n}"])
            if not _is_shown(match[0]):
                yield _token_hit(list(_TOKENS)[number], match)
        elif sign.rstrip("-") in _NAME_SIGNS:
            yield from _assigned(text, place, place + len(sign.rstrip("-")))
        elif match := _PRIVATE_KEY.match(text, place):
            if not _is_shown(match[1]) and len(set(match[1])) > 20:
                yield Hit("private key", match[1], _like(match[1]))
        elif match := _BEARER.match(text, place):
            if is_random(match[1]) and not _TOKEN.match(match[1]):  # which is found for itself
                yield Hit("bearer token", match[1], _like(match[1]))
        elif (match := _BASIC.match(text, place)) and _is_login(match[1]):
            yield Hit("password in a header", match[1], lambda n: "dXNlcjpwYXNzd29yZA==")  # user:password
    if "@" in text and "://" in text:
        for match in _BASIC_AUTH.finditer(text):
            if _is_password(match[1], match[2]):
                yield Hit("password in an address", f"{match[1]}:{match[2]}", lambda n: "user:password")
    if "curl" in text:
        for match in _CURL_USER.finditer(text):
            if _is_password(match[1], match[2]) and is_random(match[2]):
                yield Hit("password in a command", f"{match[1]}:{match[2]}", lambda n: "user:password")
    if 16 <= len(text) <= 256 and _names_value(name, text) and not re.search(r"\s", text) and is_random(text):
        yield Hit("assigned secret", text, _like(text))


def _assigned(text: str, start: int, end: int) -> Iterator[Hit]:
    """The value behind a name that holds the word of a secret at `start` to `end`."""
    match = _ASSIGNED.match(text, end)
    if match is None or not is_random(match[2]) or _TOKEN.match(match[2]):
        return
    before = re.search(r"[\w-]*$", text[max(0, start - 24) : start])
    name = (before[0] if before else "") + text[start:end] + match[1]
    if _names_value(name, match[2]):
        yield Hit("assigned secret", match[2], _like(match[2]))


def _names_value(name: str, value: str) -> bool:
    """Whether a name says that this value is secret; short keys of accounts are their names."""
    return names_secret(name) and (len(value) >= 40 or not _ACCOUNT_KEY.search(name))


class _Signs:
    """Where words and prefixes of secrets stand. Built when first used: the library's automata cannot be pickled."""

    def __init__(self, signs: tuple[str, ...]) -> None:
        self._signs = signs
        self._built: ahocorasick_rs.AhoCorasick | None = None

    def find(self, text: str) -> Iterator[tuple[int, str]]:
        """Place and text of every sign, from left to right."""
        if self._built is None:
            self._built = ahocorasick_rs.AhoCorasick(self._signs, ahocorasick_rs.MatchKind.LeftmostLongest)
        for number, start, _ in self._built.find_matches_as_indexes(text):
            yield start, self._signs[number]


_NAME_SIGNS = frozenset(
    form
    for word in ("secret", "password", "passwd", "passphrase", "token", "credential", "key")
    for form in (word, word.capitalize(), word.upper())
)
_SIGNS = _Signs((*sorted(_NAME_SIGNS), *_PREFIXES))


def is_random(text: str) -> bool:
    """Whether it looks drawn, not written: letters mixed with digits, hardly repeated, no words, no placeholder."""
    if _is_shown(text) or _UUID.fullmatch(text) or "://" in text or text.count(".") > 2 or "/" in text[:1]:
        return False
    letters, digits = sum(c.isalpha() for c in text), sum(c.isdigit() for c in text)
    if letters < 3 or len(text) < 16 or _ZIGZAG.fullmatch(text):
        return False
    if digits < (1 if len(text) >= 24 and _MIXED.search(text) else 3):
        return False
    if sum(map(len, filter(_is_wordlike, _WORD.findall(text)))) > 0.4 * len(text):
        return False
    entropy = -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
    return entropy >= (3.0 if re.fullmatch(r"[0-9a-fA-F]+", text) else 3.5)


def _is_wordlike(letters: str) -> bool:
    """Whether it could be spoken."""
    return sum(c in "aeiouyAEIOUY" for c in letters) >= 0.25 * len(letters) and not _CONSONANTS.search(letters)


def _is_shown(text: str) -> bool:
    """Whether documentation made it up to be seen."""
    return _SHOWN_WORDS.search(text) is not None or len(set(text[4:])) < min(8, len(text) // 2 - 1)


def _is_login(encoded: str) -> bool:
    """Whether it is a user and a password in base 64 which are no placeholders."""
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).decode("ascii").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return False
    told = bool(user and colon and len(password) > 2) and (user + password).isprintable()
    return told and _is_password(user, password)


def _is_password(user: str, password: str) -> bool:
    """Whether it is no placeholder."""
    shown = _PLAIN_PASSWORDS.fullmatch(password) or _is_shown(password) or "sesame" in password
    return not shown and user != password


@functools.lru_cache(1 << 16)
def names_secret(name: str) -> bool:
    """Whether what is called so is secret itself, and not the name or the address of a secret."""
    return _SECRET_NAME.search(name) is not None and _NO_SECRET_NAME.search(name) is None


def _token_hit(category: str, match: re.Match[str]) -> Hit:
    kept = next((part for part in match.groups() if part and part != match[0]), "")
    if category == "AWS key":
        examples = ("IOSFODNN7EXAMPLE", "I44QH8DHBEXAMPLE")
        return Hit(category, match[0], lambda n: kept + examples[n % 2] if n < 2 else f"{kept}EXAMPLE{n:09d}")
    if category == "JWT":
        return Hit(category, match[0], lambda n: f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJleGFtcGxlIn0.{_filler(43, n)}")
    return Hit(category, match[0], lambda n: kept + _filler(len(match[0]) - len(kept), n))


def _like(text: str) -> Callable[[int], str]:
    """Characters of the same classes in the same places, the same ones every time."""

    def placeholder(number: int) -> str:
        letters = _filler(len(text), number)
        made = [_of_class(old, new) for old, new in zip(text, letters, strict=True)]
        for escape in re.finditer(r"\\[nrt]", text):  # line breaks of a key within JSON
            made[escape.start() : escape.end()] = escape[0]
        return "".join(made)

    return placeholder


_CLASSES = (string.digits, "abcdef", "ABCDEF", string.ascii_lowercase[6:], string.ascii_uppercase[6:])


def _of_class(old: str, new: str) -> str:
    """A character of the class of `old`, which `new` chooses: hexadecimal digits stay such."""
    characters = next((known for known in _CLASSES if old in known), old)
    return characters[ord(new) % len(characters)]


def _filler(length: int, number: int) -> str:
    """Lower-case letters that begin with "example"; of another number others."""
    letters = "example"
    while len(letters) < length:
        drawn = hashlib.blake2b(f"{number}:{len(letters)}".encode()).digest()
        letters += "".join(string.ascii_lowercase[byte % 26] for byte in drawn)
    return letters[:length]
