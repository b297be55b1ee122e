"""MLP, LeNet, AlexNet, VGG11 and ResNet18: parameter counts and map sizes of the reference, and other image sizes."""

import pytest
import torch
import torchvision

from dd_bench.models.alexnet import AlexNet
from dd_bench.models.architecture import Architecture
from dd_bench.models.lenet import LeNet
from dd_bench.models.mlp import MLP
from dd_bench.models.network import batch_coupled, num_parameters
from dd_bench.models.resnet import ResNet18
from dd_bench.models.vgg import VGG11

GREY, COLOUR = (1, 28, 28), (3, 32, 32)


def mlp(shape):
    return MLP(shape, 10, width=128, depth=2)


def lenet(shape):
    return LeNet(shape, 10)


def alexnet(shape, norm="none"):
    return AlexNet(shape, 10, norm=norm)


def vgg(shape, norm="instancenorm"):
    return VGG11(shape, 10, norm=norm)


def resnet(shape, norm="instancenorm"):
    return ResNet18(shape, 10, norm=norm, downsample="stride")


def resnet_ap(shape, norm="instancenorm"):
    return ResNet18(shape, 10, norm=norm, downsample="avgpool")


def outputs(make, shape):
    """Return the channels and heights of the maps and the size of the embedding, computed on the meta device."""
    with torch.device("meta"):
        maps, embedding = make(shape).activations(torch.empty(2, *shape))
    return [(m.shape[1], m.shape[2]) for m in maps], embedding.shape[1]


def conv(channels, out, kernel, bias=True):
    return channels * out * kernel**2 + (out if bias else 0)


def alexnet_parameters(channels):
    sizes = [(channels, 128, 5), (128, 192, 5), (192, 256, 3), (256, 192, 3), (192, 192, 3)]
    return sum(conv(*size) for size in sizes) + (192 * 16 + 1) * 10


@pytest.mark.parametrize(
    ("make", "shape", "expected"),
    [
        (mlp, COLOUR, 3072 * 128 + 128 + 128 * 129 + 1290),
        (mlp, GREY, 784 * 128 + 128 + 128 * 129 + 1290),
        (lenet, COLOUR, 62_006),
        (lenet, GREY, 61_706),
        (alexnet, COLOUR, alexnet_parameters(3)),
        (alexnet, GREY, alexnet_parameters(1)),
        (vgg, COLOUR, 9_231_114),
        (vgg, GREY, 9_231_114 - 2 * 9 * 64),
        (resnet, COLOUR, 11_173_962),
        (resnet, GREY, 11_173_962 - 2 * 9 * 64),
        (resnet_ap, COLOUR, 11_173_962 + 15 * 5120),
        (resnet_ap, GREY, 11_173_962 - 2 * 9 * 64 + 8 * 5120),
    ],
)
def test_number_of_parameters_is_that_of_the_reference(make, shape, expected):
    with torch.device("meta"):
        assert num_parameters(make(shape)) == expected


@pytest.mark.parametrize(
    ("make", "shape", "maps", "embedding"),
    [
        (mlp, (3, 64, 64), [], 128),
        (lenet, COLOUR, [(6, 28), (16, 10)], 84),
        (lenet, GREY, [(6, 28), (16, 10)], 84),
        (alexnet, COLOUR, [(128, 32), (192, 16), (256, 8), (192, 8), (192, 8)], 192 * 16),
        (alexnet, GREY, [(128, 32), (192, 16), (256, 8), (192, 8), (192, 8)], 192 * 16),
        (alexnet, (1, 8, 8), [(128, 12), (192, 6), (256, 3), (192, 3), (192, 3)], 192),
        (vgg, GREY, [(64, 32), (128, 16), (256, 8), (256, 8), (512, 4), (512, 4), (512, 2), (512, 2)], 512),
        (resnet, GREY, [(64, 28)] * 2 + [(128, 14)] * 2 + [(256, 7)] * 2 + [(512, 4)] * 2, 512),
        (resnet_ap, GREY, [(64, 28)] * 2 + [(128, 14)] * 2 + [(256, 7)] * 2 + [(512, 3)] * 2, 512 * 9),
        (resnet_ap, COLOUR, [(64, 32)] * 2 + [(128, 16)] * 2 + [(256, 8)] * 2 + [(512, 4)] * 2, 512 * 16),
    ],
)
def test_maps_and_embedding(make, shape, maps, embedding):
    assert outputs(make, shape) == (maps, embedding)


@pytest.mark.parametrize("make", [mlp, lenet, alexnet, vgg, resnet, resnet_ap])
@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 64, 64), (3, 128, 128), (3, 48, 65)])
def test_larger_images_change_only_the_classifier(make, shape):
    with torch.device("meta"):
        assert make(shape)(torch.empty(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize("norm", ["none", "batchnorm", "layernorm", "instancenorm", "groupnorm"])
@pytest.mark.parametrize("make", [alexnet, vgg, resnet, resnet_ap])
def test_every_norm_is_supported(make, norm):
    with torch.device("meta"):
        net = make(GREY, norm=norm)
        assert net(torch.empty(2, *GREY)).shape == (2, 10)
    assert batch_coupled(net) == (norm == "batchnorm")


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (lenet, (1, 8, 8), "LeNet reduces 8x8 images to an empty map. Use model=convnet"),
        (alexnet, (3, 7, 7), "AlexNet reduces 7x7 images to an empty map"),
        (vgg, (3, 28, 28), "VGG11 reduces 28x28 images to one value per channel, .* Use model=convnet"),
        (lambda shape: vgg(shape, "batchnorm"), (3, 28, 28), "VGG11 reduces 28x28 images to an empty map"),
        (
            resnet,
            (1, 8, 8),
            "one value per channel, which instancenorm makes constant. Use model=resnet18_bn",
        ),
        (resnet_ap, (1, 8, 8), "instancenorm makes constant"),
        (
            lambda shape: resnet_ap(shape, "batchnorm"),
            (1, 7, 7),
            "ResNet18 reduces 7x7 images to an empty map",
        ),
        (lambda shape: MLP(shape, 10, width=8, depth=0), GREY, "model.depth must be >= 1, got 0"),
        (lambda shape: ResNet18(shape, 10, norm="none", downsample="max"), GREY, "stride, avgpool"),
        (
            lambda shape: ResNet18(shape, 10, norm="none", downsample="stride", init="timm"),
            GREY,
            "model.init must be one of pytorch, torchvision, got timm",
        ),
    ],
)
def test_invalid_arguments(make, shape, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        make(shape)


def test_initial_weights_of_torchvision():
    """As in torchvision.models.resnet18 with a new stem: N(0, 2 / fan_out), sqrt(6) times PyTorch's if square."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        default, ours = (
            ResNet18(COLOUR, 10, norm="batchnorm", downsample="stride", init=init)
            for init in ("pytorch", "torchvision")
        )
        theirs = torchvision.models.resnet18(num_classes=10)
    ours_std, theirs_std, default_std = (
        {tuple(p.shape): float(p.detach().std()) for p in net.parameters() if p.ndim == 4 and p.shape[1] > 3}
        for net in (ours, theirs, default)
    )
    assert ours_std == pytest.approx(theirs_std, rel=0.03)
    for (out, channels, *kernel), std in ours_std.items():
        assert std == pytest.approx((2 / (out * kernel[0] * kernel[1])) ** 0.5, rel=0.03)
        if out == channels:
            assert std / default_std[out, channels, *kernel] == pytest.approx(6**0.5, rel=0.03)
    stems = [net.stem[0].weight.detach() for net in (ours, default)]
    assert all(
        float(w.abs().max()) <= 27**-0.5 and float(w.std()) == pytest.approx(81**-0.5, rel=0.1) for w in stems
    )
    assert all(
        torch.equal(m.weight, torch.ones_like(m.weight)) for m in ours.modules() if hasattr(m, "running_var")
    )


def test_a_key_omits_the_old_initial_weights():
    """So that keys from before this choice existed stay valid."""
    knobs = {"norm": "batchnorm", "downsample": "stride"}

    def described(**more):
        return Architecture(ResNet18, knobs | more, COLOUR, 10, "resnet18_bn").describe()

    assert described() == described(init="pytorch")
    assert described(init="torchvision") == described() | {"init": "torchvision"}


@pytest.mark.parametrize("make", [lenet, alexnet])
def test_small_images_either_work_or_raise_value_error(make):
    for side in range(1, 20):
        with torch.device("meta"):
            try:
                net = make((1, side, side))
            except ValueError as error:
                assert "Use model=convnet" in str(error)
                continue
            assert net(torch.empty(1, 1, side, side)).shape == (1, 10)


def test_a_resnet_block_adds_its_input():
    net = resnet((1, 9, 9))
    block = net.blocks[1]
    torch.nn.init.zeros_(block.norm2.weight)  # the branch outputs zero
    x = torch.rand(2, 64, 9, 9)
    torch.testing.assert_close(block(x), x)


def test_average_pooling_replaces_the_stride_and_nothing_else():
    strided, pooled = resnet(COLOUR), resnet_ap(COLOUR)
    assert {m.stride for m in pooled.modules() if isinstance(m, torch.nn.Conv2d)} == {(1, 1)}
    names = [name for name, _ in strided.named_parameters()]
    assert names == [name for name, _ in pooled.named_parameters()]
