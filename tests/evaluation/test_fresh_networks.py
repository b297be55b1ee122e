"""An examination: test data are touched as often as the rule says, and how it is computed does not matter."""

import math
from dataclasses import replace

import pytest
import torch

from dd_bench.distillation.init import class_labels
from dd_bench.evaluation import fresh_networks
from dd_bench.evaluation.fresh_networks import FreshNetworks
from dd_bench.training.scoring import accuracy

CPU = torch.device("cpu")
SEEDS = {0: 11, 1: 12, 2: 13}


class Counted:
    """A split that counts how often it is read from end to end."""

    def __init__(self, split):
        self.split, self.reads = split, 0

    def __len__(self):
        return len(self.split)

    def batches(self, size):
        self.reads += 1
        return self.split.batches(size)


@pytest.fixture
def exam(real_set, convnet, protocol, runtime):
    """Builds an examination on nine images of the blobs, with counted splits."""

    def make(*, val_fraction=0.25, noise=90.0, how=runtime, norm="instancenorm", **rule):
        real = real_set(val_fraction=val_fraction, noise=noise)
        index = torch.arange(9)
        images, labels = real.train.inputs(index), real.train.labels[index]
        val = Counted(real.val) if real.val is not None else None
        net = convnet(real, norm=norm)
        return FreshNetworks(net, protocol(**rule), images, labels, Counted(real.test), val, real.flip, how)

    return make


class TestSelection:
    def test_last_touches_test_once_a_network(self, exam):
        e = exam()
        values = dict(e.scores(SEEDS, total=3))
        assert set(values) == set(SEEDS) and e.test.reads == 3 and e.val.reads == 0
        assert all(0 <= v <= 1 and math.isclose(v * 60, round(v * 60)) for v in values.values())

    def test_best_on_val_looks_at_val_and_touches_test_once(self, exam, recipe):
        e = exam(selection="best_on_val", eval_every=2, recipe=recipe(epochs=5))
        list(e.scores(SEEDS, total=3))
        assert e.test.reads == 3 and e.val.reads == 3 * 3, "after epochs 2, 4 and the last"

    def test_best_on_val_needs_val(self, exam):
        with pytest.raises(ValueError, match=r"requires a validation split.*dataset\.val_fraction=0\.1"):
            exam(val_fraction=0.0, selection="best_on_val", eval_every=1)

    def test_best_on_val_scores_the_network_that_val_chose(self, exam, monkeypatch, recipe):
        """The weights go back to the best epoch, not to the last."""
        e = exam(selection="best_on_val", eval_every=1, recipe=recipe(epochs=4), norm="batchnorm")
        told = {1: 0.2, 2: 0.9, 3: 0.9, 4: 0.1}
        states, counted = [], []

        def fake(net, batches, runtime):
            list(batches)
            state = torch.cat([v.flatten().double() for v in net.state_dict().values()])
            if e.test.reads:
                counted.append(state)
                return 0.5
            states.append(state)
            return told[len(states)]

        monkeypatch.setattr(fresh_networks, "accuracy", fake)
        assert e.score(1, compiled=False) == 0.5
        assert torch.equal(counted[0], states[1]), "the first of equals, BatchNorm's statistics included"
        assert not torch.equal(states[1], states[3])

    def test_best_on_test_is_the_maximum(self, exam, recipe):
        rule = {"eval_every": 1, "recipe": recipe(epochs=6, lr=0.05)}
        e = exam(selection="best_on_test", **rule)
        best = e.score(5, compiled=False)
        assert e.test.reads == 6
        ends = [
            exam(recipe=recipe(epochs=n, lr=0.05, milestones=(3,))).score(5, compiled=False)
            for n in range(1, 7)
        ]
        assert best == max(ends), "an epoch's look is the score of a training that ends there"

    def test_eval_from(self, exam, recipe):
        e = exam(selection="best_on_test", eval_every=1, eval_from=4, recipe=recipe(epochs=6))
        e.score(5, compiled=False)
        assert e.test.reads == 3

    def test_an_epoch_that_never_comes_is_refused(self, protocol, recipe):
        with pytest.raises(ValueError, match="eval_from must be <= epochs=6, got 7"):
            protocol(selection="best_on_test", eval_every=1, eval_from=7, recipe=recipe(epochs=6))

    @pytest.mark.parametrize("rule", [("last", 1), ("best_on_val", 0), ("best_on_test", 0)])
    def test_rules_that_contradict_themselves(self, protocol, rule):
        with pytest.raises(ValueError, match="eval_every must be 0 with selection=last"):
            protocol(selection=rule[0], eval_every=rule[1])

    def test_a_grid_needs_a_rule(self, protocol):
        with pytest.raises(ValueError, match="lr_grid requires selection=best_on_val"):
            protocol(lr_grid=(0.1, 0.01))

    def test_a_grid_and_a_learned_rate_contradict_each_other(self, protocol):
        rule = {"selection": "best_on_val", "eval_every": 1, "lr_grid": (0.1, 0.01)}
        with pytest.raises(ValueError, match="lr_grid and learned_lr both set the learning rate"):
            protocol(**rule, learned_lr=True)
        assert protocol(**rule, learned_lr=False).lr_grid == (0.1, 0.01)
        assert protocol(**rule | {"lr_grid": ()}, learned_lr=True).learned_lr

    def test_the_rate_of_a_set(self, protocol):
        """Only it changes, only where the set has one, and only where the protocol asks for it."""
        plain, learned = protocol(), protocol(learned_lr=True)
        assert not plain.learned_lr, "a protocol of before there was the key"
        assert plain.with_learned_lr(0.3) is plain and plain.with_learned_lr(None) is plain
        assert learned.with_learned_lr(None) is learned
        at = learned.with_learned_lr(0.3)
        assert at.recipe.lr == 0.3 and at.recipes() == [at.recipe]
        assert at.model_dump() == {
            **learned.model_dump(),
            "recipe": {**learned.recipe.model_dump(), "lr": 0.3},
        }
        assert learned.recipe.lr == 0.01, "which is still that of the next set"

    def test_the_grid_takes_the_best_rate(self, exam, recipe):
        rule = {"selection": "best_on_test", "eval_every": 5, "recipe": recipe(epochs=5)}
        alone = [
            exam(**rule | {"recipe": recipe(epochs=5, lr=lr)}).score(1, compiled=False) for lr in (1e-6, 0.05)
        ]
        assert alone[0] < alone[1]
        for grid in ((1e-6, 0.05), (0.05, 1e-6)):
            e = exam(lr_grid=grid, **rule)
            assert e.score(1, compiled=False) == alone[1] and e.test.reads == 2

    def test_a_grid_by_val_touches_test_once(self, exam, recipe):
        e = exam(selection="best_on_val", eval_every=5, lr_grid=(1e-6, 0.05), recipe=recipe(epochs=5))
        value = e.score(1, compiled=False)
        assert (e.test.reads, e.val.reads) == (1, 2)
        assert value == exam(recipe=recipe(epochs=5, lr=0.05)).score(1, compiled=False)


class TestHow:
    def test_some_networks_are_the_same_as_among_all(self, exam):
        """A resumed evaluation trains the missing networks, and they come out as they would have."""
        whole = dict(exam().scores(SEEDS, total=3))
        assert dict(exam().scores({2: 13}, total=3)) == {2: whole[2]}
        assert dict(exam().scores({1: 12, 0: 11}, total=3)) == {1: whole[1], 0: whole[0]}

    def test_vmapped_gives_the_same_scores(self, exam, runtime):
        whole = dict(exam().scores(SEEDS, total=3))
        together = exam(how=replace(runtime, vmap=True))
        values = dict(together.scores(SEEDS, total=3))
        assert together.test.reads == 3
        assert values == pytest.approx(whole, abs=0.035), "up to two of sixty images"

    def test_best_rules_are_never_vmapped(self, exam, runtime, recipe, monkeypatch):
        monkeypatch.setattr(fresh_networks, "train_together", lambda *a, **k: pytest.fail("vmapped"))
        e = exam(
            how=replace(runtime, vmap=True), selection="best_on_test", eval_every=1, recipe=recipe(epochs=3)
        )
        assert len(dict(e.scores(SEEDS, total=3))) == 3

    def test_a_single_network_needs_no_process(self, exam, runtime, monkeypatch):
        monkeypatch.setattr(fresh_networks, "run_in_processes", lambda *a: pytest.fail("in processes"))
        busy = replace(runtime, workers=2)
        assert len(dict(exam(how=busy).scores({0: 11}, total=1))) == 1
        assert len(dict(exam(how=replace(busy, spread_after=10**6)).scores(SEEDS, total=3))) == 3

    @pytest.mark.slow
    def test_processes_give_the_same_scores(self, exam, runtime, real_set):
        whole = dict(exam().scores(SEEDS, total=3))
        e = exam(how=replace(runtime, workers=2))
        e = replace(e, test=e.test.split, val=e.val.split)
        assert dict(e.scores(SEEDS, total=3)) == pytest.approx(whole, abs=0.035)
        assert dict(e.scores({1: 12}, total=3)) == pytest.approx({1: whole[1]}, abs=0.035)

    @pytest.mark.parametrize(
        "how",
        [{}, {"vmap": True}, pytest.param({"workers": 2}, marks=pytest.mark.slow)],
        ids=["one", "vmap", "two"],
    )
    def test_trained_networks_are_those_that_are_scored(self, exam, runtime, how):
        e = exam(how=replace(runtime, **how))
        e = replace(e, test=e.test.split, val=e.val.split)
        scores = dict(e.scores(SEEDS, total=3))
        nets = dict(e.networks(SEEDS, total=3))
        assert {n: accuracy(net, e.test.batches(9), runtime) for n, net in nets.items()} == pytest.approx(
            scores
        )

    def test_there_is_no_network_that_test_data_chose(self, exam, recipe):
        e = exam(selection="best_on_test", eval_every=1, recipe=recipe(epochs=3))
        with pytest.raises(ValueError, match=r"selects on test data\. Use one with selection=last"):
            next(e.networks(SEEDS, total=3))

    def test_compiling_depends_on_the_whole_measurement(self, exam, runtime, monkeypatch):
        """Not on what a resumed run has left to do: it must give the same values."""
        told = []
        monkeypatch.setattr(FreshNetworks, "score", lambda self, seed, compiled: told.append(compiled) or 0.5)
        for answer in (True, False):
            asked = []
            monkeypatch.setattr(
                fresh_networks,
                "uses_compilation",
                lambda *a, asked=asked, answer=answer: (asked.append(a[0]), answer)[1],
            )
            list(exam().scores({2: 13}, total=3))
            assert asked == [3 * 5 * 9], "networks, epochs, images"
        assert told == [True, False]


def test_more_data_score_higher(blobs, convnet, protocol, recipe, runtime):
    """The yardstick is a yardstick: the whole set beats one image a class, and that beats wrong labels."""

    def mean(images, labels):
        plan = protocol(recipe=recipe(epochs=20, lr=0.02))
        e = FreshNetworks(convnet(blobs), plan, images, labels, blobs.test, None, False, runtime)
        return sum(v for _, v in e.scores(SEEDS, total=3)) / 3

    everything = torch.arange(len(blobs.train))
    full = mean(blobs.train.inputs(everything), blobs.train.labels)
    one = blobs.train.draw(1, torch.Generator().manual_seed(0)).flatten()
    few = mean(blobs.train.inputs(one), class_labels(blobs, 1, CPU))
    wrong = mean(blobs.train.inputs(one), class_labels(blobs, 1, CPU).roll(1))
    assert full > 0.95 and full > few > 0.5 > wrong
