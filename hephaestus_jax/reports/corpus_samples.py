"""A few records of every slice and source, as a model reads them."""

from __future__ import annotations

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import ApiDoc, Identified, Record, Trajectory
from hephaestus_jax.formats.rendering import RecordRenderer
from hephaestus_jax.formats.store import Corpus
from hephaestus_jax.reports.corpus_accounts import CorpusAccounts
from hephaestus_jax.reports.corpus_report_parts import named, plural
from hephaestus_jax.reports.page import paragraph, preformatted, text
from hephaestus_jax.reports.rows import visible

SOURCES = 8  # of a slice, the largest
RECORDS = 2  # of a source
SEARCHED = 4_096  # records of a slice; ids are digests, so the first ones are as good as drawn
CHARACTERS, TAIL = 2_000, 900  # of a record, and of its end among them
_SPLIT = "train"
_RENDERER = RecordRenderer(metadata=False)


def samples(accounts: CorpusAccounts, corpus: Corpus) -> str:
    """The samples, by slice and source.

    Raises:
        UserError: a shard is missing or damaged.
    """
    note = f"The first {RECORDS} training records, in the order of their ids (which are digests), of the {SOURCES}"
    note += f" largest sources of each slice, as far as the first {SEARCHED:,} records of the slice hold them. Each is"
    note += f" shown as it is rendered for training; beyond {CHARACTERS:,} characters its middle is left out."
    parts = [paragraph(note, "note")]
    for part in accounts.slices:
        for source, found in _of_slice(accounts, corpus, part.name).items():
            parts.append(f"<h3>{text(part.name)}: {text(named(source))}</h3>\n" if found else "")
            parts += [_shown(item) for item in found]
    return "".join(parts) if len(parts) > 1 else paragraph("The corpus holds no records.")


def _of_slice(accounts: CorpusAccounts, corpus: Corpus, slice_name: str) -> dict[str, list[Identified]]:
    key = f"{slice_name}/{_SPLIT}"
    sizes = {source.name: source.records.get(key, 0) for source in accounts.sources}
    names = sorted((name for name, count in sizes.items() if count), key=lambda name: (-sizes[name], name))[:SOURCES]
    found: dict[str, list[Identified]] = {name: [] for name in names}
    missing = sum(min(RECORDS, sizes[name]) for name in names)
    count = corpus.count(slice_name, _SPLIT)
    for item in corpus.read(slice_name, _SPLIT, 0, min(SEARCHED, count)):
        if not missing:
            break
        own = found.get(item.record.provenance.source)
        if own is not None and len(own) < RECORDS:
            own.append(item)
            missing -= 1
    return found


def _shown(item: Identified) -> str:
    origin = item.record.provenance
    facts = [f"licence {named(origin.licence)}", named(origin.path, 160) if origin.path else "", f"record {item.id}"]
    told = paragraph(" · ".join(filter(None, facts)), "label")
    head = text(named(_title(item.record)))
    return f"<details><summary>{head}</summary>\n{told}{preformatted(_rendered(item.record))}</details>\n"


def _title(record: Record) -> str:
    if isinstance(record, ApiDoc):
        return record.name
    if isinstance(record, Trajectory):
        kind = record.details.get("composed")
        steps = plural(len(record.steps), "step")
        return f"{kind}, {steps}" if kind else f"{record.name}, {steps}" if record.name else steps
    return record.provenance.path or record.language


def _rendered(record: Record) -> str:
    try:
        words = _RENDERER.render(record).text
    except UserError as error:
        return f"This record has no form for training: {error}"
    words = visible(words)  # before it is cut: what is made visible grows
    cut = len(words) - CHARACTERS
    if cut <= 0:
        return words
    return f"{words[: CHARACTERS - TAIL]}\n\n[… {cut:,} characters left out …]\n\n{words[-TAIL:]}"
