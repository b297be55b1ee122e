"""Tests of DD-Ranking: published arithmetic, training data of each score, and the cached reference."""

import math

import pytest
import torch
import torch.nn.functional as F

from dd_bench.api import EvaluationContext
from dd_bench.evaluation import fresh_networks
from dd_bench.evaluators._references import with_epochs
from dd_bench.evaluators.ddranking import DDRanking, ars, lrs
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.synthetic.images import ImageSet
from dd_bench.teachers import trained_network

from .conftest import scores_by_network

KNOBS = {"num_networks": 2, "real_epochs": 2, "lrs_weight": 0.5, "ars_weight": 0.5}


@pytest.fixture
def make_ctx(convnet, blobs, runtime, protocol, recipe, tmp_path):
    def make(seed=0, finished=(), **changes):
        short = protocol(recipe=recipe(epochs=4, milestones=(2,), augment="flip_crop"), **changes)
        cache = Cache(tmp_path / "cache")
        return EvaluationContext(
            seed=seed,
            runtime=runtime,
            architecture=convnet(blobs),
            cache=cache,
            protocol=short,
            finished=frozenset(finished),
            ipc=2,
        )

    return make


@pytest.fixture
def syn(blobs):
    return ImageSet.coreset(blobs, blobs.train.draw(2, torch.Generator().manual_seed(0)).flatten())


@pytest.fixture
def trained(monkeypatch):
    seen, plain = [], fresh_networks.train

    def spy(net, fetch, n, recipe, **kwargs):
        seen.append((n, recipe.augment, recipe.epochs, fetch(torch.arange(2))[1].ndim))
        return plain(net, fetch, n, recipe, **kwargs)

    monkeypatch.setattr(fresh_networks, "train", spy)
    return seen


class TestArithmetic:
    def test_lrs_of_a_published_row(self):
        """MTT at IPC 10 on DD-Ranking's leaderboard: HLR 23.73 % and IOR 30.90 %."""
        assert lrs(0.2373, 0.3090) == pytest.approx(0.28447, abs=5e-6)

    def test_range(self):
        assert lrs(0, 0) == ars(0, 0) == pytest.approx((1 - math.exp(-1)) / (math.e - math.exp(-1)))
        assert lrs(-1, 1) == ars(1, 1) == pytest.approx(1) and lrs(1, -1) == ars(-1, -1) == pytest.approx(0)
        assert lrs(0, 1) == pytest.approx(0.545, abs=5e-4)  # the maximum with HLR 0
        assert round(lrs(0, 0), 3) == 0.269 and round(lrs(0.5, 0), 3) == 0.175

    def test_weights(self):
        assert lrs(0.3, 0.1, weight=1) == lrs(0.9, 0.1, weight=1) and lrs(0.3, 0.1, 0) == lrs(0.3, 0.9, 0)
        assert ars(0.3, 0.1, weight=1) == ars(0.3, 0.9, weight=1)

    def test_percentages_leave_the_unit_interval(self):
        """This is how the released package computes the scores."""
        assert lrs(23.73, 30.90) > 1


def test_scores_are_computed_from_the_accuracies(blobs, syn, make_ctx, trained):
    found = scores_by_network(DDRanking(**KNOBS), syn, blobs, make_ctx())
    assert [s[0].network for s in found] == [0, 1]
    for scores in found:
        v = {s.metric: s.value for s in scores}
        assert v["hlr"] == v["real"] - v["syn_hard"] and v["ior"] == v["syn"] - v["random"]
        assert v["lrs"] == lrs(v["hlr"], v["ior"])
        assert v["syn_hard"] == v["syn"]  # the set has hard labels
        assert v["ars"] == ars(v["ior"], v["syn_plain"] - v["random_plain"])
    assert trained == 2 * [
        (6, "flip_crop", 4, 1),
        (6, "none", 4, 1),
        (6, "flip_crop", 4, 1),
        (6, "none", 4, 1),
    ]


def test_soft_labels(blobs, syn, make_ctx, trained):
    soft = ImageSet(**{**vars(syn), "labels": F.one_hot(syn.labels, 3) * 0.7 + 0.1, "source": None})
    (scores, _) = scores_by_network(DDRanking(**KNOBS), soft, blobs, make_ctx())
    assert [ndim for *_, ndim in trained[:5]] == [2, 2, 1, 1, 1]
    assert {"syn", "syn_hard"} <= {s.metric for s in scores}


def test_reference_is_cached(blobs, syn, make_ctx, monkeypatch):
    seen, plain = [], trained_network.train
    monkeypatch.setattr(trained_network, "train", lambda *a, **k: seen.append(a[2:4]) or plain(*a, **k))
    whole = scores_by_network(DDRanking(**KNOBS), syn, blobs, make_ctx())
    assert [n for n, _ in seen] == [len(blobs.train)] * 2
    assert {(r.epochs, r.milestones, r.augment) for _, r in seen} == {(2, (1,), "flip_crop")}
    assert scores_by_network(DDRanking(**KNOBS), syn, blobs, make_ctx()) == whole and len(seen) == 2
    scores_by_network(DDRanking(**KNOBS | {"real_epochs": 3}), syn, blobs, make_ctx(finished=[1]))
    assert len(seen) == 3  # another recipe requires another reference


def test_with_epochs(recipe):
    long = recipe(epochs=300, milestones=(100, 200), schedule="milestones")
    assert with_epochs(long, 30).milestones == (10, 20)
    assert with_epochs(long, 1).milestones == (1,) and with_epochs(long, 1).epochs == 1
    warm = recipe(epochs=100, milestones=(), schedule="cosine", warmup=10)
    assert (with_epochs(warm, 10).warmup, with_epochs(warm, 1).warmup) == (1, 0)
    stepped = recipe(epochs=1, milestones=(), schedule="cosine", steps=500)
    assert with_epochs(stepped, 3).steps is None and with_epochs(stepped, 3).epochs == 3


@pytest.mark.parametrize("change", [{"real_epochs": 0}, {"lrs_weight": 1.5}, {"ars_weight": -0.1}])
def test_invalid_arguments_raise(change):
    with pytest.raises(ValueError, match=f"evaluator.{next(iter(change))} must be"):
        DDRanking(**KNOBS | change)


def test_protocols_with_selection_are_not_supported(protocol, recipe):
    """The reference on real data is measured at the last step."""
    for name in ("best_on_test", "best_on_val"):
        reason = DDRanking(**KNOBS).check_protocol(protocol(recipe=recipe(), selection=name, eval_every=1))
        assert reason is not None and "requires selection=last" in reason


def test_diverged_reference_raises(blobs, syn, make_ctx, monkeypatch):
    plain = trained_network.train

    def diverging(net, *a, **k):
        out = plain(net, *a, **k)
        next(out.parameters()).data.fill_(torch.nan)
        return out

    monkeypatch.setattr(trained_network, "train", diverging)
    with pytest.raises(Diverged, match="on the whole training set has non-finite weights"):
        scores_by_network(DDRanking(**KNOBS), syn, blobs, make_ctx())
