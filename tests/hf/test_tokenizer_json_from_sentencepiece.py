"""`tokenizer.json` of SentencePiece models: the same ids through AutoTokenizer, for ours and for other people's."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2 as model_pb2

sys.path.append(str(Path(__file__).parents[1] / "data"))
import tokenizer_files as files
from tokenizers import Tokenizer

from hephaestus_jax.data.sentencepiece_vocabulary import SentencePieceVocabulary
from hephaestus_jax.data.vocabularies import Vocabulary, load_vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.hf.tokenizer_files import missing_tokenizer_json, tokenizer_files
from hephaestus_jax.hf.tokenizer_json_from_sentencepiece import first_difference, tokenizer_json

transformers = pytest.importorskip("transformers")

NORMAL, UNKNOWN, CONTROL, DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
BPE, UNIGRAM, WORD = 2, 1, 3
AWKWARD = (
    *("\u2581", "a\u2581 b\u2581\u2581", "\u2581\u2581\u2581 \u2581", "", " ", "\n", " \t x", "\r\n\r\n a\r", "\u00a0"),
    *("\U0001f642 \U0001f468\u200d\U0001f469", "a\x00b\x00\x00", "<|eot_id|> <0x41> <s></s><unk><tool_call>", "\ufeff"),
    *(" " * n + "x" + "\n" * n + "=" * n + "\t" * n for n in range(1, 40)),
)  # fmt: skip


def records(count: int = 1_000) -> list[str]:
    """Pieces of the standard library's sources, of different lengths."""
    text, rng, start = "\n".join(files.sources(60)), random.Random(0), 0
    found = []
    while len(found) < count:
        length = rng.choice((50, 300, 1_000, 2_500))
        found.append(text[start : start + length])
        start = (start + length) % (len(text) - 3_000)
    return found


def auto_tokenizer(folder: Path, spec: dict[str, Any] | None = None, settings: dict[str, Any] | None = None) -> Any:
    """What AutoTokenizer makes of a folder, beside the config of a Llama."""
    if spec is not None:
        (folder / "tokenizer.json").write_text(json.dumps(spec), "utf-8")
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **(settings or {})}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    return transformers.AutoTokenizer.from_pretrained(folder)


def differing(tokenizer: Any, vocabulary: Vocabulary, texts: Iterable[str]) -> list[str]:
    """The texts that get other ids; control tokens that they spell are text."""
    texts = list(texts)
    found = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    expected = vocabulary.encode_batch(texts)
    return [text for text, ids, ours in zip(texts, found, expected, strict=True) if ids != ours.tolist()]


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Vocabulary, Path]:
    folder = tmp_path_factory.mktemp("ours")
    vocabulary = files.vocabulary("trained")
    for name, data in tokenizer_files(vocabulary, "none", 10**6).files.items():
        (folder / name).write_bytes(data)
    return auto_tokenizer(folder), vocabulary, folder


def test_ids_and_texts_of_a_thousand_records(ours: tuple[Any, Vocabulary, Path]) -> None:
    tokenizer, vocabulary, _ = ours
    texts = [*records(), *AWKWARD]
    assert not differing(tokenizer, vocabulary, texts)
    for text, ids in zip(texts, vocabulary.encode_batch(texts), strict=True):
        assert tokenizer.decode(ids) == text


def test_ids_of_any_text(ours: tuple[Any, Vocabulary, Path]) -> None:
    tokenizer, vocabulary, _ = ours

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.one_of(st.sampled_from(AWKWARD), st.text(st.characters(exclude_categories=["Cs"])))))
    def check(parts: list[str]) -> None:
        text = "".join(parts)
        assert not differing(tokenizer, vocabulary, [text])
        assert tokenizer.decode(vocabulary.encode(text)) == text

    check()


def test_control_tokens_and_beginning_of_text(ours: tuple[Any, Vocabulary, Path]) -> None:
    tokenizer, vocabulary, folder = ours
    ids = vocabulary.control_ids
    assert len(tokenizer) == vocabulary.size
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (vocabulary.bos_id, vocabulary.eos_id)
    assert (tokenizer.pad_token_id, tokenizer.unk_token) == (vocabulary.pad_id, "<unk>")
    placed = tokenizer("ab<|eot_id|> c", add_special_tokens=False)["input_ids"]
    assert placed == [*vocabulary.encode("ab"), ids["<|eot_id|>"], *vocabulary.encode(" c")]
    encoded = tokenizer("ab")
    assert encoded["input_ids"] == [vocabulary.bos_id, *vocabulary.encode("ab")]  # as Llama does
    assert set(encoded) == {"input_ids", "attention_mask"}
    assert tokenizer.decode(placed) == "ab<|eot_id|> c"
    assert tokenizer.decode(placed, skip_special_tokens=True) == "ab c"
    again = load_vocabulary(folder)  # takes tokenizer.json
    assert again.path.endswith(".json") and (again.bos_id, again.pad_id) == (vocabulary.bos_id, vocabulary.pad_id)
    assert again.control_ids == vocabulary.control_ids
    texts = [*records(50), *AWKWARD]
    for text, expected in zip(texts, vocabulary.encode_batch(texts), strict=True):
        assert again.encode(text).tolist() == expected.tolist()


def test_unigram_differs_in_segmentations_of_equal_score_only(tmp_path: Path) -> None:
    vocabulary = files.vocabulary("unigram")
    made = tokenizer_files(vocabulary, "none", 10**6)
    spec = json.loads(made.files["tokenizer.json"])
    tokenizer = auto_tokenizer(tmp_path, spec)
    texts = [*records(), *AWKWARD]
    others = differing(tokenizer, vocabulary, texts)
    assert len(others) < 0.03 * len(texts)
    assert made.notes == () or "where two ways score alike" in made.notes[0]
    scores = np.array([score for _, score in spec["model"]["vocab"]])
    for text in others:
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert tokenizer.decode(ids) == text
        mine, its = scores[vocabulary.encode(text)].sum(), scores[ids].sum()
        assert abs(mine - its) <= 1e-6 * abs(mine)
    controls = list(vocabulary.control_ids.values())
    for text in ("<|eot_id|>", "<0x41>", "a<s>b</s>", "<unk>", "<tool_call> <0x0A>"):
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert tokenizer.decode(ids) == text and not set(ids) & set(controls)


# ---- other people's models


def foreign(folder: Path, **options: Any) -> SentencePieceVocabulary:
    """A small model, trained by SentencePiece itself."""
    lines = [line for text in files.sources(15) for line in text.splitlines() if line.strip()]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines[:6_000]), model_prefix=str(folder / "tokenizer"), byte_fallback=True,
        **{"vocab_size": 1_200, "minloglevel": 2, **options},
    )  # fmt: skip
    vocabulary = load_vocabulary(folder / "tokenizer.model")
    assert isinstance(vocabulary, SentencePieceVocabulary)
    return vocabulary


LLAMA = {"model_type": "bpe", "normalization_rule_name": "identity", "remove_extra_whitespaces": False}
STYLES = {
    "llama": LLAMA,
    "nfkc": {"model_type": "bpe", "normalization_rule_name": "nmt_nfkc"},
    "without prefix": {"model_type": "bpe", "normalization_rule_name": "nmt_nfkc", "add_dummy_prefix": False},
    "gemma": {**LLAMA, "add_dummy_prefix": False, "user_defined_symbols": ["<tool_call>", "\n\n", "<table>", "▁▁"]},
}


@pytest.mark.parametrize("style", STYLES)
def test_other_styles(style: str, tmp_path: Path) -> None:
    vocabulary = foreign(tmp_path, **STYLES[style])
    tokenizer = auto_tokenizer(tmp_path, tokenizer_json(vocabulary, add_bos=False))
    texts = [*records(200), *AWKWARD, "ﬁ Å ｱ 　 ２ é e\u0301", " \n x \t y  \u2581 "]
    if style == "gemma":  # a mark that is user-defined, not control, is found in text, as by SentencePiece itself
        texts = [text.replace("<tool_call>", "") for text in texts]
    assert not differing(tokenizer, vocabulary, texts)
    for text in texts:
        decoded = tokenizer.decode(vocabulary.encode(text))
        assert decoded == vocabulary.decode(vocabulary.encode(text))
        assert "nfkc" in style or "without" in style or "\u2581" in text or decoded == text
    assert tokenizer("ab")["input_ids"] == vocabulary.encode("ab").tolist()  # no beginning, as was asked for


def test_mistral_file_in_a_folder_without_tokenizer_json(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(files.mistral_file("v1").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True, "add_eos_token": True}))
    vocabulary = load_vocabulary(tmp_path / "tokenizer.model")
    made = missing_tokenizer_json(tmp_path)
    assert made.notes == ("tokenizer.json was made from tokenizer.model",)
    tokenizer = auto_tokenizer(tmp_path, json.loads(made.files["tokenizer.json"]))
    assert not differing(tokenizer, vocabulary, [*records(), *AWKWARD])  # runs of spaces of one score among them
    assert tokenizer("ab")["input_ids"] == [1, *vocabulary.encode("ab"), 2]
    assert missing_tokenizer_json(tmp_path).files == {}  # now it is there


def test_nothing_is_made_of_other_files(tmp_path: Path) -> None:
    assert missing_tokenizer_json(tmp_path).notes == ()
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    assert "no tokenizer.json was made: " in missing_tokenizer_json(tmp_path).notes[0]
    (tmp_path / "tokenizer.model").write_text(json.dumps(files.metaspace_spec()))  # of another kind
    assert "is no SentencePiece model" in missing_tokenizer_json(tmp_path).notes[0]


# ---- models made by hand


LETTERS = [(char, -9.0 - number, NORMAL) for number, char in enumerate("abc\u2581")]


def by_hand(folder: Path, pieces: list[tuple[str, float, int]], kind: int = BPE, **rules: Any) -> Vocabulary:
    """A model of those pieces behind the unknown, beginning, end and byte pieces."""
    proto = model_pb2.ModelProto()
    proto.trainer_spec.model_type, proto.trainer_spec.byte_fallback = kind, True
    rules = {"add_dummy_prefix": False, "remove_extra_whitespaces": False, "escape_whitespaces": True, **rules}
    for name, value in rules.items():
        setattr(proto.trainer_spec if name.startswith("treat") else proto.normalizer_spec, name, value)
    fixed = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    fixed += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    for piece, score, type_ in [*fixed, *pieces]:
        proto.pieces.add(piece=piece, score=score, type=type_)
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.model").write_bytes(proto.SerializeToString())
    return load_vocabulary(folder / "tokenizer.model")


def test_merges_of_any_model(tmp_path: Path) -> None:
    """Pieces in any order, with unions that several pairs make up: `aa|a`, `a|aa`."""

    @settings(max_examples=150, deadline=None)
    @given(
        st.lists(st.text("ab ", min_size=2, max_size=7), min_size=1, max_size=12),
        st.randoms(use_true_random=False),
        st.lists(st.text("ab c\n", max_size=60), min_size=1, max_size=8),
    )
    def check(strings: list[str], rng: random.Random, texts: list[str]) -> None:
        pieces = {"a", "b", " ", *(s[i:j] for s in strings for i in range(len(s)) for j in (i + 1, len(s)))}
        order = sorted(pieces)
        rng.shuffle(order)
        scored = [(s.replace(" ", "\u2581"), -float(number), NORMAL) for number, s in enumerate(order)]
        vocabulary = by_hand(tmp_path, scored)
        spec = tokenizer_json(vocabulary)
        runs = [char * length for char in "ab " for length in range(1, 30)]
        assert first_difference(vocabulary, spec, [*texts, *runs]) == ""

    check()


def test_a_difference_is_found(tmp_path: Path) -> None:
    vocabulary = by_hand(tmp_path, [("ab", -1.0, NORMAL), ("bc", -2.0, NORMAL), *LETTERS])
    spec: Any = tokenizer_json(vocabulary)
    assert first_difference(vocabulary, spec, ["abc"]) == ""
    spec["model"]["merges"].reverse()
    assert first_difference(vocabulary, spec).startswith(r"'bc abcbc\nbcbcbcb' has the ids [260, 264, 259, 263,")


REFUSED: dict[str, tuple[list[tuple[str, float, int]], int, dict[str, Any], str]] = {
    "one score": ([*LETTERS, ("ab", -1.0, NORMAL), ("bc", -1.0, NORMAL)], BPE, {}, "'(ab|bc)' have one score"),
    "one character": ([*LETTERS, ("X", 0.0, CONTROL)], BPE, {}, "control token 'X' is a single character"),
    "no character": ([*LETTERS, ("ax", -1.0, NORMAL)], BPE, {}, "a character of piece 'ax' is no piece itself"),
    "words": (LETTERS, WORD, {}, "a model of words"),
    "unused": ([*LETTERS, ("ab", -1.0, UNUSED)], BPE, {}, "out of use"),
    "suffix": (LETTERS, BPE, {"treat_whitespace_as_suffix": True}, "spaces behind words"),
    "unescaped": (LETTERS, BPE, {"escape_whitespaces": False}, "or unescaped"),
    "defined": ([*LETTERS, ("ab", 0.0, DEFINED)], BPE, {"add_dummy_prefix": True}, "'ab' is user-defined plain text"),
    "no space": (LETTERS[:3], BPE, {}, "a space is no piece"),
    "signs": ([*LETTERS, (" ", -1.0, NORMAL)], BPE, {}, "differ only in the sign for a space"),
    "unigram": (LETTERS, UNIGRAM, {}, "not every character of '<unk>' is a piece"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_expressed_is_refused(case: str, tmp_path: Path) -> None:
    pieces, kind, rules, words = REFUSED[case]
    vocabulary = by_hand(tmp_path, pieces, kind, **rules)
    with pytest.raises(UserError, match=rf"tokenizer.model has no tokenizer.json of the same ids: .*{words}"):
        tokenizer_json(vocabulary)


def test_only_of_sentencepiece_models(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no SentencePiece model"):
        tokenizer_json(files.write_spec(tmp_path, files.metaspace_spec()))


def test_tokenizers_reads_it_without_transformers(ours: tuple[Any, Vocabulary, Path]) -> None:
    _, vocabulary, folder = ours
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode("x  y").ids == [vocabulary.bos_id, *vocabulary.encode("x  y")]
