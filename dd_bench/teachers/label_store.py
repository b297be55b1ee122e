"""Stored soft labels: the teachers' logits for every view of a synthetic set and every epoch, memory-mapped.

`labels.safetensors` contains float16 `logits (epochs, n, k)`. If `top` is set, it contains only the largest logits of
each view, `values (epochs, n, top)`, their `indices (epochs, n, top)`, and `rest (epochs, n)`: one logit for all other
classes, which preserves the total probability of these classes at the temperature of the loss. Views are not stored,
because they can be computed from the seed (`dd_bench.training.views`). The header identifies the images, views and
teachers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dd_bench.data.inputs import Inputs
from dd_bench.runtime import mmap_file
from dd_bench.runtime.files import write_atomic
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.runtime.seeding import seed_for
from dd_bench.runtime.transfer import to_device
from dd_bench.training.views import View, ViewRecipe, Views

FILE, DONE = "labels.safetensors", "done.json"


@dataclass(frozen=True)
class StoreHeader:
    """The images, views and teachers of stored labels.

    Attributes:
        images: identity of the synthetic set, see `SyntheticSet.identity`.
        n, k: number of images and of classes.
        epochs: number of stored epochs.
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

    @property
    def layout(self) -> mmap_file.Layout:
        """Layout of the file."""
        e, n, k, t = self.epochs, self.n, self.k, self.top
        arrays: dict[str, tuple[str, tuple[int, ...]]]
        if t is None or t >= k:
            arrays = {"logits": ("F16", (e, n, k))}
        else:
            index = "I16" if k < 2**15 else "I32"
            arrays = {"values": ("F16", (e, n, t)), "indices": (index, (e, n, t)), "rest": ("F16", (e, n))}
        return mmap_file.Layout("labels", self.metadata, arrays)

    @property
    def metadata(self) -> dict[str, Any]:
        """The fields as JSON."""
        fields: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return fields


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
            self.header = StoreHeader(**metadata)
            layout = self.header.layout
            if entries != layout.entries():
                raise ValueError(f"the arrays must be {layout.entries()} as in the metadata, got {entries}")
            mmap_file.check_size(self.path, layout, begin)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the labels {self.path} are damaged: {error}") from error
        self._arrays = {name: mmap_file.array(self.path, layout, name, begin) for name in layout.arrays}
        self._read: tuple[int, Tensor] | None = None

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

    @property
    def loaded(self) -> Tensor:
        """The logits of the epoch of the last call of `load`, float16 `(n, k)`, always in the same memory."""
        assert self._read is not None, "`load` must be called first"
        return self._read[1]

    def load(self, epoch: int) -> Tensor:
        """Return the logits of a stored epoch, float16 `(n, k)`. A call for another epoch overwrites them."""
        if self._read is None:
            self._read = (epoch, to_device(self._epoch(epoch), self.device))
        elif self._read[0] != epoch:
            self._read[1].copy_(to_device(self._epoch(epoch), self.device))
            self._read = (epoch, self._read[1])
        return self._read[1]

    def _epoch(self, epoch: int) -> Tensor:
        rows = {name: torch.from_numpy(np.array(a[epoch])) for name, a in self._arrays.items()}  # copies
        if "logits" in rows:
            return rows["logits"]
        full = rows["rest"][:, None].expand(-1, self.header.k).contiguous()
        return full.scatter(1, rows["indices"].long(), rows["values"])


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
    views = views_of(header)
    for epoch in range(done, header.epochs):
        logits = torch.empty(header.n, header.k, device=images.device)
        for view in views.epoch(images, epoch):
            logits[view.index] = teacher_logits(view)
        for name, rows in _pack(logits.cpu(), header).items():
            mmap_file.write(path, layout, name, epoch, rows)
        write_atomic(folder / DONE, json.dumps(epoch + 1).encode())
        on_epoch(epoch + 1)


def views_of(header: StoreHeader) -> Views:
    """Return the views of stored labels."""
    recipe = ViewRecipe.model_validate(header.views)
    return Views(recipe, header.n, seed=header.seed, batch_size=header.batch_size, flip_allowed=True)


def _pack(logits: Tensor, header: StoreHeader) -> dict[str, np.ndarray[Any, Any]]:
    """Convert the logits of an epoch, `(n, k)`, to the stored arrays of that epoch, by name."""
    half = logits.half()
    if not bool(torch.isfinite(half).all()):
        raise Diverged(
            f"the teachers' logits must be finite in float16, got absolute values up to {float(logits.abs().max()):g}. "
            "Use other teachers, or train them with a smaller learning rate"
        )
    if header.top is None or header.top >= header.k:
        return {"logits": half.numpy()}
    values, indices = logits.topk(header.top, 1)
    left, t = header.k - header.top, header.temperature
    if t is None:
        rest = (logits.sum(1) - values.sum(1)) / left
    else:
        rest = t * ((logits.scatter(1, indices, -math.inf) / t).logsumexp(1) - math.log(left))
    return {"values": values.half().numpy(), "indices": indices.int().numpy(), "rest": rest.half().numpy()}
