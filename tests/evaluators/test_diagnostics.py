"""Tests of the diagnostics against closed forms: a set compared with itself, duplicates, and sums of gradients."""

import pytest
import torch
import torch.nn.functional as F

from dd_bench.api import EvaluationContext
from dd_bench.evaluators._comparison import Comparison
from dd_bench.evaluators._feature_statistics import (
    coverage_and_density,
    half_coverage_neighbours,
    nearest_distances,
    redundancy,
)
from dd_bench.evaluators._gradient_alignment import alignment, mean_gradient, measured_epochs
from dd_bench.evaluators.diagnostics import Diagnostics
from dd_bench.records.config_diff import shipped_config
from dd_bench.runtime.cache import Cache
from dd_bench.synthetic.images import ImageSet

from .conftest import notes_of, scores_by_network

CPU = torch.device("cpu")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 5, None])
def test_real_images_cover_themselves(k):
    real = normal(50, 4)
    coverage, density = coverage_and_density(real, real, k)
    used = k or 1
    assert coverage == 1 and density == pytest.approx((used + 1) / used), "k balls of others, and its own"


def test_one_far_image_covers_nothing():
    assert coverage_and_density(normal(50, 4), torch.full((3, 4), 100.0), 5) == (0, 0)
    assert coverage_and_density(normal(50, 4), torch.empty(0, 4), 5) == (0, 0)


def test_coverage_on_a_line():
    """Balls with k=1 have radius 1; the image at 0.5 is in those of 0 and 1, the other one in that of 9."""
    line = torch.arange(10.0)[:, None]
    coverage, density = coverage_and_density(line, torch.tensor([[0.5], [9.9]]), 1)
    assert (coverage, density) == (0.3, 1.5)


@pytest.mark.parametrize("m", [1, 3, 20])
def test_independent_images_cover_one_half(m):
    results = [
        coverage_and_density(normal(300, 3, seed=2 * i), normal(m, 3, seed=2 * i + 1), None)
        for i in range(30)
    ]
    coverage, density = torch.tensor(results).mean(0).tolist()
    assert coverage == pytest.approx(0.5, abs=0.07) and density == pytest.approx(1, abs=0.15)
    assert half_coverage_neighbours(10, 1) == 5 and half_coverage_neighbours(10, 1000) == 1


def test_redundancy():
    duplicates = normal(1, 7).expand(4, 7)
    assert redundancy(duplicates) == pytest.approx((1, 1))
    assert redundancy(torch.eye(3)) == pytest.approx((0, 0))
    pairs, nearest = redundancy(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]]))
    assert pairs == pytest.approx(1 / 3) and nearest == pytest.approx(2 / 3)
    assert redundancy(normal(1, 7)) is None


def test_nearest_distances(real_set):
    real = real_set(noise=60.0)

    def pixels(index):
        return real.train.pixels(index).flatten(1).float() / 255

    own = torch.tensor([3, 50])
    every = pixels(torch.arange(120))
    assert nearest_distances(pixels(own), real, pixels, 7).tolist() == [0, 0]
    found = nearest_distances(pixels(own), real, pixels, 7, own)
    distance = torch.cdist(pixels(own), every).scatter(1, own[:, None], torch.inf)
    assert torch.allclose(found, distance.amin(1) / 8, atol=1e-6) and float(found.min()) > 0.05


@pytest.fixture
def net(convnet, blobs):
    return convnet(blobs).fresh(0, CPU)


def test_mean_gradient_is_that_of_the_whole_batch(net, blobs):
    index = torch.arange(50)
    x, y = blobs.train.inputs(index), blobs.train.labels[index]
    F.cross_entropy(net(x), y).backward()
    expected = torch.cat([p.grad.flatten() for p in net.parameters()])
    assert torch.allclose(mean_gradient(net, x, y, 7), expected, atol=1e-6)
    soft = F.one_hot(y, 3).float()
    assert torch.allclose(mean_gradient(net, x, soft, 50), expected, atol=1e-6)


def comparison(real, index, **changes):
    fields = {"seed": 0, "real_per_class": 10, "gradient_images": 1000, "neighbours": None} | changes
    return Comparison(real.train.inputs(index), real.train.labels[index], real, **fields)


def test_the_gradient_of_the_whole_training_set_is_aligned(net, blobs):
    whole = comparison(blobs, torch.arange(120))
    assert whole.alignment(net) == pytest.approx(1, abs=1e-6)
    few = comparison(blobs, blobs.train.of_class(0)[:2])
    assert few.alignment(net) < 0.95
    g = normal(9)
    assert alignment(g, -2 * g) == pytest.approx(-1) and alignment(g, torch.zeros(9)) == 0


def test_epochs_of_the_measurements():
    assert measured_epochs(8, 301) == [0, 1, 3, 7, 17, 45, 116, 301]
    assert measured_epochs(8, 3) == [0, 1, 2, 3] and measured_epochs(2, 50) == [0, 1, 50]


@pytest.fixture
def make_ctx(convnet, blobs, runtime, protocol, recipe, tmp_path):
    def make(**changes):
        fields = {"finished": frozenset()} | changes
        return EvaluationContext(
            seed=0, runtime=runtime, architecture=convnet(blobs), cache=Cache(tmp_path / "cache"),
            protocol=protocol(recipe=recipe(epochs=4)), ipc=4, **fields,
        )  # fmt: skip

    return make


@pytest.fixture
def diagnostics():
    values = {k: v for k, v in shipped_config("evaluator", "diagnostics").items() if k != "_choice_"}
    values["features"] = values["features"] | {"steps": 3}
    return Diagnostics(**values | {"num_networks": 2, "points": 3, "gradient_images": 30})


def test_a_selection_consists_of_copies(blobs, diagnostics, make_ctx):
    syn = ImageSet.coreset(blobs, blobs.train.draw(4, torch.Generator().manual_seed(0)).flatten())
    first, second = (
        {s.metric: s.value for s in scores}
        for scores in scores_by_network(diagnostics, syn, blobs, make_ctx())
    )
    assert first["copies"] == 1 and first["nearest_pixel"] < 1e-6 < first["nearest_pixel_real"]
    assert first["nearest_feature"] == pytest.approx(0, abs=1e-3)
    assert 0 < first["coverage"] < 1
    assert {"alignment:0", "alignment:1", "alignment:4", "class:ape", "worst_class"} <= first.keys()
    assert first["nearest_pixel_real"] == second["nearest_pixel_real"]
    assert first["coverage"] != second["coverage"], "each network has its own features"
    (note,) = notes_of(diagnostics, syn, blobs, make_ctx())
    assert note.startswith("most frequent confusions of 2 network(s): ")


def test_the_fresh_network_is_that_of_the_accuracy(blobs, diagnostics, make_ctx):
    """Observing a training does not change it."""
    from dd_bench.evaluators.accuracy import Accuracy

    syn = ImageSet.coreset(blobs, blobs.train.draw(1, torch.Generator().manual_seed(0)).flatten())
    ctx = make_ctx()
    (found,) = scores_by_network(diagnostics, syn, blobs, make_ctx(finished=frozenset({0})))
    values = {s.metric: s.value for s in found}
    ((expected, *_),) = scores_by_network(
        Accuracy(num_networks=2), syn, blobs, make_ctx(finished=frozenset({0}))
    )
    assert values["accuracy"] == expected.value and found[0].seed == expected.seed == ctx.seed_for(
        "evaluate", 1
    )
    assert "redundancy" not in values, "one image per class has no pairs"


def test_invalid_arguments_raise():
    values = {k: v for k, v in shipped_config("evaluator", "diagnostics").items() if k != "_choice_"}
    for key, value in (("points", 1), ("neighbours", 0), ("real_per_class", 1), ("gradient_images", 0)):
        with pytest.raises(ValueError, match=f"evaluator.{key} must be >="):
            Diagnostics(**values | {key: value})
