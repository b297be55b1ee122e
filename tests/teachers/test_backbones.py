"""Tests of backbones: their data, their features, and teachers that are not backbones."""

from dataclasses import replace

import pytest
import torch

from dd_bench.data.class_subset import ClassSubset
from dd_bench.teachers.backbones import backbone_of
from dd_bench.teachers.teachers import teacher_of


@pytest.fixture
def spec(make_teacher):
    """A teacher of the classes that the dataset leaves out."""
    teacher = make_teacher(num_classes=2)
    return replace(teacher, config=teacher.config.model_copy(update={"trained_on": "other_classes"}))


@pytest.fixture
def part(real_set):
    return ClassSubset((0, 1)).apply(real_set(4))


def test_backbone_of_other_classes_is_the_teacher_of_these_classes(spec, part, make_ctx, make_teacher):
    ctx = make_ctx()
    backbone = backbone_of(spec, part.train_only(), ctx.cache, ctx.runtime, None)
    teacher = teacher_of(make_teacher(num_classes=2), part.others, ctx.cache, ctx.runtime, None)
    x = part.train.inputs(torch.arange(5))
    assert torch.equal(backbone.features(x), teacher.net.embed(x))
    assert backbone.accuracy is None and not any(p.requires_grad for p in backbone.net.parameters())
    assert backbone.features(x.requires_grad_()).requires_grad


def test_number_of_classes_may_differ(spec, real_set, make_ctx):
    ctx, real = make_ctx(), ClassSubset((2,)).apply(real_set(4))
    assert backbone_of(spec, real, ctx.cache, ctx.runtime, None).net.classifier.out_features == 3


def test_features_of_batches(spec, part, make_ctx):
    ctx = make_ctx()
    backbone = replace(backbone_of(spec, part, ctx.cache, ctx.runtime, None), size=7)
    index = torch.arange(20)
    expected = backbone.features(part.train.inputs(index))
    assert torch.allclose(backbone.features_of(part.train.inputs(index)), expected, atol=1e-6)
    assert torch.allclose(backbone.split_features(part.train, index), expected, atol=1e-6)
    assert torch.allclose(backbone.split_features(part.train)[:20], expected, atol=1e-6)


def test_errors(spec, part, real_set, make_ctx, make_teacher):
    ctx = make_ctx()
    with pytest.raises(
        ValueError, match=r"leaves out, but blobs leaves out none.*dataset\.classes=\[5,6,7,8,9\]"
    ):
        backbone_of(spec, real_set(4), ctx.cache, ctx.runtime, None)
    with pytest.raises(ValueError, match="teacher tiny is a backbone, trained on other classes"):
        teacher_of(spec, part, ctx.cache, ctx.runtime, None)
    two = make_ctx(teachers=(make_teacher(), make_teacher("other")))
    with pytest.raises(
        ValueError, match="requires exactly one teacher, whose features it uses, got tiny, other"
    ):
        two.backbone_of(part)


def test_identity_of_teachers_does_not_change(make_teacher, spec):
    assert "trained_on" not in make_teacher().describe()
    assert spec.describe()["trained_on"] == "other_classes"


def test_pretrained_weights_need_their_preprocessing(spec, part, make_ctx):
    config = spec.config.model_copy(
        update={
            "weights": "pretrained",
            "trained_on": "dataset",
            "recipe": None,
            "mean": (0.1,),
            "std": (0.2,),
        }
    )
    ctx = make_ctx()
    with pytest.raises(ValueError, match=r"must be that of backbone tiny.*dataset\.preprocess=normalise"):
        backbone_of(replace(spec, config=config), part, ctx.cache, ctx.runtime, None)
    same = config.model_copy(update={"mean": (0.5,), "std": (0.25,)})
    backbone = backbone_of(replace(spec, config=same), part, ctx.cache, ctx.runtime, None)
    assert torch.equal(
        backbone.net.classifier.weight, spec.architecture.fresh(0, ctx.device).classifier.weight
    )
