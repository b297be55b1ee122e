"""A network as a function of one flat vector: order of the parameters, copies for snapshots, views in `split`."""

from itertools import pairwise

import pytest
import torch

from dd_bench.models.convnet import ConvNet
from dd_bench.models.mlp import MLP
from dd_bench.models.network import num_parameters
from dd_bench.models.vit import ViT
from dd_bench.training.batches import fetch_from
from dd_bench.training.loop import train
from dd_bench.training.parameter_vector import FunctionalNetwork, flatten

SHAPE, CLASSES = (3, 8, 8), 4
CONVNET = {"depth": 2, "width": 8, "norm": "instancenorm", "activation": "relu", "pooling": "avg"}
VIT = {"patch": 4, "dim": 8, "depth": 2, "heads": 2, "mlp_dim": 8, "dropout": 0.3, "emb_dropout": 0.3}
NETWORKS = {"convnet": (ConvNet, CONVNET), "mlp": (MLP, {"width": 8, "depth": 2}), "vit": (ViT, VIT)}
each_network = pytest.mark.parametrize("kind", NETWORKS)


def network(kind, seed=0):
    cls, knobs = NETWORKS[kind]
    torch.manual_seed(seed)
    return cls(SHAPE, CLASSES, **knobs)


def images(n=5):
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(1))


@each_network
def test_equals_the_network(kind):
    net = network(kind).eval()
    with torch.no_grad():
        expected = net(images())
    torch.testing.assert_close(FunctionalNetwork(net)(flatten(net), images()), expected, rtol=0, atol=0)


@each_network
def test_equals_another_network_at_its_parameters(kind):
    """The parameters of the wrapped network do not change."""
    net, other = network(kind), network(kind, seed=1).eval()
    flat, before = FunctionalNetwork(net), flatten(net)
    with torch.no_grad():
        torch.testing.assert_close(flat(flatten(other), images()), other(images()), rtol=0, atol=0)
    assert torch.equal(flatten(net), before)


@each_network
def test_recomputation_gives_the_same_result(kind):
    """Dropout is disabled."""
    flat, theta = FunctionalNetwork(network(kind).train()), flatten(network(kind))
    assert torch.equal(flat(theta, images()), flat(theta, images()))


@each_network
def test_parameter_order_is_that_of_the_network(kind):
    net = network(kind)
    flat, theta = FunctionalNetwork(net), flatten(net)
    assert flat.order == [(name, tuple(p.shape)) for name, p in net.named_parameters()]
    assert theta.shape == (flat.p,) == (num_parameters(network(kind)),)
    start = 0
    for _, p in net.named_parameters():
        assert torch.equal(theta[start : start + p.numel()], p.flatten())
        start += p.numel()
    assert start == flat.p


@each_network
def test_split_undoes_flatten(kind):
    net = network(kind)
    parts = FunctionalNetwork(net).split(flatten(net))
    assert parts.keys() == dict(net.named_parameters()).keys()
    assert all(torch.equal(parts[name], p) for name, p in net.named_parameters())
    assert torch.equal(torch.cat([part.flatten() for part in parts.values()]), flatten(net))
    net.load_state_dict(parts)


def test_split_returns_views():
    net = network("convnet")
    theta = flatten(net)
    for part in FunctionalNetwork(net).split(theta).values():
        assert part.untyped_storage().data_ptr() == theta.untyped_storage().data_ptr()
        part.fill_(7.0)
    assert bool((theta == 7).all())


def test_snapshots_do_not_change_during_training(recipe, runtime):
    net = network("convnet")
    snapshots = [flatten(net)]
    fetch = fetch_from(images(8), torch.arange(8) % CLASSES)
    store = lambda epoch: snapshots.append(flatten(net))  # noqa: E731
    train(net, fetch, 8, recipe(epochs=3), seed=0, runtime=runtime, flip=False, on_epoch=store)
    assert len(snapshots) == 4
    assert all(not torch.equal(a, b) for a, b in pairwise(snapshots))
    assert torch.equal(snapshots[0], flatten(network("convnet")))
    assert torch.equal(snapshots[-1], flatten(net))


def test_flatten_shares_no_memory_and_no_graph():
    """This includes a network with a single parameter, for which `cat` could return its input."""
    for net in (network("mlp"), torch.nn.Linear(3, 2, bias=False)):
        theta = flatten(net)
        assert not theta.requires_grad
        before = theta.clone()
        with torch.no_grad():
            for p in net.parameters():
                p.add_(1)
        assert torch.equal(theta, before)


def test_gradients_flow_to_the_vector_and_not_to_the_network():
    net = network("convnet").eval()
    expected = torch.cat(
        [g.flatten() for g in torch.autograd.grad(net(images()).sum(), list(net.parameters()))]
    )
    flat, theta = FunctionalNetwork(net), flatten(net).requires_grad_()
    flat(theta, images()).sum().backward()
    torch.testing.assert_close(theta.grad, expected)
    assert all(p.grad is None for p in net.parameters())
