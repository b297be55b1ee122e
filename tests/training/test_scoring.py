"""Scoring: the size of the batches."""

import torch

from dd_bench.data.dataset import TensorSplit
from dd_bench.data.preprocess import Normalise
from dd_bench.models.network import largest_activation
from dd_bench.training import scoring

CPU = torch.device("cpu")


def test_batches_bound_the_activations_and_do_not_change_the_logits(make_architecture, monkeypatch):
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 3, 16, 16), generator=draw, dtype=torch.uint8)
    split = TensorSplit(pixels, torch.zeros(40).long(), 3, Normalise([0.5] * 3, [0.25] * 3))
    net = make_architecture(shape=split.shape).fresh(0, CPU).eval()
    per_image = largest_activation(net, split.shape)
    assert per_image == 8 * 16 * 16, "the output of the first convolution"
    (whole,) = (x for x, _ in scoring.eval_batches(net, split))
    monkeypatch.setattr(scoring, "ACTIVATION_BYTES", 4 * per_image * 7 + 1)
    parts = [x for x, _ in scoring.eval_batches(net, split)]
    assert [len(x) for x in parts] == [7] * 5 + [5]
    with torch.no_grad():
        assert torch.equal(torch.cat([net(x) for x in parts]), net(whole))
    monkeypatch.setattr(scoring, "ACTIVATION_BYTES", 1)
    assert scoring.eval_batch_size(net, split.shape) == 1


def test_default_convnet_on_cifar(make_architecture):
    """With 1000 images in a batch, the largest activation has 524 MB."""
    net = make_architecture(shape=(3, 32, 32), width=128, depth=3).fresh(0, CPU)
    size = scoring.eval_batch_size(net, (3, 32, 32))
    assert 4 * size * 128 * 32 * 32 <= scoring.ACTIVATION_BYTES < 4 * (size + 1) * 128 * 32 * 32
    small = make_architecture(shape=(1, 8, 8), width=32).fresh(0, CPU)
    assert scoring.eval_batch_size(small, (1, 8, 8)) == 1000
