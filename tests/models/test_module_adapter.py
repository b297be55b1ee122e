"""Classes of `torch.nn.Module` with ordinary constructors, as networks."""

import functools
import pickle

import pytest
import torch
import torchvision
from torch import nn

from dd_bench.models.architecture import Architecture
from dd_bench.models.convnet import ConvNet
from dd_bench.models.module_adapter import ModuleConstructor, network_constructor

SHAPE, K = (3, 8, 8), 4


class Small(nn.Module):
    def __init__(self, in_channels, num_classes, width=6):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1)
        self.act = nn.ReLU()
        self.unused = nn.Linear(2, num_classes)
        self.head = nn.Linear(width * 64, num_classes)

    def forward(self, x):
        return self.head(self.act(self.conv(x)).flatten(1))


class Sized(nn.Module):
    """Names its parameters as timm does, and has a lazy layer."""

    def __init__(self, img_size: int, in_chans: int, num_classes: int, *, depth: int):
        super().__init__()
        self.seen = (img_size, in_chans, num_classes, depth)
        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))

    def forward(self, x):
        return self.net(x)


class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))

    def forward(self, x):
        return self.net(x)


class NoLinear(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 8)

    def forward(self, x):
        return self.conv(x).flatten(1)


def test_logits_embedding_and_maps_are_those_of_the_module():
    net = ModuleConstructor(Small)(SHAPE, K, width=5).eval()
    x = torch.randn(3, *SHAPE)
    maps, embedding = net.activations(x)
    assert torch.equal(net(x), net.module(x))
    assert net.classifier is net.module.head
    assert torch.equal(net.classifier(embedding), net(x))
    assert [m.shape for m in maps] == [(3, 5, 8, 8)]
    assert torch.equal(maps[0], net.module.act(net.module.conv(x)))
    assert not net.module.act._forward_hooks and not net.module.head._forward_pre_hooks


def test_one_seed_is_one_network_and_parameters_are_registered_once():
    architecture = Architecture(network_constructor(Small), {"width": 5}, SHAPE, K, "Small")
    first, second = (architecture.fresh(7, torch.device("cpu")) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert len(list(first.named_parameters(remove_duplicate=False))) == len(list(Small(3, K).parameters()))
    assert first.training and first.module.act.training


def test_gradients_reach_the_embedding_and_vmap_runs():
    net = ModuleConstructor(Small)(SHAPE, K)
    net.embed(torch.randn(2, *SHAPE)).sum().backward()
    assert net.module.conv.weight.grad is not None
    state = {k: torch.stack([v, v]) for k, v in net.named_parameters()}
    x = torch.randn(2, 3, *SHAPE)
    out = torch.vmap(lambda p, x: torch.func.functional_call(net, p, (x,)))(state, x)
    assert torch.allclose(out, torch.stack([net(x[0]), net(x[1])]), atol=1e-5)


def test_parameters_are_filled_in_by_name():
    net = ModuleConstructor(Sized)(SHAPE, K, depth=2)
    assert net.module.seen == (8, 3, K, 2)
    assert isinstance(net.classifier, nn.Linear)
    wide = ModuleConstructor(Sized)((3, 8, 16), K, depth=2)
    assert wide.module.seen[0] == (8, 16)


def test_a_function_with_open_arguments_gets_the_classes():
    net = network_constructor(torchvision.models.resnet18)((3, 32, 32), K)
    assert net.classifier.out_features == K
    assert len(net.activations(torch.zeros(2, 3, 32, 32))[0]) == 17  # one for each ReLU


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (Sized, {}, r"Sized needs a value for depth. Use functools.partial\(Sized, depth=...\)"),
        (Small, {"widht": 3}, "Small has no parameter 'widht'. Its parameters are .*width"),
        (Fixed, {}, r"Fixed must return logits \(2, 4\) for 2 images of 3x8x8, got \(2, 10\)"),
        (nn.Identity, {}, r"must return logits \(2, 4\)"),
    ],
)
def test_what_cannot_be_a_network_is_refused(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        ModuleConstructor(make)(SHAPE, K, **arguments)


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"Fixed must accept images of 3x9x9, .*shapes"):
        ModuleConstructor(Fixed)((3, 9, 9), 10)


def test_a_network_without_a_last_linear_layer_has_no_embedding():
    net = ModuleConstructor(NoLinear)(SHAPE, K)
    assert net(torch.zeros(2, *SHAPE)).shape == (2, K)
    with pytest.raises(ValueError, match=r"the output of NoLinear is not computed by an nn\.Linear"):
        net.embed(torch.zeros(2, *SHAPE))


def test_networks_of_the_suite_are_not_wrapped():
    assert network_constructor(ConvNet) is ConvNet

    def build(image_shape, num_classes, *, width):
        return ConvNet(image_shape, num_classes, width=width)

    assert network_constructor(build) is build


def test_the_source_of_the_class_identifies_it():
    described = Architecture(network_constructor(Small), {}, SHAPE, K, "Small").describe()
    assert len(described["_source_"]) == 16


def test_it_travels_to_other_processes():
    make = ModuleConstructor(functools.partial)  # any importable callable
    assert pickle.loads(pickle.dumps(make)) == make
