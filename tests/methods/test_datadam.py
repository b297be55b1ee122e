"""Tests of DataDAM: attention, both loss terms, batched classes and the norm of the distillation network."""

import pytest
import torch

from dd_bench.methods.datadam import DataDAM, spatial_attention
from dd_bench.methods.dm import DM
from dd_bench.models.mlp import MLP
from dd_bench.models.vit import ViT


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_attention(maps, power):
    """Attention computed position by position."""
    n, c, h, w = maps.shape
    out = torch.zeros(n, h * w, dtype=maps.dtype)
    for b in range(n):
        for i in range(h):
            for j in range(w):
                out[b, i * w + j] = sum(abs(maps[b, ch, i, j]) ** power for ch in range(c))
        out[b] = out[b] / out[b].square().sum().sqrt()
    return out


def slow_sam(net, real, syn, power):
    """The attention loss computed layer by layer and class by class, without the last layer."""
    total = 0.0
    for c in range(len(real)):
        real_maps, syn_maps = net.activations(real[c])[0], net.activations(syn[c])[0]
        for layer in range(len(real_maps) - 1):
            a = slow_attention(real_maps[layer], power).mean(0)
            b = slow_attention(syn_maps[layer], power).mean(0)
            total = total + (a - b).square().sum()
    return total


@pytest.mark.parametrize("power", [1.0, 2.0, 4.0])
def test_attention_equals_slow_implementation(power):
    maps = randn(3, 4, 3, 2).relu()
    attention = spatial_attention(maps, power)
    torch.testing.assert_close(attention, slow_attention(maps, power))
    torch.testing.assert_close(attention.norm(dim=1), torch.ones(3, dtype=torch.float64))


def test_power_sharpens_attention():
    maps = randn(5, 4, 6, 6).relu()
    assert float(spatial_attention(maps, 4.0).amax(1).mean()) > float(
        spatial_attention(maps, 1.0).amax(1).mean()
    )


def test_attention_of_a_dead_layer_has_finite_gradient():
    maps = torch.zeros(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    for power in (1.0, 4.0):
        attention = spatial_attention(maps.relu(), power)
        (grad,) = torch.autograd.grad(attention.sum(), maps)
        assert not attention.detach().any()
        assert grad.isfinite().all()


@pytest.mark.parametrize("power", [1.0, 4.0])
@pytest.mark.parametrize("depth", [2, 3])
def test_loss_is_dm_loss_plus_attention(make_method, make_net, power, depth):
    net = make_net(depth=depth, width=4).requires_grad_(False)
    real, syn = randn(2, 5, 1, 8, 8), randn(2, 3, 1, 8, 8, seed=1)
    method = make_method("datadam", power=power, lambda_mmd=0.03, scale=70.0)
    mmd = make_method("dm").loss(net, real, syn)
    sam = slow_sam(net, real, syn, power)
    torch.testing.assert_close(method.loss(net, real, syn), 70 * 0.03 * mmd + 70 * sam)


def test_default_weights_of_the_loss(make_method, make_net):
    net, real, syn = make_net().requires_grad_(False), randn(2, 5, 1, 8, 8), randn(2, 3, 1, 8, 8, seed=1)
    for name, power in (("datadam", 4.0), ("datadam_released", 1.0)):
        expected = make_method("dm").loss(net, real, syn) + 100 * slow_sam(net, real, syn, power)
        torch.testing.assert_close(make_method(name).loss(net, real, syn), expected)


def test_last_activation_is_left_out(make_method, make_net):
    """With one layer there is therefore no attention term."""
    net, real, syn = (
        make_net(depth=1).requires_grad_(False),
        randn(2, 5, 1, 8, 8),
        randn(2, 3, 1, 8, 8, seed=1),
    )
    torch.testing.assert_close(
        make_method("datadam").loss(net, real, syn), make_method("dm").loss(net, real, syn)
    )


def batched_and_looped(method, net, real, syn):
    grads = []
    for parts in ([slice(0, 3)], [slice(c, c + 1) for c in range(3)]):
        x = syn.clone().requires_grad_()
        sum(method.loss(net, real[p], x[p]) for p in parts).backward()
        grads.append(x.grad)
    return grads


@pytest.mark.parametrize("power", [1.0, 4.0])
def test_batched_classes_equal_loop_over_classes_without_batchnorm(make_method, make_net, power):
    method, real, syn = (
        make_method("datadam", power=power),
        randn(3, 5, 1, 8, 8),
        randn(3, 2, 1, 8, 8, seed=1),
    )
    batched, loop = batched_and_looped(method, make_net().requires_grad_(False), real, syn)
    assert float((batched - loop).norm() / loop.norm()) < 1e-12
    batched, loop = batched_and_looped(method, make_net(norm="batchnorm").requires_grad_(False), real, syn)
    assert float((batched - loop).norm() / loop.norm()) > 0.01


def test_image_gradient_against_finite_differences(make_method, make_net):
    net = make_net(activation="swish").requires_grad_(False)
    real, syn = randn(2, 5, 1, 8, 8), randn(2, 2, 1, 8, 8, seed=1).requires_grad_()
    loss = make_method("datadam").loss
    assert torch.autograd.gradcheck(lambda x: loss(net, real, x), (syn,), fast_mode=True)


def test_distance_of_identical_sets_is_zero(make_method, make_net):
    images = randn(3, 5, 1, 8, 8)
    assert (
        float(make_method("datadam").loss(make_net().requires_grad_(False), images, images.flip(1))) < 1e-20
    )


def test_attention_gradient_is_smaller_for_power_one(make_method, make_net):
    """With p=1 the loss is nearly DM's."""
    real, syn = randn(3, 20, 1, 8, 8), randn(3, 2, 1, 8, 8, seed=1)
    net = make_net(depth=3, width=32).requires_grad_(False)
    ratio = {}
    for power in (1.0, 4.0):
        grads = []
        for scale, mmd in ((100.0, 0.0), (1.0, 1.0)):
            x = syn.clone().requires_grad_()
            make_method("datadam", power=power, scale=scale, lambda_mmd=mmd).loss(net, real, x).backward()
            grads.append(x.grad.norm())
        ratio[power] = float(grads[0] / grads[1])
    assert ratio[4.0] > 2 * ratio[1.0]


@pytest.mark.parametrize(("name", "norm"), [("datadam", "GroupNorm"), ("datadam_released", "BatchNorm2d")])
def test_norm_applies_to_distillation_only(
    monkeypatch, make_method, make_ctx, make_architecture, train_blobs, name, norm
):
    seen, loss = [], DataDAM.loss

    def spy(self, net, real, syn):
        seen.append((type(net.blocks[0][1]).__name__, net.training, real.shape[1]))
        return loss(self, net, real, syn)

    monkeypatch.setattr(DataDAM, "loss", spy)
    architecture = make_architecture(norm="none")
    ctx = make_ctx(architecture=architecture)
    make_method(name, iterations=2).distill(train_blobs, 2, ctx)
    assert seen == [(norm, True, 8)] * 2
    assert ctx.architecture is architecture
    assert architecture.knobs["norm"] == "none"


def test_settings_of_both_variants(make_method):
    paper, released = (make_method(n, smoke=False) for n in ("datadam", "datadam_released"))
    assert isinstance(paper, DM)
    assert (paper.power, paper.norm, paper.iterations, paper.batch_real) == (4.0, "instancenorm", 8000, 128)
    assert (released.power, released.norm, released.iterations, released.batch_real) == (
        1.0,
        "batchnorm",
        20000,
        64,
    )


def test_networks_without_attention(make_method, make_architecture, train_blobs):
    mlp = make_architecture(MLP, width=8, depth=1)
    vit = make_architecture(ViT, patch=4, dim=8, depth=1, heads=2, mlp_dim=8, dropout=0.0, emb_dropout=0.0)
    flat = make_architecture(depth=1)
    for architecture in (mlp, vit):
        assert "does not have. Use" in make_method("datadam").check_dataset(train_blobs, 1, architecture)
    for architecture in (mlp, vit, flat):
        reason = make_method("datadam", norm=None).check_dataset(train_blobs, 1, architecture)
        assert reason.startswith("DataDAM requires a network with at least two layers of activation maps")
    assert make_method("datadam").check_dataset(train_blobs, 1, make_architecture()) is None
