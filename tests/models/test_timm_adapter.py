import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file

from dd_bench.models.architecture import Architecture
from dd_bench.models.network import batch_coupled
from dd_bench.models.timm_adapter import TimmNet
from dd_bench.runtime.seeding import seeded


def make(name, shape=(3, 32, 32), drop_rate=0.0, **options):
    return TimmNet(shape, 5, name=name, pretrained=False, drop_rate=drop_rate, options=options)


@pytest.mark.parametrize(
    ("name", "shape", "options", "maps"),
    [
        ("resnet10t", (3, 32, 32), {}, [(512, 1, 1)]),
        ("mobilenetv3_small_050", (1, 28, 28), {}, [(288, 1, 1)]),
        ("convnext_atto", (1, 64, 64), {}, [(320, 2, 2)]),
        ("vit_tiny_patch16_224", (1, 28, 28), {"patch_size": 4, "depth": 1}, []),
        ("swin_tiny_patch4_window7_224", (3, 64, 64), {"depths": (1, 1, 1, 1)}, [(768, 2, 2)]),
    ],
)
def test_equals_the_timm_model(name, shape, options, maps):
    with seeded("cpu", 0):
        net = make(name, shape, **options).eval()
    size = {"img_size": shape[1:]} if name.startswith(("vit", "swin")) else {}
    with seeded("cpu", 0):
        theirs = timm.create_model(name, num_classes=5, in_chans=shape[0], **size, **options).eval()
    x = torch.randn(2, *shape)
    with torch.no_grad():
        got, embedding = net.activations(x)
        assert [tuple(m.shape[1:]) for m in got] == maps
        assert embedding.shape == (2, net.classifier.in_features)
        torch.testing.assert_close(net(x), theirs(x))
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert batch_coupled(net) == name.startswith(("resnet", "mobilenet"))


def test_is_built_in_train_mode_with_initial_running_statistics():
    net = make("resnet10t")
    assert net.training
    assert all(m.num_batches_tracked == 0 for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_unknown_name_suggests_similar_names():
    with pytest.raises(ValueError, match=r"timm has no model 'resnet_18'.*resnet18"):
        make("resnet_18")


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("vit_tiny_patch16_224", (1, 28, 28), "the patch size 16x16 .* does not divide 28x28 images"),
        ("inception_v3", (3, 32, 32), "does not accept 32x32 images"),
        ("deit_tiny_distilled_patch16_224", (3, 32, 32), "must end in one linear layer, got a tuple"),
    ],
)
def test_invalid_arguments(name, shape, message):
    with pytest.raises(ValueError, match=message), seeded("cpu", 0):
        make(name, shape)


def test_weights_from_a_file(tmp_path):
    """The file is loaded as timm loads a download; keys contain the hash of its content, not its path."""
    options = {"name": "test_vit2.r160_in1k", "drop_rate": 0.0, "options": {}}
    source = TimmNet((3, 64, 64), 5, pretrained=False, **options)
    paths = [tmp_path / name for name in ("a.safetensors", "b.safetensors")]
    for path in paths:
        save_file({k: v.contiguous() for k, v in source.body.state_dict().items()}, path)
    a, b = (
        Architecture(TimmNet, {**options, "pretrained": True, "file": str(path)}, (3, 64, 64), 5, "timm")
        for path in paths
    )
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(a.fresh(3, torch.device("cpu")).eval().embed(x), source.eval().embed(x))
    assert a.describe() == b.describe() and len(a.describe()["file"]) == 64
    plain = Architecture(TimmNet, {**options, "pretrained": False, "file": None}, (3, 64, 64), 5, "timm")
    assert "file" not in plain.describe(), "keys of earlier results do not change"


def test_errors_of_pretrained_weights(monkeypatch):
    options = {"name": "test_vit2.r160_in1k", "drop_rate": 0.0, "options": {}}
    with pytest.raises(ValueError, match=r"used only with pretrained=true.*Use model\.pretrained=true"):
        TimmNet((3, 64, 64), 5, pretrained=False, file="weights.safetensors", **options)
    with pytest.raises(FileNotFoundError, match=r"does not exist: missing.safetensors. Use model\.file=PATH"):
        TimmNet((3, 64, 64), 5, pretrained=True, file="missing.safetensors", **options)

    def offline(*args, **kwargs):
        raise LocalEntryNotFoundError("no internet")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(
        OSError, match=r"hf download timm/test_vit2.r160_in1k model.safetensors.*model\.file="
    ):
        TimmNet((3, 64, 64), 5, pretrained=True, **options)
