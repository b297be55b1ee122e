"""Pictures of nodes: the features by which the classes of a set differ most."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_CLASSES = 20
"""Maximum number of classes whose features are shown."""
MIN_WIDTH = 8
"""Minimum number of features shown for each class, if there are as many."""
ZERO = 0.92
"""Grey value of the smallest feature, so that a node with few features is visible on white."""


def feature_pictures(features: Tensor, classes: Tensor, first: Tensor) -> Tensor:
    """Return a picture for each of some nodes, grey values in [0, 1] `(m, 1, k, w)`; dark is high.

    Row `c` of a picture has the `w` features whose mean over the nodes of class `c` exceeds the mean over all nodes by
    most. In the picture of a node of class `c`, row `c` is thus darker than the others. The features of each node are
    divided by their largest magnitude. Bags of words have thousands of features of which nearly all are zero, so that
    pictures of all features would be white.

    Args:
        features: of all nodes, `(n, d)`.
        classes: of these nodes, int64 `(n,)`.
        first: indices of the nodes to draw, int64 `(m,)`.
    """
    present = classes.unique()[:MAX_CLASSES]
    scaled = features / features.abs().amax(1, keepdim=True).clamp_min(1e-12)
    means = torch.stack([scaled[classes == c].mean(0) for c in present])
    contrast = means - scaled.mean(0) if len(present) > 1 else means
    width = min(scaled.shape[1], max(MIN_WIDTH, len(present)))
    columns = contrast.argsort(dim=1, descending=True, stable=True)[:, :width]
    shown = scaled[first][:, columns]
    low = shown.amin().clamp_max(0)
    high = torch.quantile(shown[shown > low], 0.9) if bool((shown > low).any()) else low + 1
    ink = ((shown - low) / (high - low)).clamp(0, 1)
    return (ZERO * (1 - ink))[:, None]
