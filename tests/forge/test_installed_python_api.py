"""Records from Python sources: which callables, their spans, names, parameters and results."""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap
from pathlib import Path

import pytest
from installation import install, installed

from hephaestus_jax.forge.installed import (
    Distribution,
    FoundApi,
    Reading,
    ReadOptions,
    iter_distributions,
    read_distribution,
)
from hephaestus_jax.forge.installed.modules import parse_module
from hephaestus_jax.forge.installed.python_api import find_apis
from hephaestus_jax.formats.quarantine import Quarantine
from hephaestus_jax.formats.records import ApiError, ApiExample, from_json, to_json

LONG = "Says enough about itself to be worth keeping in a corpus."


def apis(tmp_path: Path, source: str, file: str = "pack/code.py") -> dict[str, FoundApi]:
    install(tmp_path, "pack", {"pack/__init__.py": "", file: textwrap.dedent(source)})
    module = parse_module(installed(tmp_path, "pack"), file, Quarantine())
    assert module is not None
    return {api.qualname: api for api in find_apis(module)}


def test_only_public_callables_with_a_long_docstring(tmp_path: Path):
    found = apis(
        tmp_path,
        f'''
        def kept(): "{LONG}"
        async def kept_too(): "{LONG}"
        def short(): "Too short."
        def _private(): "{LONG}"
        def bare(): pass
        if True:
            def under_if(): "{LONG}"
        try:
            def twice(): "{LONG} First."
        except ImportError:
            def twice(): "{LONG} Second."
        class Kept:
            "{LONG}"
            def method(self): "{LONG}"
            def __call__(self): "{LONG}"
            def __len__(self): "{LONG}"
            def _hidden(self): "{LONG}"
            @property
            def attribute(self): "{LONG}"
            @functools.cached_property
            def lazy(self): "{LONG}"
            @overload
            def method(self, x): "{LONG}"
            class Inner:
                "{LONG}"
        class _Hidden:
            "{LONG}"
            def method(self): "{LONG}"
        def outer():
            def inner(): "{LONG}"
    ''',
    )
    assert list(found) == [
        "kept", "kept_too", "under_if", "twice", "Kept", "Kept.method", "Kept.__call__", "Kept.Inner",
    ]  # fmt: skip
    assert found["twice"].docstring.endswith("First.")
    assert found["kept_too"].record.signature == "async kept_too()"


def test_spans_cover_decorators_and_docstring(tmp_path: Path):
    source = f'''
        @decorator
        @another(
            1,
        )
        def f(
            x,
        ):
            """{LONG}

            More.
            """
            return x

        class C:
            @staticmethod
            def m(y): "{LONG}"
    '''
    found = apis(tmp_path, source)
    lines = textwrap.dedent(source).split("\n")
    f = found["f"]
    assert lines[f.span[0] - 1 : f.span[1]] == lines[1:13]
    assert lines[f.docstring_span[0] - 1 : f.docstring_span[1]] == lines[8:12]
    assert f.docstring == f"{LONG}\n\nMore."
    assert found["C.m"].record.signature == "m(y)"
    assert found["C.m"].record.provenance.path == "pack/code.py:17"
    for api in found.values():
        text = "\n".join(lines[api.docstring_span[0] - 1 : api.docstring_span[1]])
        assert LONG in text


def test_parameters(tmp_path: Path):
    record = apis(
        tmp_path,
        f'''
        def f(a, /, b: int, c: "str | None" = None, *args, d: float = 1, e=(1, 2), **kwargs) -> tuple[int, str]:
            """{LONG}

            Args:
              a (list of int): 1st.
              b: Second.
              d: Fourth.
              kwargs: The rest.
              extra: Among the rest.

            Returns:
              Both.
            """
    ''',
    )["f"].record
    assert record.signature == (
        "f(a, /, b: int, c: 'str | None'=None, *args, d: float=1, e=(1, 2), **kwargs) -> tuple[int, str]"
    )
    assert record.parameters == {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": {"type": "integer"}, "x-python-type": "list of int", "description": "1st."},
            "b": {"type": "integer", "x-python-type": "int", "description": "Second."},
            "c": {"type": ["string", "null"], "x-python-type": "'str | None'", "default": None},
            "d": {"type": "number", "x-python-type": "float", "description": "Fourth.", "default": 1},
            "e": {"x-python-default": "(1, 2)"},
            "kwargs": {"type": "object", "x-python-kind": "**", "description": "The rest."},
            "extra": {"description": "Among the rest."},
        },
        "required": ["a", "b"],
    }
    assert record.returns == {
        "type": "array",
        "prefixItems": [{"type": "integer"}, {"type": "string"}],
        "description": "Both.",
        "x-python-type": "tuple[int, str]",
    }
    assert from_json(to_json(record)) == record


def test_a_class_takes_what_its_constructor_takes(tmp_path: Path):
    found = apis(
        tmp_path,
        f'''
        class Documented:
            """{LONG}

            Args:
              x: From the class.
            """
            def __init__(self, x, y=2):
                """Creates it.

                Args:
                  y: From the constructor.

                Raises:
                  ValueError: never.
                """
        class OnlyConstructor:
            def __init__(self, x):
                """{LONG}"""
    ''',
    )
    record = found["Documented"].record
    assert record.description == LONG
    assert record.signature == "Documented(x, y=2)"
    assert record.parameters["properties"] == {
        "x": {"description": "From the class."},
        "y": {"description": "From the constructor.", "default": 2},
    }
    assert record.parameters["required"] == ["x"]
    assert (record.errors, record.returns) == ((ApiError("ValueError", "never."),), None)
    assert found["OnlyConstructor"].record.description == LONG


def test_a_dataclass_takes_its_fields(tmp_path: Path):
    record = apis(
        tmp_path,
        f'''
        @dataclasses.dataclass(frozen=True)
        class Config:
            """{LONG}

            Attributes:
              size: How large.
              total: Computed.
            """
            size: int
            names: list[str] = dataclasses.field(default_factory=list)
            rate: float = field(default=0.5)
            LIMIT: ClassVar[int] = 3
            _cache: dict = None
    ''',
    )["Config"].record
    assert record.signature == "Config(size: int, names: list[str] = list(), rate: float = 0.5)"
    assert record.parameters["required"] == ["size"]
    assert record.parameters["properties"]["size"]["description"] == "How large."
    assert record.parameters["properties"]["names"]["x-python-default"] == "list()"
    assert record.parameters["properties"]["rate"]["default"] == 0.5
    assert list(record.parameters["properties"]) == ["size", "names", "rate"]
    assert record.description == f"{LONG}\n\nAttributes:\n    total: Computed."


def test_documentation_of_compiled_functions(tmp_path: Path):
    found = apis(
        tmp_path,
        f'''
        add_newdoc("pack._multiarray", "dot",
            """
            dot(a, b=None)

            {LONG}

            Parameters
            ----------
            a : int
                First.

            Examples
            --------
            >>> dot(1)
            1
            """)
        add_newdoc("pack._multiarray", "ndarray", ("sort", """
            a.sort(axis=-1)

            {LONG}
            """))
        add_newdoc("pack._multiarray", "ndarray", ("shape", """{LONG} An attribute."""))
        add_newdoc("gamma", """{LONG} Named after its package.""")
        add_newdoc("pack", "odd", """
            odd([start,] stop)

            {LONG}
            """)
    ''',
    )
    assert [api.place for api in found.values()] == [
        "pack._multiarray.dot", "pack._multiarray.ndarray.sort", "pack.gamma", "pack.odd",
    ]  # fmt: skip
    dot = found["dot"]
    assert dot.record.signature == "dot(a, b=None)"
    assert dot.record.parameters["required"] == ["a"]
    assert dot.record.parameters["properties"]["b"] == {"default": None}
    assert dot.record.examples == (ApiExample("dot(1)", "1"),)
    assert dot.record.description == LONG
    assert found["ndarray.sort"].record.signature == "a.sort(axis=-1)"
    assert found["odd"].record.signature == "odd([start,] stop)"


REAL = ("numpy", "python")


@functools.cache
def real_distributions() -> dict[str, Distribution]:
    return {distribution.name: distribution for distribution in iter_distributions(REAL)}


@functools.cache
def real(name: str) -> tuple[Distribution, Reading]:
    distribution = real_distributions()[name]
    quarantine = Quarantine()
    reading = read_distribution(distribution, ReadOptions(code=False, text=False), quarantine)
    assert not quarantine
    return distribution, reading


@pytest.mark.parametrize("name", REAL)
def test_real_packages(name: str):
    """Every record of a real package is consistent with the file it was read from."""
    jsonschema = pytest.importorskip("jsonschema")
    distribution, reading = real(name)
    assert len(reading.apis) > 1000
    texts: dict[str, list[str]] = {}
    for api in reading.apis:
        lines = texts.setdefault(api.file, (distribution.root / api.file).read_text("utf-8", "replace").split("\n"))
        head = "\n".join(lines[api.span[0] - 1 : api.docstring_span[0]])
        assert api.qualname.rpartition(".")[2] in head or "__init__" in head
        written = "\n".join(lines[api.docstring_span[0] - 1 : api.docstring_span[1]])
        assert api.docstring.split("\n")[0][:30].split("\\")[0] in written.replace("\\\\", "\\")
        assert api.record.name in api.aliases
        assert api.place in api.aliases
        assert api.record.provenance.path.startswith(f"{api.file}:")
        for schema in api.record.parameters["properties"].values():
            if "default" in schema:
                assert jsonschema.Draft202012Validator(schema).is_valid(schema["default"])
        assert from_json(to_json(api.record)) == api.record
    places = [(api.file, api.span) for api in reading.apis]
    assert places == sorted(places)


def test_a_known_function_of_a_real_package():
    numpy = pytest.importorskip("numpy")
    distribution, reading = real("numpy")
    found = {api.record.name: api for api in reading.apis}
    solve = found["numpy.linalg.solve"]
    assert solve.docstring == inspect.getdoc(numpy.linalg.solve)
    assert solve.record.parameters["required"] == ["a", "b"]
    assert solve.record.returns and solve.record.returns["title"] == "x"
    assert [error.name for error in solve.record.errors] == ["LinAlgError"]
    assert any(example.result for example in solve.record.examples)
    definition = (distribution.root / solve.file).read_text().split("\n")[solve.span[0] - 1 : solve.span[1]]
    assert isinstance(ast.parse("\n".join(definition)).body[0], ast.FunctionDef)
    assert found["numpy.array"].place == "numpy._core.multiarray.array"
