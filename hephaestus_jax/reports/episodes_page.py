"""The page of a roll-out: what was played, and episodes as a person reads them, wrong steps and their mending marked.

The table comes from the manifest, the episodes from the shards. The same corpus gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hephaestus_jax.formats.records import (
    PLAYED,
    SPLITS,
    ApiAction,
    Json,
    MessageAction,
    Step,
    TextObservation,
    Trajectory,
    episode_of,
)
from hephaestus_jax.formats.store import BYTES_PER_TOKEN, Corpus
from hephaestus_jax.reports.page import STYLE, paragraph, section, table, text

TITLE = "Episodes in environments"
SHOWN = 2  # episodes of an environment and policy
LONGEST = 1_500  # characters of one observation
_STYLE = (
    STYLE
    + """
.step { margin: .35rem 0; padding: .35rem .7rem; border-left: .25rem solid var(--line); white-space: pre-wrap; }
.step.agent { border-color: var(--s1); } .step.error { border-color: var(--worse); }
.step.corrected { border-color: var(--better); } .step.user { border-color: var(--s4); }
#heldout td:nth-child(-n+3) { white-space: nowrap; }
.step em { color: var(--faint); } .step b { font-weight: 600; }
"""
)


def write_episodes_page(corpus: Corpus, path: Path | str) -> None:
    """Writes the page of a corpus of episodes.

    Raises:
        UserError: there is no corpus, or a shard is missing or damaged.
    """
    Path(path).write_text("".join(_page(corpus)), "utf-8", newline="\n")


def _page(corpus: Corpus) -> Iterator[str]:
    manifest = corpus.manifest
    yield "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
    yield "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
    yield f"<title>{TITLE}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{TITLE}</h1>\n"
    episodes = sum(row["episodes"] for row in manifest["episodes"])
    wrong = sum(row["wrong_steps"] for row in manifest["episodes"])
    told = f"{episodes:,} episodes in {len(manifest['environments'])} environments, with {wrong:,} wrong steps that are"
    yield paragraph(f"{told} shown but not learned. Every episode that claims success was played again.", "about")
    yield section("played", "What was played", _played(manifest))
    yield section("heldout", "What training does not see", _held_out(manifest))
    chosen = _chosen(corpus)
    for name in sorted(manifest["environments"]):
        shown = "".join(map(_episode, chosen.get(name, ())))
        yield section(name, name, shown or paragraph("No episode."))
    yield "</body>\n</html>\n"


def _played(manifest: dict[str, Json]) -> str:
    head = ("environment", "split", "policy", "episodes", "success", "steps", "wrong steps", "tokens")
    rows = [
        (
            row["environment"], row["split"], row["policy"], f"{row['episodes']:,}",
            f"{100 * row['successes'] / row['episodes']:.1f} %", f"{row['steps']:,}", f"{row['wrong_steps']:,}",
            f"{row['bytes'] // BYTES_PER_TOKEN:,}",
        )
        for row in manifest["episodes"]
    ]  # fmt: skip
    notes = [f"Not available: {name}: {reason}" for name, reason in manifest["unavailable_environments"].items()]
    notes += [f"Left out {count:,} times: {reason}" for reason, count in manifest["left_out"].items()]
    return table(head, [("", rows)], {0, 1, 2}) + "".join(paragraph(note, "note") for note in notes)


def _held_out(manifest: dict[str, Json]) -> str:
    head = ("environment", "from", "licence", "games of training", "games never trained on")
    rows = [
        (
            name, f"{kind['package']} {kind['version']}", kind["licence"],
            "none: held out" if kind["held_out"] else ", ".join(kind["games"]),
            ", ".join([*kind["games"], *kind["unseen_games"]] if kind["held_out"] else kind["unseen_games"]) or "none",
        )
        for name, kind in sorted(manifest["environments"].items())
    ]  # fmt: skip
    return table(head, [("", rows)], {0, 1, 2, 3, 4})


def _chosen(corpus: Corpus) -> dict[str, list[Trajectory]]:
    """The first episodes of every environment and policy; ids are digests, so the first are as good as drawn."""
    found: dict[tuple[str, str], list[Trajectory]] = {}
    for split in SPLITS:
        for _, record in corpus.read(PLAYED, split):
            if isinstance(record, Trajectory):
                group = found.setdefault((episode_of(record)["environment"], episode_of(record)["policy"]), [])
                if len(group) < SHOWN:
                    group.append(record)
    chosen: dict[str, list[Trajectory]] = {}
    for (name, _), records in sorted(found.items()):
        chosen.setdefault(name, []).extend(records)
    return chosen


def _episode(record: Trajectory) -> str:
    episode = episode_of(record)
    facts = [episode["game"], episode["policy"], episode["split"].replace("_", " ")]
    facts += episode["wrong_steps"]
    if episode["changes"]:
        facts.append("changed: " + ", ".join(episode["changes"]))
    success = "success" if record.success else f"score {100 * (record.reward or 0):.0f} %"
    tools = ", ".join(f"{tool.name}({', '.join(tool.parameters['properties'])})" for tool in record.tools)
    told = "".join(_steps(record.steps))
    head = text(" · ".join([*facts, success]))
    about = paragraph(f"{record.system} Tools: {tools}", "label")
    return f"<details><summary>{head}</summary>\n{about}{told}</details>\n"


def _steps(steps: Sequence[Step]) -> Iterable[str]:
    for step in steps:
        if isinstance(step, TextObservation):
            kind = "user" if step.source == "user" else "environment"
            yield f"<div class='step {kind}'>{text(_cut(step.content))}</div>\n"
        elif isinstance(step, ApiAction | MessageAction):
            label = {"error": "<b>wrong, not learned:</b> ", "corrected": "<b>mended:</b> "}.get(step.outcome, "")
            thought = f"<em>{text(step.reasoning_content)}</em>\n" if step.reasoning_content else ""
            words = _called(step) if isinstance(step, ApiAction) else text(step.content)
            yield f"<div class='step agent {step.outcome}'>{label}{thought}{words}</div>\n"


def _called(step: ApiAction) -> str:
    arguments = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in step.kwargs.items())
    return f"<code>{text(f'{step.function}({arguments})')}</code>"


def _cut(words: str) -> str:
    return words if len(words) <= LONGEST else f"{words[:LONGEST]} … ({len(words) - LONGEST:,} characters more)"
