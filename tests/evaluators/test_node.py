"""Fresh networks of node classification: scores, controls, the best step, and resuming after a signal."""

import json

import pytest
import torch

from dd_bench.api import EvaluationContext
from dd_bench.evaluation.node_baselines import label_propagation, largest_class
from dd_bench.evaluators.node import CONTROLS, Node, applies
from dd_bench.models.node_networks import NodeMLP
from dd_bench.runtime import interruption
from dd_bench.runtime.cache import Cache
from dd_bench.synthetic.nodes import NodeSet


@pytest.fixture
def score(blocks, node_gcn, runtime, protocol, recipe, tmp_path):
    """Function that returns the scores of each network on a set of five nodes per class."""

    def run(
        syn=None,
        selection="last",
        work=None,
        networks=1,
        controls=CONTROLS,
        real=blocks,
        epochs=6,
        curves=None,
    ):
        index = torch.cat([blocks.train.of_class(c)[:5] for c in range(3)])
        plan = protocol(
            selection=selection, eval_every=int(selection != "last"),
            recipe=recipe(optimizer="sgd", lr=0.5, epochs=epochs, batch_size=1, milestones=()),
        )  # fmt: skip
        ctx = EvaluationContext(
            seed=0, runtime=runtime, architecture=node_gcn(blocks, dropout=0.3), cache=Cache(tmp_path / "cache"),
            protocol=plan, ipc=5, work=work, curve_folder=curves,
        )  # fmt: skip
        evaluator = Node(num_networks=networks, eval_points=4, controls=controls)
        assert evaluator.check_protocol(plan) is None
        measured = evaluator.run(syn or NodeSet.coreset(blocks, index), real, ctx)
        return [{s.metric: s.value for s in m.scores} for m in measured if m.scores]

    return run


def test_scores_and_controls(score):
    (values,) = score(epochs=40)
    assert set(values) == {
        "accuracy", "best_val", "untrained", "majority", "label_propagation", "permuted", "mlp", "no_edges",
        "permuted_edges",
    }  # fmt: skip
    assert values["accuracy"] > 0.75 > values["permuted"]
    assert values["accuracy"] > values["untrained"]
    assert values["accuracy"] > values["mlp"]  # the features are noisy, and most edges are within a class


def test_curves(score, blocks, tmp_path):
    """The loss of every step and the accuracy on validation nodes, of the set itself only. Scores do not change."""
    assert score(curves=tmp_path / "curves") == score()
    (file,) = (tmp_path / "curves").iterdir()
    points = json.loads(file.read_text())["points"]
    assert [step for step, name, _ in points if name == "loss"] == [1, 2, 3, 4, 5, 6]
    assert {name for _, name, _ in points} == {"loss", "val_accuracy"}
    assert all(0 <= value[0] <= 1 for _, name, value in points if name == "val_accuracy")


def test_a_structure_free_set_has_no_control_of_edges(score, blocks):
    index = torch.cat([blocks.train.of_class(c)[:5] for c in range(3)])
    (values,) = score(NodeSet.coreset(blocks, index, hops=2, edges=False))
    assert {"permuted", "mlp"} <= set(values) and not {"no_edges", "permuted_edges"} & set(values)


def test_the_whole_graph_has_the_control_without_edges_only(score, blocks):
    syn = NodeSet.coreset(blocks, torch.arange(len(blocks.train)), whole=True)
    assert set(score(syn)[0]) & set(CONTROLS) == {"mlp"}


def test_an_mlp_has_no_control_of_edges(blocks, node_gcn):
    syn = NodeSet.coreset(blocks, torch.arange(30))
    network = node_gcn(blocks)
    network = type(network)(NodeMLP, network.knobs, network.shape, 3, "node_mlp")
    context = type("Context", (), {"architecture": network})
    assert [name for name in CONTROLS if applies(name, syn, context)] == ["permuted"]


def test_best_step_on_validation_nodes(score):
    (values,) = score(selection="best_on_val", controls=())
    assert set(values) == {"accuracy", "val", "last", "untrained", "majority", "label_propagation"}
    assert values["last"] == score(controls=())[0]["accuracy"]


@pytest.mark.parametrize("stopped_at", [3, 6 + 4, 18 + 5], ids=["true labels", "permuted", "permuted edges"])
def test_unfinished_network_is_resumed_after_a_signal(score, tmp_path, terminate_at, stopped_at):
    whole = score()
    steps = terminate_at(stopped_at)
    with interruption.handled(), pytest.raises(interruption.Interrupted):
        score(work=tmp_path / "work")
    assert len(steps) == stopped_at
    assert score(work=tmp_path / "work") == whole
    assert not list((tmp_path / "work").iterdir())


def test_label_propagation_and_largest_class(blocks):
    g = torch.Generator().manual_seed(0)
    many = label_propagation(blocks.train, blocks.test, torch.tensor([10, 10, 10]), g)
    assert many > 0.6 > largest_class(blocks.train, blocks.test)
    only_one = label_propagation(blocks.train, blocks.test, torch.tensor([10, 0, 0]), g)
    assert only_one == pytest.approx(float((blocks.test.labels == 0).float().mean()), abs=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"selection": "best_on_test", "eval_every": 1}, "has selection=best_on_test"),
        ({"recipe": {"batch_size": 32}}, r"has recipe\.batch_size=32"),
        ({"recipe": {"augment": "flip"}}, r"has recipe\.augment=flip"),
    ],
)
def test_unsupported_protocols(protocol, recipe, values, message):
    plan = protocol(**values | {"recipe": recipe(**{"batch_size": 1} | values.get("recipe", {}))})
    reason = Node(num_networks=1, eval_points=1, controls=()).check_protocol(plan)
    assert message.replace("\\", "") in reason and reason.endswith("Use protocol=node-last")


def test_unknown_controls():
    with pytest.raises(ValueError, match="got mpl"):
        Node(num_networks=1, eval_points=1, controls=["mpl"])
