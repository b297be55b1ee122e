"""Attacks stay within their bound and hurt; corruptions are the same for all networks, and worse the stronger."""

import pytest
import torch
from torch import nn

from dd_bench.api import EvaluationContext
from dd_bench.evaluators import robustness
from dd_bench.evaluators.robustness import CORRUPTIONS, FromPixels, Robustness, corrupted, toolbox
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


def test_attacks_hurt_and_pgd_hurts_more_than_fgsm(blobs, syn, make_ctx):
    (scores,) = scores_by_network(Robustness(**KNOBS), syn, blobs, make_ctx())
    v = {s.metric: s.value for s in scores}
    assert v["robust_accuracy"] <= v["fgsm"] < v["clean"]
    assert v["corrupted"] == pytest.approx(
        sum(v[f"corrupted:{kind}"] for kind in CORRUPTIONS) / len(CORRUPTIONS)
    )
    assert v["clean"] > 0.5, "or there is nothing to attack"


def test_they_stay_within_their_bound_and_the_range_of_pixels(blobs, syn, make_ctx, monkeypatch):
    seen, plain = [], robustness.Toolbox.moved

    def spy(attack, x, y):
        out = plain(attack, x, y)
        seen.append((x, out))
        return out

    monkeypatch.setattr(robustness.Toolbox, "moved", staticmethod(spy))
    scores_by_network(Robustness(**KNOBS), syn, blobs, make_ctx(epochs=2))
    assert len(seen) == 2
    for before, after in seen:
        assert 0 < (after - before).abs().max() <= 0.1 + 1e-5
        assert after.min() >= 0 and after.max() <= 1


def test_fgsm_is_a_step_along_the_sign_of_the_gradient(blobs):
    """Of a linear network, where that is the best there is."""
    net = FromPixels(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), blobs.preprocess)
    x, y = torch.full((4, 1, 8, 8), 0.5), torch.tensor([0, 1, 2, 0])
    at = x.clone().requires_grad_()
    nn.functional.cross_entropy(net(at), y, reduction="sum").backward()
    art = toolbox()
    attack = art.evasion.FastGradientMethod(art.classifier(net.eval(), x, 3), eps=0.05)
    assert torch.allclose(art.moved(attack, x, y), x + 0.05 * at.grad.sign(), atol=1e-6)


@pytest.mark.parametrize("kind", list(CORRUPTIONS))
def test_corruptions_grow_stay_in_range_and_come_back(kind):
    x = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    moved = [corrupted(x, kind, severity, 5) for severity in range(5)]
    far = [float((m - x).square().mean()) for m in moved]
    assert far == sorted(far) and far[0] > 0
    assert all(m.shape == x.shape and m.min() >= 0 and m.max() <= 1 for m in moved)
    assert torch.equal(corrupted(x, kind, 2, 5), moved[2])


def test_one_network_as_in_a_whole_run(blobs, syn, make_ctx):
    evaluator = Robustness(**KNOBS | {"num_networks": 2})
    whole = scores_by_network(evaluator, syn, blobs, make_ctx(epochs=2))
    ctx = make_ctx(epochs=2)
    ctx.finished = frozenset({0})
    assert scores_by_network(evaluator, syn, blobs, ctx) == whole[1:]


@pytest.mark.slow
def test_autoattack_is_at_least_as_strong(blobs, syn, make_ctx):
    (scores,) = scores_by_network(
        Robustness(**KNOBS | {"autoattack": True, "images": 12}), syn, blobs, make_ctx()
    )
    v = {s.metric: s.value for s in scores}
    assert v["autoattack"] <= v["robust_accuracy"] + 1 / 12


@pytest.mark.parametrize("change", [{"images": 0}, {"eps": 1.5}, {"eps": 0.0}, {"steps": 0}])
def test_what_is_out_of_range_is_named(change):
    with pytest.raises(ValueError, match=f"evaluator.{next(iter(change))}="):
        Robustness(**KNOBS | change)
