"""Recipes whose number of epochs depends on the number of images."""

import pytest

from dd_bench.evaluators._references import with_epochs
from dd_bench.records.config_diff import shipped_config
from dd_bench.training.optimisation import learning_rate
from dd_bench.training.protocol import Protocol


def protocol(name, **recipe):
    values = shipped_config("protocol", name)
    return Protocol.model_validate({**values, "recipe": {**values["recipe"], **recipe}})


def released_epochs(ipc, classes):
    """Return the epochs of the evaluation of IDC and Minimax Diffusion."""
    epochs = 300
    for limit, value in ((1, 3000), (10, 2000), (50, 1500), (200, 1000), (500, 500)):
        if ipc <= limit:
            epochs = value
            break
    if classes == 100:
        epochs = int(2 / 3 * epochs)
        epochs -= epochs % 100
    return epochs


@pytest.mark.parametrize(("name", "classes"), [("minimax-subset-10", 10), ("minimax-subset-100", 100)])
@pytest.mark.parametrize("ipc", [1, 2, 10, 11, 20, 50, 70, 100, 200, 500, 501, 1000])
def test_epochs_of_the_released_code(name, classes, ipc):
    n, epochs = ipc * classes, released_epochs(ipc, classes)
    found = protocol(name).for_size(n)
    assert found.recipe.epochs == epochs and found.recipe.milestones == (2 * epochs // 3, 5 * epochs // 6)
    assert found.eval_every == 0 and found.recipe.epochs_by_size == ()
    legacy = protocol(f"{name}-legacy").for_size(n)
    assert legacy.eval_every == epochs // 100 and legacy.recipe == found.recipe


def test_a_resolved_recipe_is_that_of_the_set():
    recipe = protocol("minimax-subset-10").recipe
    assert recipe.samples(100) == 2000 * 100 and recipe.with_epochs(100).with_epochs(5000).epochs == 2000
    equal = recipe.match_steps(640, 64)  # as many steps as on 64 images: one per epoch
    assert (equal.epochs, equal.milestones) == (200, (133, 167))
    plain = protocol("dc-300")
    assert plain.for_size(7) is plain and "epochs_by_size" not in plain.recipe.identity()
    assert recipe.identity()["epochs_by_size"][0] == [10, 3000]


@pytest.mark.parametrize("pairs", [[[20, 5], [10, 3]], [[10, 5], [10, 3]], [[0, 3]], [[10, 0]]])
def test_wrong_sizes(pairs):
    with pytest.raises(ValueError, match="epochs_by_size"):
        protocol("minimax-subset-10", epochs_by_size=pairs)


def test_sizes_exclude_steps():
    with pytest.raises(ValueError, match="epochs_by_size must be pairs"):
        protocol("minimax-subset-10", steps=5, epochs=1, milestones=[])


def test_colours_require_inputs_normalised_by_the_constants_of_the_protocol(dd_bench):
    done = dd_bench("run", "method=random", "dataset=digits", "ipc=1", "protocol=minimax-subset-10")
    assert done.code == 1 and "changes the colours of inputs that are normalised by mean=[0.485," in done.text
    assert "or protocol.recipe.views.colour=null" in done.text


def test_milestones_of_a_recipe_with_steps_are_steps():
    plan = protocol("dc-300", steps=30, epochs=1, milestones=[7, 20]).recipe
    for n in (100, 256, 3000):  # images; the rates do not depend on the length of an epoch
        own = plan.with_epochs(n)
        rates = [learning_rate(own, own.epochs * step / 30) / own.lr for step in range(30)]
        assert rates == pytest.approx([1.0] * 7 + [0.1] * 13 + [0.01] * 10)
    with pytest.raises(ValueError, match="must be < steps=20"):
        protocol("dc-300", steps=20, epochs=1, milestones=[20])
    assert with_epochs(plan, 60).milestones == (14, 40) and with_epochs(plan, 60).steps is None


def test_a_compressed_recipe_processes_as_many_samples():
    plan = protocol("dc-300").recipe
    found = plan.compressed(100)
    assert found.steps == 118 and found.milestones == (60,) and found.gamma == plan.gamma
    assert plan.samples(100) <= found.steps * plan.batch_size < plan.samples(100) + plan.batch_size
    assert found.compressed(5000).steps == 118, "of any number of images"
    with pytest.raises(ValueError, match="warmup"):
        protocol("dc-300", warmup=3).recipe.compressed(100)
