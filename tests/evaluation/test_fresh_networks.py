"""Fresh networks: use of test data under each selection rule, and equal results of all ways of training."""

import math
from dataclasses import replace

import pytest
import torch

from dd_bench.distillation.init import class_labels
from dd_bench.evaluation import fresh_networks, groups
from dd_bench.evaluation.curves import CurveFolder, CurveReader
from dd_bench.evaluation.fresh_networks import FreshNetworks
from dd_bench.models.convnet import ConvNet
from dd_bench.runtime import interruption
from dd_bench.runtime.lock_step import LockStep
from dd_bench.training.resume import Checkpoints
from dd_bench.training.scoring import accuracy

CPU = torch.device("cpu")
SEEDS = {0: 11, 1: 12, 2: 13}


class Counted:
    """A split that counts how often all of it is read."""

    def __init__(self, split):
        self.split, self.reads = split, 0

    def __len__(self):
        return len(self.split)

    @property
    def shape(self):
        return self.split.shape

    def batches(self, size):
        self.reads += 1
        return self.split.batches(size)


@pytest.fixture
def fresh(real_set, convnet, protocol, runtime):
    """Return a function that builds `FreshNetworks` on nine images of the blobs, with counted splits."""

    def make(*, val_fraction=0.25, noise=90.0, how=runtime, norm="instancenorm", **rule):
        real = real_set(val_fraction=val_fraction, noise=noise)
        index = torch.arange(9)
        images, labels = real.train.inputs(index), real.train.labels[index]
        val = Counted(real.val) if real.val is not None else None
        net = convnet(real, norm=norm)
        return FreshNetworks(net, protocol(**rule), images, labels, Counted(real.test), val, real.flip, how)

    return make


class TestSelection:
    def test_last_uses_test_data_once_per_network(self, fresh):
        e = fresh()
        values = dict(e.scores(SEEDS, total=3))
        assert set(values) == set(SEEDS) and e.test.reads == 3 and e.val.reads == 0
        assert all(0 <= v <= 1 and math.isclose(v * 60, round(v * 60)) for v in values.values())

    def test_best_on_val_uses_test_data_once_per_network(self, fresh, recipe):
        e = fresh(selection="best_on_val", eval_every=2, recipe=recipe(epochs=5))
        list(e.scores(SEEDS, total=3))
        assert e.test.reads == 3 and e.val.reads == 3 * 3, "after epochs 2, 4 and the last"

    def test_best_on_val_requires_validation_data(self, fresh):
        with pytest.raises(ValueError, match=r"requires a validation split.*dataset\.val_fraction=0\.1"):
            fresh(val_fraction=0.0, selection="best_on_val", eval_every=1)

    def test_best_on_val_scores_the_network_selected_on_val(self, fresh, monkeypatch, recipe):
        """The weights are those of the best epoch, not of the last."""
        e = fresh(selection="best_on_val", eval_every=1, recipe=recipe(epochs=4), norm="batchnorm")
        val_scores = {1: 0.2, 2: 0.9, 3: 0.9, 4: 0.1}
        states, tested = [], []

        def fake(net, batches, runtime):
            list(batches)
            state = torch.cat([v.flatten().double() for v in net.state_dict().values()])
            if e.test.reads:
                tested.append(state)
                return 0.5
            states.append(state)
            return val_scores[len(states)]

        monkeypatch.setattr(fresh_networks, "accuracy", fake)
        assert e.score(1, compiled=False) == 0.5
        assert torch.equal(tested[0], states[1]), (
            "the first of two equal epochs, including BatchNorm statistics"
        )
        assert not torch.equal(states[1], states[3])

    def test_best_on_test_is_the_maximum(self, fresh, recipe):
        rule = {"eval_every": 1, "recipe": recipe(epochs=6, lr=0.05)}
        e = fresh(selection="best_on_test", **rule)
        best = e.score(5, compiled=False)
        assert e.test.reads == 6
        ends = [
            fresh(recipe=recipe(epochs=n, lr=0.05, milestones=(3,))).score(5, compiled=False)
            for n in range(1, 7)
        ]
        assert best == max(ends), "the score of an epoch is that of a training that ends there"

    def test_eval_from(self, fresh, recipe):
        e = fresh(selection="best_on_test", eval_every=1, eval_from=4, recipe=recipe(epochs=6))
        e.score(5, compiled=False)
        assert e.test.reads == 3

    def test_eval_from_after_the_last_epoch(self, protocol, recipe):
        with pytest.raises(ValueError, match="eval_from must be <= epochs=6, got 7"):
            protocol(selection="best_on_test", eval_every=1, eval_from=7, recipe=recipe(epochs=6))

    @pytest.mark.parametrize("rule", [("last", 1), ("best_on_val", 0), ("best_on_test", 0)])
    def test_eval_every_must_match_the_rule(self, protocol, rule):
        with pytest.raises(ValueError, match="eval_every must be 0 with selection=last"):
            protocol(selection=rule[0], eval_every=rule[1])

    def test_lr_grid_requires_a_best_rule(self, protocol):
        with pytest.raises(ValueError, match="lr_grid requires selection=best_on_val"):
            protocol(lr_grid=(0.1, 0.01))

    def test_keep_requires_a_validation_split(self, protocol):
        for rule in ({}, {"selection": "best_on_test", "eval_every": 1}):
            with pytest.raises(ValueError, match=r"keep requires selection=best_on_val.* Use keep=null"):
                protocol(keep=5, **rule)
        assert protocol(keep=5, selection="best_on_val", eval_every=1).keep == 5

    def test_lr_grid_excludes_learned_lr(self, protocol):
        rule = {"selection": "best_on_val", "eval_every": 1, "lr_grid": (0.1, 0.01)}
        with pytest.raises(ValueError, match="only one of lr_grid and learned_lr can set the learning rate"):
            protocol(**rule, learned_lr=True)
        assert protocol(**rule, learned_lr=False).lr_grid == (0.1, 0.01)
        assert protocol(**rule | {"lr_grid": ()}, learned_lr=True).learned_lr

    def test_with_learned_lr(self, protocol):
        """Only the learning rate changes, and only if the set has one and the protocol uses it."""
        plain, learned = protocol(), protocol(learned_lr=True)
        assert not plain.learned_lr, "the default for protocols without this key"
        assert plain.with_learned_lr(0.3) is plain and plain.with_learned_lr(None) is plain
        assert learned.with_learned_lr(None) is learned
        changed = learned.with_learned_lr(0.3)
        assert changed.recipe.lr == 0.3 and changed.recipes() == [changed.recipe]
        assert changed.model_dump() == {
            **learned.model_dump(),
            "recipe": {**learned.recipe.model_dump(), "lr": 0.3},
        }
        assert learned.recipe.lr == 0.01, "the original protocol does not change"

    def test_lr_grid_selects_the_best_rate(self, fresh, recipe):
        rule = {"selection": "best_on_test", "eval_every": 5, "recipe": recipe(epochs=5)}
        alone = [
            fresh(**rule | {"recipe": recipe(epochs=5, lr=lr)}).score(1, compiled=False)
            for lr in (1e-6, 0.05)
        ]
        assert alone[0] < alone[1]
        for grid in ((1e-6, 0.05), (0.05, 1e-6)):
            e = fresh(lr_grid=grid, **rule)
            assert e.score(1, compiled=False) == alone[1] and e.test.reads == 2

    def test_lr_grid_on_val_uses_test_data_once(self, fresh, recipe):
        e = fresh(selection="best_on_val", eval_every=5, lr_grid=(1e-6, 0.05), recipe=recipe(epochs=5))
        value = e.score(1, compiled=False)
        assert (e.test.reads, e.val.reads) == (1, 2)
        assert value == fresh(recipe=recipe(epochs=5, lr=0.05)).score(1, compiled=False)


class TestParallelism:
    def test_a_subset_of_networks_has_the_same_scores(self, fresh):
        """A resumed evaluation trains only the missing networks, with the same result."""
        whole = dict(fresh().scores(SEEDS, total=3))
        assert dict(fresh().scores({2: 13}, total=3)) == {2: whole[2]}
        assert dict(fresh().scores({1: 12, 0: 11}, total=3)) == {1: whole[1], 0: whole[0]}

    def test_vmapped_gives_the_same_scores(self, fresh, runtime):
        whole = dict(fresh().scores(SEEDS, total=3))
        together = fresh(how=replace(runtime, lock_step=LockStep(2)))
        values = dict(together.scores(SEEDS, total=3))
        assert together.test.reads == 3
        assert values == pytest.approx(whole, abs=0.035), "up to two of sixty images"

    @pytest.mark.parametrize(
        "rule",
        [
            {"selection": "best_on_test", "eval_every": 1},
            {"selection": "best_on_val", "eval_every": 2},
            {"selection": "best_on_val", "eval_every": 2, "lr_grid": (1e-6, 0.05)},
        ],
        ids=["test", "val", "grid"],
    )
    def test_selection_in_lock_step(self, fresh, runtime, recipe, rule):
        rule = {**rule, "recipe": recipe(epochs=5, lr=0.05)}
        alone = fresh(**rule)
        together = fresh(how=replace(runtime, lock_step=LockStep(3)), **rule)
        values = [dict(e.scores(SEEDS, total=3)) for e in (alone, together)]
        assert values[1] == pytest.approx(values[0], abs=0.035), "up to two of sixty images"
        evaluations = 5 if rule["selection"] == "best_on_test" else 3 * max(1, len(rule.get("lr_grid", ())))
        reads = (evaluations, 0) if rule["selection"] == "best_on_test" else (3, evaluations)
        assert (together.test.reads, together.val.reads) == reads, "one evaluation for all networks"

    def test_lock_step_stops_where_memory_ends(self, fresh, runtime, monkeypatch, tmp_path):
        """The number is halved and stays so for the next measurement. The results do not change.

        The state of the group that was too large is deleted, so that no later run continues it.
        """
        tried, notes, original = [], [], fresh_networks.train_together
        monkeypatch.setattr(groups.logger, "warning", lambda text, *values: notes.append(text % values))

        def limited(nets, *args, **kwargs):
            tried.append(len(nets))
            if len(nets) > 2:
                kwargs["checkpoint"].path.touch()
                kwargs["checkpoint"].mid_epoch.touch()
                raise torch.OutOfMemoryError("CUDA out of memory")
            return original(nets, *args, **kwargs)

        monkeypatch.setattr(fresh_networks, "train_together", limited)
        how, seeds = replace(runtime, lock_step=LockStep(20)), {n: 11 + n for n in range(5)}
        e = replace(fresh(how=how), unfinished=Checkpoints(tmp_path / "set", 60.0))
        values = dict(e.scores(seeds, total=5))
        assert not list(tmp_path.iterdir())
        assert tried == [5, 2, 2, 1] and how.lock_step.networks == 2
        assert len(notes) == 1 and "not suffice for 5 networks in lock step. Continuing with 2" in notes[0]
        assert dict(fresh(how=how).scores(seeds, total=5)) == values and tried[4:] == [2, 2, 1]
        assert values == pytest.approx(dict(fresh().scores(seeds, total=5)), abs=0.035)

    def test_memory_for_one_network_only(self, fresh, runtime, monkeypatch):
        def never(*args, **kwargs):
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(fresh_networks, "train_together", never)
        how = replace(runtime, lock_step=LockStep(2))
        assert dict(fresh(how=how).scores(SEEDS, total=3)) == dict(fresh().scores(SEEDS, total=3))
        monkeypatch.setattr(fresh_networks, "train", never)
        with pytest.raises(torch.OutOfMemoryError):
            list(fresh(how=how).scores(SEEDS, total=3))

    def test_networks_that_vmap_does_not_support(self, fresh, runtime, monkeypatch):
        """They are trained one after the other."""
        forward, notes = ConvNet.forward, []
        monkeypatch.setattr(groups.logger, "warning", lambda text, *values: notes.append(text % values))

        def counting(self, x):
            float(x.detach().sum())  # `vmap` raises an error for `item`
            return forward(self, x)

        monkeypatch.setattr(ConvNet, "forward", counting)
        how = replace(runtime, lock_step=LockStep(2))
        values = dict(fresh(how=how).scores(SEEDS, total=3))
        assert values == dict(fresh().scores(SEEDS, total=3)) and how.lock_step.networks == 2
        assert len(notes) == 1 and "one after the other instead of in lock step" in notes[0]

    def test_a_single_network_needs_no_process(self, fresh, runtime, monkeypatch):
        monkeypatch.setattr(fresh_networks, "run_in_processes", lambda *a: pytest.fail("in processes"))
        busy = replace(runtime, workers=2)
        assert len(dict(fresh(how=busy).scores({0: 11}, total=1))) == 1
        assert len(dict(fresh(how=replace(busy, spread_after=10**6)).scores(SEEDS, total=3))) == 3

    @pytest.mark.slow
    def test_processes_give_the_same_scores(self, fresh, runtime, real_set):
        whole = dict(fresh().scores(SEEDS, total=3))
        e = fresh(how=replace(runtime, workers=2))
        e = replace(e, test=e.test.split, val=e.val.split)
        assert dict(e.scores(SEEDS, total=3)) == pytest.approx(whole, abs=0.035)
        assert dict(e.scores({1: 12}, total=3)) == pytest.approx({1: whole[1]}, abs=0.035)

    @pytest.mark.parametrize(
        "how",
        [{}, {"lock_step": LockStep(3)}, pytest.param({"workers": 2}, marks=pytest.mark.slow)],
        ids=["one", "together", "two"],
    )
    def test_trained_networks_are_those_that_are_scored(self, fresh, runtime, how):
        e = fresh(how=replace(runtime, **how))
        e = replace(e, test=e.test.split, val=e.val.split)
        scores = dict(e.scores(SEEDS, total=3))
        nets = dict(e.networks(SEEDS, total=3))
        assert {n: accuracy(net, e.test.batches(9), runtime) for n, net in nets.items()} == pytest.approx(
            scores
        )

    def test_no_networks_for_best_on_test(self, fresh, recipe):
        e = fresh(selection="best_on_test", eval_every=1, recipe=recipe(epochs=3))
        with pytest.raises(
            ValueError, match=r"selects networks on test data.* Use a protocol with selection=last"
        ):
            next(e.networks(SEEDS, total=3))

    def test_compilation_depends_on_the_whole_measurement(self, fresh, runtime, monkeypatch):
        """It must not depend on the networks left in a resumed run, so that the values are the same."""
        compiled_flags = []
        monkeypatch.setattr(
            FreshNetworks, "score", lambda self, seed, compiled: compiled_flags.append(compiled) or 0.5
        )
        for answer in (True, False):
            asked = []
            monkeypatch.setattr(
                fresh_networks,
                "uses_compilation",
                lambda *a, asked=asked, answer=answer: (asked.append(a[0]), answer)[1],
            )
            list(fresh().scores({2: 13}, total=3))
            assert asked == [3 * 5 * 9], "networks, epochs, images"
        assert compiled_flags == [True, False]


@pytest.mark.parametrize("lock_step", [False, True])
def test_curves_do_not_change_the_scores(fresh, runtime, recipe, tmp_path, lock_step):
    how = replace(runtime, lock_step=LockStep(3)) if lock_step else runtime
    e = fresh(selection="best_on_val", eval_every=2, recipe=recipe(epochs=5), how=how)
    scores = dict(e.scores(SEEDS, total=3))
    assert dict(replace(e, curves=CurveFolder(tmp_path, "set")).scores(SEEDS, total=3)) == scores
    rows = []
    reader = CurveReader(tmp_path, lambda *row: rows.append(row), e.architecture.name, "set")
    reader.forward({seed: network for network, seed in SEEDS.items()})
    losses = [(epoch, list(v)) for loop, epoch, v in rows if loop == "train_loss"]
    networks = [["mean of network 0 to network 2"]] if lock_step else [[f"network {i}"] for i in SEEDS]
    assert sorted(losses) == [(epoch, name) for epoch in range(1, 6) for name in networks]
    assert all(v > 0 for loop, _, values in rows if loop == "train_loss" for v in values.values())
    points = {(epoch, name) for loop, epoch, v in rows if loop == "train_val_accuracy" for name in v}
    assert points == {(epoch, f"network {i}") for epoch in (2, 4, 5) for i in SEEDS}


def test_more_data_gives_a_higher_score(blobs, convnet, protocol, recipe, runtime):
    """Accuracy orders the sets: all images above one image per class, and that above wrong labels."""

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


@pytest.mark.parametrize("stopped_at", [5, 12 + 4, 24 + 12], ids=["first rate", "second rate", "last step"])
def test_grid_of_learning_rates_is_resumed_after_a_signal(fresh, recipe, tmp_path, terminate_at, stopped_at):
    """Each of three learning rates takes twelve steps; the second is the best."""
    rule = {"selection": "best_on_val", "eval_every": 1, "lr_grid": (1e-6, 0.05, 1e-5)}
    plan = recipe(epochs=4, batch_size=4)
    whole = dict(fresh(recipe=plan, **rule).scores({0: 11}, total=1))
    e = replace(fresh(recipe=plan, **rule), unfinished=Checkpoints(tmp_path / "set", 60.0))
    steps = terminate_at(stopped_at)
    with interruption.handled(), pytest.raises(interruption.Interrupted):
        list(e.scores({0: 11}, total=1))
    assert len(steps) == stopped_at
    assert dict(e.scores({0: 11}, total=1)) == whole and not list(tmp_path.iterdir())
    assert len(steps) == 36, "no step is repeated"


def test_epochs_of_networks_in_other_processes_are_counted(fresh, runtime, recipe, monkeypatch):
    shown = []

    def in_this_process(work, shared, jobs, workers, on_tick):
        ticks = []
        for job in jobs:
            yield job, work(shared, job, lambda: ticks.append(0))
            on_tick(len(ticks))

    monkeypatch.setattr(fresh_networks, "run_in_processes", in_this_process)
    monkeypatch.setattr(fresh_networks.Progress, "advance_to", lambda self, done, _: shown.append(done))
    e = fresh(how=replace(runtime, workers=2), recipe=recipe(epochs=4))
    scores = dict(e.scores(SEEDS, total=3))
    assert shown == [4, 8, 12]
    shown.clear()
    assert scores == dict(fresh(recipe=recipe(epochs=4)).scores(SEEDS, total=3))
    assert shown == list(range(1, 13)), "the epochs of networks in this process"


@pytest.mark.parametrize("rule", [{}, {"selection": "best_on_val", "eval_every": 1}])
@pytest.mark.parametrize("together", [False, True])
def test_unfinished_network_is_resumed_after_a_signal(
    fresh, recipe, runtime, tmp_path, terminate_at, rule, together
):
    how = replace(runtime, lock_step=LockStep(3 if together else 1))
    plan = recipe(epochs=4, batch_size=4)
    whole = dict(fresh(how=how, recipe=plan, **rule).scores(SEEDS, total=3))
    e = replace(fresh(how=how, recipe=plan, **rule), unfinished=Checkpoints(tmp_path / "set", 60.0))
    steps = terminate_at(5)  # in the middle of an epoch of three steps
    with interruption.handled(), pytest.raises(interruption.Interrupted):
        list(e.scores(SEEDS, total=3))
    assert len(steps) == 5
    resumed = dict(e.scores(SEEDS, total=3))
    assert resumed == whole and not list(tmp_path.iterdir())
    assert len(steps) == 12 * (1 if together else 3), "no step is repeated"
