"""E-mail addresses of persons, told from those of offices, programs and nobody that documentation is full of."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import phonenumbers

from hephaestus_jax.forge.hygiene.secrets import Hit

# behind a sign that is written %22 and behind "mailto:" too; @ may be written %40
_START = r"(?:(?<=%[0-9A-Fa-f]{2})|(?<=mailto:)|(?<![\w.+/@%:$}>-]))"
_HOST = r"((?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+([A-Za-z]{2,18}))"
_EMAIL = re.compile(_START + r"([A-Za-z0-9][A-Za-z0-9._+-]{0,63})(?:@|%40)" + _HOST + r"(?![\w@/(-]|\.\w|:[\w/~])")
_TOP_LEVEL = frozenset({
    "com", "org", "net", "edu", "gov", "mil", "int", "info", "biz", "name", "io", "ai", "app", "dev", "cloud", "tech",
    "online", "site", "store", "shop", "blog", "xyz", "me", "tv", "co", "ac", "email", "agency", "digital",
    "solutions", "systems", "software", "network", "company", "group", "world", "today", "live", "news", "media",
    "team", "global",
})  # fmt: skip
_COUNTRIES = frozenset(region.lower() for region in phonenumbers.SUPPORTED_REGIONS) | {"uk", "eu", "su"}
_SHOWN_DOMAINS = re.compile(
    "|".join((
        # reserved for documentation (RFC 2606), and what is meant so
        r"(?:^|\.)(?:example|test|invalid|localhost|local)$|(?:^|\.)examples?\d*\.|^[\w-]*example[\w-]*\.",
        r"^tests?e?[\w-]*\.|(?:^|\.)(?:your|my)[\w-]*\.",
        r"^some(?:e?mail|company|where|domain|account|site|kind|one|thing|host|place)[\w-]*\.",
        r"^(?:any|your)?(?:domain|e?mail|company|server|host|foo|bar|acme|user|site|website|address|sample|org|business"
        r"|organi[sz]ation|customer|client|school|institution|blah|nowhere|abcd?|abc(?:corp|mail|company)"
        r"|xyz|mock|exmaple|exapmle)"
        r"(?:name|domain)?\.\w+$",
        r"^(?:\w*doe|smith|bloggs|e?mail(?:provider|service|server|\d\w*))\.\w+$",
        r"^[b-df-hj-np-tv-xz]{5,}\.\w+$|^[a-wyz]\.\w+$",
        # companies of Microsoft's documentation, and of a demonstration
        r"(?:^|\.)(?:contoso|fabrikam|northwind|adventure-?works|tailspin|litware|wingtip|proseware|altoromutual)\w*\.",
        # mailboxes that anybody may open, and accounts of programs
        r"(?:^|\.)(?:mailinator|yopmail|guerrillamail|noreply|xmpp\w*)\.",
        r"gserviceaccount\.com$|(?:^|\.)amazonaws\.com$|(?:^|\.)calendar\.google\.com$",
    )),
    re.IGNORECASE,
)  # fmt: skip
# accounts that are an office's or a program's and not a person's, by one of the words of the name
_ROLES = frozenset({
    "abuse", "accounts", "admin", "administrator", "api", "billing", "bot", "careers", "coadmin", "compliance",
    "contact", "customerservice", "dev", "developers", "enquiries", "enterprise", "feedback", "hello", "help",
    "helpdesk", "helpme", "hostmaster", "hr", "info", "itsupport", "jobs", "legal", "mail", "maintainers", "marketing",
    "media", "my", "newsletter", "noreply", "office", "onboarding", "orders", "owner", "partner", "partners",
    "postmaster", "press", "privacy", "registrar", "renovate", "reply", "reports", "request", "requests", "root",
    "sales", "security", "service", "services", "success", "support", "sysadmin", "team", "tenantadmin", "webmaster",
    "webmasters", "your",
})  # fmt: skip
# names of nobody
_NOBODY = re.compile(
    r"(?:test|mock|example|sample|dummy|fake|demo|octo)\w*|foo|bar|baz|foobar|mona|monalisa|hubot|contoso\w*|azsdk\w*"
    r"|(?:new|any|other|another|app)?users?|(?:user|full|first|last|your|my|some|person)?name|(?:e-?)?mails?|address"
    r"|(?:my|your|any|their)(?:new|old|e?mail|user|upn|friend|account|one|body|seller|shop|store|team)\w*"
    r"|some\w+|nobody|anyone|new|cool|updated(?:e?mail)?|unconfigured|nuget|group|reports"
    r"|guests?|passag?er|member|client|student|teacher|employee|manager|buyer|seller|merchant|recipient|receiver|sender"
    r"|subscriber|visitor|collaborator|consumer|author|editor|reviewer|viewers?|boss"
    r"|alice|bob|carol|eve|mallory|john|jane|joe|[jm]\w{0,4}doe|jsmith|abc\w{0,3}|xyz|xxx+|me|you|a",
    re.IGNORECASE,
)
_DOE = re.compile(
    r"(?:john|jane|joe|jon|janet|johnny|j)[._-]?(?:doe|smith|bloggs)\d*|(?:mona|octo)_lisa", re.IGNORECASE
)
# first names alone, where such addresses are made up
_FIRST_NAMES = frozenset({
    "adam", "alex", "alice", "amy", "andrew", "anna", "ben", "bill", "charlie", "chris", "dan", "dave", "david", "emma",
    "eric", "frank", "george", "henry", "jack", "james", "jane", "jim", "joe", "john", "kate", "laura", "lisa", "mark",
    "mary", "matt", "max", "mike", "nick", "paul", "peter", "rob", "robert", "sam", "sara", "sarah", "steve", "susan",
    "thomas", "tim", "tom", "will",
})  # fmt: skip
_EVERYBODYS = re.compile(
    r"(?:gmail|google|googlemail|yahoo|hotmail|outlook|live|microsoft|amazon|apple|facebook|github|example)\.",
    re.IGNORECASE,
)
# letters drawn at random, in the name of a host
_DRAWN = re.compile(r"[a-z][A-Z].*[a-z][A-Z]")
# capitals and digits where nobody puts them
_ODD = re.compile(r"[a-z][A-Z]{1,4}$|^(?=.*[A-Z]).*[A-Za-z]\d+[A-Za-z]+\d")
_MACHINE_NAME = re.compile(r"[0-9a-fA-F-]{24,}|(?=(?:[a-z]*\d){4})[a-z0-9]{20,}")


def emails_in(text: str) -> Iterator[Hit]:
    """Addresses in `text` that may be a person's."""
    if "@" not in text and "%40" not in text:
        return
    for match in _EMAIL.finditer(text):
        top = match[3].lower()
        if top not in _TOP_LEVEL and top not in _COUNTRIES:
            continue
        if _SHOWN_DOMAINS.search(match[2]) or _is_nobody(match[1]) or _is_made_up(match[1], match[2]):
            continue
        at = "@" if "@" in match[0] else "%40"
        yield Hit("e-mail", match[0], _email_like(at))


def _email_like(at: str) -> Callable[[int], str]:
    return lambda number: f"user{number + 1 if number else ''}{at}example.com"


def _is_made_up(account: str, domain: str) -> bool:
    """Whether account and domain together, or the letters of either, look made up to be seen."""
    host = domain.partition(".")[0]
    if account.lower() in _FIRST_NAMES and _EVERYBODYS.match(domain):
        return True
    if max(len(account), len(host)) <= 2 or (host.isupper() and account.isupper()) or _DRAWN.search(domain):
        return True
    return any(_is_hammered(word) or _ODD.search(word) for word in (*re.split(r"[._+-]", account), host))


def _is_hammered(word: str) -> bool:
    """Whether it is letters without vowels, as fingers fall on a keyboard."""
    letters = [c for c in word if c.isalpha()]
    vowels = sum(c in "aeiouyAEIOUY" for c in letters)
    return vowels < 0.15 * len(letters) and (len(letters) >= 6 or (len(letters) == 5 and not word.islower()))


def _is_nobody(account: str) -> bool:
    """Whether an account is an office's, a program's, or a placeholder, and not a person's."""
    if account.lower() in ("git", "hg", "svn") or _MACHINE_NAME.fullmatch(account) or _DOE.match(account):
        return True
    words = [word.rstrip("0123456789") for word in re.split(r"[._+-]", account)]
    return any(word.lower() in _ROLES for word in words) or all(map(_NOBODY.fullmatch, filter(None, words)))
