"""The training loop: comparison with plain SGD, checkpoints, several networks at once, schedules, and learning."""

import math
import os
import signal
import time
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from dd_bench.models.architecture import Architecture
from dd_bench.models.vit import ViT
from dd_bench.runtime import interruption
from dd_bench.runtime.checkpoint import CheckpointError, saved_progress
from dd_bench.runtime.seeding import generator
from dd_bench.training.augment import cutmix
from dd_bench.training.batches import batches, fetch_from
from dd_bench.training.loop import train
from dd_bench.training.losses import classification_loss, mixed_loss, network_loss
from dd_bench.training.optimisation import make_optimizer, set_lr
from dd_bench.training.resume import Checkpoints
from dd_bench.training.scoring import accuracy
from dd_bench.training.together import train_together

CPU = torch.device("cpu")
DSA = "color_crop_cutout_flip_scale_rotate"


@pytest.fixture(scope="module")
def data(blobs):
    return blobs.train.inputs(torch.arange(60)), blobs.train.labels[:60]


def parameters(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


class TestAgainstPlainSGD:
    """`train` against the update rule written without `torch.optim`, in float32."""

    @pytest.mark.parametrize("reset", [True, False])
    @pytest.mark.parametrize("momentum", [0.0, 0.9])
    def test_schedule_momentum_and_weight_decay(self, data, blobs, convnet, recipe, runtime, reset, momentum):
        images, labels = data[0][:24], data[1][:24]  # one batch, so the order does not matter
        plan = recipe(
            epochs=6,
            milestones=(2, 4),
            gamma=0.5,
            momentum=momentum,
            weight_decay=0.01,
            reset_optimizer=reset,
        )
        net = convnet(blobs).fresh(3, CPU)
        weights = {k: v.detach().clone() for k, v in net.named_parameters()}
        velocity = {k: torch.zeros_like(v) for k, v in weights.items()}
        for epoch in range(6):
            lr = 0.01 * (1 if epoch < 2 else 0.5 if epoch < 4 else 0.25)
            leaves = {k: v.requires_grad_() for k, v in weights.items()}
            loss = F.cross_entropy(functional_call(net, leaves, (images,)), labels)
            gradients = torch.autograd.grad(loss, list(leaves.values()))
            for (k, w), g in zip(list(weights.items()), gradients, strict=True):
                g = g + 0.01 * w.detach()
                first = epoch == 0 or (reset and epoch in (2, 4))
                velocity[k] = g if first else momentum * velocity[k] + g
                weights[k] = w.detach() - lr * velocity[k]
        train(net, fetch_from(images, labels), 24, plan, seed=0, runtime=runtime, flip=False)
        for k, w in net.named_parameters():
            torch.testing.assert_close(w.detach(), weights[k], rtol=1e-5, atol=1e-6)

    def test_reset_of_the_optimiser_changes_the_result(self, data, blobs, convnet, recipe, runtime):
        """The test above can therefore detect a missing reset."""
        ends = []
        for reset in (True, False):
            net = convnet(blobs).fresh(3, CPU)
            plan = recipe(epochs=6, milestones=(2, 4), reset_optimizer=reset)
            train(net, fetch_from(*data), 60, plan, seed=0, runtime=runtime, flip=False)
            ends.append(parameters(net))
        assert (ends[0] - ends[1]).abs().max() > 1e-3

    @pytest.mark.parametrize("together", [False, True])
    def test_milestones_in_steps(self, data, blobs, convnet, recipe, runtime, together):
        """Twelve steps with milestones after six and nine are four epochs with milestones after two and three."""

        def trained(**values):
            net = convnet(blobs).fresh(3, CPU)
            plan = recipe(batch_size=20, gamma=0.5, reset_optimizer=True, **values)
            if together:
                train_together([net], fetch_from(*data), 60, plan, seeds=[0], runtime=runtime, flip=False)
            else:
                train(net, fetch_from(*data), 60, plan, seed=0, runtime=runtime, flip=False)
            return parameters(net)

        expected = trained(epochs=4, milestones=(2, 3))
        torch.testing.assert_close(trained(epochs=1, steps=12, milestones=(6, 9)), expected, rtol=0, atol=0)
        other = trained(epochs=1, steps=12, milestones=(5, 9))
        assert (other - expected).abs().max() > 1e-4, "a milestone within an epoch"

    def test_learning_rates_at_milestones(self, recipe):
        plan = recipe(lr=0.1, milestones=(2, 5), gamma=0.1, epochs=7)
        optimizer = make_optimizer([torch.zeros(1, requires_grad=True)], plan, CPU)
        rates = []
        for epoch in range(7):
            set_lr(optimizer, plan, epoch)
            rates.append(optimizer.param_groups[0]["lr"])
        assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001])

    @pytest.mark.parametrize(("kind", "expected"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
    def test_other_optimisers(self, data, blobs, convnet, recipe, runtime, kind, expected):
        plan = recipe(optimizer=kind, lr=0.01, epochs=4, milestones=(2,), weight_decay=0.1, batch_size=60)
        # without a norm, because Adam amplifies rounding errors of a bias that InstanceNorm cancels
        net, plain = (convnet(blobs, norm="none").fresh(3, CPU) for _ in range(2))
        train(net, fetch_from(*data), 60, plan, seed=0, runtime=runtime, flip=False)
        for epoch in range(4):
            if epoch in (0, 2):  # the reset
                optimizer = expected(
                    plain.parameters(), lr=0.01 * (1 if epoch < 2 else 0.1), weight_decay=0.1
                )
            optimizer.zero_grad()
            F.cross_entropy(plain(data[0]), data[1]).backward()
            optimizer.step()
        torch.testing.assert_close(parameters(net), parameters(plain), rtol=1e-4, atol=1e-5)


class TestBatches:
    def test_each_index_once_per_epoch(self):
        order = generator(CPU, 0, "order")
        first, second = (list(batches(50, 16, order)) for _ in range(2))
        assert [len(b) for b in first] == [16, 16, 16, 2]
        for epoch in (first, second):
            assert torch.cat(epoch).sort().values.tolist() == list(range(50))
        assert not torch.equal(torch.cat(first), torch.cat(second)), "each epoch has its own order"

    def test_a_single_batch_is_not_shuffled(self):
        assert [b.tolist() for b in batches(5, 5, generator(CPU, 0, "order"))] == [[0, 1, 2, 3, 4]]

    def test_train_fetches_all_indices_in_each_epoch(self, data, blobs, convnet, recipe, runtime):
        seen = []

        def fetch(index):
            seen.append(index)
            return data[0][index], data[1][index]

        net = convnet(blobs).fresh(0, CPU)
        train(net, fetch, 60, recipe(epochs=2, batch_size=25), seed=5, runtime=runtime, flip=False)
        assert [len(i) for i in seen] == [25, 25, 10] * 2
        assert torch.cat(seen[:3]).sort().values.tolist() == torch.cat(seen[3:]).sort().values.tolist()


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize(
    ("n", "remedy"), [(9, r"9 training images, batch_size=4\. Use .* batch_size=3 "), (1, "Use a larger set")]
)
def test_batchnorm_with_a_last_batch_of_one_image(data, recipe, runtime, together, n, remedy):
    """The error of torch is replaced by one that gives a batch size without such a batch."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    fetch = fetch_from(data[0][:n], data[1][:n])
    more = {"runtime": runtime, "flip": False}
    with pytest.raises(ValueError, match=f"at least 2 images in training, got a batch of 1: .*{remedy}"):
        if together:
            train_together([net], fetch, n, recipe(batch_size=4, epochs=1), seeds=[0], **more)
        else:
            train(net, fetch, n, recipe(batch_size=4, epochs=1), seed=0, **more)


class TestSeeds:
    @pytest.mark.parametrize(
        "more", [{}, {"augment": DSA}, {"cutmix": 0.5}], ids=lambda m: "+".join(m) or "plain"
    )
    def test_result_is_determined_by_the_seed(self, data, blobs, convnet, recipe, runtime, more):
        def end(seed):
            net = convnet(blobs).fresh(0, CPU)
            return parameters(
                train(net, fetch_from(*data), 60, recipe(**more), seed=seed, runtime=runtime, flip=True)
            )

        torch.rand(7)  # the global generator must not matter
        first = end(1)
        torch.rand(3)
        assert torch.equal(first, end(1)) and not torch.equal(first, end(2))

    def test_global_generator_does_not_change(self, data, blobs, convnet, recipe, runtime):
        before = torch.get_rng_state()
        net = convnet(blobs).fresh(0, CPU)
        train(net, fetch_from(*data), 60, recipe(augment=DSA, cutmix=0.5), seed=1, runtime=runtime, flip=True)
        assert torch.equal(before, torch.get_rng_state())

    def test_evaluation_does_not_change_training(self, data, blobs, convnet, recipe, runtime):
        ends = []
        for look in (None, lambda epoch: accuracy(net, blobs.test.batches(7), runtime)):  # noqa: B023
            net = convnet(blobs, norm="batchnorm").fresh(0, CPU)
            train(net, fetch_from(*data), 60, recipe(), seed=1, runtime=runtime, flip=False, on_epoch=look)
            assert net.training
            ends.append(parameters(net))
        assert torch.equal(*ends)


VARIANTS = {
    "momentum": {},
    "milestones": {"milestones": (2, 4), "gamma": 0.5, "reset_optimizer": False},
    "reset": {"milestones": (2, 4), "gamma": 0.5, "reset_optimizer": True},
    "no momentum": {"momentum": 0.0},
    "adam": {"optimizer": "adam", "milestones": (2,), "reset_optimizer": False},
    "adamw, reset": {"optimizer": "adamw", "milestones": (2, 3), "reset_optimizer": True},
    "dsa": {"augment": DSA},
    "idc": {"augment": "flip_color_cutout_crop", "augment_style": "idc"},
    "cutmix": {"cutmix": 0.5, "cutmix_beta": 0.3},
    "batchnorm": {"norm": "batchnorm"},
    "dropout": {"vit": True},
}


class TestCheckpoint:
    """An interrupted training resumes from its last epoch and ends with the same bytes."""

    @pytest.fixture
    def run(self, data, blobs, convnet, recipe, runtime):
        """Return a function that trains until batch `killed_at` and returns the network and the number of batches."""

        def run(
            checkpoint,
            seed=1,
            killed_at=None,
            signal_at=None,
            norm="instancenorm",
            vit=False,
            on_epoch=None,
            **values,
        ):
            fetched = 0

            def fetch(index):
                nonlocal fetched
                if fetched == killed_at:
                    raise KeyboardInterrupt
                fetched += 1
                if fetched == signal_at:
                    os.kill(os.getpid(), signal.SIGTERM)
                return data[0][index], data[1][index]

            architecture = convnet(blobs, norm=norm)
            if vit:
                knobs = {"patch": 4, "dim": 16, "depth": 1, "heads": 2, "mlp_dim": 8, "dropout": 0.3}
                architecture = Architecture(ViT, knobs | {"emb_dropout": 0.3}, blobs.shape, 3, "vit")
            net, how = architecture.fresh(0, CPU), {"runtime": runtime, "flip": True, "on_epoch": on_epoch}
            plan = recipe(batch_size=25, **values)
            where = None if checkpoint is None else Checkpoints(checkpoint)
            return train(net, fetch, 60, plan, seed=seed, checkpoint=where, **how), fetched

        return run

    @pytest.mark.parametrize("name", VARIANTS)
    @pytest.mark.parametrize("epochs", [1, pytest.param(2, marks=pytest.mark.slow), 4])
    def test_resumed_training_has_the_same_result(self, run, tmp_path, name, epochs):
        whole, steps = run(None, **VARIANTS[name])
        checkpoint = tmp_path / "checkpoint"
        with pytest.raises(KeyboardInterrupt):
            run(checkpoint, killed_at=3 * epochs + 1, **VARIANTS[name])
        assert saved_progress(checkpoint)[0] == epochs
        torch.rand(3)  # the global generator must not matter
        before = torch.get_rng_state()
        net, rest = run(checkpoint, **VARIANTS[name])
        assert (steps, rest) == (15, 15 - 3 * epochs)
        for (key, a), b in zip(net.state_dict().items(), whole.state_dict().values(), strict=True):
            assert torch.equal(a, b), key
        assert torch.equal(torch.get_rng_state(), before) and net.training

    @pytest.mark.parametrize(
        ("name", "step"), [(name, 5) for name in VARIANTS] + [("momentum", step) for step in (1, 6, 14, 15)]
    )
    def test_signal_saves_the_last_step(self, run, tmp_path, name, step):
        """In the middle and at the end of an epoch, and at the end of the training."""
        whole, steps = run(None, **VARIANTS[name])
        checkpoint = tmp_path / "x.checkpoint.safetensors"
        with interruption.handled(), pytest.raises(interruption.Interrupted):
            run(checkpoint, signal_at=step, **VARIANTS[name])
        net, fetched = run(checkpoint, **VARIANTS[name])
        assert fetched == steps - step, "no batch is computed again"
        for (key, a), b in zip(net.state_dict().items(), whole.state_dict().values(), strict=True):
            assert torch.equal(a, b), key
        assert [p.name for p in tmp_path.iterdir()] == [checkpoint.name]

    def test_checkpoints_do_not_change_the_result(self, run, tmp_path):
        assert torch.equal(parameters(run(None)[0]), parameters(run(tmp_path / "checkpoint")[0]))

    def test_finished_training_is_only_loaded(self, run, tmp_path):
        called = []
        net, _ = run(tmp_path / "checkpoint", on_epoch=called.append)
        again, steps = run(tmp_path / "checkpoint", on_epoch=called.append)
        assert torch.equal(parameters(net), parameters(again)) and steps == 0
        assert called == [1, 2, 3, 4, 5] and (tmp_path / "checkpoint").exists()

    def test_on_epoch_is_called_once_per_epoch(self, run, tmp_path):
        """`on_epoch` is called before the checkpoint, so its output exists for every finished epoch."""
        calls = []

        def record(epoch):
            calls.append((epoch, saved_progress(tmp_path / "checkpoint")[0]))

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "checkpoint", killed_at=7, on_epoch=record)
        run(tmp_path / "checkpoint", on_epoch=record)
        assert calls == [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]

    def test_killed_twice(self, run, tmp_path):
        for killed_at in (4, 4):
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / "checkpoint", killed_at=killed_at)
        net, steps = run(tmp_path / "checkpoint")
        assert torch.equal(parameters(net), parameters(run(None)[0])) and steps == 9

    def test_seconds_add_up(self, run, tmp_path):
        def slow(epoch):
            time.sleep(0.05)

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "checkpoint", killed_at=9, on_epoch=slow)
        assert saved_progress(tmp_path / "checkpoint")[1] >= 0.15
        run(tmp_path / "checkpoint", on_epoch=slow)
        assert saved_progress(tmp_path / "checkpoint")[1] >= 0.25

    @pytest.mark.parametrize("length", [0, 60, -1])
    def test_damaged_checkpoint(self, run, tmp_path, length):
        path = tmp_path / "checkpoint"
        run(path, epochs=1, milestones=())
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(
            CheckpointError, match=rf"checkpoint {path} is damaged .*To start from scratch: rm {path}"
        ):
            run(path)

    @pytest.mark.parametrize("other", [{"vit": True}, {"norm": "batchnorm"}, {"norm": "none"}], ids=str)
    def test_checkpoint_of_another_network(self, run, tmp_path, other):
        run(tmp_path / "checkpoint", epochs=1, milestones=())
        with pytest.raises(CheckpointError, match=r"(?s)'net' in checkpoint .*To start from scratch: rm "):
            run(tmp_path / "checkpoint", **other)


class TestGradientRule:
    """Gradients other than that of the loss."""

    @pytest.mark.parametrize(
        "more",
        [{}, {"augment": DSA}, {"cutmix": 0.5}, {"optimizer": "adam"}],
        ids=lambda m: "+".join(m) or "plain",
    )
    def test_rule_that_computes_the_plain_gradient_equals_no_rule(
        self, data, blobs, convnet, recipe, runtime, more
    ):
        def backward(net, loss, x, target, raw, epoch):
            loss(net, x, target).backward()

        ends = []
        for gradient_rule in (None, backward):
            net = convnet(blobs).fresh(0, CPU)
            how = {"seed": 1, "runtime": runtime, "flip": True, "gradient_rule": gradient_rule}
            train(net, fetch_from(*data), 60, recipe(batch_size=25, **more), **how)
            ends.append(parameters(net))
        assert torch.equal(*ends)

    def test_arguments_of_the_rule(self, data, blobs, convnet, recipe, runtime):
        """The batch before and after augmentation, the epoch, and no gradient from the previous step."""
        seen = []

        def look(net, loss, x, target, raw, epoch):
            assert net.training and all(p.grad is None for p in net.parameters())
            assert raw.shape == x.shape and not torch.equal(raw, x)
            assert torch.equal(target, data[1]) and torch.equal(raw, data[0])
            assert loss(net, x, target).shape == ()
            for p in net.parameters():
                p.grad = torch.ones_like(p)
            seen.append(epoch)

        net = convnet(blobs).fresh(0, CPU)
        before = parameters(net)
        plan = recipe(batch_size=60, augment=DSA, momentum=0.0, weight_decay=0.0, epochs=3, milestones=(2,))
        train(net, fetch_from(*data), 60, plan, seed=1, runtime=runtime, flip=True, gradient_rule=look)
        assert seen == [0, 1, 2]
        torch.testing.assert_close(before - parameters(net), torch.full_like(before, 0.01 + 0.01 + 0.001))

    def test_loss_of_the_rule_uses_autocast(self, data, blobs, convnet, recipe, runtime):
        kinds = []

        def look(net, loss, x, target, raw, epoch):
            handle = net.classifier.register_forward_hook(lambda m, i, o: kinds.append(o.dtype))
            loss(net, x, target).backward()
            handle.remove()

        for autocast in (False, True):
            net, how = (
                convnet(blobs).fresh(0, CPU),
                replace(runtime, precision="bf16" if autocast else "fp32"),
            )
            plan = recipe(epochs=1, milestones=(), batch_size=60)
            train(net, fetch_from(*data), 60, plan, seed=1, runtime=how, flip=False, gradient_rule=look)
        assert kinds == [torch.float32, torch.bfloat16]


class TestLoss:
    def test_hard_and_one_hot_agree(self):
        logits, labels = torch.randn(5, 3), torch.tensor([0, 2, 1, 1, 0])
        torch.testing.assert_close(
            classification_loss(logits, labels), classification_loss(logits, F.one_hot(labels, 3).float())
        )

    def test_half_precision_logits_use_float32(self):
        logits = torch.randn(5, 3).bfloat16()
        loss = classification_loss(logits, torch.zeros(5, dtype=torch.int64))
        assert loss.dtype == torch.float32
        assert torch.equal(loss, F.cross_entropy(logits.float(), torch.zeros(5, dtype=torch.int64)))

    def test_cutmix_is_the_loss_of_mixed_labels(self):
        """keep * CE(y) + (1 - keep) * CE(partner) is the cross-entropy against the mixed label."""
        x = torch.randn(6, 1, 8, 8)
        logits, labels = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1])
        mixed, partner, keep = cutmix(x, torch.Generator().manual_seed(3), 1.0)
        target = keep * F.one_hot(labels, 4) + (1 - keep) * F.one_hot(labels[partner], 4)
        torch.testing.assert_close(mixed_loss(logits, labels, partner, keep), F.cross_entropy(logits, target))
        own = (mixed == x).flatten(1).float().mean(1)
        fixed = partner == torch.arange(6)
        assert torch.allclose(own[~fixed], keep) and bool((own[fixed] == 1).all())
        assert 0 < float(keep) < 1


class TestBatchNorm:
    def test_two_passes_equal_one_with_a_larger_momentum(self, data, blobs, convnet, recipe, runtime):
        """RDED's code passes each batch twice in train mode: r <- 0.9 (0.9 r + 0.1 b) + 0.1 b = 0.81 r + 0.19 b."""
        images, labels = data[0][:24], data[1][:24]
        plan = recipe(epochs=3, lr=0.05)
        once = convnet(blobs, norm="batchnorm").fresh(4, CPU)
        twice = convnet(blobs, norm="batchnorm").fresh(4, CPU)
        plan_once = plan.model_copy(update={"batchnorm_momentum": 0.19})
        train(once, fetch_from(images, labels), 24, plan_once, seed=1, runtime=runtime, flip=True)

        def second_pass(net, loss, x, target, raw, epoch):
            with torch.no_grad():
                net(x)
            loss(net, x, target).backward()

        train(
            twice,
            fetch_from(images, labels),
            24,
            plan,
            seed=1,
            runtime=runtime,
            flip=True,
            gradient_rule=second_pass,
        )
        a, b = once.state_dict(), twice.state_dict()
        for key in (k for k in a if not k.endswith("num_batches_tracked")):
            torch.testing.assert_close(a[key], b[key], rtol=1e-5, atol=1e-6)

    def test_keys_of_recipes_without_later_values_are_unchanged(self, recipe):
        later = {"batchnorm_momentum": 0.19, "cutmix_box": "truncated"}
        assert not later.keys() & recipe().identity().keys()
        assert later.items() <= recipe(**later).identity().items()


class TestLearning:
    @pytest.mark.parametrize("more", [{}, {"augment": "color_crop_scale_rotate"}, {"cutmix": 0.5}], ids=str)
    def test_blobs(self, blobs, convnet, recipe, runtime, more):
        index = torch.arange(len(blobs.train))
        fetch = fetch_from(blobs.train.inputs(index), blobs.train.labels)
        net = convnet(blobs).fresh(0, CPU)
        assert accuracy(net, blobs.test.batches(100), runtime) < 0.75
        plan = recipe(lr=0.05, epochs=15, milestones=(10,), **more)
        train(net, fetch, len(index), plan, seed=0, runtime=runtime, flip=False)
        assert accuracy(net, blobs.test.batches(100), runtime) > 0.9

    def test_accuracy_counts(self, runtime):
        class Fixed(torch.nn.Module):
            def forward(self, x):
                return F.one_hot(x.long(), 3).float()

        net = Fixed()
        parts = iter(
            [(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1])), (torch.tensor([2]), torch.tensor([2]))]
        )
        assert accuracy(net, parts, runtime) == 0.75 and net.training

    def test_accuracy_uses_eval_mode(self, blobs, convnet, runtime):
        """BatchNorm uses its running statistics and does not change them."""
        net = convnet(blobs, norm="batchnorm").fresh(0, CPU)
        before = {k: v.clone() for k, v in net.state_dict().items()}
        a = accuracy(net, blobs.test.batches(60), runtime)
        assert a == accuracy(net, blobs.test.batches(7), runtime), "the batch size does not matter"
        assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


class TestFastPaths:
    def test_autocast_trains_in_bfloat16(self, data, blobs, convnet, recipe, runtime):
        seen = set()
        net = convnet(blobs).fresh(0, CPU)
        net.classifier.register_forward_hook(lambda m, i, o: seen.add(o.dtype))
        before = parameters(net)
        half = replace(runtime, precision="bf16")
        train(net, fetch_from(*data), 60, recipe(), seed=0, runtime=half, flip=False)
        assert seen == {torch.bfloat16} and {p.dtype for p in net.parameters()} == {torch.float32}
        assert bool(torch.isfinite(parameters(net)).all()) and not torch.equal(before, parameters(net))
        full = convnet(blobs).fresh(0, CPU)
        train(full, fetch_from(*data), 60, recipe(), seed=0, runtime=runtime, flip=False)
        moved = (parameters(full) - before).norm()
        assert (parameters(full) - parameters(net)).norm() < 0.2 * moved, "training in bfloat16 is similar"
        assert math.isclose(
            accuracy(net, blobs.test.batches(60), half),
            accuracy(net, blobs.test.batches(60), runtime),
            abs_tol=0.05,
        )

    @pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
    def test_compiled_training_has_the_layout_of_the_machine(
        self, data, blobs, convnet, recipe, runtime, monkeypatch, layout
    ):
        def loss(net, x, y, autocast):
            assert all(t.is_contiguous(memory_format=layout) for t in (x, net.blocks[1][0].weight))
            return network_loss(net, x, y, autocast)

        monkeypatch.setattr("dd_bench.training.loop.compiled_layout", lambda device: layout)
        monkeypatch.setattr("dd_bench.training.loop.compiled_loss", lambda: loss)
        net = convnet(blobs).fresh(0, CPU)
        train(
            net, fetch_from(*data), 60, recipe(epochs=1), seed=0, runtime=runtime, flip=False, compiled=True
        )

    @pytest.mark.slow
    @pytest.mark.parametrize("more", [{}, {"cutmix": 0.5}], ids=["plain", "cutmix"])
    def test_compiled_equals_eager(self, data, blobs, convnet, recipe, runtime, more):
        ends = []
        for compiled in (False, True):
            net = convnet(blobs).fresh(0, CPU)
            plan = recipe(batch_size=25, **more)  # 25, 25, 10: the last batch of an epoch needs another graph
            train(net, fetch_from(*data), 60, plan, seed=0, runtime=runtime, flip=False, compiled=compiled)
            ends.append(parameters(net))
        moved = (ends[0] - parameters(convnet(blobs).fresh(0, CPU))).norm()
        assert (ends[0] - ends[1]).norm() < 1e-3 * moved


class TestSchedules:
    def rates(self, recipe, **values):
        how = recipe(milestones=(), lr=2.0, **values)
        optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))], how, torch.device("cpu"))
        found = []
        for epoch in range(how.epochs):
            set_lr(optimizer, how, epoch)
            found.append(optimizer.param_groups[0]["lr"])
        return found

    def test_cosine_decays_to_zero_after_the_last_epoch(self, recipe):
        found = self.rates(recipe, epochs=4, schedule="cosine")
        assert found == pytest.approx([1 + math.cos(math.pi * e / 4) for e in range(4)])

    def test_half_cosine_decays_to_half(self, recipe):
        found = self.rates(recipe, epochs=100, schedule="half_cosine")
        assert found[0] == 2.0 and found[-1] == pytest.approx(1.0, abs=0.02) and found[-1] > 1.0

    def test_warmup_before_the_cosine(self, recipe):
        found = self.rates(recipe, epochs=10, warmup=5, schedule="cosine")
        assert found[:6] == pytest.approx([0.02, 0.416, 0.812, 1.208, 1.604, 2.0])
        assert found[6:] == pytest.approx([1 + math.cos(math.pi * e / 5) for e in range(1, 5)])

    def test_weights_only_decay_filter(self, recipe, convnet, blobs):
        net = convnet(blobs).fresh(0, torch.device("cpu"))
        how = recipe(milestones=(), decay_filter="weights_only", weight_decay=0.1)
        groups = make_optimizer(net.parameters(), how, CPU).param_groups
        assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
        assert all(p.ndim >= 2 for p in groups[0]["params"]) and all(p.ndim < 2 for p in groups[1]["params"])
        assert sum(len(g["params"]) for g in groups) == len(list(net.parameters()))

    @pytest.mark.parametrize(
        ("n", "other", "epochs", "milestones"),
        [(10, 10, 8, (4,)), (40, 10, 2, (1,)), (10, 40, 32, (16,)), (7, 25, 24, (12,)), (25, 40, 11, (5,))],
    )
    def test_match_steps(self, recipe, n, other, epochs, milestones):
        plain = recipe(batch_size=10, epochs=8, milestones=(4,))
        found = plain.match_steps(n, other)
        assert (found.epochs, found.milestones) == (epochs, milestones)
        fixed = recipe(epochs=1, milestones=(), steps=30)
        assert fixed.match_steps(n, other) == fixed

    def test_identity_omits_later_keys_at_their_defaults(self, recipe):
        assert set(recipe().identity()) == set(recipe().model_dump()) - {
            "schedule",
            "warmup",
            "decay_filter",
            "views",
            "steps",
            "cutmix_box",
            "batchnorm_momentum",
            "epochs_by_size",
        }
        assert recipe(milestones=(), schedule="cosine").identity()["schedule"] == "cosine"

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"schedule": "cosine"}, r"schedule=cosine requires milestones=\[\]"),
            ({"warmup": 5}, "warmup must be < epochs=5"),
        ],
    )
    def test_invalid_recipes(self, recipe, values, message):
        with pytest.raises(ValueError, match=message):
            recipe(**values)


@pytest.mark.parametrize(("steps", "n"), [(1, 10), (3, 10), (7, 10), (9, 10), (4, 3), (None, 10)])
def test_samples_counts_the_images_processed_in_training(recipe, convnet, blobs, runtime, steps, n):
    """An online teacher labels this number of images during training."""
    plan = recipe(epochs=1 if steps else 2, batch_size=4, milestones=(), steps=steps).with_epochs(n)
    x, seen = blobs.train.inputs(torch.arange(n)), []

    def fetch(index):
        seen.append(len(index))
        return x[index], blobs.train.labels[index]

    train(convnet(blobs).fresh(0, runtime.device), fetch, n, plan, seed=0, runtime=runtime, flip=False)
    assert sum(seen) == plan.samples(n)
