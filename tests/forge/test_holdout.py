import dataclasses
import random

import pytest

from hephaestus_jax.errors import UserError
from hephaestus_jax.forge.dedup import SIMILAR, jaccard
from hephaestus_jax.forge.holdout import Api, Census, Family, HeldOut, choose, windows_of, words_of

WORDS = [a + b for a in ("bar", "fel", "gor", "mun", "sil", "tav") for b in ("dok", "lim", "nep", "rus", "wex", "zul")]


def text_of(seed: object, length: int = 30) -> str:
    draw = random.Random(str(seed))
    return " ".join(draw.choices(WORDS, k=length))


def api(name: str, qualname: str = "", docstring: str = "", **fields: object) -> Api:
    qualname = qualname or name.rpartition(".")[2]
    values = {"aliases": (), "file": "pkg:" + name.split(".")[0] + ".py", "docstring": docstring or text_of(name)}
    return Api(name=name, qualname=qualname, **values | fields)  # type: ignore[arg-type]


def chosen(apis: list[Api], census: Census | None = None, fraction: float = 0.5, seed: int = 0) -> HeldOut:
    return choose(apis, census or Census(), fraction, max_uses=10, seed=seed)


def fillers(count: int) -> list[Api]:
    """APIs that cannot be held out: their names are too short."""
    return [api(f"fill.f{i}") for i in range(count)]


def test_a_class_goes_with_its_methods_and_is_known_by_their_rare_names() -> None:
    methods = ["Unraveller.fit", "Unraveller.pull_knots"]
    group = [api("m.Unraveller"), *(api(f"m.{method}", method) for method in methods)]
    held = chosen([*group, *fillers(3)])
    assert [family.names for family in held.families] == [("m.Unraveller", *(f"m.{method}" for method in methods))]
    assert held.words == {"Unraveller", "pull_knots"}  # "fit" is too short to be known by


def test_a_method_is_never_held_out_alone() -> None:
    held = chosen([api("m.A.long_method_name", "A.long_method_name"), *fillers(3)])
    assert held.families == ()


def test_near_duplicates_share_a_side() -> None:
    words = text_of("base", 40)
    twins = [api("m.first_function", docstring=words), api("n.second_function", docstring=words + " more")]
    assert jaccard(twins[0].docstring, twins[1].docstring) >= SIMILAR
    for fraction in (0.2, 0.5):
        held = chosen([*twins, *fillers(2)], fraction=fraction)
        assert held.names in (set(), {"m.first_function", "n.second_function"})
    assert held.names  # two of four fit into a half
    # a twin that cannot be held out keeps the other in training
    short = api("n.f", docstring=words)
    assert chosen([twins[0], short, *fillers(2)]).families == ()


def test_apis_of_one_name_share_a_side() -> None:
    held = chosen([api("m.frobnicate"), api("n.frobnicate"), *fillers(4)], fraction=0.4)
    assert held.names == {"m.frobnicate", "n.frobnicate"}
    assert chosen([api("m.frobnicate"), api("n.frobnicate"), *fillers(4)], fraction=0.2).families == ()
    held = chosen([api("m.frobnicate"), api("n.A.frobnicate", "A.frobnicate"), *fillers(4)], fraction=0.4)
    assert held.families == ()  # the method holds its class A, whose name is too short


def test_aliases_and_renamings_are_names_too() -> None:
    alias = api("m.frobnicate", aliases=("m.frobnicate", "pkg.settle_down"))
    assert chosen([alias, *fillers(1)]).words == {"frobnicate", "settle_down"}
    assert chosen([dataclasses.replace(alias, aliases=("pkg.f",)), *fillers(1)]).families == ()
    census = Census()
    census.add_code("from m import frobnicate as settle_down\n")
    assert chosen([api("m.frobnicate"), *fillers(1)], census).words == {"frobnicate", "settle_down"}
    census.add_code("public = settle_down\n")
    assert chosen([api("m.frobnicate"), *fillers(1)], census).words == {"frobnicate", "settle_down", "public"}
    census.add_code("f = m.settle_down  # short\n")
    assert chosen([api("m.frobnicate"), *fillers(1)], census).families == ()


@pytest.mark.parametrize(
    "code",
    [
        "x = 1\n" + "frobnicate()\n" * 11,
        "class B(Other, pkg.frobnicate[int]):\n    pass\n",
        "class B(\n    Other(1, 2),\n    frobnicate,\n):\n    pass\n",
    ],
)
def test_common_names_and_base_classes_are_not_held_out(code: str) -> None:
    census = Census()
    assert chosen([api("m.frobnicate"), *fillers(1)], census).families
    census.add_code(code)
    assert not chosen([api("m.frobnicate"), *fillers(1)], census).families


def test_names_of_modules_and_parameters_are_not_held_out() -> None:
    other = api("m.f", parameters=("frobnicate",))
    assert not chosen([api("m.frobnicate"), other]).families
    assert not chosen([api("m.frobnicate"), *fillers(1)], Census(modules={"frobnicate"})).families
    assert not chosen([api("m.__frobnicate__"), *fillers(1)]).families


def test_families_that_others_copy_from_are_not_held_out() -> None:
    own = text_of("own", 60)
    half = " ".join(own.split()[:30])
    copied = api("m.frobnicate", docstring=own)
    assert chosen([copied, api("m.f", docstring=half + " " + text_of("rest", 30))]).families == ()
    line = " ".join(own.split()[:10])
    assert chosen([copied, api("m.f", docstring=line + " " + text_of("rest", 50))]).families
    # what many units say is a phrase: it does not count, and is listed
    many = [api(f"m.f{i}", docstring=half + " " + text_of(i, 30)) for i in range(3)]
    held = chosen([copied, *many], fraction=0.25)
    assert held.names == {"m.frobnicate"} and held.common == tuple(sorted(windows_of(half)))
    assert held.windows == set(windows_of(own)) - set(windows_of(half))


def test_the_share_is_met_and_never_exceeded() -> None:
    apis = [api(f"m.function_number_{i}") for i in range(200)]
    for fraction in (0.0, 0.02, 0.1, 0.5):
        assert len(chosen(apis, fraction=fraction).names) == round(200 * fraction)
    few = chosen(apis, fraction=0.02).names
    assert few < chosen(apis, fraction=0.1).names  # a larger share keeps the smaller one
    assert few != chosen(apis, fraction=0.02, seed=1).names


def random_apis(draw: random.Random) -> list[Api]:
    names = [f"name_{i}" for i in range(40)]
    texts = [text_of((draw.random(), i), draw.choice([6, 30])) for i in range(40)]
    apis = []
    for number in range(30):
        qualname = draw.choice(names)
        if draw.random() < 0.3:
            qualname += "." + draw.choice(["fit", "pull_the_knots", *names])
        aliases = (f"pkg.{draw.choice(names)}",) if "." not in qualname and draw.random() < 0.1 else ()
        text = draw.choice(texts) + draw.choice(["", " again"])
        apis.append(Api(f"pkg{number}.{qualname}", qualname, aliases, f"pkg:{draw.choice('xyz')}.py", text))
    return apis


def test_no_relation_crosses_the_split() -> None:
    relations = 0
    for seed in range(40):
        draw = random.Random(seed)
        apis = random_apis(draw)
        held = chosen(apis)
        draw.shuffle(apis)
        assert chosen(apis) == held  # whatever the order
        held_apis = [item for item in apis if item.name in held.names]
        for one in held_apis:
            for other in apis:
                if other.name not in held.names:
                    assert one.unit != other.unit
                    assert jaccard(one.docstring, other.docstring) < SIMILAR
                    assert held.words.isdisjoint(other.outer_names | other.inner_names)
        relations += any(len(family.names) > 1 for family in held.families)
    assert relations > 20  # or the test would show nothing


def test_windows_leave_out_numbers_and_short_words() -> None:
    assert list(windows_of("1 2 3 4 5 6 7 8 9")) == [] and list(windows_of("a to be of in on at by it")) == []
    text = "Every Row, of (the) *given* frob\\_matrix until its"
    assert list(windows_of(text)) == ["every row of the given frob_matrix until its"]
    assert words_of("frob\\_matrix x_1") == ["frob_matrix", "x_1"]


def test_the_list_survives_json_and_a_damaged_one_is_refused() -> None:
    held = HeldOut((Family(("a.b",), ("a.c",), ("word",), ("Text.",)),), ("common",))
    assert HeldOut.from_json(held.to_json()) == held
    for damaged in ({}, {"families": [{"name": 1}], "common": []}, {"families": [3], "common": []}):
        with pytest.raises(UserError, match="rebuild the corpus"):
            HeldOut.from_json(damaged)
