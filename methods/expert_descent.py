"""How experts descend so that a student can follow them: flat minima (FTD), smooth trajectories (AST)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from dd_bench.training import Loss


class Flat(BaseModel):
    """Adaptive GSAM (Zhuang et al., ICLR 2022; FTD, equation 13): `rho` = 0 is a plain step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rho: float = Field(ge=0)
    alpha: float = Field(ge=0)


class Penalty(BaseModel):
    """The input gradient of the summed logits is to have norm 1, over channels or over the image; AST's code."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(ge=0)
    norm: Literal["pixel", "image"]


@dataclass(frozen=True)
class ExpertDescent:
    """A training step's gradient for experts.

    Attributes:
        flat: sharpness-aware steps.
        loss_scale: factors of the loss in the first epochs (AST's clipping loss); 1 afterwards.
        penalty: added to the loss, on the batch before augmentation.
    """

    flat: Flat
    loss_scale: tuple[float, ...]
    penalty: Penalty

    def __bool__(self) -> bool:
        """Whether it is another direction than the gradient of the loss."""
        return bool(self.flat.rho or self.penalty.weight or any(s != 1 for s in self.loss_scale))

    def describe(self) -> dict[str, Any]:
        """Returns what identifies it in a cache key."""
        said = asdict(self)
        return {k: v.model_dump() if isinstance(v, BaseModel) else list(v) for k, v in said.items()}

    def __call__(self, net: nn.Module, loss: Loss, x: Tensor, target: Any, raw: Tensor, epoch: int) -> None:
        """Fills `.grad`; see `dd_bench.training.Descent`."""
        scale = self.loss_scale[epoch] if epoch < len(self.loss_scale) else 1.0

        def backward() -> None:
            (scale * loss(net, x, target)).backward()
            if self.penalty.weight:
                add_penalty_gradient(net, raw, self.penalty)

        backward()
        if self.flat.rho:
            sharpness_aware(net, backward, self.flat)


def sharpness_aware(net: nn.Module, backward: Any, flat: Flat) -> None:
    """Turns the gradient g in `.grad` into adaptive GSAM's; the parameters come back bit by bit.

    With `eps = rho theta^2 g / | |theta| g |` and g' the gradient at theta + eps: `g' - alpha v`, where v is the
    part of g that is orthogonal to g'.
    """
    parameters = [p for p in net.parameters() if p.grad is not None]
    g = [p.grad.clone() for p in parameters]  # type: ignore[union-attr]
    kept = [p.detach().clone() for p in parameters]
    norm = _norm([p.detach().abs() * d for p, d in zip(parameters, g, strict=True)])
    with torch.no_grad():
        for p, d in zip(parameters, g, strict=True):
            p.add_(flat.rho / (norm + 1e-12) * p.square() * d)
            p.grad = None
    backward()
    with torch.no_grad():
        there = [p.grad for p in parameters]
        dot = torch.stack([(a * b).sum() for a, b in zip(g, there, strict=True)]).sum()  # type: ignore[operator]
        square = _norm(there).square()  # type: ignore[arg-type]
        for p, old, d in zip(parameters, kept, g, strict=True):
            p.copy_(old)
            assert p.grad is not None
            orthogonal = d - dot / (square + 1e-24) * p.grad
            p.grad.sub_(flat.alpha * orthogonal)


def add_penalty_gradient(net: nn.Module, x: Tensor, penalty: Penalty) -> None:
    """Adds the gradient of `weight mean((|J| - 1)^2)`, `J = d sum_k f_k / dx`, to `.grad`."""
    at = x.detach().requires_grad_()
    (jacobian,) = torch.autograd.grad(net(at).sum(), at, create_graph=True)
    norm = (jacobian.flatten(1) if penalty.norm == "image" else jacobian).square().sum(1)
    # the floor keeps the root's gradient finite where no unit is alive
    (penalty.weight * (norm.clamp_min(1e-24).sqrt() - 1).square().mean()).backward()


def _norm(parts: list[Tensor]) -> Tensor:
    return torch.stack([part.square().sum() for part in parts]).sum().sqrt()
