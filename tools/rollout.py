"""Plays episodes in environments, writes them as a corpus, and prints what was played.

    python -m tools.rollout --config gin/corpora/environments.gin --out DIR [--env sqlite,textworld_express=4]
        [--episodes N] [--policy oracle=1,mistakes=2] [--workers N] [--seed N] [--import MODULE]
    python -m tools.rollout --verify DIR [--import MODULE]

A roll-out that was interrupted goes on where it was when the same command is given again. `--verify` plays every
episode of a corpus that claims success once more, and exits with status 1 if one answers otherwise. The records go to
the slice `agent_environments`; `DIR/episodes.html` shows some of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time
from pathlib import Path

from hephaestus_jax.forge.environments.accounts import table
from hephaestus_jax.forge.environments.assignments import RolloutConfig
from hephaestus_jax.forge.environments.rollout import import_modules, roll_out, verify
from hephaestus_jax.formats.store import Corpus
from hephaestus_jax.gin_files import load_gin, split_overrides
from hephaestus_jax.progress import duration
from hephaestus_jax.reports.episodes_page import write_episodes_page
from tools._command import run


def main() -> None:
    overrides, arguments = split_overrides(sys.argv[1:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Settings: --gin.RolloutConfig.NAME=value or the names at the head of the gin file.",
    )  # fmt: skip
    parser.add_argument("--config", default="gin/corpora/environments.gin", help="a gin file")
    parser.add_argument("--out", type=Path, help="folder of the corpus of episodes")
    parser.add_argument("--verify", type=Path, metavar="DIR", help="play the episodes of DIR again, and nothing else")
    parser.add_argument("--env", help="comma-separated names, each with =SHARE if it likes, in place of the file's")
    parser.add_argument("--policy", help="comma-separated policies, written alike")
    parser.add_argument("--episodes", type=int, help="of all environments together")
    parser.add_argument("--workers", type=int, help="processes; they change no byte")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--import", dest="modules", action="append", help="a module with further environments")
    options = parser.parse_args(arguments)
    if (options.out is None) == (options.verify is None):
        parser.error("give either --out DIR or --verify DIR")
    sys.path.insert(0, os.getcwd())  # where a module of the user's is looked for; workers take it over
    config = load_gin(RolloutConfig, options.config, overrides)
    given = {
        "environments": tuple(options.env.split(",")) if options.env else None,
        "policies": tuple(options.policy.split(",")) if options.policy else None,
        "modules": (*config.modules, *options.modules) if options.modules else None,
        **{name: getattr(options, name) for name in ("episodes", "workers", "seed")},
    }
    config = dataclasses.replace(config, **{name: value for name, value in given.items() if value is not None})
    if options.verify:
        import_modules(config.modules)
        _verify(Corpus(options.verify))
    else:
        _roll_out(config, options.out)


def _roll_out(config: RolloutConfig, out: Path) -> None:
    start = time.monotonic()
    corpus = roll_out(config, out)
    manifest = corpus.manifest
    print(table(manifest["episodes"]))
    for name, reason in manifest["unavailable_environments"].items():
        print(f"not available: {name}: {reason}")
    for reason, count in manifest["left_out"].items():
        print(f"left out: {count:,} times: {reason}")
    write_episodes_page(corpus, out / "episodes.html")
    print(f"episodes at {out}, some of them in {out / 'episodes.html'}, time {duration(time.monotonic() - start)}")


def _verify(corpus: Corpus) -> None:
    checked, problems = verify(corpus)
    for place, problem in problems:
        print(f"{place}: {problem}")
    print(f"{checked:,} episodes that claim success were played again, {len(problems):,} answered otherwise")
    if problems:
        sys.exit(1)


if __name__ == "__main__":
    run(main)
