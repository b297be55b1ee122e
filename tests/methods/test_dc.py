"""Tests of DC and DSA: class gradients, their distance, inner loop, BatchNorm and augmentation."""

import higher
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dd_bench.distillation.init import initial_images
from dd_bench.methods import dc
from dd_bench.methods.dc import DC, LOOPS, class_gradients, freeze_batch_norm, gradient_match
from dd_bench.models.mlp import MLP
from dd_bench.models.network import batch_coupled
from dd_bench.models.vit import ViT
from dd_bench.training.augment import Augment
from dd_bench.training.batches import fetch_from
from dd_bench.training.loop import train

NORMS = ("instancenorm", "none", "groupnorm", "layernorm", "batchnorm")


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_gradients(net, images, first_class=0, create_graph=False):
    """Class gradients of each parameter with two or more dimensions, by one `autograd.grad` per class."""
    names = [name for name, p in net.named_parameters() if p.ndim > 1]
    by_class = []
    for c, x in enumerate(images):
        loss = F.cross_entropy(net(x), torch.full((len(x),), first_class + c))
        weights = [dict(net.named_parameters())[name] for name in names]
        by_class.append(torch.autograd.grad(loss, weights, create_graph=create_graph))
    return {name: torch.stack([g[i] for g in by_class]) for i, name in enumerate(names)}


def slow_match(real, syn):
    """The distance, computed row by row."""
    total = 0.0
    for name in real:
        for a, b in zip(real[name], syn[name], strict=True):  # classes
            for row_a, row_b in zip(a.reshape(len(a), -1), b.reshape(len(b), -1), strict=True):
                cosine = (row_a * row_b).sum() / (row_a.norm() * row_b.norm() + 1e-6)
                total = total + 1 - cosine
    return total


@pytest.mark.parametrize("norm", NORMS)
def test_class_gradients_equal_loop_over_classes(make_net, norm):
    net, images = make_net(norm=norm), randn(3, 4, 1, 8, 8)
    if norm == "batchnorm":
        freeze_batch_norm(net, randn(12, 1, 8, 8, seed=1))
    fast, slow = class_gradients(net, images, 0), slow_gradients(net, images)
    assert fast.keys() == slow.keys()
    for name in slow:
        torch.testing.assert_close(fast[name], slow[name], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "knobs",
    [{"norm": norm} for norm in NORMS]
    + [{"activation": a} for a in ("sigmoid", "leakyrelu", "swish")]
    + [{"pooling": p} for p in ("max", "none")],
    ids=str,
)
def test_image_gradient_equals_loop_over_classes(make_net, knobs):
    net = make_net(**knobs)
    if knobs.get("norm") == "batchnorm":
        freeze_batch_norm(net, randn(12, 1, 8, 8, seed=2))
    check_image_gradient(net)


@pytest.mark.parametrize(
    ("cls", "knobs"),
    [
        (MLP, {"width": 8, "depth": 2}),
        (
            ViT,
            {"patch": 4, "dim": 8, "depth": 2, "heads": 2, "mlp_dim": 8, "dropout": 0.0, "emb_dropout": 0.0},
        ),
    ],
)
def test_image_gradient_of_other_networks(make_architecture, cls, knobs):
    check_image_gradient(make_architecture(cls, **knobs).fresh(0, torch.device("cpu")).double())


def check_image_gradient(net):
    real, syn = randn(3, 4, 1, 8, 8), randn(3, 2, 1, 8, 8, seed=1).requires_grad_()
    with torch.no_grad():
        expected = class_gradients(net, real, 0)
    fast = gradient_match(expected, class_gradients(net, syn, 0))
    slow = slow_match(slow_gradients(net, real), slow_gradients(net, syn, create_graph=True))
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)
    (fast_grad,) = torch.autograd.grad(fast, syn)
    (slow_grad,) = torch.autograd.grad(slow, syn)
    torch.testing.assert_close(fast_grad, slow_grad, rtol=1e-9, atol=1e-10)


def test_gradient_flows_to_synthetic_images_only(make_net):
    net, images = make_net(), randn(2, 3, 1, 8, 8).requires_grad_()
    with torch.no_grad():
        assert not any(g.requires_grad for g in class_gradients(net, images, 0).values())
    loss = gradient_match(
        class_gradients(net, randn(2, 3, 1, 8, 8, seed=1), 0), class_gradients(net, images, 0)
    )
    loss.backward()
    assert images.grad.isfinite().all()
    assert float(images.grad.abs().max()) > 0
    assert all(p.grad is None for p in net.parameters())


def test_first_class_offsets_labels(make_net):
    net, images = make_net(), randn(2, 3, 1, 8, 8)
    fast, slow = class_gradients(net, images, 1), slow_gradients(net, images, first_class=1)
    torch.testing.assert_close(fast["classifier.weight"], slow["classifier.weight"], rtol=1e-10, atol=1e-10)


def test_one_dimensional_parameters_are_left_out(make_net):
    net = make_net(norm="layernorm")
    names = set(class_gradients(net, randn(1, 2, 1, 8, 8), 0))
    left_out = {name for name, _ in net.named_parameters()} - names
    assert left_out == {"classifier.bias", "blocks.0.0.bias", "blocks.1.0.bias"}
    assert "blocks.0.1.weight" in names  # LayerNorm's are (c, h, w)


def test_image_gradient_against_finite_differences(make_net):
    """The network is smooth, because finite differences do not match the second derivative of ReLU."""
    net = make_net(width=4, activation="swish")
    with torch.no_grad():
        expected = class_gradients(net, randn(2, 3, 1, 8, 8), 0)
    syn = randn(2, 2, 1, 8, 8, seed=1).requires_grad_()
    loss = lambda x: gradient_match(expected, class_gradients(net, x, 0))  # noqa: E731
    assert torch.autograd.gradcheck(loss, (syn,), fast_mode=True, atol=1e-6, rtol=1e-4)


def test_one_differentiable_step_agrees_with_higher(make_net):
    """theta - lr * class gradient equals an SGD step of `higher`, in value and in gradient to the images."""
    net, lr = make_net(activation="swish"), 0.1
    images = randn(1, 4, 1, 8, 8).requires_grad_()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    with higher.innerloop_ctx(net, optimizer, copy_initial_weights=False) as (functional, differentiable):
        differentiable.step(F.cross_entropy(functional(images[0]), torch.zeros(4, dtype=torch.int64)))
        names = [name for name, _ in functional.named_parameters()]
        stepped = dict(zip(names, functional.parameters(), strict=True))
    ours = {
        n: p.detach() - lr * class_gradients(net, images, 0)[n][0]
        for n, p in net.named_parameters()
        if p.ndim > 1
    }
    for name, parameter in ours.items():
        torch.testing.assert_close(parameter, stepped[name], rtol=1e-10, atol=1e-10)
    (a,) = torch.autograd.grad(sum((p**3).sum() for p in ours.values()), images)
    (b,) = torch.autograd.grad(sum((stepped[n] ** 3).sum() for n in ours), images)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_gradient_match_closed_form():
    real = {"conv": randn(2, 3, 2, 2, 2), "linear": randn(2, 4, 5, seed=1)}
    syn = {"conv": randn(2, 3, 2, 2, 2, seed=2), "linear": randn(2, 4, 5, seed=3)}
    torch.testing.assert_close(gradient_match(real, syn), slow_match(real, syn), rtol=1e-12, atol=1e-12)


def test_gradient_match_of_equal_orthogonal_and_opposite_rows():
    row = torch.tensor([[[3.0, 4.0]]], dtype=torch.float64) * 1e3
    across, rows = torch.tensor([[[-4.0, 3.0]]], dtype=torch.float64) * 1e3, 1
    for other, expected in ((row, 0.0), (across, 1.0), (-row, 2.0)):
        got = gradient_match({"w": row}, {"w": other}) / rows
        torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)


def test_gradient_match_is_invariant_to_row_lengths():
    real, syn = {"w": 1e3 * randn(2, 3, 4)}, {"w": 1e3 * randn(2, 3, 4, seed=1)}
    lengths = torch.rand(2, 3, 1, dtype=torch.float64) + 0.5
    torch.testing.assert_close(
        gradient_match(real, {"w": lengths * syn["w"]}), gradient_match(real, syn), rtol=1e-9, atol=0
    )


def test_dead_unit_has_distance_one_and_finite_gradient():
    real, syn = {"w": randn(1, 2, 3)}, {"w": randn(1, 2, 3, seed=1)}
    syn["w"][0, 0] = 0.0
    syn["w"].requires_grad_()
    loss = gradient_match(real, syn)
    loss.backward()
    torch.testing.assert_close(loss, slow_match(real, {"w": syn["w"].detach()}))
    assert syn["w"].grad.isfinite().all()


def test_distance_of_identical_sets_is_zero(make_net):
    net, images = make_net(activation="swish"), 3 * randn(3, 4, 1, 8, 8)
    gradients = class_gradients(net, images, 0)
    rows = sum(g.shape[0] * g.shape[1] for g in gradients.values())
    assert 0 <= float(gradient_match(gradients, gradients)) < 1e-3 * rows  # due to 1e-6 in the denominator


def test_loops(make_method):
    assert LOOPS == {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}
    by_ipc = make_method("dc", smoke=False)
    assert [by_ipc.loops(ipc) for ipc in (1, 10, 50)] == [(1, 1), (10, 50), (50, 10)]
    assert [by_ipc.loops(ipc) for ipc in (2, 5, 100, 600)] == [(2, 250), (5, 100), (100, 5), (600, 1)]
    assert make_method("dc", smoke=False, outer=3).loops(10) == (3, 50)
    assert make_method("dc", smoke=False, inner_epochs=7).loops(10) == (10, 7)


@pytest.mark.parametrize("key", ["outer", "inner_epochs"])
def test_loops_below_one_raise(make_method, key):
    with pytest.raises(ValueError, match=f"method.{key} must be >= 1, or null .* got 0"):
        make_method("dc", **{key: 0})


@pytest.mark.parametrize(
    ("name", "augment"), [("dc", "none"), ("dsa", "color_crop_cutout_flip_scale_rotate")]
)
def test_inner_loop_trains_the_network_by_sgd(monkeypatch, make_method, make_ctx, train_blobs, name, augment):
    calls = []

    def spy(net, fetch, n, recipe, **kwargs):
        images, labels = fetch(torch.arange(n))
        before = [p.detach().clone() for p in net.parameters()]
        train(net, fetch, n, recipe, **kwargs)
        changed = any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
        calls.append((net, n, recipe, kwargs, images.clone(), labels, changed))

    monkeypatch.setattr(dc, "train", spy)
    method = make_method(name, iterations=2, outer=3, inner_epochs=4, batch_train=256)
    method.distill(train_blobs, 2, make_ctx())
    assert len(calls) == 2 * (3 - 1)  # none after the last update
    for net, n, recipe, kwargs, images, labels, changed in calls:
        assert (n, images.shape) == (6, (6, 1, 8, 8))
        assert labels.tolist() == [0, 0, 1, 1, 2, 2]
        assert not images.requires_grad
        assert (recipe.optimizer, recipe.lr, recipe.momentum, recipe.weight_decay) == ("sgd", 0.01, 0, 0)
        assert (recipe.batch_size, recipe.epochs, recipe.augment, recipe.cutmix) == (256, 4, augment, 0)
        assert (kwargs["flip"], kwargs["runtime"].autocast) == (False, False)
        assert net.training
        assert changed
    assert len({call[3]["seed"] for call in calls}) == 4
    assert calls[0][0] is calls[1][0] is not calls[2][0]  # each iteration has its own network
    assert not torch.equal(calls[0][4], calls[1][4])  # which is trained on the current images


def test_inner_loop_agrees_with_higher(make_method, make_net, make_ctx):
    images, labels = randn(6, 1, 8, 8), torch.tensor([0, 0, 1, 1, 2, 2])
    recipe = make_method("dc")._inner_recipe(5)
    net = make_net()
    with higher.innerloop_ctx(net, torch.optim.SGD(net.parameters(), lr=0.01), track_higher_grads=False) as (
        functional,
        differentiable,
    ):
        for _ in range(5):
            differentiable.step(F.cross_entropy(functional(images), labels))
        expected = [p.detach().clone() for p in functional.parameters()]
    train(net, fetch_from(images, labels), 6, recipe, seed=0, runtime=make_ctx().runtime, flip=False)
    for ours, theirs in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["dc", "dsa"])
@pytest.mark.parametrize("norm", ["instancenorm", "batchnorm"])
def test_class_chunks_give_the_same_set(make_method, make_ctx, train_blobs, name, norm):
    """Also with BatchNorm, whose statistics are frozen during matching."""
    sets = []
    for work, chunk in (("whole", None), ("pairs", 2), ("single", 1)):
        method = make_method(name, class_chunk=chunk, norm=norm, iterations=2, outer=1)
        sets.append(method.distill(train_blobs, 2, make_ctx(work=work)).images)
    for other in sets[1:]:
        torch.testing.assert_close(other, sets[0], rtol=1e-4, atol=1e-5)


def test_update_is_sgd_with_momentum(monkeypatch, make_method, make_ctx, train_blobs):
    """The gradient of this loss is 1 at every pixel; three steps add up to lr * (1 + 1.5 + 1.75)."""
    gradients = lambda net, images, first_class: {"x": images}  # noqa: E731
    monkeypatch.setattr(dc, "class_gradients", gradients)
    monkeypatch.setattr(dc, "gradient_match", lambda real, syn: syn["x"].sum())
    method = make_method("dc", iterations=1, outer=3, lr_img=0.1)
    syn, start = (
        method.distill(train_blobs, 2, make_ctx()),
        initial_images("noise", train_blobs, 2, make_ctx()),
    )
    expected = start.flatten(0, 1) - 0.1 * (1 + 1.5 + 1.75)
    torch.testing.assert_close(syn.images, expected)


def test_initial_images_of_dc_and_dsa(make_method, make_ctx, make_blobs):
    real = make_blobs(counts=(40, 40, 40))
    noise = make_method("dc", iterations=0).distill(real, 30, make_ctx(work="dc")).images
    assert abs(float(noise.mean())) < 5 / noise.numel() ** 0.5
    assert abs(float(noise.std()) - 1) < 5 / (2 * noise.numel()) ** 0.5
    images = make_method("dsa", iterations=0).distill(real, 5, make_ctx(work="dsa")).images
    known = {tuple(x.flatten().tolist()) for x in real.train.inputs(torch.arange(len(real.train)))}
    assert all(tuple(x.flatten().tolist()) in known for x in images)


def test_freeze_batch_norm(make_net):
    net, images = make_net(norm="batchnorm"), 2 + 3 * randn(9, 1, 8, 8)
    assert batch_coupled(net)
    freeze_batch_norm(net, images)
    first = net.blocks[0][1]
    assert isinstance(first, nn.BatchNorm2d)
    maps = net.blocks[0][0](images).detach()
    torch.testing.assert_close(first.running_mean, 0.1 * maps.mean((0, 2, 3)))
    torch.testing.assert_close(first.running_var, 0.9 + 0.1 * maps.var((0, 2, 3)))
    assert net.training
    assert not first.training
    mean = first.running_mean.clone()
    class_gradients(net, images[None], 0)
    assert torch.equal(first.running_mean, mean)
    torch.testing.assert_close(net(images)[:2], net(images[:2]))  # images are independent in eval mode


def test_batchnorm_is_frozen_before_every_update(monkeypatch, make_method, make_ctx, train_blobs):
    seen = []

    def spy(net, images):
        seen.append((len(images), net.training))
        freeze_batch_norm(net, images)

    monkeypatch.setattr(dc, "freeze_batch_norm", spy)
    make_method("dc", norm="batchnorm", iterations=2, outer=2).distill(train_blobs, 1, make_ctx())
    assert seen == [(3 * 16, True)] * 4


def test_networks_without_norm(make_method, make_architecture, train_blobs):
    mlp = make_architecture(MLP, width=8, depth=1)
    assert make_method("dc").check_dataset(train_blobs, 1, mlp) is None
    assert "method.norm=batchnorm requires model.norm" in make_method("dc", norm="batchnorm").check_dataset(
        train_blobs, 1, mlp
    )
    reason = make_method("dsa", norm="batchnorm").check_dataset(train_blobs, 1, mlp)
    assert "requires model.norm, which MLP does not have" in reason


def test_dsa_is_dc_with_augmentation(make_method):
    assert isinstance(make_method("dsa"), DC)
    with pytest.raises(ValueError, match="DSA without augmentation is DC"):
        make_method("dsa", augment="none")


@pytest.mark.parametrize("name", ["dsa", "dm", "datadam"])
def test_both_batches_share_one_augmentation_per_class_and_update(
    monkeypatch, make_method, make_ctx, train_blobs, name
):
    seen, apply = [], Augment.apply

    def spy(self, x, draw, *args, **kwargs):
        if draw.values.ndim == 2:  # not the inner loop's, whose values are per image
            seen.append((x.shape[:2], draw, self))
        return apply(self, x, draw, *args, **kwargs)

    monkeypatch.setattr(Augment, "apply", spy)
    changes = {"outer": 2} if name == "dsa" else {}
    make_method(name, iterations=2, batch_real=8, **changes).distill(train_blobs, 4, make_ctx())
    updates = 4 if name == "dsa" else 2
    assert len(seen) == 2 * updates
    for (real, draw, augment), (syn, same, _) in zip(seen[::2], seen[1::2], strict=True):
        assert (real, syn) == ((3, 8), (3, 4))
        assert draw is same
        assert draw.op.shape == (3,)
        assert "flip" not in augment.choices  # train_blobs does not allow flips
    assert len({tuple(draw.values.flatten().tolist()) for _, draw, _ in seen}) == updates


def test_dsa_inner_loop_augments_each_image(monkeypatch, make_method, make_ctx, train_blobs):
    seen, apply = [], Augment.apply

    def spy(self, x, draw, *args, **kwargs):
        seen.append(draw.values.shape)
        return apply(self, x, draw, *args, **kwargs)

    monkeypatch.setattr(Augment, "apply", spy)
    make_method("dsa", iterations=1, outer=2, inner_epochs=3).distill(train_blobs, 4, make_ctx())
    assert seen.count((1, 12, 3)) == 3  # one mini-batch of 12 images in each of 3 epochs


@pytest.mark.parametrize("flip", [True, False])
def test_flip_depends_on_the_dataset(make_method, make_ctx, make_blobs, monkeypatch, flip):
    seen, draw = set(), Augment.draw

    def spy(self, *args, **kwargs):
        seen.add("flip" in self.choices)
        return draw(self, *args, **kwargs)

    monkeypatch.setattr(Augment, "draw", spy)
    make_method("dsa", outer=2).distill(make_blobs(flip=flip), 1, make_ctx())
    assert seen == {flip}
