"""The page of a corpus: its figures are the manifest's, nothing hostile gets through, its size is bounded."""

import itertools
import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hephaestus_jax.errors import UserError
from hephaestus_jax.formats.records import ApiAction, ApiDoc, Document, Provenance, TextObservation, Tool, Trajectory
from hephaestus_jax.formats.store import Corpus, write_corpus
from hephaestus_jax.reports.charts import WIDTH, Bar, Reference, bar_chart
from hephaestus_jax.reports.corpus_report import corpus_report, write_corpus_report
from hephaestus_jax.reports.corpus_report_bias import Concentration
from tests.reports.page_reader import Page

HOSTILE = "</pre></title><script>alert(1)</script><img src=x onerror=y>'\"&\x1b[31m\u202e\x00"
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f\u202e]")


def account(read=0, dropped=None, train=0, validation=0, train_bytes=0, cut=0):
    return {
        "read": read, "dropped": dropped or {}, "cut": {"records": cut, "text_bytes": cut * 1000},
        "records": {"train": train, "validation": validation}, "text_bytes": {"train": train_bytes, "validation": 0},
    }  # fmt: skip


def api_count(policy, with_python, strict, loose):
    return {
        "licence_policy": policy, "with_python_callables": with_python, "described_records": strict + 900,
        "distinct_identities": strict + 90, "distinct": {"J >= 0.8": strict, "J >= 0.7": loose},
    }  # fmt: skip


def removed(path, item, rule, evidence):
    return {"record": f"large:x.json:{path}", "benchmark": "bfcl", "item": item, "rule": rule, "evidence": evidence}


ABOUT = {
    "kind": "forge",
    "configuration": {
        "benchmarks": ["bfcl"], "licence_policy": "any", "provider_cap": None, "sample": 1.0, "packages": None,
        "compose": True, "languages": ["en"],
    },
    "versions": {"python": "3.11.7", "pyarrow": "25.0.1"},
    "held_out": {"file": "heldout.json", "rule": "by a <hash>", "digest": "d", "families": 3, "apis": 40, "words": 1},
    "accounts": {
        "agent_docs": account(5000, {"near-duplicate": 900, "shows a benchmark": 100}, 3960, 40, 8_000_000, cut=7),
        "agent_trajectories": account(200, {}, 200, 0, 400_000),
        "code": account(60, {"near-duplicate": 10}, 50, 0, 4_000),
        "text": account(),
    },
    "sources": {
        "small": {"version": "1.0", "licence": "MIT", "host": "pypi.org/project/small",
                  "records": {"agent_docs/train": 2, "code/train": 2}},
        "large": {"version": "2.0", "licence": "BSD-3-Clause", "host": "pypi.org/project/large",
                  "records": {"agent_docs/train": 3958, "agent_docs/validation": 40, "agent_trajectories/train": 200}},
    },
    "unavailable_sources": {"octokit": "npm pack: no answer"},
    "refused_licences": {"copyleft": "GPL-3.0-only"},
    "skipped_files": {"generated source file": 12},
    "quarantine": {
        "total": 30, "max_examples": 20, "counts": {"remote reference": 25, "malformed YAML": 5},
        "examples": [{"reason": "remote reference", "place": f"a.json:{n}", "detail": f"http {n}"} for n in range(20)]
        + [{"reason": "malformed YAML", "place": "b.yaml:1", "detail": "an alias bomb"}],
    },
    "doctests": {
        "large": {"docstrings": 50, "examples": 200, "executed": 150, "equal": 120, "matched": 100,
                  "failures": {"import": 4}, "dropped": {"differs": 30, "import": 50}},
    },
    "composed": {"distractors": 150, "parallel": 50},
    "scrubbed": {"e-mail": 30, "JWT": 10},
    "contaminated": [
        removed("a", "simple_7", "function", "words 0.91"), removed("b", "simple_8", "function", "words 0.88"),
        removed("c", "live_1", "call", "f(1, 2)"),
    ],
    "apis": [
        api_count("permissive", True, 70_000, 65_000), api_count("permissive", False, 60_000, 55_000),
        api_count("stated", True, 90_000, 85_000), api_count("stated", False, 80_000, 75_000),
        api_count("any", True, 153_074, 140_000), api_count("any", False, 99_000, 91_000),
    ],
    "distributions": {
        "providers": {"amazonaws.com": 2000, "github.com": 1000, "stripe.com": 1000},
        "deprecated": {"github.com": 100, "stripe.com": 20},
        "interfaces": {"rest": 3000, "rpc": 1000},
        "methods": {"GET": 2000, "POST": 1000},
        "domains": {"docs.github.com": 1000, "pypi.org": 3250},
        "languages": {"agent_docs": {"en": 3900, "unknown": 100}, "code": {"python": 50}},
        "licences": {"agent_docs": {"MIT": 3000, "GPL-3.0-only": 600, "unknown": 400}, "code": {"MIT": 50}},
    },
}  # fmt: skip


def some_records():
    def origin(source, path):
        return Provenance(source, "1.0", "MIT", path=path)

    docs = [ApiDoc(f"GET /v1/{n}", "large", f"Gets the thing number {n}.", origin("large", f"x.json:{n}"),
                   interface="rest") for n in range(9)]  # fmt: skip
    docs += [ApiDoc("small.f", "small", HOSTILE, origin("small", HOSTILE))]
    steps = (
        TextObservation("Get me a 7. " + "tell " * 900, "user"),
        ApiAction("get", {"n": 7}),
        TextObservation("7 it is", "environment"),
    )
    trajectory = Trajectory(steps, origin("large", "x.json"), (Tool("get"),), details={"composed": "distractors"})
    code = [Document(f"x = {n}\n", "code", origin("small", f"a{n}.py"), "python") for n in range(3)]
    return {("agent_docs", "train"): docs, ("agent_trajectories", "train"): [trajectory], ("code", "train"): code}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "made", some_records(), ABOUT)


@pytest.fixture(scope="module")
def page(corpus):
    return Page(corpus_report(corpus))


def report_of(corpus, change):
    """The page of the corpus after `change` of its manifest."""
    told = Corpus(corpus.directory)
    change(told.manifest)  # read once, then kept
    return corpus_report(told)


def test_the_headline_is_the_manifests(page):
    text = page.sections["apis"]
    assert "153,074 distinct documented APIs: 2.00 times the paper's 76,537, Python callables included." in text
    assert "99,000 distinct documented APIs: 1.29 times the paper's 76,537, without Python callables." in text
    rows = {(row[0], row[1]): row[2:] for row in page.tables["apis"][1:]}
    assert rows["permissive", "with"] == ["70,900", "70,090", "70,000", "65,000", "0.91"]
    assert rows["any", "without"] == ["99,900", "99,090", "99,000", "91,000", "1.29"]
    assert len(rows) == 6


def test_tokens_are_bytes_by_four(page):
    rows = {(row[0], row[1]): row[2:] for row in page.tables["tokens"]}
    assert rows["agent_docs", "train"] == ["3,960", "8.00", "2.00", "2.02"]
    assert rows["text", "validation"] == ["0", "0.00", "0.00", "–"]
    assert rows["all", ""][:3] == ["4,250", "8.40", "2.10"]


def test_where_the_records_went(corpus, page):
    rows = page.tables["accounts"]
    assert rows[1] == ["agent_docs", "5,000", "1,000", "20.0 %", "4,000", "3,960", "40", "7", "7.0"]
    assert ["near-duplicate", "900", "10"] in rows and ["shows a benchmark", "100", "–"] in rows
    assert ["generated source file", "12"] in rows
    assert "The accounts balance" in page.sections["accounts"]
    wrong = report_of(corpus, lambda told: told["accounts"]["code"].update(read=61))
    assert "The accounts do not balance: read less dropped and written leaves code (+1 records)." in wrong


def test_sources_and_those_that_were_not_read(page):
    rows = page.tables["sources"]
    assert rows[1] == ["large", "2.0", "BSD-3-Clause", "pypi.org/project/large", "3,998", "200", "0"]
    assert rows[2] == ["small", "1.0", "MIT", "pypi.org/project/small", "2", "0", "2"]
    assert ["octokit", "npm pack: no answer"] in rows and ["copyleft", "GPL-3.0-only"] in rows


def test_providers_and_their_concentration(corpus, page):
    text = page.sections["providers"]
    assert "4,000 documentation records of 3 providers. The spread is that of 2.8 providers of equal size" in text
    assert page.tables["providers"][1:] == [["the largest", "2,000", "50.0 %"]]
    assert "amazonaws.com2,000 (50.0 %)" in text and "No cap per provider was set" in text

    def cap(told):
        told["configuration"]["provider_cap"] = 1500
        told["accounts"]["agent_docs"]["dropped"] |= {"beyond the cap on its provider": 70}

    assert "Each provider has at most 1,500 APIs (provider_cap); 70 records beyond that" in report_of(corpus, cap)


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 10**6), max_size=40))
def test_concentration(counts):
    spread = Concentration.of(counts)
    names = len([count for count in counts.values() if count])
    assert (0 if names == 0 else 0.999) <= spread.effective() <= names + 1e-6
    points = list(spread.curve(10))
    assert points[0] == (0, 0) and all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(points))
    if names:
        assert points[-1] == (names, 1.0) and len(points) <= 20
        assert spread.largest(1) == max(counts.values()) and spread.largest(names) == spread.total
        assert Concentration.of(dict.fromkeys(range(names), 7)).effective() == pytest.approx(names)


def test_languages_licences_freshness(page):
    rows = page.tables["languages"]
    assert ["en", "3,900", "97.5 %", "–", ""] in rows and ["python", "–", "", "50", "100.0 %"] in rows
    assert ["permissive", "75.0 %", "100.0 %"] in rows and ["stated", "90.0 %", "100.0 %"] in rows
    assert ["GPL-3.0-only", "600", "15.0 %", "–", ""] in rows
    assert "120 of 4,000 documentation records (3.0 %)" in page.sections["freshness"]
    assert page.tables["freshness"][1:] == [
        ["github.com", "100", "1,000", "10.0 %"],
        ["stripe.com", "20", "1,000", "2.0 %"],
    ]


def test_hygiene(page):
    assert ["e-mail", "30", "75.0 %"] in page.tables["scrubbed"] and "40 places" in page.sections["scrubbed"]
    rows = page.tables["benchmarks"]
    assert [row[:2] + row[3:] for row in rows[1:3]] == [["bfcl", "function", "2"], ["bfcl", "call", "1"]]
    assert ["simple_8", "large:x.json:b", "words 0.88"] in rows
    assert "All 3 removed records" in page.sections["benchmarks"]
    rows = page.tables["quarantine"]
    assert ["remote reference", "25", "83.3 %"] in rows and ["malformed YAML", "b.yaml:1", "an alias bomb"] in rows
    assert len([row for row in rows if row[1].startswith("a.json")]) == 3
    assert "40 APIs in 3 families held out (1.0 % of the documentation records)" in page.sections["heldout"]
    assert "1 distinctive name and" in page.sections["heldout"] and "by a <hash>" in page.sections["heldout"]


def test_calls(page):
    rows = page.tables["calls"]
    assert ["distractors", "one call, other tools on offer beside the right one", "150", "75.0 %"] in rows
    assert ["large", "50", "200", "150", "120", "100", "60.0 %"] in rows
    assert ["differs", "30", "37.5 %"] in rows and ["import", "4", "100.0 %"] in rows


def test_samples_are_what_models_read(page):
    text = page.sections["samples"]
    assert all(f"agent_docs: {name}" in text for name in ("large", "small")) and "code: small" in text
    assert len(page.pre) == 2 + 1 + 1 + 2  # two of a source and slice, where there are as many
    assert any("Gets the thing number" in shown for shown in page.pre) and any("x = " in shown for shown in page.pre)
    (calls,) = (shown for shown in page.pre if "7 it is" in shown)
    assert "Get me a 7." in calls and "characters left out" in calls and len(calls) < 2_100
    assert "distractors, 3 steps" in text


def test_nothing_hostile_gets_through(corpus):
    def hostile(told):
        told["configuration"] |= {HOSTILE: [HOSTILE], "licence_policy": "any"}
        told["versions"][HOSTILE] = HOSTILE
        told["held_out"] |= {"file": HOSTILE, "rule": HOSTILE}
        for name in ("unavailable_sources", "refused_licences"):
            told[name][HOSTILE] = HOSTILE
        for name in ("skipped_files", "composed", "scrubbed"):
            told[name][HOSTILE] = 3
        told["sources"][HOSTILE] = {"version": HOSTILE, "licence": HOSTILE, "host": HOSTILE, "records": {}}
        told["accounts"]["code"]["dropped"][HOSTILE] = 1
        told["doctests"][HOSTILE] = told["doctests"]["large"] | {"dropped": {HOSTILE: 1}, "failures": {HOSTILE: 1}}
        told["contaminated"].append(dict.fromkeys(told["contaminated"][0], HOSTILE))
        told["quarantine"]["counts"][HOSTILE] = 1
        told["quarantine"]["examples"].append(dict.fromkeys(("reason", "place", "detail"), HOSTILE))
        for name in ("providers", "deprecated", "interfaces", "methods", "domains"):
            told["distributions"][name][HOSTILE] = 5
        for name in ("languages", "licences"):
            told["distributions"][name] |= {HOSTILE: {HOSTILE: 1, "": 1}}

    text = report_of(corpus, hostile)
    found = Page(text)
    assert not found.tags & {"script", "img", "link", "iframe", "object", "base", "form"}
    assert not CONTROLS.search(text)
    assert text.count("alert(1)&lt;") > 40 and "␛[31m⟨U+202E⟩␀" in text
    for name, value in found.attributes:
        assert not name.startswith("on") and (name not in ("src", "href") or value.startswith("#"))
    assert "http" not in text.partition("<body>")[0]


def test_the_page_is_bounded(corpus):
    def many(told):
        long = '<a long & "hostile" name>' * 40
        names = {f"{long}{n}{long}": 9000 - n for n in range(5_000)}
        shares = told["distributions"]
        shares |= {name: names for name in ("providers", "deprecated", "domains", "methods", "interfaces")}
        per_slice = {name: names for name in told["accounts"]}
        shares |= {"languages": per_slice, "licences": per_slice}
        told |= {name: names for name in ("scrubbed", "composed", "skipped_files")}
        told |= {name: dict(zip(names, names, strict=True)) for name in ("refused_licences", "unavailable_sources")}
        told["accounts"]["agent_docs"]["dropped"] = names
        told["sources"] |= {n: {**told["sources"]["small"], "licence": n} for n in names}
        told["contaminated"] = [
            {"record": f"s:p{n}", "benchmark": "b", "item": f"i{n}", "rule": "call", "evidence": f"{n}" + "x y " * 60}
            for n in range(3_000)
        ]
        told["quarantine"] |= {"counts": names, "examples": [
            {"reason": reason, "place": long, "detail": long} for reason in list(names)[:900]]}  # fmt: skip

    text = report_of(corpus, many)
    assert len(text.encode()) < 3_000_000
    found = Page(text)
    assert "All 3,000 removed records" in found.sections["benchmarks"]
    assert len([row for row in found.tables["benchmarks"] if row[0].startswith("i")]) - 1 == 3_000  # and the heading
    assert "the 25 largest of 5,000" in found.sections["providers"]
    assert "4,980 others" in [row[0] for row in found.tables["languages"]]

    def endless(told):
        fields = list(told["contaminated"][0])
        told["contaminated"] = [dict.fromkeys(fields, f"{n} " + "<&>" * 200) for n in range(9_000)]

    text = report_of(corpus, endless)
    assert len(text.encode()) < 3_000_000 and re.search(r"<summary>[\d,]+ of 9,000 removed records", text)
    assert "The others are in manifest.json" in text


def test_the_same_corpus_gives_the_same_bytes_anywhere(corpus, page, tmp_path):
    for name in ("a", "b"):
        write_corpus_report(write_corpus(tmp_path / name, some_records(), ABOUT), tmp_path / f"{name}.html")
    made = (tmp_path / "a.html").read_bytes()
    assert made == (tmp_path / "b.html").read_bytes() == corpus_report(corpus).encode()
    assert str(tmp_path).encode() not in made and not re.search(rb"\b20[2-9]\d-\d\d-\d\d\b", made)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda told: told.pop("apis"), "does not tell 'apis': it is of an older version; rebuild"),
        (lambda told: told.pop("distributions"), "does not tell 'distributions'"),
        (lambda told: told["distributions"].pop("languages"), "does not tell 'languages'"),
        (lambda told: told.update(kind="other"), "not of a corpus that tools.build_corpus made"),
        (lambda told: told["scrubbed"].update({"e-mail": "many"}), "is damaged .*'many' is no count"),
        (lambda told: told["scrubbed"].update({"e-mail": -1}), "-1 is no count"),
        (lambda told: told.update(accounts=[]), "is damaged"),
        (lambda told: told["configuration"].update(provider_cap="x"), "'x' is no count"),
    ],
)
def test_other_manifests_are_refused(corpus, change, words):
    with pytest.raises(UserError, match=words) as caught:
        report_of(corpus, change)
    assert "\n" not in str(caught.value)


def test_an_empty_corpus_has_a_page(tmp_path):
    about = json.loads(json.dumps(ABOUT))
    about["accounts"] = {name: account() for name in about["accounts"]}
    about["distributions"] = {name: {} for name in about["distributions"]}
    for name in ("composed", "scrubbed", "doctests", "sources", "unavailable_sources", "skipped_files"):
        about[name] = {}
    about |= {"contaminated": [], "apis": [], "quarantine": {"total": 0, "counts": {}, "examples": []}}
    about["held_out"] |= {"apis": 0, "families": 0}
    found = Page(corpus_report(write_corpus(tmp_path / "empty", {}, about)))
    assert "does not count the APIs" in found.sections["apis"] and "No API is held out" in found.sections["heldout"]
    assert "Nothing was dropped" in found.sections["accounts"] and "holds no records" in found.sections["samples"]
    assert "nothing was counted" in found.sections["kinds"]


@given(st.lists(st.tuples(st.text(max_size=40), st.integers(0, 10**9)), max_size=30), st.none() | st.integers(1, 10**9))
def test_bars_are_as_long_as_their_values(values, wanted):
    bars = [Bar(label, value, f"{value:,}") for label, value in values]
    chart = bar_chart("<title>", bars, "records", Reference(wanted, "wanted") if wanted else None)
    assert "<title>" not in chart
    if not any(value for _, value in values):
        assert "nothing was counted" in chart
        return
    found = re.findall(r"<rect class='s1' x='([\d.]+)' y='([\d.]+)' width='([\d.]+)'", chart)
    starts, widths = {x for x, _, _ in found}, [float(width) for _, _, width in found]
    largest = max(value for _, value in values)
    assert len(found) == len(values) and len(starts) == 1 and float(starts.pop()) + max(widths) <= WIDTH
    for (_, value), width in zip(values, widths, strict=True):
        assert (width == 0) == (value == 0)
        assert math.isclose(width, max(widths) * value / largest, abs_tol=0.9)
    height = float(re.search(r"viewBox='0 0 \d+ (\d+)'", chart)[1])
    assert all(0 <= float(y) <= height for y in re.findall(r" y='([\d.-]+)'", chart))


def test_bars_have_finite_lengths():
    for value in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="finite and not negative"):
            Bar("a", value, "")
