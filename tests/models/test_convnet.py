import itertools

import pytest
import torch
from torch.func import functional_call, grad, stack_module_state, vmap

from dd_bench.models.convnet import ConvNet, default_depth
from dd_bench.models.network import batch_coupled, num_parameters
from dd_bench.runtime.seeding import seeded

PAPER = {"depth": None, "width": 128, "norm": "instancenorm", "activation": "relu", "pooling": "avg"}
NORMS = ["none", "batchnorm", "layernorm", "instancenorm", "groupnorm"]


def make(shape=(3, 32, 32), num_classes=10, seed=0, **knobs):
    with seeded("cpu", seed):
        return ConvNet(shape, num_classes, **{**PAPER, **knobs})


@pytest.mark.parametrize(
    ("shape", "num_classes", "expected"),
    [
        ((3, 32, 32), 10, 320_010),
        ((1, 28, 28), 10, 317_706),
        ((3, 32, 32), 100, 504_420),
        ((3, 64, 64), 200, 857_160),
        ((3, 128, 128), 10, 615_690),
    ],
)
def test_number_of_parameters_is_that_of_the_papers(shape, num_classes, expected):
    assert num_parameters(make(shape, num_classes)) == expected


@pytest.mark.parametrize(
    ("side", "depth"), [(8, 3), (28, 3), (32, 3), (33, 4), (64, 4), (65, 5), (128, 5), (129, 6), (256, 6)]
)
def test_default_depth_depends_on_the_smaller_side(side, depth):
    assert default_depth((3, side, 2 * side)) == depth
    assert len(make((3, side, 2 * side), width=4).blocks) == depth


def test_maps_are_taken_before_pooling_and_the_embedding_after():
    net = make((1, 28, 28), width=8)
    x = torch.randn(2, 1, 28, 28)
    maps, embedding = net.activations(x)
    assert [m.shape[1:] for m in maps] == [(8, 32, 32), (8, 16, 16), (8, 8, 8)]
    assert all(m.min() == 0 for m in maps)
    torch.testing.assert_close(embedding, torch.nn.functional.avg_pool2d(maps[-1], 2).flatten(1))
    torch.testing.assert_close(net.classifier(net.embed(x)), net(x))


def test_8x8_images_pass_three_blocks():
    maps, embedding = make((1, 8, 8), width=8).activations(torch.randn(2, 1, 8, 8))
    assert [m.shape[-1] for m in maps] == [12, 6, 3]
    assert embedding.shape == (2, 8)


@pytest.mark.parametrize("widths", [[32], [64, 128, 256]], ids=str)
@pytest.mark.slow
def test_all_720_networks_of_the_architecture_search_run(widths):
    depths, activations, poolings = [1, 2, 3, 4], ["sigmoid", "relu", "leakyrelu"], ["none", "max", "avg"]
    choices = list(itertools.product(widths, depths, NORMS, activations, poolings))
    assert len(choices) == 180 * len(widths)
    with torch.device("meta"):
        x = torch.empty(2, 3, 32, 32)
        for width, depth, norm, activation, pooling in choices:
            knobs = {
                "depth": depth,
                "width": width,
                "norm": norm,
                "activation": activation,
                "pooling": pooling,
            }
            assert ConvNet((3, 32, 32), 10, **knobs)(x).shape == (2, 10)


@pytest.mark.parametrize("norm", NORMS)
def test_only_batchnorm_couples_the_samples(norm):
    net = make((1, 12, 12), width=8, norm=norm)
    x = torch.randn(4, 1, 12, 12)
    together, alone = net(x), torch.cat([net(x[i : i + 1]) for i in range(4)])
    coupled = not torch.allclose(together, alone, atol=1e-5)
    assert coupled == batch_coupled(net) == (norm == "batchnorm")


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_vmap_over_networks_equals_a_loop(norm, pooling):
    nets = [make((1, 8, 8), 3, seed=i, width=8, norm=norm, pooling=pooling) for i in range(3)]
    params, buffers = stack_module_state(nets)
    x, y = torch.randn(5, 1, 8, 8), torch.tensor([0, 1, 2, 0, 1])

    def loss(params, buffers):
        return torch.nn.functional.cross_entropy(functional_call(nets[0], (params, buffers), (x,)), y)

    mapped = vmap(grad(loss))(params, buffers)
    for i, net in enumerate(nets):
        own = {name: p.detach() for name, p in net.named_parameters()}
        looped = grad(loss)(own, {name: b.clone() for name, b in net.named_buffers()})
        for name, value in looped.items():
            torch.testing.assert_close(mapped[name][i], value, atol=1e-5, rtol=1e-4)


def test_instancenorm_is_invariant_to_shift_and_scale_of_a_map():
    norm = make().blocks[0][1]
    x = torch.randn(2, 128, 5, 5)
    y = norm(3 * x + 7)
    torch.testing.assert_close(y.mean((2, 3)), torch.zeros(2, 128), atol=1e-5, rtol=0)
    torch.testing.assert_close(y, norm(x), atol=1e-4, rtol=0)


def test_leakyrelu_has_slope_one_hundredth():
    assert make(activation="leakyrelu").blocks[0][2](torch.tensor(-1.0)) == pytest.approx(-0.01)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"norm": "batch"}, "model.norm must be one of none, batchnorm, .*, got batch"),
        ({"activation": "gelu"}, "model.activation must be one of .*, got gelu"),
        ({"pooling": "sum"}, "model.pooling must be one of .*, got sum"),
        ({"depth": 0}, "model.depth must be >= 1, got 0"),
        (
            {"depth": 4, "shape": (3, 8, 8), "norm": "none"},
            "reduces 8x8 images to an empty map. Use model.depth=3",
        ),
        (
            {"depth": 4, "shape": (3, 8, 8)},
            "reduces 8x8 images to one value per channel, .* Use model.depth=3",
        ),
        ({"width": 6, "norm": "groupnorm"}, "requires a multiple of 4 channels, got 6"),
        ({"shape": (3, 1, 1), "pooling": "none"}, "instancenorm makes constant. Use model=mlp"),
    ],
)
def test_invalid_arguments(knobs, message):
    with pytest.raises(ValueError, match=message):
        make(**knobs)
