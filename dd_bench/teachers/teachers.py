"""Teachers: frozen networks trained on real data, which guide recovery and give soft labels.

A teacher is trained here (`dd_bench.teachers.squeeze`) or comes with pretrained weights. Its logits are matched with
the classes of a dataset by class *name*, never by the index of a folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from dd_bench.data.dataset import RealSet
from dd_bench.models.network import Network, executed_norms
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.runtime import Runtime
from dd_bench.teachers.squeeze import Measure, squeezed_network
from dd_bench.teachers.teacher_spec import TeacherSpec


@dataclass(frozen=True)
class Teacher:
    """A trained network, frozen.

    Attributes:
        name: of its file in `conf/teacher/`.
        net: in eval mode, its parameters without gradients.
        class_names: of its logits, after the columns were put in the order of the run's dataset.
        norms: names of its BatchNorm layers that an image passes, in order of registration.
        digest: sha256 of its weights and class names.
        accuracy: on the test data, in [0, 1]; None if it was not measured.
        columns: indices of the dataset's classes among the network's logits; None if they are the same.
        autocast: bfloat16 where the machine has it.
    """

    name: str
    net: Network
    class_names: tuple[str, ...]
    norms: tuple[str, ...]
    digest: str
    accuracy: float | None
    columns: Tensor | None
    autocast: bool

    def logits(self, x: Tensor, mode: str = "eval", *, exact: bool = False) -> Tensor:
        """Returns the logits of inputs `(b, c, h, w)`, float32 `(b, k)`, no gradient.

        Args:
            x: inputs.
            mode: `train` normalises by the batch's own statistics; the running ones do not change.
            exact: in float32 on every machine, for logits that are ranked.
        """
        norms = [m for m in self.net.modules() if isinstance(m, _BatchNorm)] if mode == "train" else []
        before = {k: v.clone() for k, v in self.net.named_buffers()} if norms else {}
        for norm in norms:  # only these: dropout would draw from a generator that nothing seeds
            norm.train()
        with (
            torch.no_grad(),
            torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast and not exact),
        ):
            logits = self.net(x).float()
        self.net.eval()
        for name, buffer in self.net.named_buffers():
            if name in before:
                buffer.copy_(before[name])
        return self.select_columns(logits)

    def select_columns(self, logits: Tensor) -> Tensor:
        """Returns the columns of the dataset's classes, in its order."""
        return logits if self.columns is None else logits[:, self.columns]


def teacher_of(
    spec: TeacherSpec, real: RealSet, cache: Cache, runtime: Runtime, measure: Measure | None
) -> Teacher:
    """Returns a teacher for `real`, training it first unless it is pretrained or in the cache.

    Args:
        spec: which teacher.
        real: trained on its training split; its classes are those of the logits.
        cache: holds trained teachers.
        runtime: device and precision.
        measure: accuracy on held-out data, for the card only; nothing is selected by it.

    Raises:
        ValueError: the cache entry is damaged, or the teacher lacks a class of `real`.
        Diverged: its weights are not finite.
    """
    if spec.config.weights == "pretrained":
        names = spec.logit_names()
        return frozen_teacher(spec.name, _pretrained(spec, names, real, runtime), names, None, real, runtime)
    return frozen_teacher(spec.name, *squeezed_network(spec, real, cache, runtime, measure), real, runtime)


def _pretrained(spec: TeacherSpec, names: Sequence[str], real: RealSet, runtime: Runtime) -> Network:
    """Returns the network with its pretrained weights; raises ValueError if it needs another preprocessing."""
    trained_with = spec.normalisation()
    if real.preprocess.config() != trained_with.config():
        raise ValueError(
            f"teacher {spec.name} was trained under {trained_with.config()}, {real.name} is preprocessed by "
            f"{real.preprocess.config()}. Use dataset.preprocess=normalise with that mean and std"
        )
    return replace(spec.architecture, num_classes=len(names)).fresh(0, runtime.device)


def frozen_teacher(
    name: str,
    net: Network,
    class_names: tuple[str, ...],
    accuracy: float | None,
    real: RealSet,
    runtime: Runtime,
) -> Teacher:
    """Returns a trained network as a teacher of the classes of `real`.

    Args:
        name: of the teacher.
        net: its network, frozen in place.
        class_names: of its logits, in order.
        accuracy: on test data, in [0, 1], or None.
        real: the dataset.
        runtime: device and precision.

    Raises:
        ValueError: the network has no logit for a class of `real`.
    """
    net = net.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
    missing = [c for c in real.class_names if c not in class_names]
    if missing:
        raise ValueError(
            f"teacher {name} does not know class {missing[0]!r} of {real.name}: it knows {_some(class_names)}, "
            f"the dataset has {_some(real.class_names)}. Use a teacher of this dataset, or dataset.classes of the "
            "teacher's names"
        )
    columns = None
    if class_names != real.class_names:
        columns = torch.tensor([class_names.index(c) for c in real.class_names], device=runtime.device)
    digest = hashlib.sha256("\x1f".join(class_names).encode())
    for key, value in net.state_dict().items():
        digest.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    norms = executed_norms(net, real.shape)
    return Teacher(
        name, net, real.class_names, norms, digest.hexdigest(), accuracy, columns, runtime.autocast
    )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")
