"""DataDAM: match spatial attention maps and mean embeddings (Sajedi et al., ICCV 2023)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dd_bench.api import Architecture, Network, RealSet, mean_match

from .dm import DM


class DataDAM(DM):
    """DM with the loss `scale * (attention_match + lambda_mmd * mean_match)`.

    The attention map of a layer is the sum over channels of |activation|^p, L2-normalised per image. It is computed
    after the non-linearity and before pooling, in every layer except the last. All classes share one batch.

    The configuration `datadam` follows the paper (p=4, InstanceNorm). `datadam_released` follows the released code
    (p=1, BatchNorm, 64 real images per class), where the attention loss is so small that the method is nearly DM.

    Deviations from the released code: Those of `DM`. The images of the last iteration are stored. The released code
    selects the best of several checkpoints by test accuracy. Class means stay on the device.

    Deviation from the paper: its K-Center ("smart") initialisation is not available.
    """

    citation = "Sajedi et al., DataDAM: Efficient Dataset Distillation with Attention Matching, ICCV 2023"

    def __init__(self, *, power: float, lambda_mmd: float, scale: float, **kwargs: Any):
        """See `conf/method/datadam.yaml` for the arguments; `kwargs` are those of `DM`."""
        super().__init__(**kwargs)
        self.power, self.lambda_mmd, self.scale = power, lambda_mmd, scale

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        if not has_attention(architecture):
            return (
                f"DataDAM requires a network with at least two layers of activation maps, but {architecture.title} "
                "has fewer. Use model=convnet"
            )
        return None

    def loss(self, net: Network, real: Tensor, syn: Tensor) -> Tensor:
        """See `DM`."""

        def match(a: Tensor, b: Tensor) -> Tensor:
            return mean_match(a.unflatten(0, real.shape[:2]), b.unflatten(0, syn.shape[:2]))

        with torch.no_grad():
            real_maps, real_embedding = net.activations(real.flatten(0, 1))
        syn_maps, syn_embedding = net.activations(syn.flatten(0, 1))
        total = self.lambda_mmd * match(real_embedding, syn_embedding)
        for a, b in zip(real_maps[:-1], syn_maps[:-1], strict=True):
            total = total + match(spatial_attention(a, self.power), spatial_attention(b, self.power))
        return self.scale * total


def spatial_attention(maps: Tensor, power: float) -> Tensor:
    """Return `sum_c |maps|^power`, flattened and L2-normalised per image: `(n, c, h, w) -> (n, h * w)`."""
    return F.normalize(maps.abs().pow(power).sum(1).flatten(1), dim=1)


def has_attention(architecture: Architecture) -> bool:
    """Return whether the network has at least two layers of activation maps."""
    net = architecture.fresh(0, torch.device("cpu")).eval()
    with torch.no_grad():
        maps, _ = net.activations(torch.zeros(1, *architecture.shape))
    return len(maps) >= 2
