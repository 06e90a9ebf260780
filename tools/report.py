"""Reports on runs and compares them: held-out loss per slice, rankings, curves, throughput, configuration.

    python -m tools.report RUN                                    one run
    python -m tools.report CONTROL AGENT                          two runs, differences against the first
    python -m tools.report BASE CONTROL AGENT --baseline CONTROL  differences against CONTROL
    ... --corpus DIR                                              with what the corpus is made of
    ... --out report.html                                         also as one self-contained page

RUN is a run directory, or the folder of any model that `python -m tools.evaluate` was run on. Intervals need an
evaluation.json of both runs on the same inputs; what is missing is said, and the rest is reported.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hephaestus_jax.errors import UserError
from hephaestus_jax.reports.run_report import make_report, terminal
from hephaestus_jax.reports.run_report_html import html_page
from tools._command import run


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directory, or folder of an evaluated model")
    parser.add_argument("--baseline", metavar="RUN", help="what gains and costs are measured against (default: first)")
    parser.add_argument(
        "--reference", metavar="RUN", action="append", default=[], help="one of them that the others began with"
    )
    parser.add_argument("--corpus", metavar="DIR", help="the corpus that the runs learned from")
    parser.add_argument("--evaluations", metavar="DIR", help="folder that `tools.evaluate --out` wrote, if it was used")
    parser.add_argument("--title", default="", help="heading of the report")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the page here, such as report.html")
    return parser.parse_args()


def main() -> None:
    """Prints the report, and writes the page if asked to."""
    args = _arguments()
    report = make_report(args.runs, args.baseline, args.corpus, args.title, args.evaluations, args.reference)
    print(terminal(report), end="")
    if args.out:
        try:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text("".join(html_page(report)), encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {args.out}: {error.strerror}; give --out another file") from error
        print(f"\nwrote {args.out} ({args.out.stat().st_size / 1e3:,.0f} kB)")


if __name__ == "__main__":
    run(main)
