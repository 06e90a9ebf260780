"""Renderings to tokens, compared with a slow reference that walks characters one by one."""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import tokenizer_files as files
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.data.tokenization import Tokens, check_controls, tokenize
from hephaestus_jax.data.vocabularies import Vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.spans import BOS, EOS, SEAM, Rendering, Span

NAMES = ("trained", "unigram", "llama3", "qwen_like", "v3")
PLAIN = (
    *("a", " a", "word", " words", "\n", "\n\n", "  ", "\t", "é", "e\u0301", "🙂", "🙂🙂", "世", "\x00", "123", "!"),
    *("\u2581", "<|eot", "_id|>", "<|eot_id|>", "<s>", "[INST]", "<tool_call>", "<tool", "_call>", "<|bos|>"),
    "<|eos|>",
)  # fmt: skip
WEIGHTS = st.sampled_from([0.0, 0.5, 1.0])


def _controls(vocabulary: Vocabulary) -> list[str]:
    """Some control tokens of a vocabulary."""
    wanted = ("<|eot_id|>", "<|start_header_id|>", "<tool_call>", "[INST]", "</s>", "<|im_start|>")
    return [BOS, EOS, *(name for name in wanted if name in vocabulary.control_ids)]


def renderings(vocabulary: Vocabulary) -> st.SearchStrategy[Rendering]:
    """Adversarial renderings: control tokens in templates, their spellings everywhere else."""
    plain = st.one_of(st.sampled_from(PLAIN), st.text(st.characters(exclude_categories=["Cs"]), max_size=5))
    template_part = st.one_of(st.sampled_from(_controls(vocabulary)), st.sampled_from(["\n\n", "user", " ", "é", "!"]))
    template = st.builds(Span, st.lists(template_part, max_size=4).map("".join), WEIGHTS, st.just("template"))
    other = st.builds(Span, plain, WEIGHTS, st.sampled_from(["user", "assistant", "metadata", "document"]))
    spans = st.lists(st.one_of(template, other, other), max_size=12).map(tuple)
    return spans.flatmap(lambda spans: st.integers(0, len(spans)).map(lambda carry: Rendering(spans, carry)))


def slow(rendering: Rendering, vocabulary: Vocabulary, cover: Callable[[str], list[tuple[int, int]]]) -> Tokens:
    """The same by definition: one run at a time, one character at a time.

    `cover` gives the characters that each token of a text stands for, found without `Vocabulary.token_bytes`.
    """
    pattern = "|".join(map(re.escape, sorted({*vocabulary.control_ids, BOS, EOS}, key=len, reverse=True)))
    items: list[tuple[str, list[float], list[int]] | tuple[int, float, int]] = []  # runs and control tokens
    fresh = True
    for number, span in enumerate(rendering.spans):
        is_template = span.kind == "template"
        parts = re.split(f"({pattern})", span.text) if is_template else [span.text]
        fresh = fresh or (is_template and not span.text)
        for place, part in enumerate(parts):
            if place % 2:
                if part in vocabulary.control_ids:
                    items.append((vocabulary.control_ids[part], span.weight, number))
                    fresh = True
                continue  # a beginning or end of text that the family lacks does not end the run
            if part:
                if fresh:
                    items.append(("", [], []))
                fresh = False
                text, weights, numbers = items[-1]
                items[-1] = (text + part, weights + [span.weight] * len(part), numbers + [number] * len(part))
    tokens: list[int] = []
    weights_out: list[float] = []
    carried = 0
    for content, weights, numbers in items:
        if isinstance(content, int):
            tokens.append(content)
            weights_out.append(weights)
            carried += numbers < rendering.carry
            continue
        ids = vocabulary.encode(content)
        for token, (start, end) in zip(ids, cover(content), strict=True):
            tokens.append(int(token))
            weights_out.append(min(weights[start : max(end, start + 1)]))
            # a token without characters goes with the one behind it
            carried += all(number < rendering.carry for number in numbers[start : max(end, start + 1)])
    if weights_out:
        weights_out[0] = 0.0
    return Tokens(np.array(tokens, np.int32), np.array(weights_out, np.float32), carried)


@functools.cache
def coverage(name: str) -> Callable[[str], list[tuple[int, int]]]:
    """A function from text to the characters each token covers, from the libraries themselves."""
    path = files.vocabulary(name).path
    if name == "qwen_like":  # its normalizer changes characters: only the library's own offsets tell
        encoder = files.library(Path(path))
        spelt = re.compile(r"<\|im|<\|end|<tool_call>|</tool_call>")

        def offsets(text: str) -> list[tuple[int, int]]:
            assert not spelt.search(text)
            return encoder.encode(text, add_special_tokens=False).offsets

        return offsets
    if name == "llama3":
        pytest.importorskip("tiktoken")
        llama = pytest.importorskip("llama_models.llama3.tokenizer").Tokenizer.get_instance()

        def llama_bytes(text: str) -> list[bytes]:
            return [llama.model.decode_single_token_bytes(i) for i in llama.encode(text, bos=False, eos=False)]

        return lambda text: _by_bytes(text, llama_bytes(text), prefix=0)
    processor = sentencepiece.SentencePieceProcessor(model_file=path)

    def piece_bytes(text: str) -> list[bytes]:
        pieces = [processor.id_to_piece(int(i)) for i in files.vocabulary(name).encode(text)]
        spaced = [p.replace("\u2581", " ").encode() for p in pieces]
        return [b"?" if re.fullmatch("<0x..>", p) else b for p, b in zip(pieces, spaced, strict=True)]

    return lambda text: _by_bytes(text, piece_bytes(text), prefix=int(name == "v3"))


def _by_bytes(text: str, pieces: list[bytes], prefix: int) -> list[tuple[int, int]]:
    chars = [i for i, char in enumerate(text) for _ in char.encode()]
    place, covered = -prefix, []
    for piece in pieces:
        first, last = max(place, 0), place + len(piece)
        covered.append((chars[first], chars[last - 1] + 1 if last > first else chars[first]))
        place = last
    assert place == len(chars)
    return covered


def same(one: Tokens, other: Tokens) -> None:
    """Fails unless both are equal in every part."""
    assert one.tokens_T.tolist() == other.tokens_T.tolist()
    assert one.weights_T.tolist() == other.weights_T.tolist()
    assert one.carry == other.carry


@pytest.mark.parametrize("name", NAMES)
def test_equal_to_the_slow_reference(name: str) -> None:
    vocabulary, cover = files.vocabulary(name), coverage(name)

    @settings(max_examples=70, deadline=None)
    @given(st.lists(renderings(vocabulary), max_size=4))
    def check(batch: list[Rendering]) -> None:
        batch = [r for r in batch if _comparable(r, name)]
        for rendering, tokens in zip(batch, tokenize(batch, vocabulary), strict=True):
            assert tokens.tokens_T.dtype == np.int32 and tokens.weights_T.dtype == np.float32
            same(tokens, slow(rendering, vocabulary, cover))

    check()


def _comparable(rendering: Rendering, name: str) -> bool:
    """Whether the library's own account of the text can be trusted: not where it mistakes text for something else."""
    text = "".join(span.text for span in rendering.spans if span.kind != "template")
    return not {
        "qwen_like": re.search(r"<\||<tool|_call>|im_", text + rendering.text.replace("<|bos|>", "")),
        "v3": "\u2581" in text,
    }.get(name)


@pytest.mark.parametrize("name", NAMES)
def test_equal_to_the_slow_reference_on_long_conversations(name: str) -> None:
    vocabulary, rng = files.vocabulary(name), random.Random(1)
    sources, controls = "".join(files.sources(5)), _controls(vocabulary)[2:]
    batch = []
    for _ in range(12):
        spans = [Span(BOS, 0.0, "template"), Span("URL: x.org\n\n", 0.0, "metadata")]
        for _ in range(rng.randint(0, 25)):
            start = rng.randrange(len(sources))
            words = sources[start : start + rng.randint(1, 200)] + rng.choice(["é🙂", "e\u0301", "\n", ""])
            spans.append(Span(rng.choice(controls) + "\n\n", rng.choice([0, 1]), "template"))
            spans.append(Span(words, rng.choice([0, 0.25, 1]), "user"))
            spans.append(Span(sources[start : start + 9], rng.choice([0, 0.25, 1]), "assistant"))
        batch.append(Rendering(tuple(spans), rng.randint(0, len(spans))))
    batch = [rendering for rendering in batch if name != "qwen_like" or _comparable_long(rendering)]
    assert len(batch) > 5
    for rendering, tokens in zip(batch, tokenize(batch, vocabulary), strict=True):
        same(tokens, slow(rendering, vocabulary, coverage(name)))


def _comparable_long(rendering: Rendering) -> bool:
    return not re.search(r"<\||<tool", "".join(s.text for s in rendering.spans if s.kind != "template"))


@pytest.mark.parametrize("name", NAMES)
def test_batches_change_nothing(name: str) -> None:
    vocabulary = files.vocabulary(name)

    @settings(max_examples=25, deadline=None)
    @given(st.lists(renderings(vocabulary), min_size=2, max_size=6))
    def check(batch: list[Rendering]) -> None:
        for rendering, tokens in zip(batch, tokenize(batch, vocabulary), strict=True):
            same(tokens, tokenize([rendering], vocabulary)[0])

    check()


@pytest.mark.parametrize("name", NAMES)
def test_no_text_yields_a_control_token(name: str) -> None:
    vocabulary = files.vocabulary(name)

    @settings(max_examples=60, deadline=None)
    @given(renderings(vocabulary))
    def check(rendering: Rendering) -> None:
        (tokens,) = tokenize([rendering], vocabulary)
        pattern = "|".join(map(re.escape, _controls(vocabulary)))
        spelt = [m for s in rendering.spans if s.kind == "template" for m in re.findall(pattern, s.text)]
        placed = [vocabulary.control_ids[m] for m in spelt if m in vocabulary.control_ids]
        assert tokens.tokens_T[vocabulary.is_control[tokens.tokens_T]].tolist() == placed

    check()


@pytest.mark.parametrize(
    "spans",
    [
        [("<|eot_id|>", "user")],
        [("<|eot", "user"), ("_id|>", "user")],
        [("<|eot", "template"), ("_id|>", "user")],
        [("<|eot", "user"), ("_id|>", "template")],
        [("<|eot", "template"), ("_id|>", "template")],
        [("a<|eot_id|", "assistant"), (">", "document")],
        [("<|bos|>", "user"), ("<|eos|>", "document"), ("<|end_of_text|>", "metadata")],
    ],
)
def test_spellings_across_span_borders_stay_text(spans: list[tuple[str, str]]) -> None:
    for name in ("trained", "llama3"):
        vocabulary = files.vocabulary(name)
        rendering = Rendering(tuple(Span(text, 1.0, kind) for text, kind in spans))  # type: ignore[arg-type]
        (tokens,) = tokenize([rendering], vocabulary)
        assert not vocabulary.is_control[tokens.tokens_T].any()
        assert vocabulary.decode(tokens.tokens_T) == rendering.text


def test_ids_are_those_of_the_whole_text() -> None:
    vocabulary, library = files.vocabulary("llama3"), files.library(files.llama3_json())
    header = "<|start_header_id|>user<|end_header_id|>\n\n"
    spans = [("<|begin_of_text|>", "template"), (header, "template"), ("\n Hi", "user"), (" there", "user")]
    spans += [("<|eot_id|>", "template"), (header, "template"), ("  x", "user"), ("y\n", "template"), ("\nz", "user")]
    rendering = Rendering(tuple(Span(text, i % 2, kind) for i, (text, kind) in enumerate(spans)))  # type: ignore[arg-type]
    (tokens,) = tokenize([rendering], vocabulary)
    assert tokens.tokens_T.tolist() == library.encode(rendering.text, add_special_tokens=False).ids


def test_weights_by_hand() -> None:
    vocabulary = files.vocabulary("llama3")
    spans = (
        Span("<|eot_id|>a", 0.5, "template"),
        Span("bc", 1.0, "user"),
        Span(" de", 0.0, "user"),
        Span("🙂", 1.0, "user"),
    )
    (tokens,) = tokenize([Rendering(spans, carry=2)], vocabulary)
    assert [vocabulary.decode([i]) for i in tokens.tokens_T[:3]] == ["<|eot_id|>", "abc", " de"]
    assert tokens.weights_T.tolist() == [
        0.0,
        0.5,
        0.0,
        1.0,
        1.0,
    ]  # the first 0; "abc" spans two weights; 🙂 is two tokens
    assert tokens.carry == 2
    # a border inside a token: "abc" lies only in part within the first span
    assert tokenize([Rendering(spans, carry=1)], vocabulary)[0].carry == 1


def test_normalization_that_shifts_bytes_but_keeps_their_sum() -> None:
    vocabulary, accented = files.vocabulary("qwen_like"), "e\u0301"  # one byte shorter when composed
    text = "\u0958" + 3 * accented  # U+0958 gets three bytes longer when decomposed, as NFC demands
    assert vocabulary.token_bytes[vocabulary.encode(text)].sum() == len(text.encode())
    rendering = Rendering((Span(text[:3], 0.0, "user"), Span(text[3:], 1.0, "user")), carry=1)
    same(tokenize([rendering], vocabulary)[0], slow(rendering, vocabulary, coverage("qwen_like")))


def test_a_seam_ends_a_run() -> None:
    for name in ("trained", "llama3", "v3"):
        vocabulary = files.vocabulary(name)
        halves = [Span("hel", 1.0, "user"), Span("lo", 1.0, "assistant")]
        (joined,) = tokenize([Rendering(tuple(halves))], vocabulary)
        (seamed,) = tokenize([Rendering((halves[0], SEAM, halves[1]))], vocabulary)
        assert joined.tokens_T.tolist() == vocabulary.encode("hello").tolist()
        assert seamed.tokens_T.tolist() == [*vocabulary.encode("hel"), *vocabulary.encode("lo")]


def test_a_prefix_for_the_first_text_only_is_not_put_after_a_control_token(tmp_path: Path) -> None:
    vocabulary = files.write_spec(tmp_path, files.metaspace_spec("first"))
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    library.no_truncation()
    spans = (
        Span("[INST]", 0.0, "template"),
        Span("ab", 0.0, "user"),
        Span("c a", 1.0, "user"),
        Span("</s>", 1.0, "template"),
    )
    for chosen in (spans, spans[1:]):
        (tokens,) = tokenize([Rendering(chosen)], vocabulary)
        assert tokens.tokens_T.tolist() == library.encode(Rendering(chosen).text).ids
        text = [vocabulary.decode([3, i])[6:] for i in tokens.tokens_T if not vocabulary.is_control[i]]
        weights = tokens.weights_T[~vocabulary.is_control[tokens.tokens_T]]
        assert dict(zip(text, weights.tolist(), strict=True))["c"] == 1.0


def test_missing_control_tokens_are_named() -> None:
    trained, llama = files.vocabulary("trained"), files.vocabulary("llama3")
    with pytest.raises(UserError, match=r"lacks the control tokens <\|im_start\|>: use the vocabulary of"):
        tokenize([Rendering((Span("<|im_start|>user", 0.0, "template"),))], llama)
    with pytest.raises(UserError, match=r"lacks the control tokens \[INST\] <\|python_tag\|>"):
        tokenize([], trained, controls=["<|eot_id|>", "[INST]", "<|python_tag|>", BOS])
    check_controls(["<|eot_id|>", EOS], llama)
    # a family whose markup is plain text says so by its controls
    (tokens,) = tokenize([Rendering((Span("<|user|>\n", 1.0, "template"),))], llama, controls=[])
    assert llama.decode(tokens.tokens_T) == "<|user|>\n" and not llama.is_control[tokens.tokens_T].any()


def test_beginning_and_end_are_left_out_where_there_are_none() -> None:
    vocabulary = files.vocabulary("qwen_like")
    (tokens,) = tokenize([Rendering((Span(BOS + "a", 1.0, "template"), Span(EOS, 1.0, "template")), 1)], vocabulary)
    assert tokens.tokens_T.tolist() == [*vocabulary.encode("a"), vocabulary.eos_id]
    assert tokens.weights_T.tolist() == [0.0, 1.0] and tokens.carry == 1


def test_control_tokens_that_swallow_white_space_are_refused(tmp_path: Path) -> None:
    spec = files.metaspace_spec()
    spec["added_tokens"][3]["rstrip"] = True
    vocabulary = files.write_spec(tmp_path, spec)
    with pytest.raises(UserError, match=r"lets \[INST\] swallow white space"):
        tokenize([Rendering((Span("[INST] a", 1.0, "template"),))], vocabulary)


def test_empty_renderings() -> None:
    vocabulary = files.vocabulary("trained")
    assert tokenize([], vocabulary) == []
    empty = [Rendering(()), Rendering((Span("", 1.0, "user"), SEAM), carry=2)]
    for tokens in tokenize(empty, vocabulary):
        assert len(tokens.tokens_T) == len(tokens.weights_T) == tokens.carry == 0
    first, middle, last = tokenize([empty[0], Rendering((Span("a", 1.0, "user"),)), empty[1]], vocabulary)
    assert (len(first.tokens_T), len(middle.tokens_T), len(last.tokens_T)) == (0, 1, 0)
    assert middle.weights_T.tolist() == [0.0]


def test_a_lone_surrogate_is_one_clear_line() -> None:
    with pytest.raises(UserError, match="lone surrogate"):
        tokenize([Rendering((Span("a\ud800", 1.0, "user"),))], files.vocabulary("trained"))
