"""What an API does, as a task: "Deletes the specified route." and "To delete a route" become "delete the route"."""

from __future__ import annotations

import re
from functools import lru_cache

from hephaestus_jax.forge.compose.wording import human, name_words, singular, word_set
from hephaestus_jax.formats.records import ApiDoc, ApiExample

LONGEST = 170  # characters of a task

_VERBS = word_set(
    "abort accelerate accept acknowledge activate add adjust admit advance advertise affirm aggregate allocate allow "
    "alter amend analyze annotate append apply approve archive assign associate assume attach audit authenticate "
    "authorize backup ban batch begin bind blacklist block book browse build bulk buy calculate call cancel capture "
    "change charge check checkout choose claim clean clear clone close collect combine commence commit compare "
    "compile complete compose compute configure confirm connect consume continue convert copy correct count craft "
    "create customize deactivate deallocate decide decommission decline decode decompile decrease decrypt define "
    "delete deliver demote deny deploy deprecate deprovision deregister derive describe designate destroy detach "
    "detect determine "
    "disable disallow disassociate discard disconnect discover dismiss dispatch display dissociate download drop dump "
    "duplicate edit email embed enable encode encourage encrypt end enforce engage enqueue enrich enroll ensure "
    "enumerate erase estimate evaluate evict exchange exclude execute expand expire export extend extract failover "
    "feature feed fetch fill finalize find finish fix flag flatten flip flush follow force forget fork format forward "
    "free generate get give grade grant halt handle hang hide identify ignore import include increase increment index "
    "initialize initiate insert inspect install instantiate interrupt invalidate invert invite invoke issue join keep "
    "kick kill label launch leave let like link list load localize lock log login logout look lookup make manage map "
    "mark match measure merge migrate modify monitor mount move mute navigate nominate normalize notify obtain offer "
    "open order outline override overwrite page pair parse partition patch pause pay peek perform permit persist pick "
    "pin ping place play poll populate post power predict prepare press preview print process promote propose protect "
    "provide provision prune publish pull purchase purge push put quarantine query queue raise reach reactivate read "
    "reassign rebase reboot rebuild recall receive recommend reconcile reconfigure record recover recreate redeem "
    "redeploy reduce refine reflect refresh refund regenerate register rehydrate reimage reinstate reject release "
    "reload remove rename render renew reopen reorder reorganize repair replace replicate reply report reprocess "
    "request rerun reschedule rescore resend reserve reset resize resolve respond restart restore restrict resubmit "
    "resume retrieve retry return revert review revive revoke rework rewrite roll rollback rotate route run sample "
    "sanitize save scale scan schedule score search see seed select sell send separate set share ship show shut sign "
    "simulate skip sleep snapshot solve sort specify split stage standardize star start stop store stream submit "
    "subscribe subtract suggest summarize supply surface survey suspend swap sweep switch sync synchronize synthesize "
    "tag take tell terminate test toggle tokenize touch track train transcribe transfer transform translate trigger "
    "truncate turn unarchive unassign unauthorize unban unblock uncancel undelete undeploy undo unfollow unfreeze "
    "unignore uninstall unlink unlock unmount unpin unpublish unregister unset unsubscribe unsuspend untag untrash "
    "unzip update upgrade upload upsert use vacuum validate verify view void vote wait warm watch whitelist wipe "
    "withdraw wrap write zip"
)
# These are nouns as often; they are taken for verbs only before a word that a verb's object begins with.
_AMBIGUOUS = word_set(
    "access audit backup batch block book bulk call change charge check checkout claim count download drop dump email "
    "end estimate exchange export extract failover feature fill filter fix flag fork format forward free import index "
    "issue join label launch like link load lock log login logout look lookup map mark match measure monitor mount "
    "move offer open order override page pair partition pause pay permit pick pin ping place play poll post power "
    "press preview process purchase query queue raise record refund release reply report request reset review roll "
    "rollback route run sample scale scan schedule score search seed share ship sign sleep snapshot sort split stage "
    "star store stream supply surface survey switch sync tag take test track train transfer trigger turn upload use "
    "vote wait watch"
)
READING = word_set(
    "browse check compare count describe determine display enumerate fetch find get give identify list look lookup "
    "obtain peek preview query read retrieve return search see show view"
)
CREATING = word_set(
    "add allocate build buy clone copy create duplicate generate insert issue launch make open order place post "
    "produce provision publish purchase put register request reserve run start submit"
)
REMOVING = word_set(
    "abort archive cancel clear close deactivate delete deprovision deregister destroy detach disable discard drop "
    "erase expire invalidate kill purge remove revoke stop terminate undeploy unregister unsubscribe void"
)
_SORTS = (
    READING,
    word_set("add create generate insert post provision publish purchase register"),
    word_set("delete deregister destroy erase remove terminate"),
)
_OBJECT = re.compile(
    r"(a|an|the|all|any|your|one|my|multiple|several|some|each|every|new|existing|specified|given|this|that|these|for|"
    r"by|in|on|to|up|up to|whether|if|how|it|its|from|with|two|an?other|whole|single|"
    r"current|settings|until|running|into|off)\b",
    re.I,
)
_SMALL = word_set(
    "a an the all any your one my of in on to by for from with and or at into about as its it up out off via per "
    "without within between under over using whether if how is are not new existing each every multiple this that"
)
_MAKING = word_set("create add insert generate make register")
# The values say it: "get a rule by its ID", "create a project with the key and name".
_NAMED = r"(?:[A-Za-z]+ ){0,2}(?:ID|id|Id|identifier|name|key|ARN)"
_BY_NAME = re.compile(
    rf",? (?:by|for|with|using|given|from|via) (?:(?:the|its|a|an|their|your) )?{_NAMED}(?: (?:and|or) {_NAMED})?$"
)
_ADVERB = r"(?:(?P<adverb>(?!apply|reply|supply)[A-Za-z]{3,}ly)\s+)?"
_WORD = re.compile(_ADVERB + r"(?P<verb>[A-Za-z]+)(?P<rest>(?:[,/\s].*)?)$", re.S)
_THING = r"(?:operation|example|command|call|api|api call|endpoint|method|action|function|request|resource|tool|query)"
_LEADS = re.compile(
    r"(?:\**\s*(?:example|sample)\s*\d*\s*[:.)-]\s*)?"
    r"(?:(?:the\s+following|this|the)\s+(?:[\w./-]+\s+){0,3}?" + _THING + r"s?\s+"
    r"(?:(?:can|may|could|will|shows?\s+how|demonstrates\s+how|lets?\s+you|allows?\s+(?:you|users?|the\s+user|clients?)|"
    r"enables?\s+(?:you|users?)|(?:is|can\s+be|may\s+be)\s+(?:used|called)|uses?\s+\S+)\s+)?(?:to\s+)?"
    r"|(?:you\s+can\s+)?use\s+this(?:\s+" + _THING + r")?\s+to\s+"
    r"|(?:allows?|enables?|permits?)\s+(?:you|users?|the\s+user|clients?|an?\s+\w+)\s+to\s+|lets\s+(?:you|users)\s+"
    r"|(?:used|use|how)\s+to\s+|to\s+)?",
    re.I,
)
_SENTENCE_END = re.compile(r"(?<=[^.\s][.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!vs\.)(?<!etc\.)\s+(?=[A-Z\"'(])")
_ASIDE = re.compile(r"\s*\((?:deprecated|beta|preview|e\.g\.|i\.e\.|see|optional|for example)[^()]*\)", re.I)
_THIRD = {"does": "do", "has": "have", "dettaches": "detach"}


def task_of(doc: ApiDoc, example: ApiExample) -> str | None:
    """The task of an example call, as an imperative without its full stop; None if no words for it are found.

    It comes from the example's own intent, else from the API's summary, else from its name.
    """
    for text in (example.intent, doc.description):
        if text and (task := imperative(text)) and not (text == example.intent and _is_another(task, doc)):
            return task
    return _noun_task(doc) or _named_task(doc)


def _is_another(task: str, doc: ApiDoc) -> bool:
    """Whether a task is of another sort than the API's own name: "delete a face", given for SearchFaces."""
    name = doc.function or doc.name.rpartition(".")[2]
    words = name_words(name.split()[-1] if doc.interface != "cli" else doc.name.split()[-1])
    sorts = [next((n for n, s in enumerate(_SORTS) if verb in s), None) for verb in (verb_of(task), *words[:1])]
    return len(sorts) == 2 and None not in sorts and sorts[0] != sorts[1]


def verb_of(task: str) -> str:
    """The verb of a task that `imperative` made."""
    first, _, rest = task.partition(" ")
    return rest.partition(" ")[0] if first.endswith("ly") and rest.partition(" ")[0] in _VERBS else first


@lru_cache(maxsize=32768)
def imperative(text: str) -> str | None:
    """The first sentence as an imperative in lower case, if it tells what is done; else None."""
    sentence = _first_sentence(text)
    sentence = sentence[_LEADS.match(sentence).end() :]  # type: ignore[union-attr]  # the pattern matches nothing too
    found = _WORD.match(sentence)
    if not found:
        return None
    verb, rest = found["verb"].lower(), found["rest"]
    base = base_form(verb)
    if base is None or not rest.strip() or not _is_verb(base, verb, rest.strip()):
        return None
    if base != verb:  # the verbs that go with a verb in the third person are in the third person too
        rest = re.sub(r"^((?:,? (?:and|or) |, |/)[a-z]+s\b)+", _also_bases, rest)
    rest = re.sub(r"^ (?=(?:list|summary|count) of\b)", " a ", rest)
    base = {"return": "get", "returned": "get"}.get(base, base)
    task = f"{(found['adverb'] or '').lower()} {base}{rest}".strip()
    task = re.sub(r"\b(?:the|an?) (?:specified|given|requested|provided|supplied|indicated) (?=\w)", "the ", task)
    if (shortened := _shortened(_in_lower_case(task))) is None:
        return None
    bare = _BY_NAME.sub("", shortened)
    return bare if len(bare.split()) > 1 else shortened


def _in_lower_case(task: str) -> str:
    """A heading in title case as a part of a sentence: "update Stripped String" as "update the stripped string"."""
    verb, _, rest = task.partition(" ")
    words = rest.split()
    capital = [word for word in words if word.lower() not in _SMALL]
    if not words or len(words) > 12 or not all(re.fullmatch(r"[A-Z][a-z'-]+|[A-Z]+s?|\d+", word) for word in capital):
        return task
    if not any(word.istitle() for word in capital):
        return task
    lowered = [word.lower() if word.istitle() else word for word in words]
    if words[0].lower() in _SMALL:
        return f"{verb} {' '.join(lowered)}"
    end = next((place for place, word in enumerate(lowered) if word in _SMALL), len(lowered))
    several = singular(lowered[end - 1]) != lowered[end - 1]
    article = "" if several else _article(lowered[0]) if verb in _MAKING else "the "
    return f"{verb} {article}{' '.join(lowered)}"


def _article(word: str) -> str:
    vowel = word[:1] in "aeiou" or (word.isupper() and word[:1] in "AEFHILMNORSX")
    return "an " if vowel else "a "


def base_form(verb: str) -> str | None:
    """The infinitive of a verb in it or in the third person; None if it is no verb that APIs use."""
    if verb in _VERBS:
        return verb
    for ending, instead in (("ies", "y"), ("es", ""), ("s", "")):
        if verb.endswith(ending) and (base := verb.removesuffix(ending) + instead) in _VERBS:
            return base
    return _THIRD.get(verb)


def _is_verb(base: str, verb: str, rest: str) -> bool:
    if re.match(r"(is|are|was|has|have|will|can|must|of|failed|successful|response|request)\b", rest, re.I):
        return False
    return base not in _AMBIGUOUS or bool(_OBJECT.match(rest)) or (base != verb and rest[:1].islower())


def _also_bases(found: re.Match[str]) -> str:
    return re.sub(r"[a-z]+s\b", lambda word: base_form(word[0]) or word[0], found[0])


def _first_sentence(text: str) -> str:
    paragraph = text.strip().split("\n\n")[0]
    paragraph = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", paragraph)
    paragraph = re.sub(r"<[^<>]{1,60}>|[`*]+", "", paragraph)
    paragraph = re.sub(r"^[Vv]\d+(?:\.\d+)?\s*[-:]?\s+(?=[A-Z])", "", paragraph)  # "V1 Get Payout Statistics"
    sentence = re.split(
        r"(?<=[^.\s][.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!vs\.)(?<!etc\.)\s+(?=[A-Z\"'(])", paragraph.strip()
    )[0]
    return " ".join(sentence.split()).rstrip(".:;! ")


def _shortened(task: str) -> str | None:
    """The task without what is said in passing, at most `LONGEST` characters; None if it cannot be had so short."""
    task = re.sub(
        r"\s*\((?:deprecated|beta|preview|e\.g\.|i\.e\.|see|optional|for example)[^()]*\)", "", task, flags=re.I
    )
    task = re.split(
        r",? (?:for more information\b|see also\b|for example\b|e\.g\.|i\.e\.|such as\b)", task, flags=re.I
    )[0]
    if len(task) > LONGEST:
        task = re.split(r"; | — | -- |, (?:which|and|so|but|where|if|or|including|with|as)\b| \(", task)[0]
    task = task.rstrip(" .,:;")
    opened = task.count("(") > task.count(")")
    return None if len(task) > LONGEST or opened or len(task.split()) < 2 else task


def _noun_task(doc: ApiDoc) -> str | None:
    """A summary that only names what a reading operation returns, as a task to get it."""
    sentence = _first_sentence(doc.description)
    if not doc.name.startswith("GET ") or not 1 <= len(sentence.split()) <= 8 or not sentence[:1].isalpha():
        return None
    if not re.fullmatch(r"[\w ,'/-]+", sentence) or re.match(r"(this|it|when|if|endpoint|api|see)\b", sentence, re.I):
        return None
    first = sentence.split()[0]
    if (task := _in_lower_case(f"get {sentence}")) != f"get {sentence}":
        return task
    lowered = sentence if first.isupper() or not first.istitle() else sentence[0].lower() + sentence[1:]
    return f"get {lowered}" if _OBJECT.match(lowered) else f"get the {lowered}"


def _named_task(doc: ApiDoc) -> str | None:
    """The words of a function name that begins with a verb, as a task."""
    if doc.interface == "rest" and not doc.function:
        return None  # the words of a path are no sentence
    words = name_words(doc.function or doc.name.rpartition(".")[2])
    if (
        len(words) < 2
        or words[0] not in _VERBS
        or words[0] in ("post", "put")
        or not all(word.isalpha() for word in words)
    ):
        return None
    thing = human("_".join(words[1:]))
    several = words[-1].endswith("s") and not words[-1].endswith("ss")
    new = words[0] in ("create", "add", "insert", "generate", "make", "post", "register")
    article = (
        "" if several or words[1] in ("all", "by") else ("an " if thing[0] in "aeiou" else "a ") if new else "the "
    )
    return f"{words[0]} {article}{thing}"


def for_user(task: str) -> str:
    """The task as the user says it: what is "your" to the documentation is "my" to them."""
    task = re.sub(r"\b(to|for|with|by|of|from|on behalf of) you\b", r"\1 me", task)
    task = re.sub(r"\byou are\b", "I am", task)
    task = re.sub(r"\byou\b", "I", task)
    return re.sub(r"\byourself\b", "myself", re.sub(r"\byours\b", "mine", re.sub(r"\byour\b", "my", task)))
