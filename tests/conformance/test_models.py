"""Conformance of every `conf/model/*.yaml` of image networks."""

import copy
import inspect
from functools import lru_cache
from importlib.resources import files
from pathlib import Path

import hydra
import pytest
import torch

from dd_bench.models.network import Network, batch_coupled, check_map_size
from dd_bench.records.config_diff import shipped_target, shipped_yaml
from dd_bench.runtime.seeding import seeded

ALL_FILES = sorted(Path(str(files("dd_bench.conf") / "model")).glob("*.yaml"))
FILES = [  # image networks; graph networks are in test_gnn.py
    file
    for file in ALL_FILES
    if hydra.utils.get_class(shipped_target("model", file.stem)).modality == "image"
]
SHAPES = [(1, 28, 28), (3, 32, 32)]

# the scope makes pytest run all tests of a network one after another, so that `built` stores few networks
each_file = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem, scope="module")
each_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def build(file, shape, seed):
    with seeded("cpu", seed):
        return hydra.utils.instantiate(shipped_yaml("model", file.stem))(shape, 7)


built = lru_cache(maxsize=4)(build)


def make(file, shape, seed=0):
    """Return a copy, because to draw the weights of a large network takes longer than most tests."""
    return copy.deepcopy(built(file, shape, seed))


def test_shipped_models():
    names = (
        "alexnet convnet efficientnet_b0 lenet mlp mobilenet_v2 resnet18 resnet18_ap resnet18_bn shufflenet_v2 timm "
        "torchvision vgg11 vit"
    )
    assert {file.stem for file in FILES} >= set(names.split())


@each_file
def test_keys_are_the_arguments_of_the_network(file):
    assert file.read_text().startswith("# ")
    config = shipped_yaml("model", file.stem)
    cls = hydra.utils.get_class(config["_target_"])
    assert issubclass(cls, Network)
    assert config["_partial_"] is True
    parameters = inspect.signature(cls.__init__).parameters.values()
    assert [p.name for p in parameters][:3] == ["self", "image_shape", "num_classes"]
    knobs = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert len(knobs) == len(parameters) - 3
    defaults = {name: value for name, value in knobs.items() if value is not inspect.Parameter.empty}
    assert defaults == cls.later_knobs, "only hyper-parameters added to existing networks have a default"
    assert knobs.keys() - defaults.keys() <= set(config) - {"_target_", "_partial_"} <= knobs.keys()


@each_file
@each_shape
def test_network_contract(file, shape):
    net = make(file, shape)
    x = torch.randn(3, *shape)

    with seeded("cpu", 1):
        logits = net(x)
    with seeded("cpu", 1):  # dropout
        maps, embedding = net.activations(x)
    assert net.training
    assert logits.shape == (3, 7)
    assert embedding.ndim == 2
    assert all(m.ndim == 4 and len(m) == 3 for m in maps)
    torch.testing.assert_close(net.classifier(embedding), logits)

    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@each_file
def test_seed_determines_the_weights(file):
    first, other = (make(file, SHAPES[0], seed).state_dict() for seed in (0, 1))
    same = build(file, SHAPES[0], 0).state_dict()
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@each_file
def test_second_derivative_with_respect_to_the_images(file):
    net = make(file, SHAPES[0])
    if file.stem == "timm":
        net.eval()  # in train mode, BatchNorm of two samples with 1x1 maps is +1 or -1 for all images
    x = torch.randn(2, *SHAPES[0], requires_grad=True)
    loss = torch.nn.functional.cross_entropy(net(x), torch.tensor([0, 1]))
    grads = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
    (second,) = torch.autograd.grad(sum(g.square().sum() for g in grads), x)
    assert second.isfinite().all()
    assert second.abs().max() > 0


@each_file
def test_vmap_over_two_networks_equals_a_loop(file):
    nets = [make(file, SHAPES[0], seed).eval() for seed in (0, 1)]
    params, buffers = torch.func.stack_module_state(nets)
    x = torch.randn(2, *SHAPES[0])
    with torch.no_grad():
        mapped = torch.func.vmap(lambda p, b: torch.func.functional_call(nets[0], (p, b), (x,)))(
            params, buffers
        )
        torch.testing.assert_close(mapped, torch.stack([net(x) for net in nets]), atol=1e-4, rtol=1e-4)


@each_file
def test_batch_coupled(file):
    net = make(file, SHAPES[1])
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    x = torch.randn(4, *SHAPES[1])
    with torch.no_grad():
        coupled = not torch.allclose(net(x)[:2], net(x[:2]), atol=1e-3)
    assert coupled == batch_coupled(net)


def test_check_maps():
    check_map_size("Net", (3, 8, 8), (1, 1), "batchnorm", "nothing")
    check_map_size("Net", (3, 8, 8), (1, 2), "instancenorm", "nothing")
    for smallest, norm in [((0, 4), "none"), ((-1, -1), "none"), ((1, 1), "instancenorm")]:
        with pytest.raises(ValueError, match="Net reduces 8x8 images"):
            check_map_size("Net", (3, 8, 8), smallest, norm, "another")
