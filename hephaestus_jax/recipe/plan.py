"""The steps of a recipe: which commands, in which order, and about how long each takes.

What they leave in the work folder:

    corpus, vocabulary     from the installed packages
    rows_STAGE             packed rows of each mixture, named after the first stage that trains on it
    STAGE                  a run
    STAGE_hf               its weights as a Hugging Face model: what further stages start from, and what is handed back
                           of every other stage but the baseline
    report.html            what came out
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from hephaestus_jax.gin_files import find_gin_file
from hephaestus_jax.recipe.accounts import Step
from hephaestus_jax.recipe.config import Recipe, Stage

BASE_RUN, CONTINUAL_RUN = "gin/runs/pretrain.gin", "gin/runs/continual_pretrain.gin"


def plan(recipe: Recipe) -> tuple[Step, ...]:
    """All steps, in order."""
    chain = recipe.chain
    started_from = {stage.starts_from for stage in chain}
    steps = [_corpus(recipe), _vocabulary(recipe), *(_rows(recipe, mixture) for mixture in recipe.mixtures)]
    for stage in chain:
        steps.append(_run(recipe, stage))
        if stage.name in started_from:
            steps.append(_export(recipe, stage))
    steps.append(_evaluation(recipe))
    for stage in chain:
        if stage.name not in started_from | {recipe.baseline}:
            steps += [_export(recipe, stage), _check(recipe, stage)]
    return (*steps, _report(recipe))


def _corpus(recipe: Recipe) -> Step:
    out = _work(recipe) / "corpus"
    settings = [f"--gin.{setting}" for setting in recipe.corpus_settings]
    return Step(
        name="corpus",
        title="corpus",
        arguments=("-m", "tools.build_corpus", "--config", recipe.corpus_config, "--out", str(out), *settings),
        outputs=(out / "manifest.json",),
        files=_with_includes(recipe.corpus_config),
        seconds=90,
    )


def _vocabulary(recipe: Recipe) -> Step:
    work = _work(recipe)
    size, out = str(recipe.vocabulary_size), work / "vocabulary"
    module = ("-m", "tools.train_vocabulary")
    return Step(
        name="vocabulary",
        title="vocabulary",
        arguments=(*module, "--corpus", str(work / "corpus"), "--size", size, "--chat", recipe.chat, "--out", str(out)),
        outputs=(out / "vocabulary.json",),
        needs=("corpus",),
        seconds=10,
    )


def _rows(recipe: Recipe, mixture: str) -> Step:
    work, name = _work(recipe), recipe.mixtures[mixture]
    module = ("-m", "tools.build_cache")
    sizes = ("--seq_length", str(recipe.sequence_length), "--seed", str(recipe.seed))
    inputs = ("--corpus", str(work / "corpus"), "--vocabulary", str(work / "vocabulary"), "--chat", recipe.chat)
    return Step(
        name=name,
        title=f"rows of {mixture}",
        arguments=(*module, "--mixture", mixture, *sizes, *inputs, "--out", str(work / name)),
        outputs=(work / name / "mixture.json",),
        needs=("vocabulary",),
        seconds=20,
    )


def _run(recipe: Recipe, stage: Stage) -> Step:
    work = _work(recipe)
    out = work / stage.name
    if stage.starts_from:
        begin = _gin_file(CONTINUAL_RUN) + _gin(INIT_FROM=work / f"{stage.starts_from}_hf")
        files = _with_includes(CONTINUAL_RUN)
    else:
        begin = _gin_file(BASE_RUN) + _gin_file(recipe.model_config)
        begin += ("--gin.ModelConfig.vocab_size=" + str(recipe.vocabulary_size),)
        files = _with_includes(BASE_RUN) + _with_includes(recipe.model_config)
    rows = recipe.mixtures[stage.mixture]
    sizes = _gin(
        RUN_DIR=out,
        MIXTURE=work / rows,
        TRAIN_STEPS=stage.train_steps,
        BATCH_SIZE=recipe.batch_size,
        LEARNING_RATE=stage.learning_rate,
        WARMUP_STEPS=stage.warmup_steps,
        SEED=recipe.seed,
    )
    further = tuple(f"--gin.{setting}" for setting in recipe.train_settings)
    judged = recipe.mixtures[recipe.evaluation_mixture]
    return Step(
        name=stage.name,
        title=f"{stage.name} run",
        arguments=("-m", "train", *begin, *sizes, *further),
        late_arguments=_held_out(work / rows, work / judged),
        outputs=(out / "checkpoints" / str(stage.train_steps),),
        needs=tuple(dict.fromkeys([rows, judged, *([f"{stage.starts_from}_hf"] if stage.starts_from else [])])),
        files=files,
        seconds=15 + stage.train_steps * recipe.batch_size * recipe.sequence_length / recipe.tokens_per_second,
    )


def _held_out(rows: Path, judged: Path) -> Callable[[], tuple[str, ...]]:
    """The arguments that let a run on `rows` follow the held-out slices which only `judged` has; known when both are
    built."""

    def arguments() -> tuple[str, ...]:
        from hephaestus_jax.data.mixture_spec import load_mixture_spec

        own, wanted = (load_mixture_spec(str(folder)).validation for folder in (rows, judged))
        files = tuple(f"{name}={judged / part.cache}" for name, part in wanted.items() if name not in own and part.rows)
        return (f"--gin.EvaluationConfig.files={files!r}",) if files else ()

    return arguments


def _export(recipe: Recipe, stage: Stage) -> Step:
    work = _work(recipe)
    out = work / f"{stage.name}_hf"
    # a line that began with a Hugging Face model carries that model's own tokenizer and template
    fresh = () if stage.starts_from else ("--vocabulary", str(work / "vocabulary"), "--chat", recipe.chat)
    return Step(
        name=out.name,
        title=f"{stage.name} as a Hugging Face model",
        arguments=("-m", "tools.convert_checkpoint", "export", str(work / stage.name), str(out), *fresh),
        outputs=(out / "config.json",),
        needs=(stage.name,),
        seconds=5,
        atomic=True,
    )


def _check(recipe: Recipe, stage: Stage) -> Step:
    run, exported = _work(recipe) / stage.name, _work(recipe) / f"{stage.name}_hf"
    return Step(
        name=f"check_{stage.name}",
        title=f"is {exported.name} what {run.name} is",
        arguments=("-m", "tools.convert_checkpoint", "verify", str(run), str(exported)),
        needs=(exported.name,),
        seconds=5,
    )


def _evaluation(recipe: Recipe) -> Step:
    work = _work(recipe)
    runs = [work / stage.name for stage in recipe.chain]
    mixture = recipe.mixtures[recipe.evaluation_mixture]
    inputs = ("--mixture", str(work / mixture), "--corpus", str(work / "corpus"))
    tokens = ("--vocabulary", str(work / "vocabulary"), "--chat", recipe.chat)
    limits = {"--max_rows": recipe.evaluation_rows, "--max_calls": recipe.evaluation_calls}
    given = [text for name, limit in limits.items() if limit for text in (name, str(limit))]
    return Step(
        name="evaluate",
        title="evaluation",
        arguments=("-m", "tools.evaluate", *map(str, runs), *inputs, *tokens, *given),
        outputs=tuple(run / "evaluation.json" for run in runs),
        needs=(*(run.name for run in runs), mixture),
        seconds=75,
    )


def _report(recipe: Recipe) -> Step:
    work = _work(recipe)
    runs = [str(work / stage.name) for stage in recipe.chain]
    title = ("--title", recipe.title) if recipe.title else ()
    baseline = ("--baseline", str(work / recipe.baseline), "--corpus", str(work / "corpus"))
    began = sorted({stage.starts_from for stage in recipe.chain} - {"", recipe.baseline})
    references = [text for name in began for text in ("--reference", str(work / name))]
    return Step(
        name="report",
        title="report",
        arguments=("-m", "tools.report", *runs, *baseline, *references, *title, "--out", str(work / "report.html")),
        outputs=(work / "report.html",),
        needs=("evaluate",),
        seconds=3,
        repeated=True,  # quick, and what one wants to see again
    )


def _work(recipe: Recipe) -> Path:
    return Path(recipe.work_dir).expanduser()


def _gin_file(name: str) -> tuple[str]:
    return (f"--gin_file={name}",)


def _gin(**values: object) -> tuple[str, ...]:
    return tuple(f"--gin.{name}={value}" for name, value in values.items())


def _with_includes(name: str) -> tuple[Path, ...]:
    """A gin file and all that it includes."""

    def read(name: str) -> Iterator[Path]:
        file = find_gin_file(name)
        yield file
        for included in re.findall(r"(?m)^include\s+['\"](.+?)['\"]", file.read_text("utf-8")):
            yield from read(included)

    return tuple(dict.fromkeys(read(name)))
