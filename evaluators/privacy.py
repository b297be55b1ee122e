"""Membership inference: does a network that learned from a set betray which real images the set was distilled from?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

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
    RealSet,
    Split,
    SyntheticSet,
    at_least_float32,
    seed_for,
)

from ._scoring import fresh_networks_on, measurement, remarks
from .accuracy import Accuracy


class Privacy(Accuracy):
    """Offline LiRA in small (Carlini et al., S&P 2022), against fresh networks trained on the set.

    The attacker asks of a real image whether it was among the training images that the set was made of. It has
    `references` networks of its own, trained under the same protocol on as many images a class, drawn from a half of
    the test images that it is never asked about; they say how confident a network is in an image that it has not seen.
    The score of an image is how far above that the attacked network is, in standard deviations of the references.
    Members are `candidates` training images, others as many of the other half of the test images.

    - `auc`: area under the curve of that score, 0.5 for an attacker who knows nothing; `tpr`: true positives at 1 % of
      false ones; `hidden`, which ranks: 2 (1 - auc), at most 1 and 0 where the attacker is always right;
    - `chance`: the same area with membership dealt out at random;
    - `auc_kept`: of a set that is a selection of real images: the same with these images as members. It shows what the
      attack finds where there is something to find.

    A set of n images can betray little of 60,000: `auc` near 0.5 says that this attack finds nothing, not that none
    would. Intervals are over networks, for these candidates: a thousand on each side leave an error of 0.013 in an
    `auc` that is 0.5. Where a class has too few shadow images the attacker's networks see fewer, which is noted.
    """

    main_metric = "hidden"
    smoke = ("evaluator.num_networks=2", "evaluator.candidates=12", "evaluator.references=3")

    def __init__(self, *, num_networks: int, candidates: int, references: int):
        """Takes the number of attacked networks, of images on each side, and of the attacker's own networks.

        Raises:
            ValueError: one of them is too small.
        """
        super().__init__(num_networks=num_networks)
        if candidates < 2 or references < 2:
            raise ValueError(
                f"evaluator.candidates={candidates}, evaluator.references={references}: wanted at least two"
            )
        self.candidates, self.references = candidates, references

    def check_protocol(self, protocol: Protocol) -> str | None:
        """See `Evaluator`: the attacker has no teachers, and test data do not choose what is attacked with them."""
        if protocol.selection == "best_on_test" or (
            protocol.labels is not None and protocol.labels.kind != "hard"
        ):
            return (
                f"protocol {protocol.name} has teachers or selects on test data, which the attacker does not have. "
                "Use protocol=dsa-1000 or dc-300"
            )
        return None

    def check_dataset(self, real: RealSet, architecture: Architecture) -> str | None:
        """See `Evaluator`."""
        if real.modality != "image":
            return None  # no set of theirs is measured
        least = min(len(real.train), len(real.test) // 2)
        if self.candidates > least:
            return f"evaluator.candidates={self.candidates}, {real.name} has {least} for each side. Use fewer"
        return None

    def run(self, syn: SyntheticSet, real: RealSet, ctx: EvaluationContext) -> Iterator[Measurement]:
        """See `Evaluator`."""
        fresh = fresh_networks_on(syn, real, ctx)
        draws = torch.Generator().manual_seed(seed_for(ctx.seed, "candidates"))
        shadow, asked = torch.randperm(len(real.test), generator=draws).to(ctx.device).chunk(2)
        members = torch.randperm(len(real.train), generator=draws)[: self.candidates].to(ctx.device)
        others = (real.test, asked[: self.candidates])
        groups = {"auc": (real.train, members)}
        notes, source = [], _source(syn, ctx)
        if source is not None and _is_selection(syn, real, source):
            groups["auc_kept"] = (real.train, source.unique())
        elif source is not None:
            notes.append(
                "the set names training images of another split, as dataset.val_fraction makes: no auc_kept"
            )
        shadows = real.test.subset(shadow)
        if (size := min(ctx.ipc, int(shadows.counts.min()))) < ctx.ipc:
            notes.append(
                f"the attacker's networks see {size} images a class: no class has more shadow images"
            )
        yield remarks(fresh, *notes)
        mine = self._attackers(fresh, shadows, size, ctx)
        unseen = _usual(mine, {**groups, "others": others})
        seeds = self.seeds(ctx)
        for network, net in fresh.networks(seeds, self.num_networks):
            outside = _surprise(net, *others, *unseen["others"])
            values = {}
            for name, group in groups.items():
                inside = _surprise(net, *group, *unseen[name])
                truth = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))])
                scores = torch.cat([inside, outside])
                values[name] = float(roc_auc_score(truth, scores))
                if name == "auc":
                    values["hidden"] = min(1.0, 2 * (1 - values["auc"]))
                    false, true, _ = roc_curve(truth, scores)
                    values["tpr"] = float(true[false <= 0.01].max())
                    deal = torch.Generator().manual_seed(seed_for(seeds[network], "dealt"))
                    values["chance"] = float(
                        roc_auc_score(truth[torch.randperm(len(truth), generator=deal)], scores)
                    )
            yield measurement(network, seeds[network], values)

    def _attackers(
        self, fresh: FreshNetworks, shadow: Split, per_class: int, ctx: EvaluationContext
    ) -> list[nn.Module]:
        """Returns the attacker's own networks, each trained on its own draw from the shadow images."""
        nets: list[nn.Module] = []
        for i in range(self.references):
            index = shadow.draw(per_class, ctx.generator("shadow", i)).flatten()
            own = replace(fresh, images=shadow.inputs(index), labels=shadow.labels[index], labelled=None)
            recipe = fresh.protocol.recipe.in_step_with(len(index), len(fresh.images))
            own = replace(own, protocol=fresh.protocol.model_copy(update={"recipe": recipe, "labels": None}))
            nets += [net for _, net in own.networks({0: ctx.seed_for("shadow network", i)}, total=1)]
        return nets


def _source(syn: SyntheticSet, ctx: EvaluationContext) -> Tensor | None:
    """Returns the indices of the training images that the set says it is a selection of, or None."""
    if not isinstance(syn, ImageSet) or syn.source is None or syn.space != "pixel":
        return None
    return torch.tensor(syn.source, device=ctx.device)


def _is_selection(syn: SyntheticSet, real: RealSet, source: Tensor) -> bool:
    """Whether the images of the set are the training images `source (n,)`."""
    assert isinstance(syn, ImageSet)
    return int(source.max()) < len(real.train) and torch.equal(
        real.train.pixels(source).cpu(), syn.images.cpu()
    )


Groups = dict[str, tuple[Split, Tensor]]


def _usual(nets: list[nn.Module], groups: Groups) -> dict[str, tuple[Tensor, Tensor]]:
    """Returns for each group the mean over networks of their confidence in each image, and a standard deviation.

    That is one for all images of all groups: a few networks cannot say each's, and groups of other spreads would be
    told apart by them alone.
    """
    each = {name: torch.stack([confidence(net, *group) for net in nets]) for name, group in groups.items()}
    spread = torch.cat([e.std(0) for e in each.values()]).mean()
    return {name: (e.mean(0), spread) for name, e in each.items()}


def _surprise(net: nn.Module, split: Split, index: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Returns how far the network's confidence in each image is above the usual, in standard deviations, on the CPU."""
    return ((confidence(net, split, index) - mean) / std.clamp_min(1e-12)).cpu()


@torch.no_grad()
def confidence(net: nn.Module, split: Split, index: Tensor) -> Tensor:
    """Returns log(p / (1 - p)) of the right class of the images `index (b,)`, float64 `(b,)`.

    Of logits z it is z_y less the logarithm of the summed exponentials of the others, without a difference of
    near-equal numbers.
    """
    training, found = net.training, []
    net.eval()
    for part in index.split(1000):
        logits = at_least_float32(net(split.inputs(part))).double()
        right = split.labels[part][:, None]
        others = logits.scatter(1, right, -torch.inf).logsumexp(1)
        found.append(logits.gather(1, right)[:, 0] - others)
    net.train(training)
    return torch.cat(found)
