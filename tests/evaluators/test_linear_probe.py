"""Tests of linear heads on a frozen backbone: closed form, training, scores, keys, and rejected combinations."""

from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import Ridge

from dd_bench.api import EvaluationContext
from dd_bench.distillation.coreset import build_coreset
from dd_bench.evaluators._linear_heads import ProbeTraining, scaled_recipe
from dd_bench.evaluators.linear_probe import LinearProbe, scores
from dd_bench.runtime.cache import Cache
from dd_bench.training.protocol import ProbeRecipe
from dd_bench.training.views import ViewRecipe

from .conftest import notes_of, scores_by_network

VIEWS = ViewRecipe(patches=1, pad=0, scale=(0.5, 1.0), flip=True, mix="none", alpha=1.0)


@pytest.fixture
def make(real_set, convnet, make_teacher, runtime, protocol, recipe, cache_folder):
    """Function that returns a context, a real set and a set of five images per class."""

    def context(ridge=None, views=None, epochs=40, **changes):
        real = real_set(4)
        probe = ProbeRecipe(ridge=ridge, views=views, init_std=0.01, rate_images=256)
        changes = {
            "optimizer": "adam",
            "lr": 1.0,
            "milestones": (),
            "views": VIEWS,
            "weight_decay": 0.0,
        } | changes
        ctx = EvaluationContext(
            seed=0, runtime=runtime, architecture=convnet(real), cache=Cache(cache_folder), ipc=5,
            protocol=protocol(probe=probe, recipe=recipe(epochs=epochs, **changes)),
            teachers=(make_teacher(num_classes=4, epochs=1),),
        )  # fmt: skip
        return ctx, real, build_coreset(real, real.train.draw(5, torch.Generator().manual_seed(0)).flatten())

    return context


def test_ridge_is_that_of_scikit_learn(make):
    ctx, real, syn = make(ridge=0.01)
    backbone = ctx.backbone_of(real)
    weight, bias = ProbeTraining(*syn.network_inputs(ctx.device), backbone, real, ctx).ridge()
    z = torch.nn.functional.normalize(backbone.features_of(syn.materialise(ctx.device)[0]).double(), dim=1)
    expected = Ridge(alpha=0.01, fit_intercept=False).fit(z, torch.eye(4)[syn.labels].double())
    assert torch.allclose(weight, torch.from_numpy(expected.coef_), atol=1e-9) and not bias.any()
    (one,) = scores_by_network(LinearProbe(num_networks=5), syn, real, ctx)
    test = backbone.split_features(real.test).double().numpy()
    right = (expected.predict(test).argmax(1) == real.test.labels.numpy()).mean()
    assert [(s.metric, s.network) for s in one] == [("accuracy", 0)] and one[0].value == pytest.approx(right)


@pytest.mark.parametrize("views", [None, 3])
def test_heads_are_trained(make, views):
    ctx, real, syn = make(views=views)
    found = [s[0].value for s in scores_by_network(LinearProbe(num_networks=2), syn, real, ctx)]
    assert len(found) == 2 and min(found) > 0.6
    untrained = replace(ctx, protocol=ctx.protocol.model_copy(
        update={"recipe": ctx.protocol.recipe.model_copy(update={"lr": 1e-9})}))  # fmt: skip
    assert max(s[0].value for s in scores_by_network(LinearProbe(num_networks=2), syn, real, untrained)) < 0.6


def test_views_that_are_computed_once_equal_new_ones_without_augmentation(make):
    """With one view that changes nothing, both ways train the same heads."""
    plain = VIEWS.model_copy(update={"scale": None, "flip": False})
    heads = []
    for views in (None, 1):
        ctx, real, syn = make(views=views)
        recipe = ctx.protocol.recipe.model_copy(update={"views": plain})
        ctx = replace(ctx, protocol=ctx.protocol.model_copy(update={"recipe": recipe}))
        training = ProbeTraining(*syn.network_inputs(ctx.device), ctx.backbone_of(real), real, ctx)
        heads.append(training.head(7, None))
    assert torch.allclose(heads[0][0], heads[1][0], atol=1e-5)
    assert torch.allclose(heads[0][1], heads[1][1], atol=1e-5)


def test_backbone_does_not_change(make):
    ctx, real, syn = make()
    backbone = ctx.backbone_of(real)
    before = {k: v.clone() for k, v in backbone.net.state_dict().items()}
    ProbeTraining(*syn.network_inputs(ctx.device), backbone, real, ctx).head(0, None)
    assert all(torch.equal(v, before[k]) for k, v in backbone.net.state_dict().items())
    assert not backbone.net.training


def test_learning_rate_is_scaled(make):
    ctx, *_ = make(lr=0.256, batch_size=100)
    assert scaled_recipe(ctx.protocol, 10).lr == pytest.approx(0.01)
    assert scaled_recipe(ctx.protocol, 1000).lr == pytest.approx(0.1)


def test_scores_of_many_classes():
    weight, y = torch.eye(7), torch.tensor([0, 1, 2])
    z = torch.tensor([[9.0, 0, 0, 0, 0, 0, 0], [3.0, 2, 0, 0, 0, 0, 0], [6.0, 5, 1, 4, 3, 2, 1.5]])
    assert scores(z, y, weight, torch.zeros(7)) == {
        "accuracy": pytest.approx(1 / 3),
        "top5": pytest.approx(2 / 3),
    }


def test_notes_name_the_backbone(make):
    ctx, real, syn = make(ridge=1.0)
    notes = notes_of(LinearProbe(num_networks=1), syn, real, ctx)
    assert notes[0] == "the backbone was trained on the classes that are probed"
    assert notes[1] == f"probed backbone: tiny, weights {ctx.backbone_of(real).digest[:16]}"


def test_soft_labels(make):
    ctx, real, syn = make(epochs=3)
    soft = replace(syn, labels=torch.eye(4)[syn.labels] * 0.6 + 0.1, source=None)
    assert len(scores_by_network(LinearProbe(num_networks=1), soft, real, ctx)) == 1


def test_protocols():
    with pytest.raises(ValueError, match=r"probe\.views=2 requires recipe\.views"):
        make_protocol(views=2)
    with pytest.raises(ValueError, match="probe requires labels=null and selection=last"):
        make_protocol(selection="best_on_test")


def make_protocol(views=None, selection="last"):
    from dd_bench.records.config_diff import shipped_config
    from dd_bench.training.protocol import Protocol

    values = shipped_config("protocol", "dc-300") | {
        "selection": selection, "eval_every": int(selection != "last"),
        "probe": {"ridge": None, "views": views, "init_std": 0.01, "rate_images": 256},
    }  # fmt: skip
    return Protocol.model_validate(values)


DIGITS = ("dataset=digits", "dataset.classes=[0,1,2]", "ipc=1", "protocol=ridge", "runtime=plain")
BACKBONE = (
    "teacher=backbone_w32",
    "teachers.backbone_w32.recipe.epochs=1",
    "teachers.backbone_w32.model.width=4",
)


def test_run(job):
    record = job("method=centroid", *DIGITS, *BACKBONE)
    assert (
        record.status == "done"
        and record.dataset == "digits-classes0-2"
        and record.evaluator == "linear_probe"
    )
    assert record.summary().num_networks == 1 and record.summary().mean > 0.5
    assert [t.name for t in record.teachers] == ["backbone_w32"]
    other = job("method=centroid", *DIGITS, *BACKBONE, "teachers.backbone_w32.model.depth=1")
    assert other.key != record.key, "the key contains the backbone"
    random = [
        job("method=random", *DIGITS, *BACKBONE, *more)
        for more in ((), ("teachers.backbone_w32.model.depth=1",))
    ]
    assert random[0].set_digests == random[1].set_digests and random[0].key != random[1].key


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("evaluator=accuracy",),
            "protocol ridge trains linear heads, and evaluator accuracy whole networks",
        ),
        (("protocol=quick", "evaluator=linear_probe"), "requires a protocol of linear heads, got quick"),
        (("teacher=[backbone_w32,backbone_d2_w32]",), "requires exactly one teacher"),
    ],
)
def test_combinations_that_are_rejected(job, overrides, message):
    with pytest.raises(ValueError, match=message):
        job("method=random", *DIGITS, "teacher=backbone_w32", *overrides)
