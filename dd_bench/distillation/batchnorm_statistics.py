"""Distance between the statistics of a batch and the running statistics of a teacher's BatchNorm layers.

For each layer with input z (b, c, h, w), the mean and the biased variance over batch and pixels are compared with the
running mean and variance. The distances are L2 norms, neither squared nor divided by the number of channels, so a
suitable weight of this loss depends on the depth and width of the network (SRe2L, Yin et al., NeurIPS 2023; the loss is
from DeepInversion, CVPR 2020).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dd_bench.teachers.teachers import Teacher
from dd_bench.training.losses import at_least_float32


class HookedNorm(nn.Module):
    """A BatchNorm layer that also stores the distance of its input's statistics from its running statistics.

    The distance is the sum of the Euclidean distances of the means and of the variances, over channels.
    """

    def __init__(self, name: str, norm: _BatchNorm, distances: dict[str, Tensor]):
        """Wrap the layer `norm`, which must be in eval mode; `forward` stores the distance in `distances[name]`."""
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None
        self.name, self.norm, self.distances = name, norm, distances
        self.mean, self.var = norm.running_mean, norm.running_var

    def forward(self, z: Tensor) -> Tensor:
        """Return the output of the layer, and store the distance for the input `z`."""
        # computed in float32 under autocast too, because a bfloat16 variance has only two significant digits
        var, mean = torch.var_mean(at_least_float32(z), (0, 2, 3), correction=0)
        var_distance = torch.linalg.vector_norm(var - self.var)
        self.distances[self.name] = var_distance + torch.linalg.vector_norm(mean - self.mean)
        out: Tensor = self.norm(z)
        return out


class HookedTeacher(nn.Module):
    """A teacher that returns logits, and the distance between batch and running statistics of each BatchNorm layer."""

    def __init__(
        self,
        teacher: Teacher,
        hook: Callable[[str, _BatchNorm, dict[str, Tensor]], nn.Module] = HookedNorm,
    ):
        """Copy the teacher's network and freeze the parameters of the copy.

        Args:
            teacher: the teacher.
            hook: `hook(name, norm, distances)` returns the layer that replaces the BatchNorm layer `norm`. It must have
                the output of `norm`, and store a 0-d distance for its input in `distances[name]`.

        Raises:
            ValueError: the teacher has no BatchNorm layer.
        """
        super().__init__()
        if not teacher.norms:
            raise ValueError(
                f"teacher {teacher.name} ({type(teacher.net).__name__}) has no BatchNorm layer, and this method "
                "matches BatchNorm's running statistics. Use teacher=resnet18, or another teacher with BatchNorm"
            )
        # The dictionary has all keys from the start, so that torch.compile needs only one graph.
        self.distances = {name: torch.zeros(()) for name in teacher.norms}
        self.net, self.teacher = copy.deepcopy(teacher.net).eval().requires_grad_(False), teacher
        for name in teacher.norms:
            parent, _, child = name.rpartition(".")
            norm = self.net.get_submodule(name)
            assert isinstance(norm, _BatchNorm)
            setattr(self.net.get_submodule(parent), child, hook(name, norm, self.distances))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits `(b, k)` and one distance per layer of `teacher.norms`, `(layers,)`, in float32 or more.

        For each layer, this is the distance of the statistics of the layer's input from the layer's running statistics.
        """
        logits = self.teacher.select_columns(at_least_float32(self.net(x)))
        return logits, self._stacked()

    def with_embedding(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the embedding `(b, d)`, in float32 or more, and what `forward` returns."""
        h = self.net.embed(x)
        logits = self.teacher.select_columns(at_least_float32(self.net.classifier(h)))
        return at_least_float32(h), logits, self._stacked()

    def _stacked(self) -> Tensor:
        return torch.stack([self.distances[name] for name in self.teacher.norms])
