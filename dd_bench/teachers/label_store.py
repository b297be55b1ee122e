"""Stored soft labels: what teachers said of every view of a synthetic set, epoch by epoch, in mapped arrays.

`labels.safetensors` holds float16 `logits (epochs, n, k)`; or, of the `top` classes of each view alone, their
logits and indices `(epochs, n, top)`, and `rest (epochs, n)`, the logit that all others share: with it they keep
their share of the probability at the temperature of the loss. Views are not stored: they follow from the seed
(`dd_bench.training.views`). The head says of which images, views and teachers they are.
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
from dd_bench.training.views import View, ViewRecipe, Views, sent

FILE, DONE = "labels.safetensors", "done.json"


@dataclass(frozen=True)
class StoreHeader:
    """What stored labels are of.

    Attributes:
        images: identity of the synthetic set, see `SyntheticSet.identity`.
        n, k: images and classes.
        epochs: stored epochs.
        seed: of the views.
        batch_size: of the batches in which images were mixed.
        views: the recipe of the views, with its flip dropped where it was.
        teachers: digests, in the order of the mean.
        class_names: of the k columns, in order.
        teacher_mode: see `LabelRecipe`.
        top: logits stored a view; None for all.
        temperature: at which `rest` keeps the others' share; None: `rest` is their mean, or all logits are stored.
        teacher_names: of the teachers, as their digests; none in labels of before they were written.
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
        """How the file is laid out."""
        e, n, k, t = self.epochs, self.n, self.k, self.top
        arrays: dict[str, tuple[str, tuple[int, ...]]]
        if t is None or t >= k:
            arrays = {"logits": ("F16", (e, n, k))}
        else:
            index = "I16" if k < 2**15 else "I32"
            arrays = {"values": ("F16", (e, n, t)), "indices": (index, (e, n, t)), "rest": ("F16", (e, n))}
        said = json.loads(json.dumps(asdict(self)))
        return mmap_file.Layout("labels", said, arrays)


class LabelStore:
    """Stored labels on the disk, read an epoch at a time."""

    def __init__(self, folder: Path, device: torch.device):
        """Opens the labels in `folder`; what is read goes to `device`.

        Raises:
            ValueError: they are missing, or damaged.
        """
        self.path, self.device = folder / FILE, device
        if not self.path.is_file():
            raise ValueError(f"{folder} holds no labels: it has no {FILE}")
        try:
            said, entries, begin = mmap_file.read_head(self.path, "labels")
            said |= {k: tuple(said.get(k, ())) for k in ("teachers", "class_names", "teacher_names")}
            self.header = StoreHeader(**said)
            layout = self.header.layout
            if entries != layout.entries():
                raise ValueError(f"its arrays are {entries}, its head says {layout.entries()}")
            mmap_file.check_size(self.path, layout, begin)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"the labels {self.path} are damaged: {error}") from error
        self._arrays = {name: mmap_file.array(self.path, layout, name, begin) for name in layout.arrays}
        self._read: tuple[int, Tensor] | None = None

    def __reduce__(self) -> tuple[type[LabelStore], tuple[Path, torch.device]]:
        """Another process maps the file itself."""
        return LabelStore, (self.path.parent, self.device)

    @property
    def digest(self) -> str:
        """Sha256 of the head: of which images, views and teachers they are."""
        return hashlib.sha256(self.header.layout.head()).hexdigest()

    @property
    def label_bytes(self) -> int:
        """Bytes of the arrays; the head is not counted."""
        return self.header.layout.size

    def stored_epoch(self, epoch: int) -> int:
        """Returns which stored epoch the training's epoch number `epoch` is: itself, as long as there are enough."""
        pool = self.header.epochs
        return epoch if epoch < pool else seed_for(self.header.seed, "pool", epoch) % pool

    def logits(self, epoch: int, index: Tensor) -> Tensor:
        """Returns the logits of the views `index (b,)` of a stored epoch, float32 `(b, k)`."""
        if self._read is None or self._read[0] != epoch:
            self._read = (epoch, sent(self._epoch(epoch), self.device))
        return self._read[1][index].float()

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
    say: Callable[[View], Tensor],
    tick: Callable[[int], None],
) -> None:
    """Writes the labels of all epochs, going on from the last whole epoch that a killed attempt has left.

    Args:
        folder: where.
        header: of which images, views and teachers.
        images: inputs `(n, c, h, w)`.
        say: what the teachers say of a view, `(b, k)`.
        tick: told the number of epochs done.

    Raises:
        Diverged: a logit is not finite as float16.
        OSError: the disk is full.
    """
    path, layout = folder / FILE, header.layout
    there = mmap_file.create(path, layout)
    done = json.loads((folder / DONE).read_text()) if there and (folder / DONE).exists() else 0
    views = views_of(header)
    for epoch in range(done, header.epochs):
        said = torch.empty(header.n, header.k, device=images.device)
        for view in views.epoch(images, epoch):
            said[view.index] = say(view)
        for name, rows in _packed(said.cpu(), header).items():
            mmap_file.write(path, layout, name, epoch, rows)
        write_atomic(folder / DONE, json.dumps(epoch + 1).encode())
        tick(epoch + 1)


def views_of(header: StoreHeader) -> Views:
    """Returns the views that the labels are of."""
    recipe = ViewRecipe.model_validate(header.views)
    return Views(recipe, header.n, seed=header.seed, batch_size=header.batch_size, flip_allowed=True)


def _packed(logits: Tensor, header: StoreHeader) -> dict[str, np.ndarray[Any, Any]]:
    """Returns the rows of an epoch, `(n, k)`, as they are stored."""
    half = logits.half()
    if not bool(torch.isfinite(half).all()):
        raise Diverged(
            f"a teacher's logit of {float(logits.abs().max()):g} does not fit float16. Train it again"
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
