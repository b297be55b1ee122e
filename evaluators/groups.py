"""Accuracy by group: classes, frequent and rare classes, and classes combined with an attribute such as the colour."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dd_bench.api import EvaluationContext, Measurement, RealSet, SyntheticSet

from ._confusion import confusion
from ._scoring import fresh_networks_on, measurement, set_measurement
from .accuracy import Accuracy


class Groups(Accuracy):
    """`accuracy` on the test split, as in `evaluator=accuracy`, and the accuracies of its groups.

    - `worst_class`: accuracy of the class that is recognised worst.
    - `head`, `medium`, `tail`: mean accuracy of the classes with the most training images, of those in the middle, and
      of those with the fewest, each a third of the classes. Only if the largest class of the training split has at
      least twice as many images as the smallest one.

    If the test images have an attribute (`Split.attributes`, e.g. the colour with `dataset.colour_bias`), whose value i
    belongs to class i in most training images, then also:

    - `worst_group`: lowest accuracy of the images of one class with one value of the attribute (Sagawa et al., ICLR
      2020).
    - `aligned`, `conflicting`: accuracy of the test images whose attribute belongs to their class, and of the others.
    - `equalised_odds`: violation of equalised odds (Hardt et al., NeurIPS 2016), in [0, 1]; 0 is best. Equalised odds
      requires that P(prediction j | class c, attribute a) is the same for every a. The violation is the largest
      difference between two values of a, over all c and j. `equalised_odds_mean` is the mean over classes c of the
      largest difference over j.

    Groups without test images are left out. A minimum or maximum over many small groups is extreme by chance alone.
    With ten classes and ten colours, digits has 4 or 5 test images per group, and Fashion-MNIST has 100.
    """

    main_metric = "accuracy"

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`."""
        fresh, seeds = fresh_networks_on(syn, real, ctx), self.seeds(ctx)
        yield set_measurement(fresh)
        for network, net in fresh.networks(seeds, self.num_networks):
            counts = confusion(net, real.test, ctx.runtime)
            yield measurement(network, seeds[network], group_scores(counts, real.train.counts))


def group_scores(counts: Tensor, train: Tensor) -> dict[str, float]:
    """Return the metrics of `Groups`.

    Args:
        counts: number of test images by attribute, class and prediction, `(a, k, k)`, see `confusion`.
        train: number of training images by class, `(k,)`.
    """
    counts = counts.double()  # float32 would round the quotients
    by_class = counts.sum(0)  # (k, k)
    size, right = by_class.sum(1), by_class.diagonal()
    tested = size > 0
    accuracies = right[tested] / size[tested]
    scores = {"accuracy": float(right.sum() / size.sum()), "worst_class": float(accuracies.min())}
    if int(train.max()) >= 2 * int(train.min()):
        order = train.argsort(descending=True, stable=True)
        for name, classes in zip(("head", "medium", "tail"), order.tensor_split(3), strict=True):
            classes = classes[tested[classes]]
            if len(classes):
                scores[name] = float((right[classes] / size[classes]).mean())
    if len(counts) > 1:
        scores |= _attribute_scores(counts)
    return scores


def _attribute_scores(counts: Tensor) -> dict[str, float]:
    size, right = counts.sum(2), counts.diagonal(dim1=1, dim2=2)  # (a, k)
    values, k = size.shape
    aligned = torch.eye(values, k, dtype=torch.bool)
    rates = counts / size[:, :, None]  # P(j | c, a), NaN for an empty group
    highest = rates.nan_to_num(nan=-torch.inf).amax(0)
    lowest = rates.nan_to_num(nan=torch.inf).amin(0)
    gaps = (highest - lowest).clamp_min(0)[size.sum(0) > 0]  # (k, k), without classes that have no test image
    scores = {
        "worst_group": float((right / size)[size > 0].min()),
        "equalised_odds": float(gaps.max()),
        "equalised_odds_mean": float(gaps.amax(1).mean()),
    }
    for name, group in (("aligned", aligned), ("conflicting", ~aligned)):
        if int(size[group].sum()):
            scores[name] = float(right[group].sum() / size[group].sum())
    return scores
