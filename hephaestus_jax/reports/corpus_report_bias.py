"""The sections that say what a corpus is made of: providers, interfaces, domains, languages, licences, freshness."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from hephaestus_jax.forge.hygiene.licences import POLICIES, Policy, allowed
from hephaestus_jax.reports.charts import Bar, Line, bar_chart, line_chart
from hephaestus_jax.reports.corpus_accounts import CorpusAccounts, Counts
from hephaestus_jax.reports.corpus_report_parts import count_table, largest, named, plural, share
from hephaestus_jax.reports.page import paragraph, table

BARS = 25  # of a chart
CURVE_POINTS = 200
LARGEST = (1, 5, 10, 50)
LANGUAGES, LICENCES, DEPRECATING = 20, 20, 20  # rows of the tables
OVER_CAP = "beyond the cap on its provider"  # the pipeline's reason


@dataclass(frozen=True)
class Concentration:
    """How unevenly counts are spread over names."""

    counts: tuple[int, ...]  # largest first, none of them 0

    @classmethod
    def of(cls, counts: Counts) -> Concentration:
        """Of counts by name."""
        return cls(tuple(sorted((count for count in counts.values() if count), reverse=True)))

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.counts)

    def largest(self, number: int) -> int:
        """What the largest so many hold together."""
        return sum(self.counts[:number])

    def effective(self) -> float:
        """exp of the entropy: of so many equally large ones the spread would be the same; 0 for none."""
        total = self.total
        shares = [count / total for count in self.counts]
        return math.exp(-sum(share * math.log(share) for share in shares)) if shares else 0.0

    def curve(self, most: int) -> Iterator[tuple[float, float]]:
        """(n, share of the n largest), at about `most` places, the early ones all; begins at (0, 0)."""
        step = max(1.0, len(self.counts) / most)
        reached, following, total = 0, 0.0, self.total
        yield 0.0, 0.0
        for number, count in enumerate(self.counts, 1):
            reached += count
            if number <= most // 2 or number >= following or number == len(self.counts):
                following = number + step
                yield float(number), reached / total


def providers(accounts: CorpusAccounts) -> str:
    """Who documents the APIs, and how much of the corpus is of few of them."""
    counts = accounts.distributions.providers
    spread = Concentration.of(counts)
    if not spread.total:
        return paragraph("The corpus holds no API documentation.") + _cap(accounts)
    told = f"{plural(spread.total, 'documentation record')} of {plural(len(spread.counts), 'provider')}. The spread is"
    told += f" that of {spread.effective():.1f} providers of equal size (exp of the entropy of their shares)."
    rows = [
        [f"the largest {number}" if number > 1 else "the largest", f"{spread.largest(number):,}",
         share(spread.largest(number) / spread.total)]
        for number in LARGEST
        if number == 1 or number <= len(spread.counts)
    ]  # fmt: skip
    curve = Line("", tuple((x, 100 * y) for x, y in spread.curve(CURVE_POINTS)), 0)
    charts = _bars("API documentation by provider", counts, "documentation records")
    charts += line_chart("Share of the largest providers together", [curve], "number of providers, largest first", "%")
    return (
        paragraph(told)
        + table(["providers", "documentation records", "share of all"], [("", rows)], left={0})
        + f"<div class='charts wide'>{charts}</div>\n"
        + _cap(accounts)
    )


def _cap(accounts: CorpusAccounts) -> str:
    cap = accounts.provider_cap
    if cap is None:
        return paragraph("No cap per provider was set (provider_cap).", "note")
    dropped = sum(part.dropped.get(OVER_CAP, 0) for part in accounts.slices)
    return paragraph(
        f"Each provider has at most {cap:,} APIs (provider_cap); {plural(dropped, 'record')} beyond that dropped."
    )


def _bars(title: str, counts: Counts, unit: str) -> str:
    """The largest as bars; the title tells of how many."""
    total = sum(counts.values())
    shown, more, _ = largest(counts, BARS)
    if more:
        title += f", the {BARS} largest of {len(shown) + more:,}"
    bars = [Bar(name or "(empty)", count, f"{count:,} ({share(count / total)})") for name, count in shown]
    return bar_chart(title, bars, unit)


def kinds(accounts: CorpusAccounts) -> str:
    """Interfaces of the APIs, methods of HTTP operations, and where records are from."""
    told = accounts.distributions
    interfaces = _bars("APIs by interface", told.interfaces, "documentation records")
    methods = _bars("HTTP operations by method", told.methods, "documentation records")
    domains = _bars("Records by domain", told.domains, "records")
    note = "Interfaces: python is a callable, rest an HTTP operation, rpc an operation of a service's SDK, cli a"
    note += " command, tool a function of a tool list, module a unit of automation. A domain is the host a record is"
    note += " from; what an SDK or a package describes stands under the host that serves the package."
    return f"<div class='charts wide'>{interfaces}{methods}{domains}</div>\n" + paragraph(note, "note")


def languages_and_licences(accounts: CorpusAccounts) -> str:
    """Languages and licences per slice; and what each licence policy would let in."""
    told = accounts.distributions
    parts = ["<h3>Languages</h3>\n"]
    if told.languages:
        parts.append(count_table("language", told.languages, "records", LANGUAGES))
        note = "ISO 639 codes of natural languages; of code the programming language. Unknown: too short to tell."
        parts.append(paragraph(note + " Counted before the cut for held-out APIs.", "note"))
    else:
        parts.append(paragraph("No language was counted."))
    parts.append("<h3>Licences</h3>\n")
    if not told.licences:
        return "".join([*parts, paragraph("The corpus holds no records.")])
    rows = [[name, *(_allowed(counts, name) for counts in told.licences.values())] for name in POLICIES]
    parts.append(table(["policy that lets it in", *(f"share of {n}" for n in told.licences)], [("", rows)], left={0}))
    parts.append(count_table("licence", told.licences, "records", LICENCES))
    return "".join(parts)


def _allowed(counts: Counts, policy: Policy) -> str:
    total = sum(counts.values())
    kept = sum(count for licence, count in counts.items() if allowed(licence, policy))
    return share(kept / total) if total else "–"


def freshness(accounts: CorpusAccounts) -> str:
    """How much of the documentation is of APIs that their providers call deprecated."""
    of_all, deprecated = accounts.distributions.providers, accounts.distributions.deprecated
    total, old = sum(of_all.values()), sum(deprecated.values())
    if not total:
        return paragraph("The corpus holds no API documentation.")
    told = f"{old:,} of {plural(total, 'documentation record')} ({share(old / total)}) describe an API that its source"
    parts = [paragraph(f"{told} calls deprecated.")]
    shown, more, rest = largest(deprecated, DEPRECATING)
    if shown:
        rows = [[named(name), f"{count:,}", *_of(count, of_all.get(name, 0))] for name, count in shown]
        if more:
            rows.append([f"{more:,} others", f"{rest:,}", "", ""])
        head = ["provider", "deprecated (records)", "documented (records)", "share deprecated"]
        parts.append(table(head, [("", rows)], left={0}))
    note = "Of the versions of one API the newest released one is kept. What a source does not mark counts as current;"
    note += " how old a documentation is beyond that, the manifest does not tell."
    parts.append(paragraph(note, "note"))
    return "".join(parts)


def _of(count: int, total: int) -> tuple[str, str]:
    return f"{total:,}", share(count / total) if total else "–"
