"""The residual networks of IDC: sizes of maps for each stem, and torchvision's ResNet-18 as a reference."""

from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from dd_bench.models.idc_resnet import IDCResNet
from dd_bench.models.network import num_parameters
from dd_bench.runtime.seeding import seeded

AP10 = {"depth": 10, "norm": "instancenorm", "downsample": "avgpool"}
RESNET18 = {"depth": 18, "norm": "instancenorm", "downsample": "stride"}


@pytest.mark.parametrize(
    ("knobs", "side", "sides"),
    [
        (AP10, 32, [32, 16, 8, 4]),
        (AP10, 96, [48, 24, 12, 6]),
        (AP10, 224, [56, 28, 14, 7]),
        (RESNET18, 33, [33, 33, 17, 17, 9, 9, 5, 5]),
        (RESNET18, 97, [49, 49, 25, 25, 13, 13, 7, 7]),
        (RESNET18, 225, [57, 57, 29, 29, 15, 15, 8, 8]),
    ],
)
def test_sizes_of_maps(knobs, side, sides):
    with torch.device("meta"):
        net = IDCResNet((3, side, side), 10, **knobs)
        maps, embedding = net.activations(torch.empty(2, 3, side, side))
    assert [tuple(m.shape[2:]) for m in maps] == [(s, s) for s in sides]
    assert embedding.shape == (2, 512)


def test_number_of_parameters():
    with torch.device("meta"):
        assert num_parameters(IDCResNet((3, 224, 224), 10, **AP10)) == 4_910_922
        ours = num_parameters(IDCResNet((3, 224, 224), 10, **RESNET18))
        assert ours == num_parameters(resnet18(num_classes=10, norm_layer=lambda c: nn.GroupNorm(c, c)))


def test_resnet18_is_torchvisions():
    ours = IDCResNet((3, 130, 130), 7, **RESNET18).eval()
    theirs = resnet18(num_classes=7, norm_layer=lambda c: nn.GroupNorm(c, c)).eval()
    with torch.no_grad():
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            b.copy_(torch.randn_like(a) * 0.05 if a.ndim > 1 else torch.rand_like(a))
            a.copy_(b)
        x = torch.randn(2, 3, 130, 130)
        assert torch.allclose(ours(x), theirs(x), atol=1e-4)


def test_average_pooling_replaces_every_stride():
    net = IDCResNet((3, 224, 224), 10, **AP10)
    assert {m.stride for m in net.modules() if isinstance(m, nn.Conv2d)} == {(1, 1)}
    assert isinstance(net.stem[3], nn.AvgPool2d) and net.stem[3].kernel_size == 4
    assert sum(isinstance(m, nn.AvgPool2d) for m in net.blocks.modules()) == 3  # shared with the shortcuts


def test_weights_are_from_the_distribution_of_the_source():
    with seeded("cpu", 0):
        net = IDCResNet((3, 32, 32), 10, **AP10)
    for conv in (m for m in net.modules() if isinstance(m, nn.Conv2d)):
        fan_out = conv.kernel_size[0] ** 2 * conv.out_channels
        assert abs(float(conv.weight.detach().std()) * (fan_out / 2) ** 0.5 - 1) < 0.1


def test_wrong_arguments():
    build = partial(IDCResNet, (3, 32, 32), 10)
    with pytest.raises(ValueError, match=r"model\.depth must be one of 10, 18, got 34"):
        build(**AP10 | {"depth": 34})
    with pytest.raises(ValueError, match=r"model\.downsample must be one of stride, avgpool, got none"):
        build(**AP10 | {"downsample": "none"})
    with pytest.raises(ValueError, match=r"IDCResNet reduces 7x7 images .*Use model=convnet"):
        IDCResNet((3, 7, 7), 10, **AP10)
