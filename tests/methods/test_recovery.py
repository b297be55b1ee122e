"""SRe2L, CDA, INFER, RDED: their losses, schedules, budgets and starts, and that who made a piece changes nothing."""

import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from dd_bench.data.dataset import TensorSplit
from dd_bench.data.preprocess import ZCA
from dd_bench.distill.batchnorm_statistics import HookedTeacher
from dd_bench.methods._recovery.engine import Engine, recover_loss
from dd_bench.methods._recovery.patches import Patches, arranged, composites
from dd_bench.methods._recovery.views import RecoverViews
from dd_bench.methods.sre2l import Recover
from dd_bench.synthetic.compensated import CompensatedSet
from dd_bench.synthetic.images import ImageSet
from dd_bench.teachers.teachers import executed_norms, teacher_of

CPU = torch.device("cpu")


@pytest.fixture
def tiny(make_teacher, make_ctx, train_blobs):
    """A trained teacher of the train_blobs, in float64."""

    def make(**knobs):
        ctx = make_ctx()
        teacher = teacher_of(make_teacher(**knobs), train_blobs, ctx.cache, ctx.runtime, None)
        teacher.net.double()
        return teacher

    return make


class TestStatistics:
    def test_two_layers_by_hand(self, tiny):
        """|var - running var| + |mean - running mean| of the inputs of both BatchNorm layers."""
        teacher = tiny()
        x = torch.randn(6, 1, 8, 8, dtype=torch.float64)
        logits, distances = HookedTeacher(teacher)(x)
        inputs = []
        hooks = [
            m.register_forward_pre_hook(lambda m, z: inputs.append((m, z[0])))
            for m in teacher.net.modules()
            if isinstance(m, torch.nn.BatchNorm2d)
        ]
        assert torch.allclose(teacher.net(x), logits)
        for hook in hooks:
            hook.remove()
        wanted = []
        for m, z in inputs:
            flat = z.transpose(0, 1).flatten(1)  # (c, b h w)
            var = ((flat - flat.mean(1, keepdim=True)) ** 2).sum(1) / flat.shape[1]  # biased
            of_var, of_mean = var - m.running_var, flat.mean(1) - m.running_mean
            wanted.append(of_var.square().sum().sqrt() + of_mean.square().sum().sqrt())
        assert len(wanted) == 2
        assert torch.allclose(distances, torch.stack(wanted), rtol=1e-10)

    def test_a_batch_of_the_running_statistics_is_at_distance_zero(self, tiny):
        teacher, x = tiny(depth=1), torch.randn(6, 1, 8, 8, dtype=torch.float64)
        (norm,) = (m for m in teacher.net.modules() if isinstance(m, torch.nn.BatchNorm2d))
        seen = []
        hook = norm.register_forward_pre_hook(lambda m, z: seen.append(z[0]))
        teacher.net(x)
        hook.remove()
        var, mean = torch.var_mean(seen[0], (0, 2, 3), correction=0)
        norm.running_var.copy_(var)
        norm.running_mean.copy_(mean)
        assert float(HookedTeacher(teacher)(x)[1]) < 1e-10

    def test_its_gradient_is_that_of_finite_differences(self, tiny):
        tapped, x = HookedTeacher(tiny(activation="swish")), torch.randn(3, 1, 8, 8, dtype=torch.float64)
        x.requires_grad_()
        tapped(x)[1].sum().backward()
        v = torch.randn_like(x)
        with torch.no_grad():
            up, down = (float(tapped(x + s * 1e-5 * v)[1].sum()) for s in (1, -1))
        assert float((x.grad * v).sum()) == pytest.approx((up - down) / 2e-5, rel=1e-6)

    def test_the_loss_weighs_the_first_layer_and_all_of_them(self, make_teacher, make_ctx, train_blobs):
        """CE + weight (10 d_1 + d_2), a number and not a sign."""
        ctx = make_ctx()
        teacher = teacher_of(make_teacher(), train_blobs, ctx.cache, ctx.runtime, None)
        x, y = train_blobs.train.inputs(torch.arange(6)), torch.arange(6) % 3
        logits, d = HookedTeacher(teacher)(x)
        engine = Engine(train_blobs, [HookedTeacher(teacher)], None, 1, 0.1, (0.5, 0.9), 0.3, 10.0, False)
        layers = engine._layers(engine.teachers[0], CPU)
        loss, distances = recover_loss(engine.teachers[0], x, y, layers, weight=0.3, autocast=False)
        nll = -logits.log_softmax(1)[torch.arange(6), y].mean()
        assert float(loss) == pytest.approx(float(nll + 0.3 * (10 * d[0] + d[1])), rel=1e-5)
        assert torch.equal(distances, d)

    def test_in_bfloat16_networks_they_are_of_float32(self, make_teacher, make_ctx, train_blobs):
        """Activations are rounded, the sums over them are not: a mean of thousands of values keeps its digits."""
        ctx = make_ctx()
        teacher = teacher_of(make_teacher(), train_blobs, ctx.cache, ctx.runtime, None)
        x = train_blobs.train.inputs(torch.arange(40))
        tapped, inputs = HookedTeacher(teacher), []
        for m in teacher.net.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.register_forward_pre_hook(lambda m, z: inputs.append((m, z[0])))
        with torch.autocast("cpu", torch.bfloat16):
            _, distances = tapped(x)
            teacher.net(x)
        assert distances.dtype == torch.float32 and len(inputs) == len(distances)
        for (m, z), distance in zip(inputs, distances, strict=True):
            var, mean = torch.var_mean(z.double(), (0, 2, 3), correction=0)  # of the same rounded activations
            wanted = (var - m.running_var).norm() + (mean - m.running_mean).norm()
            assert float(distance) == pytest.approx(float(wanted), rel=1e-5)
            if z.dtype == torch.bfloat16:
                low = z.mean((0, 2, 3)), z.var((0, 2, 3), correction=0)
                rough = (low[1] - m.running_var).norm() + (low[0] - m.running_mean).norm()
                assert float(rough) != pytest.approx(float(wanted), rel=1e-5), (
                    "the test would see a bfloat16 sum"
                )

    def test_layers_are_named_in_order_of_registration_and_only_if_passed(self, tiny):
        teacher = tiny()
        names = [n for n, m in teacher.net.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert list(teacher.norms) == names
        teacher.net.never = torch.nn.BatchNorm2d(3)
        assert list(executed_norms(teacher.net, (1, 8, 8))) == names

    def test_teachers_are_frozen(self, tiny):
        tapped = HookedTeacher(tiny())
        assert not any(p.requires_grad for p in tapped.parameters())
        before = {k: v.clone() for k, v in tapped.named_buffers()}
        tapped(torch.randn(3, 1, 8, 8, dtype=torch.float64))
        assert all(torch.equal(v, before[k]) for k, v in tapped.named_buffers())


class TestCurriculum:
    def views(self, curriculum, milestone=1.0):
        return RecoverViews(
            smallest=0.08, curriculum=curriculum, milestone=milestone, flip=False, roll=(0, 0)
        )

    @pytest.mark.parametrize("milestone", [0.5, 1.0])
    @pytest.mark.parametrize(("curriculum", "half"), [("step", 1.0), ("linear", 0.54), ("cosine", 0.54)])
    def test_it_goes_from_the_whole_image_to_the_smallest_area(self, curriculum, half, milestone):
        views, end = self.views(curriculum, milestone), int(milestone * 1000)
        areas = [views.area(t, 1000) for t in (0, end // 2, end, end + 100)]
        assert areas == pytest.approx([1.0, half, 0.08, 0.08])

    def test_a_quarter_of_the_way(self):
        assert self.views("linear").area(250, 1000) == pytest.approx(0.08 + 0.92 * 0.75)
        assert self.views("cosine").area(250, 1000) == pytest.approx(
            0.08 + 0.92 * (1 + math.cos(math.pi / 4)) / 2
        )

    def test_without_a_milestone_it_is_sre2l(self):
        assert {self.views(c, 0.0).area(t, 10) for c in ("step", "linear", "cosine") for t in range(10)} == {
            0.08
        }
        assert {self.views("const").area(t, 10) for t in range(10)} == {0.08}

    def test_one_crop_flip_and_roll_for_the_whole_batch(self):
        views = RecoverViews(smallest=0.3, curriculum="const", milestone=1.0, flip=True, roll=(-2, 2))
        x = torch.rand(1, 1, 8, 8).expand(5, 1, 8, 8)
        for t in range(10):
            seen = views.draw(t, 10, (1, 8, 8), True, torch.Generator().manual_seed(t))(x)
            assert torch.equal(seen, seen[:1].expand_as(seen))

    def test_rolls_reach_both_ends_and_flips_are_dropped(self):
        views = RecoverViews(smallest=None, curriculum="const", milestone=1.0, flip=True, roll=(0, 2))
        x = torch.arange(9.0).view(1, 1, 3, 3)
        seen = {
            tuple(views.draw(0, 1, (1, 3, 3), False, torch.Generator().manual_seed(s))(x).flatten().tolist())
            for s in range(200)
        }
        assert seen == {tuple(x.roll((i, j), (2, 3)).flatten().tolist()) for i in range(3) for j in range(3)}


class TestImages:
    def test_one_step_is_adam_on_the_stated_loss(self, make_method, make_ctx, train_blobs, make_teacher):
        """A single iteration moves each pixel by the rate, against the sign of the gradient of CE + 0.5 L_BN."""
        method = make_method(
            "sre2l", iterations=1, lr_img=0.05, statistics=0.5, init="real", **{"views.roll": [0, 0]}
        )
        ctx = make_ctx()
        syn = method.distill(train_blobs, 1, ctx)
        (teacher,) = ctx.teachers_of(train_blobs)
        index = train_blobs.train.draw(1, ctx.generator("init"))[:, 0]
        x = train_blobs.train.inputs(index).requires_grad_()
        logits, distances = HookedTeacher(teacher)(x)
        weights = torch.tensor([10.0, 1.0])
        (F.cross_entropy(logits, torch.arange(3)) + 0.5 * (weights * distances).sum()).backward()
        moved = (train_blobs.preprocess.inverse(x - 0.05 * x.grad.sign()).clamp(0, 1) * 255).round()
        clear = x.grad.abs() > 1e-5  # Adam's first step is the sign, but for tiny gradients
        assert torch.equal(syn.images.float()[clear], moved[clear])

    def test_pixels_stay_in_the_range_of_pixels(self, make_method, make_ctx, train_blobs):
        syn = make_method("sre2l", iterations=3, lr_img=100.0).distill(train_blobs, 1, make_ctx())
        inputs, _ = syn.materialise(CPU)
        assert float(inputs.min()) >= -2 - 1e-6 and float(inputs.max()) <= 2 + 1e-6  # (0 or 1 - .5) / .25
        assert syn.space == "pixel"

    def test_chunks_of_classes_are_other_batches_of_the_same_start(self, make_method, make_ctx, train_blobs):
        whole, parts = (
            make_method("sre2l", iterations=0, init="real", classes=c).distill(
                train_blobs, 2, make_ctx(work=str(c))
            )
            for c in (None, 1)
        )
        assert torch.equal(whole.images, parts.images)

    def test_or_the_first_alone_guides(self, make_method, make_ctx, train_blobs, make_teacher):
        two = (make_teacher("one"), make_teacher("two", width=4))
        both, one = (
            make_method("sre2l").distill(train_blobs, 1, make_ctx(teachers=t, work=str(len(t))))
            for t in (two, two[:1])
        )
        assert torch.equal(both.images, one.images)

    def test_teachers_take_turns(self, make_method, make_ctx, train_blobs, make_teacher, monkeypatch):
        asked = []
        plain = HookedTeacher.forward
        monkeypatch.setattr(
            HookedTeacher, "forward", lambda s, x: asked.append(s.teacher.name) or plain(s, x)
        )
        teachers = (make_teacher("one"), make_teacher("two", width=4))
        ctx = make_ctx(teachers=teachers)
        make_method("sre2l_multi", iterations=5).distill(train_blobs, 1, ctx)
        assert asked == ["one", "two", "one", "two", "one"]

    def test_who_made_which_piece_changes_nothing(self, make_method, make_ctx, train_blobs, tmp_path):
        """A shard makes the last piece first, and dies; another run makes the rest."""
        method = make_method("sre2l", classes=1)
        whole = method.distill(train_blobs, 2, make_ctx(work="whole"))
        ctx = make_ctx(work="shards")
        plain = ctx.shards

        def shard(builds):
            plain(dict(list(builds.items())[::-2]))
            raise KeyboardInterrupt

        ctx.shards = shard
        with pytest.raises(KeyboardInterrupt):
            method.distill(train_blobs, 2, ctx)
        assert len(list((tmp_path / "shards" / "shards").glob("*.safetensors"))) == 3
        again = method.distill(train_blobs, 2, make_ctx(work="shards"))
        assert torch.equal(again.images, whole.images)


class TestCompensators:
    # classes, teachers, ipc, natural sets K, training images a class (M + 1) K, compensators M K, stored
    TABLE = (
        (10, 4, 10, 7, 35, 28, 98),
        (10, 4, 50, 35, 175, 140, 490),
        (100, 4, 10, 9, 45, 36, 936),
        (100, 4, 50, 48, 240, 192, 4992),
        (100, 4, 100, 96, 480, 384, 9984),
        (200, 4, 10, 9, 45, 36, 1836),
        (200, 4, 50, 49, 245, 196, 9996),
        (1000, 3, 10, 9, 36, 27, 9027),
        (1000, 3, 50, 49, 196, 147, 49147),
    )

    @pytest.mark.parametrize("row", TABLE, ids=lambda r: f"C{r[0]}-M{r[1]}-ipc{r[2]}")
    def test_the_budget(self, row):
        c, m, ipc, k, training, compensators, stored = row
        assert Recover.natural_sets(ipc, c, m) == k
        assert ((m + 1) * k, m * k, k * c + m * k) == (training, compensators, stored)
        assert stored <= ipc * c < (k + 1) * (c + m)

    def two(self, make_teacher):
        return make_teacher("one"), make_teacher("two", width=4)

    def test_the_set(self, make_method, make_ctx, train_blobs, make_teacher):
        """ipc=4 of 3 classes, two teachers: 12 images pay for K=2 natural sets of 3 and 4 compensators."""
        ctx = make_ctx(teachers=self.two(make_teacher))
        syn = make_method("infer").distill(train_blobs, 4, ctx)
        assert isinstance(syn, CompensatedSet)
        assert syn.images.shape == (6, 1, 8, 8) and syn.compensators.shape == (2, 2, 1, 8, 8)
        syn.check_ipc(4)
        with pytest.raises(ValueError, match=r"ipc=3 of 3 classes is 9 images; 2 natural sets .* are 10"):
            syn.check_ipc(3)
        images, labels = syn.materialise(CPU)
        assert len(images) == 3 * 6 and torch.bincount(labels).tolist() == [6, 6, 6]
        sizes = syn.stored_bytes()
        assert (sizes["images"], sizes["compensators"]) == (6 * 64, 4 * 64 * 2)

    def test_one_compensator_is_added_to_every_class_and_the_sum_is_clamped(
        self, make_method, make_ctx, train_blobs
    ):
        syn = make_method("infer", iterations=3, lr_img=0.1).distill(train_blobs, 2, make_ctx())
        images, _ = syn.materialise(CPU)
        natural, compensated = images.chunk(2)
        u = syn.compensators[0, 0].float()
        assert float(u.abs().max()) > 0.01
        assert torch.allclose(compensated, (natural + u).clamp(-2, 2))

    def test_one_step_is_adam_on_the_sum_over_the_classes(self, make_method, make_ctx, train_blobs):
        """Every class pulls at the one compensator; its first step is the sign of the sum of their gradients."""
        method = make_method("infer", iterations=1, lr_img=0.05, statistics=0.5, **{"views.roll": [0, 0]})
        ctx = make_ctx()
        syn = method.distill(train_blobs, 2, ctx)  # K=1, M=1
        (teacher,) = ctx.teachers_of(train_blobs)
        each = train_blobs.train.inputs(
            train_blobs.train.draw(1, ctx.generator("init"))[:, 0]
        ).requires_grad_()
        logits, distances = HookedTeacher(teacher)(each)
        (F.cross_entropy(logits, torch.arange(3)) + 0.5 * distances @ torch.tensor([10.0, 1.0])).backward()
        pull = each.grad.sum(0)
        assert syn.compensators.shape == (1, 1, 1, 8, 8)
        clear = pull.abs() > 1e-5
        assert clear.float().mean() > 0.9
        assert torch.allclose(syn.compensators[0, 0].float()[clear], -0.05 * pull.sign()[clear], atol=1e-4)
        assert bool((each.grad.sign() != pull.sign()).any()), "one class alone would pull elsewhere"

    def test_each_follows_its_own_teacher(self, make_method, make_ctx, train_blobs, make_teacher):
        one, two = self.two(make_teacher)
        both = make_method("infer").distill(train_blobs, 4, make_ctx(teachers=(one, two), work="both"))
        alone = make_method("infer").distill(train_blobs, 4, make_ctx(teachers=(one,), work="alone"))
        assert alone.compensators.shape[:2] == (3, 1)
        assert torch.equal(both.compensators[:, 0], alone.compensators[:2, 0])
        swapped = make_method("infer").distill(train_blobs, 4, make_ctx(teachers=(two, one), work="swapped"))
        assert not torch.equal(both.compensators[:, 0], swapped.compensators[:, 0]), (
            "the teacher alone differs"
        )

    def test_the_natural_images_alone_are_its_control(self, make_method, make_ctx, train_blobs):
        syn = make_method("infer").distill(train_blobs, 2, make_ctx())
        (natural,) = syn.controls().values()
        assert list(syn.controls()) == ["natural"]
        assert torch.equal(natural.materialise(CPU)[0], syn.materialise(CPU)[0][:3])

    def test_a_budget_without_room_is_a_reason(self, make_method, train_blobs, make_teacher):
        reason = make_method("infer").check_teachers(train_blobs, 1, self.two(make_teacher))
        assert "ipc=1 of 3 classes is 3 images" in reason and reason.endswith("Use ipc=2 or more")
        assert make_method("infer").check_teachers(train_blobs, 2, self.two(make_teacher)) is None

    def test_it_asks_for_as_many_images_as_there_are_natural_sets(
        self, make_method, make_blobs, make_teacher, make_architecture
    ):
        """ipc=4 of 3 classes, two teachers: two images of each class are enough, one is not."""
        method = make_method("infer")
        for counts, told in (((5, 2, 5), None), ((5, 1, 5), "(2 real images a class) exceeds class")):
            real = make_blobs(counts=counts).train_only()
            assert method.check_dataset(real, 4, make_architecture()) is None
            reason = method.check_teachers(real, 4, self.two(make_teacher))
            assert reason is told or told in reason

    def test_a_batch_of_fewer_classes_is_a_reason(self, make_method, train_blobs, make_architecture):
        reason = make_method("infer", classes=2).check_dataset(train_blobs, 2, make_architecture())
        assert "shared by all 3 classes" in reason and "method.classes=2" in reason


class TestPatches:
    def test_ranks_are_dealt_out_cell_by_cell(self):
        """Two images of 2x2 cells: number k * 2 + i is cell k of image i."""
        chosen = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 3, 3)
        grid = arranged(chosen, 2, 2, (1, 6, 6))
        assert grid[0, 0, ::3, ::3].tolist() == [[0, 2], [4, 6]]
        assert grid[1, 0, ::3, ::3].tolist() == [[1, 3], [5, 7]]
        assert bool((grid[0, 0, :3, :3] == 0).all() and (grid[0, 0, 3:, 3:] == 6).all())

    def test_cells_that_do_not_divide_the_image_are_enlarged(self):
        assert arranged(torch.rand(4, 1, 3, 3), 1, 2, (1, 7, 7)).shape == (1, 1, 7, 7)

    @pytest.mark.parametrize("factor", [1, 2])
    def test_ranks_by_a_scorer_that_likes_bright_images(self, make_ctx, train_blobs, factor):
        """Images of one grey each: their crops are of that grey, so the brightest images are the set, best first."""
        n, side = 12, 8
        grey = torch.randperm(n, generator=torch.Generator().manual_seed(0)) * 20
        pixels = grey.view(n, 1, 1, 1).expand(n, 1, side, side).to(torch.uint8)
        split = TensorSplit(pixels.contiguous(), torch.zeros(n, dtype=torch.int64), 1, train_blobs.preprocess)
        real = dataclasses.replace(train_blobs, train=split)
        observer = SimpleNamespace(
            logits=lambda x, exact: torch.stack([x.mean((1, 2, 3)), torch.zeros(len(x))], 1)
        )
        how = Patches(factor=factor, images=n, crops=3)
        found = composites(real, 2, 0, observer, how, make_ctx())["pixels"]
        cell = side // factor
        seen = found[:, 0, ::cell, ::cell].flatten(1).T.flatten()  # cell by cell, the images within
        assert seen.tolist() == sorted(grey.tolist(), reverse=True)[: 2 * factor**2]

    def test_the_most_realistic_are_taken(self, make_method, make_ctx, train_blobs):
        """The set's images score better with the observer than most random crops of the class."""
        ctx = make_ctx()
        method = make_method("rded", iterations=0, **{"patches.images": 17, "patches.crops": 5})
        syn = method.distill(train_blobs, 2, ctx)
        (observer,) = ctx.teachers_of(train_blobs)
        images, labels = syn.materialise(CPU)
        ours = F.cross_entropy(observer.logits(images), labels, reduction="none")
        loose = make_method("rded", iterations=0, **{"patches.images": 2, "patches.crops": 1})
        images, labels = loose.distill(train_blobs, 2, make_ctx(work="loose")).materialise(CPU)
        theirs = F.cross_entropy(observer.logits(images), labels, reduction="none")
        assert isinstance(syn, ImageSet) and float(ours.mean()) < float(theirs.mean())

    def test_too_few_images_to_cut_from(self, make_method, train_blobs, make_architecture):
        method = make_method("rded", **{"patches.images": 3, "patches.factor": 2})
        assert "ipc=1 is 4 patches a class" in method.check_dataset(train_blobs, 1, make_architecture())


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "changes", "told"),
        [
            ("sre2l", {"variable": "image"}, "method.variable='image' is unknown"),
            ("sre2l", {"init": "zeros"}, "method.init='zeros' is unknown"),
            ("sre2l", {"teachers": "each"}, "a compensator has one teacher"),
            ("infer", {"teachers": "first"}, "a compensator has one teacher"),
            ("sre2l", {"classes": 0}, "at least 1 class"),
            ("sre2l", {"statistics": -1.0}, "method.statistics=-1.0"),
            ("cda", {"views.smallest": 1.5}, "method.views.smallest=1.5"),
            ("sre2l", {"views.roll": [4, 0]}, "Use roll=[0, 4]"),
            ("rded", {"patches.crops": 0}, "method.patches.crops=0"),
        ],
    )
    def test_what_cannot_be(self, make_method, name, changes, told):
        with pytest.raises(ValueError, match="method") as error:
            make_method(name, **changes)
        assert told in str(error.value)

    def test_a_teacher_without_batchnorm(self, make_method, make_teacher, make_ctx, train_blobs):
        bare = make_teacher("bare", norm="instancenorm")
        reason = make_method("sre2l").check_teachers(train_blobs, 1, (bare,))
        assert "teacher bare (ConvNet) has no BatchNorm layer" in reason and "teacher=convnet_bn" in reason
        assert make_method("sre2l", iterations=0).check_teachers(train_blobs, 1, (bare,)) is None
        with pytest.raises(ValueError, match="no BatchNorm layer"):
            HookedTeacher(make_ctx(teachers=(bare,)).teachers_of(train_blobs)[0])

    @pytest.mark.parametrize("init", ["noise", "patches"])
    def test_a_compensator_of_no_real_images(self, make_method, init):
        with pytest.raises(ValueError, match=f"method.init={init}: a compensator is added to real images"):
            make_method("infer", init=init)

    def test_no_teacher(self, make_method, train_blobs):
        assert make_method("sre2l").check_teachers(train_blobs, 1, ()).endswith("Use teacher=convnet_bn")

    def test_whitened_images(self, make_method, make_blobs, make_architecture):
        real = make_blobs()
        whitened = dataclasses.replace(real, preprocess=ZCA.fit(torch.rand(20, 1, 8, 8)))
        assert "dataset.preprocess=normalise" in make_method("sre2l").check_dataset(
            whitened, 1, make_architecture()
        )
