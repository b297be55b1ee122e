"""Stored soft labels: the teachers' logits for every view of a synthetic set and every epoch, memory-mapped.

`labels.safetensors` contains the arrays of `LabelCodec`, by default float16 `logits (epochs, n, k)`. If single batches
are stored instead of whole epochs, the arrays contain the views of the first batches in the order of the training,
`(views, k)`. Views are not stored, because they can be computed from the seed (`dd_bench.training.views`). The header
identifies the images, views and teachers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dd_bench.data.inputs import Inputs
from dd_bench.runtime import mmap_file
from dd_bench.runtime.files import write_atomic
from dd_bench.runtime.seeding import generator, seed_for
from dd_bench.runtime.transfer import to_device
from dd_bench.teachers.label_codec import LabelCodec
from dd_bench.training.views import View, ViewRecipe, Views

FILE, DONE = "labels.safetensors", "done.json"
CPU = torch.device("cpu")


@dataclass(frozen=True)
class StoreHeader:
    """The images, views and teachers of stored labels.

    Attributes:
        images: identity of the synthetic set, see `SyntheticSet.identity`.
        n, k: number of images and of classes.
        epochs: number of stored epochs; the last one can be incomplete if batches are stored.
        seed: seed of the views.
        batch_size: size of the batches in which images are mixed.
        views: the recipe of the views; it has no flip if a flip changes the class.
        teachers: digests of the teachers, in the order of `teacher=[...]`.
        class_names: names of the k classes, in the order of the logits.
        teacher_mode: see `LabelRecipe`.
        top: number of logits stored per view; None for all.
        temperature: temperature at which `rest` preserves the probability. None: `rest` is the mean of the other
            logits, or all logits are stored.
        teacher_names: names of the teachers, in the order of their digests; empty in labels of older versions.
        rest, label_bits: see `LabelRecipe`.
        batches: number of stored batches; None if whole epochs are stored.
        teacher_weights: weights of the teachers' logits in their mean; None if they are equal.
    """

    images: str
    n: int
    k: int
    epochs: int
    seed: int
    batch_size: int
    views: dict[str, Any]
    teachers: tuple[str, ...]
    class_names: tuple[str, ...]
    teacher_mode: str
    top: int | None
    temperature: float | None = None
    teacher_names: tuple[str, ...] = ()
    # The following fields were added later. `metadata` omits them at their defaults, so older labels stay valid.
    rest: Literal["share", "minimum", "zero"] = "share"
    label_bits: int | None = None
    batches: int | None = None
    teacher_weights: tuple[float, ...] | None = None

    @property
    def codec(self) -> LabelCodec:
        """How the logits of a view are stored."""
        return LabelCodec(self.k, self.top, self.rest, self.label_bits, self.temperature)

    @property
    def batches_per_epoch(self) -> int:
        """Number of batches of an epoch."""
        return -(-self.n // self.batch_size)

    @property
    def rows(self) -> int | None:
        """Number of stored views if batches are stored, otherwise None."""
        if self.batches is None:
            return None
        epochs, rest = divmod(self.batches, self.batches_per_epoch)
        return epochs * self.n + min(rest * self.batch_size, self.n)

    @property
    def layout(self) -> mmap_file.Layout:
        """Layout of the file."""
        shape = (self.epochs, self.n) if self.rows is None else (self.rows,)
        return mmap_file.Layout("labels", self.metadata, self.codec.arrays(*shape))

    @property
    def metadata(self) -> dict[str, Any]:
        """The fields as JSON."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        names = ("rest", "label_bits", "batches", "teacher_weights")
        later = {f.name: f.default for f in fields(self) if f.name in names}
        return {k: v for k, v in values.items() if k not in later or v != later[k]}


class LabelStore:
    """Stored labels on disk; they are read one epoch at a time."""

    def __init__(self, folder: Path, device: torch.device):
        """Open the labels in `folder`; `load` returns tensors on `device`.

        Raises:
            ValueError: the labels are missing or damaged.
        """
        self.path, self.device = folder / FILE, device
        if not self.path.is_file():
            raise ValueError(f"{folder} is not a folder of stored labels: {FILE} is missing")
        try:
            metadata, entries, begin = mmap_file.read_header(self.path, "labels")
            metadata |= {k: tuple(metadata.get(k, ())) for k in ("teachers", "class_names", "teacher_names")}
            if "teacher_weights" in metadata:
                metadata["teacher_weights"] = tuple(metadata["teacher_weights"])
            self.header = StoreHeader(**metadata)
            layout = self.header.layout
            if entries != layout.entries():
                raise ValueError(f"the arrays must be {layout.entries()} as in the metadata, got {entries}")
            mmap_file.check_size(self.path, layout, begin)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the labels {self.path} are damaged: {error}") from error
        self._arrays = {name: mmap_file.array(self.path, layout, name, begin) for name in layout.arrays}
        self._read: tuple[int, Tensor] | None = None
        # number and order of the last pass over the stored batches
        self._pass: tuple[int, list[int]] = (0, [])

    def __reduce__(self) -> tuple[type[LabelStore], tuple[Path, torch.device]]:
        """Pickle the path instead of the arrays, so that another process maps the file itself."""
        return LabelStore, (self.path.parent, self.device)

    @property
    def digest(self) -> str:
        """SHA-256 of the header, which identifies the images, views and teachers."""
        return hashlib.sha256(self.header.layout.header()).hexdigest()

    @property
    def label_bytes(self) -> int:
        """Size of the arrays in bytes, without the header."""
        return self.header.layout.size

    def stored_epoch(self, epoch: int) -> int:
        """Return `epoch` if this training epoch is stored, and otherwise a random stored epoch."""
        pool = self.header.epochs
        return epoch if epoch < pool else seed_for(self.header.seed, "pool", epoch) % pool

    def stored_batch(self, step: int) -> tuple[int, int]:
        """Return the stored epoch of the batch of a training step, and its number in this epoch.

        Each pass over the stored batches uses each of them once. The first pass is in the stored order.
        """
        assert self.header.batches is not None, "whole epochs are stored"
        number, position = divmod(step, self.header.batches)
        if number:
            if self._pass[0] != number:
                order = torch.randperm(
                    self.header.batches, generator=generator(CPU, self.header.seed, "pool", number)
                )
                self._pass = (number, order.tolist())
            position = self._pass[1][position]
        return divmod(position, self.header.batches_per_epoch)

    @property
    def loaded(self) -> Tensor:
        """The logits of the epoch of the last call of `load`, float16 `(n, k)`, always in the same memory.

        After `load_batch`, the rows of the images of this batch contain its logits.
        """
        assert self._read is not None, "`load` must be called first"
        return self._read[1]

    def load(self, epoch: int) -> Tensor:
        """Return the logits of a stored epoch, float16 `(n, k)`. A call for another epoch overwrites them."""
        if self._read is None:
            self._read = (epoch, to_device(self._decode(epoch), self.device))
        elif self._read[0] != epoch:
            self._read[1].copy_(to_device(self._decode(epoch), self.device))
            self._read = (epoch, self._read[1])
        return self._read[1]

    def load_batch(self, epoch: int, number: int, index: Tensor) -> None:
        """Load the logits of batch `number` of a stored epoch, whose images are `index (b,)`, on the CPU."""
        header = self.header
        start = epoch * header.n + number * header.batch_size
        logits = to_device(self._decode(slice(start, start + len(index))), self.device)
        if self._read is None:
            self._read = (-1, torch.zeros(header.n, header.k, dtype=torch.float16, device=self.device))
        self._read[1][to_device(index, self.device)] = logits

    def _decode(self, rows: int | slice) -> Tensor:
        copies = {name: np.array(a[rows]) for name, a in self._arrays.items()}
        return self.header.codec.decode(copies)


def fill(
    folder: Path,
    header: StoreHeader,
    images: Inputs,
    teacher_logits: Callable[[View], Tensor],
    on_epoch: Callable[[int], None],
) -> None:
    """Compute and write the labels of all epochs, resuming after the last complete epoch of a killed attempt.

    Args:
        folder: folder of the labels.
        header: images, views and teachers.
        images: network inputs `(n, c, h, w)`.
        teacher_logits: maps a view to the logits of the teachers, `(b, k)`.
        on_epoch: called with the number of finished epochs.

    Raises:
        Diverged: a logit is not finite as float16.
        OSError: the file could not be written.
    """
    path, layout = folder / FILE, header.layout
    existed = mmap_file.create(path, layout)
    done = json.loads((folder / DONE).read_text()) if existed and (folder / DONE).exists() else 0
    views, codec = views_of(header), header.codec
    for epoch in range(done, header.epochs):
        if header.batches is None:
            logits, first = torch.empty(header.n, header.k, device=images.device), epoch
            for view in views.epoch(images, epoch):
                logits[view.index] = teacher_logits(view)
        else:
            left, first = header.batches - epoch * header.batches_per_epoch, epoch * header.n
            logits = torch.cat([teacher_logits(v) for v in islice(views.epoch(images, epoch), left)])
        write = mmap_file.write if header.batches is None else mmap_file.write_rows
        for name, rows in codec.encode(logits).items():
            write(path, layout, name, first, rows)
        write_atomic(folder / DONE, json.dumps(epoch + 1).encode())
        on_epoch(epoch + 1)


def views_of(header: StoreHeader) -> Views:
    """Return the views of stored labels."""
    recipe = ViewRecipe.model_validate(header.views)
    return Views(recipe, header.n, seed=header.seed, batch_size=header.batch_size, flip_allowed=True)
