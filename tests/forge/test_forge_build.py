"""A corpus from catalogues: pinned packages and folders, read, cleaned, planned and composed."""

import hashlib
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

import hephaestus_jax
from hephaestus_jax.errors import UserError
from hephaestus_jax.forge import pipeline, units
from hephaestus_jax.forge.compose import violations
from hephaestus_jax.forge.config import ForgeConfig
from hephaestus_jax.forge.leaks import LeakScanner, held_out_of, scan_corpus
from hephaestus_jax.forge.pipeline import build_corpus
from hephaestus_jax.forge.sources import Package, SourceFile, source
from hephaestus_jax.forge.sources.source import SOURCES
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import ApiDoc, ApiExample, Record, Trajectory
from hephaestus_jax.formats.store import Corpus

NOUNS = ("pet", "order", "invoice", "shipment", "customer", "garden", "kettle", "violin", "harbour", "lantern")
VERBS = {"get": "Returns", "create": "Registers", "delete": "Removes for good", "list": "Searches and pages through"}
TEXT = """
    quickly tonight abroad slowly again early members guests winter summer spring autumn station river bridge market
    window kitchen ladder painter doctor teacher farmer sailor silver copper golden wooden paper glass stone cotton
    monday tuesday friday sunday morning evening weekend holiday letter parcel ticket voucher receipt coupon badge
    north south east west upper lower inner outer yellow purple orange green heavy light broken spare rented owned
"""
WORDS = TEXT.split()
METHODS = {"get": "GET", "create": "POST", "delete": "DELETE", "list": "PATCH"}


def operation(service: str, verb: str, noun: str, **fields: object) -> dict[str, object]:
    """One line of a catalogue."""
    seed = hashlib.sha256(f"{service}{verb}{noun}".encode()).hexdigest()
    words = [WORDS[int(seed[place : place + 2], 16) % len(WORDS)] for place in range(0, 24, 2)]
    return {
        "path": f"/v1/{service}/{noun}s/{{id}}", "verb": verb, "noun": noun, "provider": f"{service}.example",
        "description": f"{VERBS[verb]} one {noun} of the {service} desk: {' '.join(words)}.",
    } | fields  # fmt: skip


def _read(file: SourceFile, quarantine: Quarantine) -> Iterable[Record]:
    """Operations as JSON lines."""
    for number, line in enumerate((file.text(quarantine) or "").splitlines(), start=1):
        try:
            value = json.loads(line)
        except ValueError as error:
            quarantine.add("malformed JSON", file.place(str(number)), str(error))
            continue
        name = value["noun"]
        yield ApiDoc(
            name=f"{METHODS[value['verb']]} {value['path']}",
            provider=value["provider"],
            description=value["description"],
            provenance=file.provenance(str(number), licence=value.get("licence", "")),
            parameters={
                "type": "object",
                "properties": {"id": {"type": "string", "description": f"Which {name}."}},
                "required": ["id"],
            },
            examples=(
                ApiExample(f"GET /{name}/7", f'{{"{name}": "ready", "id": "{name}-7"}}', None, {"id": f"{name}-7"}),
            ),
            interface="rest",
            function=f"{value['verb']}{value['noun'].title()}Of{value['path'].split('/')[2].title()}",
        )


@pytest.fixture
def catalogues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue and one provider's own package, both fetched before; and a package that cannot be had."""
    lines = [operation(service, verb, noun) for service in ("zoo", "shop", "bank") for noun in NOUNS for verb in VERBS]
    again = operation(
        "zoo", "get", "pet", path="/v2/zoo/pets/{petId}", description="Returns one pet, the second edition of it."
    )
    near = operation("bank", "get", "lantern") | {"provider": "zank.example"}
    files = {
        "specs/a.jsonl": "\n".join(map(json.dumps, [*lines, again, near])) + "\n{broken\n",
        "specs/own.jsonl": json.dumps(operation("own", "get", "pet")),
        "readme.txt": "not read",
    }
    own = {"x.jsonl": "\n".join(json.dumps(operation("own", "create", noun, licence="")) for noun in NOUNS)}
    cache = tmp_path / "cache"
    cache.mkdir()
    made = {}
    for name, content in (("catalogue", files), ("own", own)):
        with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
            for path, text in content.items():
                archive.writestr(zipfile.ZipInfo(path), text)
        raw = (tmp_path / "p.zip").read_bytes()
        made[name] = Package(
            "pypi", name, "1.0", hashlib.sha256(raw).hexdigest(), "MIT" if name == "own" else "unknown"
        )
        (cache / f"{made[name].sha256}.whl").write_bytes(raw)
    source("catalogue", made["catalogue"], files="specs/*.jsonl")(_read)
    source("own", made["own"], files="**/*.jsonl", replaces=("own.*",))(_read)
    source("nowhere", Package("npm", "nowhere", "1", "0" * 64, "MIT"), files="*")(_read)
    monkeypatch.setenv("PATH", str(tmp_path))
    yield cache
    for name in ("catalogue", "own", "nowhere"):
        SOURCES.pop(name, None)


def config(cache: Path, **fields: object) -> ForgeConfig:
    values = {"sources": ("catalogue", "own", "nowhere"), "package_folder": str(cache), "workers": 1}
    return ForgeConfig(**values | {"heldout_fraction": 0.0, "validation_fraction": 0.0} | fields)  # type: ignore[arg-type]


def records(corpus: Corpus, slice_name: str, split: str = "train") -> list[Record]:
    return [record for _, record in corpus.read(slice_name, split)]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_catalogues_become_a_corpus_and_what_cannot_be_had_is_told(catalogues: Path, tmp_path: Path) -> None:
    corpus = build_corpus(config(catalogues), tmp_path / "c")
    manifest = corpus.manifest
    docs = [doc for doc in records(corpus, "agent_docs") if isinstance(doc, ApiDoc)]
    # 120 operations of the catalogue; of two versions the newer; of two that read alike one; the provider's own 10
    dropped = manifest["accounts"]["agent_docs"]["dropped"]
    assert dropped["older version of an API"] == 1 and dropped["near-duplicate"] == 1
    assert dropped["catalogue's copy of a provider whose own package is read"] == 1
    assert len(docs) == 130 and len({doc.name for doc in docs if doc.provider == "own.example"}) == 10
    assert [doc.name for doc in docs if "second edition" in doc.description] == ["GET /v2/zoo/pets/{petId}"]
    assert "npm is not installed" in manifest["unavailable_sources"]["nowhere"]
    assert manifest["quarantine"]["counts"] == {"malformed JSON": 1}
    assert (
        manifest["sources"]["own"]["version"] == "1.0"
        and manifest["sources"]["own"]["records"]["agent_docs/train"] == 10
    )
    counts = {(c["licence_policy"], c["with_python_callables"]): c for c in manifest["apis"]}
    assert counts["any", True]["distinct"]["J >= 0.8"] == 130 and counts["stated", False]["distinct"]["J >= 0.8"] == 10
    assert sum(manifest["distributions"]["providers"].values()) == 130
    assert manifest["versions"]["hephaestus_jax"] == hephaestus_jax.__version__


def test_composed_calls_stay_true_to_their_schemas(catalogues: Path, tmp_path: Path) -> None:
    corpus = build_corpus(config(catalogues), tmp_path / "c")
    composed = [t for t in records(corpus, "agent_trajectories") if isinstance(t, Trajectory)]
    assert len(composed) >= 80 and [problem for t in composed for problem in violations(t)] == []
    assert sum(corpus.manifest["composed"].values()) >= len(composed)


def test_held_out_services_show_nowhere_else(catalogues: Path, tmp_path: Path) -> None:
    corpus = build_corpus(config(catalogues, heldout_fraction=0.3, seed=1), tmp_path / "c")
    held = {doc.name for doc in records(corpus, "agent_docs", "validation") if isinstance(doc, ApiDoc)}
    trained = {doc.name for doc in records(corpus, "agent_docs") if isinstance(doc, ApiDoc)}
    assert held and not held & trained and corpus.manifest["held_out"]["apis"] == len(held)
    assert records(corpus, "agent_trajectories", "validation")
    offered = {
        tool.name for t in records(corpus, "agent_trajectories") if isinstance(t, Trajectory) for tool in t.tools
    }
    functions = {d.function for d in records(corpus, "agent_docs", "validation") if isinstance(d, ApiDoc)}
    assert offered and not offered & functions
    assert not list(scan_corpus(corpus, LeakScanner(held_out_of(tmp_path / "c"))))


def test_the_bytes_are_the_same_for_any_workers_and_after_a_kill(
    catalogues: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", 4_000)
    options = {"heldout_fraction": 0.2, "validation_fraction": 0.1}
    build_corpus(config(catalogues, **options), tmp_path / "one")
    stages_run = []
    for stage in ("clean", "finish", "write"):
        with monkeypatch.context() as patch:

            def die(*_: object, stage: str = stage, **__: object) -> None:
                stages_run.append(stage)
                raise InterruptedError(stage)

            patch.setattr(pipeline._Build, stage, die)
            with pytest.raises(InterruptedError):
                build_corpus(config(catalogues, **options), tmp_path / "two")
    assert stages_run == ["clean", "finish", "write"] and not (tmp_path / "two").exists()
    build_corpus(config(catalogues, **options), tmp_path / "two")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


def test_policies_and_caps_take_records_out(catalogues: Path, tmp_path: Path) -> None:
    stated = build_corpus(config(catalogues, licence_policy="stated", compose=False), tmp_path / "stated")
    assert {doc.provenance.source for doc in records(stated, "agent_docs")} == {"own"}
    assert stated.manifest["accounts"]["agent_docs"]["dropped"]["licence: not stated"] == 123
    capped = build_corpus(config(catalogues, provider_cap=7, compose=False), tmp_path / "capped")
    providers = capped.manifest["distributions"]["providers"]
    full = {name for name, count in providers.items() if count == 7}
    assert full == {f"{name}.example" for name in ("zoo", "shop", "bank", "own")}
    assert max(providers.values()) == 7
    assert capped.count("agent_trajectories", "train") == 0


def test_a_benchmark_is_kept_out_and_what_was_removed_is_listed(catalogues: Path, tmp_path: Path) -> None:
    wanted = operation("shop", "get", "violin")
    benchmark = {
        "id": "shop_1",
        "question": "Which violin is on the shelf of the shop?",
        "function": [{
            "name": "fetch_instrument", "description": wanted["description"],
            "parameters": {"type": "dict", "properties": {"id": {"type": "string", "description": "Which violin."}}},
        }],
    }  # fmt: skip
    (tmp_path / "bench.jsonl").write_text(json.dumps(benchmark) + "\n")
    corpus = build_corpus(
        config(catalogues, benchmarks=(str(tmp_path / "bench.jsonl"),), compose=False), tmp_path / "c"
    )
    (removed,) = corpus.manifest["contaminated"]
    assert removed["benchmark"] == "bench" and removed["item"] == "shop_1" and "specs/a.jsonl" in removed["record"]
    assert not [
        d for d in records(corpus, "agent_docs") if isinstance(d, ApiDoc) and d.description == wanted["description"]
    ]


def test_a_folder_takes_the_place_of_packages(catalogues: Path, tmp_path: Path) -> None:
    (tmp_path / "mine" / "specs").mkdir(parents=True)
    (tmp_path / "mine" / "specs" / "b.jsonl").write_text(json.dumps(operation("bank", "get", "pet")))
    corpus = build_corpus(config(catalogues, sources=(f"catalogue={tmp_path / 'mine'}",)), tmp_path / "c")
    assert [doc.provenance.source for doc in records(corpus, "agent_docs")] == ["catalogue"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("nowhere",), "nothing was found .* npm is not installed"),
        (("petstore",), "there is no source 'petstore'; known are installed"),
        (("own", "own"), "named twice"),
        (("openapi_files",), "give its folder as openapi_files=FOLDER"),
        (("own=/no/such/folder",), "there is no folder /no/such/folder"),
    ],
)
def test_sources_that_cannot_be_read_are_one_line(
    catalogues: Path, tmp_path: Path, names: tuple[str, ...], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        build_corpus(config(catalogues, sources=names), tmp_path / "c")
    assert not (tmp_path / "c.work").exists()
