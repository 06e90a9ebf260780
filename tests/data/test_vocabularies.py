"""Vocabularies: nothing lost, nothing smuggled in, and the makers' own ids."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizer_files as files
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.data.vocabularies import is_marker, load_vocabulary
from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.spans import BOS, EOS

EXACT = ("trained", "unigram", "llama3", "tekken")  # decode(encode(s)) == s for every s
ALL = (*EXACT, "qwen_like", *files.SENTENCEPIECE_MISTRAL)
FRAGMENTS = (
    *("\u2581", "\u2581\u2581", "\u2585", "\u2047", " \u2047 ", "\x00", "\x01", "\x7f", "\x85", "\ufeff", "\ufffd"),
    *(" ", "  ", "\t", "\n", "\r\n", "\u2028", "\u00a0", "\u3000", "\u200d", "if x:\n\t  y = 1", "12345", "<0x41>"),
    *("<|eot_id|>", "<s>", "</s>", "<unk>", "[INST]", "[REF]", "<|bos|>", "<tool_call>", "<table>", "<|pad|>"),
    *("e\u0301", "\u00e9", "\u0301", "\U0001f642", "\U0001f468\u200d\U0001f469", "世界", "\u0958", "\u212b"),
    *("\U0010ffff", "\ufffe", "ab", "<SPECIAL_20>"),
)  # fmt: skip
TEXTS = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(st.characters(exclude_categories=["Cs"])))).map("".join)


@pytest.mark.parametrize("name", EXACT)
def test_every_text_survives(name: str) -> None:
    vocabulary = files.vocabulary(name)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(TEXTS, min_size=1, max_size=4))
    def check(texts: list[str]) -> None:
        for text, ids in zip(texts, vocabulary.encode_batch(texts), strict=True):
            assert vocabulary.decode(ids) == text
            assert ids.dtype == np.int32
            assert vocabulary.spells(text)
            assert vocabulary.token_bytes[ids].sum() == len(text.encode())
            assert not vocabulary.is_control[ids].any()

    check()


@pytest.mark.parametrize("name", EXACT)
def test_every_code_point_survives(name: str) -> None:
    vocabulary = files.vocabulary(name)
    points = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    chunks = ["".join(points[i : i + 997]) for i in range(0, len(points), 997)]
    for chunk, ids in zip(chunks, vocabulary.encode_batch(chunks), strict=True):
        assert vocabulary.decode(ids) == chunk
    low = points[:0x3000]  # each on its own, where no neighbour can help
    assert [vocabulary.decode(ids) for ids in vocabulary.encode_batch(low)] == low


@pytest.mark.parametrize("name", ALL)
def test_text_that_spells_a_control_token_stays_text(name: str) -> None:
    vocabulary = files.vocabulary(name)
    spellings = sorted(vocabulary.control_ids)
    assert spellings
    texts = [text for s in spellings for text in (s, f" {s} ", f"a{s}b", s + s, f"\n{s}\n", s[:-1] + "\u200b" + s[-1])]
    texts.append("".join(spellings))
    for text, ids in zip(texts, vocabulary.encode_batch(texts), strict=True):
        assert not np.isin(ids, list(vocabulary.control_ids.values())).any(), text
        assert vocabulary.decode(ids) == text


@pytest.mark.parametrize("name", ALL)
def test_control_ids_decode_to_their_spelling(name: str) -> None:
    vocabulary = files.vocabulary(name)
    for spelling, i in vocabulary.control_ids.items():
        assert 0 <= i < vocabulary.size
        assert vocabulary.token_bytes[i] == 0
        if spelling not in (BOS, EOS):
            assert vocabulary.decode([i]) == spelling
    text = "if x:\n\t  y = 1 # é🙂"
    mixed = [*vocabulary.encode(text), max(vocabulary.control_ids.values()), *vocabulary.encode(text)]
    assert vocabulary.decode(mixed).count(text) == 2


@pytest.mark.parametrize("name", EXACT)
def test_offsets_cover_the_text(name: str) -> None:
    vocabulary = files.vocabulary(name)
    text = "a 🙂\n\n  été <s> 1234"
    starts, ends = vocabulary.offsets(text)
    assert len(starts) == len(vocabulary.encode(text))
    covered = {i for start, end in zip(starts, ends, strict=True) for i in range(start, end)}
    assert covered == set(range(len(text)))


def test_llama3_ids_are_those_of_llama_models() -> None:
    pytest.importorskip("tiktoken")
    tokenizer = pytest.importorskip("llama_models.llama3.tokenizer").Tokenizer.get_instance()
    vocabulary = files.vocabulary("llama3")
    texts = files.sources(25) + _diverse_texts(6_000)
    for text, ids in zip(texts, vocabulary.encode_batch(texts), strict=True):
        assert ids.tolist() == tokenizer.encode(text, bos=False, eos=False)
    assert vocabulary.size == tokenizer.n_words
    assert vocabulary.control_ids.items() >= tokenizer.special_tokens.items()
    assert (vocabulary.bos_id, vocabulary.eos_id, vocabulary.pad_id) == (
        tokenizer.bos_id,
        tokenizer.eos_id,
        tokenizer.pad_id,
    )
    assert vocabulary.encode("!").tolist() == [0]  # id 0 is a token like any other
    assert vocabulary.decode([0, 0]) == "!!"


def test_llama3_as_tokenizer_json() -> None:
    vocabulary = files.vocabulary("llama3")
    converted, library = load_vocabulary(files.llama3_json()), files.library(files.llama3_json())
    assert converted.control_ids == vocabulary.control_ids
    assert (converted.size, converted.bos_id) == (vocabulary.size, vocabulary.bos_id)
    for text in _diverse_texts(300):
        if "<|" in text:  # the library takes what spells a control token for one
            continue
        assert converted.encode(text).tolist() == vocabulary.encode(text).tolist()
        assert library.encode(text, add_special_tokens=False).ids == vocabulary.encode(text).tolist()
    assert library.encode("a<|eot_id|>").ids == [128000, 64, 128009]  # BOS by the post-processor, control by spelling


@pytest.mark.parametrize("name", [*files.SENTENCEPIECE_MISTRAL, "tekken"])
def test_mistral_ids_are_those_of_mistral_common(name: str) -> None:
    if name == "tekken":
        module = pytest.importorskip("mistral_common.tokens.tokenizers.tekken")
        tokenizer = module.Tekkenizer.from_file(files.mistral_file(files.TEKKEN))
    else:
        module = pytest.importorskip("mistral_common.tokens.tokenizers.sentencepiece")
        tokenizer = module.SentencePieceTokenizer(files.mistral_file(name))
    vocabulary = files.vocabulary(name)
    # there `[REF]` and its like in a user's text become control tokens; here they do not
    texts = [text for text in files.sources(10) + _diverse_texts(2_000) if "[REF" not in text and "[/REF" not in text]
    for text, ids in zip(texts, vocabulary.encode_batch(texts), strict=True):
        assert ids.tolist() == tokenizer.encode(text, bos=False, eos=False)
    assert vocabulary.size == tokenizer.n_words
    assert (vocabulary.bos_id, vocabulary.eos_id) == (tokenizer.bos_id, tokenizer.eos_id)
    for control in ("<s>", "</s>", *(["[INST]", "[/INST]", "[TOOL_CALLS]"] if name != "v1" else [])):
        assert vocabulary.control_ids[control] == tokenizer.get_special_token(control)


def test_mistral_is_exact_but_for_the_sign_of_a_space() -> None:
    vocabulary = files.vocabulary("v3")
    for text in _diverse_texts(500):
        assert vocabulary.decode(vocabulary.encode(text)) == text.replace("\u2581", " ")
        assert vocabulary.spells(text) == ("\u2581" not in text)


def test_a_normalizer_is_owned_up_to() -> None:
    vocabulary = files.vocabulary("qwen_like")
    assert vocabulary.decode(vocabulary.encode("e\u0301 x")) == "\u00e9 x"
    assert not vocabulary.spells("e\u0301 x")
    assert vocabulary.spells("\u00e9 x")


def test_a_normalizer_that_changes_ascii_is_owned_up_to(tmp_path: Path) -> None:
    spec = json.loads(files.llama3_json().read_text())
    bytes_alone = {letter: i for i, letter in enumerate(sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))}
    spec |= {"normalizer": {"type": "Lowercase"}, "added_tokens": [], "post_processor": None}
    spec["model"] |= {"vocab": bytes_alone, "merges": []}
    vocabulary = files.write_spec(tmp_path, spec)
    assert vocabulary.decode(vocabulary.encode("Ab")) == "ab"
    assert vocabulary.spells("ab") and not vocabulary.spells("Ab")


def test_links_do_not_lead_away_from_neighbours(tmp_path: Path) -> None:
    files.write_spec(tmp_path / "blobs", files.metaspace_spec())
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "tokenizer.json").symlink_to(tmp_path / "blobs" / "tokenizer.json")
    (snapshot / "tokenizer_config.json").write_text('{"bos_token": null}')
    assert load_vocabulary(snapshot).bos_id is None
    assert load_vocabulary(snapshot / "tokenizer.json").bos_id is None


def test_names_of_beginning_end_and_padding(tmp_path: Path) -> None:
    qwen = files.vocabulary("qwen_like")
    assert qwen.bos_id is None and BOS not in qwen.control_ids  # says null, though well-known names exist
    assert qwen.decode([qwen.control_ids[EOS], qwen.pad_id or -1]) == "<|im_end|><|endoftext|>"
    assert "<tool_call>" in qwen.control_ids  # a marker, though not special
    assert "<table>" not in qwen.control_ids and "    ¶" not in qwen.control_ids  # text
    assert len(qwen.encode("<table>")) == 1 and len(qwen.encode("    ¶")) == 1
    plain = files.write_spec(tmp_path / "plain", files.metaspace_spec())
    assert (plain.bos_id, plain.eos_id, plain.pad_id) == (1, 2, None)
    assert plain.control_ids == {"<unk>": 0, "<s>": 1, "</s>": 2, "[INST]": 3, BOS: 1, EOS: 2}
    mapped = files.write_spec(
        tmp_path / "mapped",
        files.metaspace_spec(),
        special_tokens_map={"eos_token": "<s>", "bos_token": "</s>"},
        tokenizer_config={"bos_token": None},
    )
    assert (mapped.bos_id, mapped.eos_id) == (None, 1)
    with pytest.raises(UserError, match=r"eos_token <\|nope\|>"):
        files.write_spec(tmp_path / "bad", files.metaspace_spec(), tokenizer_config={"eos_token": "<|nope|>"})


def test_byte_fallback_bpe_with_a_dummy_prefix(tmp_path: Path) -> None:
    vocabulary = files.write_spec(tmp_path, files.metaspace_spec())
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    library.no_truncation()
    assert vocabulary.dummy_prefix
    for text in ("ab a  b\n c", "é🙂 a", " ab", "<s>", "[INST]ab", "\x00"):
        ids = vocabulary.encode(text)
        assert vocabulary.decode(ids) == text
        assert vocabulary.token_bytes[ids].sum() == len(text.encode()) + 1
        if "<" not in text and "[" not in text:
            assert ids.tolist() == library.encode(text).ids


def test_prefix_for_the_first_text_only(tmp_path: Path) -> None:
    vocabulary = files.write_spec(tmp_path, files.metaspace_spec("first"))
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    library.no_truncation()
    ids, counts = vocabulary.encode_flat(["ab", "ab", "a b"], [False, True, True])
    assert np.split(ids, np.cumsum(counts)[:-1])[0].tolist() == library.encode("ab").ids
    spelt = library.encode("[INST]ab[INST]a b").ids
    inst = vocabulary.control_ids["[INST]"]
    assert [inst, *ids[counts[0] : counts[0] + counts[1]], inst, *ids[counts[0] + counts[1] :]] == spelt
    # the first space of the whole is the prefix, one behind a control token is the text's own
    for text in ("ab[INST] a", "[INST] a b[INST]  "):
        assert vocabulary.decode(library.encode(text).ids) == text


@pytest.mark.parametrize("text", ["a\ud800b", "\udfff"])
@pytest.mark.parametrize("name", ["trained", "llama3", "v3"])
def test_lone_surrogates_are_an_error_with_the_place(name: str, text: str) -> None:
    with pytest.raises(UserError, match="lone surrogate near .*U\\+FFFD"):
        files.vocabulary(name).encode_batch(["fine", text])


@pytest.mark.parametrize("name", ["trained", "llama3"])
def test_ids_outside_the_vocabulary_are_an_error(name: str) -> None:
    vocabulary = files.vocabulary(name)
    assert vocabulary.decode([]) == ""
    for bad in (-1, vocabulary.size):
        with pytest.raises(UserError, match=f"token id {bad} is outside"):
            vocabulary.decode([1, bad])


@pytest.mark.parametrize(
    ("spelling", "expected"),
    [
        *((name, True) for name in ("<tool_call>", "</tool_call>", "<|im_end|>", "[REF]", "[/REF]", "<｜User｜>")),
        *((name, True) for name in ("|||X|||", "<fim_prefix>", "<unused7>", "[@BOS@]", "<start_of_turn>")),
        *((name, False) for name in ("<table>", "</h1>", "<br/>", "  ", "\n\n", "ö", "<", "<>", "[]", "[a", "->")),
        *((name, False) for name in ("< a >", "[", "||", "a<b>")),
    ],
)  # fmt: skip
def test_markers(spelling: str, expected: bool) -> None:
    assert is_marker(spelling) is expected


def test_vocabularies_pickle_as_their_path_and_are_loaded_once(tmp_path: Path) -> None:
    vocabulary = load_vocabulary(files.trained().path)
    assert pickle.loads(pickle.dumps(vocabulary)) is vocabulary
    assert len(pickle.dumps(vocabulary)) < 500
    first = files.write_spec(tmp_path, files.metaspace_spec())
    assert load_vocabulary(tmp_path / "tokenizer.json") is first
    spec = files.metaspace_spec()
    spec["model"]["merges"].pop()
    changed = files.write_spec(tmp_path, spec)
    assert changed is not first and changed.digest != first.digest


def test_digest_follows_content_not_place(tmp_path: Path) -> None:
    first = files.write_spec(tmp_path / "one", files.metaspace_spec())
    second = files.write_spec(tmp_path / "two", files.metaspace_spec())
    other_end = files.write_spec(tmp_path / "three", files.metaspace_spec(), tokenizer_config={"eos_token": "<s>"})
    assert first.digest == second.digest != other_end.digest


def _damaged(kind: str) -> bytes:
    model = Path(files.trained().path).read_bytes()
    spec = files.metaspace_spec()
    return {
        "truncated json": json.dumps(spec).encode()[:-100],
        "json without model": b'{"added_tokens": []}',
        "json without vocab": json.dumps({**spec, "model": {"type": "BPE", "byte_fallback": True}}).encode(),
        "json list": b"[1]",
        "unigram json": json.dumps({**spec, "model": {"type": "Unigram", "vocab": []}}).encode(),
        "no byte fallback": json.dumps({**spec, "decoder": None}).encode(),
        "truncated tekken": b'{"config": {}, "vocab": []}',
        "truncated model": model[: len(model) // 2],
        "empty": b"",
        "noise": random.Random(0).randbytes(5_000),
        "text": b"hello\n",
        "unknown tiktoken": b"IQ== 0\nIg== 1\n",
        "damaged tiktoken": b"IQ== 0\nI 1 2\n",
    }[kind]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated json", "is damaged"),
        ("json without model", "no model"),
        ("json without vocab", "no whole tokenizer.json"),
        ("json list", "neither a tokenizer.json nor a whole SentencePiece model"),
        ("unigram json", "only BPE is supported"),
        ("no byte fallback", "cannot spell every text"),
        ("truncated tekken", "no whole tekken file"),
        ("truncated model", "SentencePiece model"),
        ("empty", "SentencePiece model"),
        ("noise", "SentencePiece model"),
        ("text", "SentencePiece model"),
        ("unknown tiktoken", "only Llama 3's"),
        ("damaged tiktoken", "is damaged"),
    ],
)
def test_damaged_files_are_one_clear_line(tmp_path: Path, kind: str, message: str) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(_damaged(kind))
    with pytest.raises(UserError, match=message) as caught:
        load_vocabulary(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_truncated_llama3_file_is_refused(tmp_path: Path) -> None:
    lines = files.llama3_file().read_bytes().splitlines(keepends=True)
    (tmp_path / "tokenizer.model").write_bytes(b"".join(lines[:-5]))
    with pytest.raises(UserError, match="127995 ranks"):
        load_vocabulary(tmp_path)


def test_sentencepiece_without_byte_fallback_is_refused(tmp_path: Path) -> None:
    import sentencepiece

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(files.sources(3)[0].splitlines()),
        model_prefix=str(tmp_path / "m"),
        vocab_size=300,
        minloglevel=2,
    )
    with pytest.raises(UserError, match="no byte fallback"):
        load_vocabulary(tmp_path / "m.model")


def test_where_a_vocabulary_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no vocabulary at"):
        load_vocabulary(tmp_path / "absent")
    with pytest.raises(UserError, match=r"holds none of tokenizer.json"):
        load_vocabulary(tmp_path)
    model = Path(files.trained().path).read_bytes()
    (tmp_path / "a.model").write_bytes(model)
    assert load_vocabulary(tmp_path).path.endswith("a.model")
    (tmp_path / "b.model").write_bytes(model)
    with pytest.raises(UserError, match=r"holds 2 files \*.model: name the vocabulary file"):
        load_vocabulary(tmp_path)
    files.write_spec(tmp_path, files.metaspace_spec())
    assert load_vocabulary(tmp_path).path.endswith("tokenizer.json")


def test_tensorflow_is_never_imported() -> None:
    code = (
        "import sys\n"
        "for name in ('tensorflow', 'seqio', 'jax', 'torch', 'apache_beam'): sys.modules[name] = None\n"
        "from hephaestus_jax.data.vocabularies import load_vocabulary\n"
        "from hephaestus_jax.data import tokenization, sentencepiece_training, tokenizer_json\n"
        "v = load_vocabulary(sys.argv[1]); print(v.decode(v.encode('fine ▁')), end='')\n"
    )
    command = [sys.executable, "-c", code, files.trained().path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120)
    assert done.stdout == "fine ▁", done.stderr


def _diverse_texts(count: int) -> list[str]:
    """Strings from many alphabets, with repeats and white space, and windows into real sources."""
    rng = random.Random(0)
    alphabets = (
        "ab",
        "a",
        "aA ",
        "= -",
        "()[]{}<>",
        "\n\t ",
        "é\u0301áЖ中🙂",
        "0123456789",
        "_-=*/#",
        "'s't'RE'll ",
        "\r\n x",
    )
    whole = "".join(files.sources(12))
    texts = list(FRAGMENTS)
    while len(texts) < count:
        kind = rng.random()
        if kind < 0.4:
            texts.append("".join(rng.choices(rng.choice(alphabets), k=rng.randint(1, 120))))
        elif kind < 0.6:
            texts.append("".join(rng.choices(FRAGMENTS, k=rng.randint(1, 12))))
        elif kind < 0.7:
            texts.append(
                "".join(chr(rng.choice((rng.randint(32, 0x2FFF), rng.randint(0x4E00, 0x9FFF)))) for _ in range(40))
            )
        else:
            start = rng.randrange(len(whole))
            texts.append(whole[start : start + rng.randint(1, 300)])
    return texts
