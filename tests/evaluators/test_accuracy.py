"""Tests of accuracy: number of networks, seeds, learned rates and ranking of sets."""

from dataclasses import replace
from statistics import mean

import pytest
import torch

from dd_bench.api import EvaluationContext
from dd_bench.data.dataset import RealSet
from dd_bench.data.decode import tile
from dd_bench.evaluation import fresh_networks
from dd_bench.evaluators.accuracy import Accuracy
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.seeding import seed_for
from dd_bench.synthetic.images import ImageSet
from dd_bench.training.batches import fetch_from
from dd_bench.training.loop import train
from dd_bench.training.scoring import accuracy

from .conftest import notes_of, scores_by_network


@pytest.fixture
def make_ctx(convnet, runtime, protocol, recipe, tmp_path):
    def make(real, seed=0, finished=(), epochs=3, learned_lr=False, **knobs):
        short = protocol(recipe=recipe(epochs=epochs), learned_lr=learned_lr)
        cache = Cache(tmp_path / "cache")
        return EvaluationContext(
            seed=seed, runtime=runtime, architecture=convnet(real, **knobs), cache=cache, protocol=short,
            finished=frozenset(finished), ipc=2,
        )  # fmt: skip

    return make


def coreset(real, per_class, seed=0):
    return ImageSet.coreset(real, real.train.draw(per_class, torch.Generator().manual_seed(seed)).flatten())


def scores_of(evaluator, syn, real, ctx):
    return [score for network in scores_by_network(evaluator, syn, real, ctx) for score in network]


def test_one_score_per_network(blobs, make_ctx):
    scores = scores_of(Accuracy(num_networks=3), coreset(blobs, 2), blobs, make_ctx(blobs))
    assert [s.network for s in scores] == [0, 1, 2]
    assert {s.metric for s in scores} == {"accuracy"} == {Accuracy.main_metric}
    assert all(0 <= s.value <= 1 for s in scores)
    assert len({s.seed for s in scores}) == 3


def test_finished_networks_are_skipped(blobs, make_ctx):
    syn, evaluator = coreset(blobs, 2), Accuracy(num_networks=4)
    whole = scores_of(evaluator, syn, blobs, make_ctx(blobs))
    rest = scores_of(evaluator, syn, blobs, make_ctx(blobs, finished=[0, 2]))
    assert rest == [whole[1], whole[3]]
    assert scores_of(evaluator, syn, blobs, make_ctx(blobs, finished=range(4))) == []


def test_seeds_do_not_depend_on_the_set_or_the_number_of_networks(blobs, make_ctx):
    few = scores_of(Accuracy(num_networks=2), coreset(blobs, 2), blobs, make_ctx(blobs))
    other = scores_of(Accuracy(num_networks=3), coreset(blobs, 2, seed=1), blobs, make_ctx(blobs))
    assert [s.seed for s in few] == [s.seed for s in other[:2]]
    assert {
        s.seed for s in scores_of(Accuracy(num_networks=2), coreset(blobs, 2), blobs, make_ctx(blobs, 1))
    }.isdisjoint(s.seed for s in few)


def test_score_is_the_test_accuracy_after_the_last_step(blobs, make_ctx):
    ctx, syn = make_ctx(blobs), coreset(blobs, 2)
    (score,) = scores_of(Accuracy(num_networks=1), syn, blobs, ctx)
    net = ctx.architecture.fresh(seed_for(score.seed, "init"), ctx.device)
    images, labels = syn.materialise(ctx.device)
    kwargs = {"seed": seed_for(score.seed, "train"), "runtime": ctx.runtime, "flip": blobs.flip}
    train(net, fetch_from(images, labels), len(images), ctx.protocol.recipe, **kwargs)
    assert score.value == accuracy(net, blobs.test.batches(1000), ctx.runtime)
    right = sum(int((net(x).argmax(1) == y).sum()) for x, y in blobs.test.batches(7))
    assert score.value == right / len(blobs.test)


class TestLearnedRate:
    """A set may contain a learned rate; `protocol.learned_lr` determines whether it is used."""

    RATES = (
        (True, 0.05, 0.05),
        (True, None, 0.01),
        (False, 0.05, 0.01),
    )  # learned_lr, rate of the set, rate used

    @pytest.fixture
    def trained(self, monkeypatch):
        """The learning rate and the final parameters of every network that an evaluation trains."""
        seen, original = [], fresh_networks.train

        def spy(net, fetch, n, recipe, **kwargs):
            net = original(net, fetch, n, recipe, **kwargs)
            seen.append((recipe.lr, torch.cat([p.detach().flatten() for p in net.parameters()])))
            return net

        monkeypatch.setattr(fresh_networks, "train", spy)
        return seen

    @pytest.mark.parametrize(("learned_lr", "lr", "used"), RATES)
    def test_learned_rate_is_used(self, real_set, make_ctx, trained, learned_lr, lr, used):
        real = real_set(noise=90.0)
        syn, ctx = replace(coreset(real, 2), lr=lr), make_ctx(real, epochs=5, learned_lr=learned_lr)
        scores = scores_of(Accuracy(num_networks=2), syn, real, ctx)
        assert [rate for rate, _ in trained] == [used] * 2
        images, labels = syn.materialise(ctx.device)
        for score, (_, end) in zip(scores, trained, strict=True):
            net = ctx.architecture.fresh(seed_for(score.seed, "init"), ctx.device)
            plan = ctx.protocol.recipe.model_copy(update={"lr": used})
            kwargs = {"seed": seed_for(score.seed, "train"), "runtime": ctx.runtime, "flip": real.flip}
            train(net, fetch_from(images, labels), len(images), plan, **kwargs)
            assert torch.equal(torch.cat([p.detach().flatten() for p in net.parameters()]), end)
            assert score.value == accuracy(net, real.test.batches(1000), ctx.runtime)
        notes = ["fresh networks were trained at the set's learned rate 0.05"] if used == 0.05 else []
        assert notes_of(Accuracy(num_networks=2), syn, real, ctx) == notes

    def test_learned_rate_changes_the_score(self, real_set, make_ctx, trained):
        """Therefore the test above can detect which rate is used."""
        real = real_set(noise=90.0)
        values = []
        for lr in (None, 1e-6, 0.05):
            ctx = make_ctx(real, epochs=20, learned_lr=True)
            syn = replace(coreset(real, 10), lr=lr)
            values.append(mean(s.value for s in scores_of(Accuracy(num_networks=3), syn, real, ctx)))
        assert values[1] < values[0] - 0.05 and values[1] < values[2] - 0.05
        assert not torch.equal(trained[0][1], trained[6][1])

    def test_protocol_is_not_modified(self, blobs, make_ctx, trained):
        """The rate of one set does not affect the next set."""
        ctx = make_ctx(blobs, learned_lr=True)
        before = ctx.protocol
        for lr in (0.05, None):
            scores_of(Accuracy(num_networks=1), replace(coreset(blobs, 2), lr=lr), blobs, ctx)
        assert [rate for rate, _ in trained] == [0.05, 0.01] and ctx.protocol == before

    def test_no_note_if_the_rate_equals_the_recipe(self, blobs, make_ctx):
        ctx = make_ctx(blobs, learned_lr=True)
        syn = replace(coreset(blobs, 2), lr=0.01)
        assert notes_of(Accuracy(num_networks=1), syn, blobs, ctx) == []

    def test_networks_are_trained_on_tiles_of_a_canvas(self, blobs, make_ctx):
        """A set of canvases has the same scores as the set of its tiles."""
        images = coreset(blobs, 4).materialise(torch.device("cpu"))[0]  # class-major, four images per class
        labels = torch.arange(3)
        whole = ImageSet.of(blobs, tile(images, 2), labels, "input", canvas=2)
        apart = ImageSet.of(blobs, images, labels.repeat_interleave(4), "input")
        scores = [scores_of(Accuracy(num_networks=2), s, blobs, make_ctx(blobs)) for s in (whole, apart)]
        assert scores[0] == scores[1]


def test_each_network_is_tested_once(blobs, make_ctx, monkeypatch):
    reads, batches = [], type(blobs.test).batches

    def spy(self, size):
        reads.append(self is blobs.test)
        return batches(self, size)

    monkeypatch.setattr(type(blobs.test), "batches", spy)
    scores_of(Accuracy(num_networks=3), coreset(blobs, 2), blobs, make_ctx(blobs))
    assert reads == [True] * 3


def test_real_training_images_are_not_used(blobs, make_ctx, monkeypatch):
    syn = coreset(blobs, 2)
    ctx = make_ctx(blobs)
    expected = scores_of(Accuracy(num_networks=1), syn, blobs, ctx)

    def refuse(self, index):
        raise AssertionError("the training split is not for evaluators")

    monkeypatch.setattr(RealSet, "train", property(refuse), raising=False)
    assert scores_of(Accuracy(num_networks=1), syn, blobs, ctx) == expected


@pytest.mark.slow  # tests/evaluation/test_fresh_networks.py has a faster one
def test_larger_sets_score_higher(real_set, make_ctx):
    """Noisy blobs, with all, ten and one images per class."""
    real, evaluator = real_set(per_class=40, noise=80.0), Accuracy(num_networks=3)
    values = []
    for per_class in (40, 10, 1):
        ctx = make_ctx(real, epochs=40)
        values.append(mean(s.value for s in scores_of(evaluator, coreset(real, per_class), real, ctx)))
    assert values == sorted(values, reverse=True)
    assert values[0] > values[2] + 0.05


@pytest.mark.parametrize("n", [0, -1])
def test_num_networks_below_one_raises(n):
    with pytest.raises(ValueError, match=f"evaluator.num_networks must be >= 1, got {n}"):
        Accuracy(num_networks=n)
