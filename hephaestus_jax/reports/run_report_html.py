"""A report as one HTML page that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from collections.abc import Iterator

from hephaestus_jax.reports import run_report_background as background
from hephaestus_jax.reports import run_report_results as results
from hephaestus_jax.reports.page import STYLE, section, text
from hephaestus_jax.reports.run_report import Report

SECTIONS = (
    ("verdict", "Verdict", results.verdict),
    ("losses", "Held-out loss", results.losses),
    ("curves", "Curves", results.curves),
    ("ranking", "Ranking of calls", results.ranking),
    ("samples", "Generated samples", results.samples),
    ("limits", "Limits", background.limits),
    ("corpus", "Corpus", background.corpus),
    ("mixture", "Mixture", background.mixture),
    ("throughput", "Throughput", background.throughput),
    ("configuration", "Configuration", background.configuration),
    ("provenance", "Provenance", background.provenance),
)


def html_page(report: Report) -> Iterator[str]:
    """The page as pieces of text to be written one after the other."""
    title = text(report.title)
    yield "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
    yield "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
    yield f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n"
    named = ", ".join(run.name for run in report.runs)
    yield f"<div class='about'>Runs: {text(named)}. Gains and costs are against {text(report.baseline)}.</div>\n"
    yield "<nav>" + "".join(f"<a href='#{anchor}'>{heading}</a>" for anchor, heading, _ in SECTIONS) + "</nav>\n"
    for anchor, heading, content in SECTIONS:
        yield section(anchor, heading, content(report))
    yield "</body>\n</html>\n"
