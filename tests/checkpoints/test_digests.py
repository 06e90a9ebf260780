"""Content digests against an independent implementation, and what they must notice."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from compiling import OPTIMISED
from hypothesis import given, settings
from hypothesis import strategies as st

from hephaestus_jax.checkpoints.digests import MAX_SLABS, array_digests, first_difference

DTYPES = ("float32", "bfloat16", "float16", "int32", "uint32", "int8", "uint8", "bool", "float8_e4m3fn")
SHAPES = ((), (1,), (700,), (4, 3, 2, 5), (129, 2), (1000, 3))


def digest(array):
    return array_digests({"x": jnp.asarray(array)})["x"]


def random_array(rng, shape, dtype):
    kind = np.dtype(dtype)
    if kind == np.bool_:
        return rng.integers(0, 2, shape).astype(bool)
    return np.frombuffer(rng.bytes(int(np.prod(shape)) * kind.itemsize), kind).reshape(shape)


def digest_by_python(array):
    """As the module's text describes it, element by element, in plain integers."""
    mask = (1 << 32) - 1

    def murmur(word):
        word = (word ^ word >> 16) * 0x85EBCA6B & mask
        word = (word ^ word >> 13) * 0xC2B2AE35 & mask
        return word ^ word >> 16

    def lowbias(word):
        word = (word ^ word >> 16) * 0x7FEB352D & mask
        word = (word ^ word >> 15) * 0x846CA68B & mask
        return word ^ word >> 16

    rows = np.ascontiguousarray(array).reshape(array.shape[0] if array.ndim else 1, -1)
    unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32}[rows.dtype.itemsize]
    size = max(1, -(-rows.shape[0] // MAX_SLABS))
    slabs = []
    for start in range(0, rows.shape[0], size):
        first = second = 0
        for number, row in enumerate(rows[start : start + size].view(unsigned).tolist(), start + 1):
            for place, bits in enumerate(row):
                first += murmur(bits + place * 0x9E3779B1 + murmur(number * 0xC2B2AE3D & mask) & mask)
                second += lowbias(bits ^ (place * 0x85EBCA77 + lowbias(number * 0x27D4EB2F & mask) & mask))
        slabs.append(f"{first & mask:08x}{second & mask:08x}")
    return tuple(slabs)


@pytest.mark.parametrize(
    ("shape", "dtype"), [(shape, "float32") for shape in SHAPES] + [((5, 3), dtype) for dtype in DTYPES]
)
def test_the_digest_is_the_one_described(shape, dtype):
    array = random_array(np.random.default_rng(len(shape)), shape, getattr(ml_dtypes, dtype, dtype))
    assert digest(array) == digest_by_python(array)


@settings(deadline=None)
@given(st.data())
def test_any_change_of_one_element_is_seen_in_its_slab(data):
    dtype = data.draw(st.sampled_from(("float32", "bfloat16", "int8")))
    rng = np.random.default_rng(data.draw(st.integers(0, 10)))
    array = np.array(random_array(rng, (6, 5, 3), getattr(ml_dtypes, dtype, dtype)))
    before = digest(array)
    row = data.draw(st.integers(0, 5))
    bits = array[row].view(f"uint{8 * array.itemsize}")
    bits[data.draw(st.integers(0, 4)), data.draw(st.integers(0, 2))] ^= 1 << data.draw(
        st.integers(0, 8 * array.itemsize - 1)
    )
    after = digest(array)
    assert [n for n in range(6) if before[n] != after[n]] == [row]
    assert first_difference(6, before, after) == (
        f"differs from what was saved at index {row} of its first axis (1 of 6 parts)"
    )


def test_moved_contents_are_seen():
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    found = {digest(array)}
    for other in (array[::-1], array[:, ::-1], array.reshape(6, 4), array.reshape(24), np.roll(array, 1, axis=1)):
        assert digest(other) not in found
        found.add(digest(other))
    zeros = [digest(np.zeros(shape, np.float32)) for shape in ((8,), (8, 1), (4, 2), (1, 8))]
    assert len({slab for digests in zeros for slab in digests}) > 8  # equal elements in other places


def test_bits_count_not_values():
    zero = np.zeros(3, np.float32)
    assert digest(zero) != digest(-zero)
    quiet, other = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    assert digest(np.array([quiet])) != digest(np.array([other]))
    tiny = np.array([1, 2], np.uint32).view(np.float32)  # denormal
    assert digest(tiny[:1]) != digest(tiny[1:])


def test_a_long_first_axis_is_cut_into_ranges():
    array = np.zeros((1000, 2), np.int32)
    before = digest(array)
    array[999, 1] = 1
    array[17, 0] = 1
    after = digest(array)
    assert len(before) == 125
    assert first_difference(1000, before, after) == (
        "differs from what was saved at indices 16 to 23 of its first axis (2 of 125 parts)"
    )
    assert first_difference(1000, before, before) == ""
    array[17, 0] = 0
    assert "indices 992 to 999" in first_difference(1000, before, digest(array))


def test_no_memory_of_the_arrays_size_is_needed():
    from hephaestus_jax.checkpoints import digests

    array = jax.ShapeDtypeStruct((16, 512, 512), jnp.float32)
    compiled = digests._compiled(None).lower(array).compile(OPTIMISED)
    assert compiled.memory_analysis().temp_size_in_bytes < 16 * 512 * 512 * 4 / 8
