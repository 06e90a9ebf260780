"""The page of a corpus: how many APIs, where every record went, what it is made of, and what was taken out.

Everything is told by `manifest.json` but the samples, which are read from the shards. The same corpus gives the same
bytes, wherever it lies and whenever the page is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from hephaestus_jax.formats.records import SPLITS
from hephaestus_jax.formats.store import BYTES_PER_TOKEN, Corpus
from hephaestus_jax.reports import corpus_report_bias as bias
from hephaestus_jax.reports import corpus_report_hygiene as hygiene
from hephaestus_jax.reports.charts import Bar, Reference, bar_chart
from hephaestus_jax.reports.corpus_accounts import (
    LOOSER,
    NEAR_DUPLICATE,
    ApiCount,
    CorpusAccounts,
    SourceAccount,
    read_accounts,
)
from hephaestus_jax.reports.corpus_report_parts import count_table, named, plural, share, summed
from hephaestus_jax.reports.corpus_samples import samples
from hephaestus_jax.reports.page import STYLE, paragraph, section, table, text

PAPER_APIS = 76_537  # of the corpus that was never published
SOURCES, MORE_SOURCES = 25, 200  # shown at once, and on demand; the others are summed up
REASONS, PAIRS = 60, 80
TITLE = "Corpus report"
_STYLE = STYLE + "td:not(.n) { min-width: 8rem; }\n"  # a long word stays whole on a narrow screen


def corpus_report(corpus: Corpus) -> str:
    """The page as HTML that needs nothing else: no script, no font, no network.

    Raises:
        UserError: there is no corpus; its manifest is damaged, or of an older version; a shard is missing or damaged.
    """
    return "".join(_page(read_accounts(corpus), corpus))


def write_corpus_report(corpus: Corpus, path: Path | str) -> None:
    """Writes the page of `corpus_report` to `path`."""
    Path(path).write_text(corpus_report(corpus), "utf-8", newline="\n")


Section = tuple[str, str, Callable[[CorpusAccounts], str]]


def _page(accounts: CorpusAccounts, corpus: Corpus) -> Iterator[str]:
    sections: tuple[Section, ...] = (
        ("apis", "Documented APIs", apis),
        ("tokens", "Size", size),
        ("accounts", "Where the records went", where_records_went),
        ("sources", "Sources", sources),
        ("providers", "Providers", bias.providers),
        ("kinds", "Interfaces, methods, domains", bias.kinds),
        ("languages", "Languages and licences", bias.languages_and_licences),
        ("freshness", "Freshness", bias.freshness),
        ("scrubbed", "Secrets and personal data", hygiene.scrubbed),
        ("benchmarks", "Benchmarks kept out", hygiene.benchmarks),
        ("quarantine", "Quarantine", hygiene.quarantine),
        ("heldout", "Held-out APIs", hygiene.held_out),
        ("calls", "Calls with results", hygiene.calls),
        ("samples", "Samples", lambda told: samples(told, corpus)),
        ("configuration", "Configuration and versions", configuration),
    )
    yield "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
    yield "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
    yield f"<title>{TITLE}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{TITLE}</h1>\n"
    yield f"<div class='about'>{text(_subject(accounts))}</div>\n"
    yield "<nav>" + "".join(f"<a href='#{anchor}'>{heading}</a>" for anchor, heading, _ in sections) + "</nav>\n"
    for anchor, heading, content in sections:
        yield section(anchor, heading, content(accounts))
    yield "</body>\n</html>\n"


def _subject(accounts: CorpusAccounts) -> str:
    records = sum(part.written for part in accounts.slices)
    told = f"{plural(records, 'record')} from {plural(len(accounts.sources), 'source')}, licence policy "
    told += f"“{named(accounts.policy)}”"
    if accounts.sample != 1.0:
        told += f"; a sample: {share(accounts.sample)} of the files of each source were used"
    return told + "."


# ---------------------------------------------------------------------------------------------------------------- APIs


def apis(accounts: CorpusAccounts) -> str:
    """Distinct documented APIs against the paper's number, per licence policy, with and without Python callables."""
    parts = [paragraph(line, "headline") for line in _headline(accounts)]
    rows, bars = [], []
    for item in accounts.apis:
        number = item.distinct[NEAR_DUPLICATE]
        python = "with" if item.with_python else "without"
        rows.append([
            named(item.policy), python, f"{item.described:,}", f"{item.identities:,}", f"{number:,}",
            f"{item.distinct[LOOSER]:,}", f"{number / PAPER_APIS:.2f}",
        ])  # fmt: skip
        label = f"{item.policy}, {'Python too' if item.with_python else 'no Python'}"
        bars.append(Bar(label, number, f"{number:,}", 1 if item.with_python else 3))
    strict, loose = (f"J\u00a0≥\u00a0{similarity}" for similarity in ("0.8", "0.7"))  # on one line
    head = ["licence policy", "Python callables", "documentation records read", "APIs, versions once"]
    head += [f"distinct APIs, {strict}", f"distinct APIs, {loose}", f"{strict} / paper's"]
    parts.append(table(head, [("", rows)], left={0, 1}))
    paper = Reference(PAPER_APIS, f"the paper's {PAPER_APIS:,}")
    chart = bar_chart("Distinct documented APIs (J ≥ 0.8)", bars, "APIs", paper)
    parts.append(f"<div class='charts'>{chart}</div>\n")
    parts += [paragraph(line, "note") for line in _counting(accounts)]
    return "".join(parts)


def _headline(accounts: CorpusAccounts) -> Iterator[str]:
    everything, without = accounts.api_count(with_python=True), accounts.api_count(with_python=False)
    if everything is None or without is None:
        yield "The manifest does not count the APIs under the corpus's own licence policy."
        return
    yield f"{_against_paper(everything)}, Python callables included."
    yield f"{_against_paper(without)}, without Python callables."


def _against_paper(item: ApiCount) -> str:
    number = item.distinct[NEAR_DUPLICATE]
    ratio = f"{number / PAPER_APIS:.2f} times the paper's {PAPER_APIS:,}"
    return f"{plural(number, 'distinct documented API')}: {ratio}"


def _counting(accounts: CorpusAccounts) -> Iterator[str]:
    yield (
        "Near-duplicates count once: documentation whose sets of 3-word shingles have a Jaccard similarity J of 0.8 or"
        " more (0.7 in the column beside it). So do the versions of one API, one operation in the notations of SDK,"
        " command line and catalogue, and a catalogue's copies of a provider whose own package is read."
    )
    yield (
        "Policies: permissive takes licences that ask for no more than a notice, stated takes any licence that is"
        " stated, any takes all. A policy wider than the corpus's own cannot count more than what was let in."
    )
    docs = next((part for part in accounts.slices if part.name == "agent_docs"), None)
    if docs is not None:
        told = f"The corpus holds {plural(docs.written, 'documentation record')}. APIs are counted before"
        told += " what shows a held-out API or exceeds a provider's cap is taken out; one API may keep a record in each"
        yield told + " of its notations."


# ---------------------------------------------------------------------------------------------------------------- size


def size(accounts: CorpusAccounts) -> str:
    """Records, text and tokens per slice and split."""
    rows = []
    for part in accounts.slices:
        for split in SPLITS:
            rows.append([part.name, split, *_size_cells(part.records[split], part.text_bytes[split])])
    records = sum(part.written for part in accounts.slices)
    total = sum(sum(part.text_bytes.values()) for part in accounts.slices)
    rows.append(["all", "", *_size_cells(records, total)])
    head = ["slice", "split", "records", "text (MB)", "tokens (millions, ≈)", "text per record (kB)"]
    note = f"MB are 10⁶ bytes of text in UTF-8. Tokens are bytes / {BYTES_PER_TOKEN}, a rule of thumb; a vocabulary's"
    note += " own count differs. Validation holds APIs and documents that training never sees."
    return table(head, [("", rows)], left={0, 1}) + paragraph(note, "note")


def _size_cells(records: int, text_bytes: int) -> list[str]:
    mean = f"{text_bytes / records / 1e3:,.2f}" if records else "–"
    return [f"{records:,}", f"{text_bytes / 1e6:,.2f}", f"{text_bytes / BYTES_PER_TOKEN / 1e6:,.2f}", mean]


# ------------------------------------------------------------------------------------------------------------ accounts


def where_records_went(accounts: CorpusAccounts) -> str:
    """Read, dropped by reason, cut, written, per slice."""
    rows = []
    for part in accounts.slices:
        dropped = sum(part.dropped.values())
        rows.append([
            part.name, f"{part.read:,}", f"{dropped:,}", share(dropped / part.read if part.read else 0.0),
            f"{part.written:,}", *(f"{part.records[split]:,}" for split in SPLITS),
            f"{part.cut:,}", f"{part.cut_bytes / 1e3:,.1f}",
        ])  # fmt: skip
    head = ["slice", "read (records)", "dropped (records)", "dropped (share)", "written (records)"]
    head += [*(f"{split} (records)" for split in SPLITS), "cut (records)", "cut (kB of text)"]
    parts = [table(head, [("", rows)], left={0}), paragraph(_balance(accounts))]
    note = "Read counts what readers and composition made. A record that is cut is written without the passages that"
    parts.append(paragraph(f"{note} show a held-out API.", "note"))
    reasons = {part.name: part.dropped for part in accounts.slices if part.dropped}
    parts.append("<h3>Why records were dropped</h3>\n" if reasons else paragraph("Nothing was dropped."))
    parts.append(count_table("reason", reasons, "records", REASONS, shares=False) if reasons else "")
    if accounts.skipped:
        parts.append("<h3>Files and passages not read</h3>\n")
        parts.append(count_table("reason", {"": accounts.skipped}, "files or passages", REASONS, shares=False))
    return "".join(parts)


def _balance(accounts: CorpusAccounts) -> str:
    wrong = [
        f"{part.name} ({part.read - part.written - sum(part.dropped.values()):+,} records)"
        for part in accounts.slices
        if part.read != part.written + sum(part.dropped.values())
    ]
    if wrong:
        return f"The accounts do not balance: read less dropped and written leaves {', '.join(wrong)}."
    return "The accounts balance: every record that was read was written, or dropped for a reason that is counted."


# ------------------------------------------------------------------------------------------------------------- sources


def sources(accounts: CorpusAccounts) -> str:
    """What was read, under which terms, and what could not be had."""
    slices = [part.name for part in accounts.slices if part.written]
    shown, rest = accounts.sources[:SOURCES], accounts.sources[SOURCES:]
    rows = [_source_row(source, slices) for source in shown]
    if rest:
        rows.append([f"{len(rest):,} others", "", "", "", *_record_cells(rest, slices)])
    head = ["source", "version", "licence of the package", "host", *(f"{name} (records)" for name in slices)]
    parts = [table(head, [("", rows)], left={0, 1, 2, 3})]
    if rest:
        told = "The others" if len(rest) <= MORE_SOURCES else f"{MORE_SOURCES} of the others; all are in manifest.json"
        more = table(head, [("", [_source_row(source, slices) for source in rest[:MORE_SOURCES]])], left={0, 1, 2, 3})
        parts.append(f"<details><summary>{told}</summary>\n{more}</details>\n")
    parts.append(paragraph("A record may state a licence of its own; those are counted under licences.", "note"))
    if accounts.unavailable:
        parts.append("<h3>Not available</h3>\n")
        parts.append(_pairs("source", "why the build went on without it", accounts.unavailable))
    else:
        parts.append(paragraph("Every source that was asked for could be had."))
    if accounts.refused:
        parts.append(f"<h3>Left out by the licence policy “{text(named(accounts.policy))}”</h3>\n")
        refused = _pairs("distribution", "licence", accounts.refused)
        parts.append(
            f"<details><summary>{plural(len(accounts.refused), 'distribution')}</summary>\n{refused}</details>\n"
        )
    return "".join(parts)


def _source_row(source: SourceAccount, slices: Sequence[str]) -> list[str]:
    told = (source.name, source.version, source.licence, source.host)
    return [*map(named, told), *_record_cells([source], slices)]


def _record_cells(found: Sequence[SourceAccount], slices: Sequence[str]) -> list[str]:
    return [f"{sum(source.of_slice(name) for source in found):,}" for name in slices]


def _pairs(first: str, second: str, items: Mapping[str, str]) -> str:
    rows = [[named(name), named(words, 300)] for name, words in sorted(items.items())]
    shown, rest = rows[:PAIRS], rows[PAIRS:]
    if rest:
        shown.append([f"{len(rest):,} others", "listed in manifest.json"])
    return table([first, second], [("", shown)], left={0, 1})


# ------------------------------------------------------------------------------------------------------- configuration


def configuration(accounts: CorpusAccounts) -> str:
    """The settings that the corpus depends on, and the versions of what made it."""
    settings = [[named(name), named(_setting(value), 400)] for name, value in sorted(accounts.configuration.items())]
    versions = [[named(name), named(version)] for name, version in sorted(accounts.versions.items())]
    parts = [table(["setting", "value"], [("", settings)], left={0, 1})]
    parts.append(paragraph("The number of worker processes is not among them: it changes no byte.", "note"))
    return "".join([*parts, table(["part", "version"], [("", versions)], left={0, 1})])


def _setting(value: object) -> str:
    if value is None:
        return "none given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return summed([str(item) for item in value], 40) or "none"
    return str(value)
