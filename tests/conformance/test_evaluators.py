"""What holds for every conf/evaluator/*.yaml."""

import inspect
import math
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_module
from hydra.utils import get_class, instantiate

from dd_bench.api import EvaluationContext, Evaluator
from dd_bench.distillation.coreset import selected
from dd_bench.runtime.cache import Cache

FILES = sorted(Path(str(files("dd_bench.conf") / "evaluator")).glob("*.yaml"))


@cache
def composed(name, *overrides):
    """The evaluator's configuration as Hydra makes it, networks and all."""
    with initialize_config_module("dd_bench.conf", version_base="1.3"):
        return compose("config", overrides=[f"evaluator={name}", *overrides]).evaluator


NAMES = [file.stem for file in FILES]
OF_GRAPHS = ("graph",)
each_evaluator = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def measure(real_set, motifs, convnet, gin, runtime, protocol, recipe, tmp_path):
    """Runs an evaluator on two samples a class, of what it measures; returns what it yields for each network."""

    def run(name, seed=0, finished=(), change=lambda syn: syn):
        small = get_class(composed(name)._target_).smoke
        evaluator = instantiate(composed(name, *small), _convert_="all")
        real = motifs if name in OF_GRAPHS else real_set(val_fraction=0.25)
        network = gin(real) if name in OF_GRAPHS else convnet(real)
        index = real.train.draw(2, torch.Generator().manual_seed(0)).flatten()
        syn = change(selected(real.train_only(), index))
        short = protocol(recipe=recipe(epochs=2))
        cache = Cache(tmp_path / "cache")
        ctx = EvaluationContext(
            seed=seed, runtime=runtime, architecture=network, cache=cache, protocol=short,
            finished=frozenset(finished), ipc=2,
        )  # fmt: skip
        assert evaluator.check_dataset(real, network) is None and evaluator.check_set(syn, real) is None
        return [list(found.scores) for found in evaluator.run(syn, real, ctx) if found.scores]

    return run


def test_the_catalogue_is_there():
    assert "accuracy" in NAMES


@each_evaluator
def test_the_file_says_what_it_is_and_gives_every_knob(name):
    path = Path(str(files("dd_bench.conf") / "evaluator")) / f"{name}.yaml"
    assert path.read_text().startswith("# ")
    cls = get_class(composed(name)._target_)
    assert issubclass(cls, Evaluator)
    assert vars(cls).get("__doc__")
    assert isinstance(instantiate(composed(name), _convert_="all").main_metric, str)
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
    assert {p.name for p in parameters} == set(composed(name)) - {"_target_"}


@each_evaluator
def test_it_composes(name):
    assert isinstance(instantiate(composed(name), _convert_="all"), Evaluator)


@each_evaluator
def test_scores_come_by_network_repeat_with_the_seed_and_go_on_where_they_stopped(measure, name):
    whole = measure(name)
    main = instantiate(composed(name), _convert_="all").main_metric
    networks = [scores[0].network for scores in whole]
    assert sorted(networks) == list(range(len(whole)))
    for scores in whole:
        assert len({(s.network, s.seed) for s in scores}) == 1
        assert len({s.metric for s in scores}) == len(scores)
        assert main in {s.metric for s in scores}
    assert measure(name) == whole
    assert {s.seed for scores in measure(name, seed=1) for s in scores}.isdisjoint(
        s.seed for scores in whole for s in scores
    )
    rest = measure(name, finished=[0])
    assert rest == [scores for scores in whole if scores[0].network != 0]


@each_evaluator
def test_the_other_modality_is_refused_with_its_name(blobs, motifs, name):
    real = blobs if name in OF_GRAPHS else motifs
    syn = selected(real.train_only(), real.train.of_class(0)[:1])
    reason = instantiate(composed(name), _convert_="all").check_set(syn, real)
    assert reason is not None and f"this set holds {syn.kind}" in reason


def mosaic(syn):
    """Four images on each stored one."""
    return replace(syn, images=syn.images.float() / 255, space="unit", factor=2, source=None)


def softened(syn):
    """Labels of its own, and a learned rate."""
    soft = F.one_hot(syn.labels, len(syn.class_names)) * 0.7 + 0.1
    return replace(syn, labels=soft, lr=0.02, source=None)


@pytest.mark.slow
@pytest.mark.parametrize("change", [mosaic, softened])
@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_GRAPHS])
def test_every_kind_of_set_is_measured(measure, name, change):
    for scores in measure(name, change=change):
        assert all(math.isfinite(s.value) for s in scores)
