"""Experts and feature networks: snapshots of plain trainings, cached, and resumed after a kill."""

import dataclasses
import hashlib
import json
import resource
import shutil
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

import dd_bench.teachers.experts
from dd_bench.data.preprocess import Normalise
from dd_bench.methods._trajectory.gradient_rules import GSAM, ExpertGradient, GradientPenalty
from dd_bench.models.vit import ViT
from dd_bench.runtime import cache, checkpoint
from dd_bench.runtime.checkpoint import CheckpointError
from dd_bench.runtime.outer_loop import Diverged
from dd_bench.runtime.seeding import seed_for
from dd_bench.teachers.expert_buffer import FILE, ExpertBuffer
from dd_bench.teachers.experts import experts
from dd_bench.teachers.feature_networks import feature_network
from dd_bench.teachers.released_experts import check_buffer
from dd_bench.training.batches import fetch_from
from dd_bench.training.loop import train
from dd_bench.training.parameter_vector import flatten

CPU = torch.device("cpu")
DSA = "color_crop_cutout_flip_scale_rotate"
STEPS = 2  # per epoch: 59 images in batches of 32
EPOCHS = 4
FLAT = ExpertGradient(GSAM(rho=0.05, alpha=0.3), (0.5, 1.5), GradientPenalty(weight=0.0, norm="pixel"))
VIT = {"patch": 4, "dim": 16, "depth": 2, "heads": 2, "mlp_dim": 8, "dropout": 0.3, "emb_dropout": 0.3}


class CountingSplit:
    """A training split that counts its batches and raises KeyboardInterrupt at batch `killed_at`."""

    def __init__(self, split, killed_at=None):
        self.split, self.killed_at, self.num_batches = split, killed_at, 0

    def inputs(self, index):
        if self.num_batches == self.killed_at:
            raise KeyboardInterrupt
        self.num_batches += 1
        return self.split.inputs(index)

    def __len__(self):
        return len(self.split)

    def __getattr__(self, name):
        return getattr(self.split, name)


@pytest.fixture
def counting(train_blobs):
    def make(killed_at=None, real=train_blobs):
        return dataclasses.replace(real, train=CountingSplit(real.train, killed_at))

    return make


@pytest.fixture
def make_experts(train_blobs, recipe, make_ctx):
    """Two experts of four epochs, with all epochs stored; `work` is the folder of the cache."""

    def make(
        real=train_blobs, work="cache", *, ctx=None, architecture=None, workers=1, recipe_epochs=5, **changes
    ):
        ctx = ctx or make_ctx(work=work, architecture=architecture, fresh_cache=True)
        ctx.runtime = dataclasses.replace(ctx.runtime, workers=workers)
        settings = {"count": 2, "epochs": tuple(range(EPOCHS + 1)), "dtype": "float32", "gradient_rule": None}
        settings["exact"] = False
        values = {k: changes.pop(k) for k in list(changes) if k not in settings}
        training = recipe(epochs=recipe_epochs, **values)
        return experts(real, ctx.architecture, training, ctx, **settings | changes)

    return make


def sha256(buffer):
    return hashlib.sha256(buffer.path.read_bytes()).hexdigest()


def entries(tmp_path, work="cache"):
    """The complete and the partial entries of the cache `work`."""
    folders = sorted(p for p in (tmp_path / work / "cache").iterdir() if p.is_dir())
    return [p for p in folders if p.suffix != ".partial"], [p for p in folders if p.suffix == ".partial"]


def test_exact_experts_are_trained_in_float32(make_experts, make_ctx):
    """bfloat16 would round away the weight perturbations of flat experts."""
    digests = {}
    for name, autocast, exact in (("fp32", False, False), ("bf16", True, False), ("exact", True, True)):
        ctx = make_ctx(work=name, fresh_cache=True)
        ctx.runtime = dataclasses.replace(ctx.runtime, precision="bf16" if autocast else "fp32")
        digests[name] = sha256(make_experts(ctx=ctx, work=name, exact=exact))
    assert digests["exact"] == digests["fp32"] != digests["bf16"]


@pytest.mark.parametrize(("missing", "started"), [(0, True), (1, False)])
def test_processes_start_with_enough_images(
    make_experts, make_ctx, train_blobs, monkeypatch, missing, started
):
    """The images of all epochs of all experts count. With one image less, one process trains all experts."""
    run_in_processes, calls = dd_bench.teachers.experts.run_in_processes, []
    monkeypatch.setattr(
        dd_bench.teachers.experts,
        "run_in_processes",
        lambda *args: calls.append(args) or run_in_processes(*args),
    )
    images = 2 * EPOCHS * len(train_blobs.train)
    ctx = make_ctx(fresh_cache=True)
    ctx.runtime = dataclasses.replace(ctx.runtime, spread_after=images + missing)
    buffer = make_experts(ctx=ctx, workers=2)
    assert bool(calls) is started
    assert sha256(buffer) == sha256(make_experts(work="one_process"))


class TestSnapshots:
    def test_all_snapshots_differ(self, make_experts):
        """A snapshot is a copy, not a view of a network that is still being trained."""
        buffer = make_experts()
        rows = [buffer.snapshot(i, e, CPU) for i in range(2) for e in range(EPOCHS + 1)]
        assert len({tuple(row.tolist()) for row in rows}) == 2 * (EPOCHS + 1)
        for before, after in pairwise(rows[: EPOCHS + 1]):
            assert 0 < (after - before).norm() < (rows[0] - rows[EPOCHS + 1]).norm()

    def test_epoch_0_is_the_initialisation(self, make_experts, make_architecture):
        buffer = make_experts()
        for i in range(2):
            net = make_architecture().fresh(seed_for(seed_for(0, "expert", i), "init"), CPU)
            assert torch.equal(buffer.snapshot(i, 0, CPU), flatten(net))

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"milestones": (2,), "reset_optimizer": False, "augment": DSA},
            {"optimizer": "adam", "cutmix": 0.5},
            {"gradient_rule": FLAT},
        ],
        ids=["sgd", "augmented", "adam+cutmix", "flat"],
    )
    def test_snapshot_equals_a_training_of_that_many_epochs(
        self, make_experts, make_architecture, train_blobs, recipe, runtime, changes
    ):
        """Compared with a plain training that ends at that epoch."""
        buffer = make_experts(**changes)
        indices = torch.arange(len(train_blobs.train))
        fetch = fetch_from(train_blobs.train.inputs(indices), train_blobs.train.labels)
        options = {
            "runtime": runtime,
            "flip": train_blobs.flip,
            "gradient_rule": changes.get("gradient_rule"),
        }
        values = {k: v for k, v in changes.items() if k != "gradient_rule"}
        for i in range(2):
            seed = seed_for(0, "expert", i)
            for epochs in range(1, EPOCHS + 1):
                net = make_architecture().fresh(seed_for(seed, "init"), CPU)
                short = recipe(epochs=epochs, **values)
                train(net, fetch, len(indices), short, seed=seed_for(seed, "train"), **options)
                assert torch.equal(buffer.snapshot(i, epochs, CPU), flatten(net)), (i, epochs)

    def test_half_precision_rounds_only_the_snapshots(self, make_experts):
        exact, rounded = make_experts(), make_experts(dtype="float16")
        for e in range(EPOCHS + 1):
            assert torch.equal(rounded.snapshot(1, e, CPU), exact.snapshot(1, e, CPU).half().float())

    def test_only_needed_epochs_are_trained_and_stored(self, make_experts, counting, tmp_path):
        every_epoch, real = make_experts(work="every_epoch"), counting()
        buffer = make_experts(real, epochs=(1, 3))
        assert real.train.num_batches == 2 * 3 * STEPS, "epochs after the last snapshot must not be trained"
        assert buffer.header.epochs == (1, 3) and buffer.header.recipe["epochs"] == 3
        assert buffer.path.stat().st_size < 2 * 2 * buffer.header.size + 4000
        for i in range(2):
            for e in (1, 3):
                assert torch.equal(buffer.snapshot(i, e, CPU), every_epoch.snapshot(i, e, CPU))
        with pytest.raises(ValueError, match=r"must be one of the epochs stored in .*, \[1, 3\], got 2"):
            buffer.snapshot(0, 2, CPU)

    def test_experts_do_not_depend_on_their_number(self, make_experts):
        few, many = make_experts(count=1), make_experts(count=3, epochs=(0, 2))
        for e in (0, 2):
            assert torch.equal(few.snapshot(0, e, CPU), many.snapshot(0, e, CPU))

    def test_header(self, make_experts, make_architecture, train_blobs):
        header = make_experts(gradient_rule=FLAT, lr=0.02).header
        assert header.architecture == make_architecture().describe()
        assert (header.real, header.preprocess) == ((train_blobs.digest, 59), train_blobs.preprocess.digest)
        assert header.order == tuple(
            (n, tuple(p.shape)) for n, p in make_architecture().fresh(0, CPU).named_parameters()
        )
        assert header.recipe["lr"] == 0.02 and header.recipe["gradient_rule"] == json.loads(
            json.dumps(FLAT.describe())
        )


class TestCache:
    def test_all_seeds_share_the_experts(self, make_experts, make_ctx, counting, tmp_path):
        first = make_experts(ctx=make_ctx(0, work="cache", fresh_cache=True))
        before, real = sha256(first), counting(killed_at=0)
        ctx = make_ctx(7, work="cache", fresh_cache=True)
        again = make_experts(real, ctx=ctx)
        assert again.path == first.path and sha256(again) == before
        assert list(ctx.cache.seconds) == [first.path.parent.name], (
            "the cost of cached experts must be reported"
        )
        (entry,), partial = entries(tmp_path)
        assert sorted(p.name for p in entry.iterdir()) == ["entry.json", FILE] and partial == []

    def test_longer_recipe_with_the_same_epochs_shares_the_experts(self, make_experts, counting):
        first = make_experts(epochs=(0, 2))
        again = make_experts(counting(killed_at=0), epochs=(0, 2), recipe_epochs=50)
        assert again.path == first.path and again.header.recipe["epochs"] == 2

    def test_everything_that_matters_changes_the_key(
        self, make_experts, make_blobs, make_architecture, real_set, tmp_path
    ):
        """Every variant has its own cache entry."""
        plain = real_set(per_class=10).train_only()
        other = real_set(per_class=10, preprocess=Normalise([0.4], [0.3])).train_only()
        fewer = real_set(per_class=10, val_fraction=0.2).train_only()
        assert (plain.digest, plain.digest) == (other.digest, fewer.digest), (
            "the variants must have the same data digest"
        )
        window = {"epochs": (0, 1)}
        variants = [
            {},
            {"count": 1},
            {"lr": 0.02},
            {"augment": "flip"},
            {"epochs": (1,)},
            {"epochs": (0, 1, 2)},
            {"dtype": "float16"},
            {"gradient_rule": FLAT},
            {"gradient_rule": dataclasses.replace(FLAT, flat=GSAM(rho=0.05, alpha=0.0))},
            {"gradient_rule": dataclasses.replace(FLAT, loss_scale=(0.5,))},
            {"architecture": make_architecture(width=4)},
            {"architecture": make_architecture(norm="none")},
            {"real": other},
            {"real": fewer},
            {"real": dataclasses.replace(plain, flip=True)},
            {"real": real_set(per_class=10, noise=30.0).train_only()},
        ]
        buffers = [make_experts(**{"real": plain} | window | v) for v in variants]
        assert len({b.path for b in buffers}) == len(variants)
        assert [make_experts(**{"real": plain} | window | v).path for v in variants] == [
            b.path for b in buffers
        ]

    def test_precision_changes_the_key(self, make_experts, make_ctx):
        ctx = make_ctx(work="cache", fresh_cache=True)
        ctx.runtime = dataclasses.replace(ctx.runtime, precision="bf16")
        assert make_experts(ctx=ctx, epochs=(1,)).path != make_experts(epochs=(1,)).path

    @pytest.mark.parametrize("length", [None, 0, 100, -1])
    def test_error_of_a_damaged_buffer(self, make_experts, length):
        path = make_experts(epochs=(0, 1)).path
        before = path.read_bytes()
        path.unlink()
        if length is not None:
            path.write_bytes(before[:length])
        with pytest.raises(
            ValueError, match=rf"{path.parent}.*\. Delete it and run the command again: rm -r {path.parent}$"
        ):
            make_experts(epochs=(0, 1))
        shutil.rmtree(path.parent)
        assert make_experts(epochs=(0, 1)).path.read_bytes() == before, "the command in the message must work"


class TestProcesses:
    @pytest.mark.slow
    def test_processes_give_the_same_bytes(self, make_experts, tmp_path):
        changes = {"count": 3, "gradient_rule": FLAT, "augment": DSA, "milestones": (2,)}
        single = make_experts(work="one_process", **changes)
        parallel = make_experts(work="parallel", workers=2, **changes)
        assert parallel.path.parent.name == single.path.parent.name and sha256(parallel) == sha256(single)
        (entry,), partial = entries(tmp_path, "parallel")
        assert sorted(p.name for p in entry.iterdir()) == ["entry.json", FILE] and partial == []


VARIANTS = {
    "momentum": {},
    "milestone, reset": {"milestones": (2,), "reset_optimizer": True},
    "milestone, no reset": {"milestones": (3,), "reset_optimizer": False},
    "adam": {"optimizer": "adam", "milestones": (2,), "reset_optimizer": False},
    "adamw, augmented": {"optimizer": "adamw", "augment": DSA},
    "cutmix": {"cutmix": 0.5, "augment": "flip_color_cutout_crop", "augment_style": "idc"},
    "flat": {"gradient_rule": FLAT},
    "dropout": {"architecture": (ViT, VIT)},
}
EXPERT = EPOCHS * STEPS  # steps per expert


class TestKilled:
    """After a kill at any point, the bytes are those of an uninterrupted training."""

    @pytest.fixture(autouse=True)
    def _make(self, make_experts, make_architecture):
        def make(*where, **changes):
            if "architecture" in changes:
                cls, knobs = changes.pop("architecture")
                changes["architecture"] = make_architecture(cls, **knobs)
            return make_experts(*where, **changes)

        self.make = make

    @pytest.mark.parametrize("name", VARIANTS)
    def test_in_the_middle_of_an_epoch(self, counting, tmp_path, name):
        uninterrupted = self.make(work="uninterrupted", **VARIANTS[name])
        with pytest.raises(KeyboardInterrupt):
            self.make(counting(killed_at=EXPERT + 2 * STEPS + 1), **VARIANTS[name])
        complete, (partial,) = entries(tmp_path)
        assert complete == [], "an incomplete entry must not be visible"
        assert [
            checkpoint.saved_progress(partial / f"expert{i}.checkpoint.safetensors")[0] for i in (0, 1)
        ] == [4, 2]

        torch.rand(3)  # the global generator must not matter
        real = counting()
        buffer = self.make(real, **VARIANTS[name])
        assert real.train.num_batches == 2 * STEPS, "only two epochs of expert 1 were missing"
        assert sha256(buffer) == sha256(uninterrupted)
        (entry,), partial = entries(tmp_path)
        assert sorted(p.name for p in entry.iterdir()) == ["entry.json", FILE] and partial == []

    @pytest.mark.parametrize("steps", [0, 1, STEPS, EXPERT - 1, EXPERT, EXPERT + STEPS])
    def test_at_any_step(self, counting, steps):
        uninterrupted = self.make(work="uninterrupted")
        with pytest.raises(KeyboardInterrupt):
            self.make(counting(killed_at=steps))
        real = counting()
        assert sha256(self.make(real)) == sha256(uninterrupted)
        assert real.train.num_batches == 2 * EXPERT - steps // STEPS * STEPS

    def test_repeatedly(self, counting):
        """Each attempt trains one epoch and one step."""
        uninterrupted = self.make(work="uninterrupted")
        attempts = 0
        while attempts < 20:
            try:
                buffer = self.make(counting(killed_at=STEPS + 1))
                break
            except KeyboardInterrupt:
                attempts += 1
        assert attempts == 2 * EPOCHS - 1 and sha256(buffer) == sha256(uninterrupted)

    @pytest.mark.parametrize("epoch", [1, EPOCHS, EPOCHS + 2, 2 * EPOCHS])
    def test_between_a_snapshot_and_its_checkpoint(self, counting, monkeypatch, epoch):
        """The snapshot was written but its checkpoint was not. It is written again with the same values."""
        uninterrupted, saved, save = self.make(work="uninterrupted"), [], checkpoint.save
        with monkeypatch.context() as killed:

            def kill(*what):
                saved.append(what)
                if len(saved) == epoch:
                    raise KeyboardInterrupt
                save(*what)

            killed.setattr(checkpoint, "save", kill)
            with pytest.raises(KeyboardInterrupt):
                self.make()
        real = counting()
        assert sha256(self.make(real)) == sha256(uninterrupted)
        assert real.train.num_batches == (2 * EPOCHS - epoch + 1) * STEPS

    def test_before_the_entry_is_complete(self, counting, monkeypatch, tmp_path):
        """All experts are trained, but the folder is not renamed yet. Nothing is trained again."""
        uninterrupted, real = self.make(work="uninterrupted"), counting()

        def kill(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as killed:
            killed.setattr(cache, "write_atomic", kill)
            with pytest.raises(KeyboardInterrupt):
                self.make()
        assert entries(tmp_path)[0] == []
        assert sha256(self.make(real)) == sha256(uninterrupted)
        assert real.train.num_batches == 0

    @pytest.mark.parametrize("damage", ["lost", "cut"])
    def test_damaged_partial_buffer_is_trained_again(self, counting, tmp_path, damage):
        uninterrupted = self.make(work="uninterrupted")
        with pytest.raises(KeyboardInterrupt):
            self.make(counting(killed_at=EXPERT + 2 * STEPS))
        path = entries(tmp_path)[1][0] / FILE
        data = path.read_bytes()
        path.unlink()
        if damage == "cut":
            path.write_bytes(data[: -9 * uninterrupted.header.size])  # of ten snapshots
        assert sha256(self.make()) == sha256(uninterrupted)

    def test_temporary_files_are_removed(self, counting, tmp_path):
        """`write_atomic` leaves a temporary file after kill -9."""
        with pytest.raises(KeyboardInterrupt):
            self.make(counting(killed_at=EXPERT + 2 * STEPS))
        (entries(tmp_path)[1][0] / ".expert1.checkpoint.safetensors.ab12cd").write_bytes(b"incomplete")
        buffer = self.make()
        assert sorted(p.name for p in buffer.path.parent.iterdir()) == ["entry.json", FILE]

    def test_seconds_include_earlier_attempts(self, counting, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            self.make(counting(killed_at=EXPERT + 2 * STEPS))
        (partial,) = entries(tmp_path)[1]
        for i, done in enumerate((EPOCHS, 2)):
            path = partial / f"expert{i}.checkpoint.safetensors"
            assert checkpoint.saved_progress(path)[0] == done and checkpoint.saved_progress(path)[1] > 0
            header = path.read_bytes().replace(*(f'"seconds":"{s}"'.encode() for s in seconds(path)))
            path.write_bytes(header)
        buffer = self.make()
        entry = json.loads((buffer.path.parent / "entry.json").read_text())
        assert 2 * 1000 < entry["seconds"] < 2 * 1000 + 60

    def test_error_of_a_damaged_checkpoint(self, counting, tmp_path):
        uninterrupted = self.make(work="uninterrupted")
        with pytest.raises(KeyboardInterrupt):
            self.make(counting(killed_at=EXPERT + 2 * STEPS))
        path = entries(tmp_path)[1][0] / "expert1.checkpoint.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(
            CheckpointError, match=rf"checkpoint {path} is damaged .*To start from scratch: rm {path}"
        ):
            self.make()
        path.unlink()
        real = counting()
        assert sha256(self.make(real)) == sha256(uninterrupted) and real.train.num_batches == EXPERT

    def test_full_disk(self, counting, tmp_path):
        """The kernel rejects the third snapshot of the second expert."""
        uninterrupted = self.make(work="uninterrupted")
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = uninterrupted.path.stat().st_size

        class FullDisk(CountingSplit):
            def inputs(self, index):
                if self.num_batches == EXPERT + STEPS:
                    resource.setrlimit(
                        resource.RLIMIT_FSIZE, (size - 3 * uninterrupted.header.size, unlimited[1])
                    )
                return super().inputs(index)

        real = counting()
        real = dataclasses.replace(real, train=FullDisk(real.train.split))
        try:
            with pytest.raises(OSError, match="File too large"):
                self.make(real)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        assert real.train.num_batches == EXPERT + 2 * STEPS and entries(tmp_path)[0] == []
        real = counting()
        assert sha256(self.make(real)) == sha256(uninterrupted)
        assert real.train.num_batches == 3 * STEPS, (
            "three epochs: the one that was not written and two later ones"
        )


def seconds(path):
    """The seconds in a checkpoint as text, and 1000 seconds as text of the same length."""
    text = str(checkpoint.saved_progress(path)[1])
    return text, "1000." + "0" * (len(text) - 5)


class TestDiverged:
    def test_error_after_the_first_epoch(self, make_experts, counting, tmp_path):
        real = counting()
        with pytest.raises(
            Diverged, match=r"expert 0 are not finite as float32 after epoch 1\. .*recipe\.lr"
        ):
            make_experts(real, lr=1e30)
        assert real.train.num_batches == STEPS and entries(tmp_path)[0] == []

    def test_too_large_for_half_precision(self, make_experts, tmp_path):
        with pytest.raises(Diverged, match=r"float16 after epoch \d\. .*method\.experts\.dtype=float32"):
            make_experts(lr=1e8, momentum=0.0, weight_decay=0.0, dtype="float16")


class TestCheckBuffer:
    """A buffer of another run."""

    @pytest.fixture
    def buffer(self, make_experts):
        return make_experts(epochs=(1, 2, 3))

    def test_same_run(self, buffer, train_blobs, make_architecture):
        assert check_buffer(buffer, train_blobs, make_architecture(), (1, 3)) is None
        assert check_buffer(ExpertBuffer(buffer.path.parent), train_blobs, make_architecture(), ()) is None

    def test_another_network(self, buffer, train_blobs, make_architecture):
        reason = check_buffer(buffer, train_blobs, make_architecture(width=4), (1,))
        assert (
            str(buffer.path) in reason
            and "'width': 8" in reason
            and "'width': 4" in reason
            and "model=" in reason
        )

    def test_another_order_of_parameters(self, buffer, train_blobs, make_architecture):
        header = dataclasses.replace(buffer.header, order=tuple(reversed(buffer.header.order)))
        other = SimpleNamespace(header=header, path=buffer.path)
        assert "in another order" in check_buffer(other, train_blobs, make_architecture(), (1,))

    def test_another_preprocessing(self, buffer, train_blobs, make_architecture):
        other = dataclasses.replace(train_blobs, preprocess=Normalise([0.4], [0.3]))
        reason = check_buffer(buffer, other, make_architecture(), (1,))
        assert f"{train_blobs.preprocess.config()}, but this run uses {other.preprocess.config()}" in reason
        assert "dataset.preprocess=normalise and" in reason

    def test_header_with_only_a_digest_of_the_preprocessing(self, buffer, train_blobs, make_architecture):
        """Buffers of older versions."""
        buffer.header = dataclasses.replace(buffer.header, preprocessing={})
        other = dataclasses.replace(train_blobs, preprocess=Normalise([0.4], [0.3]))
        assert check_buffer(buffer, train_blobs, make_architecture(), (1,)) is None
        assert f"preprocessing {train_blobs.preprocess.digest}" in check_buffer(
            buffer, other, make_architecture(), (1,)
        )

    def test_other_data(self, buffer, make_blobs, make_architecture):
        for real in (make_blobs(seed=1), make_blobs(counts=(20, 17, 21))):
            reason = check_buffer(buffer, real.train_only(), make_architecture(), (1,))
            assert f"on other data than the {len(real.train)} training images of blobs" in reason

    @pytest.mark.parametrize(("epochs", "missing"), [((0, 1), 0), ((3, 4, 5), 4)])
    def test_missing_epochs(self, buffer, train_blobs, make_architecture, epochs, missing):
        reason = check_buffer(buffer, train_blobs, make_architecture(), epochs)
        assert f"contains epoch {missing}, but {buffer.path} contains only epochs [1, 2, 3]" in reason
        assert "method.window.first>=1" in reason and "<= 3" in reason


class TestFeatureNetworks:
    """Resume of feature networks."""

    @pytest.mark.parametrize("name", ["momentum", "milestone, reset", "cutmix", "dropout"])
    def test_killed_and_resumed_has_the_same_bytes(
        self, counting, recipe, make_ctx, make_architecture, tmp_path, name
    ):
        changes = dict(VARIANTS[name])
        cls, knobs = changes.pop("architecture", (None, {}))
        architecture = make_architecture(cls, **knobs) if cls else make_architecture(norm="batchnorm")
        training = recipe(epochs=EPOCHS, **changes)

        def make(real, work="cache"):
            return feature_network(real, architecture, training, 1, make_ctx(work=work, fresh_cache=True))

        uninterrupted = make(counting(), "uninterrupted")
        with pytest.raises(KeyboardInterrupt):
            make(counting(killed_at=3 * STEPS + 1))
        assert entries(tmp_path)[0] == []
        real = counting()
        net = make(real)
        assert real.train.num_batches == STEPS, "only the fourth epoch must be trained"
        assert not net.training
        for (key, a), b in zip(net.state_dict().items(), uninterrupted.state_dict().values(), strict=True):
            assert torch.equal(a, b), key
        (entry,), partial = entries(tmp_path)
        assert partial == []
        (other,), _ = entries(tmp_path, "uninterrupted")
        assert sorted(p.name for p in entry.iterdir()) == ["entry.json", "network.safetensors"]
        assert (entry / "network.safetensors").read_bytes() == (other / "network.safetensors").read_bytes()

    def test_seconds_include_earlier_attempts(
        self, counting, train_blobs, recipe, make_ctx, make_architecture, tmp_path
    ):
        def make(real):
            ctx = make_ctx(work="cache", fresh_cache=True)
            feature_network(real, make_architecture(), recipe(epochs=EPOCHS), 0, ctx)
            return ctx.cache.seconds

        with pytest.raises(KeyboardInterrupt):
            make(counting(killed_at=2 * STEPS))
        path = entries(tmp_path)[1][0] / "training.checkpoint.safetensors"
        path.write_bytes(path.read_bytes().replace(*(f'"seconds":"{s}"'.encode() for s in seconds(path))))
        (total,) = make(train_blobs).values()
        assert 1000 < total < 1060

    def test_error_of_a_damaged_checkpoint(
        self, counting, train_blobs, recipe, make_ctx, make_architecture, tmp_path
    ):
        def make(real):
            feature_network(
                real, make_architecture(), recipe(epochs=2), 0, make_ctx(work="cache", fresh_cache=True)
            )

        with pytest.raises(KeyboardInterrupt):
            make(counting(killed_at=STEPS))
        path = entries(tmp_path)[1][0] / "training.checkpoint.safetensors"
        path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(CheckpointError, match=rf"checkpoint {path} is damaged .*rm {path}"):
            make(train_blobs)
        path.unlink()
        make(train_blobs)
