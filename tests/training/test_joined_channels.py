"""Layers on the channels of all networks compute what the layers of the networks compute, by one kernel."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.func import functional_call, stack_module_state
from torch.utils._python_dispatch import TorchDispatchMode

from dd_bench.training.joined_channels import is_joined, join_channels

R = 3
LAYERS = {
    "convolution": lambda: nn.Conv2d(4, 6, 3, padding=1),
    "strided without bias": lambda: nn.Conv2d(4, 6, 3, stride=2, bias=False),
    "two groups": lambda: nn.Conv2d(4, 6, 3, groups=2),
    "group norm": lambda: nn.GroupNorm(2, 4),
    "batch norm": lambda: nn.BatchNorm2d(4, momentum=0.3),
    "average": lambda: nn.AvgPool2d(2),
    "maximum": lambda: nn.MaxPool2d(3, stride=2, padding=1),
    "global average": lambda: nn.AdaptiveAvgPool2d(1),
}


class Kernels(TorchDispatchMode):
    """Counts the operations by name."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func._schema.name.split("::")[1])
        return func(*args, **(kwargs or {}))


@pytest.fixture
def networks():
    """Return a function that returns layers of R networks with different parameters, and their joined layer."""

    def make(name):
        torch.manual_seed(0)
        layers = [LAYERS[name]() for _ in range(R)]
        for layer in layers:
            for p in layer.parameters():
                nn.init.normal_(p)
        joined = deepcopy(layers[0])
        join_channels(joined)
        return layers, joined, *stack_module_state(layers)

    return make


def outputs(joined, parameters, buffers, x, dim):
    def forward(network, p, b, x):
        return functional_call(joined, (p, b), (x,))

    return torch.vmap(forward, (0, 0, 0, dim))(torch.arange(R), parameters, buffers, x)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_outputs_gradients_and_statistics(networks, name, shared):
    layers, joined, parameters, buffers = networks(name)
    x = torch.randn(*(() if shared else (R,)), 5, 4, 6, 6, requires_grad=bool(parameters) or not shared)
    out = outputs(joined, parameters, buffers, x, None if shared else 0)
    expected = torch.stack([layer(x if shared else x[i]) for i, layer in enumerate(layers)])
    torch.testing.assert_close(out, expected)
    for i, layer in enumerate(layers):
        for key, value in layer.named_buffers():
            torch.testing.assert_close(buffers[key][i], value)
    if x.requires_grad:
        weight = torch.randn_like(out)
        own = [p for layer in layers for p in layer.parameters()]
        first, *ours = torch.autograd.grad((out * weight).sum(), [x, *parameters.values()])
        same, *theirs = torch.autograd.grad((expected * weight).sum(), [x, *own])
        torch.testing.assert_close(first, same)
        for j, gradient in enumerate(ours):
            torch.testing.assert_close(gradient, torch.stack(theirs[j :: len(ours)]))


@pytest.mark.parametrize("name", LAYERS)
def test_evaluation_mode(networks, name):
    layers, joined, parameters, buffers = networks(name)
    x = torch.randn(R, 5, 4, 6, 6)
    with torch.no_grad():
        out = outputs(joined.eval(), parameters, buffers, x, 0)
        torch.testing.assert_close(out, torch.stack([layer.eval()(x[i]) for i, layer in enumerate(layers)]))


def test_a_block_has_one_kernel_for_each_layer():
    """The maps are not copied between the layers, and weights and biases have no kernels of their own."""
    torch.manual_seed(0)
    blocks = [
        nn.Sequential(nn.Conv2d(4, 6, 3), nn.GroupNorm(6, 6), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 4, 1))
        for _ in range(R)
    ]
    parameters, buffers = stack_module_state(blocks)
    joined = deepcopy(blocks[0])
    join_channels(joined)
    with Kernels() as kernels:
        out = outputs(joined, parameters, buffers, torch.randn(R, 5, 4, 6, 6), 0)
        gradients = torch.autograd.grad(out.sum(), [*parameters.values()])
    copies = [name for name in kernels.names if name in ("clone", "copy_", "_to_copy", "add", "mul", "sum")]
    assert copies == ["clone", "sum"], "the images of the first layer, and the loss of this test"
    assert kernels.names.count("convolution") == 2 and kernels.names.count("native_group_norm") == 1
    assert len(gradients) == 6


def test_other_layers_do_not_change():
    class Other(nn.Conv2d):
        """Its forward pass can differ."""

    others = [
        Other(4, 6, 3), nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), nn.GroupNorm(2, 4, affine=False),
        nn.BatchNorm2d(4, track_running_stats=False), nn.BatchNorm2d(4, momentum=None), nn.LayerNorm(4), nn.ReLU(),
        nn.MaxPool2d(2, return_indices=True),
    ]  # fmt: skip
    for layer in others:
        join_channels(layer)
        assert not is_joined(layer) and "forward" not in vars(layer)
