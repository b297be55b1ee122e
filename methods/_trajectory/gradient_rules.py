"""Gradient rules that train experts towards flat minima (FTD) or along smooth trajectories (AST)."""

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
    """Adaptive GSAM (Zhuang et al., ICLR 2022; FTD, equation 13); `rho=0` disables it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rho: float = Field(ge=0)
    alpha: float = Field(ge=0)


class GradientPenalty(BaseModel):
    """Penalty that pulls the norm of the input gradient of the summed logits towards 1 (AST's released code).

    Attributes:
        weight: Weight of the penalty; 0 disables it.
        norm: `pixel`: the norm is over the channels of each pixel. `image`: the norm is over the whole image.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(ge=0)
    norm: Literal["pixel", "image"]


@dataclass(frozen=True)
class ExpertGradient:
    """Gradient rule of the experts, see `dd_bench.training.loop.GradientRule`.

    Attributes:
        flat: Settings of the sharpness-aware steps.
        loss_scale: Factor of the loss in each of the first epochs (AST's clipping loss); 1 in later epochs.
        penalty: Penalty added to the loss. It is computed on the batch before augmentation.
        fast: Whether the penalty is compiled. The result is the same up to rounding.
    """

    flat: GSAM
    loss_scale: tuple[float, ...]
    penalty: GradientPenalty
    fast: bool = False

    def __bool__(self) -> bool:
        """Return whether the rule differs from the plain gradient of the loss."""
        return bool(self.flat.rho or self.penalty.weight or any(s != 1 for s in self.loss_scale))

    def describe(self) -> dict[str, Any]:
        """Return the values that identify the rule in cache keys."""
        return {
            "flat": self.flat.model_dump() if self.flat.rho else None,
            "loss_scale": list(self.loss_scale),
            "penalty": self.penalty.model_dump() if self.penalty.weight else None,
        }

    def compiled(self) -> ExpertGradient:
        """Return the rule with a compiled penalty."""
        return replace(self, fast=True)

    def __call__(self, net: nn.Module, loss: Loss, x: Tensor, target: Any, raw: Tensor, epoch: int) -> None:
        """Fill `.grad` of the parameters; see `dd_bench.training.loop.GradientRule`."""
        scale = self.loss_scale[epoch] if epoch < len(self.loss_scale) else 1.0

        def backward() -> None:
            (scale * loss(net, x, target)).backward()
            if self.penalty.weight:
                add_penalty_gradient(net, raw, self.penalty, self.fast)

        backward()
        if self.flat.rho:
            gsam(net, backward, self.flat)


def gsam(net: nn.Module, backward: Callable[[], None], flat: GSAM) -> None:
    """Replace the gradient g in `.grad` by the gradient of adaptive GSAM. The parameters are restored exactly.

    The result is `g' - alpha v`. g' is the gradient at `theta + eps` with `eps = rho theta^2 g / | |theta| g |`, and v
    is the component of g orthogonal to g'.
    """
    parameters = [p for p in net.parameters() if p.grad is not None]
    grads = [p.grad.clone() for p in parameters]  # type: ignore[union-attr]
    originals = [p.detach().clone() for p in parameters]
    norm = _norm([p.detach().abs() * g for p, g in zip(parameters, grads, strict=True)])
    with torch.no_grad():
        for p, g in zip(parameters, grads, strict=True):
            p.add_(flat.rho / (norm + 1e-12) * p.square() * g)
            p.grad = None
    backward()
    with torch.no_grad():
        perturbed = [p.grad for p in parameters]
        dot = torch.stack([(a * b).sum() for a, b in zip(grads, perturbed, strict=True)]).sum()  # type: ignore[operator]
        square = _norm(perturbed).square()  # type: ignore[arg-type]
        for p, original, g in zip(parameters, originals, grads, strict=True):
            p.copy_(original)
            assert p.grad is not None
            orthogonal = g - dot / (square + 1e-24) * p.grad
            p.grad.sub_(flat.alpha * orthogonal)


def add_penalty_gradient(net: nn.Module, x: Tensor, penalty: GradientPenalty, fast: bool = False) -> None:
    """Add the parameter gradient of `weight * mean((|J| - 1)^2)`, `J = d sum_k f_k / dx`, to `.grad`."""
    parameters = dict(net.named_parameters())
    with torch.no_grad():
        detached = {name: p.detach() for name, p in parameters.items()}
        compute = _compiled_gradient() if fast else penalty_gradient
        gradient = compute(net, detached, x, penalty.norm == "image")
        for name, p in parameters.items():
            added = penalty.weight * gradient[name]
            p.grad = added if p.grad is None else p.grad + added


def penalty_gradient(
    net: nn.Module, parameters: dict[str, Tensor], x: Tensor, whole: bool
) -> dict[str, Tensor]:
    """Return the gradient of `mean((|J| - 1)^2)` with respect to the parameters.

    |J| is the norm over the whole image if `whole`, else over the channels of each pixel.
    """

    def value(parameters: dict[str, Tensor]) -> Tensor:
        jacobian = grad(lambda x: functional_call(net, parameters, (x,)).sum())(x)
        square = (jacobian.flatten(1) if whole else jacobian).square().sum(1)
        # clamp_min keeps the gradient of the square root finite where the input gradient is zero
        mean: Tensor = (square.clamp_min(1e-24).sqrt() - 1).square().mean()
        return mean

    gradient: dict[str, Tensor] = grad(value)(parameters)
    return gradient


def _compiled_gradient() -> Callable[..., dict[str, Tensor]]:
    """Return the compiled `penalty_gradient`, which all networks of an architecture share."""
    global _COMPILED
    if _COMPILED is None:
        _COMPILED = torch.compile(penalty_gradient, dynamic=False)
    return _COMPILED


_COMPILED: Callable[..., dict[str, Tensor]] | None = None


def _norm(tensors: list[Tensor]) -> Tensor:
    return torch.stack([t.square().sum() for t in tensors]).sum().sqrt()
