"""Conformance of every `conf/evaluator/*.yaml`."""

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
from dd_bench.distillation.coreset import build_coreset
from dd_bench.runtime.cache import Cache
from dd_bench.training.protocol import ProbeRecipe

FILES = sorted(Path(str(files("dd_bench.conf") / "evaluator")).glob("*.yaml"))


@cache
def composed(name, *overrides):
    """The evaluator's configuration as composed by Hydra, including networks."""
    with initialize_config_module("dd_bench.conf", version_base="1.3"):
        return compose("config", overrides=[f"evaluator={name}", *overrides]).evaluator


NAMES = [file.stem for file in FILES]
GRAPH_EVALUATORS = ("graph",)
NODE_EVALUATORS = ("node",)
each_evaluator = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def measure(
    real_set, motifs, blocks, convnet, gin, node_gcn, make_teacher, runtime, protocol, recipe, tmp_path
):
    """Run an evaluator on two samples per class of its modality, and return the scores of each network."""

    def run(name, seed=0, finished=(), change=lambda syn: syn):
        small = get_class(composed(name)._target_).smoke
        evaluator = instantiate(composed(name, *small), _convert_="all")
        if name in NODE_EVALUATORS:
            real, network = blocks, node_gcn(blocks)
        elif name in GRAPH_EVALUATORS:
            real, network = motifs, gin(motifs)
        else:
            real = real_set(val_fraction=0.25)
            network = convnet(real)
        index = real.train.draw(2, torch.Generator().manual_seed(0)).flatten()
        syn = change(build_coreset(real.train_only(), index))
        probe = ProbeRecipe(ridge=None, views=None, init_std=0.01, rate_images=256)
        short = protocol(recipe=recipe(epochs=2), probe=probe if evaluator.uses_backbone else None)
        cache = Cache(tmp_path / "cache")
        ctx = EvaluationContext(
            seed=seed, runtime=runtime, architecture=network, cache=cache, protocol=short,
            finished=frozenset(finished), ipc=2, teachers=(make_teacher(epochs=1),),
        )  # fmt: skip
        assert evaluator.check_dataset(real, network) is None and evaluator.check_set(syn, real) is None
        return [list(measured.scores) for measured in evaluator.run(syn, real, ctx) if measured.scores]

    return run


def test_accuracy_is_shipped():
    assert "accuracy" in NAMES


@each_evaluator
def test_keys_are_the_arguments_of_the_evaluator(name):
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
def test_composes(name):
    assert isinstance(instantiate(composed(name), _convert_="all"), Evaluator)


@each_evaluator
def test_scores_are_reproducible_and_resume(measure, name):
    uninterrupted = measure(name)
    main = instantiate(composed(name), _convert_="all").main_metric
    networks = [scores[0].network for scores in uninterrupted]
    assert sorted(networks) == list(range(len(uninterrupted)))
    for scores in uninterrupted:
        assert len({(s.network, s.seed) for s in scores}) == 1
        assert len({s.metric for s in scores}) == len(scores)
        assert main in {s.metric for s in scores}
    assert measure(name) == uninterrupted
    assert {s.seed for scores in measure(name, seed=1) for s in scores}.isdisjoint(
        s.seed for scores in uninterrupted for s in scores
    )
    rest = measure(name, finished=[0])
    assert rest == [scores for scores in uninterrupted if scores[0].network != 0]


@each_evaluator
def test_sets_of_the_other_modality_are_not_supported(blobs, motifs, name):
    real = blobs if name in (*GRAPH_EVALUATORS, *NODE_EVALUATORS) else motifs
    syn = build_coreset(real.train_only(), real.train.of_class(0)[:1])
    reason = instantiate(composed(name), _convert_="all").check_set(syn, real)
    assert reason is not None and f"got a set of kind {syn.kind}" in reason


def mosaic(syn):
    """A set with four images per stored image."""
    return replace(syn, images=syn.images.float() / 255, space="unit", factor=2, source=None)


def softened(syn):
    """A set with soft labels and a learned rate."""
    soft = F.one_hot(syn.labels, len(syn.class_names)) * 0.7 + 0.1
    return replace(syn, labels=soft, lr=0.02, source=None)


@pytest.mark.slow
@pytest.mark.parametrize("change", [mosaic, softened])
@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in (*GRAPH_EVALUATORS, *NODE_EVALUATORS)]
)
def test_every_kind_of_set_is_measured(measure, name, change):
    for scores in measure(name, change=change):
        assert all(math.isfinite(s.value) for s in scores)
