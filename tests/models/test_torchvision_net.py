"""torchvision models on small images: size of the last map, replaced classifier, pretrained weights."""

import pytest
import torch
import torchvision

from dd_bench.models.torchvision_net import TorchvisionNet
from dd_bench.runtime.seeding import seeded


def make(name, shape=(3, 32, 32), keep_size=0, weights=None, k=7):
    with seeded("cpu", 0):
        return TorchvisionNet(shape, k, name=name, keep_size=keep_size, weights=weights)


def last_map(net, side=32):
    seen = []
    hooks = [
        m.register_forward_hook(lambda m, _, y: seen.append(tuple(y.shape[2:])))
        for m in net.modules()
        if isinstance(m, torch.nn.BatchNorm2d)
    ]
    net.eval()(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    return seen[-1]


@pytest.mark.parametrize(
    ("name", "keep_size", "size"),
    [
        ("mobilenet_v2", 2, (4, 4)),
        ("shufflenet_v2_x0_5", 2, (4, 4)),
        ("efficientnet_b0", 1, (2, 2)),
        ("resnet18", 2, (4, 4)),
        ("resnet18", 0, (1, 1)),
    ],
)
def test_size_of_the_last_map(name, keep_size, size):
    assert last_map(make(name, keep_size=keep_size)) == size


def test_without_changes_equals_the_torchvision_model():
    net = make("resnet18", (3, 64, 64), k=1000).eval()
    with seeded("cpu", 0):
        theirs = torchvision.models.resnet18().eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(net(x), theirs(x), atol=1e-5)


def test_pretrained_weights_without_a_download(monkeypatch):
    state = torchvision.models.mobilenet_v2().state_dict()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda url, **_: state, raising=True
    )
    net = make("mobilenet_v2", (3, 64, 64), weights="IMAGENET1K_V1", k=1000)
    assert torch.equal(net.classifier.weight, state["classifier.1.weight"])
    assert torch.equal(net.body.features[0][0].weight, state["features.0.0.weight"])


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"name": "resnet19"}, "no model 'resnet19'. Similar names: resnet1"),
        ({"name": "resnet18", "keep_size": 99}, "model.keep_size must be <= 8"),
        (
            {"name": "resnet18", "shape": (1, 28, 28), "weights": "IMAGENET1K_V1"},
            "require images with 3 channels",
        ),
        ({"name": "alexnet"}, "does not accept 32x32 images"),
    ],
)
def test_invalid_arguments(knobs, message):
    with pytest.raises(ValueError, match="Use") as error:
        make(**knobs)
    assert message in str(error.value)
