"""Memory for the inputs of steps: tensors are copied to it, and other values must stay the same."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from dd_bench.runtime.fixed_memory import FixedMemory

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Step:
    epoch: int
    x: torch.Tensor
    more: Any


def step(epoch=1, x=0.0, more=None):
    return Step(epoch, torch.tensor([x]), more)


def test_tensors_are_copied_to_the_same_memory():
    memory = FixedMemory(step(more={"y": torch.zeros(2)}), CPU)
    before = memory.tree.x
    memory.fill(step(x=3.0, more={"y": torch.ones(2)}))
    assert before.item() == 3.0 and memory.tree.more["y"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (step(epoch=2), r"expected epoch=1, got epoch=2\. Store a value that changes as a tensor"),
        (step(more="mixed"), "expected more=None, got more='mixed'"),
        (step(more={}), "expected more=None, got more=<class 'dict'>"),
        (step(more=torch.ones(1)), "expected 3 values, got 2"),
    ],
)
def test_another_value_that_is_not_a_tensor(change, message):
    """A step that was recorded with the old value would be wrong."""
    memory = FixedMemory(step(), CPU)
    with pytest.raises(ValueError, match=message):
        memory.fill(change)
