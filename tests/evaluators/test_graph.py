"""Fresh graph networks: resuming after a signal."""

import pytest
import torch

from dd_bench.api import EvaluationContext
from dd_bench.distillation.coreset import build_coreset
from dd_bench.evaluators.graph import Graph
from dd_bench.runtime import interruption
from dd_bench.runtime.cache import Cache


@pytest.mark.parametrize("stopped_at", [5, 12 + 4], ids=["true labels", "permuted labels"])
def test_unfinished_network_is_resumed_after_a_signal(
    motifs, gin, runtime, protocol, recipe, tmp_path, terminate_at, stopped_at
):
    """Twelve steps for a network, and twelve for its control with permuted labels."""
    syn = build_coreset(motifs.train_only(), motifs.train.draw(5, torch.Generator().manual_seed(0)).flatten())
    evaluator = Graph(num_networks=2, metric="accuracy", eval_points=6)
    plan = protocol(recipe=recipe(epochs=4, batch_size=4, milestones=()))

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
