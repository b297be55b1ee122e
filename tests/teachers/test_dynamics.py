"""Tests of the recorded training dynamics: the right predictions of the right images, and an unchanged training."""

import math

import pytest
import torch
from safetensors.torch import load_file

from dd_bench.distillation.ranking import select_ranked
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.context import RunContext
from dd_bench.teachers import dynamics
from dd_bench.teachers.dynamics import Dynamics, training_dynamics
from dd_bench.teachers.trained_network import RealTraining, trained_network


@pytest.fixture
def record(blobs, convnet, recipe, runtime, tmp_path):
    """Function that records the dynamics of `blobs`, in three epochs of four steps."""

    def make(outputs="training", points=None, folder="cache", **changes) -> Dynamics:
        ctx = RunContext(seed=7, runtime=runtime, cache=Cache(tmp_path / folder))
        plan = recipe(**{"epochs": 3, "milestones": (), **changes})
        return training_dynamics(blobs, convnet(blobs), plan, ctx, outputs=outputs, points=points)

    return make


def everything(real):
    return torch.arange(len(real.train))


def predictions(net, real):
    with torch.no_grad():
        h = net.embed(real.train.inputs(everything(real)))
        return net.classifier(h).softmax(1).double(), h.norm(dim=1).double()


@pytest.mark.parametrize(("outputs", "points"), [("training", None), ("clean", None), ("clean", 6)])
def test_predictions_are_those_of_the_network(record, blobs, outputs, points):
    """With a learning rate of almost 0, the network never changes, and all points have its predictions."""
    found = record(outputs, points, lr=1e-30, weight_decay=0.0)
    p, norms = predictions(found.net, blobs)
    assert found.points == (points or 3)
    assert found.probabilities(everything(blobs)).shape == (found.points, 120, 3)
    torch.testing.assert_close(
        found.probabilities(everything(blobs)), p.expand(found.points, -1, -1), atol=5e-4, rtol=0
    )
    torch.testing.assert_close(found.norms(everything(blobs)), norms.expand(found.points, -1))
    some = torch.tensor([5, 0, 77])
    assert torch.equal(found.probabilities(some), found.probabilities(everything(blobs))[:, some])


@pytest.mark.parametrize("outputs", dynamics.OUTPUTS)
def test_recording_does_not_change_the_training(record, blobs, convnet, recipe, runtime, outputs):
    training = RealTraining(blobs.train_only(), convnet(blobs), recipe(epochs=3, milestones=()), runtime)
    net, _ = trained_network(training, dynamics._SEED, None)
    found = record(outputs)
    for (name, value), other in zip(net.named_parameters(), found.net.parameters(), strict=True):
        torch.testing.assert_close(value, other, msg=name)
    p, _ = predictions(found.net, blobs)
    torch.testing.assert_close(found.probabilities(everything(blobs))[-1], p, atol=5e-4, rtol=0)


def test_predictions_of_training_steps_lie_between_those_of_two_epochs(record, blobs):
    """Point k of `training` is recorded between points k and k + 1 of `clean`. The error decreases in both."""
    errors = {
        outputs: 1
        - record(outputs)
        .probabilities(everything(blobs))
        .gather(2, blobs.train.labels[None, :, None].expand(3, -1, 1))
        .mean((1, 2))
        for outputs in dynamics.OUTPUTS
    }
    for k in range(2):
        assert errors["clean"][k + 1] < errors["training"][k] < errors["clean"][k]
    torch.testing.assert_close(errors["clean"][-1], errors["training"][-1])


def test_points_are_evenly_spaced_in_steps(record, blobs):
    """12 steps, 6 points: every second one is after an epoch of 4 steps."""
    by_epoch, by_steps = (record("clean", points).probabilities(everything(blobs)) for points in (None, 6))
    assert torch.equal(by_steps[1::2], by_epoch)
    assert not torch.equal(by_steps[0], by_steps[1])
    with pytest.raises(ValueError, match=r"method\.points must be <= the 12 training steps, got 13"):
        record("clean", 13)


@pytest.mark.parametrize("outputs", dynamics.OUTPUTS)
def test_killed_training_resumes_with_the_same_bytes(record, monkeypatch, tmp_path, outputs):
    """The first run is killed in the third epoch."""
    record(outputs)
    original = torch.optim.SGD.step
    steps = []

    def step(self, *arguments):
        steps.append(None)
        if len(steps) == 10:
            raise KeyboardInterrupt
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.SGD, "step", step)
        with pytest.raises(KeyboardInterrupt):
            record(outputs, folder="killed")
    record(outputs, folder="killed")
    first, second = (load_file(next((tmp_path / f).glob(f"*/{dynamics.FILE}"))) for f in ("cache", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in ("scaled", "exponents", "norms"))


@pytest.fixture
def stored(tmp_path):
    """Function that returns the recorded probabilities `(n, k)` of logits, at one point."""

    def store(logits):
        n, k = logits.shape
        arrays = {"scaled": ("F16", (1, n, k)), "exponents": ("U8", (1, n)), "norms": ("F32", (1, n))}
        layout = dynamics.mmap_file.Layout("dynamics", {}, arrays)
        dynamics.mmap_file.create(tmp_path / dynamics.FILE, layout)
        for name, values in zip(arrays, dynamics.encode(logits), strict=False):
            dynamics.mmap_file.write(tmp_path / dynamics.FILE, layout, name, 0, values.numpy())
        return Dynamics(None, tmp_path, layout).probabilities(torch.arange(n))[0]

    return store


def test_probabilities_close_to_one_are_not_rounded(stored):
    """1 - p of the predicted class is as exact as the small probabilities of the others."""
    logits = torch.tensor([[9.0, 0.0, 1.0], [12.0, 0.0, 1.0], [1.0, 30.0, 0.0]])
    exact, p = logits.double().softmax(1), stored(logits)
    torch.testing.assert_close(1 - p.amax(1), 1 - exact.amax(1), rtol=2e-3, atol=0)
    assert float(exact.half()[1, 0]) == 1  # in float16
    torch.testing.assert_close(p.sum(1), torch.ones(3, dtype=torch.float64))


def test_images_with_large_logits_are_ordered_by_difficulty(stored, make_method):
    """Their other probabilities are below 3e-8, the smallest of float16. The easiest image is the last one."""
    steps = torch.arange(17, 30.01, 0.25)
    logits = torch.stack([steps, torch.zeros(len(steps)), -0.5 * torch.ones(len(steps))], 1)
    p, exact = stored(logits)[None], logits.double().softmax(1)[None]
    assert float(exact.half()[..., 1:].amax()) <= 6e-8
    for name in ("least_confidence", "margin", "entropy", "easiest", "el2n"):
        method = make_method(name)
        score, expected = (method.difficulty(q, None, 0, None) for q in (p, exact))
        assert score.argsort().tolist() == list(range(len(steps)))[::-1], name
        torch.testing.assert_close(score, expected, rtol=5e-3, atol=0)
        assert select_ranked(score, 1, "easy").tolist() == [len(steps) - 1], name


def test_larger_probabilities_are_those_of_float16(stored):
    """So the scores of less confident images do not depend on the scaling."""
    logits = 3 * torch.randn(500, 10, generator=torch.Generator().manual_seed(0))
    half = logits.softmax(1).half().double()
    p, top = stored(logits), half.argmax(1)
    same = (half > 6.2e-5).scatter(1, top[:, None], False)
    assert int(same.sum()) > 3000 and torch.equal(p[same], half[same])
    assert torch.equal(p.argmax(1), logits.argmax(1))


def test_extreme_logits(stored):
    logits = torch.tensor([[0.0, 0.0], [0.0, 89.0], [0.0, 300.0], [1e-3, 0.0]])
    p = stored(logits)
    assert p[:3].tolist() == [[0.5, 0.5], [pytest.approx(math.exp(-89), rel=1e-3), 1], [0, 1]]
    assert p[3].argmax() == 0 and torch.equal(p.sum(1), torch.ones(4, dtype=torch.float64))


def test_entries_with_plain_probabilities_are_not_read(record, tmp_path):
    """They have another key. A file in their format under the new key is reported as damaged."""
    record("clean")
    (file,) = tmp_path.glob(f"cache/*/{dynamics.FILE}")
    arrays = {"probabilities": ("F16", (3, 120, 3)), "norms": ("F32", (3, 120))}
    dynamics.mmap_file.create(file, dynamics.mmap_file.Layout("dynamics", {}, arrays))
    with pytest.raises(ValueError, match="is damaged"):
        record("clean")


def test_mixed_images_are_rejected(record):
    with pytest.raises(ValueError, match=r"images that are not mixed: .*Or use method.outputs=clean"):
        record("training", cutmix=0.5)


def test_damaged_file_raises(record, tmp_path):
    record("clean")
    (file,) = tmp_path.glob(f"cache/*/{dynamics.FILE}")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"is damaged .* rm -r {file.parent}"):
        record("clean")
