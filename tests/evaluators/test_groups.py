"""Tests of accuracy by group, on confusion counts with known results."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dd_bench.data.colour_bias import balanced_colours
from dd_bench.evaluators._confusion import confusion
from dd_bench.evaluators.groups import group_scores

EQUAL = torch.tensor([10, 10])


def test_an_unbiased_network_satisfies_equalised_odds():
    """It has the same errors for both values of the attribute."""
    counts = torch.tensor([[[8, 2], [1, 9]], [[8, 2], [1, 9]]])
    scores = group_scores(counts, EQUAL)
    assert scores["equalised_odds"] == scores["equalised_odds_mean"] == 0
    assert scores["accuracy"] == pytest.approx(0.85)
    assert scores["worst_class"] == scores["worst_group"] == pytest.approx(0.8)
    assert scores["aligned"] == scores["conflicting"] == pytest.approx(0.85)


def test_a_network_that_predicts_the_attribute():
    """It is right for aligned images only, and its violation of equalised odds is the largest possible one."""
    counts = torch.tensor([[[10, 0], [10, 0]], [[0, 10], [0, 10]]])
    scores = group_scores(counts, EQUAL)
    assert (scores["aligned"], scores["conflicting"], scores["worst_group"]) == (1, 0, 0)
    assert (scores["accuracy"], scores["equalised_odds"], scores["equalised_odds_mean"]) == (0.5, 1, 1)


def test_equalised_odds_is_the_largest_difference_of_two_values():
    counts = torch.tensor([[[10, 0], [3, 7]], [[6, 4], [3, 7]], [[8, 2], [3, 7]]])
    scores = group_scores(counts, EQUAL)
    assert scores["equalised_odds"] == pytest.approx(0.4)
    assert scores["equalised_odds_mean"] == pytest.approx(0.2)


def test_empty_groups_are_left_out():
    counts = torch.tensor([[[10, 0], [0, 0]], [[5, 5], [1, 9]]])
    scores = group_scores(counts, EQUAL)
    assert scores["worst_group"] == 0.5 and scores["equalised_odds"] == 0.5
    assert scores["equalised_odds_mean"] == 0.25


def test_thirds_of_a_long_tail():
    counts = torch.diag(torch.tensor([4, 3, 2, 1]))[None]
    counts[0, :, 0] += 4 - counts[0].sum(1)
    scores = group_scores(counts, torch.tensor([1, 40, 10, 3]))
    assert (scores["head"], scores["medium"], scores["tail"]) == (0.625, 0.25, 1.0)
    assert "worst_group" not in scores
    assert "tail" not in group_scores(counts, torch.tensor([19, 10, 10, 10])), (
        "the classes are similar in size"
    )


def test_confusion_counts(blobs, runtime):
    """The network predicts class 1 for every image."""

    class Constant(nn.Module):
        def forward(self, x):
            return torch.tensor([0.0, 1.0, 0.0]).expand(len(x), 3)

    colours = balanced_colours(blobs.test.labels, 3, "test")
    split = SimpleNamespace(
        num_classes=3, labels=blobs.test.labels, attributes=colours, shape=blobs.shape,
        batches=blobs.test.batches,
    )  # fmt: skip
    net = nn.Sequential(nn.Identity(), Constant())
    net.register_parameter("p", nn.Parameter(torch.zeros(())))
    counts = confusion(net, split, runtime)
    assert counts.shape == (3, 3, 3) and int(counts[:, :, 1].sum()) == int(counts.sum()) == 60
    assert counts.sum((1, 2)).tolist() == torch.bincount(colours).tolist()
    split.attributes = None
    assert confusion(net, split, runtime).sum((0, 2)).tolist() == [20, 20, 20]
