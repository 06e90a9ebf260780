"""Corrupted calls differ from the right one in one respect only, parse, and are not the same call in other words."""

import ast
import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.evals.call_forms import CodeCall, JsonCall, call_of, parsed, text_of
from hephaestus_jax.evals.corruption import KINDS, ApiKnowledge, Corruptor
from hephaestus_jax.formats.records import (
    ApiAction,
    ApiDoc,
    CodeAction,
    MessageAction,
    Provenance,
    TextObservation,
    Tool,
    Trajectory,
)

WHERE = Provenance("pkg", "1", "MIT")


def code(text: str, name: str = "solve") -> CodeCall:
    call = call_of(CodeAction("python", text), frozenset([name]))
    assert isinstance(call, CodeCall)
    return call


def tool(**kwargs: Any) -> JsonCall:
    return JsonCall(ApiAction("pkg.solve", kwargs, tool_call_id="7"))


def shown(step) -> str | None:
    return None if step is None else text_of(step)


# --- what is found


@pytest.mark.parametrize(
    ("text", "function", "literals", "variables", "keywords"),
    [
        ("y = np.linalg.solve(a, 2, mode='x', deep=[1, {'k': True}])", "solve", [2, "x", 1, "k", True], ["a"], 2),
        ("é = 'ü'; z = pkg.solve(b, *rest, n=-1, **more)", "solve", [1], ["b"], 1),
        ("for i in range(3):\n    obj.solve(i + 4)", "solve", [4], [], 0),
        ("solve(f'{3}: {n!r:>{4}}', None, b'5', ...)", "solve", [], [], 0),
        ("first(solve(1), solve(2))", "solve", [1], [], 0),
        ("solve(solve(1), 2)", "solve", [1, 2], [], 0),  # the outer one begins first
        ("solve(lambda x=1: x)(9)", "solve", [1], [], 0),
    ],
)
def test_calls_are_found_in_code(text, function, literals, variables, keywords):
    call = code(text)
    assert call.function == function and list(call.literals()) == literals
    assert list(call.variables()) == variables and len(call.keywords()) == keywords


@pytest.mark.parametrize(
    "step",
    [
        CodeAction("python", "resolve(1); solver.x(2); solve"),
        CodeAction("python", "solve(1"),
        CodeAction("python", "solve(\r\n1)"),
        CodeAction("bash", "solve(1)"),
        CodeAction("python", "f'{solve(1)}'"),
        ApiAction("solve_it", {}),
        MessageAction("solve(1)"),
        TextObservation("solve(1)", "user"),
    ],
)
def test_what_is_no_call_is_left_alone(step):
    assert call_of(step, frozenset(["solve"])) is None


def test_a_tool_is_called_by_its_full_name():
    step = ApiAction("pkg.solve", {"a": [1, "x"], "b": {"c": False}, "d": None})
    call = call_of(step, frozenset(["pkg.solve"]))
    assert call is not None and list(call.literals()) == [1, "x", False]
    assert call_of(step, frozenset(["solve"])) is None and list(call.keywords()) == ["a", "b", "d"]


# --- what is changed


@pytest.mark.parametrize(
    ("text", "index", "expected"),
    [
        ("solve(a, b)", 1, "solve(a)"),
        ("solve(a, b ,)", 1, "solve(a ,)"),
        ("solve(a)", 0, "solve()"),
        ("solve(a=1, b=2)", 0, "solve(b=2)"),
        ("solve(a=1, b=2)", 1, "solve(a=1)"),
        ("solve(x, # why\n      n=2)  # é", 1, "solve(x)  # é"),
        ("x = 'é'; solve('é', 'ü')", 1, "x = 'é'; solve('é')"),
        ("solve(*a, k=1)", 0, "solve(*a)"),
        ("solve(a, **k)", 0, "solve(**k)"),
        ("solve(a, (b))", 1, None),  # brackets are no part of the argument
        ("solve((a), b=1)", 1, None),
        ("solve(i for i in x)", 0, None),
    ],
)
def test_an_argument_is_dropped_from_the_text(text, index, expected):
    assert shown(code(text).without(index)) == expected


def test_only_keywords_and_the_last_positional_argument_may_go():
    assert list(code("solve(a, b, c=1, d=2)").droppable()) == [1, 2, 3]
    assert list(code("solve(a, *b, c=1)").droppable()) == [1]
    assert list(code("solve()").droppable()) == [] == list(tool().droppable())
    assert list(tool(a=1, b=2).droppable()) == [0, 1]


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("solve(1 + 0x10)", 3, "solve(3 + 0x10)"),
        ('solve("a")', "b'", 'solve("b\'")'),
        ('solve("a")', "b", 'solve("b")'),
        ("solve('a' 'b')", "c", "solve('c')"),
        ("solve(1)", -1, None),  # two nodes of the tree
        ("solve(1.5)", float("inf"), None),
        ("solve(True)", False, "solve(False)"),
        ("solve(1E5)", 100000.0, None),  # the same in other words
        ("solve('''a\nb''', 2)", "c\n", "solve('c\\n', 2)"),
    ],
)
def test_a_literal_is_replaced_in_the_text(text, value, expected):
    assert shown(code(text).with_literal(0, value)) == expected


def test_names_are_replaced_in_the_text():
    text = "é = 1\nnp.linalg . solve(solve, é, axis = é)"
    call = code(text)
    assert shown(call.with_function("inverse")) == "é = 1\nnp.linalg . inverse(solve, é, axis = é)"
    assert shown(call.with_variable(1, "z")) == "é = 1\nnp.linalg . solve(solve, z, axis = é)"
    assert shown(call.with_variable(2, "z")) == "é = 1\nnp.linalg . solve(solve, é, axis = z)"
    assert shown(call.with_keyword(0, "axes")) == "é = 1\nnp.linalg . solve(solve, é, axes = é)"
    assert call.with_function("solve") is None and call.with_function("no name") is None
    assert call.with_keyword(0, "a b") is None
    assert shown(code("(solve)(1)").with_function("f")) == "(f)(1)"


def test_a_tools_arguments_are_changed_one_at_a_time():
    call = tool(a=[1, {"b": 2}], c="x")
    assert call.with_literal(1, 5) == dataclasses.replace(call.step, kwargs={"a": [1, {"b": 5}], "c": "x"})
    assert call.step.kwargs == {"a": [1, {"b": 2}], "c": "x"}  # untouched
    assert list(call.with_keyword(0, "z").kwargs.items()) == [("z", [1, {"b": 2}]), ("c", "x")]  # order is kept
    assert call.without(1).kwargs == {"a": [1, {"b": 2}]} and call.with_function("f").function == "f"
    assert call.with_keyword(0, "c") is None and call.with_literal(0, 1) is None and call.with_literal(0, True) is None


# --- which are chosen


def knowledge() -> ApiKnowledge:
    found = ApiKnowledge({"pkg.solve": "pkg.solve", "pkg.solve_alias": "pkg.solve"})
    parameters = {"a": {}, "axis": {"default": 0}, "mode": {"default": "full"}, "*rest": {}}
    found.add(ApiDoc("pkg.solve", "pkg", "", WHERE, "solve(a, axis=0, mode='full', *rest, tol=1e-6)",
                     {"properties": parameters}))  # fmt: skip
    for name in ("pkg.solve_alias", "pkg.other", "pkg.third_one", "pkg.Class", "else.where", "pkg.GET /x"):
        found.add(ApiDoc(name, "pkg", "", WHERE))
    return found


def corruptions(call, *others, steps=(), tools=(), key="k", seed=0):
    made = Trajectory((*steps, call.step), WHERE, tools=tuple(map(Tool, tools)))
    corruptor = Corruptor(knowledge(), [call, *others], seed)
    return {bad.kind: bad for bad in corruptor.corrupt(call, "pkg.solve", key, made, len(steps))}


def test_functions_are_those_on_offer_or_of_the_same_module():
    in_code = {text_of(corruptions(code("pkg.solve(a)"), key=str(n))["wrong_function"].step) for n in range(20)}
    assert in_code == {"pkg.other(a)"}  # as long as the right one; no alias, no class, none of elsewhere
    bad = corruptions(tool(a=1), tools=("pkg.solve_alias", "pkg.solve", "pkg.tool"))["wrong_function"]
    assert (bad.step.function, bad.how) == ("pkg.tool", "tool on offer")
    bad = corruptions(tool(a=1), tools=("pkg.solve",))["wrong_function"]
    assert (bad.step.function, bad.how) == ("pkg.other", "sibling")  # what begins like it: no class for a function


def test_defaults_are_not_dropped():
    for text in ("pkg.solve(axis=0)", "pkg.solve(mode='full')", "pkg.solve(tol=1e-6)", "pkg.solve(tol=0.000001)"):
        assert "missing_argument" not in corruptions(code(text))
    assert text_of(corruptions(code("pkg.solve(x, axis=0)"))["missing_argument"].step) == "pkg.solve(axis=0)"
    assert "missing_argument" not in corruptions(tool(axis=0))
    assert corruptions(tool(axis=0, a=5))["missing_argument"].step.kwargs == {"axis": 0}


def test_a_value_becomes_another_of_its_type_that_some_call_has():
    others = [code("solve(22, 'zz', 0.5)"), tool(x=[33, "yyy", True])]
    for number in range(30):
        bad = corruptions(code("pkg.solve([11])"), *others, key=str(number))["wrong_argument"]
        assert bad.how == "value" and text_of(bad.step) in ("pkg.solve([22])", "pkg.solve([33])")
    assert text_of(corruptions(code("pkg.solve([7])"))["wrong_argument"].step) == "pkg.solve([8])"
    assert text_of(corruptions(code("pkg.solve([True])"))["wrong_argument"].step) == "pkg.solve([False])"
    assert "wrong_argument" not in corruptions(code("pkg.solve(['a'])"))  # there is no other text
    assert text_of(corruptions(code("pkg.solve(['abc'])"), *others)["wrong_argument"].step) == "pkg.solve(['yyy'])"
    assert text_of(corruptions(code("pkg.solve([1.0])"), code("solve(1, 1.00)"))["wrong_argument"].step) != (
        "pkg.solve([1])"
    )


def test_a_variable_becomes_one_with_another_value():
    before = (CodeAction("python", "x = 1\ny = 1\nz = 2\nw = z = 3"), TextObservation("", "environment"))
    found = {text_of(corruptions(code("pkg.solve(x)"), steps=before, key=str(n))["wrong_argument"].step)
             for n in range(20)}  # fmt: skip
    assert found <= {"pkg.solve(z)", "pkg.solve(w)"} and found  # not y, which is the same
    assert "wrong_argument" not in corruptions(code("pkg.solve(x)"))


def test_a_keyword_becomes_another_parameters_name():
    bad = corruptions(code("pkg.solve(axis=y)"))["wrong_argument"]
    assert (text_of(bad.step), bad.how) == ("pkg.solve(mode=y)", "keyword")
    bad = corruptions(tool(axis=None))["wrong_argument"]
    assert bad.step.kwargs == {"mode": None}


def test_choices_depend_on_seed_and_call_alone():
    calls = [code(f"pkg.solve({n}, 'text {n % 3}', axis={n % 5}, tol=t{n})") for n in range(6)]
    first = [corruptions(call, *calls, key=str(n)) for n, call in enumerate(calls)]
    again = [corruptions(call, *reversed(calls), key=str(n)) for n, call in enumerate(calls)]
    other = [corruptions(call, *calls, key=str(n), seed=1) for n, call in enumerate(calls)]
    assert first == again != other


# --- properties

names = st.sampled_from(["a", "b", "xs", "é", "mode", "axis"])
values = st.one_of(
    st.integers(0, 300),
    st.floats(0, 1e6, allow_nan=False),
    st.booleans(),
    st.text(max_size=6),
    st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(0, 9), max_size=2),
)
arguments = st.tuples(
    st.lists(st.one_of(values.map(repr), names), max_size=3), st.dictionaries(names, values.map(repr), max_size=3)
)
spaces = st.sampled_from(["", " ", "\n    ", " # note, (x\n  "])


@settings(max_examples=150, deadline=None)
@given(arguments, spaces, spaces, st.sampled_from(["", "v = ", "é = 'ü' + "]), st.integers(0, 5))
def test_any_code_changes_in_one_respect(parts, before, after, head, key):
    positional, named = parts
    written = [*positional, *(f"{name}={value}" for name, value in named.items())]
    text = f"{head}pkg.solve({before}{f',{after}'.join(written)}{before})\nprint('solve')"
    call = code(text)
    setting = CodeAction("python", "a = 1\nb = 2\nlonger = 3")
    found = corruptions(call, code("solve(1, 2.5, 'text', True)"), steps=(setting,), key=str(key))
    assert set(found) <= set(KINDS) and found["wrong_function"].how == "sibling"
    gold = parsed(text)
    for kind, bad in found.items():
        tree = parsed(bad.step.content)
        assert tree is not None and ast.dump(tree) != ast.dump(gold)
        ours, theirs = (
            next(n for n in ast.walk(t) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute))
            for t in (gold, tree)
        )
        changed = [ast.unparse(ours.func) != ast.unparse(theirs.func)]
        if kind == "missing_argument":
            count = len(ours.args) + len(ours.keywords)
            assert len(theirs.args) + len(theirs.keywords) == count - 1 and not any(changed)
            continue
        pairs = zip([*ours.args, *ours.keywords], [*theirs.args, *theirs.keywords], strict=True)
        changed += [ast.dump(one) != ast.dump(other) for one, other in pairs]
        assert sum(changed) == 1 and changed[0] == (kind == "wrong_function")
        assert bad.step.content.endswith("\nprint('solve')")
        ours.func, ours.args, ours.keywords = theirs.func, theirs.args, theirs.keywords  # and nothing else differs
        assert ast.dump(gold) == ast.dump(tree)
        gold = parsed(text)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "axis", "mode"]), values, max_size=4), st.integers(0, 5))
def test_any_tool_call_changes_in_one_respect(kwargs, key):
    call = tool(**kwargs)
    found = corruptions(call, tool(x=[7, "word", 0.25]), tools=("pkg.solve", "pkg.tool"), key=str(key))
    gold = dict(kwargs)
    for kind, bad in found.items():
        new = bad.step.kwargs
        json.dumps(new)
        assert call.step.kwargs == gold and (bad.step.function != "pkg.solve") == (kind == "wrong_function")
        if kind == "wrong_function":
            assert new == gold
        elif kind == "missing_argument":
            assert len(new) == len(gold) - 1 and new.items() <= gold.items()
        elif bad.how == "keyword":
            assert list(map(repr, new.values())) == list(map(repr, gold.values())) and set(new) != set(gold)
        else:
            assert list(new) == list(gold) and sum(repr(new[k]) != repr(gold[k]) for k in gold) == 1
    assert "wrong_function" in found and ("missing_argument" in found) == any(
        repr(value) not in ("0", "'full'", "1e-06") for value in kwargs.values()
    )
