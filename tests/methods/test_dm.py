"""Tests of DM: loss in closed form, batched classes, random networks and optimiser."""

import pytest
import torch

from dd_bench.distillation.init import initial_images
from dd_bench.methods.dm import DM
from dd_bench.models.mlp import MLP


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Linear:
    """A network whose embedding is linear."""

    def __init__(self, weight):
        self.weight = weight

    def embed(self, x):
        return x.flatten(1) @ self.weight


def batched_and_looped(loss, net, real, syn):
    """Loss and image gradient of all classes in one batch, and of a loop over classes."""
    values = []
    for parts in ([slice(0, len(real))], [slice(c, c + 1) for c in range(len(real))]):
        x = syn.clone().requires_grad_()
        total = sum(loss(net, real[p], x[p]) for p in parts)
        (grad,) = torch.autograd.grad(total, x)
        values.append((total.detach(), grad))
    return values


@pytest.mark.parametrize("norm", ["instancenorm", "none", "groupnorm", "layernorm"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_batched_classes_equal_loop_over_classes(make_method, make_net, norm, dtype, tolerance):
    net = make_net(norm=norm).to(dtype).requires_grad_(False)
    real, syn = randn(3, 9, 1, 8, 8, dtype=dtype), randn(3, 2, 1, 8, 8, seed=1, dtype=dtype)
    (batched, batched_grad), (loop, loop_grad) = batched_and_looped(make_method("dm").loss, net, real, syn)
    torch.testing.assert_close(batched, loop, rtol=tolerance, atol=0)
    assert float((batched_grad - loop_grad).norm() / loop_grad.norm()) < tolerance


def test_batchnorm_couples_classes(make_method, make_net, make_ctx, train_blobs):
    """Therefore `class_chunk` is an error for a BatchNorm network."""
    net = make_net(norm="batchnorm").requires_grad_(False)
    real, syn = randn(3, 9, 1, 8, 8), randn(3, 2, 1, 8, 8, seed=1)
    (_, batched), (_, loop) = batched_and_looped(make_method("dm").loss, net, real, syn)
    assert float((batched - loop).norm() / loop.norm()) > 0.01
    with pytest.raises(ValueError, match="would change the batch statistics of a BatchNorm network"):
        make_method("dm", norm="batchnorm", class_chunk=1).distill(train_blobs, 2, make_ctx())


def test_closed_form_of_linear_embedding(make_method):
    weight, real, syn = randn(16, 5), randn(3, 6, 1, 4, 4), randn(3, 2, 1, 4, 4, seed=1).requires_grad_()
    loss = make_method("dm").loss(Linear(weight), real, syn)
    gap = (syn.mean(1) - real.mean(1)).flatten(1).detach()  # (3, 16)
    torch.testing.assert_close(loss.detach(), ((gap @ weight) ** 2).sum())
    loss.backward()
    expected = (2 / 2 * gap @ weight @ weight.T)[:, None].expand(3, 2, 16).reshape(syn.shape)  # 2 / ipc
    torch.testing.assert_close(syn.grad, expected)


def test_image_gradient_against_finite_differences(make_method, make_net):
    net = make_net(activation="swish").requires_grad_(False)
    real, syn = randn(2, 5, 1, 8, 8), randn(2, 2, 1, 8, 8, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: make_method("dm").loss(net, real, x), (syn,), fast_mode=True)


def test_distance_of_identical_sets_is_zero(make_method, make_net):
    net, images = make_net().requires_grad_(False), randn(3, 5, 1, 8, 8)
    assert float(make_method("dm").loss(net, images, images[:, torch.randperm(5)])) < 1e-24


def test_real_images_get_no_gradient(make_method, make_net):
    real, syn = randn(2, 4, 1, 8, 8).requires_grad_(), randn(2, 2, 1, 8, 8, seed=1).requires_grad_()
    make_method("dm").loss(make_net().requires_grad_(False), real, syn).backward()
    assert real.grad is None
    assert syn.grad is not None


def test_each_iteration_uses_a_new_network_in_train_mode(monkeypatch, make_method, make_ctx, train_blobs):
    seen, loss = [], DM.loss

    def spy(self, net, real, syn):
        weights = torch.cat([p.flatten() for p in net.parameters()])
        seen.append((net.training, any(p.requires_grad for p in net.parameters()), weights, real.shape))
        return loss(self, net, real, syn)

    monkeypatch.setattr(DM, "loss", spy)
    make_method("dm", iterations=3, batch_real=9).distill(train_blobs, 2, make_ctx())
    assert [(train, grad, shape) for train, grad, _, shape in seen] == [(True, False, (3, 9, 1, 8, 8))] * 3
    assert len({w[0] for w in torch.stack([w for _, _, w, _ in seen])[:, :1].tolist()}) == 3


def test_update_is_sgd_with_momentum(monkeypatch, make_method, make_ctx, train_blobs):
    """The gradient of this loss is 1 at every pixel; three steps add up to lr * (1 + 1.5 + 1.75)."""
    monkeypatch.setattr(DM, "loss", lambda self, net, real, syn: syn.sum())
    syn = (
        make_method("dm", iterations=3, augment="none", lr_img=1.0).distill(train_blobs, 2, make_ctx()).images
    )
    start = initial_images("real", train_blobs, 2, make_ctx()).flatten(0, 1)
    torch.testing.assert_close(syn, start - (1 + 1.5 + 1.75))


def test_class_chunks_give_the_same_set(make_method, make_ctx, train_blobs):
    sets = [
        make_method("dm", class_chunk=chunk).distill(train_blobs, 3, make_ctx(work=str(chunk))).images
        for chunk in (None, 2, 1)
    ]
    for other in sets[1:]:
        torch.testing.assert_close(other, sets[0], rtol=1e-4, atol=1e-6)


def test_logged_loss_is_the_mean_over_classes(make_method, make_ctx, train_blobs, make_architecture):
    ctx, method = make_ctx(), make_method("dm", iterations=1, augment="none", batch_real=17)
    method.distill(train_blobs, 2, ctx)
    other_ctx = make_ctx(work="other_ctx")
    net = other_ctx.network(make_architecture(), 0).requires_grad_(False)
    index = train_blobs.train.draw(17, other_ctx.generator("real", 0))
    real = train_blobs.train.inputs(index.flatten()).view(3, 17, 1, 8, 8)
    expected = method.loss(net, real, initial_images("real", train_blobs, 2, other_ctx)) / 3
    assert ctx.rows.losses == pytest.approx([float(expected)], rel=1e-5)


def test_distillation_decreases_the_distance_of_means(make_method, make_ctx, make_net, train_blobs):
    method = make_method("dm", iterations=30, batch_real=17)
    net = make_net(width=32).float()
    real = torch.stack([train_blobs.train.inputs(train_blobs.train.of_class(c)[:17]) for c in range(3)])
    losses = []
    for work, m in (("start", make_method("dm", iterations=0)), ("end", method)):
        syn = m.distill(train_blobs, 1, make_ctx(work=work)).images.view(3, 1, 1, 8, 8)
        losses.append(float(method.loss(net, real, syn).detach()))
    assert losses[1] < 0.6 * losses[0]


def test_check_dataset(make_method, make_architecture, train_blobs):
    mlp = make_architecture(MLP, width=8, depth=1)
    assert make_method("dm").check_dataset(train_blobs, 2, mlp) is None
    assert "which MLP does not have. Use method.norm=null" in make_method(
        "dm", norm="batchnorm"
    ).check_dataset(train_blobs, 2, mlp)
    reason = make_method("dm").check_dataset(train_blobs, 18, make_architecture())
    assert reason == (
        "ipc=18 exceeds the size of class 'b' of blobs (17 images), and init=real samples without replacement. "
        "Use method.init=noise or ipc<=17"
    )
    assert make_method("dm", init="noise").check_dataset(train_blobs, 18, make_architecture()) is None
