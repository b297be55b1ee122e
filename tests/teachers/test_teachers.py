"""Teachers: cached training, weights of early epochs, logits matched by class names, resume after a kill."""

import dataclasses
import json
from dataclasses import replace

import pytest
import timm
import torch

from dd_bench.data.preprocess import Normalise
from dd_bench.models.architecture import Architecture
from dd_bench.models.network import executed_norms
from dd_bench.models.timm_adapter import TimmNet
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.seeding import seed_for
from dd_bench.teachers.teacher_spec import TeacherConfig, TeacherSpec
from dd_bench.teachers.teachers import frozen_teacher, teacher_of
from dd_bench.training.batches import fetch_split
from dd_bench.training.loop import train
from dd_bench.training.scoring import accuracy

CPU = torch.device("cpu")


@pytest.fixture
def squeeze(make_teacher, make_blobs, runtime, tmp_path):
    """Train a teacher on blobs, or load it from the cache `work`."""

    def run(work="cache", real=None, measure=None, **knobs):
        cache = Cache(tmp_path / work)
        return teacher_of(make_teacher(**knobs), real or make_blobs().train_only(), cache, runtime, measure)

    return run


def weights(teacher):
    return torch.cat([v.flatten().double() for v in teacher.net.state_dict().values()])


def test_training_is_a_plain_training(squeeze, make_teacher, make_blobs, runtime):
    spec, real, seed = make_teacher(), make_blobs(), seed_for(0, "squeeze", "tiny")
    net = spec.architecture.fresh(seed_for(seed, "init"), CPU)
    options = {"seed": seed_for(seed, "train"), "runtime": runtime, "flip": real.flip}
    train(net, fetch_split(real.train), len(real.train), spec.config.recipe, **options)
    state = squeeze().net.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def test_teacher_is_trained_once_and_frozen(squeeze, monkeypatch):
    first = squeeze()
    monkeypatch.setattr(
        "dd_bench.teachers.trained_network.train", lambda *a, **k: pytest.fail("trained again")
    )
    again = squeeze()
    assert torch.equal(weights(first), weights(again)) and first.digest == again.digest
    assert not again.net.training and not any(p.requires_grad for p in again.net.parameters())


def test_early_epochs_of_one_training(squeeze):
    """One training saves the weights of several epochs; `epoch` is not part of the cache key."""
    early, last = squeeze(keep=(1, 2), epoch=1), squeeze(keep=(1, 2))
    alone = squeeze("alone", epochs=1)
    assert not torch.equal(weights(early), weights(last))
    assert torch.equal(weights(early), weights(alone)), (
        "with a constant learning rate, epoch 1 is a training of one epoch"
    )


def test_epoch_with_a_given_validation_accuracy(squeeze, make_teacher, make_blobs, runtime):
    """The epoch is chosen on validation images; test images are not used."""
    real = replace(make_blobs(), _test=None)
    assert real.val is None
    with pytest.raises(
        ValueError, match=r"requires a validation split, got none. Use dataset\.val_fraction=0\.1"
    ):
        squeeze(keep=(1, 2), epoch="accuracy~0.5")
    real = replace(real, val=real.train)
    each = {e: squeeze(keep=(1, 2), epoch=e, real=real) for e in (1, 2, None)}
    scores = {e: accuracy(t.net, real.val.batches(500), runtime) for e, t in each.items()}
    assert scores[1] != scores[2]
    for epoch in (1, 2):
        stopped = squeeze(keep=(1, 2), epoch=f"accuracy~{scores[epoch]:.4f}", real=real)
        assert stopped.digest == each[epoch].digest
    one, other = (make_teacher(keep=keep, epoch="accuracy~0.5").describe() for keep in ((1,), (1, 2)))
    assert one != other, "the choice depends on the saved epochs"


def test_recipe_with_steps(squeeze, make_teacher, make_blobs, runtime, tmp_path):
    """The weights are those after the last step, and not those after the first epoch."""
    spec, real = make_teacher(), make_blobs()
    n = len(real.train)
    recipe = spec.config.recipe.model_copy(update={"epochs": 1, "steps": 5, "batch_size": 32})
    epochs = recipe.with_epochs(n).epochs
    assert epochs > 1
    config = spec.config.model_copy(update={"recipe": recipe, "keep": (1,)})
    found = [
        teacher_of(replace(spec, config=c), real.train_only(), Cache(tmp_path / "cache"), runtime, None)
        for c in (config, config.model_copy(update={"epoch": 1}))
    ]
    net = spec.architecture.fresh(seed_for(seed_for(0, "squeeze", "tiny"), "init"), CPU)
    options = {
        "seed": seed_for(seed_for(0, "squeeze", "tiny"), "train"),
        "runtime": runtime,
        "flip": real.flip,
    }
    train(net, fetch_split(real.train), n, recipe, **options)
    state = found[0].net.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert not torch.equal(weights(found[0]), weights(found[1]))


def test_card(squeeze, make_blobs, tmp_path, runtime):
    real = make_blobs()
    measured = []

    def measure(net):
        measured.append(accuracy(net, real.test.batches(1000), runtime))
        return measured[-1]

    teacher = squeeze(measure=measure, keep=(2,), real=real.train_only())
    (path,) = tmp_path.glob("cache/squeeze-*/teacher.json")
    card = json.loads(path.read_text())
    assert card["class_names"] == list("abc") and card["preprocess"]["kind"] == "normalise"
    assert card["accuracy"] == {"2": measured[0], "3": measured[1]} and teacher.accuracy == measured[1]
    assert card["norms"] == list(teacher.norms) and len(teacher.norms) == 2
    assert card["recipe"]["epochs"] == 3


def test_logits_with_running_and_with_batch_statistics(squeeze):
    teacher, x = squeeze(), torch.randn(6, 1, 8, 8)
    before = {k: v.clone() for k, v in teacher.net.named_buffers()}
    alone = torch.cat([teacher.logits(part) for part in x.split(1)])
    assert torch.allclose(teacher.logits(x), alone, atol=1e-5)
    by_batch = teacher.logits(x, "train")
    assert not torch.allclose(by_batch, alone, atol=1e-2)
    teacher.net.train()
    assert torch.allclose(teacher.net(x), by_batch, atol=1e-5)
    teacher.net.eval()
    fresh = squeeze()
    fresh.logits(x, "train")
    assert all(torch.equal(v, before[k]) for k, v in fresh.net.named_buffers()), (
        "running statistics must not change"
    )
    assert not fresh.net.training


def test_killed_and_resumed_has_the_same_bytes(squeeze, make_blobs, monkeypatch, tmp_path):
    uninterrupted = squeeze("uninterrupted", keep=(1,))
    real = make_blobs().train_only()
    calls = []

    def fetch(split):
        plain = fetch_split(split)

        def one(index):
            calls.append(0)
            if len(calls) == 4:  # in the second epoch of two batches
                raise KeyboardInterrupt
            return plain(index)

        return one

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr("dd_bench.teachers.trained_network.fetch_split", fetch)
        squeeze("killed", keep=(1,), real=real)
    again = squeeze("killed", keep=(1,))
    assert again.digest == uninterrupted.digest
    names = {p.name for p in next((tmp_path / "killed").glob("squeeze-*[0-9a-f]")).iterdir()}
    assert names == {"network.safetensors", "epoch1.safetensors", "teacher.json", "entry.json"}


class TestClasses:
    def test_columns_follow_names(self, squeeze, make_blobs):
        """The classes of the dataset have another order than those of the teacher."""
        teacher = squeeze()
        real = dataclasses.replace(make_blobs(), class_names=("c", "a", "b"))
        other = frozen_teacher("tiny", teacher.net, ("a", "b", "c"), None, real, _runtime(teacher))
        x = torch.randn(4, 1, 8, 8)
        assert torch.equal(other.logits(x), teacher.logits(x)[:, [2, 0, 1]])

    def test_missing_class_is_rejected(self, squeeze, make_blobs):
        teacher = squeeze()
        real = dataclasses.replace(make_blobs(), class_names=("a", "b", "zebra"))
        with pytest.raises(
            ValueError, match=r"has no logit for class 'zebra' of blobs. Its classes are a, b, c; the dataset"
        ):
            frozen_teacher("tiny", teacher.net, ("a", "b", "c"), None, real, _runtime(teacher))


def _runtime(teacher):
    return Runtime(CPU, "bf16" if teacher.autocast else "fp32", None, 1, 0)


class TestPretrained:
    """Pretrained weights, loaded from a file instead of a download."""

    @pytest.fixture
    def spec(self, tmp_path):
        torch.manual_seed(0)
        network = timm.create_model("resnet10t", num_classes=1000)
        path = tmp_path / "weights.pth"
        torch.save(network.state_dict(), path)
        knobs = {
            "name": "resnet10t",
            "pretrained": True,
            "drop_rate": 0.0,
            "options": {"pretrained_cfg_overlay": {"file": str(path), "num_classes": 1000}},
        }
        architecture = Architecture(TimmNet, knobs, (3, 32, 32), 2, "timm")
        config = TeacherConfig(weights="pretrained", classes="imagenet", keep=(), epoch=None, recipe=None)
        return TeacherSpec("imagenet", architecture, config), network.eval()

    def test_logits_are_selected_by_wordnet_id(self, spec, make_blobs, runtime, tmp_path):
        spec, network = spec
        names = spec.logit_names()
        assert len(names) == 1000 and names[:2] == ("n01440764", "n01443537")  # tench, goldfish
        real = make_blobs(counts=(4, 4), shape=(3, 32, 32))
        normalise = Normalise([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        real = dataclasses.replace(real, class_names=("n01443537", "n01440764"), preprocess=normalise)
        teacher = teacher_of(spec, real, Cache(tmp_path / "cache"), runtime, None)
        x = torch.randn(2, 3, 32, 32)
        with torch.no_grad():
            assert torch.allclose(teacher.logits(x), network(x)[:, [1, 0]], atol=1e-4)

    def test_another_preprocessing_is_rejected(self, spec, make_blobs, runtime, tmp_path):
        real = make_blobs(counts=(4, 4), shape=(3, 32, 32))
        with pytest.raises(
            ValueError, match=r"preprocessing of blobs must be that of teacher .*0\.485.*, got .*0\.5"
        ):
            teacher_of(spec[0], real, Cache(tmp_path / "cache"), runtime, None)

    def test_list_of_classes_requires_a_normalisation(self, spec, make_blobs, runtime, tmp_path):
        spec, _ = spec
        config = spec.config.model_copy(update={"classes": tuple(spec.logit_names())})
        with pytest.raises(
            ValueError,
            match=r"imagenet\.mean and .* got None and None. Example: '\+teachers\.imagenet\.mean=",
        ):
            dataclasses.replace(spec, config=config)
        half = config.model_copy(update={"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)})
        complete = dataclasses.replace(spec, config=half)
        real = make_blobs(counts=(4, 4), shape=(3, 32, 32))
        real = dataclasses.replace(real, class_names=("n01443537", "n01440764"))
        with pytest.raises(ValueError, match=r"must be that of teacher .*0\.2, .*, got"):
            teacher_of(complete, real, Cache(tmp_path / "cache"), runtime, None)
        real = dataclasses.replace(real, preprocess=Normalise(half.mean, half.std))
        assert (
            teacher_of(complete, real, Cache(tmp_path / "cache"), runtime, None).class_names
            == real.class_names
        )
        assert complete.describe()["mean"] == [0.5, 0.5, 0.5] and "mean" not in spec.describe()

    def test_mean_and_std_of_different_length(self, spec):
        config = spec[0].config.model_copy(update={"mean": (0.5, 0.5, 0.5), "std": (0.5,)})
        with pytest.raises(ValueError, match=r"teachers\.imagenet\.mean and .*std: .*one value per channel"):
            dataclasses.replace(spec[0], config=config)

    def test_classes_are_required(self, spec):
        unnamed = spec[0].config.model_copy(update={"classes": None})
        with pytest.raises(
            ValueError, match=r"teachers\.imagenet\.classes must give the class name of each logit, got null"
        ):
            dataclasses.replace(spec[0], config=unnamed).logit_names()


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"epoch": 9}, r"epoch must be at most teachers\.tiny\.recipe\.epochs=3, got 9"),
        ({"epoch": 2}, r"epoch must be null or one of .*, got 2. Use teachers\.tiny\.keep=\[2\]"),
    ],
)
def test_inconsistent_configuration_is_rejected(make_teacher, knobs, message):
    with pytest.raises(ValueError, match=message):
        make_teacher(**knobs)


def test_mean_and_std_are_only_for_pretrained_weights(make_teacher):
    spec = make_teacher()
    config = spec.config.model_copy(update={"mean": (0.5,), "std": (0.5,)})
    with pytest.raises(
        ValueError, match=r"teachers\.tiny\.mean and teachers\.tiny\.std must be null with weights=squeeze"
    ):
        dataclasses.replace(spec, config=config)


def test_keep_is_not_part_of_the_identity(squeeze, make_teacher, tmp_path):
    """Existing teachers are found with another `keep`. A missing epoch is an error that lists the saved epochs."""
    assert make_teacher(keep=(1,)).describe() == make_teacher().describe()
    squeeze(keep=(1, 77))
    entry = next(tmp_path.glob("*/squeeze-*[0-9a-f]"))
    assert {p.name for p in entry.glob("epoch*")} == {"epoch1.safetensors"}, "epoch 77 is after the last"
    assert json.loads((entry / "teacher.json").read_text())["keep"] == [1]
    assert squeeze(keep=(2,)).digest and len(list(tmp_path.glob("*/squeeze-*[0-9a-f]"))) == 1
    with pytest.raises(ValueError, match=r"must be one of the epochs saved in .*, \[1\], got 2. Use .*rm -r"):
        squeeze(keep=(2,), epoch=2)


def test_error_of_a_damaged_teacher(squeeze, tmp_path):
    squeeze()
    (path,) = tmp_path.glob("cache/squeeze-*/network.safetensors")
    path.write_bytes(b"no")
    with pytest.raises(ValueError, match=r"is damaged .* rm -r"):
        squeeze()


def test_name_changes_the_network(squeeze):
    """The name seeds the training, so it is part of the cache key."""
    assert squeeze(name="one").digest != squeeze(name="two").digest == squeeze("alone", name="two").digest


def test_train_mode_does_not_enable_dropout(squeeze):
    """Dropout would draw from an unseeded generator."""
    teacher, x = squeeze(), torch.randn(6, 1, 8, 8)
    teacher.net.classifier = torch.nn.Sequential(torch.nn.Dropout(0.5), teacher.net.classifier)
    teacher.net.eval()
    assert torch.equal(teacher.logits(x, "train"), teacher.logits(x, "train"))


def test_executed_norms_are_2d():
    """A BatchNorm1d after the pooling has no feature map with statistics to match."""
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Flatten(), torch.nn.BatchNorm1d(108)
    )
    assert executed_norms(net, (1, 8, 8)) == ("1",)
