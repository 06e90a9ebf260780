"""The language that a description is written in, code and names in it left aside.

Lui and Baldwin, "langid.py: an off-the-shelf language identification tool" (2012), in the form of `py3langid`,
restricted to languages that documentation is written in, and asked for confidence. What is plainly English is told by
its function words, which is quicker and does not mistake lists of identifiers for Latin.
"""

from __future__ import annotations

import functools
import re

from py3langid.langid import MODEL_FILE, LanguageIdentifier

LANGUAGES = (
    "ar", "bg", "ca", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "he", "hi", "hr", "hu", "id", "it",
    "ja", "ko", "lt", "lv", "nb", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sl", "sr", "sv", "th", "tr", "uk", "vi",
    "zh",
)  # fmt: skip
CONFIDENCE = 0.98
SHORTEST_WORDS = 8  # of prose in Latin letters; shorter texts are nobody's to tell
SHORTEST_OTHER = 8  # characters of another script
LOOKED_AT = 2_000  # characters
ENGLISH_SHARE = 0.12  # of the words, that are function words of English alone

_CODE = re.compile(
    r"```.*?```|`[^`\n]*`|https?://\S+|<[^<>\n]{1,200}>|\{[^{}\n]{0,200}\}|\[[^\[\]\n]*\]\([^()\n]*\)"
    r"|\b\w*[_\d./\\:@#$%=]\w[\w./\\:@#$%=-]*|\b[a-z]+[A-Z]\w*|\b[A-Z]{2,}\w*\b|^\s*(?:>>>|\.\.\.|\$).*$",
    re.DOTALL | re.MULTILINE,
)
_WORD = re.compile(r"[^\W\d_]+")
_OTHER_SCRIPT = re.compile(
    r"[\u0370-\u03ff\u0400-\u04ff\u0590-\u06ff\u0900-\u097f\u0e00-\u0e7f\u3040-\u9fff\uac00-\ud7af]"
)
_ENGLISH = frozenset({
    "the", "of", "and", "is", "are", "for", "with", "this", "that", "to", "by", "be", "or", "from", "if", "not",
    "will", "can", "which", "has", "have", "an", "when", "you", "your", "it", "its", "as", "at", "any", "new", "used",
    "returns", "return", "given", "must", "should", "may", "whether", "these", "into", "only",
})  # fmt: skip


def language_of(text: str) -> str:
    """ISO 639-1 code, or "" when the text is too short or it is not clear; the same on every machine."""
    prose = _CODE.sub(" ", text[:LOOKED_AT])
    words = _WORD.findall(prose)
    other = len(_OTHER_SCRIPT.findall(prose))
    if other >= SHORTEST_OTHER and 2 * other > sum(map(len, words)):
        return _identified(" ".join(words))
    if len(words) < SHORTEST_WORDS:
        return ""
    english = sum(word.lower() in _ENGLISH for word in words)
    if english >= ENGLISH_SHARE * len(words):
        return "en"
    found = _identified(" ".join(words))
    # Latin letters and a few English function words: a list of names, not another language
    return found if found == "en" or english < 0.03 * len(words) else ""


def _identified(prose: str) -> str:
    code, confidence = _identifier().classify(prose)
    if confidence < CONFIDENCE:
        return ""
    return "nb" if code == "no" else str(code)


@functools.cache
def _identifier() -> LanguageIdentifier:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([code for code in LANGUAGES if code in identifier.labels])
    return identifier
