"""Tests of cross-architecture evaluation: networks, seeds and learning rates."""

from functools import partial

import pytest
import torch

from dd_bench.api import EvaluationContext
from dd_bench.evaluation import fresh_networks
from dd_bench.evaluators.accuracy import Accuracy
from dd_bench.evaluators.cross_arch import CrossArch
from dd_bench.models.architecture import Architecture
from dd_bench.models.lenet import LeNet
from dd_bench.models.mlp import MLP
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.synthetic.images import ImageSet

from .conftest import notes_of, scores_by_network

NETWORKS = {"small": partial(MLP, width=4, depth=1), "deep": partial(MLP, width=8, depth=3)}


@pytest.fixture
def make_ctx(convnet, blobs, runtime, protocol, recipe, tmp_path):
    def make(architecture=None, lr=0.01, **changes):
        short = protocol(recipe=recipe(epochs=3, lr=lr), **changes)
        return EvaluationContext(
            seed=0,
            runtime=runtime,
            architecture=architecture or convnet(blobs),
            cache=Cache(tmp_path / "cache"),
            protocol=short,
            ipc=2,
        )

    return make


@pytest.fixture
def syn(blobs):
    return ImageSet.coreset(blobs, blobs.train.draw(2, torch.Generator().manual_seed(0)).flatten())


@pytest.fixture
def rates(monkeypatch):
    """The networks that an evaluation trains and their rates, in order."""
    seen, plain = [], fresh_networks.train

    def spy(net, fetch, n, recipe, **kwargs):
        seen.append((type(net).__name__, sum(p.numel() for p in net.parameters()), recipe.lr))
        return plain(net, fetch, n, recipe, **kwargs)

    monkeypatch.setattr(fresh_networks, "train", spy)
    return seen


def values(evaluator, syn, real, ctx):
    return {
        (s.metric, s.network): (s.value, s.seed)
        for found in scores_by_network(evaluator, syn, real, ctx)
        for s in found
    }


def test_each_architecture_scores_as_with_accuracy(blobs, syn, make_ctx):
    """Network i of every architecture has the same seed and the score of evaluator `accuracy`."""
    found = values(CrossArch(num_networks=2, networks=NETWORKS, lr={}), syn, blobs, make_ctx())
    plain = Accuracy(num_networks=2)
    assert {k: v for k, v in found.items() if k[0] == "accuracy"} == values(plain, syn, blobs, make_ctx())
    for name, model in NETWORKS.items():
        own = Architecture(model.func, dict(model.keywords), blobs.shape, blobs.num_classes, name)
        alone = values(plain, syn, blobs, make_ctx(own))
        assert {("accuracy", k[1]): v for k, v in found.items() if k[0] == f"accuracy:{name}"} == alone
    assert len(found) == 6


def test_rates_of_single_networks(blobs, syn, make_ctx, rates):
    ctx = make_ctx(learned_lr=True)
    evaluator = CrossArch(num_networks=1, networks=NETWORKS, lr={"deep": 0.2})
    notes = notes_of(evaluator, type(syn)(**{**vars(syn), "lr": 0.03}), blobs, ctx)
    assert [rate for *_, rate in rates] == [0.03, 0.03, 0.2]
    assert len({size for _, size, _ in rates}) == 3
    assert "deep was trained at its own rate 0.2" in notes
    assert sum("learned rate" in note for note in notes) == 1


def test_diverged_network_is_scored_as_chance(blobs, syn, make_ctx):
    """The scores of the other networks do not change. If the run's network diverges, it is an error."""
    ctx, networks = make_ctx(), {"small": NETWORKS["small"], "deep": NETWORKS["deep"]}
    evaluator = CrossArch(num_networks=2, networks=networks, lr={"deep": 1e30})
    found = values(evaluator, syn, blobs, ctx)
    fine = values(
        CrossArch(num_networks=2, networks={"small": NETWORKS["small"]}, lr={}), syn, blobs, make_ctx()
    )
    assert [found["accuracy:deep", i][0] for i in (0, 1)] == [1 / 3, 1 / 3]
    assert {k: v for k, v in found.items() if k[0] != "accuracy:deep"} == fine
    notes = [note for note in notes_of(evaluator, syn, blobs, ctx) if "not finite" in note]
    assert notes == [f"deep: network {i} is not finite at its end, and scored as chance" for i in (0, 1)]
    with pytest.raises(Diverged):
        values(Accuracy(num_networks=1), syn, blobs, make_ctx(lr=1e30))


def test_error_messages(blobs, syn):
    with pytest.raises(
        ValueError,
        match=r"must contain at least one network, got none. Example: \+model@evaluator",
    ):
        CrossArch(num_networks=1, networks={}, lr={})
    with pytest.raises(ValueError, match=r"must be in evaluator\.networks \(small, deep\), got 'vit'"):
        CrossArch(num_networks=1, networks=NETWORKS, lr={"vit": 0.1})
    with pytest.raises(ValueError, match=r"evaluator\.lr\.deep must be > 0, got 0\.0"):
        CrossArch(num_networks=1, networks=NETWORKS, lr={"deep": 0.0})
    reason = CrossArch(num_networks=1, networks={"lenet": partial(LeNet)}, lr={}).check_dataset(blobs, None)
    assert reason is not None and reason.endswith("To leave this network out, use ~evaluator.networks.lenet")
