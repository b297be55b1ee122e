"""Tests of the recorded training dynamics: the right predictions of the right images, and an unchanged training."""

import pytest
import torch
from safetensors.torch import load_file

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
    assert all(torch.equal(first[name], second[name]) for name in ("probabilities", "norms"))


def test_probabilities_close_to_one_are_not_rounded(tmp_path):
    """1 - p of the predicted class is as exact as the small probabilities of the others."""
    logits = torch.tensor([[9.0, 0.0, 1.0], [12.0, 0.0, 1.0]], dtype=torch.float64)
    exact = logits.softmax(1)
    layout = dynamics.mmap_file.Layout(
        "dynamics", {}, {"probabilities": ("F16", (1, 2, 3)), "norms": ("F32", (1, 2))}
    )
    path = tmp_path / dynamics.FILE
    dynamics.mmap_file.create(path, layout)
    dynamics.mmap_file.write(path, layout, "probabilities", 0, exact.half().numpy())
    p = Dynamics(None, tmp_path, layout).probabilities(torch.arange(2))[0]
    torch.testing.assert_close(1 - p[:, 0], 1 - exact[:, 0], rtol=5e-3, atol=0)
    assert float(exact.half()[1, 0]) == 1  # the stored value
    torch.testing.assert_close(p.sum(1), torch.ones(2, dtype=torch.float64))


def test_mixed_images_are_rejected(record):
    with pytest.raises(ValueError, match=r"images that are not mixed: .*Or use method.outputs=clean"):
        record("training", cutmix=0.5)


def test_damaged_file_raises(record, tmp_path):
    record("clean")
    (file,) = tmp_path.glob(f"cache/*/{dynamics.FILE}")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match=rf"is damaged .* rm -r {file.parent}"):
        record("clean")
