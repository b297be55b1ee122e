"""Soft labels: the targets of each labeler, replay equals the online teacher, and mismatching stored labels."""

import dataclasses
import pickle

import pytest
import torch
import torch.nn.functional as F

from dd_bench.teachers.label_store import LabelStore
from dd_bench.teachers.labelers import Hard, StaticSoft, ensemble
from dd_bench.teachers.soft_labels import labelled_data
from dd_bench.training.label_recipe import LabelRecipe
from dd_bench.training.loop import train
from dd_bench.training.losses import SmoothedTarget, SoftTarget, distillation_loss
from dd_bench.training.views import Mixture, View, ViewRecipe

VIEWS = {"patches": 1, "pad": 1, "scale": (0.5, 1.0), "flip": True, "mix": "mixup", "alpha": 0.8}
PLAIN = {
    "kind": "online",
    "loss": "kl",
    "temperature": 4.0,
    "scaled": False,
    "hard_weight": 0.0,
    "mix_space": "logits",
    "teacher_mode": "eval",
    "pool": 1,
    "top": None,
    "source": None,
}


def label_recipe(**values):
    return LabelRecipe(**PLAIN | values)


@pytest.fixture
def views_recipe(recipe):
    def make(epochs=3, **values):
        return recipe(
            epochs=epochs, batch_size=4, milestones=(), views=ViewRecipe(**VIEWS | values), schedule="cosine"
        )

    return make


@pytest.fixture
def syn(train_blobs):
    index = torch.cat([train_blobs.train.of_class(c)[:3] for c in range(3)])
    return train_blobs.train.inputs(index), train_blobs.train.labels[index]


@pytest.fixture
def make_labelled(make_ctx, train_blobs, syn, views_recipe):
    def make(kind, work="run", seed=0, views=None, epochs=3, teachers=None, **values):
        ctx = make_ctx(seed, work=work, fresh_cache=True, teachers=teachers)
        return labelled_data(
            *syn,
            "this set",
            views_recipe(epochs, **views or {}),
            label_recipe(kind=kind, **values),
            train_blobs,
            ctx,
        )

    return make


def epoch_of(labelled, seed, epoch):
    """Return the batches of an epoch of the network with this seed: images before augmentation, views, targets."""
    batches = labelled.batches([seed])
    return [batches.make(draw) for draw in batches.draw(epoch)]


def logits_of(labelled, epochs=3):
    return [target.logits for e in range(epochs) for _, _, target in epoch_of(labelled, 0, e)]


class TestReplay:
    @pytest.mark.parametrize("mix", ["none", "mixup", "cutmix"])
    @pytest.mark.parametrize("mode", ["eval", "train"])
    def test_equals_the_online_teacher_with_the_seed_of_the_labels(self, make_labelled, make_ctx, mix, mode):
        online = make_labelled("online", views={"mix": mix}, teacher_mode=mode)
        replay = make_labelled("replay", views={"mix": mix}, teacher_mode=mode)
        seed = make_ctx().seed_for("labels")
        for e in range(3):
            for (_, x, now), (_, seen, stored) in zip(
                epoch_of(online, seed, e), epoch_of(replay, 99, e), strict=True
            ):
                assert torch.equal(x, seen)
                assert torch.allclose(now.logits, stored.logits, rtol=1e-3, atol=1e-3)  # float16
                assert torch.equal(now.hard, stored.hard)

    def test_training_has_the_same_losses_as_online(
        self, make_labelled, make_ctx, convnet, train_blobs, runtime, views_recipe
    ):
        seed, losses = make_ctx().seed_for("labels"), {}
        for kind in ("online", "replay"):
            labelled, seen = make_labelled(kind), []
            net = convnet(train_blobs).fresh(0, runtime.device)

            def watch(net, loss_of, x, target, raw, epoch, seen=seen):
                loss = loss_of(net, x, target)
                seen.append(loss.item())
                loss.backward()

            train(
                net,
                None,
                9,
                views_recipe(),
                seed=1,
                runtime=runtime,
                flip=False,
                labelled_batches=labelled.batches([seed]),
                gradient_rule=watch,
            )
            losses[kind] = seen
        assert losses["online"] == pytest.approx(losses["replay"], rel=2e-3)
        assert len(losses["online"]) == 9

    def test_all_networks_have_the_same_views(self, make_labelled):
        replay = make_labelled("replay")
        one, two = ([x for _, x, _ in epoch_of(replay, seed, 1)] for seed in (1, 2))
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
        online = make_labelled("online")
        one, two = ([x for _, x, _ in epoch_of(online, seed, 1)] for seed in (1, 2))
        assert not torch.equal(one[0], two[0])

    def test_label_bytes(self, make_labelled):
        store = make_labelled("replay").labeler
        assert store.label_bytes == 2 * 9 * 3 * 3 and store.forwards == 0  # fp16, images, epochs, classes
        assert make_labelled("replay", work="pool", pool=3).labeler.label_bytes == 2 * 9 * 3
        assert make_labelled("replay", work="top", top=1).labeler.label_bytes == (2 + 2 + 2) * 9 * 3

    def test_pool_of_batches(self, make_labelled):
        """Each pass over the pool repeats each stored batch exactly once; batches keep their images and labels."""
        every = make_labelled("replay", epochs=4, work="every")
        batches = [b for e in range(2) for b in epoch_of(every, 0, e)]  # three batches of 4, 4 and 1 images
        pooled = make_labelled("replay", epochs=4, pool=3, pool_unit="batch")  # 4 of 12 batches
        header = pooled.labeler.store.header
        assert (header.batches, header.epochs, header.rows) == (4, 2, 9 + 4)
        assert pooled.labeler.label_bytes == 2 * 3 * 13
        seen = [b for e in range(4) for b in epoch_of(pooled, 1, e)]
        used = []
        for _, x, target in seen:
            (number,) = [
                i
                for i, (_, other, _) in enumerate(batches[:4])
                if x.shape == other.shape and torch.equal(x, other)
            ]
            assert torch.equal(target.logits, batches[number][2].logits)
            assert torch.equal(target.hard, batches[number][2].hard)
            used.append(number)
        assert used[:4] == [0, 1, 2, 3]
        assert sorted(used[4:8]) == sorted(used[8:]) == [0, 1, 2, 3] and used[4:8] != used[8:]

    def test_labels_of_few_bits(self, make_labelled):
        whole, coded = (
            make_labelled("replay", work="whole"),
            make_labelled("replay", work="bits", label_bits=4),
        )
        for full, cut in zip(logits_of(whole), logits_of(coded), strict=True):
            step = (full.amax(1) - full.amin(1)) / 15
            assert ((full - cut).abs().amax(1) <= 0.51 * step + 2e-3).all() and not torch.equal(full, cut)
        assert coded.labeler.label_bytes == 9 * 3 * (2 + 4)  # three codes of 4 bits, and two float16 numbers

    def test_labels_of_epochs_that_are_read_in_turns(self, make_labelled):
        """Each draw has the labels of its own epoch."""
        replay = make_labelled("replay")
        expected = [[target.logits for _, _, target in epoch_of(replay, 0, e)] for e in (0, 1)]
        assert not torch.equal(expected[0][1], expected[1][1])
        batches = replay.batches([0])
        first, second = batches.draw(0), batches.draw(1)
        seen = [batches.make(next(draws))[2].logits for _ in range(3) for draws in (first, second)]
        for step in range(3):
            assert torch.equal(seen[2 * step], expected[0][step])
            assert torch.equal(seen[2 * step + 1], expected[1][step])

    def test_pool_repeats_stored_epochs(self, make_labelled):
        pooled = make_labelled("replay", epochs=12, pool=4)
        assert pooled.labeler.store.header.epochs == 3
        used = [pooled.labeler.store.stored_epoch(e) for e in range(12)]
        assert used[:3] == [0, 1, 2] and set(used) <= {0, 1, 2} and len(set(used[3:])) > 1
        stored = logits_of(pooled)
        later = [t.logits for _, _, t in epoch_of(pooled, 0, 7)]
        at = used[7] * len(later)
        assert all(torch.equal(a, b) for a, b in zip(later, stored[at : at + len(later)], strict=True))

    @pytest.mark.parametrize("temperature", [1.0, 20.0])
    def test_top_logits_preserve_probabilities(self, make_labelled, temperature):
        """The largest logits are exact. The others keep their total probability at the temperature of the loss."""
        whole = make_labelled("replay", work="whole", temperature=temperature)
        top = make_labelled("replay", work="top", top=1, temperature=temperature)
        for full, cut in zip(logits_of(whole), logits_of(top), strict=True):
            assert torch.equal(full.argmax(1), cut.argmax(1))
            share = [(z / temperature).softmax(1).amax(1) for z in (full, cut)]
            assert torch.allclose(*share, atol=2e-3 / temperature)
            low = cut.sort(1).values
            assert torch.equal(low[:, 0], low[:, 1])

    def test_top_logits_preserve_the_mean_with_mse(self, make_labelled):
        whole = make_labelled("replay", work="whole", loss="mse")
        top = make_labelled("replay", work="top", top=1, loss="mse")
        assert top.labeler.store.header.temperature is None
        for full, cut in zip(logits_of(whole), logits_of(top), strict=True):
            assert torch.allclose(full.mean(1), cut.mean(1), atol=2e-3)

    def test_killed_and_resumed_has_the_same_bytes(self, make_labelled, monkeypatch, tmp_path):
        calls = []
        plain = ensemble

        def killed(*what):
            calls.append(0)
            if len(calls) == 5:  # in the second epoch of three batches
                raise KeyboardInterrupt
            return plain(*what)

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr("dd_bench.teachers.soft_labels.ensemble", killed)
            make_labelled("replay", work="killed")
        resumed_calls = []
        monkeypatch.setattr(
            "dd_bench.teachers.soft_labels.ensemble", lambda *w: resumed_calls.append(0) or plain(*w)
        )
        again, whole = make_labelled("replay", work="killed"), make_labelled("replay", work="whole")
        assert len(resumed_calls) == 6 + 9, "the first epoch must not be labelled again"
        a, b = (c.labeler.store.path.read_bytes() for c in (again, whole))
        assert a == b

    def test_labels_of_another_run(self, make_labelled):
        original = make_labelled("replay")
        loaded = make_labelled(
            "replay", work="other", source=str(original.labeler.store.path.parent), teachers=()
        )
        for a, b in zip(logits_of(original), logits_of(loaded), strict=True):
            assert torch.equal(a, b)
        assert loaded.teachers == tuple(t.model_copy(update={"accuracy": None}) for t in original.teachers)
        assert [len(t.digest) for t in original.teachers] == [64] * len(original.teachers)

    def test_pickle_contains_only_the_path(self, make_labelled):
        store = make_labelled("replay").labeler.store
        data = pickle.dumps(store)
        assert len(data) < 500
        assert torch.equal(pickle.loads(data).load(1), store.load(1))


class TestLabelsThatChange:
    PHASES = (("soft", 1), ("hard", 2), ("soft", 1))

    @pytest.mark.parametrize("kind", ["static", "replay", "online"])
    def test_phases(self, make_labelled, kind):
        """Epochs with class labels have their own views. Only epochs with soft labels are stored, or need a teacher."""
        labelled = make_labelled(kind, epochs=4, phases=self.PHASES, hard_smoothing=0.8)
        kinds = [{type(target) for _, _, target in epoch_of(labelled, 0, e)} for e in range(4)]
        assert kinds == [{SoftTarget}, {SmoothedTarget}, {SmoothedTarget}, {SoftTarget}]
        _, x, target = epoch_of(labelled, 0, 1)[0]
        assert target.smoothing == 0.8 and target.partner is not None
        assert not any(torch.equal(x, epoch_of(labelled, 0, e)[0][1]) for e in (0, 2, 3))
        if kind == "replay":
            assert labelled.labeler.store.header.epochs == 2
            plain = make_labelled("replay", epochs=2, work="plain")
            for soft, epoch in ((0, 0), (1, 3)):
                for a, b in zip(epoch_of(labelled, 0, epoch), epoch_of(plain, 0, soft), strict=True):
                    assert torch.equal(a[1], b[1]) and torch.equal(a[2].logits, b[2].logits)
        assert labelled.labeler.forwards == (9 * 2 if kind == "online" else 0)

    def test_temperature_of_each_epoch(self, make_labelled):
        schedule = {"decay": 0.5, "every": 1, "minimum": 1.5}
        labelled = make_labelled("online", temperature_schedule=schedule)
        found = [{float(t.temperatures.teacher) for _, _, t in epoch_of(labelled, 0, e)} for e in range(3)]
        assert found == [{4.0}, {2.0}, {1.5}]

    def test_student_temperature_changes_after_the_last_batch_of_an_epoch(self, make_labelled):
        labelled = make_labelled("online", student_temperature="calibrated")
        batches = labelled.batches([0])
        seen, student = [], batches.state["student temperature"]
        for epoch in range(2):
            for draw in batches.draw(epoch):
                _, _, target = batches.make(draw)
                seen.append(float(student))
                distillation_loss(0.1 * target.logits, target)
        assert seen[:3] == [1.0] * 3 and seen[3] == seen[4] == seen[5] < 1
        assert float(labelled.batches([0]).state["student temperature"]) == 1.0, "each network has its own"


class TestMismatchingStores:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"label_bits": 4}, r"bits of a logit .* expected 4, got None"),
            ({"pool_unit": "batch"}, r"got unit epoch. Use protocol\.labels\.pool_unit=epoch"),
            ({"views": {"mix": "cutmix"}}, "the views of the labels .* must match this training"),
            ({"top": 1}, r"number of stored logits per view .* expected 1, got None"),
            ({"teacher_mode": "train"}, r"protocol\.labels\.teacher_mode=eval"),
            ({"teacher_weights": (1.0,)}, r"protocol\.labels\.teacher_weights=None"),
            ({"epochs": 5}, r"must cover 5 epochs, got 3. Use protocol\.recipe\.epochs=3, or"),
            ({"epochs": 11, "pool": 2}, r"must cover 6 epochs, got 3. Use protocol\.recipe\.epochs=6"),
        ],
    )
    def test_another_training(self, make_labelled, change, message):
        source = str(make_labelled("replay").labeler.store.path.parent)
        with pytest.raises(ValueError, match=message):
            make_labelled("replay", work="other", source=source, **change)

    def test_another_temperature(self, make_labelled):
        source = str(make_labelled("replay", top=1, temperature=4.0).labeler.store.path.parent)
        with pytest.raises(
            ValueError, match=r"Use protocol\.labels\.loss=kl protocol\.labels\.temperature=4\.0"
        ):
            make_labelled("replay", work="other", source=source, top=1, temperature=20.0)

    def test_another_set(self, make_labelled, syn, make_ctx, train_blobs, views_recipe):
        source = str(make_labelled("replay").labeler.store.path.parent)
        images, labels = syn
        with pytest.raises(
            ValueError, match=r"the images of the labels .* expected another set.*, got this set"
        ):
            labelled_data(
                images,
                labels,
                "another set",
                views_recipe(),
                label_recipe(kind="replay", source=source),
                train_blobs,
                make_ctx(),
            )

    def test_other_classes(self, make_labelled, syn, make_ctx, train_blobs, views_recipe):
        source = str(make_labelled("replay").labeler.store.path.parent)
        other = dataclasses.replace(train_blobs, class_names=("b", "a", "c"))
        with pytest.raises(
            ValueError, match=r"the class names of the labels .* expected item 0: b, got item 0: a"
        ):
            labelled_data(
                *syn,
                "this set",
                views_recipe(),
                label_recipe(kind="replay", source=source),
                other,
                make_ctx(),
            )

    def test_missing_and_damaged_labels(self, make_labelled, tmp_path):
        with pytest.raises(ValueError, match="is not a folder of stored labels"):
            LabelStore(tmp_path, torch.device("cpu"))
        path = make_labelled("replay").labeler.store.path
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ValueError, match="are damaged: the file must have"):
            LabelStore(path.parent, torch.device("cpu"))


class TestStatic:
    def test_logits_of_unaugmented_images(self, make_labelled, make_ctx, syn, train_blobs):
        labelled = make_labelled("static")
        (teacher,) = make_ctx(fresh_cache=True).teachers_of(train_blobs)
        assert torch.allclose(labelled.labeler.logits.float(), teacher.logits(syn[0]), rtol=1e-3, atol=1e-3)
        assert labelled.labeler.label_bytes == 9 * 3 * 2

    def view(self, keep=0.3):
        mixture = Mixture(torch.tensor([1, 0]), torch.tensor(keep), None)
        return View(torch.tensor([0, 1]), torch.zeros(2, 1, 1, 1), mixture)

    def test_mixture_of_logits(self):
        z = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 4.0]])
        logits = (
            StaticSoft(label_recipe(kind="static"), torch.tensor([2, 2]), z.half()).target(self.view()).logits
        )
        assert torch.allclose(logits, 0.3 * z + 0.7 * z[[1, 0]], atol=1e-3)

    def test_mixture_of_tempered_probabilities(self):
        z = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 4.0]])
        recipe = label_recipe(kind="static", mix_space="probabilities")
        logits = StaticSoft(recipe, torch.tensor([2, 2]), z.half()).target(self.view()).logits
        p = (z / 4).softmax(1)
        assert torch.allclose((logits / 4).softmax(1), 0.3 * p + 0.7 * p[[1, 0]], atol=1e-3)


class TestEnsemble:
    def test_mean_of_logits(self, make_ctx, train_blobs, make_teacher, syn):
        ctx = make_ctx(teachers=(make_teacher("one"), make_teacher("two", width=4)))
        one, two = ctx.teachers_of(train_blobs)
        x = syn[0]
        assert torch.allclose(ensemble([one, two], x, "eval"), (one.logits(x) + two.logits(x)) / 2)

    def test_weighted_mean_of_logits(self, make_ctx, train_blobs, make_teacher, syn):
        ctx = make_ctx(teachers=(make_teacher("one"), make_teacher("two", width=4)))
        one, two = ctx.teachers_of(train_blobs)
        x = syn[0]
        found = ensemble([one, two], x, "eval", (3.0, 1.0))
        assert torch.allclose(found, 0.75 * one.logits(x) + 0.25 * two.logits(x), atol=1e-5)

    @pytest.mark.parametrize("kind", ["static", "replay", "online"])
    def test_weights_of_teachers(self, make_labelled, make_teacher, kind):
        """Only their ratios matter, a weight of 0 leaves a teacher out, and stored labels keep the weights."""
        two = (make_teacher("one"), make_teacher("two", width=4))
        make = lambda work, **values: make_labelled(kind, work=work, **values)  # noqa: E731
        alone = logits_of(make("alone", teachers=two[:1]))
        weighted = make("weighted", teachers=two, teacher_weights=(2.0, 0.0))
        for a, b in zip(alone, logits_of(weighted), strict=True):
            torch.testing.assert_close(a, b)
        if kind == "replay":
            store = weighted.labeler.store
            assert store.header.teacher_weights == (2.0, 0.0) and "teacher_weights" in store.header.metadata
        with pytest.raises(ValueError, match=r"one weight for each of 1 teachers, got \[2\.0, 0\.0\]"):
            make("wrong", teachers=two[:1], teacher_weights=(2.0, 0.0))

    def test_invalid_weights(self):
        for weights in ((), (0.0, 0.0), (1.0, -0.5)):
            with pytest.raises(ValueError, match="teacher_weights must be numbers >= 0 with a positive sum"):
                label_recipe(kind="static", teacher_weights=weights)

    def test_online_teachers_count_forwards(self, make_labelled, make_teacher):
        two = (make_teacher("one"), make_teacher("two", width=4))
        assert make_labelled("online", teachers=two).labeler.forwards == 2 * 3 * 9
        assert make_labelled("online").labeler.label_bytes == 0

    def test_online_teachers_count_their_weights(self, make_labelled, make_ctx, train_blobs):
        (teacher,) = make_ctx(fresh_cache=True).teachers_of(train_blobs)
        floats = [v for v in teacher.net.state_dict().values() if v.is_floating_point()]
        counters = len(teacher.norms)  # number of batches of each BatchNorm layer, int64
        expected = 4 * sum(v.numel() for v in floats) + 8 * counters
        assert make_labelled("online").labeler.teacher_bytes == expected
        assert make_labelled("replay").labeler.teacher_bytes == 0


class TestHard:
    def test_no_teacher_and_both_classes_of_a_mixture(self, make_labelled, syn):
        labelled = make_labelled("hard", teachers=())
        (_, _, (y, partner, keep)) = epoch_of(labelled, 0, 0)[0]
        assert isinstance(labelled.labeler, Hard) and y.dtype == torch.int64
        assert len(y) == len(partner) == 4 and 0 <= float(keep) <= 1


class TestLoss:
    z = torch.tensor([[1.0, 2.0, 3.0], [0.0, -1.0, 4.0]])
    out = torch.tensor([[0.5, 2.0, 1.0], [0.0, 1.0, 2.0]])
    y = torch.tensor([2, 0])

    def loss(self, **values):
        return float(
            distillation_loss(self.out, SoftTarget(self.z, self.y, None, None, label_recipe(**values)))
        )

    def test_kl_divergence_of_tempered_distributions(self):
        p, q = (self.z / 4).softmax(1), (self.out / 4).softmax(1)
        expected = float((p * (p / q).log()).sum(1).mean())
        assert self.loss() == pytest.approx(expected, rel=1e-5)
        assert self.loss(scaled=True) == pytest.approx(16 * expected, rel=1e-5)

    def test_mse_and_hard_label(self):
        expected = float(((self.z - self.out) ** 2).mean())
        assert self.loss(loss="mse") == pytest.approx(expected)
        hard = float(F.cross_entropy(self.out, self.y))
        assert self.loss(loss="mse", hard_weight=0.1) == pytest.approx(expected + 0.1 * hard)

    def test_hard_label_of_a_mixture(self):
        target = SoftTarget(
            self.z, self.y, torch.tensor([1, 0]), torch.tensor(0.25), label_recipe(hard_weight=1.0)
        )
        hard = 0.25 * F.cross_entropy(self.out, self.y) + 0.75 * F.cross_entropy(self.out, self.y[[1, 0]])
        assert float(distillation_loss(self.out, target)) == pytest.approx(
            self.loss() + float(hard), rel=1e-5
        )

    def test_loss_of_equal_logits_is_zero(self):
        for loss in ("kl", "mse"):
            assert float(
                distillation_loss(self.z, SoftTarget(self.z, self.y, None, None, label_recipe(loss=loss)))
            ) == pytest.approx(0)
