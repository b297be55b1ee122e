"""Coresets: synthetic sets of real samples: images, graphs or nodes."""

from __future__ import annotations

from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.synthetic.base import SyntheticSet
from dd_bench.synthetic.graphs import GraphSet
from dd_bench.synthetic.images import ImageSet
from dd_bench.synthetic.nodes import NodeSet


def build_coreset(real: RealSet, index: Tensor, whole: bool = False) -> SyntheticSet:
    """Build a set from the training samples `index (n,)`; `whole` marks a set of all training samples."""
    if real.modality == "image":
        return ImageSet.coreset(real, index, whole)
    kind = GraphSet if real.modality == "graph" else NodeSet
    return kind.coreset(real, index, whole)
