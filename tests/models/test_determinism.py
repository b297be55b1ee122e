"""Networks whose gradient has no deterministic implementation on CUDA are rejected before a run starts."""

import pytest
import torch
from torch import nn

from dd_bench.models.architecture import Architecture
from dd_bench.models.convnet import ConvNet
from dd_bench.models.determinism import nondeterministic_operations


def pooled(image_shape, num_classes, *, size):
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(size), nn.Flatten(), nn.Linear(image_shape[0] * size**2, num_classes)
    )


def test_operations_are_found_by_a_training_step():
    shape = (3, 8, 8)
    assert nondeterministic_operations(pooled(shape, 2, size=2), shape) == ["adaptive_avg_pool2d"]
    assert nondeterministic_operations(pooled(shape, 2, size=1), shape) == []  # a mean
    net = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(3, 1, 3), nn.MaxPool2d(2))
    assert nondeterministic_operations(net, shape) == ["reflection_pad2d"]


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_rejection_states_the_operation_and_the_remedy(deterministic):
    architecture = Architecture(pooled, {"size": 2}, (1, 8, 8), 2, "pooled")
    reason = architecture.check_shape(torch.device("cuda"))
    assert "adaptive_avg_pool2d" in reason
    assert "runtime.deterministic=false" in reason
    assert architecture.check_shape(torch.device("cpu")) is None


def test_a_convnet_is_deterministic(deterministic):
    knobs = {"width": 4, "depth": 2, "norm": "instancenorm", "activation": "relu", "pooling": "max"}
    architecture = Architecture(ConvNet, knobs, (1, 8, 8), 2, "convnet")
    assert architecture.check_shape(torch.device("cuda")) is None


def test_nothing_is_rejected_unless_determinism_is_requested():
    architecture = Architecture(pooled, {"size": 2}, (1, 8, 8), 2, "pooled")
    assert architecture.check_shape(torch.device("cuda")) is None
