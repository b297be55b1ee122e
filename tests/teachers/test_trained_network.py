"""The training shared by feature networks, teachers, experts and references: seeds, resume, keys and files."""

import dataclasses

import pytest
import torch

from dd_bench.data.preprocess import Normalise
from dd_bench.runtime.cache import Cache
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.runtime.seeding import seed_for
from dd_bench.teachers.trained_network import (
    RealTraining,
    cache_entry,
    checkpoint_in,
    load_weights,
    reading_entry,
    save_weights,
    trained_network,
)
from dd_bench.training.batches import fetch_from, fetch_split
from dd_bench.training.loop import train

CPU = torch.device("cpu")
DIVERGED = {"title": "teacher 1", "epoch": 3, "knob": "method.teacher.lr", "lr": 0.5}


@pytest.fixture
def make_training(train_blobs, make_architecture, recipe, runtime):
    def make(real=train_blobs, architecture=None, rt=runtime, **values):
        architecture = architecture or make_architecture(norm="batchnorm")
        return RealTraining(real, architecture, recipe(**{"epochs": 3, "milestones": (2,)} | values), rt)

    return make


def equal(a, b):
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def plain(training, seed, fetch, n):
    """The same training, without the tested module."""
    net = training.architecture.fresh(seed_for(seed, "init"), CPU)
    options = {"seed": seed_for(seed, "train"), "runtime": training.runtime, "flip": training.real.flip}
    return train(net, fetch, n, training.recipe, **options)


class TestTraining:
    def test_seeds_are_the_streams_init_and_train(self, make_training, tmp_path):
        training, seen = make_training(), []
        split = training.real.train
        net, seconds = trained_network(
            training, 7, checkpoint_in(tmp_path), on_epoch=lambda epoch, net: seen.append((epoch, id(net)))
        )
        assert equal(net, plain(training, 7, fetch_split(split), len(split))) and seconds == 0
        assert seen == [(epoch, id(net)) for epoch in (1, 2, 3)]
        assert equal(training.untrained(7), training.architecture.fresh(seed_for(7, "init"), CPU))

    def test_training_on_given_images(self, make_training):
        training = make_training()
        images, labels = training.real.train.inputs(torch.arange(9)), training.real.train.labels[:9]
        net, _ = trained_network(training, 7, None, data=(images, labels))
        assert equal(net, plain(training, 7, fetch_from(images, labels), 9))

    @pytest.mark.parametrize("killed_in", [1, 2, 3])
    def test_killed_and_resumed_network_is_the_same(self, make_training, tmp_path, killed_in):
        training, path = make_training(augment="color_crop", cutmix=0.5), checkpoint_in(tmp_path)
        uninterrupted, _ = trained_network(training, 7, None)

        def kill(epoch, net):
            if epoch == killed_in:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            trained_network(training, 7, path, on_epoch=kill)
        epochs = []
        net, seconds = trained_network(training, 7, path, on_epoch=lambda epoch, _: epochs.append(epoch))
        assert equal(net, uninterrupted) and epochs == list(range(killed_in, 4))
        assert (seconds > 0) == (killed_in > 1), "there is no checkpoint before the end of the first epoch"

    def test_networks_share_the_cost_of_compilation(self, make_training, train_blobs, runtime):
        samples = 3 * len(train_blobs.train) * 64 / 28**2  # three epochs, counted as images of 28 x 28
        training = make_training(rt=dataclasses.replace(runtime, compile_after=int(2 * samples)))
        assert (training.compiles(), training.compiles(2), training.compiles(2, n=9)) == (False, True, False)

    def test_epochs_of_a_recipe_with_steps(self, make_training):
        assert make_training().epochs == 3
        assert make_training(epochs=1, steps=5, milestones=()).epochs == 3, "59 images are two batches of 32"


def test_identity_contains_everything_the_weights_depend_on(
    make_training, make_blobs, make_architecture, train_blobs, runtime
):
    variants = [
        make_training(),
        make_training(real=make_blobs(seed=1)),
        make_training(real=make_blobs(counts=(20, 17, 21))),
        make_training(real=make_blobs(flip=True)),
        make_training(real=dataclasses.replace(train_blobs, preprocess=Normalise([0.4], [0.3]))),
        make_training(architecture=make_architecture(width=4)),
        make_training(lr=0.02),
        make_training(rt=dataclasses.replace(runtime, precision="bf16")),
        make_training(rt=dataclasses.replace(runtime, device=torch.device("meta"))),
    ]
    identities = [training.identity() for training in variants]
    assert all(a != b for i, a in enumerate(identities) for b in identities[:i])
    assert make_training(rt=dataclasses.replace(runtime, workers=2)).identity() == identities[0]
    assert make_training(real=make_blobs()).identity() == identities[0], "the test split must not matter"


class TestEntry:
    def test_checkpoints_are_removed_when_complete(self, tmp_path):
        cache = Cache(tmp_path)

        def build(folder, fails):
            checkpoint_in(folder).write_bytes(b"x")
            checkpoint_in(folder, "expert0").write_bytes(b"x")
            (folder / "result").write_bytes(b"x")
            if fails:
                raise KeyboardInterrupt
            return 0.0

        with pytest.raises(KeyboardInterrupt):
            cache_entry(cache, "kind", {}, lambda folder: build(folder, True))
        (partial,) = tmp_path.glob("*.partial")
        assert len(list(partial.glob("*.checkpoint.safetensors"))) == 2
        entry = cache_entry(cache, "kind", {}, lambda folder: build(folder, False))
        assert sorted(p.name for p in entry.iterdir()) == ["entry.json", "result"]

    @pytest.mark.parametrize("error", [OSError("x"), KeyError("x"), ValueError("x"), TypeError("x")])
    def test_error_of_a_damaged_entry(self, tmp_path, error):
        line = rf"cache entry {tmp_path} is damaged \(.*x.*\)\. Delete it and run the command again: rm -r {tmp_path}$"
        with pytest.raises(ValueError, match=line), reading_entry(tmp_path):
            raise error


class TestWeights:
    def test_save_and_load(self, make_training, tmp_path):
        net, path = make_training().untrained(0), tmp_path / "network.safetensors"
        save_weights(net.to(memory_format=torch.channels_last), path, **DIVERGED)
        assert [p.name for p in tmp_path.iterdir()] == [path.name]
        loaded = load_weights(make_training().untrained(1), path)
        assert equal(loaded, net) and not loaded.training

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf])
    def test_non_finite_values(self, make_training, tmp_path, bad):
        net = make_training().untrained(0)
        dict(net.named_buffers())["blocks.0.1.running_var"][0] = bad
        message = (
            r"teacher 1 are not finite after epoch 3 with method\.teacher\.lr=0\.5\. Use a smaller value$"
        )
        with pytest.raises(Diverged, match=message):
            save_weights(net, tmp_path / "network.safetensors", **DIVERGED)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("damage", ["missing", "cut", "another network"])
    def test_damaged_file(self, make_training, make_architecture, tmp_path, damage):
        path = tmp_path / "network.safetensors"
        if damage == "another network":
            save_weights(make_architecture(width=4).fresh(0, CPU), path, **DIVERGED)
        elif damage == "cut":
            save_weights(make_training().untrained(0), path, **DIVERGED)
            path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ValueError, match=rf"(?s)entry {tmp_path} is damaged .*: rm -r {tmp_path}$"):
            load_weights(make_training().untrained(0), path)
