"""The best weights of a training so far, for protocols that select an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dd_bench.training.stacked_networks import unstack


class Best:
    """The highest accuracy of a network so far, and the weights that gave it; saved with the state of the training."""

    def __init__(self) -> None:
        self.value = -1.0
        self.state: dict[str, Tensor] = {}

    def update(self, value: float, net: nn.Module) -> None:
        """Store the weights of `net` if `value` is higher than before."""
        if value > self.value:
            self.value = value
            self.state = {k: v.clone() for k, v in net.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        """See `checkpoint.Stateful`."""
        return {"value": self.value, "state": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `checkpoint.Stateful`."""
        self.value, self.state = state["value"], state["state"]


class StackedBest:
    """The highest accuracy of each of r networks so far, and the weights that gave it.

    Attributes:
        value: the accuracies, float64 `(r,)`.
        state: parameters and buffers by name, each `(r, ...)`.
    """

    def __init__(self, nets: Sequence[nn.Module]):
        """Start without an accuracy, for networks of the architecture of `nets`."""
        device = next(nets[0].parameters()).device
        self.value = torch.full((len(nets),), -1.0, dtype=torch.float64, device=device)
        tensors = (*nets[0].named_parameters(), *nets[0].named_buffers())
        self.state = {name: torch.stack([t.detach()] * len(nets)) for name, t in tensors}

    @torch.no_grad()
    def update(self, values: Tensor, state: Mapping[str, Tensor]) -> None:
        """Store the weights of the networks whose value is higher than before, without waiting for the device.

        Args:
            values: the accuracies, `(r,)`.
            state: parameters and buffers by name, each `(r, ...)`.
        """
        better = values > self.value
        self.value.copy_(torch.where(better, values, self.value))
        for name, now in state.items():
            best = self.state[name]
            best.copy_(torch.where(better.view(-1, *[1] * (now.ndim - 1)), now, best))

    def restore(self, nets: Sequence[nn.Module]) -> None:
        """Copy the stored weights to the networks."""
        unstack(self.state, nets)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name, for checkpoints."""
        return {"best value": self.value, **{f"best {name}": t for name, t in self.state.items()}}
