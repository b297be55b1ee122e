"""Distance of a batch from what a teacher saw in training: the statistics of its BatchNorm layers.

Of layer l, with input z (b, c, h, w): mean and biased variance over batch and pixels, against the layer's running
ones. The norms are plain L2, neither squared nor divided by the number of channels, so that their weight is one of
a network's depth and width (SRe2L, Yin et al., NeurIPS 2023; the loss is DeepInversion's, CVPR 2020).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dd_bench.teachers.teachers import Teacher
from dd_bench.training.losses import at_least_float32


class HookedNorm(nn.Module):
    """A BatchNorm layer that reports how far its input is from its running statistics, and passes on its output."""

    def __init__(self, name: str, norm: _BatchNorm, report: dict[str, Tensor]):
        """Takes the layer's name, the layer, in eval mode, and where it reports to."""
        super().__init__()
        assert norm.running_mean is not None and norm.running_var is not None
        self.name, self.norm, self.report = name, norm, report
        self.mean, self.var = norm.running_mean, norm.running_var

    def forward(self, z: Tensor) -> Tensor:
        """Return what the layer returns."""
        # in float32, under autocast too: a variance in bfloat16 has two digits
        var, mean = torch.var_mean(at_least_float32(z), (0, 2, 3), correction=0)
        of_var = torch.linalg.vector_norm(var - self.var)
        self.report[self.name] = of_var + torch.linalg.vector_norm(mean - self.mean)
        out: Tensor = self.norm(z)
        return out


class HookedTeacher(nn.Module):
    """A teacher that answers a batch with logits and, layer by layer, its distance from the running statistics."""

    def __init__(self, teacher: Teacher):
        """Copy the teacher; its parameters stay frozen.

        Raises:
            ValueError: it has no BatchNorm layer.
        """
        super().__init__()
        if not teacher.norms:
            raise ValueError(
                f"teacher {teacher.name} ({type(teacher.net).__name__}) has no BatchNorm layer, whose running "
                f"statistics are what is matched. Use teacher=resnet18, or a network with BatchNorm"
            )
        self.report = {
            name: torch.zeros(()) for name in teacher.norms
        }  # full from the first call on: one graph
        self.net, self.teacher = copy.deepcopy(teacher.net).eval().requires_grad_(False), teacher
        for name in teacher.norms:
            parent, _, child = name.rpartition(".")
            norm = self.net.get_submodule(name)
            assert isinstance(norm, _BatchNorm)
            setattr(self.net.get_submodule(parent), child, HookedNorm(name, norm, self.report))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits `(b, k)` and the distance at each of `teacher.norms`, `(layers,)`, in float32 at least."""
        logits = self.net(x)
        return self.teacher.select_columns(at_least_float32(logits)), torch.stack(
            [self.report[name] for name in self.teacher.norms]
        )
