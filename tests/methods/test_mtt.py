"""Tests of trajectory matching: segments, student, learned variables, initialisation, canvas and error messages."""

import dataclasses
import itertools
import math
import re
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dd_bench.data.decode import tile
from dd_bench.data.preprocess import ZCA, Normalise
from dd_bench.distillation.clusters import representatives
from dd_bench.distillation.init import random_index
from dd_bench.distillation.unroll import GRADIENTS, Gradients, InnerLoop
from dd_bench.methods import mtt
from dd_bench.methods._trajectory.init import INITS, LABELS, cluster_index, correct_index, mean_logits
from dd_bench.methods._trajectory.segments import Window, balance, draw_segment, perturbed
from dd_bench.methods.mtt import MAX_SKIPS, MTT, SMALLEST_RATE
from dd_bench.models.mlp import MLP
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.teachers import expert_buffer as buffers
from dd_bench.teachers.expert_buffer import ExpertBuffer, Header
from dd_bench.training.parameter_vector import FunctionalNetwork, flatten
from dd_bench.training.recipe import parse

CPU = torch.device("cpu")
LONGER = {"experts.recipe.epochs": 4, "window.stop": 3, "expert_epochs": 2}


class Call(NamedTuple):
    """One call of a gradient function: copies of its arguments, and its result."""

    inner: InnerLoop
    images: Tensor
    labels: Tensor
    lr: Tensor
    grads: Gradients


@pytest.fixture
def record_gradients(monkeypatch):
    """Record the calls of a gradient function; `change(step, grads)` may replace its result."""
    original = dict(GRADIENTS)

    def on(name="adjoint", change=None):
        calls, compute = [], original[name]

        def spy(inner, images, labels, lr):
            arguments = images.clone(), labels.clone(), lr.clone()
            grads = compute(inner, images, labels, lr)
            grads = grads if change is None else change(len(calls), grads)
            calls.append(Call(inner, *arguments, grads))
            return grads

        monkeypatch.setitem(GRADIENTS, name, spy)
        return calls

    return on


@pytest.fixture
def fake_gradient(monkeypatch):
    """Replace the gradient by a fixed loss and a fixed derivative with respect to the step size."""

    def put(loss=lambda step: 0.5, lr=0.0):
        step = itertools.count()

        def fixed(inner, images, labels, rate):
            value = torch.tensor(float(loss(next(step))))
            return Gradients(value, torch.zeros_like(images), None, torch.tensor(lr))

        monkeypatch.setitem(GRADIENTS, "adjoint", fixed)

    return put


@pytest.fixture
def coded_buffer(tmp_path):
    """A buffer of networks with two parameters, both equal to 100 * expert + epoch."""

    def make(experts=3, epochs=range(8)):
        header = Header(experts, tuple(epochs), (("w", (2,)),), "float32", {}, ("", 0), "", {})
        buffers.create(tmp_path, header)
        for expert, epoch in itertools.product(range(experts), epochs):
            buffers.write(tmp_path, header, expert, epoch, torch.full((2,), 100.0 * expert + epoch))
        return ExpertBuffer(tmp_path)

    return make


@pytest.fixture
def constant_experts(tmp_path, make_method, make_ctx, train_blobs):
    """A buffer of the run's network whose experts each predict the same class for every image."""

    def make(*classes, epochs=(0, 1)):
        like = make_method("mtt").buffer(train_blobs, make_ctx()).header
        header = dataclasses.replace(like, experts=len(classes), epochs=epochs)
        buffers.create(tmp_path, header)
        for (expert, c), epoch in itertools.product(enumerate(classes), epochs):
            theta = torch.zeros(header.p)
            theta[-3 + c] = 1.0  # the classifier's bias is at the end
            buffers.write(tmp_path, header, expert, epoch, theta)
        return ExpertBuffer(tmp_path)

    return make


def window(first=0, stop=5, grow_from=None, grow_over=None):
    return Window(first=first, stop=stop, grow_from=grow_from, grow_over=grow_over)


def folder(buffer):
    return str(Path(buffer.path).parent)


def checkpoint(tmp_path, work):
    """The state that a run stored after its last step."""
    return load_file(tmp_path / work / "distill.checkpoint.safetensors")


def real_images(real):
    return {tuple(x.flatten().tolist()) for x in real.train.inputs(torch.arange(len(real.train)))}


def key(image):
    return tuple(image.flatten().tolist())


# Windows and segments


@pytest.mark.parametrize(
    ("iteration", "expected"),
    [(0, 10), (99, 10), (100, 11), (250, 12), (500, 15), (999, 19), (1000, 20), (9999, 20)],
)
def test_growing_window_follows_datm(iteration, expected):
    """CIFAR-10 at ipc 10: min(20, 10 + floor(10 it / 1000))."""
    assert window(0, 20, 10, 1000).stop_at(iteration) == expected


@pytest.mark.parametrize(("low", "high", "over"), [(10, 20, 1000), (30, 50, 2000), (15, 20, 2000), (1, 9, 7)])
def test_growing_window_is_monotonic_and_complete_after_grow_over(low, high, over):
    stops = [window(0, high, low, over).stop_at(i) for i in range(2 * over)]
    assert stops == sorted(stops)
    assert stops[0] == low
    assert stops[over - 1] == high - max(1, math.ceil((high - low) / over))
    assert set(stops[over:]) == {high}


def test_fixed_window_is_constant():
    assert {window(2, 5).stop_at(i) for i in range(100)} == {5}


@pytest.mark.parametrize("grow", [(None, None), (4, 60)], ids=["fixed", "growing"])
def test_segments_use_stored_epochs_only(coded_buffer, make_ctx, grow):
    """The buffer contains epochs first .. stop - 1 + M and raises for others; each start of the window is drawn."""
    buffer, ctx, starts = coded_buffer(epochs=range(2, 10)), make_ctx(), {}
    for i in range(300):
        segment = draw_segment(buffer, window(2, 7, *grow), i, 6, 3, "constant", ctx)
        starts.setdefault(i // 60, []).append(segment.epoch)
    assert set(starts[4]) == {2, 3, 4, 5, 6}
    early = starts[0][:20]  # the stop is 4 up to iteration 19
    assert set(early) == ({2, 3} if grow[0] else {2, 3, 4, 5, 6})


def test_starts_are_uniform_in_the_window(coded_buffer, make_ctx):
    buffer, ctx = coded_buffer(), make_ctx()
    starts = [draw_segment(buffer, window(1, 5), i, 3, 2, "none", ctx).epoch for i in range(400)]
    counts = torch.bincount(torch.tensor(starts), minlength=5)[1:]
    # chi-squared test with 3 degrees of freedom, p = 0.001
    assert float(((counts - 100) ** 2 / 100).sum()) < 16.3


def test_experts_are_drawn_without_replacement(coded_buffer, make_ctx):
    buffer, ctx = coded_buffer(experts=4), make_ctx()
    used = [int(draw_segment(buffer, window(), i, 3, 2, "none", ctx).start[0]) // 100 for i in range(40)]
    passes = [tuple(used[i : i + 4]) for i in range(0, 40, 4)]
    assert all(sorted(p) == [0, 1, 2, 3] for p in passes)
    assert len(set(passes)) > 3


def test_segment_ends_m_epochs_after_its_start(coded_buffer, make_ctx):
    segment = draw_segment(coded_buffer(), window(), 0, 7, 3, "none", make_ctx())
    expert, epoch = divmod(int(segment.start[0]), 100)
    assert epoch == segment.epoch
    (target,) = segment.targets
    assert (target.after, target.weight) == (7, 1.0)
    assert target.parameters.tolist() == [100.0 * expert + epoch + 3] * 2


@pytest.mark.parametrize(
    ("kind", "weights"), [("constant", [1.0, 1.0, 1.0, 1.0]), ("ramp", [0.25, 0.5, 0.75, 1.0])]
)
def test_intermediate_targets(coded_buffer, make_ctx, kind, weights):
    """Target j is after floor(N / M) j steps; the last one is after all N steps."""
    segment = draw_segment(coded_buffer(epochs=range(9)), window(), 0, 14, 4, kind, make_ctx())
    assert [t.after for t in segment.targets] == [3, 6, 9, 14]
    assert [t.weight for t in segment.targets] == weights
    epochs = [int(t.parameters[0]) - int(segment.start[0]) for t in segment.targets]
    assert epochs == [1, 2, 3, 4]


def test_one_expert_epoch_has_no_intermediate_target(coded_buffer, make_ctx):
    for kind in ("constant", "ramp"):
        (target,) = draw_segment(coded_buffer(), window(), 0, 5, 1, kind, make_ctx()).targets
        assert (target.after, target.weight) == (5, 1.0)


def test_balance():
    """Logarithm to base 5 of the distance from the middle plus 8, or its inverse in the first half."""
    assert balance(20, 40) == pytest.approx(math.log(8) / math.log(5))
    assert balance(37, 40) == pytest.approx(2.0)  # log_5 25
    assert balance(3, 40) == pytest.approx(0.5)
    assert balance(19, 40) == pytest.approx(math.log(5) / math.log(9))
    assert balance(7, 15) == pytest.approx(math.log(8) / math.log(5))  # the middle of 15 is 7
    factors = [balance(s, 15) for s in range(15)]
    assert all(f < 1 for f in factors[:7])
    assert all(f > 1 for f in factors[7:])


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_only_convolutions_are_perturbed(make_architecture, scale):
    """A convolution w becomes w + scale d / |d| w, with d from the generator."""
    net = make_architecture().fresh(0, CPU)
    flat, start = FunctionalNetwork(net), flatten(net)
    original = start.clone()
    theta = perturbed(start, flat, scale, torch.Generator().manual_seed(3))
    assert torch.equal(start, original)
    rng = torch.Generator().manual_seed(3)
    convolutions = 0
    for name, after in flat.split(theta).items():
        before = flat.split(start)[name]
        if after.ndim != 4:
            assert torch.equal(after, before)
            continue
        convolutions += 1
        d = torch.randn(after.shape, generator=rng)
        expected = before.double() * (1 + scale * d.double() / d.double().norm())
        torch.testing.assert_close(after.double(), expected, rtol=1e-6, atol=1e-9)
        ratio = (after.double() / before.double() - 1).norm()
        assert float(ratio) == pytest.approx(scale, rel=1e-4)
    assert convolutions == 2


def test_student_starts_at_perturbed_parameters(record_gradients, make_method, make_ctx, train_blobs):
    """The loss is relative to the distance of the perturbed start."""
    ctx, calls, changes = make_ctx(), record_gradients(), {**LONGER, "perturb": 1.0, "intermediate": "ramp"}
    method = make_method("mtt", **changes)
    method.distill(train_blobs, 2, ctx)
    flat = FunctionalNetwork(ctx.architecture.fresh(0, CPU))
    for step, call in enumerate(calls):
        segment = draw_segment(method.buffer(train_blobs, ctx), method.window, step, 3, 2, "ramp", ctx)
        start = perturbed(segment.start, flat, 1.0, ctx.generator("perturb", step))
        assert torch.equal(call.inner.start, start)
        assert not torch.equal(start, segment.start)
        for distance, target in zip(call.inner.distances(), segment.targets, strict=True):
            torch.testing.assert_close(distance, (start - target.parameters).square().sum())


# The student


def test_student_drops_incomplete_batches(record_gradients, make_method, make_ctx, train_blobs):
    """With 9 images and a batch size of 4, an epoch has two batches and leaves out one image."""
    calls = record_gradients()
    make_method("mtt", batch_syn=4, syn_steps=8).distill(train_blobs, 3, make_ctx())
    left_out = set()
    for call in calls:
        index = [step.index.tolist() for step in call.inner.steps]
        assert [len(i) for i in index] == [4] * 8
        epochs = [index[i] + index[i + 1] for i in range(0, 8, 2)]
        assert all(len(set(e)) == 8 for e in epochs)
        assert len({tuple(e) for e in epochs}) == 4
        left_out |= {next(iter(set(range(9)) - set(e))) for e in epochs}
    assert len(left_out) > 1
    assert [s.index.tolist() for s in calls[0].inner.steps] != [
        s.index.tolist() for s in calls[1].inner.steps
    ]


@pytest.mark.parametrize("batch_syn", [None, 6, 100])
def test_small_sets_are_one_batch(record_gradients, make_method, make_ctx, train_blobs, batch_syn):
    calls = record_gradients()
    make_method("mtt", batch_syn=batch_syn).distill(train_blobs, 2, make_ctx())
    assert all(s.index.tolist() == list(range(6)) for call in calls for s in call.inner.steps)


def test_each_step_has_its_own_repeatable_augmentation(record_gradients, make_method, make_ctx, train_blobs):
    calls = record_gradients()
    make_method("mtt", syn_steps=6).distill(train_blobs, 2, make_ctx())
    images, seen = calls[0].images, set()
    for step in (step for call in calls for step in call.inner.steps):
        assert torch.equal(step.view(images), step.view(images))
        seen.add(key(step.view(images)))
    assert len(calls) == 2
    assert len(seen) == 12


def test_augmentation_values_differ_between_images(record_gradients, make_method, make_ctx, train_blobs):
    """Six copies of an image are scaled by six different factors."""
    calls = record_gradients()
    make_method("mtt", augment="scale").distill(train_blobs, 2, make_ctx())
    copies = calls[0].images[:1].expand(6, -1, -1, -1)
    for step in calls[0].inner.steps:
        assert len({key(x) for x in step.view(copies)}) == 6


def test_no_augmentation(record_gradients, make_method, make_ctx, train_blobs):
    calls = record_gradients()
    make_method("mtt", augment="none").distill(train_blobs, 2, make_ctx())
    assert all(step.view(c.images) is c.images for c in calls for step in c.inner.steps)


def test_student_uses_steps_momentum_and_balance(record_gradients, make_method, make_ctx, train_blobs):
    calls, ctx = record_gradients(), make_ctx()
    changes = {**LONGER, "window.first": 1, "balance": True, "momentum_syn": 0.9, "lr_lr": 1e-8}
    method = make_method("mtt", syn_steps=5, iterations=8, **changes)
    method.distill(train_blobs, 2, ctx)
    weights = set()
    for step, call in enumerate(calls):
        epoch = draw_segment(method.buffer(train_blobs, ctx), method.window, step, 5, 2, "none", ctx).epoch
        assert call.inner.weight == balance(epoch, 3)
        assert (len(call.inner.steps), call.inner.momentum) == (5, 0.9)
        weights.add(call.inner.weight)
    assert len(weights) == 2  # epochs 1 and 2
    calls = record_gradients()
    make_method("mtt").distill(train_blobs, 2, make_ctx(work="plain"))
    assert {(call.inner.weight, call.inner.momentum) for call in calls} == {(1.0, 0.0)}


def test_loss_matches_torch_sgd(record_gradients, make_method, make_ctx, make_architecture, train_blobs):
    """The student equals the network trained by `torch.optim.SGD` from the snapshot."""
    calls, ctx = record_gradients(), make_ctx()
    changes = {**LONGER, "momentum_syn": 0.9, "balance": True, "syn_steps": 6, "batch_syn": 4, "lr_lr": 1e-8}
    make_method("mtt", iterations=2, **changes).distill(train_blobs, 2, ctx)
    for call in calls:
        net, inner = make_architecture().fresh(0, CPU), call.inner
        net.load_state_dict(FunctionalNetwork(make_architecture().fresh(0, CPU)).split(inner.start))
        optimizer = torch.optim.SGD(net.parameters(), float(call.lr), momentum=0.9)
        for step in inner.steps:
            x, y = step.view(call.images[step.index]), call.labels[step.index]
            optimizer.zero_grad()
            (inner.weight * torch.nn.functional.cross_entropy(net(x), y)).backward()
            optimizer.step()
        (target,) = inner.targets
        expected = (flatten(net) - target.parameters).square().sum()
        expected = expected / (inner.start - target.parameters).square().sum()
        torch.testing.assert_close(call.grads.loss, expected, rtol=1e-4, atol=0)


# What is learned


def test_loss_decreases(make_method, make_ctx, train_blobs):
    ctx = make_ctx()
    make_method("mtt", iterations=60, lr_img=100.0).distill(train_blobs, 2, ctx)
    losses = ctx.rows.losses
    assert sum(losses[-10:]) < 0.75 * sum(losses[:10])


def test_images_and_step_size_are_updated_by_sgd(record_gradients, make_method, make_ctx, train_blobs):
    """Three steps with momentum, computed from the recorded gradients."""
    calls = record_gradients()
    changes = {"iterations": 3, "lr_img": 100.0, "momentum_img": 0.5, "lr_lr": 1e-5, "momentum_lr": 0.7}
    syn = make_method("mtt", **changes).distill(train_blobs, 2, make_ctx())
    images, velocity = calls[0].images, torch.zeros_like(calls[0].images)
    lr, lr_velocity = float(calls[0].lr), 0.0
    assert lr == pytest.approx(0.01)
    for call in calls:
        torch.testing.assert_close(call.images, images)
        assert float(call.lr) == pytest.approx(lr, rel=1e-5)
        velocity = 0.5 * velocity + call.grads.images
        images = images - 100.0 * velocity
        lr_velocity = 0.7 * lr_velocity + float(call.grads.lr)
        change = -1e-5 * lr_velocity
        lr = lr * math.exp(change / lr) if change < 0 else lr + change
    torch.testing.assert_close(syn.images, images)
    assert syn.lr == pytest.approx(lr, rel=1e-5)


def test_set_contains_learned_step_size(make_method, make_ctx, train_blobs):
    syn = make_method("mtt", iterations=3).distill(train_blobs, 2, make_ctx())
    assert syn.space == "input"
    assert syn.lr > 0
    assert syn.lr != pytest.approx(0.01, rel=1e-5)
    assert syn.config()["lr"] == syn.lr


@pytest.mark.parametrize("lr", [0.05, 0.1, 1.0, 5.0])
def test_decreasing_step_size_stays_positive(fake_gradient, make_method, make_ctx, train_blobs, lr):
    """A decrease of 0.01 by 0.01 lr is applied as the factor exp(-lr), which equals 1 - lr to first order."""
    fake_gradient(lr=lr)
    got = make_method("mtt", iterations=1, lr_lr=0.01).distill(train_blobs, 2, make_ctx()).lr
    assert got == pytest.approx(0.01 * math.exp(-lr), rel=1e-6)
    assert 0 <= got - 0.01 * (1 - lr) <= 0.01 * lr**2 / 2


def test_increasing_step_size(fake_gradient, make_method, make_ctx, train_blobs):
    fake_gradient(lr=-3.0)
    got = make_method("mtt", iterations=1, lr_lr=0.01).distill(train_blobs, 2, make_ctx()).lr
    assert got == pytest.approx(0.01 + 0.03, rel=1e-6)


@pytest.mark.parametrize("lr", [10.0, 1e4, math.nan, -math.inf, math.inf], ids=str)
def test_vanishing_or_non_finite_step_size_raises(fake_gradient, make_method, make_ctx, train_blobs, lr):
    fake_gradient(lr=lr)
    with pytest.raises(
        Diverged, match=r"step size changed from 0.01 to .* Use method.lr_lr=0.001, or another"
    ):
        make_method("mtt", lr_lr=0.01).distill(train_blobs, 2, make_ctx())
    assert 0.01 * math.exp(-10.0) < SMALLEST_RATE


def test_unroll_equals_adjoint_but_not_truncated(make_method, make_ctx, train_blobs):
    sets = {
        name: make_method("mtt", gradient=name, syn_steps=6, lr_img=100.0).distill(
            train_blobs, 2, make_ctx(work=name)
        )
        for name in GRADIENTS
    }
    exact = sets["unroll"]
    start = make_method("mtt", iterations=0).distill(train_blobs, 2, make_ctx(work="start"))
    change = float((exact.images - start.images).norm())
    assert float((sets["adjoint"].images - exact.images).norm()) < 1e-4 * change
    assert sets["adjoint"].lr == pytest.approx(exact.lr, rel=1e-4)
    assert float((sets["truncated"].images - exact.images).norm()) > 1e-2 * change


def test_tesla_is_mtt_with_truncated_gradient(make_method, make_ctx, train_blobs):
    ours = make_method("mtt", gradient="truncated").distill(train_blobs, 2, make_ctx(work="mtt"))
    tesla = make_method("tesla").distill(train_blobs, 2, make_ctx(work="tesla"))
    assert torch.equal(ours.images, tesla.images)


def test_ema(make_method, make_ctx, train_blobs):
    """0.9^3 x0 + 0.1 (0.9^2 x1 + 0.9 x2 + x3), without bias correction; the step size is not averaged."""
    plain = [
        make_method("mtt", iterations=i).distill(train_blobs, 2, make_ctx(work=f"plain{i}")) for i in range(4)
    ]
    x = [syn.images for syn in plain]
    averaged = make_method("mtt", iterations=3, ema=0.9).distill(train_blobs, 2, make_ctx(work="ema"))
    expected = 0.9**3 * x[0] + 0.1 * (0.9**2 * x[1] + 0.9 * x[2] + x[3])
    torch.testing.assert_close(averaged.images, expected, rtol=1e-5, atol=1e-5)
    assert float((averaged.images - x[3]).abs().max()) > 0.1
    assert averaged.lr == plain[3].lr


def test_ftd_stores_ema(make_method, make_ctx, train_blobs):
    assert make_method("ftd", smoke=False).ema == 0.9995
    ema = make_method("ftd", iterations=2, ema=0.9999).distill(train_blobs, 2, make_ctx(work="ema"))
    start = make_method("ftd", iterations=0).distill(train_blobs, 2, make_ctx(work="start"))
    last = make_method("ftd", iterations=2, ema=0.0).distill(train_blobs, 2, make_ctx(work="last"))
    change = float((last.images - start.images).norm())
    assert 0 < float((ema.images - start.images).norm()) < 1e-3 * change


# The skip rule


@pytest.mark.parametrize("loss", [1.001, 1e30, math.nan, math.inf], ids=str)
def test_skipped_iteration_changes_nothing(
    record_gradients, tmp_path, make_method, make_ctx, train_blobs, loss
):
    """Images, labels, step size, average and all momentum buffers stay bitwise the same."""
    changes = {"skip_above": 1.0, "labels": "learned", "lr_label": 5.0, "momentum_label": 0.9, "ema": 0.5}
    changes |= {"momentum_img": 0.5, "momentum_lr": 0.5, "lr_img": 1.0, "lr_teacher": 1e-3}
    record_gradients(
        change=lambda step, grads: grads._replace(loss=torch.tensor(loss)) if step in (2, 3) else grads
    )
    make_method("mtt", iterations=2, **changes).distill(train_blobs, 2, make_ctx(work="two"))
    record_gradients(
        change=lambda step, grads: grads._replace(loss=torch.tensor(loss)) if step in (2, 3) else grads
    )
    ctx = make_ctx(work="four")
    make_method("mtt", iterations=4, **changes).distill(train_blobs, 2, ctx)
    two, four = checkpoint(tmp_path, "two"), checkpoint(tmp_path, "four")
    momenta = [name for name in two if "momentum_buffer" in name]
    assert len(momenta) == 3
    assert all(float(two[name].abs().max()) > 0 for name in momenta)
    assert two.keys() == four.keys()
    assert all(torch.equal(two[name], four[name]) for name in two)
    assert all(x <= 1 for x in ctx.rows.losses[:2])
    assert ctx.rows.losses[2:] == [pytest.approx(min(loss, 1e6) if math.isfinite(loss) else 1e6)] * 2


def test_without_skip_above_a_high_loss_updates(
    record_gradients, tmp_path, make_method, make_ctx, train_blobs
):
    """Counterpart of the test above."""
    for iterations in (2, 3):
        record_gradients(
            change=lambda step, grads: grads._replace(loss=torch.tensor(50.0)) if step == 2 else grads
        )
        method = make_method("mtt", iterations=iterations, lr_img=1.0)
        method.distill(train_blobs, 2, make_ctx(work=str(iterations)))
    two, three = checkpoint(tmp_path, "2"), checkpoint(tmp_path, "3")
    assert not any(torch.equal(two[name], three[name]) for name in ("images", "average", "lr"))


def test_too_many_consecutive_skips_raise(fake_gradient, make_method, make_ctx, train_blobs):
    assert MAX_SKIPS == 100
    fake_gradient(loss=lambda step: 1.5)
    ctx = make_ctx()
    with pytest.raises(
        Diverged, match=r"above method.skip_above=1.0 for 100 consecutive iterations up to 99. Use method"
    ):
        make_method("mtt", iterations=150, skip_above=1.0).distill(train_blobs, 2, ctx)
    assert len(ctx.rows.rows) == 99


def test_update_resets_the_number_of_skips(fake_gradient, monkeypatch, make_method, make_ctx, train_blobs):
    monkeypatch.setattr(mtt, "MAX_SKIPS", 4)
    fake_gradient(
        loss=lambda step: 1.0 if step % 4 == 3 else 1.1
    )  # a loss equal to the threshold is not skipped
    make_method("mtt", iterations=16, skip_above=1.0).distill(train_blobs, 2, make_ctx())


# Labels


def test_hard_labels_are_the_classes(record_gradients, make_method, make_ctx, train_blobs):
    calls = record_gradients()
    syn = make_method("mtt").distill(train_blobs, 2, make_ctx())
    assert syn.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert all(call.grads.labels is None for call in calls)


def test_target_labels(record_gradients, make_method, make_ctx, train_blobs):
    """In each iteration the target snapshot labels the images; the labels of the last iteration are stored."""
    calls, ctx = record_gradients("truncated"), make_ctx()
    changes = {**LONGER, "intermediate": "constant"}
    syn = make_method("tesla", labels="target", iterations=3, **changes).distill(train_blobs, 2, ctx)
    flat = FunctionalNetwork(ctx.architecture.fresh(0, CPU))
    for call in calls:
        end = call.inner.targets[-1]
        assert end.after == 3
        torch.testing.assert_close(call.labels, flat(end.parameters, call.images).softmax(1))
    assert torch.equal(syn.labels, calls[-1].labels)
    assert not torch.equal(calls[0].labels, calls[1].labels)


def test_learned_labels_are_stored_as_probabilities(make_method, make_ctx, train_blobs):
    changes = {"labels": "learned", "lr_label": 10.0, "momentum_label": 0.9}
    start, end = (
        make_method("mtt", iterations=i, **changes).distill(train_blobs, 2, make_ctx(work=str(i))).labels
        for i in (0, 4)
    )
    for labels in (start, end):
        assert labels.shape == (6, 3)
        assert float(labels.min()) > 0
        torch.testing.assert_close(labels.sum(1), torch.ones(6))
    assert float((start - end).abs().max(1).values.min()) > 1e-5  # in every row


def test_labels_are_learned_as_logits(record_gradients, make_method, make_ctx, train_blobs):
    """A softmax is invariant to a constant, so each row of the gradient sums to 0; updates are SGD steps."""
    calls = record_gradients()
    changes = {"labels": "learned", "lr_label": 10.0, "momentum_label": 0.9, "iterations": 3}
    syn = make_method("mtt", **changes).distill(train_blobs, 2, make_ctx())
    logits, velocity = calls[0].labels, torch.zeros(6, 3)
    for call in calls:
        torch.testing.assert_close(call.labels, logits)
        assert float(call.grads.labels.abs().max()) > 0
        assert float(call.grads.labels.sum(1).abs().max()) < 1e-5 * float(call.grads.labels.abs().max())
        velocity = 0.9 * velocity + call.grads.labels
        logits = logits - 10.0 * velocity
    torch.testing.assert_close(syn.labels, logits.softmax(1))


def test_frozen_labels_equal_initial_learned_labels(record_gradients, make_method, make_ctx, train_blobs):
    calls = record_gradients()
    frozen = [
        make_method("mtt", labels="frozen", iterations=i)
        .distill(train_blobs, 2, make_ctx(work=str(i)))
        .labels
        for i in (0, 3)
    ]
    learned = (
        make_method("mtt", labels="learned", iterations=0).distill(train_blobs, 2, make_ctx(work="l")).labels
    )
    assert torch.equal(frozen[0], frozen[1])
    torch.testing.assert_close(frozen[0], learned)
    assert len(calls) == 3
    assert all(torch.equal(call.labels, frozen[0]) and call.grads.labels is None for call in calls)


def test_mean_logits_of_correct_experts(make_method, make_ctx, train_blobs):
    """Experts are untrained, so that no expert classifies some images correctly."""
    ctx = make_ctx()
    buffer = make_method("mtt", **{"experts.count": 3}).buffer(train_blobs, ctx)
    flat = FunctionalNetwork(ctx.architecture.fresh(0, CPU))
    images, labels = train_blobs.train.inputs(torch.arange(59)), train_blobs.train.labels
    got, kinds = mean_logits(images, labels, flat, buffer, 0, ctx), set()
    for i in range(59):
        logits = [flat(buffer.snapshot(e, 0, CPU), images[i : i + 1])[0] for e in range(3)]
        correct = [z for z in logits if int(z.argmax()) == int(labels[i])]
        kinds.add(len(correct))
        torch.testing.assert_close(got[i], torch.stack(correct or logits).mean(0), rtol=1e-4, atol=1e-5)
    assert {0, 1} < kinds


# Initial images


def test_real_and_noise_init_equal_those_of_other_methods(make_method, make_ctx, train_blobs):
    for init in ("real", "noise"):
        ours = make_method("mtt", iterations=0, init=init).distill(
            train_blobs, 3, make_ctx(work=f"mtt{init}")
        )
        theirs = make_method("dsa", iterations=0, init=init).distill(
            train_blobs, 3, make_ctx(work=f"dsa{init}")
        )
        assert torch.equal(ours.images, theirs.images)
        assert ours.lr == pytest.approx(0.01)


def test_init_correct(make_method, make_ctx, train_blobs):
    changes = {"init": "correct", "experts.recipe.epochs": 5, "experts.init_epoch": 5}
    ctx, method = make_ctx(), make_method("mtt", iterations=0, **changes)
    syn, buffer = method.distill(train_blobs, 5, ctx), method.buffer(train_blobs, ctx)
    flat = FunctionalNetwork(ctx.architecture.fresh(0, CPU))
    assert not [note for note in ctx.notes if "correctly" in note]
    right = [flat(buffer.snapshot(e, 5, CPU), syn.images).argmax(1) == syn.labels for e in range(2)]
    assert bool((right[0] | right[1]).all())
    assert len({key(x) for x in syn.images}) == 15
    assert {key(x) for x in syn.images} <= real_images(train_blobs)
    other = make_method("mtt", iterations=0, **changes).distill(train_blobs, 5, make_ctx(1, work="other"))
    assert not torch.equal(syn.images, other.images)


def test_correct_index_uses_further_experts_for_incomplete_classes(constant_experts, make_ctx, train_blobs):
    """Each expert classifies only one class correctly; together they cover all classes."""
    ctx = make_ctx()
    flat = FunctionalNetwork(ctx.architecture.fresh(0, CPU))
    index = correct_index(train_blobs, 4, flat, constant_experts(2, 0, 1), 1, ctx)
    assert torch.equal(train_blobs.train.labels[index], torch.arange(3)[:, None].expand(3, 4))
    assert all(len(set(row.tolist())) == 4 for row in index)
    assert ctx.notes == []


def test_correct_index_prefers_earlier_experts(make_method, make_ctx, train_blobs):
    """Untrained experts, each of which classifies some images of a class correctly."""
    ctx = make_ctx()
    buffer = make_method("mtt", **{"experts.count": 3}).buffer(train_blobs, ctx)
    flat, kinds = FunctionalNetwork(ctx.architecture.fresh(0, CPU)), set()
    for c, row in enumerate(correct_index(train_blobs, 12, flat, buffer, 0, ctx)):
        members, first = train_blobs.train.of_class(c), {}
        for expert in (2, 1, 0):
            predicted = flat(buffer.snapshot(expert, 0, CPU), train_blobs.train.inputs(members)).argmax(1)
            first |= {i: expert for i in members[predicted == c].tolist()}
        chosen = [first.get(i, 3) for i in row.tolist()]
        left = [first.get(i, 3) for i in members.tolist() if i not in row.tolist()]
        assert chosen == sorted(chosen)
        assert max(chosen) <= min(left)
        kinds |= {tuple(sorted(set(chosen)))}
    assert any(len(k) > 1 for k in kinds)


def test_class_without_correct_images_is_noted(constant_experts, make_method, make_ctx, train_blobs):
    ctx, source = make_ctx(work="constant"), folder(constant_experts(0, 2))
    method = make_method("mtt", iterations=0, init="correct", **{"experts.source": source})
    syn = method.distill(train_blobs, 3, ctx)
    assert len({key(x) for x in syn.images}) == 9
    own = {key(x) for x in train_blobs.train.inputs(train_blobs.train.of_class(1))}
    assert {key(x) for x in syn.images[3:6]} <= own
    assert [n for n in ctx.notes if "correctly" in n] == [
        "the experts classify only 0 images of class 'b' correctly; others fill it up"
    ]


@pytest.mark.parametrize("ipc", [1, 3, 12])
def test_init_clusters_selects_distinct_images(make_method, make_ctx, train_blobs, ipc):
    syn = make_method("mtt", iterations=0, init="clusters").distill(train_blobs, ipc, make_ctx())
    assert len({key(x) for x in syn.images}) == 3 * ipc
    for c in range(3):
        own = {key(x) for x in train_blobs.train.inputs(train_blobs.train.of_class(c))}
        assert {key(x) for x in syn.images[c * ipc : (c + 1) * ipc]} <= own


def test_clusters_use_the_logits_of_one_random_expert(make_method, make_ctx, train_blobs):
    buffer, used = make_method("mtt").buffer(train_blobs, make_ctx()), set()
    for seed in range(6):
        ctx = make_ctx(seed)
        flat = FunctionalNetwork(ctx.architecture.fresh(0, CPU))
        index = cluster_index(train_blobs, 4, flat, buffer, 1, ctx)
        for expert in range(2):
            rows = []
            for c in range(3):
                members = train_blobs.train.of_class(c)
                with torch.no_grad():
                    logits = flat(buffer.snapshot(expert, 1, CPU), train_blobs.train.inputs(members)).double()
                rows.append(members[representatives(logits, 4, 3, ctx.seed_for("clusters", c))])
            if torch.equal(index, torch.stack(rows)):
                used.add((seed, expert))
    assert {seed for seed, _ in used} == set(range(6))
    assert {expert for _, expert in used} == {0, 1}
    assert len(used) == 6  # exactly one expert per seed


def test_representatives_are_distinct_and_one_per_group():
    groups = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]).repeat_interleave(5, 0)
    noise = torch.randn(15, 2, generator=torch.Generator().manual_seed(0))
    chosen = representatives(groups + 0.1 * noise, 3, 2, seed=2**40 + 1)
    assert sorted((chosen // 5).tolist()) == [0, 1, 2]
    for g in range(3):
        rows = (groups + 0.1 * noise)[5 * g : 5 * g + 5]
        nearest = 5 * g + int((rows - rows.mean(0)).norm(dim=1).argmin())
        assert nearest in chosen.tolist()
    all_rows = representatives(noise, 15, 1, seed=0)
    assert sorted(all_rows.tolist()) == list(range(15))


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [
        ({}, (0, 1, 2, 3, 4)),
        ({"window.first": 2}, (2, 3, 4)),
        ({"window.first": 2, "init": "correct"}, (2, 3, 4)),
        ({"window.first": 2, "init": "clusters", "experts.init_epoch": 0}, (0, 2, 3, 4)),
        ({"window.first": 2, "labels": "learned", "experts.init_epoch": 6}, (2, 3, 4, 6)),
        ({"window.first": 2, "labels": "target", "experts.init_epoch": 6}, (2, 3, 4)),
        ({"window.first": 2, "experts.keep": "all"}, (0, 1, 2, 3, 4, 5, 6)),
    ],
    ids=str,
)
def test_stored_epochs_of_experts(make_method, make_ctx, train_blobs, changes, epochs):
    """Experts are trained up to the last stored epoch."""
    method = make_method("mtt", **{**LONGER, "experts.count": 1, "experts.recipe.epochs": 6, **changes})
    header = method.buffer(train_blobs, make_ctx()).header
    assert header.epochs == epochs
    assert header.recipe["epochs"] == epochs[-1]


def test_float16_buffer_is_the_rounded_float32_buffer(make_method, make_ctx, train_blobs):
    single, half = (make_method("mtt", **{"experts.dtype": d}) for d in ("float32", "float16"))
    a, b = single.buffer(train_blobs, make_ctx()), half.buffer(train_blobs, make_ctx())
    assert b.path.stat().st_size < 0.6 * a.path.stat().st_size
    for expert, epoch in itertools.product(range(2), range(2)):
        assert torch.equal(a.snapshot(expert, epoch, CPU).half().float(), b.snapshot(expert, epoch, CPU))
    losses = []
    for method, work in ((single, "single"), (half, "half")):
        ctx = make_ctx(work=work)
        method.distill(train_blobs, 2, ctx)
        losses.append(ctx.rows.losses[0])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


@pytest.mark.parametrize(
    "changes",
    [
        {"experts.flat.rho": 0.1},
        {"experts.flat.rho": 0.1, "experts.flat.alpha": 0.5},
        {"experts.loss_scale": [0.5]},
        {"experts.gradient_penalty.weight": 1.0},
        {"experts.gradient_penalty.weight": 1.0, "experts.gradient_penalty.norm": "image"},
    ],
    ids=str,
)
def test_gradient_rule_changes_experts(make_method, make_ctx, train_blobs, changes):
    plain = make_method("mtt", **{"experts.count": 1}).buffer(train_blobs, make_ctx())
    other = make_method("mtt", **{"experts.count": 1, **changes}).buffer(train_blobs, make_ctx())
    assert plain.path != other.path
    assert torch.equal(plain.snapshot(0, 0, CPU), other.snapshot(0, 0, CPU))
    change = (plain.snapshot(0, 1, CPU) - plain.snapshot(0, 0, CPU)).norm()
    assert float((plain.snapshot(0, 1, CPU) - other.snapshot(0, 1, CPU)).norm()) > 1e-3 * float(change)


# The canvas


def test_canvas_is_split_into_tiles(make_method, make_ctx, train_blobs):
    ctx = make_ctx()
    syn = make_method("mtt", iterations=0, canvas=2).distill(train_blobs, 12, ctx)
    index = random_index(train_blobs, 3 * 4, make_ctx())
    assert torch.equal(syn.images, tile(train_blobs.train.inputs(index.flatten()), 2))
    assert syn.images.shape == (9, 1, 16, 16)
    assert syn.canvas == 2
    images, labels = syn.materialise(CPU)
    assert torch.equal(images, train_blobs.train.inputs(index.flatten()))
    assert labels.tolist() == [0] * 12 + [1] * 12 + [2] * 12


def test_canvas_of_noise(make_method, make_ctx, train_blobs):
    syn = make_method("mtt", iterations=0, canvas=3, init="noise").distill(train_blobs, 180, make_ctx())
    assert syn.images.shape == (60, 1, 24, 24)
    assert abs(float(syn.images.mean())) < 5 / syn.images.numel() ** 0.5
    assert abs(float(syn.images.std()) - 1) < 5 / (2 * syn.images.numel()) ** 0.5


def test_student_sees_random_crops_of_the_canvas(record_gradients, make_method, make_ctx, train_blobs):
    """A step uses the same crop for the batch; crops are uniform and wrap at the borders."""
    calls = record_gradients()
    make_method("mtt", canvas=2, augment="none", syn_steps=20).distill(train_blobs, 8, make_ctx())
    position = torch.arange(256.0).view(1, 1, 16, 16).repeat(5, 1, 1, 1)
    corners = set()
    for step in (step for call in calls for step in call.inner.steps):
        seen = step.view(position)
        row, col = divmod(int(seen[0, 0, 0, 0]), 16)
        rows, cols = (row + torch.arange(8)) % 16, (col + torch.arange(8)) % 16
        assert torch.equal(seen, (16 * rows[:, None] + cols).float().expand(5, 1, 8, 8))
        corners.add((row, col))
    assert len(corners) > 30
    assert {0, 15} <= {max(c[i] for c in corners) for i in (0, 1)} | {
        min(c[i] for c in corners) for i in (0, 1)
    }


def test_every_pixel_of_the_canvas_is_learned(make_method, make_ctx, train_blobs):
    start, end = (
        make_method("mtt", iterations=i, canvas=2, syn_steps=5).distill(train_blobs, 8, make_ctx(work=str(i)))
        for i in (0, 12)
    )
    assert bool((start.images != end.images).all())


# Expert buffers from `experts.source`


@pytest.fixture
def released_buffer(make_method, make_ctx, train_blobs):
    """The folder of a buffer of experts on `train_blobs` with epochs 0 to 3."""
    changes = {"experts.recipe.epochs": 3, "window.stop": 3}
    return folder(make_method("mtt", **changes).buffer(train_blobs, make_ctx()))


def test_released_experts_give_the_same_set(released_buffer, make_method, make_ctx, train_blobs):
    changes = {"experts.recipe.epochs": 3, "window.stop": 3}
    own = make_method("mtt", **changes).distill(train_blobs, 2, make_ctx(work="own"))
    ctx = make_ctx(work="released")
    method = make_method("mtt", **changes, **{"experts.source": released_buffer})
    assert torch.equal(method.distill(train_blobs, 2, ctx).images, own.images)
    assert [n for n in ctx.notes if "method.experts.source" in n]


def test_released_experts_with_shorter_window(released_buffer, make_method, make_ctx, train_blobs):
    changes = {"experts.recipe.epochs": 3, "window.first": 1, "window.stop": 2}
    make_method("mtt", **changes, **{"experts.source": released_buffer}).prepare(train_blobs, make_ctx())


@pytest.mark.parametrize(
    ("knobs", "cls"), [({"width": 4}, None), ({"norm": "none"}, None), ({"width": 8, "depth": 1}, MLP)]
)
def test_released_experts_of_another_network(
    released_buffer, make_method, make_ctx, make_architecture, train_blobs, knobs, cls
):
    architecture = make_architecture(**({"cls": cls} if cls else {}), **knobs)
    method = make_method("mtt", **{"experts.source": released_buffer})
    with pytest.raises(ValueError, match=r"Use the network of the experts \(model=...\), or method.experts"):
        method.prepare(train_blobs, make_ctx(architecture=architecture))


def test_released_experts_of_another_preprocessing(released_buffer, make_method, make_ctx, train_blobs):
    other = dataclasses.replace(train_blobs, preprocess=Normalise([0.5], [0.3]))
    method = make_method("mtt", **{"experts.source": released_buffer})
    theirs, ours = train_blobs.preprocess.config(), other.preprocess.config()
    message = rf"{re.escape(str(theirs))}, but this run uses {re.escape(str(ours))}. Use dataset.preprocess="
    with pytest.raises(ValueError, match=message):
        method.prepare(other, make_ctx())


def test_released_experts_of_another_dataset(released_buffer, make_method, make_ctx, make_blobs):
    method = make_method("mtt", **{"experts.source": released_buffer})
    with pytest.raises(
        ValueError, match=r"other data than the 59 training images of blobs. .* method.experts.source="
    ):
        method.prepare(make_blobs(seed=7).train_only(), make_ctx())


def test_released_experts_with_missing_epochs(released_buffer, make_method, make_ctx, train_blobs):
    changes = {"experts.recipe.epochs": 5, "window.stop": 5, "experts.source": released_buffer}
    with pytest.raises(
        ValueError,
        match=r"contains epoch 4, .* contains only epochs \[0, 1, 2, 3\]. Use .*method.window.stop",
    ):
        make_method("mtt", **changes).prepare(train_blobs, make_ctx())


def test_released_experts_with_missing_init_epoch(released_buffer, make_method, make_ctx, train_blobs):
    changes = {"experts.recipe.epochs": 5, "init": "correct", "experts.init_epoch": 5}
    with pytest.raises(ValueError, match=r"method.experts.init_epoch must be one of .*, got 5"):
        make_method("mtt", **changes, **{"experts.source": released_buffer}).prepare(train_blobs, make_ctx())


def test_released_experts_from_missing_folder(tmp_path, make_method, make_ctx, train_blobs):
    method = make_method("mtt", **{"experts.source": str(tmp_path / "nowhere")})
    with pytest.raises(ValueError, match="nowhere is not an expert buffer"):
        method.prepare(train_blobs, make_ctx())


# Error messages


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": "nope"}, f"method.init must be one of {', '.join(INITS)}, got 'nope'"),
        ({"labels": "nope"}, f"method.labels must be one of {', '.join(LABELS)}, got 'nope'"),
        ({"gradient": "nope"}, f"method.gradient must be one of {', '.join(GRADIENTS)}, got 'nope'"),
        ({"intermediate": "nope"}, "method.intermediate must be one of none, constant, ramp, got 'nope'"),
        ({"syn_steps": 0}, "method.syn_steps must be >= 1, got 0. Example: method.syn_steps=1"),
        ({"expert_epochs": 0}, "method.expert_epochs must be >= 1, got 0"),
        ({"batch_syn": 0}, "method.batch_syn must be >= 1, got 0"),
        ({"canvas": 0}, "method.canvas must be >= 1, got 0"),
        ({"ema": 1.0}, r"method.ema must be in \[0, 1\), got 1.0. Example: method.ema=0.0"),
        ({"ema": -0.1}, r"method.ema must be in \[0, 1\), got -0.1"),
        ({"ema": math.nan}, r"method.ema must be in \[0, 1\), got nan"),
        ({"lr_teacher": 0.0}, "method.lr_teacher must be >= 1e-06, got 0.0. Example: method.lr_teacher=0.01"),
        ({"lr_teacher": math.nan}, "method.lr_teacher must be >= 1e-06, got nan"),
        ({"lr_img": -1.0}, "method.lr_img must be a number >= 0, got -1.0"),
        (
            {"intermediate": "ramp", "syn_steps": 2, "expert_epochs": 3, "experts.recipe.epochs": 3},
            "method.intermediate=ramp .* Use method.syn_steps=3 or more, or method.intermediate=none",
        ),
        (
            {"window.stop": 5, "expert_epochs": 2, "experts.recipe.epochs": 3},
            r"requires epoch 6 .* Use method.experts.recipe.epochs=6, or a smaller method.window.stop",
        ),
        (
            {"experts.init_epoch": 2, "init": "clusters"},
            "method.experts.init_epoch must be null, or at most 1, .* got 2. Example: method.experts.init_epoch=null",
        ),
        ({"window.first": 1}, r"stop must be > first=1, got 1. Example: stop=2"),
        ({"window.first": -1}, "method.window.first=-1: .* greater than or equal to 0"),
        ({"window.grow_from": 1}, "grow_from and grow_over must both be integers, or both be null"),
        ({"window.grow_over": 9}, "grow_from and grow_over must both be integers, or both be null"),
        (
            {"window.grow_from": 2, "window.grow_over": 9},
            r"grow_from must be in first\+1..stop = 1..1, got 2",
        ),
        ({"window.grow_from": 1, "window.grow_over": 0}, "method.window.grow_over=0: .* equal to 1"),
        ({"momentum_img": 1.5}, r"method.momentum_img must be in \[0, 1\), got 1.5"),
        ({"momentum_label": -0.1}, r"method.momentum_label must be in \[0, 1\), got -0.1"),
        ({"augment": "color_foo"}, "method.augment=color_foo: the augmentation must be none, .* got 'foo'"),
        ({"experts.loss_scale": [-1.0]}, "method.experts.loss_scale"),
        ({"experts.precision": "bf16"}, "method.experts.precision='bf16': .*'auto' or 'fp32'"),
        ({"experts.count": 0}, "method.experts.count=0: .* greater than or equal to 1"),
        ({"experts.dtype": "bfloat16"}, "method.experts.dtype='bfloat16': .*'float32' or 'float16'"),
        ({"experts.keep": "some"}, "method.experts.keep='some': .*'window' or 'all'"),
        ({"experts.flat.rho": -1.0}, "method.experts.flat.rho=-1.0: .* greater than or equal to 0"),
        ({"experts.gradient_penalty.norm": "l2"}, "method.experts.gradient_penalty.norm='l2': .*'image'"),
        ({"experts.recipe.optimizer": "lion"}, "method.experts.recipe.optimizer='lion'"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_invalid_arguments_raise(make_method, changes, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        make_method("mtt", **changes)


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"window.stop": 5, "expert_epochs": 2, "experts.recipe.epochs": 3}, {"window.stop": 2}),
        ({"window.stop": 5, "expert_epochs": 2, "experts.recipe.epochs": 3}, {"experts.recipe.epochs": 6}),
        ({"experts.init_epoch": 2, "init": "clusters"}, {"experts.init_epoch": None}),
        ({**LONGER, "intermediate": "ramp", "syn_steps": 1}, {"syn_steps": 2}),
        ({**LONGER, "intermediate": "ramp", "syn_steps": 1}, {"intermediate": "none"}),
    ],
    ids=str,
)
def test_advice_of_an_error_message_works(make_method, changes, advice):
    with pytest.raises(ValueError, match=r"(Use|Example:) method"):
        make_method("mtt", **changes)
    make_method("mtt", **{**changes, **advice})


def test_unknown_key_of_the_window_raises():
    values = {"first": 0, "stop": 1, "grow_from": None, "grow_over": None, "grow": 3}
    with pytest.raises(ValueError, match=r"method.window.grow is not a configuration key"):
        parse(Window, values, "method.window")


def test_batchnorm_is_not_supported(make_method, make_architecture, train_blobs):
    for name in ("mtt", "ftd", "tesla", "datm", "ast"):
        reason = make_method(name).check_dataset(train_blobs, 2, make_architecture(norm="batchnorm"))
        assert reason == (
            "ConvNet has BatchNorm, but expert snapshots do not contain its running statistics. "
            "Use model.norm=instancenorm"
        )


def test_canvas_does_not_support_zca(make_method, make_architecture, train_blobs):
    pixels = train_blobs.train.pixels(torch.arange(59)).float() / 255
    whitened, architecture = dataclasses.replace(train_blobs, preprocess=ZCA.fit(pixels)), make_architecture()
    assert make_method("mtt").check_dataset(whitened, 2, architecture) is None
    assert make_method("mtt", canvas=2).check_dataset(train_blobs, 4, architecture) is None
    assert make_method("mtt", canvas=2).check_dataset(whitened, 2, architecture) == (
        "method.canvas=2 crops larger images, but ZCA is fitted to one image size. "
        "Use dataset.preprocess=normalise or method.canvas=1"
    )


@pytest.mark.parametrize(
    "changes",
    [{"labels": kind} for kind in LABELS[1:]] + [{"init": kind} for kind in ("correct", "clusters")],
    ids=str,
)
def test_canvas_requires_hard_labels_and_real_or_noise_init(
    make_method, make_architecture, train_blobs, changes
):
    reason = make_method("mtt", canvas=2, **changes).check_dataset(train_blobs, 2, make_architecture())
    assert reason.startswith(
        "method.canvas > 1 requires method.labels=hard, and method.init=real or method.init=noise, got method.labels="
    )
    assert make_method("mtt", **changes).check_dataset(train_blobs, 2, make_architecture()) is None


def test_ipc_counts_the_images_of_a_canvas(make_method, make_architecture, train_blobs):
    method, architecture = make_method("mtt", canvas=2), make_architecture()
    assert method.check_dataset(train_blobs, 16, architecture) is None
    assert method.check_dataset(train_blobs, 20, architecture).endswith("method.init=noise or ipc<=17")
    assert "ipc must be a multiple of 4, got 5. Example: ipc=4" in method.check_dataset(
        train_blobs, 5, architecture
    )


@pytest.mark.parametrize(
    ("changes", "most", "instead"),
    [
        ({"init": "real"}, 17, "method.init=noise or ipc<=17"),
        ({"init": "correct"}, 17, "Use ipc<=17"),
        ({"init": "clusters"}, 17, "Use ipc<=17"),
    ],
    ids=str,
)
def test_too_large_ipc(make_method, make_architecture, train_blobs, changes, most, instead):
    method, architecture = make_method("mtt", **changes), make_architecture()
    assert method.check_dataset(train_blobs, most, architecture) is None
    assert method.check_dataset(train_blobs, most + 1, architecture).endswith(instead)
    noise = {**changes, "init": "noise"}
    assert make_method("mtt", **noise).check_dataset(train_blobs, 1000, architecture) is None


def test_variants_differ_in_their_configuration_only(make_method):
    for name in ("ftd", "tesla", "datm", "ast"):
        own = {k for k in vars(type(make_method(name))) if not k.startswith("__")}
        assert own <= {"citation", "smoke", "_abc_impl"}
        assert isinstance(make_method(name), MTT)
