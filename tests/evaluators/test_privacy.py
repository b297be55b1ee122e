"""Tests of membership inference: memorised images are found, others are not, and the confidence is the log odds."""

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from dd_bench.api import EvaluationContext
from dd_bench.evaluators import privacy
from dd_bench.evaluators.privacy import Privacy, _is_selection, _scores, _shadow_statistics, confidence
from dd_bench.runtime.cache import Cache
from dd_bench.synthetic.images import ImageSet
from dd_bench.synthetic.precision import store_as
from dd_bench.synthetic.quantisation import Quantiser
from dd_bench.synthetic.quantised import QuantisedSet

from .conftest import notes_of, scores_by_network

KNOBS = {"num_networks": 2, "candidates": 30, "references": 4}


@pytest.fixture
def noisy(real_set):
    """Noisy classes that can only be memorised."""
    return real_set(noise=400.0)


@pytest.fixture
def make_ctx(convnet, noisy, runtime, protocol, recipe, tmp_path):
    def make(seed=0, epochs=60):
        short = protocol(recipe=recipe(epochs=epochs, lr=0.05, milestones=()))
        return EvaluationContext(
            seed=seed,
            runtime=runtime,
            architecture=convnet(noisy, width=16),
            cache=Cache(tmp_path / "cache"),
            protocol=short,
            ipc=5,
        )

    return make


@pytest.fixture
def syn(noisy):
    return ImageSet.coreset(noisy, noisy.train.draw(5, torch.Generator().manual_seed(0)).flatten())


def test_memorised_images_are_found(noisy, syn, make_ctx):
    """Only some of the candidates are in the set, so `auc` is near 0.5 while `auc_kept` is high."""
    for scores in scores_by_network(Privacy(**KNOBS), syn, noisy, make_ctx()):
        v = {s.metric: s.value for s in scores}
        assert v["auc_kept"] > 0.9
        assert 0.3 < v["auc"] < 0.8 and 0.3 < v["chance"] < 0.7 and 0 <= v["tpr"] <= 1


def test_no_auc_kept_without_source(noisy, syn, make_ctx):
    without_source = ImageSet(**{**vars(syn), "source": None})
    (scores, _) = scores_by_network(Privacy(**KNOBS), without_source, noisy, make_ctx(epochs=2))
    assert {s.metric for s in scores} == {"hidden", "auc", "tpr", "chance"}


def test_chance_is_one_half_on_average(noisy, syn, make_ctx):
    """The average is over the random permutations of many networks."""
    found = scores_by_network(Privacy(**KNOBS | {"num_networks": 12}), syn, noisy, make_ctx(epochs=2))
    values = [s.value for scores in found for s in scores if s.metric == "chance"]
    assert len(values) == 12 and abs(sum(values) / 12 - 0.5) < 0.07


def test_constant_offset_of_the_confidence_reveals_nothing(monkeypatch):
    """The offset is the same for members and non-members; separate standard deviations would make them differ."""
    areas = []
    for seed in range(40):
        g = torch.Generator().manual_seed(seed)
        groups = {"members": (None, torch.arange(300)), "others": (None, torch.arange(300, 600))}
        own, common = torch.randn(9, 600, generator=g), torch.randn(600, generator=g)
        monkeypatch.setattr(
            privacy, "confidence", lambda net, split, index, v=own + common: v[net, index].double()
        )
        statistics = _shadow_statistics(list(range(8)), groups)
        own[8] -= 5  # the attacked network
        monkeypatch.setattr(
            privacy, "confidence", lambda net, split, index, v=own + common: v[net, index].double()
        )
        scores = torch.cat([_scores(8, *groups[name], *statistics[name]) for name in groups])
        areas.append(roc_auc_score([1] * 300 + [0] * 300, scores))
    assert abs(sum(areas) / 40 - 0.5) < 0.02 and torch.tensor(areas).std() < 0.045


def test_no_auc_kept_for_another_split(noisy, syn, make_ctx):
    shifted = ImageSet(**{**vars(syn), "source": tuple((i + 1) % len(noisy.train) for i in syn.source)})
    ctx = make_ctx(epochs=2)
    (scores, _) = scores_by_network(Privacy(**KNOBS), shifted, noisy, ctx)
    assert "auc_kept" not in {s.metric for s in scores} and any(
        "another split" in note for note in notes_of(Privacy(**KNOBS), shifted, noisy, ctx)
    )


@pytest.mark.parametrize(
    "quantiser",
    [
        Quantiser(2),
        Quantiser(3, per="set", clip="mse"),
        Quantiser(2, per="patch", patch=4, groups=3),
    ],
    ids=lambda q: q.text,
)
def test_a_quantised_selection_is_recognised(noisy, syn, quantiser):
    source = torch.tensor(syn.source)
    stored = QuantisedSet.of(syn, quantiser)
    assert _is_selection(stored, noisy, source)
    assert not _is_selection(stored, noisy, (source + 1) % len(noisy.train))
    assert not _is_selection(QuantisedSet.of(stored, Quantiser(6)), noisy, source)


def test_auc_kept_of_a_quantised_selection(noisy, syn, make_ctx):
    """The networks are trained on the decoded images; the members are the training images. Twice quantised: a note."""
    ctx, stored = make_ctx(epochs=2), QuantisedSet.of(syn, Quantiser(4))
    (scores, _) = scores_by_network(Privacy(**KNOBS), stored, noisy, ctx)
    assert "auc_kept" in {s.metric for s in scores}
    twice = QuantisedSet.of(stored, Quantiser(6))
    (note,) = [n for n in notes_of(Privacy(**KNOBS), twice, noisy, ctx) if "auc_kept" in n]
    assert "in more than one step" in note


@pytest.mark.parametrize("store", ["float16", "float32"])
def test_a_selection_in_floating_point_is_recognised(noisy, syn, store):
    stored, _ = store_as(syn, store)
    assert stored.space == "unit" and _is_selection(stored, noisy, torch.tensor(syn.source))


def test_confidence_is_the_log_odds(noisy):
    net, index = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval(), torch.arange(7)
    p = net(noisy.train.inputs(index)).double().softmax(1).gather(1, noisy.train.labels[index][:, None])[:, 0]
    torch.testing.assert_close(confidence(net, noisy.train, index), (p / (1 - p)).log(), rtol=1e-5, atol=1e-5)


def test_confidence_does_not_overflow(noisy):
    class Sure(nn.Module):
        def forward(self, x):
            return torch.tensor([[1e4, 0.0, -1e4]]).expand(len(x), 3)

    assert torch.isfinite(confidence(Sure(), noisy.train, torch.arange(9))).all()


def test_error_messages(noisy, syn, protocol, recipe):
    reason = Privacy(**KNOBS | {"candidates": 1000}).check_dataset(noisy, None)
    assert "evaluator.candidates must be <= 30" in reason
    with pytest.raises(ValueError, match=r"evaluator.references must be >= 2, got 1"):
        Privacy(**KNOBS | {"references": 1})
    rule = protocol(recipe=recipe(), selection="best_on_test", eval_every=1)
    assert "selection on test data" in Privacy(**KNOBS).check_protocol(rule)
