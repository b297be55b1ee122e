"""Tests of INFER on the images of another set: equations, labels, budget, resuming, and its card in a run."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from dd_bench.distillation.batchnorm_statistics import HookedTeacher
from dd_bench.pipeline.base_set import load_base
from dd_bench.pipeline.compose import RunConfig, compose
from dd_bench.synthetic import storage
from dd_bench.synthetic.card import read_card
from dd_bench.synthetic.compensated import CompensatedSet
from dd_bench.synthetic.images import ImageSet

CPU = torch.device("cpu")


def teachers_of(make_teacher, m):
    return tuple(make_teacher(f"t{j}", width=4 + j) for j in range(m))


def base_of(real, per_class, space="pixel", soft=False, seed=0):
    """A set of `per_class` noise images of each of three classes, stored class by class."""
    draw = torch.Generator().manual_seed(seed)
    n = 3 * per_class
    images = torch.rand(n, *real.shape, generator=draw)
    images = {"pixel": (images * 255).to(torch.uint8), "unit": images, "input": 6 * images - 3}[space]
    labels = torch.arange(3).repeat_interleave(per_class)
    if soft:
        labels = 0.7 * F.one_hot(labels, 3) + 0.3 * torch.rand(n, 3, generator=draw).softmax(1)
    return ImageSet.of(real, images, labels, space, lr=0.05 if soft else None)


def on(base, make_ctx, **options):
    ctx = make_ctx(**options)
    ctx.base = base
    return ctx


def test_same_images_give_the_same_compensators(make_method, make_ctx, train_blobs, make_teacher):
    """The images that INFER itself selects, as a base set, give the same tensors as its own run."""
    teachers = teachers_of(make_teacher, 2)
    own = make_method("infer").distill(train_blobs, 4, make_ctx(teachers=teachers, work="own"))
    order = own.labels.argsort(stable=True)  # class by class, as a set of random images is stored
    base = ImageSet.coreset(train_blobs, torch.tensor(own.source)[order])
    same = make_method("infer").distill(train_blobs, 4, on(base, make_ctx, teachers=teachers, work="base"))
    assert own.identity() == same.identity()


@pytest.mark.parametrize(
    ("space", "soft"), [("pixel", False), ("unit", False), ("input", True)], ids=["pixel", "unit", "soft"]
)
def test_compensated_images_of_a_base_set(make_method, make_ctx, train_blobs, space, soft):
    """x = clip(x_i + u) with u = -lr sign(gradient summed over the classes of one natural set) after one step."""
    base = base_of(train_blobs, 2, space, soft)
    ctx = on(base, make_ctx)
    method = make_method("infer", iterations=1, lr_img=0.05, statistics=0.5, **{"views.roll": [0, 0]})
    assert method.check_base(base, train_blobs, 3, ctx.teachers) is None  # K = 3 * 3 // (3 + 1) = 2
    syn = method.distill(train_blobs, 3, ctx)
    assert isinstance(syn, CompensatedSet) and syn.space == space and syn.lr == base.lr
    (teacher,) = ctx.teachers_of(train_blobs)
    inputs, labels = base.materialise(CPU)
    images, stored = syn.materialise(CPU)
    for i in range(2):
        each = inputs[i::2].clone().requires_grad_()  # image i of every class
        logits, distances = HookedTeacher(teacher)(each)
        (F.cross_entropy(logits, labels[i::2]) + 0.5 * distances @ torch.tensor([10.0, 1.0])).backward()
        gradient, u = each.grad.sum(0), syn.compensators[i, 0].float()
        large = gradient.abs() > 1e-5
        assert large.float().mean() > 0.9
        assert torch.allclose(u[large], -0.05 * gradient.sign()[large], atol=1e-4)
        rows = slice(3 * i, 3 * i + 3)
        assert torch.equal(images[rows], inputs[i::2]), "the natural images are those of the base set"
        assert torch.equal(images[6:][rows], (inputs[i::2] + u).clamp(-2, 2))
        assert torch.equal(stored[rows], labels[i::2]) and torch.equal(stored[6:][rows], labels[i::2])
    assert syn.stored_bytes()["images"] == base.stored_bytes()["images"]
    assert syn.stored_bytes()["labels"] == base.stored_bytes()["labels"]
    syn.check_ipc(3)
    restored = CompensatedSet.restore(syn.config(), syn.tensors(), syn.class_names, syn.preprocess)
    assert restored.identity() == syn.identity()
    natural = syn.controls()["natural"]
    assert torch.equal(natural.materialise(CPU)[0], images[:6])


def test_images_that_are_not_stored_class_by_class(make_method, make_ctx, train_blobs):
    """A natural set has one image of each class, whatever the order in which the base set stores them."""
    base = base_of(train_blobs, 2)
    order = torch.tensor([5, 0, 2, 4, 1, 3])
    mixed = replace(base, images=base.images[order], labels=base.labels[order])
    syn = make_method("infer").distill(train_blobs, 3, on(mixed, make_ctx))
    assert syn.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert torch.equal(syn.images, base.images[[0, 2, 5, 1, 3, 4]])


def test_resumed_run_gives_the_same_bytes(make_method, make_ctx, train_blobs):
    base = base_of(train_blobs, 2)
    method = make_method("infer", iterations=3)
    whole = method.distill(train_blobs, 3, on(base, make_ctx, work="whole"))
    for stop in (1, 2):
        with pytest.raises(KeyboardInterrupt):
            method.distill(train_blobs, 3, on(base, make_ctx, work="killed", killed_at=stop))
    resumed = method.distill(train_blobs, 3, on(base, make_ctx, work="killed"))
    assert resumed.identity() == whole.identity()


def test_rejected_base_sets(make_method, make_teacher, make_ctx, train_blobs):
    two, infer = teachers_of(make_teacher, 2), make_method("infer")
    assert infer.check_base(base_of(train_blobs, 2), train_blobs, 4, two) is None
    other = infer.distill(train_blobs, 4, on(base_of(train_blobs, 2), make_ctx, teachers=two))
    uneven = ImageSet.of(train_blobs, torch.rand(4, *train_blobs.shape), torch.tensor([0, 0, 1, 2]), "unit")
    tiles = replace(base_of(train_blobs, 2, "unit"), factor=2)
    for base, ipc, message in (
        (
            base_of(train_blobs, 2),
            3,
            "must have 1 images of each class, because .* made with ipc=1, or run with ipc=4",
        ),
        (base_of(train_blobs, 2), 1, r"got 2. Use ipc=4"),
        (base_of(train_blobs, 2), 6, "must have 3 images of each class"),
        (uneven, 4, r"equally many images of each class, got \[2.0, 1.0, 1.0\]"),
        (tiles, 4, "got factor=2, canvas=1"),
        (other, 4, "got compensated"),
    ):
        with pytest.raises(AssertionError, match=message):
            assert infer.check_base(base, train_blobs, ipc, two) is None
    assert "requires a teacher" in infer.check_base(base_of(train_blobs, 2), train_blobs, 4, ())
    for name in ("dm", "sre2l", "random"):
        assert make_method(name).check_base(other, train_blobs, 4, two).endswith("Use base=null")


SMALL = [
    "dataset=digits",
    "runtime=plain",
    "teacher=convnet_bn",
    "teachers.convnet_bn.recipe.epochs=1",
    "teachers.convnet_bn.model.width=8",
    "model.width=8",
]


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory, blobs):
    """A stored set of one random digit of each class, with a licence and a citation of its own."""
    from dd_bench.pipeline.compose import load_real_set

    real, config = load_real_set(["dataset=digits"])
    syn = ImageSet.coreset(
        real, real.train.of_class(0)[:0].new_tensor([int(real.train.of_class(c)[0]) for c in range(10)])
    )
    return storage.save(
        syn,
        tmp_path_factory.mktemp("sets") / "a_base",
        real=replace(real, licence="CC0 of somebody"),
        method="random",
        ipc=1,
        seed=0,
        config={"method": {"_choice_": "random"}, "dataset": config},
        citations=["Somebody, A set"],
        provenance={},
    )


def test_card_of_a_set_on_another_set(base_folder, tmp_path):
    """The card names the base set, carries over its licence and citations, and counts the bytes of both."""
    words = ["method=infer", "ipc=2", "method.iterations=1", f"out={tmp_path}", *SMALL]
    run = compose(RunConfig.of([*words, f"base={base_folder}"]))
    assert run.check() is None
    stored, card = storage.load(run.synthetic_set(0))
    given = read_card(base_folder)
    base = {"set": "a_base", "digest": storage.digest(base_folder), "method": "random", "ipc": 1}
    base["config"] = {"method": {"_choice_": "random"}}
    assert card.config["base"] == run.config["base"] == base
    assert card.licence.endswith("; CC0 of somebody") and "Somebody, A set" in card.citations
    assert card.citations[0].startswith("Zhang et al., Breaking Class Barriers")
    assert card.stored_bytes["images"] == given.stored_bytes["images"]
    assert card.stored_bytes["compensators"] == 2 * 64
    assert torch.equal(stored.images, storage.load(base_folder)[0].images)

    renamed = tmp_path / "renamed"
    base_folder.rename(renamed)
    try:
        assert compose(RunConfig.of([*words, f"base={renamed}"])).set_key(0) == run.set_key(0)
        own = compose(RunConfig.of(words))
        assert own.set_key(0) != run.set_key(0) and own.config["base"] is None
        with pytest.raises(ValueError, match="DM does not start from another set"):
            raise ValueError(compose(RunConfig.of([*SMALL, "method=dm", f"base={renamed}"])).check())
        with pytest.raises(
            ValueError, match=f"base={renamed} cannot be used on this dataset: the set was distilled from"
        ):
            load_base(renamed, replace(own.real, digest="0" * 64))
    finally:
        renamed.rename(base_folder)
