"""Tests of the shared parts of SRe2L, CDA, INFER and RDED: loss, views of a batch, shards and error messages."""

import dataclasses

import pytest
import torch

from dd_bench.data.preprocess import ZCA
from dd_bench.distillation.batchnorm_statistics import HookedTeacher
from dd_bench.methods._recovery.objective import InTurn, recover_loss
from dd_bench.methods._recovery.views import RecoverViews
from dd_bench.models.network import executed_norms
from dd_bench.teachers.teachers import teacher_of

CPU = torch.device("cpu")


@pytest.fixture
def tiny(make_teacher, make_ctx, train_blobs):
    """A teacher trained on `train_blobs`, in float64."""

    def make(**knobs):
        ctx = make_ctx()
        teacher = teacher_of(make_teacher(**knobs), train_blobs, ctx.cache, ctx.runtime, None)
        teacher.net.double()
        return teacher

    return make


class TestStatistics:
    def test_two_layers_equal_explicit_computation(self, tiny):
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
        expected = []
        for m, z in inputs:
            flat = z.transpose(0, 1).flatten(1)  # (c, b h w)
            var = ((flat - flat.mean(1, keepdim=True)) ** 2).sum(1) / flat.shape[1]  # biased
            of_var, of_mean = var - m.running_var, flat.mean(1) - m.running_mean
            expected.append(of_var.square().sum().sqrt() + of_mean.square().sum().sqrt())
        assert len(expected) == 2
        assert torch.allclose(distances, torch.stack(expected), rtol=1e-10)

    def test_distance_is_zero_for_the_running_statistics(self, tiny):
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

    def test_gradient_against_finite_differences(self, tiny):
        hooked, x = HookedTeacher(tiny(activation="swish")), torch.randn(3, 1, 8, 8, dtype=torch.float64)
        x.requires_grad_()
        hooked(x)[1].sum().backward()
        v = torch.randn_like(x)
        with torch.no_grad():
            up, down = (float(hooked(x + s * 1e-5 * v)[1].sum()) for s in (1, -1))
        assert float((x.grad * v).sum()) == pytest.approx((up - down) / 2e-5, rel=1e-6)

    def test_loss_weights(self, make_teacher, make_ctx, train_blobs):
        """The loss is CE + weight (10 d_1 + d_2)."""
        ctx = make_ctx()
        teacher = teacher_of(make_teacher(), train_blobs, ctx.cache, ctx.runtime, None)
        x, y = train_blobs.train.inputs(torch.arange(6)), torch.arange(6) % 3
        logits, d = HookedTeacher(teacher)(x)
        objective = InTurn([HookedTeacher(teacher)], 0.3, 10.0, autocast=False, compiled=False)
        loss, distances = recover_loss(
            objective.teachers[0], x, y, objective.layers[0], weight=0.3, autocast=False
        )
        nll = -logits.log_softmax(1)[torch.arange(6), y].mean()
        assert float(loss) == pytest.approx(float(nll + 0.3 * (10 * d[0] + d[1])), rel=1e-5)
        assert torch.equal(distances, d)
        parts = objective(7, x, y)
        assert torch.equal(parts.loss, loss) and torch.equal(parts.statistics, 10 * d[0] + d[1])

    def test_statistics_are_float32_under_autocast(self, make_teacher, make_ctx, train_blobs):
        """Activations are rounded to bfloat16, but their statistics are accumulated in float32."""
        ctx = make_ctx()
        teacher = teacher_of(make_teacher(), train_blobs, ctx.cache, ctx.runtime, None)
        x = train_blobs.train.inputs(torch.arange(40))
        hooked, inputs = HookedTeacher(teacher), []
        for m in teacher.net.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.register_forward_pre_hook(lambda m, z: inputs.append((m, z[0])))
        with torch.autocast("cpu", torch.bfloat16):
            _, distances = hooked(x)
            teacher.net(x)
        assert distances.dtype == torch.float32 and len(inputs) == len(distances)
        for (m, z), distance in zip(inputs, distances, strict=True):
            var, mean = torch.var_mean(z.double(), (0, 2, 3), correction=0)  # of the same rounded activations
            expected = (var - m.running_var).norm() + (mean - m.running_mean).norm()
            assert float(distance) == pytest.approx(float(expected), rel=1e-5)
            if z.dtype == torch.bfloat16:
                rounded = z.mean((0, 2, 3)), z.var((0, 2, 3), correction=0)
                imprecise = (rounded[1] - m.running_var).norm() + (rounded[0] - m.running_mean).norm()
                # the tolerance above would detect a sum in bfloat16
                assert float(imprecise) != pytest.approx(float(expected), rel=1e-5)

    def test_unused_batchnorm_layers_are_ignored(self, tiny):
        teacher = tiny()
        names = [n for n, m in teacher.net.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert list(teacher.norms) == names
        teacher.net.never = torch.nn.BatchNorm2d(3)
        assert list(executed_norms(teacher.net, (1, 8, 8))) == names

    def test_teachers_are_frozen(self, tiny):
        hooked = HookedTeacher(tiny())
        assert not any(p.requires_grad for p in hooked.parameters())
        before = {k: v.clone() for k, v in hooked.named_buffers()}
        hooked(torch.randn(3, 1, 8, 8, dtype=torch.float64))
        assert all(torch.equal(v, before[k]) for k, v in hooked.named_buffers())


class TestViews:
    def test_view_is_the_same_for_the_whole_batch(self):
        views = RecoverViews(smallest=0.3, curriculum="const", milestone=1.0, flip=True, roll=(-2, 2))
        x = torch.rand(1, 1, 8, 8).expand(5, 1, 8, 8)
        for t in range(10):
            seen = views.draw(t, 10, (1, 8, 8), True, torch.Generator().manual_seed(t))(x)
            assert torch.equal(seen, seen[:1].expand_as(seen))

    def test_rolls_include_both_ends_and_flip_can_be_disabled(self):
        views = RecoverViews(smallest=None, curriculum="const", milestone=1.0, flip=True, roll=(0, 2))
        x = torch.arange(9.0).view(1, 1, 3, 3)
        seen = {
            tuple(views.draw(0, 1, (1, 3, 3), False, torch.Generator().manual_seed(s))(x).flatten().tolist())
            for s in range(200)
        }
        assert seen == {tuple(x.roll((i, j), (2, 3)).flatten().tolist()) for i in range(3) for j in range(3)}


class TestErrors:
    @pytest.mark.parametrize("name", ["sre2l", "infer"])
    @pytest.mark.parametrize(
        ("changes", "reason"),
        [
            ({"statistics": -1.0}, "method.statistics must be a number >= 0, got -1.0"),
            ({"lr_img": float("nan")}, "method.lr_img must be a number >= 0, got nan"),
            ({"first_layer": float("inf")}, "method.first_layer must be a number >= 0, got inf"),
            ({"views.smallest": 1.5}, "method.views.smallest=1.5"),
            ({"views.roll": [4, 0]}, "Example: roll=[0, 4]"),
        ],
    )
    def test_invalid_arguments_raise(self, make_method, name, changes, reason):
        with pytest.raises(ValueError, match="method") as error:
            make_method(name, **changes)
        assert reason in str(error.value)

    @pytest.mark.parametrize("name", ["sre2l", "sre2l_multi", "cda", "infer"])
    def test_check_teachers_without_batchnorm(self, make_method, make_teacher, train_blobs, name):
        bare = make_teacher("bare", norm="instancenorm")
        reason = make_method(name).check_teachers(train_blobs, 2, (bare,))
        assert "teacher bare (ConvNet) has no BatchNorm layer" in reason and "teacher=convnet_bn" in reason
        assert make_method(name, iterations=0).check_teachers(train_blobs, 2, (bare,)) is None

    def test_hooked_teacher_without_batchnorm_raises(self, make_teacher, make_ctx, train_blobs):
        bare = make_teacher("bare", norm="instancenorm")
        with pytest.raises(ValueError, match="no BatchNorm layer"):
            HookedTeacher(make_ctx(teachers=(bare,)).teachers_of(train_blobs)[0])

    @pytest.mark.parametrize("name", ["sre2l", "cda", "infer", "rded"])
    def test_no_teacher(self, make_method, train_blobs, name):
        assert make_method(name).check_teachers(train_blobs, 2, ()).endswith("Use teacher=convnet_bn")

    @pytest.mark.parametrize("name", ["sre2l", "cda", "infer", "rded"])
    def test_zca_is_not_supported(self, make_method, make_blobs, make_architecture, name):
        real = make_blobs()
        whitened = dataclasses.replace(real, preprocess=ZCA.fit(torch.rand(20, 1, 8, 8)))
        reason = make_method(name).check_dataset(whitened, 2, make_architecture())
        assert "dataset.preprocess=normalise" in reason


@pytest.mark.parametrize(("name", "changes", "shards"), [("rded", {}, None), ("sre2l", {"classes": 1}, 3)])
def test_result_does_not_depend_on_the_process_of_a_shard(
    make_method, make_ctx, train_blobs, tmp_path, name, changes, shards
):
    """The first run builds every second shard, starting with the last, and is killed. Another run builds the rest."""
    method = make_method(name, **changes)
    whole = method.distill(train_blobs, 2, make_ctx(work="whole"))
    ctx = make_ctx(work="shards")
    original = ctx.shards

    def shard(builds):
        original(dict(list(builds.items())[::-2]))
        raise KeyboardInterrupt

    ctx.shards = shard
    with pytest.raises(KeyboardInterrupt):
        method.distill(train_blobs, 2, ctx)
    built = len(list((tmp_path / "shards" / "shards").glob("*.safetensors")))
    assert built == shards or shards is None
    resumed = method.distill(train_blobs, 2, make_ctx(work="shards"))
    assert torch.equal(resumed.images, whole.images)
