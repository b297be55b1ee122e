"""The two implementations of the augmentation give the same images and gradients, for any draw."""

import pytest
import torch

from dd_bench.runtime.seeding import stream
from dd_bench.training.augment import Augment, Draw

STRATEGY = "color_crop_cutout_flip_scale_rotate"


def images(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def draw_of(augment, groups, per_image=None, seed=0, dtype=torch.float64):
    """Draw with numbers of type `dtype`, so that both implementations compute all parameters in this type."""
    draw = augment.draw(groups, stream("cpu", seed, "augment"), per_image)
    return Draw(draw.op, draw.values.to(dtype), {k: v.to(dtype) for k, v in draw.always.items()})


def both(augment, x, draw):
    """Return the images, and the gradient of a fixed projection of them, by each implementation."""
    projection, out = images(*x.shape, seed=9, dtype=x.dtype), []
    for implementation in ("grouped", "masked"):
        leaf = x.clone().requires_grad_()
        y = augment.apply(leaf, draw, implementation)
        out.append((y.detach(), torch.autograd.grad((y * projection).sum(), leaf)[0]))
    return out


@pytest.mark.parametrize("per_image", [None, 3])
@pytest.mark.parametrize("style", ["dsa", "idc"])
@pytest.mark.parametrize(
    ("shape", "align_corners"), [((3, 8, 8), False), ((1, 9, 7), True), ((2, 10, 12), False)], ids=str
)
def test_both_implementations_give_the_same_images_and_gradients(style, per_image, shape, align_corners):
    augment = Augment(STRATEGY, style=style, align_corners=align_corners)
    x, draw = images(24, 3, *shape), draw_of(augment, 24, per_image)
    assert len(draw.op.unique()) == len(augment.choices)
    grouped, masked = both(augment, x, draw)
    for a, b in zip(grouped, masked, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("style", ["dsa", "idc"])
def test_in_float32_they_differ_by_rounding(style):
    augment = Augment(STRATEGY, style=style)
    x, draw = images(24, 4, 3, 32, 32, dtype=torch.float32), draw_of(augment, 24, 4, dtype=torch.float32)
    grouped, masked = both(augment, x, draw)
    for a, b in zip(grouped, masked, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.5, 1 - 1e-12])
@pytest.mark.parametrize("op", STRATEGY.split("_"))
def test_extreme_and_central_numbers(op, value):
    augment, x = Augment(op), images(1, 2, 3, 8, 8)
    grouped, masked = both(augment, x, Draw(torch.tensor([0]), torch.full((1, 3), value).double(), {}))
    for a, b in zip(grouped, masked, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("strategy", ["color_cutout", "crop", "flip_rotate", "color_crop_flip_scale_rotate"])
@pytest.mark.parametrize("style", ["dsa", "idc"])
def test_part_of_the_ops(strategy, style):
    augment = Augment(strategy, style=style)
    grouped, masked = both(augment, images(8, 2, 3, 8, 8), draw_of(augment, 8))
    for a, b in zip(grouped, masked, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


class Kernels(torch.utils._python_dispatch.TorchDispatchMode):
    """Count the operations of torch, and reject those that return a value to Python."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        assert not any(word in name for word in ("_local_scalar", "nonzero", "unique", "item")), name
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("style", "per_image"), [("dsa", 2), ("dsa", None), ("idc", 2)])
def test_the_masked_implementation_reads_nothing_and_launches_few_kernels(style, per_image):
    """Its number of operations is the same for 1, 5 and 20 groups."""
    augment, counts = Augment(STRATEGY, style=style), set()
    for groups in (1, 5, 20):
        x, draw = images(groups, 2, 3, 8, 8), draw_of(augment, groups, per_image)
        augment.apply(x, draw, "masked")  # the first call makes the table of constants
        with Kernels() as kernels:
            augment.apply(x, draw, "masked")
        counts.add(kernels.count)
    assert len(counts) == 1
    assert counts.pop() <= 35


def test_constants_made_in_inference_mode_can_be_used_in_training():
    augment, x = Augment(STRATEGY), images(6, 2, 3, 8, 8)
    draw = draw_of(augment, 6)
    with torch.inference_mode():
        augment.apply(x, draw, "masked")
    augment.apply(x.requires_grad_(), draw, "masked").sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("implementation", ["grouped", "masked"])
@pytest.mark.parametrize("style", ["dsa", "idc"])
def test_stacked_draws_equal_single_calls(style, implementation):
    """Several networks, each with its own stream, are augmented in one call: the same bytes as one call for each."""
    augment, x = Augment(STRATEGY, style=style), images(9, 5, 3, 8, 8, dtype=torch.float32)
    draws = [augment.draw(1, stream("cpu", seed, "augment"), per_image=5) for seed in range(9)]
    together = augment.apply(x, Draw.stack(draws), implementation)
    for i, draw in enumerate(draws):
        assert torch.equal(together[i], augment.apply(x[i : i + 1], draw, implementation)[0])
