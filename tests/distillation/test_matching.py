"""Functions shared by matching methods."""

import pytest
import torch

from dd_bench.api import DistillContext
from dd_bench.data.dataset import tensor_set
from dd_bench.data.preprocess import Normalise
from dd_bench.distillation.matching import check_norm, class_chunks, mean_match, real_batch
from dd_bench.models.architecture import Architecture
from dd_bench.models.convnet import ConvNet
from dd_bench.models.mlp import MLP
from dd_bench.runtime.runtime import Runtime

CPU = torch.device("cpu")
KNOBS = {"depth": 1, "width": 4, "activation": "relu", "pooling": "avg"}


def features(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def net(norm):
    return ConvNet((3, 8, 8), 5, norm=norm, **KNOBS)


def coded(counts=(9, 5, 12)):
    """Return a real set in which all pixels of training image i have the value i."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).flip(0)
    pixels = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
    return tensor_set(
        "coded",
        (pixels, labels),
        (pixels, labels),
        class_names=tuple("abcdef"[: len(counts)]),
        preprocess=Normalise([0.0], [1 / 255]),
        flip=False,
        licence="none",
        citation="none",
        device=CPU,
        val_fraction=0.0,
    )


def context(seed=0):
    runtime = Runtime(CPU, "fp32", None, 1, 0)
    architecture = Architecture(ConvNet, {**KNOBS, "norm": "none"}, (1, 4, 4), 3, "convnet")
    return DistillContext(seed=seed, runtime=runtime, architecture=architecture, cache=None, loop=None)


def test_mean_match_closed_form():
    real, syn = features(3, 7, 4), features(3, 2, 4, seed=1)
    expected = 0.0
    for c in range(3):
        for d in range(4):
            difference = sum(real[c, :, d]) / 7 - sum(syn[c, :, d]) / 2
            expected = expected + difference**2
    torch.testing.assert_close(mean_match(real, syn), expected)


def test_mean_match_is_zero_for_equal_means_and_not_normalised():
    real = features(2, 6, 5)
    torch.testing.assert_close(
        mean_match(real, real[:, torch.randperm(6)]), torch.zeros((), dtype=torch.float64)
    )
    torch.testing.assert_close(
        mean_match(real, real.mean(1, keepdim=True) + 1), torch.tensor(10.0, dtype=torch.float64)
    )


def test_mean_match_gradient():
    real, syn = features(2, 3, 4), features(2, 2, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: mean_match(real, s), (syn,))
    mean_match(real, syn).backward()
    expected = (syn.mean(1, keepdim=True) - real.mean(1, keepdim=True)).expand_as(syn)  # 2 / ipc, ipc = 2
    torch.testing.assert_close(syn.grad, expected.detach())


@pytest.mark.parametrize("size", [None, 1, 2, 3, 5, 9])
def test_class_chunks_cover_every_class_once(size):
    parts = list(class_chunks(5, size, net("instancenorm")))
    assert [c for part in parts for c in range(5)[part]] == list(range(5))
    assert all(part.stop - part.start <= (size or 5) for part in parts)
    assert len(parts) == -(-5 // min(size or 5, 5))


def test_batchnorm_is_never_split_in_train_mode():
    coupled = net("batchnorm")
    assert list(class_chunks(5, None, coupled)) == [slice(0, 5)]
    assert list(class_chunks(5, 5, coupled)) == [slice(0, 5)]
    with pytest.raises(ValueError, match=r"method.class_chunk=2 would change the batch statistics"):
        list(class_chunks(5, 2, coupled))
    assert len(list(class_chunks(5, 2, coupled.eval()))) == 3  # in eval mode samples are independent


@pytest.mark.parametrize("size", [0, -1])
def test_chunk_size_must_be_positive(size):
    with pytest.raises(ValueError, match=f"method.class_chunk must be an integer >= 1 or null, got {size}"):
        list(class_chunks(5, size, net("none")))


def test_check_norm():
    has = Architecture(ConvNet, {**KNOBS, "norm": "none"}, (3, 8, 8), 5, "convnet")
    lacks = Architecture(MLP, {"width": 4, "depth": 1}, (3, 8, 8), 5, "mlp")
    assert check_norm(None, has) is check_norm(None, lacks) is check_norm("batchnorm", has) is None
    assert "which MLP does not have" in check_norm("batchnorm", lacks)


def test_real_batches_are_drawn_per_class_without_replacement():
    real, ctx = coded(), context()
    first = real_batch(real, 5, ctx, 0)
    assert first.shape == (3, 5, 1, 4, 4)
    for c in range(3):
        drawn = first[c, :, 0, 0, 0].round().long()
        assert len(drawn.unique()) == 5
        assert bool((real.train.labels[drawn] == c).all())
    assert ctx.notes == []
    assert torch.equal(first, real_batch(real, 5, context(), 0))
    for other in (
        real_batch(real, 5, ctx, 1),
        real_batch(real, 5, ctx, 0, 1),
        real_batch(real, 5, context(1), 0),
    ):
        assert not torch.equal(first, other)


def test_a_small_class_limits_the_batch_with_a_note():
    real, ctx = coded(), context()
    assert real_batch(real, 8, ctx, 0).shape[1] == 5
    assert real_batch(real, 8, ctx, 1).shape[1] == 5
    assert ctx.notes == ["batches of 8 real images a class were cut to 5, the smallest class of coded"]
