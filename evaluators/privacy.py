"""Membership inference: whether networks trained on a set reveal the real images that it was distilled from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor, nn

from dd_bench.api import (
    Architecture,
    EvaluationContext,
    FreshNetworks,
    ImageSet,
    Measurement,
    Protocol,
    QuantisedSet,
    RealSet,
    Split,
    SyntheticSet,
    at_least_float32,
    seed_for,
)

from ._scoring import check_at_least, fresh_networks_on, measurement, set_measurement
from .accuracy import Accuracy

_CLIPS: tuple[Literal["minmax", "mse"], ...] = ("minmax", "mse")


class Privacy(Accuracy):
    """Small-scale offline LiRA (Carlini et al., S&P 2022) against fresh networks trained on the set.

    The attacker decides whether a real image is one of the training images that the set was distilled from. It trains
    `references` shadow networks on one half of the test images, under the same protocol and with the same number of
    images per class as the set. The shadow networks estimate the confidence of a network in images that it was not
    trained on. The score of an image is the confidence of the attacked network minus this estimate, in standard
    deviations of the shadow networks. Members are `candidates` training images. Non-members are the same number of
    images of the other half of the test images.

    - `auc`: area under the ROC curve of the score; 0.5 means no information. `tpr`: true positive rate at a false
      positive rate of 1 %. `hidden`, the ranked metric: 2 (1 - auc), clipped at 1; it is 0 if the attack is perfect.
    - `chance`: AUC with randomly permuted membership.
    - `auc_kept`: AUC with the images of the set as the members, for a set that is a selection of real images. It shows
      the strength of the attack on networks that were trained on the members themselves. For a quantised selection, the
      members are the training images that were quantised.

    A small set can reveal little about 60,000 images. An `auc` near 0.5 shows that this attack fails, not that every
    attack would. Intervals are over networks for fixed candidates. With a thousand candidates on each side, the
    standard error of an `auc` of 0.5 is 0.013. If a class has too few shadow images, the shadow networks are trained on
    fewer images, which is noted in the record.
    """

    main_metric = "hidden"
    smoke = ("evaluator.num_networks=2", "evaluator.candidates=12", "evaluator.references=3")

    def __init__(self, *, num_networks: int, candidates: int, references: int):
        """Take the numbers of attacked networks, members, and shadow networks.

        The number of non-members equals the number of members.

        Raises:
            ValueError: A value is too small.
        """
        super().__init__(num_networks=num_networks)
        check_at_least(2, candidates=candidates, references=references)
        self.candidates, self.references = candidates, references

    def check_protocol(self, protocol: Protocol) -> str | None:
        """See `Evaluator`. The attacker has no teachers, and a network must not be selected on the attack's data."""
        if protocol.selection == "best_on_test" or (
            protocol.labels is not None and protocol.labels.kind != "hard"
        ):
            labels = "labels=null" if protocol.labels is None else f"labels.kind={protocol.labels.kind}"
            return (
                "evaluator privacy requires a protocol without teachers and without selection on test data, but "
                f"protocol {protocol.name} has selection={protocol.selection} and {labels}. "
                "Use protocol=dsa-1000 or dc-300"
            )
        return None

    def check_dataset(self, real: RealSet, architecture: Architecture) -> str | None:
        """See `Evaluator`."""
        if real.modality != "image":
            return None  # `check_set` rejects all sets of this dataset
        available = min(len(real.train), len(real.test) // 2)
        if self.candidates > available:
            return (
                f"evaluator.candidates must be <= {available} for {real.name}, got {self.candidates}. "
                f"Example: evaluator.candidates={available}"
            )
        return None

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`."""
        fresh = fresh_networks_on(syn, real, ctx)
        rng = torch.Generator().manual_seed(seed_for(ctx.seed, "candidates"))
        shadow_index, target_index = torch.randperm(len(real.test), generator=rng).to(ctx.device).chunk(2)
        members = torch.randperm(len(real.train), generator=rng)[: self.candidates].to(ctx.device)
        non_members = (real.test, target_index[: self.candidates])
        groups = {"auc": (real.train, members)}
        notes, source = [], _source_index(syn, ctx)
        if source is not None and _is_selection(syn, real, source):
            groups["auc_kept"] = (real.train, source.unique())
        elif source is not None:
            notes.append(
                "no auc_kept: the images of the set are not the training images that it names. They are from another "
                "split, as dataset.val_fraction makes, or were stored at another precision in more than one step"
            )
        shadow_split = real.test.subset(shadow_index)
        if (size := min(ctx.ipc, int(shadow_split.counts.min()))) < ctx.ipc:
            notes.append(
                f"the shadow networks are trained on {size} images per class, the shadow images of the smallest class"
            )
        yield set_measurement(fresh, *notes)
        shadow_nets = self._shadow_networks(fresh, shadow_split, size, ctx)
        statistics = _shadow_statistics(shadow_nets, {**groups, "others": non_members})
        seeds = self.seeds(ctx)
        for network, net in fresh.networks(seeds, self.num_networks):
            non_member_scores = _scores(net, *non_members, *statistics["others"])
            values = {}
            for name, group in groups.items():
                member_scores = _scores(net, *group, *statistics[name])
                is_member = torch.cat([torch.ones(len(member_scores)), torch.zeros(len(non_member_scores))])
                scores = torch.cat([member_scores, non_member_scores])
                values[name] = float(roc_auc_score(is_member, scores))
                if name == "auc":
                    values["hidden"] = min(1.0, 2 * (1 - values["auc"]))
                    fpr, tpr, _ = roc_curve(is_member, scores)
                    values["tpr"] = float(tpr[fpr <= 0.01].max())
                    rng = torch.Generator().manual_seed(seed_for(seeds[network], "dealt"))
                    permuted = is_member[torch.randperm(len(is_member), generator=rng)]
                    values["chance"] = float(roc_auc_score(permuted, scores))
            yield measurement(network, seeds[network], values)

    def _shadow_networks(
        self, fresh: FreshNetworks, shadow: Split, per_class: int, ctx: EvaluationContext
    ) -> list[nn.Module]:
        """Train the shadow networks, each on its own random draw of the shadow images."""
        nets: list[nn.Module] = []
        for i in range(self.references):
            index = shadow.draw(per_class, ctx.generator("shadow", i)).flatten()
            recipe = fresh.protocol.recipe.match_steps(len(index), len(fresh.images))
            on_shadow = replace(
                fresh,
                images=shadow.inputs(index),
                labels=shadow.labels[index],
                labelled=None,
                protocol=fresh.protocol.model_copy(update={"recipe": recipe, "labels": None}),
            )
            nets += [net for _, net in on_shadow.networks({0: ctx.seed_for("shadow network", i)}, total=1)]
        return nets


def _source_index(syn: SyntheticSet, ctx: EvaluationContext) -> Tensor | None:
    """Return the indices of the training images that form the set according to its card, or None."""
    if not isinstance(syn, ImageSet | QuantisedSet) or syn.source is None:
        return None
    return torch.tensor(syn.source, device=ctx.device)


def _is_selection(syn: SyntheticSet, real: RealSet, source: Tensor) -> bool:
    """Return whether the images of the set are the training images `source (n,)`, at the precision of the set."""
    assert isinstance(syn, ImageSet | QuantisedSet)
    if int(source.max()) >= len(real.train):
        return False
    selection = ImageSet.coreset(real, source)
    if isinstance(syn, ImageSet):
        pixels, stored = selection.images, syn.images.cpu()
        return torch.equal(
            pixels if syn.space == "pixel" else (pixels.float() / 255).to(stored.dtype), stored
        )
    quantisers = [replace(syn.quantiser, clip=clip) for clip in _CLIPS]  # a set does not store `clip`
    return any(torch.equal(QuantisedSet.of(selection, q).codes, syn.codes.cpu()) for q in quantisers)


Groups = dict[str, tuple[Split, Tensor]]


def _shadow_statistics(nets: list[nn.Module], groups: Groups) -> dict[str, tuple[Tensor, Tensor]]:
    """Return, for each group, the mean confidence of the networks in each image, `(b,)`, and a standard deviation.

    The standard deviation is the same for all groups: the average of the standard deviations of all images. A few
    networks cannot estimate the standard deviation for each image. If each group had its own standard deviation, the
    groups would be distinguishable by the standard deviations alone.
    """
    each = {name: torch.stack([confidence(net, *group) for net in nets]) for name, group in groups.items()}
    std = torch.cat([e.std(0) for e in each.values()]).mean()
    return {name: (e.mean(0), std) for name, e in each.items()}


def _scores(net: nn.Module, split: Split, index: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return the standardised confidence of the network in each image, on the CPU."""
    return ((confidence(net, split, index) - mean) / std.clamp_min(1e-12)).cpu()


@torch.no_grad()
def confidence(net: nn.Module, split: Split, index: Tensor) -> Tensor:
    """Return `log(p / (1 - p))` for each of the images `index (b,)`, float64 `(b,)`. p is the true class's probability.

    The value is computed as the logit of the true class minus the logsumexp of the other logits, which avoids
    cancellation.
    """
    training, parts = net.training, []
    net.eval()
    for part in index.split(1000):
        logits = at_least_float32(net(split.inputs(part))).double()
        labels = split.labels[part][:, None]
        others = logits.scatter(1, labels, -torch.inf).logsumexp(1)
        parts.append(logits.gather(1, labels)[:, 0] - others)
    net.train(training)
    return torch.cat(parts)
