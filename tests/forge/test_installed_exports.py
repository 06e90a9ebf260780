"""Public names of definitions, found without importing anything."""

from __future__ import annotations

from pathlib import Path

import pytest
from installation import install, installed

from hephaestus_jax.forge.installed.exports import Exports, read_bindings, resolve_relative
from hephaestus_jax.forge.installed.modules import parse_modules
from hephaestus_jax.forge.installed.reading import ReadOptions, read_distribution
from hephaestus_jax.formats.quarantine import Quarantine


def exports(tmp_path: Path, files: dict[str, str]) -> Exports:
    install(tmp_path, "pack", files)
    quarantine = Quarantine()
    found = Exports(read_bindings(module) for module in parse_modules(installed(tmp_path, "pack"), quarantine))
    assert not quarantine
    return found


def test_a_chain_of_imports_names_its_end_and_its_links(tmp_path: Path):
    found = exports(tmp_path, {
        "pack/__init__.py": "from ._core import solve\nfrom . import linalg\n",
        "pack/linalg/__init__.py": "from pack._core._impl import solve as solve, helper\n",
        "pack/_core/__init__.py": "from ._impl import solve\n",
        "pack/_core/_impl.py": "def solve(): ...\ndef helper(): ...\ndef unused(): ...\n",
    })  # fmt: skip
    assert found.public_names("pack._core._impl", "solve") == {"pack.solve", "pack.linalg.solve"}
    assert found.public_names("pack._core", "solve") == {"pack.solve"}
    assert found.public_names("pack._core._impl", "helper") == {"pack.linalg.helper"}
    assert found.public_names("pack._core._impl", "unused") == set()


def test_stars_bring_what_all_says(tmp_path: Path):
    found = exports(tmp_path, {
        "pack/__init__.py": "from ._open import *\nfrom ._closed import *\n",
        "pack/_open.py": "from ._deep import *\ndef public(): ...\ndef _private(): ...\n",
        "pack/_deep.py": "def deep(): ...\n",
        "pack/_closed.py": "__all__ = ['named']\n__all__ += ['added']\n__all__.append('third')\n"
                           "def named(): ...\ndef added(): ...\ndef third(): ...\ndef unnamed(): ...\n",
    })  # fmt: skip
    for module, name in [("_open", "public"), ("_deep", "deep"), ("_closed", "named"), ("_closed", "added")]:
        assert found.public_names(f"pack.{module}", name) == {f"pack.{name}"}
    assert found.public_names("pack._closed", "third") == {"pack.third"}
    assert not found.public_names("pack._closed", "unnamed")
    assert not found.public_names("pack._open", "_private")


def test_a_private_module_becomes_public_under_another_name(tmp_path: Path):
    found = exports(tmp_path, {
        "pack/__init__.py": "from pack._api import nn\nimport pack._api.other as abbreviation\n",
        "pack/_api/__init__.py": "",
        "pack/_api/nn/__init__.py": "from pack.impl import relu\n",
        "pack/_api/other.py": "def inside(): ...\n",
        "pack/impl.py": "def relu(): ...\nrectify = relu\n",
    })  # fmt: skip
    assert found.public_names("pack.impl", "relu") == {"pack.nn.relu", "pack.impl.relu", "pack.impl.rectify"}
    assert not found.public_names("pack._api.other", "inside")


def test_imports_of_a_plain_module_are_its_own_unless_it_says_so(tmp_path: Path):
    found = exports(tmp_path, {
        "pack/__init__.py": "",
        "pack/user.py": "from pack._impl import tool\n",
        "pack/giver.py": "from pack._impl import tool as tool\n",
        "pack/lister.py": "from pack._impl import tool\n__all__ = ['tool']\n",
        "pack/passer.py": "from pack._impl import *\n",
        "pack/_impl.py": "def tool(): ...\n",
    })  # fmt: skip
    assert found.public_names("pack._impl", "tool") == {"pack.giver.tool", "pack.lister.tool", "pack.passer.tool"}


def test_fallbacks_and_type_checking_blocks_count(tmp_path: Path):
    found = exports(tmp_path, {
        "pack/__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ._lazy import late\n"
                            "try:\n    from ._c import fast\nexcept ImportError:\n    from ._slow import fast\n",
        "pack/_lazy.py": "def late(): ...\n",
        "pack/_slow.py": "def fast(): ...\n",
        "pack/gone.py": "from ._slow import fast as fast\ndel fast\n",
    })  # fmt: skip
    assert found.public_names("pack._lazy", "late") == {"pack.late"}
    assert "pack.gone.fast" not in found.public_names("pack._slow", "fast")


def test_circles_end(tmp_path: Path):
    found = exports(tmp_path, {
        "pack/__init__.py": "from . import a, b\nfrom .a import *\n",
        "pack/a/__init__.py": "from .. import b as b\nfrom pack.b import *\ndef f(): ...\n",
        "pack/b/__init__.py": "from pack import a as a\nfrom pack.a import *\nfrom pack.b import lost\n",
    })  # fmt: skip
    assert min(found.public_names("pack.a", "f"), key=len) == "pack.f"
    assert len(found.public_names("pack.a", "f")) < 20


@pytest.mark.parametrize(
    ("package", "level", "module", "expected"),
    [("a.b", 0, "c.d", "c.d"), ("a.b", 1, None, "a.b"), ("a.b", 1, "c", "a.b.c"), ("a.b", 2, "c", "a.c")],
)
def test_relative_imports(package, level, module, expected):
    assert resolve_relative(package, level, module) == expected


DOCUMENTED = '"""{} is documented in more than the fifty characters it takes to be kept."""'


def test_decorators_state_official_names(tmp_path: Path):
    text = f"""
from tensorflow.python.util.tf_export import tf_export
import functools

export = util.set_module("jax.numpy")
dispatch = functools.partial(array_function_dispatch, module="numpy.linalg")

@tf_export("nn.relu", "relu", v1=["old.relu", "__internal__.relu"])
def relu(x):
    {DOCUMENTED.format("relu")}

@keras_export(["keras.layers.Dense", "keras.Dense"])
class Dense:
    {DOCUMENTED.format("Dense")}
    def build(self):
        {DOCUMENTED.format("build")}

@export
def where(x):
    {DOCUMENTED.format("where")}

@dispatch(None)
def solve(x):
    {DOCUMENTED.format("solve")}
"""
    install(tmp_path, "pack", {"pack/_impl.py": text})
    apis = read_distribution(installed(tmp_path, "pack"), ReadOptions(), Quarantine()).apis
    names = {api.qualname: (api.record.name, set(api.aliases)) for api in apis}
    assert names == {
        "relu": ("tensorflow.relu", {"tensorflow.relu", "tensorflow.nn.relu", "tensorflow.compat.v1.old.relu",
                                     "pack._impl.relu"}),
        "Dense": ("keras.Dense", {"keras.Dense", "keras.layers.Dense", "pack._impl.Dense"}),
        "Dense.build": ("keras.Dense.build", {"keras.Dense.build", "keras.layers.Dense.build",
                                              "pack._impl.Dense.build"}),
        "where": ("jax.numpy.where", {"jax.numpy.where", "pack._impl.where"}),
        "solve": ("numpy.linalg.solve", {"numpy.linalg.solve", "pack._impl.solve"}),
    }  # fmt: skip
