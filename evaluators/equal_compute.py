"""Accuracy together with what the same computation reaches on real images: equal steps, images and seconds."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dd_bench.api import (
    EvaluationContext,
    FreshNetworks,
    LazyInputs,
    Measurement,
    Protocol,
    RealSet,
    Split,
    SyntheticSet,
    fetch_from,
    to_device,
    train,
)

from ._references import with_epochs
from ._scoring import (
    control_context,
    fresh_networks_on,
    measurement,
    paired_scores,
    random_control,
    set_measurement,
)
from .accuracy import Accuracy

_TIMED_STEPS = 10


class EqualCompute(Accuracy):
    """`accuracy` of the set, and three controls on real images with the same protocol and the same initial networks.

    - `random`: as many random real images per class, for as many steps.
    - `equal_compute`: in each batch, an image is replaced by another random real image of its class. Steps, images
      per step and the schedule are those of the set. A small set pays off only if it is above this control: otherwise
      training on the real data for the same time is better.
    - `equal_seconds`: batches of the protocol's size of random real images of random classes, for as many seconds as
      the set took. The number of steps is these seconds divided by the time of a step, measured before, and the
      schedule is stretched to it. It depends on the machine. A note of the record has it, and the devices of
      the set and of this run.

    The seconds of the set are those of the network, and of other preparations, and of the distillation in its card,
    without its evaluation. The seconds of cached preparations count.
    """

    smoke: ClassVar[tuple[str, ...]] = ("evaluator.seconds=null",)

    def __init__(self, *, num_networks: int, seconds: float | Literal["set"] | None):
        """Take the number of fresh networks, and the seconds of `equal_seconds`: a number, `set`, or None to omit it.

        Raises:
            ValueError: a value is out of range.
        """
        super().__init__(num_networks=num_networks)
        if seconds not in ("set", None) and (isinstance(seconds, str | bool) or not seconds > 0):
            raise ValueError(
                f"evaluator.seconds must be a number > 0, set or null, got {seconds}. Example: evaluator.seconds=set"
            )
        self.seconds = seconds

    def check_protocol(self, protocol: Protocol) -> str | None:
        """See `Evaluator`."""
        if protocol.labels is None:
            return None
        return (
            f"protocol {protocol.name} trains on labels of teachers, which do not exist for new images in each batch. "
            "Use a protocol with hard labels, e.g. protocol=dc-300, or evaluator=controls"
        )

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`. Each measurement contains all scores of one network."""
        on_set, control = fresh_networks_on(syn, real, ctx), random_control(real, ctx, "random control")
        on_random = fresh_networks_on(control, real, control_context(control, on_set, ctx, equal_steps=True))
        seconds = ctx.set_seconds if self.seconds == "set" else self.seconds
        notes, results, on_batches = [], [], None
        if self.seconds == "set" and not seconds:
            notes.append("no control equal_seconds: the card of the set does not contain its seconds")
        elif seconds:
            on_batches, note = self._equal_seconds(on_set, real, ctx, float(seconds))
            results.append(note)
        yield set_measurement(on_set, *notes)._replace(results=results)
        seeds, fresh = self.seeds(ctx), {self.main_metric: on_set, "random": on_random}
        for network, values in paired_scores(fresh, seeds, self.num_networks):
            seed, on_new = seeds[network], _on_new_images(on_set, on_set.labels, real, ctx, network)
            values["equal_compute"] = on_new.score(seed, on_new.compiles(self.num_networks))
            if on_batches is not None:
                stream = _on_new_images(on_batches, None, real, ctx, network)
                values["equal_seconds"] = stream.score(seed, compiled=False)
            yield measurement(network, seed, values)

    def _equal_seconds(
        self, on_set: FreshNetworks, real: RealSet, ctx: EvaluationContext, seconds: float
    ) -> tuple[FreshNetworks, str]:
        """Return networks that are trained for `seconds` on batches of real images, and a note on their steps."""
        protocol = on_set.protocol
        step = _seconds_per_step(_on_new_images(on_set, None, real, ctx, "timing"), real)
        steps = max(1, round(seconds / step))
        recipe = with_epochs(protocol.recipe, steps)  # an epoch is one batch
        note = f"equal_seconds: {steps} steps of {recipe.batch_size} real images in {seconds:.0f} s"
        if self.seconds == "set":
            note += f", which the set took on {ctx.set_device or 'an unknown device'}; trained on "
            note += ctx.runtime.device_name()
        return replace(on_set, protocol=protocol.model_copy(update={"recipe": recipe})), note


@dataclass(frozen=True)
class _NewImages:
    """Random real images of given or random classes, others at each call.

    Attributes:
        split: the real images.
        counts: number of real images of each class, `(k,)`, on the device of the images.
        classes: class of each image, `(n,)`; None: random classes, see `random_classes`.
        generator: on the device of the images.
    """

    split: Split
    counts: Tensor
    classes: Tensor | None
    generator: torch.Generator

    def __call__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return an image for each of the positions `index (b,)`, and its class."""
        if self.classes is None:
            classes = random_classes(len(self.counts), len(index), self.generator)
        else:
            classes = self.classes[index]
        counts = self.counts[classes]
        draw = torch.rand(len(index), generator=self.generator, device=index.device)
        chosen = self.split.members[classes, (draw * counts).long().clamp_max(counts - 1)]
        return self.split.inputs(chosen), classes


def random_classes(k: int, n: int, generator: torch.Generator) -> Tensor:
    """Return `n` of `k` classes, `(n,)`, on the device of `generator`.

    All classes are equally likely, and the numbers of images of two classes differ by at most one.
    """
    draws = torch.rand(-(-n // k), k, generator=generator, device=generator.device)
    return draws.argsort(1).flatten()[:n]


def _on_new_images(
    fresh: FreshNetworks, labels: Tensor | None, real: RealSet, ctx: EvaluationContext, network: int | str
) -> FreshNetworks:
    """Return `fresh` with new real images in each batch: of the classes of `labels`, or a batch of random classes.

    The images depend on the seed of the run and on `network`. They cannot be resumed in the middle of a training.
    """
    classes = labels if labels is None or labels.ndim == 1 else labels.argmax(1)
    n = fresh.protocol.recipe.batch_size if classes is None else len(classes)
    counts = to_device(real.train.counts, ctx.device)
    fetch = _NewImages(real.train, counts, classes, ctx.generator("new images", network))
    images = LazyInputs(n, ctx.device, lambda index: fetch(index)[0])
    return replace(fresh, images=images, fetch=fetch, unfinished=None, curves=None)


def _seconds_per_step(fresh: FreshNetworks, real: RealSet) -> float:
    """Return the mean time of `_TIMED_STEPS` training steps, after one run of them to warm up."""
    recipe = with_epochs(fresh.protocol.recipe, _TIMED_STEPS)
    for _ in range(2):
        net = fresh.architecture.fresh(0, fresh.runtime.device)
        began = time.perf_counter()
        train(
            net,
            fresh.fetch or fetch_from(fresh.images, fresh.labels),
            len(fresh.images),
            recipe,
            seed=0,
            runtime=fresh.runtime,
            flip=real.flip,
        )
        float(next(net.parameters()).detach().sum())  # waits for the device
    return (time.perf_counter() - began) / _TIMED_STEPS
