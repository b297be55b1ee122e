"""Tests of architecture search: space, rank correlations, training data of each search, and resuming."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from dd_bench.api import EvaluationContext
from dd_bench.evaluators import _rank_agreement
from dd_bench.evaluators._rank_agreement import agreement, intervals
from dd_bench.evaluators._references import Reference
from dd_bench.evaluators.nas import NAS
from dd_bench.runtime import checkpoint
from dd_bench.runtime.cache import Cache
from dd_bench.synthetic.images import ImageSet
from dd_bench.teachers import trained_network

from .conftest import scores_by_network

FULL = {
    "width": [32, 64, 128, 256],
    "depth": [1, 2, 3, 4],
    "norm": ["none", "batchnorm", "layernorm", "instancenorm", "groupnorm"],
    "activation": ["sigmoid", "relu", "leakyrelu"],
    "pooling": ["none", "max", "avg"],
}
SMALL = {"width": [2, 4], "depth": [1], "pooling": ["avg", "max"]}
KNOBS = {"sample": None, "num_repeats": 2, "whole_epochs": 3, "whole_networks": 1, "top": 0.75}


@pytest.fixture
def held_out(real_set):
    return real_set(val_fraction=0.25)


@pytest.fixture
def make_ctx(convnet, held_out, runtime, protocol, recipe, tmp_path):
    def make(seed=0, finished=(), **runtime_changes):
        short = protocol(recipe=recipe(epochs=2, milestones=(1,)))
        cache = Cache(tmp_path / "cache")
        return EvaluationContext(
            seed=seed,
            runtime=replace(runtime, **runtime_changes),
            architecture=convnet(held_out),
            cache=cache,
            protocol=short,
            finished=frozenset(finished),
            ipc=2,
        )

    return make


@pytest.fixture
def syn(held_out):
    return ImageSet.coreset(held_out, held_out.train.draw(2, torch.Generator().manual_seed(0)).flatten())


@pytest.fixture
def trained(monkeypatch):
    seen, plain = [], trained_network.train

    def spy(net, fetch, n, recipe, **runtime_):
        seen.append((n, recipe.steps, recipe.epochs, recipe.milestones))
        return plain(net, fetch, n, recipe, **runtime_)

    monkeypatch.setattr(trained_network, "train", spy)
    return seen


def make(space=SMALL, **changes):
    return NAS(space=space, **KNOBS | changes)


class TestSpace:
    def test_full_space_has_720_networks(self):
        assert len(make(FULL, sample=None).chosen()) == 720

    def test_sample_is_balanced_and_deterministic(self):
        chosen = make(FULL, sample=72).chosen()
        assert chosen == make(FULL, sample=72).chosen()
        assert len({tuple(c.values()) for c in chosen}) == 72
        for knob, values in FULL.items():
            counts = [sum(c[knob] == v for c in chosen) for v in values]
            assert max(counts) - min(counts) <= 1, knob

    def test_sample_of_nearly_the_whole_space(self):
        chosen = make(SMALL, sample=3, top=1.0).chosen()
        assert len({tuple(c.values()) for c in chosen}) == 3


class TestAgreement:
    def test_same_and_opposite_order(self):
        reference = np.array([0.1, 0.5, 0.9, 0.7])
        same, opposite = agreement(reference**2, reference, 0.75), agreement(-reference, reference, 0.75)
        for name in ("spearman", "kendall", "spearman_top", "kendall_top"):
            assert same[name] == pytest.approx(1) and opposite[name] == pytest.approx(-1)
        assert same["performance"] == 0.9 and opposite["performance"] == 0.1

    def test_top_is_chosen_by_the_reference(self):
        """The network that is ranked first has the worst reference and is not in the top."""
        found = agreement(np.array([0.99, 0.2, 0.4, 0.3]), np.array([0.1, 0.5, 0.9, 0.7]), 0.75)
        assert found["spearman_top"] == pytest.approx(1) and found["spearman"] == pytest.approx(-0.2)
        assert found["performance"] == 0.1

    def test_constant_accuracies_have_no_correlation(self):
        assert agreement(np.full(4, 0.1), np.array([0.1, 0.5, 0.9, 0.7]), 0.75)["spearman"] == 0

    @pytest.mark.filterwarnings("ignore::scipy.stats.ConstantInputWarning")  # resamples with equal accuracies
    def test_intervals_agree_with_scipy(self, monkeypatch):
        """The accuracies have ties."""
        monkeypatch.setattr(_rank_agreement, "DRAWS", 40)
        draws, n = np.random.default_rng(0), 12
        reference, a, b = draws.integers(6, size=(3, n)) / 6
        ends = intervals({"": a, "random ": b}, reference, 0.5, 3)
        again, found = np.random.default_rng(3), []
        for _ in range(40):
            index = again.integers(n, size=n)
            top = index[np.argsort(-reference[index], kind="stable")[:6]]
            found.append([])
            for chosen in (index, top):
                for correlation in (stats.spearmanr, stats.kendalltau):
                    pairs = [correlation(x[chosen], reference[chosen]).statistic for x in (a, b)]
                    found[-1] += np.nan_to_num([*pairs, pairs[0] - pairs[1]]).tolist()
        names = [
            f"{x}{kind}" for kind in _rank_agreement.CORRELATIONS for x in ("", "random ", "over random ")
        ]
        assert {name.rpartition("_")[0] for name in ends} == set(names)
        for name, column in zip(names, np.transpose(found), strict=True):
            assert (ends[f"{name}_low"], ends[f"{name}_high"]) == pytest.approx(
                np.quantile(column, (0.025, 0.975)), abs=1e-12
            )

    def test_coverage_of_the_intervals(self):
        """Nearly all intervals of twenty samples of 60 networks contain the true correlation."""
        hits = differences = 0
        truth = 6 / np.pi * np.arcsin(0.7 / 2)  # Spearman's of a normal pair with correlation 0.7
        for seed in range(20):
            cov = [[1, 0.7, 0.7], [0.7, 1, 0.49], [0.7, 0.49, 1]]
            reference, a, b = np.random.default_rng(seed).multivariate_normal([0, 0, 0], cov, 60).T
            ends = intervals({"": a, "random ": b}, reference, 0.2, seed)
            hits += ends["spearman_low"] <= truth <= ends["spearman_high"]
            differences += ends["over random spearman_low"] <= 0 <= ends["over random spearman_high"]
        assert hits >= 17 and differences >= 17


def test_training_data_and_recipes(held_out, syn, make_ctx, trained):
    found = scores_by_network(make(), syn, held_out, make_ctx())
    n = len(held_out.train)
    whole, per_repeat = [(n, None, 3, (2,))] * 4, [(6, None, 2, (1,))] * 8 + [(n, 2, 1, ())] * 4
    assert trained == whole + 2 * per_repeat  # two epochs of one batch are two steps
    for repeat, scores in enumerate(found):
        v = {s.metric: s.value for s in scores}
        assert {s.network for s in scores} == {repeat}
        assert {
            "spearman",
            "random spearman",
            "early spearman",
            "whole performance",
            "kendall_top_low",
        } <= set(v)
        assert all(-1 <= v[f"{name}spearman"] <= 1 for name in ("", "random ", "early "))
        assert v["spearman_low"] <= v["spearman_high"]


def test_search_resumes(held_out, syn, make_ctx, trained, monkeypatch):
    whole = scores_by_network(make(), syn, held_out, make_ctx())
    count = len(trained)
    assert scores_by_network(make(), syn, held_out, make_ctx()) == whole and len(trained) == count
    # the mean over both repeats is also the same
    assert scores_by_network(make(), syn, held_out, make_ctx(finished=[0])) == whole[1:]
    assert (
        scores_by_network(make(), syn, held_out, make_ctx(finished=[1])) == whole[:1]
        and len(trained) == count
    )


@pytest.mark.slow
def test_several_processes(held_out, syn, make_ctx, runtime, tmp_path):
    alone = scores_by_network(make(num_repeats=1), syn, held_out, make_ctx())
    other = make_ctx(workers=2)
    other.cache = Cache(tmp_path / "other")
    (scores,) = scores_by_network(make(num_repeats=1), syn, held_out, other)
    assert [s.metric for s in scores] == [s.metric for s in alone[0]]
    of_accuracy = {s.metric: s.value for s in alone[0] if "performance" in s.metric}
    assert {s.metric: s.value for s in scores if s.metric in of_accuracy} == pytest.approx(
        of_accuracy, abs=0.05
    )


def test_reference(held_out, convnet, runtime, recipe, tmp_path):
    found = Reference(held_out, recipe(epochs=2), runtime, tmp_path).measure(convnet(held_out), 3)
    assert set(found) == {"test", "val", "finite", "seconds"} and found["finite"] == 1
    assert 0 <= found["test"] <= 1 and 0 <= found["val"] <= 1
    with pytest.raises(ValueError, match="images and identity of a Reference must both be set"):
        Reference(held_out, recipe(), runtime, tmp_path, identity="x").measure(convnet(held_out), 3)


def test_error_messages(blobs, held_out, convnet, syn, protocol, recipe):
    assert "Use dataset.val_fraction=0.1" in make().check_dataset(blobs, convnet(blobs))
    deep = make(SMALL | {"depth": [1, 9]}).check_dataset(held_out, convnet(held_out))
    assert deep is not None and "'depth': 9" in deep and "smaller evaluator.space" in deep
    for change, message in (
        ({"num_repeats": 0}, "evaluator.num_repeats must be >= 1, got 0"),
        ({"sample": 5}, "evaluator.sample must be in 3..4, .* got 5"),
        ({"top": 0.5}, "evaluator.top .* at least 3 of 4 networks, got 0.5. Example: evaluator.top=0.75"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**change)
    rule = protocol(recipe=recipe(), selection="best_on_test", eval_every=1)
    assert "Use protocol=nas-200" in make().check_protocol(rule)


def test_killed_reference_resumes_from_its_last_epoch(
    held_out, convnet, runtime, recipe, tmp_path, monkeypatch
):
    """After a kill in the third epoch, only the remaining epochs are trained, with the same result."""
    whole = Reference(held_out, recipe(epochs=4, milestones=(2,)), runtime, tmp_path / "whole").measure(
        convnet(held_out), 3
    )
    reference = Reference(held_out, recipe(epochs=4, milestones=(2,)), runtime, tmp_path / "killed")
    plain, saved = checkpoint.save, []

    def save_and_raise(path, step, *rest):
        plain(path, step, *rest)
        saved.append(step)
        if saved == [1, 2]:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", save_and_raise)
    with pytest.raises(KeyboardInterrupt):
        reference.measure(convnet(held_out), 3)
    assert not reference.is_cached(convnet(held_out), 3)
    found = reference.measure(convnet(held_out), 3)
    assert saved == [1, 2, 3, 4] and reference.is_cached(convnet(held_out), 3)
    assert {k: found[k] for k in ("test", "val")} == {k: whole[k] for k in ("test", "val")}
