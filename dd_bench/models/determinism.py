"""Operations of a network that have no deterministic implementation on CUDA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

RAISING = frozenset(
    {
        "adaptive_avg_pool2d_backward",
        "adaptive_avg_pool3d_backward",
        "adaptive_max_pool2d_backward",
        "avg_pool3d_backward",
        "fractional_max_pool2d_backward",
        "fractional_max_pool3d_backward",
        "grid_sampler_2d_backward",
        "grid_sampler_3d_backward",
        "max_unpool2d",
        "max_unpool3d",
        "reflection_pad1d_backward",
        "reflection_pad2d_backward",
        "reflection_pad3d_backward",
        "upsample_bicubic2d_backward",
        "upsample_linear1d_backward",
    }
)
"""Operations that raise an error under `torch.use_deterministic_algorithms(True)`, from the documentation of this
function. Operations that networks do not use are left out. So are bilinear and trilinear resizing, for which
`F.interpolate` then uses a deterministic implementation."""


class _Recorder(TorchDispatchMode):
    """Collect the operations of `RAISING` that are computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func.__name__.split(".")[0].lstrip("_")
        if name in RAISING:
            self.found.add(name.removesuffix("_backward"))
        return func(*args, **(kwargs or {}))


def nondeterministic_operations(net: nn.Module, shape: tuple[int, int, int]) -> list[str]:
    """Return the operations that raise an error on CUDA if deterministic algorithms are requested.

    They are found by one training step of the network, on the CPU, with two images of `shape` (c, h, w).
    """
    with _Recorder() as recorder:
        out: Tensor = net(torch.zeros(2, *shape, requires_grad=True))
        out.sum().backward()
    return sorted(recorder.found)
