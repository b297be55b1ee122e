"""Straight-through quantisation of the images of a method, `method.bits`."""

import pytest
import torch

from dd_bench.distillation.straight_through import StraightThrough
from dd_bench.synthetic.quantisation import Quantiser, dequantise, quantise, round_images


def test_rounding_is_quantising_with_a_range_per_image():
    images = torch.randn(5, 2, 7, 8, generator=torch.Generator().manual_seed(0))
    for bits in (1, 3, 8):
        quantiser = Quantiser(bits, "image")
        assert torch.equal(
            round_images(images, quantiser), dequantise(quantise(images, quantiser), quantiser)
        )


def test_steps_equal_those_of_an_optimiser_with_straight_through_gradients():
    draw = torch.Generator().manual_seed(0)
    start, target = torch.randn(2, 3, 1, 4, 4, generator=draw), torch.randn(2, 3, 1, 4, 4, generator=draw)

    def loss(images):
        return (images - target).square().sum()

    images = start.clone().requires_grad_()
    quantised = StraightThrough(images, 2)
    optimizer = torch.optim.SGD([images], lr=0.05, momentum=0.5)
    latent = start.clone().requires_grad_()
    expected = torch.optim.SGD([latent], lr=0.05, momentum=0.5)
    for _ in range(5):
        with quantised.step():
            optimizer.zero_grad()
            loss(images).backward()
            optimizer.step()
        rounded = round_images(latent.detach().flatten(0, 1), Quantiser(2)).view(latent.shape)
        expected.zero_grad()
        loss(latent + (rounded - latent).detach()).backward()
        expected.step()
    torch.testing.assert_close(quantised.latent, latent.detach())
    assert not torch.equal(quantised.latent, start)
    assert all(len(image.unique()) <= 4 for image in images.detach().flatten(0, 1))


def test_a_method_distils_quantised_images_and_continues_after_a_kill(make_method, make_ctx, train_blobs):
    method = make_method("dm", iterations=4)

    def distil(work, killed_at=None):
        ctx = make_ctx(work=work, killed_at=killed_at)
        ctx.bits = 2
        syn = method.distill(train_blobs, 2, ctx)
        ctx.check_bits_used()
        return syn.images

    whole = distil("whole")
    assert all(2 <= len(image.unique()) <= 4 for image in whole)
    with pytest.raises(KeyboardInterrupt):
        distil("killed", killed_at=2)
    assert torch.equal(distil("killed"), whole)


def test_a_method_without_optimised_images_is_refused(make_method, make_ctx, train_blobs):
    ctx = make_ctx()
    ctx.bits = 2
    make_method("random").distill(train_blobs, 1, ctx)
    with pytest.raises(
        ValueError, match=r"method.bits=2 requires a method that optimises images.*store=uint2"
    ):
        ctx.check_bits_used()
