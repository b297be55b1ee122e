"""Tests of INFER: budget, one explicit step, one compensator per teacher, and controls."""

import pytest
import torch
import torch.nn.functional as F

from dd_bench.distillation.batchnorm_statistics import HookedTeacher
from dd_bench.methods.infer import INFER
from dd_bench.synthetic.compensated import CompensatedSet

CPU = torch.device("cpu")

# classes C, teachers M, ipc, natural sets K, training images per class (M + 1) K, compensators M K, stored images
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
def test_budget(row):
    c, m, ipc, k, training, compensators, stored = row
    assert INFER.natural_sets(ipc, c, m) == k
    assert ((m + 1) * k, m * k, k * c + m * k) == (training, compensators, stored)
    assert stored <= ipc * c < (k + 1) * (c + m)


def two_teachers(make_teacher):
    return make_teacher("one"), make_teacher("two", width=4)


def test_set_of_two_teachers(make_method, make_ctx, train_blobs, make_teacher):
    """With ipc=4, 3 classes and two teachers, K=2 natural sets of 3 images and 4 compensators fit into 12 images."""
    ctx = make_ctx(teachers=two_teachers(make_teacher))
    syn = make_method("infer").distill(train_blobs, 4, ctx)
    assert isinstance(syn, CompensatedSet)
    assert syn.images.shape == (6, 1, 8, 8) and syn.compensators.shape == (2, 2, 1, 8, 8)
    syn.check_ipc(4)
    with pytest.raises(
        ValueError,
        match=r"ipc=3, a set must store at most 3 images per class, got 3.33333 .*: 2 natural sets",
    ):
        syn.check_ipc(3)
    images, labels = syn.materialise(CPU)
    assert len(images) == 3 * 6 and torch.bincount(labels).tolist() == [6, 6, 6]
    sizes = syn.stored_bytes()
    assert (sizes["images"], sizes["compensators"]) == (6 * 64, 4 * 64 * 2)


def test_compensator_is_added_to_every_class_and_clamped(make_method, make_ctx, train_blobs):
    syn = make_method("infer", iterations=3, lr_img=0.1).distill(train_blobs, 2, make_ctx())
    images, _ = syn.materialise(CPU)
    natural, compensated = images.chunk(2)
    u = syn.compensators[0, 0].float()
    assert float(u.abs().max()) > 0.01
    assert torch.allclose(compensated, (natural + u).clamp(-2, 2))


def test_one_step_is_adam_on_the_gradient_summed_over_classes(make_method, make_ctx, train_blobs):
    """Adam's first step is -lr times the sign of the gradient, which is summed over the classes."""
    method = make_method("infer", iterations=1, lr_img=0.05, statistics=0.5, **{"views.roll": [0, 0]})
    ctx = make_ctx()
    syn = method.distill(train_blobs, 2, ctx)  # K=1, M=1
    (teacher,) = ctx.teachers_of(train_blobs)
    each = train_blobs.train.inputs(train_blobs.train.draw(1, ctx.generator("init"))[:, 0]).requires_grad_()
    logits, distances = HookedTeacher(teacher)(each)
    (F.cross_entropy(logits, torch.arange(3)) + 0.5 * distances @ torch.tensor([10.0, 1.0])).backward()
    gradient = each.grad.sum(0)
    assert syn.compensators.shape == (1, 1, 1, 8, 8)
    large = gradient.abs() > 1e-5
    assert large.float().mean() > 0.9
    assert torch.allclose(syn.compensators[0, 0].float()[large], -0.05 * gradient.sign()[large], atol=1e-4)
    assert bool((each.grad.sign() != gradient.sign()).any())  # the gradients of single classes differ


def test_each_compensator_has_its_own_teacher(make_method, make_ctx, train_blobs, make_teacher):
    one, two = two_teachers(make_teacher)
    both = make_method("infer").distill(train_blobs, 4, make_ctx(teachers=(one, two), work="both"))
    alone = make_method("infer").distill(train_blobs, 4, make_ctx(teachers=(one,), work="alone"))
    assert alone.compensators.shape[:2] == (3, 1)
    assert torch.equal(both.compensators[:, 0], alone.compensators[:2, 0])
    swapped = make_method("infer").distill(train_blobs, 4, make_ctx(teachers=(two, one), work="swapped"))
    assert not torch.equal(both.compensators[:, 0], swapped.compensators[:, 0])  # only the teacher differs


def test_control_is_the_natural_images(make_method, make_ctx, train_blobs):
    syn = make_method("infer").distill(train_blobs, 2, make_ctx())
    (natural,) = syn.controls().values()
    assert list(syn.controls()) == ["natural"]
    assert torch.equal(natural.materialise(CPU)[0], syn.materialise(CPU)[0][:3])


def test_too_small_budget(make_method, train_blobs, make_teacher):
    reason = make_method("infer").check_teachers(train_blobs, 1, two_teachers(make_teacher))
    assert reason.startswith("ipc must be >= 2") and reason.endswith("got 1. Example: ipc=2")
    assert make_method("infer").check_teachers(train_blobs, 2, two_teachers(make_teacher)) is None


def test_too_few_images_for_natural_sets(make_method, make_blobs, make_teacher, make_architecture):
    """With ipc=4, 3 classes and two teachers, each class must have two images."""
    method = make_method("infer")
    for counts, expected in (
        ((5, 2, 5), None),
        ((5, 1, 5), "(2 real images per class) exceeds the size of class"),
    ):
        real = make_blobs(counts=counts).train_only()
        assert method.check_dataset(real, 4, make_architecture()) is None
        reason = method.check_teachers(real, 4, two_teachers(make_teacher))
        assert reason is expected or expected in reason


@pytest.mark.parametrize(
    "key", [{"init": "noise"}, {"init": "patches"}, {"classes": 2}, {"teachers": "first"}], ids=str
)
def test_unsupported_arguments_raise(key):
    """For example, with fewer classes per batch there would be more compensators than the budget allows."""
    (name,) = key
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}'"):
        INFER(iterations=1, lr_img=0.1, betas=(0.5, 0.9), statistics=1.0, first_layer=10.0, views={}, **key)
