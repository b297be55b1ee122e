"""Fresh graph networks: the selected epoch, and resuming after a signal."""

from dataclasses import replace

import pytest
import torch

from dd_bench.api import EvaluationContext
from dd_bench.distillation.coreset import build_coreset
from dd_bench.evaluation.curves import CurveReader
from dd_bench.evaluators import graph
from dd_bench.evaluators.graph import Graph, candidate_steps
from dd_bench.runtime import interruption
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.files import content_key


@pytest.mark.parametrize(
    ("stopped_at", "selection"),
    [(5, "last"), (12 + 4, "last"), (12 + 4, "best_on_val")],
    ids=["true labels", "permuted labels", "best epoch, permuted labels"],
)
def test_unfinished_network_is_resumed_after_a_signal(
    motifs, gin, runtime, protocol, recipe, tmp_path, terminate_at, stopped_at, selection
):
    """Twelve steps for a network, and twelve for its control with permuted labels."""
    syn = build_coreset(motifs.train_only(), motifs.train.draw(5, torch.Generator().manual_seed(0)).flatten())
    evaluator = Graph(num_networks=2, metric="accuracy", eval_points=6)
    plan = protocol(
        selection=selection,
        eval_every=int(selection != "last"),
        recipe=recipe(epochs=4, batch_size=4, milestones=()),
    )

    def scores(work=None):
        ctx = EvaluationContext(
            seed=0, runtime=runtime, architecture=gin(motifs, dropout=0.3), cache=Cache(tmp_path / "cache"),
            protocol=plan, ipc=5, work=work,
        )  # fmt: skip
        return [list(measured.scores) for measured in evaluator.run(syn, motifs, ctx) if measured.scores]

    whole = scores()
    steps = terminate_at(stopped_at)
    with interruption.handled(), pytest.raises(interruption.Interrupted) as stopped:
        scores(tmp_path / "work")
    assert len(steps) == stopped_at and "the training of a network" in stopped.value.saved
    assert scores(tmp_path / "work") == whole
    assert len(steps) == 2 * 2 * 12, "no step is repeated"
    assert not list((tmp_path / "work").iterdir())


def test_curves(motifs, gin, runtime, protocol, recipe, tmp_path):
    """The loss of every step, the scores on validation graphs, and the control by its set. Scores do not change."""
    syn = build_coreset(motifs.train_only(), motifs.train.draw(5, torch.Generator().manual_seed(0)).flatten())
    plan = protocol(recipe=recipe(epochs=2, batch_size=4, milestones=()))

    def scores(folder=None):
        ctx = EvaluationContext(
            seed=0, runtime=runtime, architecture=gin(motifs), cache=Cache(tmp_path / "cache"),
            protocol=plan, ipc=5, curve_folder=folder,
        )  # fmt: skip
        evaluator = Graph(num_networks=1, metric="accuracy", eval_points=3)
        return [m.scores for m in evaluator.run(syn, motifs, ctx) if m.scores], ctx.seed_for("evaluate", 0)

    (found, seed), (plain, _) = scores(tmp_path / "curves"), scores()
    assert found == plain
    rows = []
    trained_on = content_key(syn.identity())
    CurveReader(tmp_path / "curves", lambda *row: rows.append(row), "gin", trained_on).forward({seed: 0})
    own = [(name, step) for name, step, values in rows if "network 0" in values]
    scored = [("train_val_accuracy", step) for step in (2, 4, 6)]
    assert sorted(own) == [*(("train_loss", step) for step in range(1, 7)), *scored]
    (control,) = {key for name, _, values in rows for key in values if key != "network 0"}
    assert control.startswith("network 0 on ") and len(rows) == len(own) + 6


class TestBestEpoch:
    """Protocols with `selection: best_on_val`."""

    @pytest.fixture
    def legacy(self, protocol, recipe):
        """Function that returns a protocol of four epochs of one step each."""

        def make(**values):
            plan = recipe(epochs=4, batch_size=64, milestones=())
            return protocol(**{"selection": "best_on_val", "eval_every": 1, "recipe": plan, **values})

        return make

    def test_the_length_is_a_number_of_epochs(self, protocol, recipe):
        plan = protocol(
            selection="best_on_val", eval_every=1, recipe=recipe(epochs=1, milestones=(), steps=500)
        )
        reason = Graph(num_networks=1, metric="auc", eval_points=1).check_protocol(plan)
        assert reason is not None and "Use protocol=mirage-legacy" in reason

    def test_candidates(self, protocol, recipe, legacy):
        assert candidate_steps(legacy(), 10, 20) == {0, 1, 2, 3, 4}
        assert candidate_steps(legacy(eval_every=3, eval_from=1), 10, 20) == {3}
        assert candidate_steps(legacy(), 100, 20) == {0, 2, 4, 6, 8}, "two steps an epoch"
        steps = protocol(recipe=recipe(epochs=1, milestones=(), steps=500))
        assert candidate_steps(steps, 10, 20) == set(range(25, 501, 25))
        assert candidate_steps(steps, 10, 3) == {167, 334, 500}
        assert candidate_steps(steps, 10, 1) == {500}

    @pytest.mark.parametrize(
        ("on_val", "first", "chosen"),
        [
            ([0.5, 0.6, 0.9, 0.7, 0.9], 0, 2),  # the first of equal epochs
            ([0.8, 0.6, 0.5, 0.7, 0.7], 0, 0),  # the untrained network
            ([0.8, 0.6, 0.5, 0.7, 0.7], 1, 3),
        ],
    )
    def test_scores_are_those_of_the_best_epoch_on_validation_graphs(
        self, motifs, gin, runtime, legacy, tmp_path, monkeypatch, on_val, first, chosen
    ):
        """The curves are given. The test scores never decide: their highest value is at the last epoch."""
        on_test, epoch, seen = [0.1, 0.2, 0.3, 0.4, 0.5], 0, []
        n_test = len(motifs.test)

        def score(metric, logits, labels):
            nonlocal epoch
            if len(labels) == n_test + 1:  # a validation graph more than test graphs
                seen.append(epoch)
                return on_val[epoch]
            return on_test[epoch]

        def step(self, *arguments, original=torch.optim.SGD.step):
            nonlocal epoch
            epoch += 1
            return original(self, *arguments)

        monkeypatch.setattr(graph, "graph_score", score)
        monkeypatch.setattr(torch.optim.SGD, "step", step)
        extra = motifs.val.subset(torch.arange(n_test + 1) % len(motifs.val))
        real = replace(motifs, val=extra)
        syn = build_coreset(real.train_only(), real.train.draw(2, torch.Generator().manual_seed(0)).flatten())
        ctx = EvaluationContext(
            seed=0, runtime=runtime, architecture=gin(real), cache=Cache(tmp_path / "cache"),
            protocol=legacy(eval_from=first), ipc=2,
        )  # fmt: skip
        evaluator = Graph(num_networks=1, metric="accuracy", eval_points=1)
        splits = graph.Splits(list(real.val.batches(1000)), list(real.test.batches(1000)))
        values = evaluator._scores(syn, 0, splits, ctx, None)
        assert seen == list(range(first, 5))
        assert values == {
            "auc": on_test[chosen],
            "accuracy": on_test[chosen],
            "balanced_accuracy": on_test[chosen],
            "val": on_val[chosen],
            "last": 0.5,
            "untrained": 0.1,
        }
