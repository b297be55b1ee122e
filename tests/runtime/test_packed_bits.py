"""Codes of any number of bits are returned exactly, and take no more bytes than their bits."""

import numpy as np
import pytest

from dd_bench.runtime.packed_bits import pack_bits, packed_size, unpack_bits


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 7, 8, 10, 15])
@pytest.mark.parametrize("count", [1, 5, 8])
def test_codes_are_returned_exactly(bits, count):
    codes = np.random.default_rng(bits).integers(0, 2**bits, (3, 2, count))
    codes[0, 0], codes[2, 1] = 2**bits - 1, 0
    packed = pack_bits(codes, bits)
    assert packed.dtype == np.uint8 and packed.shape == (3, 2, packed_size(count, bits))
    assert np.array_equal(unpack_bits(packed, count, bits), codes)


def test_size():
    assert packed_size(10, 4) == 5 and packed_size(10, 3) == 4 and packed_size(10, 1) == 2
    assert pack_bits(np.array([1, 0, 3]), 2).tolist() == [0b01001100]
