"""Changes of colours: against the ops one after the other, in every order, and distributions of the light."""

from itertools import permutations

import pytest
import torch

from dd_bench.training.colour import COMPONENTS, SPREAD, ColourRecipe, change_colours, colour_numbers

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
JITTER = ColourRecipe(brightness=0.4, contrast=0.3, saturation=0.2, lighting=0.0, mean=MEAN, std=STD)


def normalised(pixels):
    mean, std = (torch.tensor(v, dtype=pixels.dtype).view(3, 1, 1) for v in (MEAN, STD))
    return (pixels - mean) / std


def pixels_of(inputs):
    mean, std = (torch.tensor(v, dtype=inputs.dtype).view(3, 1, 1) for v in (MEAN, STD))
    return inputs * std + mean


def images(n=4, side=5):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def slow(image, op, amount):
    """Mix black, the grey image or its mean into one image of pixels, as the released code does."""
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    other = {"brightness": torch.zeros_like(image), "saturation": grey.expand(3, -1, -1)}.get(
        op, torch.full_like(image, float(grey.mean()))
    )
    return image.lerp(other, amount)


@pytest.mark.parametrize("order", list(permutations(["brightness", "contrast", "saturation"])), ids="-".join)
def test_jitter_equals_the_ops_in_every_order(order):
    x, numbers = images(), colour_numbers(4, 0, 0).double()
    ours = pixels_of(change_colours(normalised(x), numbers, JITTER))
    for image, u, found in zip(x, numbers, ours, strict=True):
        amounts = {
            name: float(2 * u[i] - 1) * getattr(JITTER, name)
            for i, name in enumerate(("brightness", "contrast", "saturation"))
        }
        for op in order:
            image = slow(image, op, amounts[op])
        assert torch.allclose(found, image, atol=1e-12)


def test_light_adds_one_colour_per_image_along_the_components():
    recipe = ColourRecipe(brightness=0, contrast=0, saturation=0, lighting=0.1, mean=MEAN, std=STD)
    n = 4000
    x = images(1, 1).expand(n, -1, -1, -1)
    added = pixels_of(change_colours(normalised(x), colour_numbers(n, 0, 0).double(), recipe)) - x
    along = added[:, :, 0, 0] @ torch.tensor(COMPONENTS, dtype=torch.float64)
    assert torch.allclose(along.std(0), 0.1 * torch.tensor(SPREAD, dtype=torch.float64), rtol=0.05)
    assert float(along.mean(0).abs().max()) < 5 * 0.1 * SPREAD[0] / n**0.5
    still = ColourRecipe(brightness=0, contrast=0, saturation=0, lighting=0, mean=MEAN, std=STD)
    assert torch.allclose(change_colours(x[:2], colour_numbers(2, 0, 0).double(), still), x[:2])


def test_components_are_orthonormal():
    components = torch.tensor(COMPONENTS)
    assert torch.allclose(components.t() @ components, torch.eye(3), atol=1e-3)


def test_numbers_depend_on_seed_and_epoch():
    first = colour_numbers(6, 0, 0)
    assert torch.equal(first, colour_numbers(6, 0, 0)) and bool(
        (first[:, :3] >= 0).all() & (first[:, :3] < 1).all()
    )
    assert not torch.equal(first, colour_numbers(6, 1, 0)) and not torch.equal(first, colour_numbers(6, 0, 1))


def test_differentiable_and_three_channels_only():
    x, numbers = images(2, 3).requires_grad_(), colour_numbers(2, 0, 0).double()
    assert torch.autograd.gradcheck(lambda x: change_colours(x, numbers, JITTER), (x,), atol=1e-6)
    with pytest.raises(
        ValueError, match=r"requires images with three channels, got 1\. Use views\.colour=null"
    ):
        change_colours(torch.zeros(2, 1, 3, 3), numbers, JITTER)
