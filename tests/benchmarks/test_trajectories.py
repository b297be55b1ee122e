"""Students of `benchmarks/trajectories.py` with AST's balanced loss."""

import math
from types import SimpleNamespace

import torch

from dd_bench.models.convnet import ConvNet
from dd_bench.training.parameter_vector import FunctionalNetwork

from .conftest import script

trajectories = script("trajectories")


def card(**method):
    return SimpleNamespace(config={"method": {"window": {"stop": 4}} | method})


def test_a_factor_of_the_loss_is_a_factor_of_the_rate():
    """The velocity is linear in the gradients, so this also holds with momentum."""
    knobs = {"depth": 1, "width": 2, "norm": "instancenorm", "activation": "relu", "pooling": "avg"}
    flat = FunctionalNetwork(ConvNet((1, 8, 8), 2, **knobs))
    images, labels = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(4) % 2
    theta = torch.randn(flat.p, generator=torch.Generator().manual_seed(1))
    twice = trajectories.student(flat, theta, images, labels, 0.1, 3, 0.9, seed=0, weight=2.0)
    faster = trajectories.student(flat, theta, images, labels, 0.2, 3, 0.9, seed=0)
    torch.testing.assert_close(twice, faster)


def test_weights_of_a_balanced_set():
    """The factor is log5(8 + distance from the middle of the window), or its inverse before the middle."""
    weight_at = trajectories.loss_weights(card(balance=True), True)
    assert [weight_at(e) for e in (0, 2, 3)] == [1 / math.log(10, 5), math.log(8, 5), math.log(9, 5)]
    assert weight_at(7) == weight_at(3), "after the window"
    assert trajectories.loss_weights(card(balance=False), True)(0) == 1.0
    assert trajectories.loss_weights(card(), True)(0) == 1.0
    assert trajectories.loss_weights(card(balance=True), False)(0) == 1.0
