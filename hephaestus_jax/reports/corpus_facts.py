"""What a corpus is made of, from its manifest and the sizes of its shards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hephaestus_jax.errors import UserError
from hephaestus_jax.progress import Progress

if TYPE_CHECKING:
    from hephaestus_jax.formats.store import Corpus


@dataclass(frozen=True)
class SliceSize:
    """Records of one slice and split, their shards' size, and the bytes of their texts (None where not counted)."""

    slice: str
    split: str
    records: int
    stored_bytes: int
    text_bytes: int | None


@dataclass(frozen=True)
class SourceSize:
    """One source (package): records by slice and split ("code/train"), bytes of its records as JSON."""

    source: str
    version: str
    licence: str
    records: Mapping[str, int]
    record_bytes: int


@dataclass(frozen=True)
class CorpusFacts:
    """A corpus: its parts, its sources by size, and what is held out."""

    directory: Path
    kind: str
    slices: tuple[SliceSize, ...]
    sources: tuple[SourceSize, ...]
    held_out_apis: int | None
    held_out_families: int | None
    held_out_rule: str
    configuration: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def licences(self) -> tuple[tuple[str, int, int], ...]:
        """(licence, sources, records), most records first."""
        sources, records = Counter[str](), Counter[str]()
        for source in self.sources:
            sources[source.licence] += 1
            records[source.licence] += sum(source.records.values())
        return tuple((licence, sources[licence], count) for licence, count in records.most_common())


def read_corpus(directory: str | Path) -> CorpusFacts:
    """The facts of the corpus in `directory`.

    Raises:
        UserError: there is no corpus, or it is damaged.
    """
    from hephaestus_jax.formats.store import Corpus  # a report without a corpus needs no Parquet

    corpus = Corpus(Path(directory))
    manifest = corpus.manifest
    try:
        held_out = manifest.get("held_out") or {}
        return CorpusFacts(
            directory=corpus.directory.absolute(),
            kind=str(manifest.get("kind", "")),
            slices=tuple(_slices(corpus)),
            sources=_sources(corpus),
            held_out_apis=held_out.get("apis"),
            held_out_families=held_out.get("families"),
            held_out_rule=str(held_out.get("rule", "")),
            configuration=dict(manifest.get("configuration") or {}),
            versions=dict(manifest.get("versions") or {}),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        words = f"{type(error).__name__}: {error}"
        raise UserError(f"{corpus.directory}/manifest.json is damaged ({words}); rebuild the corpus") from error


def _slices(corpus: Corpus) -> list[SliceSize]:
    sizes = []
    for name, splits in corpus.manifest["slices"].items():
        texts = ((corpus.manifest.get("accounts") or {}).get(name) or {}).get("text_bytes") or {}
        for split in splits:
            stored = sum(shard.bytes for shard in corpus.shards(name, split))
            sizes.append(SliceSize(name, split, corpus.count(name, split), stored, texts.get(split)))
    return sizes


def _sources(corpus: Corpus) -> tuple[SourceSize, ...]:
    """Largest first."""
    about = corpus.manifest.get("sources") or {}
    sizes = _record_bytes(corpus)
    found = []
    for name, facts in about.items():
        version, licence = str(facts.get("version", "")), str(facts.get("licence", ""))
        found.append(SourceSize(name, version, licence, dict(facts.get("records") or {}), sizes[name]))
    return tuple(sorted(found, key=lambda source: (-source.record_bytes, source.source)))


def _record_bytes(corpus: Corpus) -> Counter[str]:
    """Bytes of the records of each source, as the JSON that is stored; reads two columns of every shard."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    shards = [
        shard
        for name, splits in corpus.manifest["slices"].items()
        for split in splits
        for shard in corpus.shards(name, split)
    ]
    sizes = Counter[str]()
    progress = Progress("sizes of the corpus's sources", "shards", len(shards))
    for shard in shards:
        path = Path(corpus.directory) / shard.file
        try:
            with pq.ParquetFile(path) as parquet:
                for batch in parquet.iter_batches(columns=["source", "record"]):
                    lengths = pc.binary_length(batch.column("record"))
                    table = pa.table({"source": batch.column("source"), "bytes": lengths})
                    for row in table.group_by("source").aggregate([("bytes", "sum")]).to_pylist():
                        sizes[row["source"]] += row["bytes_sum"]
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path} is missing or damaged ({error}); rebuild the corpus") from error
        progress.add()
    return sizes
