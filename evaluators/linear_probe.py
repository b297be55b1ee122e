"""Test accuracy of linear heads on a frozen backbone, as in LGM (Cazenavette et al., NeurIPS 2025)."""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from dd_bench.api import EvaluationContext, Evaluator, Measurement, RealSet, SyntheticImages, SyntheticSet

from ._candidates import part_of
from ._linear_heads import ProbeTraining
from ._scoring import check_at_least, check_images, measurement


class LinearProbe(Evaluator):
    """Accuracy of `num_networks` linear heads on the features of the run's only teacher, the probed backbone.

    The backbone is frozen; only the heads are trained, on the images and labels of the set, under a protocol with
    `probe`. The seed of head i depends only on the run's seed and i. A head is scored after its last step, on test
    images without augmentation. The ridge solution has no seed, so there is only one head.

    - `accuracy`: share of test images of the correct class.
    - `top5`: share of test images whose class is among the five largest logits, for more than five classes.

    A backbone that was trained on the classes it is probed for has already separated them; the record then gets a note.

    Deviation from the released code of LGM: crops are resized bilinearly without antialiasing.
    """

    main_metric = "accuracy"
    uses_backbone = True
    smoke = ("evaluator.num_networks=2",)

    def __init__(self, *, num_networks: int):
        """Take the number of heads per synthetic set.

        Raises:
            ValueError: `num_networks` is less than 1.
        """
        check_at_least(1, num_networks=num_networks)
        self.num_networks = num_networks

    def check_set(self, syn: SyntheticSet, real: RealSet) -> str | None:
        """See `Evaluator`."""
        return check_images(syn)

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`."""
        assert isinstance(syn, SyntheticImages) and ctx.protocol.probe is not None
        backbone = ctx.backbone_of(real)
        probed = f"probed backbone: {backbone.name}, weights {backbone.digest[:16]}"
        notes = ["the backbone was trained on the classes that are probed"] * _knows_classes(ctx)
        yield Measurement(notes=notes, results=[probed])
        training = ProbeTraining(*syn.network_inputs(ctx.device), backbone, real, ctx)
        z, y = backbone.split_features(real.test), real.test.labels
        total = 1 if ctx.protocol.probe.ridge is not None else self.num_networks
        for network in range(total):
            if network in ctx.finished:
                continue
            seed, checkpoint = (
                ctx.seed_for("evaluate", network),
                part_of(ctx.unfinished(syn), network, "head"),
            )
            head = (
                training.ridge() if ctx.protocol.probe.ridge is not None else training.head(seed, checkpoint)
            )
            yield measurement(network, seed, scores(z, y, *head))
            if checkpoint is not None:
                checkpoint.remove()


def scores(z: Tensor, y: Tensor, weight: Tensor, bias: Tensor) -> dict[str, float]:
    """Return the accuracies of a head `(k, d)`, `(k,)` on features `z (n, d)` with labels `y (n,)`."""
    logits = F.linear(z.to(weight.dtype), weight, bias)
    values = {"accuracy": float((logits.argmax(1) == y).double().mean())}
    if len(weight) > 5:
        values["top5"] = float((logits.topk(5, dim=1).indices == y[:, None]).any(1).double().mean())
    return values


def _knows_classes(ctx: EvaluationContext) -> bool:
    config = ctx.teachers[0].config
    return config.weights == "squeeze" and config.trained_on == "dataset"
