"""DataDAM: match spatial attention in every layer, and the mean embedding (Sajedi et al., ICCV 2023)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dd_bench.api import Architecture, Network, RealSet, mean_match

from .dm import DM


class DataDAM(DM):
    """DM's loop with another loss: `scale * (attention_match + lambda_mmd * mean_match)`.

    The attention of a layer is the sum over channels of |activation|^p, L2-normalised per image; it is taken
    after the non-linearity and before pooling, in every layer but the last. All classes share one batch.

    Variants: `datadam` is the paper (p=4, InstanceNorm); `datadam_released` the released code (p=1,
    BatchNorm, 64 real images a class), where the attention weighs so little that it is nearly DM.
    Deviations from the released code: those of `DM`; the last checkpoint, where the code keeps the best of
    several by test accuracy; means stay on the device. From the paper: its K-Center ("smart") start is not
    offered.
    """

    citation = "Sajedi et al., DataDAM: Efficient Dataset Distillation with Attention Matching, ICCV 2023"

    def __init__(self, *, power: float, lambda_mmd: float, scale: float, **knobs: Any):
        """Takes the keys of `conf/method/datadam.yaml`: DM's, and `power`, `lambda_mmd`, `scale`."""
        super().__init__(**knobs)
        self.power, self.lambda_mmd, self.scale = power, lambda_mmd, scale

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        reason = super().check_dataset(real, ipc, architecture)
        if reason is None and not has_attention(architecture):
            few = f"{architecture.title} has fewer. Use model=convnet"
            reason = f"attention needs two layers of activation maps, {few}"
        return reason

    def loss(self, net: Network, real: Tensor, syn: Tensor) -> Tensor:
        """See `DM`."""
        with torch.no_grad():
            real_maps, real_embedding = net.activations(real.flatten(0, 1))
        syn_maps, syn_embedding = net.activations(syn.flatten(0, 1))
        pairs = [(self.lambda_mmd, real_embedding, syn_embedding)]
        for a, b in zip(real_maps[:-1], syn_maps[:-1], strict=True):
            pairs.append((1.0, spatial_attention(a, self.power), spatial_attention(b, self.power)))
        total = torch.zeros((), device=syn.device)
        for weight, a, b in pairs:
            total = total + weight * mean_match(a.unflatten(0, real.shape[:2]), b.unflatten(0, syn.shape[:2]))
        return self.scale * total


def spatial_attention(maps: Tensor, power: float) -> Tensor:
    """Returns `sum_c |maps|^power`, flattened and L2-normalised per image: `(n, c, h, w) -> (n, h * w)`."""
    return F.normalize(maps.abs().pow(power).sum(1).flatten(1), dim=1)


def has_attention(architecture: Architecture) -> bool:
    """Whether the network gives at least two layers of activation maps."""
    net = architecture.fresh(0, torch.device("cpu")).eval()
    with torch.no_grad():
        maps, _ = net.activations(torch.zeros(1, *architecture.shape))
    return len(maps) >= 2
