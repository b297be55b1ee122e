"""The training images of a synthetic set as a PyTorch dataset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dd_bench.synthetic.base import SyntheticImages

Transform = Callable[[Any], Any]


class ImageDataset(Dataset[tuple[Any, Any]]):
    """Pairs of a network input and its label, exactly those that an evaluation trains on.

    Images that are stored together (multi-formation, canvases) or made from stored parts (compensators) are separate
    items. Inputs that need more than 2 GiB are decoded one by one. A dataset can be pickled, if its transforms can, so
    the workers of a `DataLoader` can use it.

    Attributes:
        labels: the labels of all items, int64 `(n,)` or, if they are soft, float32 `(n, k)`.
        classes: names of the classes, in label order.
    """

    def __init__(
        self,
        syn: SyntheticImages,
        transform: Transform | None = None,
        target_transform: Transform | None = None,
    ):
        """Create the dataset of a set.

        Args:
            syn: the set.
            transform: applied to each input, a float32 tensor `(c, h, w)` after the preprocessing of the set. So it
                should not normalise again. Transforms of `torchvision.transforms.v2` can be used.
            target_transform: applied to each label, a tensor `()` or `(k,)`.
        """
        self._inputs, self.labels = syn.network_inputs(torch.device("cpu"))
        self.classes = list(syn.class_names)
        self.transform, self.target_transform = transform, target_transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return the input and the label with this index, after the transforms."""
        if isinstance(self._inputs, Tensor):
            image = self._inputs[index]
        else:  # decoded on demand
            image = self._inputs[torch.tensor([range(len(self))[index]])][0]
        label: Any = self.labels[index]
        return (
            image if self.transform is None else self.transform(image),
            label if self.target_transform is None else self.target_transform(label),
        )
