"""DC's augmentation: comparison with slow per-image references (SciPy for rotation), and the random values."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from dd_bench.records.config_diff import shipped_config
from dd_bench.runtime.seeding import stream
from dd_bench.training.batches import recipe_augment
from dd_bench.training.per_image_augment import OPS, PerImageAugment, crop, rotate, scale
from dd_bench.training.protocol import Protocol

SHAPES = [(1, 28, 28), (3, 9, 9), (2, 7, 10)]


def images(n, shape, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def centre_crop(x, h, w):
    """Crop the last two dimensions at the centre; the start is rounded towards zero, as in the reference."""
    top, left = int((x.shape[-2] - h) / 2), int((x.shape[-1] - w) / 2)
    return x[..., top : top + h, left : left + w]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rotation_equals_scipy_at_every_angle(shape):
    angles = torch.arange(-45, 45)
    x = images(len(angles), shape)
    out = rotate(x, angles.double(), torch.tensor(0.3))
    for i, angle in enumerate(angles.tolist()):
        expected = ndimage.rotate(x[i].numpy(), angle, axes=(-2, -1), cval=float(torch.tensor(0.3)))
        np.testing.assert_allclose(out[i], centre_crop(expected, *shape[1:]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scaling_equals_nearest_neighbour_on_a_canvas(shape):
    c, h, w = shape
    factor = 0.8 + 0.4 * torch.rand(60, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = images(60, shape)
    for image, (down, across), out in zip(x, factor.tolist(), scale(x, factor), strict=True):
        height, width = int(down * h), int(across * w)
        side = max(height, width, h, w)
        canvas = torch.zeros(c, side, side, dtype=x.dtype)
        top, left = int((side - height) / 2), int((side - width) / 2)
        canvas[:, top : top + height, left : left + width] = F.interpolate(image[None], [height, width])[0]
        assert torch.equal(out, centre_crop(canvas, h, w))


def test_crop_equals_a_cut_of_the_padded_image():
    x, fill = images(64, (2, 8, 6)), torch.tensor([0.5, -2.0], dtype=torch.float64)
    offset = torch.cartesian_prod(torch.arange(8), torch.arange(8))
    for image, (top, left), out in zip(x, offset.tolist(), crop(x, offset, fill), strict=True):
        padded = fill[:, None, None].expand(2, 16, 14).clone()
        padded[:, 4:12, 4:10] = image
        torch.testing.assert_close(out, padded[:, top : top + 8, left : left + 6])


def test_every_image_has_its_own_op_and_values():
    """Images of a large batch are identical, so that different results come from different draws."""
    image = images(1, (1, 8, 8))
    n = 4000
    out = PerImageAugment("crop_noise").batch(image.expand(n, -1, -1, -1), stream("cpu", 0, "augment"))
    change = (out - image).flatten(1)
    noisy = (change.abs().amax(1) < 0.01) & (change.abs().amin(1) > 0)
    assert abs(int(noisy.sum()) - n / 2) < 5 * (n / 4) ** 0.5
    assert float(change[noisy].std()) == pytest.approx(1e-3, rel=0.02)
    assert len(out[~noisy].unique(dim=0)) == 64  # offsets 0..7 per axis


def test_offsets_factors_and_angles_cover_their_ranges(monkeypatch):
    seen = {}
    for name, function in (("crop", crop), ("scale", scale), ("rotate", rotate)):

        def record(x, values, *fill, name=name, function=function):
            seen[name] = values
            return function(x, values, *fill)

        monkeypatch.setattr(f"dd_bench.training.per_image_augment.{name}", record)
        PerImageAugment(name).batch(images(4000, (1, 4, 4)), stream("cpu", 1, "augment"))
    assert seen["crop"].unique().tolist() == list(range(8))
    assert seen["rotate"].unique().tolist() == list(range(-45, 45))
    assert 0.8 <= float(seen["scale"].min()) < 0.801 and 1.199 < float(seen["scale"].max()) <= 1.2


def test_fill_colours_are_means_of_the_batch():
    x = images(50, (2, 8, 8)) + torch.tensor([3.0, -1.0])[:, None, None]
    out = PerImageAugment("crop").batch(x, stream("cpu", 2, "augment"))
    for channel in range(2):
        fill = x[:, channel].mean()
        assert bool(torch.isclose(out[:, channel], fill, rtol=0, atol=1e-12).any(1).any(1).sum() > 40)


def test_a_seed_repeats_and_the_input_is_unchanged():
    x = images(20, (1, 8, 8))
    before = x.clone()
    first, again = (PerImageAugment("_".join(OPS)).batch(x, stream("cpu", 3, "augment")) for _ in range(2))
    assert torch.equal(first, again) and torch.equal(x, before) and not torch.equal(first, x)
    assert PerImageAugment("none").batch(x, stream("cpu", 3, "augment")) is x


def test_unknown_op():
    with pytest.raises(
        ValueError, match="unknown augmentation 'flip' in 'crop_flip' with augment_style=per_image"
    ):
        PerImageAugment("crop_flip")


@pytest.mark.parametrize(
    ("name", "ops"), [("dc-mnist-1000", ("crop", "scale", "rotate")), ("dc-bn-1000", ("crop", "noise"))]
)
def test_protocols_of_dc_use_it(name, ops):
    protocol = Protocol.model_validate(shipped_config("protocol", name))
    augment = recipe_augment(protocol.recipe, flip=True)
    assert isinstance(augment, PerImageAugment) and augment.ops == ops


@pytest.mark.parametrize("strategy", ["crop_scale_rotate", "crop_noise"])
def test_both_implementations_give_the_same_images(strategy):
    """`masked` applies every op to all images and selects; it is used on a GPU, which must not wait for the op."""
    x = images(24, (3, 9, 9))
    grouped, masked = (
        PerImageAugment(strategy).batch(x, stream("cpu", 0, "augment"), implementation)
        for implementation in ("grouped", "masked")
    )
    torch.testing.assert_close(masked, grouped, rtol=0, atol=1e-12)
