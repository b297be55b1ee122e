"""A split whose images are decoded from files on demand, for datasets that are larger than the memory."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import torch
from torch import Tensor

from dd_bench.data.dataset import Split
from dd_bench.data.image_decoder import Decoder
from dd_bench.data.preprocess import Preprocess
from dd_bench.data.threads import pool
from dd_bench.runtime.transfer import to_device


class FolderSplit(Split):
    """A split that reads its images from disk. Its outputs equal those of a `TensorSplit` of the same files.

    `inputs` and `pixels` wait for the device once, to read the indices of the files. `batches` does not wait.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Tensor,
        num_classes: int,
        preprocess: Preprocess,
        decoder: Decoder,
    ):
        """Create a split from image files and `labels`, int64 `(n,)`. Images are moved to the device of `labels`."""
        self.paths, self.labels, self.num_classes = list(paths), labels, num_classes
        self.shape = (3, *decoder.shape)
        self._preprocess, self._decoder = preprocess, decoder

    def _submit(self, index: Tensor) -> list[Future[Tensor]]:
        return [pool().submit(self._decoder, self.paths[i]) for i in index.tolist()]

    def _stack(self, images: list[Future[Tensor]]) -> Tensor:
        if not images:
            return torch.empty(0, *self.shape, dtype=torch.uint8, device=self.labels.device)
        return to_device(torch.stack([image.result() for image in images]), self.labels.device)

    def pixels(self, index: Tensor) -> Tensor:
        """See `Split`."""
        return self._stack(self._submit(index))

    def inputs(self, index: Tensor) -> Tensor:
        """See `Split`."""
        return self._preprocess(self.pixels(index).float() / 255)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split`. The next batch is decoded while the caller uses the current one, so memory holds two batches."""
        queue: deque[tuple[Tensor, list[Future[Tensor]]]] = deque()
        for index in torch.split(torch.arange(len(self)), size):
            queue.append((index, self._submit(index)))
            if len(queue) == 2:
                yield self._batch(*queue.popleft())
        yield self._batch(*queue.popleft())

    def _batch(self, index: Tensor, images: list[Future[Tensor]]) -> tuple[Tensor, Tensor]:
        labels = self.labels[to_device(index, self.labels.device)]
        return self._preprocess(self._stack(images).float() / 255), labels

    def to(self, device: torch.device) -> FolderSplit:
        """See `Split`."""
        return FolderSplit(
            self.paths, self.labels.to(device), self.num_classes, self._preprocess, self._decoder
        )

    def subset(self, index: Tensor) -> FolderSplit:
        """See `Split`."""
        paths = [self.paths[i] for i in index.tolist()]
        return FolderSplit(paths, self.labels[index], self.num_classes, self._preprocess, self._decoder)


def digest_lines(items: Iterable[object]) -> str:
    """Return the sha256 of the items that identify a dataset, written one per line."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item}\n".encode(errors="surrogateescape"))  # file names need not be valid UTF-8
    return digest.hexdigest()
