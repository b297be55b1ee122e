"""Teachers: frozen networks trained on real data. They guide the recovery of images and compute soft labels.

A teacher is trained by `dd_bench.teachers.squeeze` or has pretrained weights. Its logits are matched with the classes
of a dataset by class *name*, never by index.
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
        name: name of its file in `conf/teacher/`.
        net: the network, in eval mode, with parameters that require no gradient.
        class_names: class names of the logits that `logits` returns, in the order of the run's dataset.
        norms: names of the BatchNorm layers that are executed for an image, in order of registration.
        digest: SHA-256 of the weights and of the class names of the network's own logits.
        accuracy: accuracy on the test data, in [0, 1]; None if it was not measured.
        columns: for each class of the dataset, the index of the network's logit for this class; None if the network and
            the dataset have the same class names.
        autocast: whether to compute in bfloat16.
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
        """Return the logits of inputs `(b, c, h, w)`, float32 `(b, k)`, without gradient.

        Args:
            x: network inputs.
            mode: `eval`, or `train` to normalise with the statistics of the batch. Running statistics do not change.
            exact: compute in float32 on every machine, for logits that are ranked.
        """
        norms = [m for m in self.net.modules() if isinstance(m, _BatchNorm)] if mode == "train" else []
        before = {k: v.clone() for k, v in self.net.named_buffers()} if norms else {}
        for norm in norms:  # only BatchNorm: dropout would draw from an unseeded generator
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

    @property
    def weight_bytes(self) -> int:
        """Bytes of the parameters and buffers of the network."""
        return sum(v.numel() * v.element_size() for v in self.net.state_dict().values())

    def select_columns(self, logits: Tensor) -> Tensor:
        """Return the columns of `logits` for the dataset's classes, `(b, k)`, in the order of the dataset."""
        return logits if self.columns is None else logits[:, self.columns]


def teacher_of(
    spec: TeacherSpec, real: RealSet, cache: Cache, runtime: Runtime, measure: Measure | None
) -> Teacher:
    """Return a teacher for `real`. Train it first unless it is pretrained or cached.

    Args:
        spec: the teacher.
        real: the real set. The teacher is trained on the training split. Its logits are for the classes of `real`.
        cache: cache of trained teachers.
        runtime: device and precision.
        measure: a function that returns the test accuracy of a network. The accuracy is only written to the card; it
            is not used to select anything. If `measure` is None, no accuracy is measured.

    Raises:
        ValueError: the cache entry is damaged, or the teacher has no logit for a class of `real`.
        Diverged: the weights are not finite.
    """
    if spec.config.trained_on == "other_classes":
        raise ValueError(
            f"teacher {spec.name} is a backbone, trained on other classes, and has no logits for those of {real.name}. "
            "Use teacher=convnet_w32_bn, or evaluator=linear_probe with a method for linear probes"
        )
    if spec.config.weights == "pretrained":
        names = spec.logit_names()
        return frozen_teacher(spec.name, _pretrained(spec, names, real, runtime), names, None, real, runtime)
    return frozen_teacher(spec.name, *squeezed_network(spec, real, cache, runtime, measure), real, runtime)


def _pretrained(spec: TeacherSpec, names: Sequence[str], real: RealSet, runtime: Runtime) -> Network:
    """Return the network with its pretrained weights.

    Raises:
        ValueError: the weights were trained with another preprocessing than that of `real`.
    """
    normalisation = spec.normalisation()
    if real.preprocess.config() != normalisation.config():
        raise ValueError(
            f"the preprocessing of {real.name} must be that of teacher {spec.name}, {normalisation.config()}, got "
            f"{real.preprocess.config()}. Use dataset.preprocess=normalise with this mean and std"
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
    """Create a teacher for the classes of `real` from a trained network.

    Args:
        name: name of the teacher.
        net: the network, which is frozen in place.
        class_names: class name of each logit of the network.
        accuracy: accuracy on the test data, in [0, 1], or None.
        real: the dataset.
        runtime: device and precision.

    Raises:
        ValueError: the network has no logit for a class of `real`.
    """
    net = net.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
    missing = [c for c in real.class_names if c not in class_names]
    if missing:
        raise ValueError(
            f"teacher {name} has no logit for class {missing[0]!r} of {real.name}. Its classes are "
            f"{_shorten(class_names)}; the dataset has {_shorten(real.class_names)}. Use a teacher of this dataset, or "
            "set dataset.classes to the names of the teacher's classes"
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


def _shorten(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")
