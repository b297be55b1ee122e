"""BatchNorm statistics class by class: those of the real images of each class, and their distance (WMDD, LPLD).

Two things differ from SRe2L: the statistics of the synthetic images of a class are computed from these images alone,
and they are compared with the statistics of the real images of this class, not with running statistics of all classes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dd_bench.api import (
    DistillContext,
    HookedTeacher,
    RealSet,
    Teacher,
    at_least_float32,
    cache_entry,
    reading_entry,
    to_device,
)

FILE = "class_statistics.safetensors"
BATCH = 100
"""Maximum number of real images of a batch, as in WMDD."""


def class_statistics(real: RealSet, teacher: Teacher, ctx: DistillContext) -> dict[str, Tensor]:
    """Return the statistics of the input of each BatchNorm layer for the real images of each class.

    They are the averages of the means and of the biased variances of batches of up to 100 images of a class. So the
    variance does not contain the variance between batches. They are cached.

    Returns:
        `NAME.mean` and `NAME.var`, float32 `(k, channels)`, for each layer of `teacher.norms`.

    Raises:
        ValueError: the cache entry is damaged.
    """

    def build(folder: Path) -> float:
        found = [_statistics_of_class(real, c, teacher) for c in range(real.num_classes)]
        save_file({key: torch.stack([s[key] for s in found]).cpu() for key in found[0]}, folder / FILE)
        return 0.0

    key = {
        "teacher": teacher.digest,
        "real": [real.digest, len(real.train)],
        "preprocess": real.preprocess.digest,
        "batch": BATCH,
        **ctx.runtime.identity(),
    }
    entry = cache_entry(ctx.cache, "class-statistics", key, build)
    with reading_entry(entry):
        stored = load_file(entry / FILE)
    return {key: to_device(value, ctx.device) for key, value in stored.items()}


@torch.no_grad()
def _statistics_of_class(real: RealSet, c: int, teacher: Teacher) -> dict[str, Tensor]:
    """Return `NAME.mean` and `NAME.var`, float32 `(channels,)`, of the real images of class `c`."""
    index, sums = real.train.of_class(c), dict[str, Tensor]()

    def add(name: str, z: Tensor) -> None:
        var, mean = torch.var_mean(z.double(), (0, 2, 3), correction=0)
        for key, value in ((f"{name}.mean", mean), (f"{name}.var", var)):
            sums[key] = sums.get(key, 0) + value

    hooks = [
        teacher.net.get_submodule(name).register_forward_pre_hook(lambda _, z, name=name: add(name, z[0]))
        for name in teacher.norms
    ]
    batches = index.tensor_split(-(-len(index) // BATCH))
    for part in batches:
        teacher.net(real.train.inputs(part))
    for hook in hooks:
        hook.remove()
    return {key: (value / len(batches)).float() for key, value in sums.items()}


class ClassNorm(nn.Module):
    """A BatchNorm layer that also stores the distance of its input's statistics from those of real images, by class.

    The input consists of equally many images of each class, sorted by class. The distance is the mean over classes of
    the Euclidean distances of the means and of the variances.
    """

    def __init__(
        self,
        name: str,
        norm: _BatchNorm,
        distances: dict[str, Tensor],
        targets: dict[str, Tensor],
        batch: dict[str, Tensor],
    ):
        """Wrap the layer `norm`.

        Args:
            name: name of the layer.
            norm: the layer.
            distances: where `forward` stores the distance.
            targets: see `class_statistics`.
            batch: `classes`, int64 `(m,)`, are the classes of the current input.
        """
        super().__init__()
        self.name, self.norm, self.distances, self.batch = name, norm, distances, batch
        self.mean, self.var = targets[f"{name}.mean"], targets[f"{name}.var"]

    def forward(self, z: Tensor) -> Tensor:
        """Return the output of the layer, and store the distance for the input `z`."""
        classes = self.batch["classes"]
        images = at_least_float32(z).unflatten(0, (len(classes), -1))  # (m, n, c, h, w)
        var, mean = torch.var_mean(images, (1, 3, 4), correction=0)
        by_class = torch.linalg.vector_norm(var - self.var[classes], dim=1)
        by_class = by_class + torch.linalg.vector_norm(mean - self.mean[classes], dim=1)
        self.distances[self.name] = by_class.mean()
        out: Tensor = self.norm(z)
        return out


class ClassTeacher(HookedTeacher):
    """A teacher whose distances are those of `ClassNorm`. `batch["classes"]` must be set before a forward pass."""

    def __init__(self, teacher: Teacher, targets: dict[str, Tensor]):
        """Copy the teacher's network; `targets` are the statistics of the real images."""
        batch: dict[str, Tensor] = {}
        super().__init__(
            teacher, lambda name, norm, distances: ClassNorm(name, norm, distances, targets, batch)
        )
        self.batch = batch
