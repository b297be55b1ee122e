"""Tests of class-incremental evaluation: class orders, training and test data of each step, and metrics."""

import numpy as np
import pytest
import torch

from dd_bench.api import EvaluationContext
from dd_bench.evaluation import fresh_networks
from dd_bench.evaluators.continual import Continual, _measurement_of, class_parts
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.seeding import seed_for
from dd_bench.synthetic.images import ImageSet
from dd_bench.training.batches import fetch_from
from dd_bench.training.loop import train
from dd_bench.training.scoring import accuracy, correct_by_class

from .conftest import scores_by_network


@pytest.fixture
def make_ctx(convnet, blobs, runtime, protocol, recipe, tmp_path):
    def make(seed=0, finished=(), **changes):
        short = protocol(recipe=recipe(epochs=2), **changes)
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
    return ImageSet.coreset(blobs, blobs.train.draw(3, torch.Generator().manual_seed(0)).flatten())


def test_class_orders_are_those_of_dm():
    for order in range(3):
        parts = class_parts(order, 10, 5)
        np.random.seed(order)  # noqa: NPY002
        assert parts.flatten().tolist() == np.random.permutation(10).tolist()  # noqa: NPY002
        assert parts.shape == (5, 2)
    assert class_parts(0, 10, 5)[0].tolist() == [2, 8]  # NumPy's legacy generator does not change


def test_scores_of_a_table():
    nan = float("nan")
    table = torch.tensor([[0.9, nan, nan, 0.9], [0.6, 0.8, nan, 0.7], [0.5, 0.9, 0.4, 0.6]])
    values = {s.metric: s.value for s in _measurement_of(4, 1, 7, table).scores}
    assert values == pytest.approx({
        "step 1": 0.9, "step 2": 0.7, "step 3": 0.6, "accuracy": 0.6, "average": 2.2 / 3,
        "forgetting": ((0.9 - 0.5) + (0.8 - 0.9)) / 2,
    })  # fmt: skip


def test_each_step_uses_the_classes_seen_so_far(blobs, syn, make_ctx, monkeypatch):
    seen, original = [], fresh_networks.train

    def spy(net, fetch, n, recipe, **kwargs):
        seen.append(sorted(fetch(torch.arange(n))[1].tolist()))
        return original(net, fetch, n, recipe, **kwargs)

    monkeypatch.setattr(fresh_networks, "train", spy)
    ctx = make_ctx()
    (scores,) = scores_by_network(Continual(steps=3, orders=1, num_networks=1), syn, blobs, ctx)
    order = class_parts(0, 3, 3).flatten().tolist()
    assert seen == [sorted(c for c in order[: s + 1] for _ in range(3)) for s in range(3)]
    values, seed = {s.metric: s.value for s in scores}, scores[0].seed
    for step in range(3):
        classes = torch.tensor(order[: step + 1])
        index = torch.isin(syn.labels, classes)
        images, labels = (t[index] for t in syn.materialise(ctx.device))
        step_seed = seed_for(seed, "step", step)
        net = ctx.architecture.fresh(seed_for(step_seed, "init"), ctx.device)
        kwargs = {"seed": seed_for(step_seed, "train"), "runtime": ctx.runtime, "flip": blobs.flip}
        train(net, fetch_from(images, labels), len(images), ctx.protocol.recipe, **kwargs)
        test = blobs.test.subset(torch.isin(blobs.test.labels, classes).nonzero().flatten())
        assert values[f"step {step + 1}"] == pytest.approx(accuracy(net, test.batches(1000), ctx.runtime))
    assert values["accuracy"] == values["step 3"]


def test_correct_by_class_sums_to_accuracy(blobs, convnet, runtime):
    net = convnet(blobs).fresh(0, runtime.device)
    right, seen = correct_by_class(net, blobs.test.batches(7), 3, runtime)
    assert seen.tolist() == blobs.test.counts.tolist()
    assert int(right.sum()) / len(blobs.test) == accuracy(net, blobs.test.batches(7), runtime)


def test_finished_networks_are_skipped(blobs, syn, make_ctx):
    evaluator = Continual(steps=3, orders=2, num_networks=2)
    whole = scores_by_network(evaluator, syn, blobs, make_ctx())
    assert [s[0].network for s in whole] == [0, 1, 2, 3]
    rest = scores_by_network(evaluator, syn, blobs, make_ctx(finished=[0, 1, 3]))
    assert rest == [whole[2]]


def test_error_messages(blobs, syn, protocol, recipe):
    assert "Use evaluator.steps=3" in Continual(steps=2, orders=1, num_networks=1).check_dataset(blobs, None)
    for name, values in (("steps", (1, 1, 1)), ("orders", (2, 0, 1)), ("num_networks", (2, 1, 0))):
        with pytest.raises(ValueError, match=f"evaluator.{name} must be >="):
            Continual(steps=values[0], orders=values[1], num_networks=values[2])
    rule = protocol(recipe=recipe(), selection="best_on_test", eval_every=1)
    reason = Continual(steps=3, orders=1, num_networks=1).check_protocol(rule)
    assert "requires a protocol with selection=last" in reason and "best_on_test" in reason
