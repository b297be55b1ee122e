"""Multi-formation: tiles of a stored image, upsampled; and mosaics, which undo it as far as that can be."""

import pytest
import torch
import torch.nn.functional as F

from dd_bench.decode import decode, encode


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_factor_one_changes_nothing():
    x = images(2, 3, 5, 7)
    assert torch.equal(decode(x, 1), x)
    assert torch.equal(encode(x, 1), x)


@pytest.mark.parametrize(("factor", "side"), [(2, 8), (3, 12), (2, 7), (3, 8), (3, 10)])
def test_decode_is_each_tile_upsampled(factor, side):
    x = images(4, 2, side, side)
    tile = -(-side // factor)
    padded = F.pad(x, (0, factor * tile - side, 0, factor * tile - side), value=0.5)
    out = decode(x, factor)
    assert out.shape == (4 * factor**2, 2, side, side)
    for n in range(4):
        for i in range(factor):
            for j in range(factor):
                piece = padded[n : n + 1, :, i * tile : i * tile + tile, j * tile : j * tile + tile]
                wanted = F.interpolate(piece, size=(side, side), mode="bilinear", align_corners=False)[0]
                torch.testing.assert_close(out[(n * factor + i) * factor + j], wanted)


@pytest.mark.parametrize(("factor", "height", "width"), [(2, 8, 8), (3, 9, 12), (2, 8, 10)])
def test_constant_tiles_survive_the_round_trip(factor, height, width):
    levels = images(5 * factor**2, 3)[:, :, None, None]
    tiles = levels.expand(-1, -1, height, width)
    stored = encode(tiles, factor)
    assert stored.shape == (5, 3, height, width)
    torch.testing.assert_close(decode(stored, factor), tiles)


def test_constant_tiles_keep_their_order_where_the_factor_does_not_divide_the_side():
    tiles = torch.arange(4.0)[:, None, None, None].expand(4, 1, 7, 7) / 4
    out = decode(encode(tiles, 2), 2)
    torch.testing.assert_close(out[:, :, :4, :4], tiles[:, :, :4, :4])  # away from the padding


@pytest.mark.parametrize("factor", [2, 3])
def test_values_stay_in_the_unit_interval(factor):
    x = images(9, 1, 7, 7).round()
    for out in (decode(x, factor), encode(x.repeat(factor**2, 1, 1, 1), factor)):
        assert float(out.min()) >= 0
        assert float(out.max()) <= 1 + 1e-12


def test_decode_is_differentiable_and_takes_any_memory_layout():
    x = images(1, 2, 5, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: decode(x, 2), (x,))
    y = images(2, 3, 8, 8)
    torch.testing.assert_close(decode(y.contiguous(memory_format=torch.channels_last), 2), decode(y, 2))
