"""What is scored is the call alone, given all of its context; who knows wins, who guesses gets a half."""

import dataclasses
import io
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("sentencepiece")
pytest.importorskip("pyarrow")
sys.path.append(str(Path(__file__).parent))
import unseen_apis as world

from hephaestus_jax.config import ComputeConfig, MeshConfig
from hephaestus_jax.data.vocabularies import load_vocabulary
from hephaestus_jax.evals.call_forms import text_of
from hephaestus_jax.evals.conversations import PackedConversations, Scored, prompt_of, scored_conversations, until
from hephaestus_jax.evals.corruption import KINDS, Corruptor
from hephaestus_jax.evals.gold_calls import gold_calls, knowledge_of
from hephaestus_jax.evals.ranking import WAYS, build_ranking, correct, margins, ranking_json, score_ranking
from hephaestus_jax.evals.record_losses import Groups
from hephaestus_jax.evals.scoring import TokenScorer
from hephaestus_jax.formats.rendering import RecordRenderer
from hephaestus_jax.model.decoder import decode, output_kernel
from hephaestus_jax.progress import Progress
from hephaestus_jax.sharding import Partitioning, make_mesh

RENDERER = RecordRenderer(chat=world.CHAT)
COMPUTE = ComputeConfig(dtype="float32")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return world.corpus(tmp_path_factory.mktemp("world") / "corpus")


@pytest.fixture(scope="module")
def vocabulary(corpus):
    return load_vocabulary(world.vocabulary(Path(corpus.directory).parent / "vocabulary", corpus))


@pytest.fixture(scope="module")
def golds(corpus):
    return gold_calls(corpus, Groups(corpus).of_record)


def build(golds, corpus, vocabulary, length=world.LENGTH, renderer=RENDERER):
    corruptor = Corruptor(knowledge_of(corpus, Groups(corpus).family, golds), [gold.call for gold in golds])
    return build_ranking(golds, corruptor, renderer, vocabulary, length)


@pytest.fixture(scope="module")
def ranking(golds, corpus, vocabulary):
    return build(golds, corpus, vocabulary)


def test_calls_are_those_of_unseen_apis(golds):
    found = {(gold.api, gold.source, text_of(gold.call.step)) for gold in golds}
    assert found == {
        ("pkg.twirl", "trajectory", 'pkg.twirl {"x": 2.5, "mode": "fast"}'),
        ("pkg.twirl", "trajectory", 'pkg.twirl {"x": 3.5, "axis": 1}'),
        ("pkg.squash", "trajectory", "print(pkg.squash(rows, axis=5))"),  # the one that went wrong is left out
        ("pkg.Blender", "documentation", "import pkg\npkg.Blender(rows, mode='soft', axis=2)"),
    }
    groups = {gold.api: gold.group for gold in golds}
    assert groups["pkg.twirl"] == groups["pkg.squash"] == "api:pkg.squash" and len(set(groups.values())) == 2
    assert len({gold.key for gold in golds}) == 4


def test_few_calls_are_of_as_many_apis_as_possible(corpus, golds):
    for seed in range(5):
        few = gold_calls(corpus, Groups(corpus).of_record, 3, seed)
        assert {gold.api for gold in few} == {"pkg.twirl", "pkg.squash", "pkg.Blender"}
    assert gold_calls(corpus, Groups(corpus).of_record, 4) == golds


def test_only_the_call_is_scored(golds, vocabulary):
    for gold in golds:
        trajectory = until(gold.trajectory, gold.before, gold.call.step)
        (found,) = scored_conversations([trajectory], RENDERER, vocabulary)
        scored = vocabulary.decode(found.tokens_T[found.scored_T])
        assert scored.startswith('{"type": "function"') and scored.endswith("<|eot_id|>") and scored.count("|>") == 1
        assert found.scored_T[found.context :].all()
        context = vocabulary.decode(found.tokens_T[: found.context])
        assert context.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")
        # the same tokens as where training sees the trajectory
        whole = vocabulary.decode(found.tokens_T)
        rendered = RENDERER.render(dataclasses.replace(gold.trajectory, steps=trajectory.steps)).text
        assert whole == rendered and "".join(text.text for text in RENDERER.render(trajectory).spans) == rendered


def test_versions_of_a_call_share_their_context(ranking, vocabulary):
    for pair in ranking.pairs:
        right, wrong = ranking.conversations[pair.right], ranking.conversations[pair.wrong]
        assert (right.tokens_T[: right.context] == wrong.tokens_T[: wrong.context]).all()
        assert right.tokens_T.tolist() != wrong.tokens_T.tolist()
        for whole, alone in ((right, pair.right_alone), (wrong, pair.wrong_alone)):
            bare = ranking.conversations[alone]
            assert (bare.tokens_T[bare.scored_T] == whole.tokens_T[whole.scored_T]).all()
            assert bare.context < whole.context and "pkg" not in vocabulary.decode(bare.tokens_T[: bare.context])
    assert {pair.corruption.kind for pair in ranking.pairs} == set(KINDS) and ranking.num_calls == 4
    assert len({pair.id for pair in ranking.pairs}) == len(ranking.pairs) == 12 and ranking.too_long == 0
    for pair in ranking.pairs:
        call = vocabulary.decode(ranking.conversations[pair.wrong].tokens_T[ranking.conversations[pair.wrong].scored_T])
        assert ranking.bytes_S[pair.wrong] == len(call.removesuffix("<|eot_id|>").encode())


def test_long_contexts_lose_their_middle():
    tokens, scored = np.arange(100), np.arange(100) >= 90
    short = Scored(tokens, scored, carry=30).shortened(50, 80)
    assert (
        short.tokens_T.tolist() == [*range(20), *range(60, 100)]
        and short.scored_T.tolist() == [False] * 50 + [True] * 10
    )
    assert Scored(tokens, scored, carry=8).shortened(50, 80).tokens_T.tolist() == [*range(8), *range(48, 100)]
    same = Scored(tokens, scored, 30)
    assert same.shortened(90, 100) is same


def test_a_shorter_row_shortens_all_versions_alike(golds, corpus, vocabulary, ranking):
    length = max(len(conversation.tokens_T) for conversation in ranking.conversations) - 20
    short = build(golds, corpus, vocabulary, length)
    for pair in short.pairs:
        right, wrong = short.conversations[pair.right], short.conversations[pair.wrong]
        assert max(len(right.tokens_T), len(wrong.tokens_T)) <= length
        assert (right.tokens_T[: right.context] == wrong.tokens_T[: wrong.context]).all()
    assert build(golds, corpus, vocabulary, 60) is None  # no call is shorter than half of that


def test_packed_scores_are_those_of_each_conversation_alone(ranking):
    model = world.model()
    params = world.parameters(model)
    scorer = TokenScorer(model, COMPUTE, Partitioning(make_mesh(MeshConfig(), jax.devices()[:1]), model), 4)
    found = score_ranking(scorer, params, ranking, Progress("x", "rows", stream=io.StringIO()))
    assert ranking.packed.rows.tokens_NL.shape[0] < len(ranking.conversations)
    run = jax.jit(decode, static_argnums=(1, 2))
    wanted = []
    for conversation in ranking.conversations:
        tokens = np.zeros((1, world.LENGTH), np.int32)
        tokens[0, : len(conversation.tokens_T)] = conversation.tokens_T
        hidden = run(params, model, COMPUTE, tokens, np.ones_like(tokens), np.arange(world.LENGTH)[None])
        logits = np.asarray(hidden[0] @ output_kernel(params), np.float64)
        logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
        places = np.flatnonzero(conversation.scored_T)
        wanted.append(logits[places - 1, tokens[0, places]].sum())
    assert found == pytest.approx(np.array(wanted), rel=1e-5) and np.ptp(wanted) > 10


def test_margins_by_hand(ranking):
    pair = dataclasses.replace(ranking.pairs[0], right=0, wrong=1, right_alone=2, wrong_alone=3)
    small = dataclasses.replace(ranking, pairs=(pair,), bytes_S=np.array([10, 5, 10, 5]))
    found = margins(small, np.array([-20.0, -12.0, -30.0, -15.0]))
    assert {way: values.tolist() for way, values in found.items()} == {
        "in_context": [7.0], "total": [-8.0], "per_byte": [pytest.approx(0.4)],
    }  # fmt: skip
    found = margins(small, np.array([-20.0, -20.0 + 1e-9, -30.0, -30.0]))
    assert found["in_context"].tolist() == found["total"].tolist() == [0.0]
    assert correct(np.array([2.0, -1.0, 0.0])).tolist() == [1.0, 0.0, 0.5]


def frequencies(vocabulary) -> np.ndarray:
    return np.log(np.random.default_rng(0).dirichlet(np.ones(vocabulary.size)))


def test_who_knows_wins_and_who_is_wrong_loses(ranking, vocabulary):
    right = np.zeros(len(ranking.conversations))
    right[[pair.right for pair in ranking.pairs]] = 1.0
    for scores, accuracy in ((right, 1.0), (-right, 0.0)):
        value = ranking_json(ranking, scores, frequencies(vocabulary))
        assert value["accuracy"] == accuracy and value["per_pair"]["correct"] == [accuracy] * 12
        for found in value["corruptions"].values():
            assert found["accuracy"] == found["accuracy_in_context"] == found["accuracy_total"] == accuracy


def test_who_does_not_look_at_the_context_gets_a_half(ranking, vocabulary):
    scores = ranking.frequency_scores(frequencies(vocabulary))
    value = ranking_json(ranking, scores, frequencies(vocabulary))
    assert value["per_pair"]["correct"] == [0.5] * 12 and value["chance"] == 0.5
    for kind, found in value["corruptions"].items():
        assert found["accuracy"] == found["baselines"]["token_frequencies_in_context"] == 0.5
        assert found["accuracy_total"] == found["baselines"]["token_frequencies_total"]
        assert found["trivial"] == found["baselines"]["shorter_call"]
        if kind == "missing_argument":  # why the headline is not the log-likelihood itself
            assert found["trivial"] == found["baselines"]["token_frequencies_total"] == 0.0


def test_as_json(ranking, vocabulary):
    scores = np.random.default_rng(0).normal(-50, 9, len(ranking.conversations))
    value = ranking_json(ranking, scores, frequencies(vocabulary))
    columns = value["per_pair"]
    assert {len(column) for column in columns.values()} == {12} == {value["pairs"]}
    assert (value["calls"], value["apis"], len(set(columns["group"]))) == (4, 3, 2)
    for kind in KINDS:
        chosen = [n for n, other in enumerate(columns["corruption"]) if other == kind]
        assert value["corruptions"][kind]["pairs"] == len(chosen)
        for way in WAYS:
            right = [columns[f"margin_{way}"][n] > 0 for n in chosen]
            assert value["corruptions"][kind][f"accuracy_{way}"] == pytest.approx(np.mean(right))
    assert columns["margin"] == columns["margin_in_context"] and "byte" not in value["normalisation"]
    assert {example["corruption"] for example in value["examples"]} == set(KINDS)
    assert all(example["gold"] != example["corrupted"] for example in value["examples"])


def test_any_family_will_do(golds, corpus, vocabulary):
    for family in ("react", "code_action"):
        found = build(golds, corpus, vocabulary, 512, RecordRenderer(chat=family))
        assert len(found.pairs) == 12
        for pair in found.pairs:
            right, wrong = found.conversations[pair.right], found.conversations[pair.wrong]
            assert (right.tokens_T[: right.context] == wrong.tokens_T[: wrong.context]).all()
            assert "twirl" in vocabulary.decode(right.tokens_T) or pair.gold.api != "pkg.twirl"


def test_packing_keeps_conversations_apart():
    conversations = [Scored(np.arange(n) + 1, np.arange(n) > n // 2, 0) for n in (7, 3, 9, 2, 4)]
    packed = PackedConversations.of(conversations, 10)
    for conversation, row, segment in zip(conversations, packed.row_S, packed.segment_S, strict=True):
        here = packed.rows.segment_ids_NL[row] == segment
        assert packed.rows.tokens_NL[row][here].tolist() == conversation.tokens_T.tolist()
        assert (packed.rows.loss_weights_NL[row][here] > 0).tolist() == conversation.scored_T.tolist()
        assert packed.rows.positions_NL[row][here].tolist() == list(range(len(conversation.tokens_T)))
    assert packed.width == max((packed.rows.loss_weights_NL > 0).sum(1))


def test_prompts_end_where_the_assistant_begins(golds, vocabulary):
    prompt = vocabulary.decode(prompt_of(golds[0].trajectory, RENDERER, vocabulary))
    assert prompt.endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")
    assert golds[0].trajectory.steps[0].content in prompt and prompt.count("assistant") == 1
    assert jnp.asarray(prompt_of(golds[0].trajectory, RENDERER, vocabulary)).dtype == jnp.int32
