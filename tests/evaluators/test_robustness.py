"""Tests of robustness: strength and bounds of the attacks, and corruptions."""

import pytest
import torch
from torch import nn

from dd_bench.api import EvaluationContext
from dd_bench.evaluators import robustness
from dd_bench.evaluators.robustness import CORRUPTIONS, FromPixels, Robustness, corrupt, toolbox
from dd_bench.runtime.cache import Cache
from dd_bench.synthetic.images import ImageSet

from .conftest import scores_by_network

KNOBS = {"num_networks": 1, "images": 30, "eps": 0.1, "steps": 10, "autoattack": False}


@pytest.fixture
def make_ctx(convnet, blobs, runtime, protocol, recipe, tmp_path):
    def make(seed=0, epochs=30):
        short = protocol(recipe=recipe(epochs=epochs))
        return EvaluationContext(
            seed=seed,
            runtime=runtime,
            architecture=convnet(blobs),
            cache=Cache(tmp_path / "cache"),
            protocol=short,
            ipc=2,
        )

    return make


@pytest.fixture
def syn(blobs):
    return ImageSet.coreset(blobs, blobs.train.draw(10, torch.Generator().manual_seed(0)).flatten())


def test_pgd_is_stronger_than_fgsm(blobs, syn, make_ctx):
    (scores,) = scores_by_network(Robustness(**KNOBS), syn, blobs, make_ctx())
    v = {s.metric: s.value for s in scores}
    assert v["robust_accuracy"] <= v["fgsm"] < v["clean"]
    assert v["corrupted"] == pytest.approx(
        sum(v[f"corrupted:{kind}"] for kind in CORRUPTIONS) / len(CORRUPTIONS)
    )
    assert v["clean"] > 0.5  # otherwise there is nothing to attack


def test_perturbations_are_bounded(blobs, syn, make_ctx, monkeypatch):
    seen, original = [], robustness.Toolbox.adversarial

    def spy(attack, x, y):
        out = original(attack, x, y)
        seen.append((x, out))
        return out

    monkeypatch.setattr(robustness.Toolbox, "adversarial", staticmethod(spy))
    scores_by_network(Robustness(**KNOBS), syn, blobs, make_ctx(epochs=2))
    assert len(seen) == 2
    for before, after in seen:
        assert 0 < (after - before).abs().max() <= 0.1 + 1e-5
        assert after.min() >= 0 and after.max() <= 1


def test_fgsm_of_a_linear_network(blobs):
    """FGSM takes a step along the sign of the gradient, which is the optimal attack on a linear network."""
    net = FromPixels(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), blobs.preprocess)
    x, y = torch.full((4, 1, 8, 8), 0.5), torch.tensor([0, 1, 2, 0])
    at = x.clone().requires_grad_()
    nn.functional.cross_entropy(net(at), y, reduction="sum").backward()
    art = toolbox()
    attack = art.evasion.FastGradientMethod(art.classifier(net.eval(), x, 3), eps=0.05)
    assert torch.allclose(art.adversarial(attack, x, y), x + 0.05 * at.grad.sign(), atol=1e-6)


@pytest.mark.parametrize("kind", list(CORRUPTIONS))
def test_corruptions(kind):
    x = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    corrupted = [corrupt(x, kind, severity, 5) for severity in range(5)]
    distances = [float((m - x).square().mean()) for m in corrupted]
    assert distances == sorted(distances) and distances[0] > 0
    assert all(m.shape == x.shape and m.min() >= 0 and m.max() <= 1 for m in corrupted)
    assert torch.equal(corrupt(x, kind, 2, 5), corrupted[2])


def test_finished_networks_are_skipped(blobs, syn, make_ctx):
    evaluator = Robustness(**KNOBS | {"num_networks": 2})
    whole = scores_by_network(evaluator, syn, blobs, make_ctx(epochs=2))
    ctx = make_ctx(epochs=2)
    ctx.finished = frozenset({0})
    assert scores_by_network(evaluator, syn, blobs, ctx) == whole[1:]


@pytest.mark.slow
def test_autoattack_is_at_least_as_strong_as_pgd(blobs, syn, make_ctx):
    (scores,) = scores_by_network(
        Robustness(**KNOBS | {"autoattack": True, "images": 12}), syn, blobs, make_ctx()
    )
    v = {s.metric: s.value for s in scores}
    assert v["autoattack"] <= v["robust_accuracy"] + 1 / 12


@pytest.mark.parametrize("change", [{"images": 0}, {"eps": 1.5}, {"eps": 0.0}, {"steps": 0}])
def test_invalid_arguments_raise(change):
    with pytest.raises(ValueError, match=f"evaluator.{next(iter(change))} must be"):
        Robustness(**KNOBS | change)
