"""How experts descend so that a student can follow them: flat minima (FTD), smooth trajectories (AST)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.func import functional_call, grad

from dd_bench.api import Loss


class GSAM(BaseModel):
    """Adaptive GSAM (Zhuang et al., ICLR 2022; FTD, equation 13): `rho` = 0 is a plain step."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rho: float = Field(ge=0)
    alpha: float = Field(ge=0)


class GradientPenalty(BaseModel):
    """The input gradient of the summed logits is to have norm 1, over channels or over the image; AST's code."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(ge=0)
    norm: Literal["pixel", "image"]


@dataclass(frozen=True)
class ExpertGradient:
    """A training step's gradient for experts.

    Attributes:
        flat: sharpness-aware steps.
        loss_scale: factors of the loss in the first epochs (AST's clipping loss); 1 afterwards.
        penalty: added to the loss, on the batch before augmentation.
        fast: the penalty is compiled; the same up to rounding.
    """

    flat: GSAM
    loss_scale: tuple[float, ...]
    penalty: GradientPenalty
    fast: bool = False

    def __bool__(self) -> bool:
        """Whether it is another direction than the gradient of the loss."""
        return bool(self.flat.rho or self.penalty.weight or any(s != 1 for s in self.loss_scale))

    def describe(self) -> dict[str, Any]:
        """Returns what identifies it in a cache key."""
        return {
            "flat": self.flat.model_dump() if self.flat.rho else None,
            "loss_scale": list(self.loss_scale),
            "penalty": self.penalty.model_dump() if self.penalty.weight else None,
        }

    def compiled(self) -> ExpertGradient:
        """Returns the same for a run that repays compilation."""
        return replace(self, fast=True)

    def __call__(self, net: nn.Module, loss: Loss, x: Tensor, target: Any, raw: Tensor, epoch: int) -> None:
        """Fills `.grad`; see `dd_bench.training.loop.Descent`."""
        scale = self.loss_scale[epoch] if epoch < len(self.loss_scale) else 1.0

        def backward() -> None:
            (scale * loss(net, x, target)).backward()
            if self.penalty.weight:
                add_penalty_gradient(net, raw, self.penalty, self.fast)

        backward()
        if self.flat.rho:
            gsam(net, backward, self.flat)


def gsam(net: nn.Module, backward: Callable[[], None], flat: GSAM) -> None:
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


def add_penalty_gradient(net: nn.Module, x: Tensor, penalty: GradientPenalty, fast: bool = False) -> None:
    """Adds the gradient of `weight mean((|J| - 1)^2)`, `J = d sum_k f_k / dx`, to `.grad`."""
    parameters = dict(net.named_parameters())
    with torch.no_grad():
        plain = {name: p.detach() for name, p in parameters.items()}
        of = _compiled_gradient() if fast else penalty_gradient
        gradient = of(net, plain, x, penalty.norm == "image")
        for name, p in parameters.items():
            added = penalty.weight * gradient[name]
            p.grad = added if p.grad is None else p.grad + added


def penalty_gradient(
    net: nn.Module, parameters: dict[str, Tensor], x: Tensor, whole: bool
) -> dict[str, Tensor]:
    """Returns the derivative in the parameters of `mean((|J| - 1)^2)`, |J| over the `whole` image or its channels."""

    def value(parameters: dict[str, Tensor]) -> Tensor:
        jacobian = grad(lambda at: functional_call(net, parameters, (at,)).sum())(x)
        square = (jacobian.flatten(1) if whole else jacobian).square().sum(1)
        # the floor keeps the root's gradient finite where no unit is alive
        mean: Tensor = (square.clamp_min(1e-24).sqrt() - 1).square().mean()
        return mean

    found: dict[str, Tensor] = grad(value)(parameters)
    return found


def _compiled_gradient() -> Callable[..., dict[str, Tensor]]:
    """One compilation serves every network of an architecture."""
    global _COMPILED
    if _COMPILED is None:
        _COMPILED = torch.compile(penalty_gradient, dynamic=False)
    return _COMPILED


_COMPILED: Callable[..., dict[str, Tensor]] | None = None


def _norm(parts: list[Tensor]) -> Tensor:
    return torch.stack([part.square().sum() for part in parts]).sum().sqrt()
