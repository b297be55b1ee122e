"""Backbones: frozen networks whose features are probed by linear heads. They need not have logits for the dataset.

A backbone is a teacher, configured by `teacher=NAME`. It is trained here (`weights: squeeze`) on the run's classes or
on those that `dataset.classes` leaves out (`trained_on: other_classes`), or it has pretrained weights.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet, Split
from dd_bench.data.inputs import Inputs, index_batches
from dd_bench.models.network import Network
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.runtime import Runtime
from dd_bench.teachers.squeeze import Measure, squeezed_network
from dd_bench.teachers.teacher_spec import TeacherSpec
from dd_bench.training.scoring import eval_batch_size


@dataclass(frozen=True)
class Backbone:
    """A frozen network.

    Attributes:
        name: name of its file in `conf/teacher/`.
        net: the network, in eval mode, with parameters that require no gradient.
        digest: SHA-256 of the weights.
        accuracy: accuracy on the test data of the classes it was trained on, in [0, 1]; None if it was not measured.
        size: number of images to pass through the network at once without a gradient.
        autocast: whether to compute in bfloat16.
    """

    name: str
    net: Network
    digest: str
    accuracy: float | None
    size: int
    autocast: bool

    def features(self, x: Tensor) -> Tensor:
        """Return the embeddings of inputs `(b, c, h, w)`, float32 `(b, d)`; differentiable in `x`."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast):
            return self.net.embed(x).float()

    @torch.no_grad()
    def features_of(self, images: Inputs) -> Tensor:
        """Return the embeddings of many inputs `(n, c, h, w)`, batch by batch, `(n, d)`."""
        return torch.cat([self.features(images[part]) for part in index_batches(images, self.size)])

    @torch.no_grad()
    def split_features(self, split: Split, index: Tensor | None = None) -> Tensor:
        """Return the embeddings of a split, or of its images at `index`, without augmentation, `(n, d)`."""
        if index is None:
            return torch.cat([self.features(x) for x, _ in split.batches(self.size)])
        return torch.cat([self.features(split.inputs(part)) for part in index.split(self.size)])


def backbone_of(
    spec: TeacherSpec, real: RealSet, cache: Cache, runtime: Runtime, measure: Measure | None
) -> Backbone:
    """Return a backbone for images of `real`. Train it first unless it is pretrained or cached.

    Args:
        spec: the configuration.
        real: the set whose images are passed through the backbone. With `trained_on: other_classes`, the backbone is
            trained on `real.others`.
        cache: cache of trained networks.
        runtime: device and precision.
        measure: a function that returns the test accuracy of a network on the classes of `real`, or None. It is not
            used for backbones of other classes.

    Raises:
        ValueError: the set has no other classes, the weights were trained with another preprocessing, or a file is
            missing or damaged.
        Diverged: the weights are not finite.
    """
    accuracy = None
    if spec.config.weights == "pretrained":
        expected = spec.normalisation().config()
        if real.preprocess.config() != expected:
            raise ValueError(
                f"the preprocessing of {real.name} must be that of backbone {spec.name}, {expected}, got "
                f"{real.preprocess.config()}. Use dataset.preprocess=normalise with this mean and std"
            )
        net = spec.architecture.fresh(0, runtime.device)
    else:
        data = real
        if spec.config.trained_on == "other_classes":
            data, measure = other_classes(spec, real), None
            spec = replace(spec, architecture=replace(spec.architecture, num_classes=data.num_classes))
        net, _, accuracy = squeezed_network(spec, data, cache, runtime, measure)
    net = net.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)
    digest = hashlib.sha256()
    for key, value in net.state_dict().items():
        digest.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    size = eval_batch_size(net, real.shape)
    return Backbone(spec.name, net, digest.hexdigest(), accuracy, size, runtime.autocast)


def other_classes(spec: TeacherSpec, real: RealSet) -> RealSet:
    """Return the training data of the classes that `real` leaves out.

    Raises:
        ValueError: there are none.
    """
    if real.others is None:
        raise ValueError(
            f"teacher {spec.name} is trained on the classes that dataset.classes leaves out, but {real.name} "
            "leaves out none. Example: dataset.classes=[5,6,7,8,9]"
        )
    return real.others
