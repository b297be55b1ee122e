"""Experts and feature networks: plain trainings, stored epoch by epoch, once, and resumed after a kill."""

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
from dd_bench.training import loop
from dd_bench.training.batches import fetch_from
from dd_bench.training.loop import train
from dd_bench.training.parameter_vector import flatten

CPU = torch.device("cpu")
DSA = "color_crop_cutout_flip_scale_rotate"
STEPS = 2  # of an epoch: 59 images, 32 a batch
EPOCHS = 4
FLAT = ExpertGradient(GSAM(rho=0.05, alpha=0.3), (0.5, 1.5), GradientPenalty(weight=0.0, norm="pixel"))
VIT = {"patch": 4, "dim": 16, "depth": 2, "heads": 2, "mlp_dim": 8, "dropout": 0.3, "emb_dropout": 0.3}


class Watched:
    """A training split that counts the batches it gives, and is killed when asked for batch `killed_at`."""

    def __init__(self, split, killed_at=None):
        self.split, self.killed_at, self.given = split, killed_at, 0

    def inputs(self, index):
        if self.given == self.killed_at:
            raise KeyboardInterrupt
        self.given += 1
        return self.split.inputs(index)

    def __len__(self):
        return len(self.split)

    def __getattr__(self, name):
        return getattr(self.split, name)


@pytest.fixture
def watched(train_blobs):
    def make(killed_at=None, real=train_blobs):
        return dataclasses.replace(real, train=Watched(real.train, killed_at))

    return make


@pytest.fixture
def make_experts(train_blobs, recipe, make_ctx):
    """Two experts of four epochs, all of them stored; `work` names the cache."""

    def make(
        real=train_blobs, work="cache", *, ctx=None, architecture=None, workers=1, recipe_epochs=5, **changes
    ):
        ctx = ctx or make_ctx(work=work, architecture=architecture, fresh_cache=True)
        ctx.runtime = dataclasses.replace(ctx.runtime, workers=workers)
        settings = {"count": 2, "epochs": tuple(range(EPOCHS + 1)), "dtype": "float32", "gradient_rule": None}
        settings["exact"] = False
        plan = {k: changes.pop(k) for k in list(changes) if k not in settings}
        plan = recipe(epochs=recipe_epochs, **plan)
        return experts(real, ctx.architecture, plan, ctx, **settings | changes)

    return make


def sha256(found):
    return hashlib.sha256(found.path.read_bytes()).hexdigest()


def entries(tmp_path, work="cache"):
    """What the cache of `work` shows, and what it hides."""
    folders = sorted(p for p in (tmp_path / work / "cache").iterdir() if p.is_dir())
    return [p for p in folders if p.suffix != ".partial"], [p for p in folders if p.suffix == ".partial"]


def test_exact_experts_are_those_of_float32(make_experts, make_ctx):
    """A perturbation of the weights vanishes in bfloat16: flat experts are trained in float32 on every machine."""
    found = {}
    for name, autocast, exact in (("fp32", False, False), ("bf16", True, False), ("exact", True, True)):
        ctx = make_ctx(work=name, fresh_cache=True)
        ctx.runtime = dataclasses.replace(ctx.runtime, autocast=autocast)
        found[name] = sha256(make_experts(ctx=ctx, work=name, exact=exact))
    assert found["exact"] == found["fp32"] != found["bf16"]


@pytest.mark.parametrize(("missing", "started"), [(0, True), (1, False)])
def test_processes_start_from_so_many_images_on(
    make_experts, make_ctx, train_blobs, monkeypatch, missing, started
):
    """Images of all epochs of all experts; one image too few, and they are trained one after the other."""
    run_in_processes, calls = dd_bench.teachers.experts.run_in_processes, []
    monkeypatch.setattr(
        dd_bench.teachers.experts,
        "run_in_processes",
        lambda *args: calls.append(args) or run_in_processes(*args),
    )
    images = 2 * EPOCHS * len(train_blobs.train)
    ctx = make_ctx(fresh_cache=True)
    ctx.runtime = dataclasses.replace(ctx.runtime, spread_after=images + missing)
    found = make_experts(ctx=ctx, workers=2)
    assert bool(calls) is started
    assert sha256(found) == sha256(make_experts(work="alone"))


class TestSnapshots:
    def test_each_is_another(self, make_experts):
        """A snapshot is not a view of a network that is still trained: every expert and epoch has its own numbers."""
        found = make_experts()
        rows = [found.snapshot(i, e, CPU) for i in range(2) for e in range(EPOCHS + 1)]
        assert len({tuple(row.tolist()) for row in rows}) == 2 * (EPOCHS + 1)
        for before, after in pairwise(rows[: EPOCHS + 1]):
            assert 0 < (after - before).norm() < (rows[0] - rows[EPOCHS + 1]).norm()

    def test_the_first_is_the_fresh_network_of_the_experts_seed(self, make_experts, make_architecture):
        found = make_experts()
        for i in range(2):
            net = make_architecture().fresh(seed_for(seed_for(0, "expert", i), "init"), CPU)
            assert torch.equal(found.snapshot(i, 0, CPU), flatten(net))

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
    def test_each_is_a_training_of_so_many_epochs(
        self, make_experts, make_architecture, train_blobs, recipe, runtime, changes
    ):
        """One that knows nothing of experts, and ends there."""
        found = make_experts(**changes)
        everything = torch.arange(len(train_blobs.train))
        fetch = fetch_from(train_blobs.train.inputs(everything), train_blobs.train.labels)
        how = {"runtime": runtime, "flip": train_blobs.flip, "gradient_rule": changes.get("gradient_rule")}
        plan = {k: v for k, v in changes.items() if k != "gradient_rule"}
        for i in range(2):
            seed = seed_for(0, "expert", i)
            for epochs in range(1, EPOCHS + 1):
                net = make_architecture().fresh(seed_for(seed, "init"), CPU)
                short = recipe(epochs=epochs, **plan)
                train(net, fetch, len(everything), short, seed=seed_for(seed, "train"), **how)
                assert torch.equal(found.snapshot(i, epochs, CPU), flatten(net)), (i, epochs)

    def test_in_half_precision_they_are_rounded_and_the_training_is_not(self, make_experts):
        exact, rounded = make_experts(), make_experts(dtype="float16")
        for e in range(EPOCHS + 1):
            assert torch.equal(rounded.snapshot(1, e, CPU), exact.snapshot(1, e, CPU).half().float())

    def test_only_the_epochs_asked_for_are_trained_and_stored(self, make_experts, watched, tmp_path):
        whole, real = make_experts(work="whole"), watched()
        found = make_experts(real, epochs=(1, 3))
        assert real.train.given == 2 * 3 * STEPS, "epochs after the last snapshot are not trained"
        assert found.header.epochs == (1, 3) and found.header.recipe["epochs"] == 3
        assert found.path.stat().st_size < 2 * 2 * found.header.size + 4000
        for i in range(2):
            for e in (1, 3):
                assert torch.equal(found.snapshot(i, e, CPU), whole.snapshot(i, e, CPU))
        with pytest.raises(ValueError, match=r"must be one of those in .*, \[1, 3\], got 2"):
            found.snapshot(0, 2, CPU)

    def test_a_larger_buffer_begins_with_the_smaller_one(self, make_experts):
        few, many = make_experts(count=1), make_experts(count=3, epochs=(0, 2))
        for e in (0, 2):
            assert torch.equal(few.snapshot(0, e, CPU), many.snapshot(0, e, CPU))

    def test_the_header_describes_them(self, make_experts, make_architecture, train_blobs):
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
    def test_they_are_trained_once_for_all_seeds(self, make_experts, make_ctx, watched, tmp_path):
        first = make_experts(ctx=make_ctx(0, work="cache", fresh_cache=True))
        before, real = sha256(first), watched(killed_at=0)
        ctx = make_ctx(7, work="cache", fresh_cache=True)
        again = make_experts(real, ctx=ctx)
        assert again.path == first.path and sha256(again) == before
        assert list(ctx.cache.seconds) == [first.path.parent.name], "a run that uses them knows their cost"
        (entry,), partial = entries(tmp_path)
        assert sorted(p.name for p in entry.iterdir()) == ["entry.json", FILE] and partial == []

    def test_a_longer_recipe_for_the_same_window_is_the_same(self, make_experts, watched):
        first = make_experts(epochs=(0, 2))
        again = make_experts(watched(killed_at=0), epochs=(0, 2), recipe_epochs=50)
        assert again.path == first.path and again.header.recipe["epochs"] == 2

    def test_what_matters_is_another_entry(
        self, make_experts, make_blobs, make_architecture, real_set, tmp_path
    ):
        """Each of them alone, and nothing of one is taken for another's."""
        plain = real_set(per_class=10).train_only()
        other = real_set(per_class=10, preprocess=Normalise([0.4], [0.3])).train_only()
        fewer = real_set(per_class=10, val_fraction=0.2).train_only()
        assert (plain.digest, plain.digest) == (other.digest, fewer.digest), "other inputs of the same data"
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
        found = [make_experts(**{"real": plain} | window | v) for v in variants]
        assert len({f.path for f in found}) == len(variants)
        assert [make_experts(**{"real": plain} | window | v).path for v in variants] == [
            f.path for f in found
        ]

    def test_precision_is_another_entry(self, make_experts, make_ctx):
        ctx = make_ctx(work="cache", fresh_cache=True)
        ctx.runtime = dataclasses.replace(ctx.runtime, autocast=True)
        assert make_experts(ctx=ctx, epochs=(1,)).path != make_experts(epochs=(1,)).path

    @pytest.mark.parametrize("length", [None, 0, 100, -1])
    def test_a_damaged_one_names_the_line_to_rebuild_it(self, make_experts, length):
        path = make_experts(epochs=(0, 1)).path
        before = path.read_bytes()
        path.unlink()
        if length is not None:
            path.write_bytes(before[:length])
        with pytest.raises(ValueError, match=rf"{path.parent}.*\. To rebuild it: rm -r {path.parent}$"):
            make_experts(epochs=(0, 1))
        shutil.rmtree(path.parent)
        assert make_experts(epochs=(0, 1)).path.read_bytes() == before, "and that is true"


class TestProcesses:
    @pytest.mark.slow
    def test_they_give_the_same_bytes(self, make_experts, tmp_path):
        changes = {"count": 3, "gradient_rule": FLAT, "augment": DSA, "milestones": (2,)}
        alone = make_experts(work="alone", **changes)
        spread = make_experts(work="spread", workers=2, **changes)
        assert spread.path.parent.name == alone.path.parent.name and sha256(spread) == sha256(alone)
        (entry,), partial = entries(tmp_path, "spread")
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
EXPERT = EPOCHS * STEPS  # steps of one


class TestKilled:
    """In the middle of expert 1, or anywhere else: the bytes are those of experts that were never interrupted."""

    @pytest.fixture(autouse=True)
    def _named_networks(self, make_experts, make_architecture):
        def make(*where, **changes):
            if "architecture" in changes:
                cls, knobs = changes.pop("architecture")
                changes["architecture"] = make_architecture(cls, **knobs)
            return make_experts(*where, **changes)

        self.make = make

    @pytest.mark.parametrize("name", VARIANTS)
    def test_in_the_middle_of_an_epoch(self, watched, tmp_path, name):
        whole = self.make(work="whole", **VARIANTS[name])
        with pytest.raises(KeyboardInterrupt):
            self.make(watched(killed_at=EXPERT + 2 * STEPS + 1), **VARIANTS[name])
        shown, (partial,) = entries(tmp_path)
        assert shown == [], "nothing is there before all is there"
        assert [
            checkpoint.saved_progress(partial / f"expert{i}.checkpoint.safetensors")[0] for i in (0, 1)
        ] == [4, 2]

        torch.rand(3)  # the global generator must not matter
        real = watched()
        found = self.make(real, **VARIANTS[name])
        assert real.train.given == 2 * STEPS, "two epochs of expert 1 were missing"
        assert sha256(found) == sha256(whole)
        (entry,), hidden = entries(tmp_path)
        assert sorted(p.name for p in entry.iterdir()) == ["entry.json", FILE] and hidden == []

    @pytest.mark.parametrize("steps", [0, 1, STEPS, EXPERT - 1, EXPERT, EXPERT + STEPS])
    def test_at_any_step(self, watched, steps):
        whole = self.make(work="whole")
        with pytest.raises(KeyboardInterrupt):
            self.make(watched(killed_at=steps))
        real = watched()
        assert sha256(self.make(real)) == sha256(whole)
        assert real.train.given == 2 * EXPERT - steps // STEPS * STEPS

    def test_again_and_again(self, watched):
        """Each attempt does one epoch and a step."""
        whole = self.make(work="whole")
        attempts = 0
        while attempts < 20:
            try:
                found = self.make(watched(killed_at=STEPS + 1))
                break
            except KeyboardInterrupt:
                attempts += 1
        assert attempts == 2 * EPOCHS - 1 and sha256(found) == sha256(whole)

    @pytest.mark.parametrize("epoch", [1, EPOCHS, EPOCHS + 2, 2 * EPOCHS])
    def test_between_a_snapshot_and_its_checkpoint(self, watched, monkeypatch, epoch):
        """The row was written but not its checkpoint: it is written again, with the same numbers."""
        whole, saved, save = self.make(work="whole"), [], checkpoint.save
        with monkeypatch.context() as killed:

            def kill(*what):
                saved.append(what)
                if len(saved) == epoch:
                    raise KeyboardInterrupt
                save(*what)

            killed.setattr(loop, "save", kill)
            with pytest.raises(KeyboardInterrupt):
                self.make()
        real = watched()
        assert sha256(self.make(real)) == sha256(whole)
        assert real.train.given == (2 * EPOCHS - epoch + 1) * STEPS

    def test_before_the_entry_appears(self, watched, monkeypatch, tmp_path):
        """All are trained, and the folder does not have its name yet: nothing is trained again."""
        whole, real = self.make(work="whole"), watched()

        def kill(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as killed:
            killed.setattr(cache, "write_atomic", kill)
            with pytest.raises(KeyboardInterrupt):
                self.make()
        assert entries(tmp_path)[0] == []
        assert sha256(self.make(real)) == sha256(whole)
        assert real.train.given == 0

    @pytest.mark.parametrize("damage", ["lost", "cut"])
    def test_a_buffer_that_was_damaged_meanwhile_has_no_holes(self, watched, tmp_path, damage):
        whole = self.make(work="whole")
        with pytest.raises(KeyboardInterrupt):
            self.make(watched(killed_at=EXPERT + 2 * STEPS))
        path = entries(tmp_path)[1][0] / FILE
        data = path.read_bytes()
        path.unlink()
        if damage == "cut":
            path.write_bytes(data[: -9 * whole.header.size])  # of ten snapshots
        assert sha256(self.make()) == sha256(whole)

    def test_what_a_kill_left_of_a_checkpoint_goes(self, watched, tmp_path):
        """`write_atomic` leaves a temporary file behind after kill -9."""
        with pytest.raises(KeyboardInterrupt):
            self.make(watched(killed_at=EXPERT + 2 * STEPS))
        (entries(tmp_path)[1][0] / ".expert1.checkpoint.safetensors.ab12cd").write_bytes(b"half")
        found = self.make()
        assert sorted(p.name for p in found.path.parent.iterdir()) == ["entry.json", FILE]

    def test_the_price_includes_what_was_done_before(self, watched, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            self.make(watched(killed_at=EXPERT + 2 * STEPS))
        (partial,) = entries(tmp_path)[1]
        for i, done in enumerate((EPOCHS, 2)):
            path = partial / f"expert{i}.checkpoint.safetensors"
            assert checkpoint.saved_progress(path)[0] == done and checkpoint.saved_progress(path)[1] > 0
            header = path.read_bytes().replace(*(f'"seconds":"{s}"'.encode() for s in seconds(path)))
            path.write_bytes(header)
        found = self.make()
        entry = json.loads((found.path.parent / "entry.json").read_text())
        assert 2 * 1000 < entry["seconds"] < 2 * 1000 + 60

    def test_a_damaged_checkpoint_names_the_line_to_start_again(self, watched, tmp_path):
        whole = self.make(work="whole")
        with pytest.raises(KeyboardInterrupt):
            self.make(watched(killed_at=EXPERT + 2 * STEPS))
        path = entries(tmp_path)[1][0] / "expert1.checkpoint.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(
            CheckpointError, match=rf"checkpoint {path} is damaged .*To start anew: rm {path}"
        ):
            self.make()
        path.unlink()
        real = watched()
        assert sha256(self.make(real)) == sha256(whole) and real.train.given == EXPERT

    def test_by_a_full_disk(self, watched, tmp_path):
        """For real: the kernel refuses the second expert's third snapshot."""
        whole = self.make(work="whole")
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = whole.path.stat().st_size

        class Full(Watched):
            def inputs(self, index):
                if self.given == EXPERT + STEPS:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 3 * whole.header.size, unlimited[1]))
                return super().inputs(index)

        real = watched()
        real = dataclasses.replace(real, train=Full(real.train.split))
        try:
            with pytest.raises(OSError, match="File too large"):
                self.make(real)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        assert real.train.given == EXPERT + 2 * STEPS and entries(tmp_path)[0] == []
        real = watched()
        assert sha256(self.make(real)) == sha256(whole)
        assert real.train.given == 3 * STEPS, "of the epoch that could not be written, and the two after it"


def seconds(path):
    """The seconds in a checkpoint as text, and a thousand seconds as text of the same length."""
    text = str(checkpoint.saved_progress(path)[1])
    return text, "1000." + "0" * (len(text) - 5)


class TestDiverged:
    def test_at_once_and_with_the_knob(self, make_experts, watched, tmp_path):
        real = watched()
        with pytest.raises(Diverged, match=r"expert 0 is not finite as float32 after epoch 1\. .*recipe\.lr"):
            make_experts(real, lr=1e30)
        assert real.train.given == STEPS and entries(tmp_path)[0] == []

    def test_too_large_for_half_precision(self, make_experts, tmp_path):
        with pytest.raises(Diverged, match=r"float16 after epoch \d\. .*method\.experts\.dtype=float32"):
            make_experts(lr=1e8, momentum=0.0, weight_decay=0.0, dtype="float16")


class TestCheckBuffer:
    """A buffer that was made elsewhere."""

    @pytest.fixture
    def found(self, make_experts):
        return make_experts(epochs=(1, 2, 3))

    def test_its_own(self, found, train_blobs, make_architecture):
        assert check_buffer(found, train_blobs, make_architecture(), (1, 3)) is None
        assert check_buffer(ExpertBuffer(found.path.parent), train_blobs, make_architecture(), ()) is None

    def test_another_network(self, found, train_blobs, make_architecture):
        reason = check_buffer(found, train_blobs, make_architecture(width=4), (1,))
        assert (
            str(found.path) in reason
            and "'width': 8" in reason
            and "'width': 4" in reason
            and "model=" in reason
        )

    def test_another_order_of_parameters(self, found, train_blobs, make_architecture):
        header = dataclasses.replace(found.header, order=tuple(reversed(found.header.order)))
        other = SimpleNamespace(header=header, path=found.path)
        assert "in another order" in check_buffer(other, train_blobs, make_architecture(), (1,))

    def test_another_preprocessing(self, found, train_blobs, make_architecture):
        other = dataclasses.replace(train_blobs, preprocess=Normalise([0.4], [0.3]))
        reason = check_buffer(found, other, make_architecture(), (1,))
        assert f"{train_blobs.preprocess.config()}, but this run uses {other.preprocess.config()}" in reason
        assert "dataset.preprocess=normalise and" in reason

    def test_another_preprocessing_with_only_a_digest(self, found, train_blobs, make_architecture):
        """Buffers of older versions."""
        found.header = dataclasses.replace(found.header, preprocessing={})
        other = dataclasses.replace(train_blobs, preprocess=Normalise([0.4], [0.3]))
        assert check_buffer(found, train_blobs, make_architecture(), (1,)) is None
        assert f"preprocessing {train_blobs.preprocess.digest}" in check_buffer(
            found, other, make_architecture(), (1,)
        )

    def test_other_data(self, found, make_blobs, make_architecture):
        for real in (make_blobs(seed=1), make_blobs(counts=(20, 17, 21))):
            reason = check_buffer(found, real.train_only(), make_architecture(), (1,))
            assert f"on other data than blobs with {len(real.train)} images" in reason

    @pytest.mark.parametrize(("epochs", "missing"), [((0, 1), 0), ((3, 4, 5), 4)])
    def test_epochs_that_it_does_not_hold(self, found, train_blobs, make_architecture, epochs, missing):
        reason = check_buffer(found, train_blobs, make_architecture(), epochs)
        assert f"contains epoch {missing}, but {found.path} contains only [1, 2, 3]" in reason
        assert "method.window.first>=1" in reason and "<= 3" in reason


class TestFeatureNetworks:
    """The same for feature networks."""

    @pytest.mark.parametrize("name", ["momentum", "milestone, reset", "cutmix", "dropout"])
    def test_killed_and_resumed_has_the_same_bytes(
        self, watched, recipe, make_ctx, make_architecture, tmp_path, name
    ):
        changes = dict(VARIANTS[name])
        cls, knobs = changes.pop("architecture", (None, {}))
        architecture = make_architecture(cls, **knobs) if cls else make_architecture(norm="batchnorm")
        plan = recipe(epochs=EPOCHS, **changes)

        def make(real, work="cache"):
            return feature_network(real, architecture, plan, 1, make_ctx(work=work, fresh_cache=True))

        whole = make(watched(), "whole")
        with pytest.raises(KeyboardInterrupt):
            make(watched(killed_at=3 * STEPS + 1))
        assert entries(tmp_path)[0] == []
        real = watched()
        net = make(real)
        assert real.train.given == STEPS, "only the fourth epoch"
        assert not net.training
        for (key, a), b in zip(net.state_dict().items(), whole.state_dict().values(), strict=True):
            assert torch.equal(a, b), key
        (entry,), hidden = entries(tmp_path)
        assert hidden == []
        (other,), _ = entries(tmp_path, "whole")
        assert sorted(p.name for p in entry.iterdir()) == ["entry.json", "network.safetensors"]
        assert (entry / "network.safetensors").read_bytes() == (other / "network.safetensors").read_bytes()

    def test_the_price_includes_what_was_done_before(
        self, watched, train_blobs, recipe, make_ctx, make_architecture, tmp_path
    ):
        def make(real):
            ctx = make_ctx(work="cache", fresh_cache=True)
            feature_network(real, make_architecture(), recipe(epochs=EPOCHS), 0, ctx)
            return ctx.cache.seconds

        with pytest.raises(KeyboardInterrupt):
            make(watched(killed_at=2 * STEPS))
        path = entries(tmp_path)[1][0] / "training.checkpoint.safetensors"
        path.write_bytes(path.read_bytes().replace(*(f'"seconds":"{s}"'.encode() for s in seconds(path))))
        (price,) = make(train_blobs).values()
        assert 1000 < price < 1060

    def test_a_damaged_checkpoint_names_the_line_to_start_again(
        self, watched, train_blobs, recipe, make_ctx, make_architecture, tmp_path
    ):
        def make(real):
            feature_network(
                real, make_architecture(), recipe(epochs=2), 0, make_ctx(work="cache", fresh_cache=True)
            )

        with pytest.raises(KeyboardInterrupt):
            make(watched(killed_at=STEPS))
        path = entries(tmp_path)[1][0] / "training.checkpoint.safetensors"
        path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(CheckpointError, match=rf"checkpoint {path} is damaged .*rm {path}"):
            make(train_blobs)
        path.unlink()
        make(train_blobs)
