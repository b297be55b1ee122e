"""Bilinear sampling by indexing equals `grid_sample`, with gradients of first and second order."""

import pytest
import torch
import torch.nn.functional as F

from dd_bench.training.sampling import gather_bilinear, sample_bilinear


def images_and_grid(dtype=torch.float64):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 5, 7, generator=rng, dtype=dtype)
    grid = 1.3 * (2 * torch.rand(3, 4, 6, 2, generator=rng, dtype=dtype) - 1)  # some positions are outside
    grid[0, 0, 0], grid[0, 0, 1], grid[0, 0, 2] = -1.0, 1.0, 0.0
    return x, grid


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border"])
def test_gathering_equals_grid_sample(padding, align_corners):
    x, grid = images_and_grid()
    leaf, twin = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = F.grid_sample(leaf, grid, padding_mode=padding, align_corners=align_corners)
    out = gather_bilinear(twin, grid, padding=padding, align_corners=align_corners)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    weight = torch.randn_like(expected)
    (gradient,) = torch.autograd.grad((expected * weight).sum(), leaf)
    torch.testing.assert_close(
        torch.autograd.grad((out * weight).sum(), twin)[0], gradient, rtol=0, atol=1e-12
    )


def test_derivatives_of_first_and_second_order():
    x, grid = images_and_grid()
    x.requires_grad_()

    def sampled(x):
        return gather_bilinear(x, grid, align_corners=False).pow(3)

    assert torch.autograd.gradcheck(sampled, x)
    assert torch.autograd.gradgradcheck(sampled, x)


def test_grid_sample_is_used_on_the_cpu():
    x, grid = images_and_grid(torch.float32)
    torch.use_deterministic_algorithms(True)
    try:
        out = sample_bilinear(x, grid, align_corners=False)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(out, F.grid_sample(x, grid, align_corners=False))
