"""Multi-formation decoding of stored images, and encoding, which approximately inverts it."""

import pytest
import torch
import torch.nn.functional as F

from dd_bench.data.decode import cut, decode, encode, tile


def images(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_factor_one_is_the_identity():
    x = images(2, 3, 5, 7)
    assert torch.equal(decode(x, 1), x)
    assert torch.equal(encode(x, 1), x)


@pytest.mark.parametrize(("factor", "side"), [(2, 8), (3, 12), (2, 7), (3, 8), (3, 10)])
def test_decode_upsamples_each_tile(factor, side):
    x = images(4, 2, side, side)
    tile = -(-side // factor)
    padded = F.pad(x, (0, factor * tile - side, 0, factor * tile - side), value=0.5)
    out = decode(x, factor)
    assert out.shape == (4 * factor**2, 2, side, side)
    for n in range(4):
        for i in range(factor):
            for j in range(factor):
                piece = padded[n : n + 1, :, i * tile : i * tile + tile, j * tile : j * tile + tile]
                expected = F.interpolate(piece, size=(side, side), mode="bilinear", align_corners=False)[0]
                torch.testing.assert_close(out[(n * factor + i) * factor + j], expected)


@pytest.mark.parametrize(("factor", "height", "width"), [(2, 8, 8), (3, 9, 12), (2, 8, 10)])
def test_constant_tiles_are_unchanged_by_encode_and_decode(factor, height, width):
    levels = images(5 * factor**2, 3)[:, :, None, None]
    tiles = levels.expand(-1, -1, height, width)
    stored = encode(tiles, factor)
    assert stored.shape == (5, 3, height, width)
    torch.testing.assert_close(decode(stored, factor), tiles)


def test_order_of_constant_tiles_if_the_factor_does_not_divide_the_side():
    tiles = torch.arange(4.0)[:, None, None, None].expand(4, 1, 7, 7) / 4
    out = decode(encode(tiles, 2), 2)
    torch.testing.assert_close(out[:, :, :4, :4], tiles[:, :, :4, :4])  # away from the padding


@pytest.mark.parametrize("factor", [2, 3])
def test_values_remain_in_the_unit_interval(factor):
    x = images(9, 1, 7, 7).round()
    for out in (decode(x, factor), encode(x.repeat(factor**2, 1, 1, 1), factor)):
        assert float(out.min()) >= 0
        assert float(out.max()) <= 1 + 1e-12


def test_decode_is_differentiable_and_accepts_any_memory_layout():
    x = images(1, 2, 5, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: decode(x, 2), (x,))
    y = images(2, 3, 8, 8)
    torch.testing.assert_close(decode(y.contiguous(memory_format=torch.channels_last), 2), decode(y, 2))


class TestTiles:
    """`cut` and `tile` only rearrange values."""

    def test_by_hand(self):
        canvas = torch.arange(16.0).view(1, 1, 4, 4)
        tiles = cut(canvas, 2)[:, 0].tolist()
        assert tiles == [[[0, 1], [4, 5]], [[2, 3], [6, 7]], [[8, 9], [12, 13]], [[10, 11], [14, 15]]]
        assert torch.equal(tile(cut(canvas, 2), 2), canvas)

    @pytest.mark.parametrize(("factor", "height", "width"), [(1, 5, 7), (2, 8, 6), (3, 9, 3), (4, 4, 8)])
    def test_cut_and_tile_are_inverses(self, factor, height, width):
        canvas = images(2, 3, height, width)
        tiles = cut(canvas, factor)
        assert tiles.shape == (2 * factor**2, 3, height // factor, width // factor)
        assert torch.equal(tile(tiles, factor), canvas)
        small = images(2 * factor**2, 3, height, width)
        large = tile(small, factor)
        assert large.shape == (2, 3, factor * height, factor * width)
        assert torch.equal(cut(large, factor), small)

    def test_tiles_of_an_image_are_consecutive_in_row_major_order(self):
        canvas = images(3, 2, 9, 6)
        tiles = cut(canvas, 3)
        for n in range(3):
            for i in range(3):
                for j in range(3):
                    piece = canvas[n, :, 3 * i : 3 * i + 3, 2 * j : 2 * j + 2]
                    assert torch.equal(tiles[9 * n + 3 * i + j], piece)

    def test_uint8_and_gradients_are_supported(self):
        pixels = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8)
        assert cut(pixels, 2).dtype == torch.uint8 and torch.equal(tile(cut(pixels, 4), 4), pixels)
        x = images(4, 1, 2, 2).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: tile(x, 2), (x,))
        assert torch.autograd.gradcheck(lambda x: cut(x, 2), (x,))

    def test_outputs_are_contiguous(self):
        assert cut(images(2, 3, 4, 4), 2).is_contiguous() and tile(images(4, 3, 2, 2), 2).is_contiguous()

    @pytest.mark.parametrize(("factor", "side"), [(2, 8), (3, 12), (2, 7), (3, 10)])
    def test_encode_and_decode_equal_a_direct_implementation(self, factor, side):
        """Bitwise comparison with an implementation without `cut` and `tile`."""
        x = images(2 * factor**2, 3, side, side).float()
        rows = -(-side // factor)
        shrunk = F.interpolate(x, size=(rows, rows), mode="bilinear", align_corners=False, antialias=True)
        grid = shrunk.view(-1, factor, factor, 3, rows, rows).permute(0, 3, 1, 4, 2, 5)
        mosaic = grid.reshape(-1, 3, factor * rows, factor * rows)[:, :, :side, :side].clone()
        assert torch.equal(encode(x, factor), mosaic) and encode(x, factor).is_contiguous()
        padded = F.pad(mosaic, (0, -side % factor, 0, -side % factor), value=0.5)
        tiles = padded.view(2, 3, factor, rows, factor, rows).permute(0, 2, 4, 1, 3, 5)
        tiles = tiles.reshape(-1, 3, rows, rows)
        expected = F.interpolate(tiles, size=(side, side), mode="bilinear", align_corners=False)
        assert torch.equal(decode(mosaic, factor), expected)
