"""The sections that say what was taken out of a corpus, kept from training, and made for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hephaestus_jax.reports.corpus_accounts import CorpusAccounts, DoctestAccount, Removed
from hephaestus_jax.reports.corpus_report_parts import count_table, named, plural, share, summed
from hephaestus_jax.reports.page import paragraph, table, text

REASONS = 60
EXAMPLES = 3  # of a reason
REMOVED_BYTES = 1_400_000  # of the list, as HTML
CELL_BYTES = 30  # of its tags
EVIDENCE = 200  # characters
DISTRIBUTIONS = 40

RULES = {
    "question": "a question's words",
    "function": "a function, by its words and its parameters' names",
    "description": "a function's description in running text",
    "call": "a gold call's values",
}
KINDS = {
    "single": "one call, its tool alone on offer",
    "distractors": "one call, other tools on offer beside the right one",
    "missing_function": "no tool fits; the agent declines",
    "missing_parameter": "a required argument is missing; the agent asks",
    "parallel": "several independent calls in one turn",
    "dependent": "a result feeds the next call",
    "multi_turn": "several requests, one after the other",
    "command": "a command line and what it prints",
}


def scrubbed(accounts: CorpusAccounts) -> str:
    """What was replaced by placeholders, by kind."""
    if not accounts.scrubbed:
        return paragraph("No secret and no personal data was found.")
    total = sum(accounts.scrubbed.values())
    told = f"{plural(total, 'place')} in records that were read were replaced by placeholders. Documentation's own"
    told += " placeholders (example.com, 555 numbers) stay."
    return paragraph(told) + count_table("kind", {"": accounts.scrubbed}, "places", most=REASONS)


def benchmarks(accounts: CorpusAccounts) -> str:
    """What was removed because a benchmark shows in it: counts, and the list."""
    given = accounts.benchmarks
    told = f"Benchmarks compared with: {summed(given, 20)}." if given else ""
    if not accounts.removed:
        said = "No record shows one of them." if given else "No benchmark was named, so nothing was compared with one."
        return paragraph(f"{told} {said}".strip())
    pairs = Counter((item.benchmark, item.rule) for item in accounts.removed)
    ordered = sorted(pairs.items(), key=lambda item: (item[0][0], -item[1], item[0][1]))
    rows = [
        [named(benchmark), named(rule), RULES.get(rule, ""), f"{count:,}"]
        for (benchmark, rule), count in ordered[:REASONS]
    ]
    if rest := ordered[REASONS:]:
        rows.append([f"{len(rest):,} others", "", "", f"{sum(count for _, count in rest):,}"])
    removed = f"{plural(len(accounts.removed), 'record')} removed. A record is counted by the first thing it shows."
    return (
        paragraph(f"{told} {removed}".strip())
        + table(["benchmark", "rule", "what the record shows", "records removed"], [("", rows)], left={0, 1, 2})
        + _removed_list(accounts.removed)
    )


def _removed_list(removed: Sequence[Removed]) -> str:
    """Every record with the item it shows, by benchmark and rule, as far as the list's bytes reach."""
    groups: dict[str, list[list[str]]] = {}
    room, shown = REMOVED_BYTES, 0
    for item in sorted(removed, key=lambda item: (item.benchmark, item.rule, item.record, item.item)):
        row = [named(item.item), named(item.record, 140), named(item.evidence, EVIDENCE)]
        heading = f"{named(item.benchmark)}\n{named(item.rule)}"
        room -= sum(map(_html_bytes, row if heading in groups else [heading, *row]))
        if room < 0:
            break
        groups.setdefault(heading, []).append(row)
        shown += 1
    told = f"All {shown:,}" if shown == len(removed) else f"{shown:,} of {len(removed):,}"
    rest = "" if shown == len(removed) else paragraph("The others are in manifest.json (contaminated).", "note")
    listed = table(["item", "record", "what shows it"], groups.items(), left={0, 1, 2})
    return f"<details><summary>{told} removed records</summary>\n{listed}{rest}</details>\n"


def _html_bytes(cell: str) -> int:
    """About what a cell takes, with its tags and the places where it may break."""
    return len(text(cell).encode()) + 5 * sum(map(cell.count, "_/.")) + CELL_BYTES


def quarantine(accounts: CorpusAccounts) -> str:
    """Malformed and hostile input that was set aside, by reason, with examples."""
    counts = accounts.quarantine.counts
    if not counts:
        return paragraph("Nothing was set aside: no input was malformed.")
    told = f"{plural(sum(counts.values()), 'input')} set aside as malformed or hostile; the rest of the file was read."
    rows = []
    shown = list(counts)[:REASONS]
    for reason in shown:
        found = [(place, detail) for why, place, detail in accounts.quarantine.examples if why == reason]
        rows += [[named(reason), named(place), named(detail, EVIDENCE)] for place, detail in found[:EXAMPLES]]
    parts = [paragraph(told), count_table("reason", {"": counts}, "inputs", most=REASONS)]
    if rows:
        head = ["reason", "where", "what was wrong"]
        listed = table(head, [("", rows)], left={0, 1, 2})
        parts.append(f"<details><summary>Examples, up to {EXAMPLES} of a reason</summary>\n{listed}</details>\n")
    return "".join(parts)


def held_out(accounts: CorpusAccounts) -> str:
    """The APIs that training never sees."""
    told = accounts.held_out
    if not told.apis:
        return paragraph("No API is held out.")
    docs = sum(part.written for part in accounts.slices if part.name == "agent_docs")
    of_all = f" ({share(told.apis / docs)} of the documentation records)" if docs else ""
    families = f"{told.families:,} {'family' if told.families == 1 else 'families'}"
    said = f"{plural(told.apis, 'API')} in {families} held out{of_all}: their documentation and calls are the"
    said += f" validation split, and what shows them is cut from training, by {plural(told.words, 'distinctive name')}"
    parts = [paragraph(f"{said} and by runs of words. Both are listed in {named(told.file)}.")]
    if told.rule:
        parts.append(f"<details><summary>Rule</summary>{paragraph(named(told.rule, 4000), 'note')}</details>\n")
    return "".join(parts)


def calls(accounts: CorpusAccounts) -> str:
    """Trajectories composed from documented examples, and examples in docstrings that were executed."""
    parts = ["<h3>Composed trajectories</h3>\n"]
    if accounts.composed:
        total = sum(accounts.composed.values())
        rows = [[named(kind), KINDS.get(kind, ""), f"{count:,}", share(count / total)]
                for kind, count in list(accounts.composed.items())[:REASONS]]  # fmt: skip
        parts.append(paragraph(f"{total:,} composed from documented calls, without a language model."))
        parts.append(table(["kind", "what happens", "trajectories", "share"], [("", rows)], left={0, 1}))
    else:
        parts.append(paragraph("None was composed."))
    parts.append("<h3>Executed documentation examples</h3>\n")
    if not accounts.doctests:
        return "".join([*parts, paragraph("None was executed.")])
    return "".join([*parts, _doctests(accounts.doctests)])


def _doctests(found: Sequence[DoctestAccount]) -> str:
    ordered = sorted(found, key=lambda item: (-item.matched, -item.examples, item.name))
    rows = [[named(item.name), *_numbers([item])] for item in ordered[:DISTRIBUTIONS]]
    if rest := ordered[DISTRIBUTIONS:]:
        rows.append([f"{len(rest):,} others", *_numbers(rest)])
    rows.append(["all", *_numbers(ordered)])
    head = ["distribution", "docstrings", "examples", "executed twice (examples)", "kept (examples)"]
    head += ["output as documented (examples)", "kept (share)"]
    failures, dropped = Counter[str](), Counter[str]()
    for item in found:
        failures.update(item.failures)
        dropped.update(item.dropped)
    parts = [table(head, [("", rows)], left={0})]
    note = "Kept: both runs gave the same output, and nothing in it belongs to the machine or the day."
    parts.append(paragraph(note, "note"))
    if dropped:
        parts.append("<h3>Examples not kept</h3>\n" + count_table("reason", {"": dropped}, "examples", REASONS))
    if failures:
        heading = "<h3>Docstrings of which nothing could be used</h3>\n"
        parts.append(heading + count_table("reason", {"": failures}, "docstrings", REASONS))
    return "".join(parts)


def _numbers(found: Sequence[DoctestAccount]) -> list[str]:
    names = ("docstrings", "examples", "executed", "equal", "matched")
    sums = {name: sum(getattr(item, name) for item in found) for name in names}
    kept = share(sums["equal"] / sums["examples"]) if sums["examples"] else "–"
    return [*(f"{number:,}" for number in sums.values()), kept]
