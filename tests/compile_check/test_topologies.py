"""Names of topologies, and what of them is refused."""

from __future__ import annotations

import pytest

from hephaestus_jax.compile_check.topologies import GIB, parse_topology
from hephaestus_jax.errors import UserError


@pytest.mark.parametrize(
    ("text", "chips", "rings"),
    [
        ("v5e:16x16", 256, (True, True)),
        ("v5e:4x4", 16, (False, False)),
        ("v5e:8x16", 128, (False, True)),
        ("v6e:2x4", 8, (False, False)),
        ("v5p:4x4x4", 64, (True, True, True)),
        ("v5p:2x4x4", 32, (False, False, False)),
        ("v4:4x4x8", 128, (True, True, True)),
        ("2*v5e:16x16", 512, (True, True)),
    ],
)
def test_names(text: str, chips: int, rings: tuple[bool, ...]) -> None:
    topology = parse_topology(text)
    assert (str(topology), topology.chips, topology.rings) == (text, chips, rings)


def test_memory_is_what_the_compiler_may_use() -> None:
    """A 16 GB chip does not give all of it."""
    assert 15 * GIB < parse_topology("v5e:2x2").generation.hbm < 16 * GIB


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("v5p-512", "name a slice by its shape in chips"),
        ("v5e", "name a slice by its shape in chips"),
        ("", "name a slice by its shape in chips"),
        ("h100:8x8", "known are v4, v5e, v5p, v6e"),
        ("v5e:4x4x4", "has 2 dimensions, not 3; for example v5e:4x4"),
        ("v4:8x8", "has 3 dimensions, not 2; for example v4:4x4x4"),
        ("v5e:3x4", "hosts of 2x2 chips"),
        ("v5p:0x4x4", "hosts of 2x2x1 chips"),
        ("0*v5e:4x4", "for example"),
    ],
)
def test_a_wrong_one_is_one_line_that_says_what_is_known(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_topology(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
