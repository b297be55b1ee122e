"""What holds for every conf/evaluator/*.yaml."""

import inspect
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from dd_bench.base import Context, Evaluator
from dd_bench.cache import Cache
from dd_bench.synthetic import ImageSet

FILES = sorted(Path(str(files("dd_bench.conf") / "evaluator")).glob("*.yaml"))
CONFIGS = {file.stem: OmegaConf.load(file) for file in FILES}
each_evaluator = pytest.mark.parametrize("name", list(CONFIGS))


@pytest.fixture
def measure(blobs, convnet, runtime, protocol, recipe, tmp_path):
    """Runs an evaluator on six real images of `blobs`; returns what it yields for each network."""

    def run(name, seed=0, finished=()):
        syn = ImageSet.coreset(
            blobs.train_only(), blobs.train.draw(2, torch.Generator().manual_seed(0)).flatten()
        )
        short = protocol(recipe=recipe(epochs=2))
        cache = Cache(tmp_path / "cache")
        ctx = Context(seed, runtime, convnet(blobs), cache, None, short, finished=frozenset(finished), ipc=2)
        evaluator = instantiate(CONFIGS[name], _convert_="all")
        assert evaluator.unsupported(syn, blobs) is None
        return list(evaluator.run(syn, blobs, ctx))

    return run


def test_the_catalogue_is_there():
    assert "accuracy" in CONFIGS


@each_evaluator
def test_the_file_says_what_it_is_and_gives_every_knob(name):
    path = Path(str(files("dd_bench.conf") / "evaluator")) / f"{name}.yaml"
    assert path.read_text().startswith("# ")
    cls = get_class(CONFIGS[name]._target_)
    assert issubclass(cls, Evaluator)
    assert vars(cls).get("__doc__")
    assert isinstance(cls.main_metric, str)
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    assert all(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
    assert {p.name for p in parameters} == set(CONFIGS[name]) - {"_target_"}


@each_evaluator
def test_it_composes(name):
    with initialize_config_module("dd_bench.conf", version_base="1.3"):
        config = compose("config", overrides=[f"evaluator={name}"])
    assert isinstance(instantiate(config.evaluator, _convert_="all"), Evaluator)


@each_evaluator
def test_scores_come_by_network_repeat_with_the_seed_and_go_on_where_they_stopped(measure, name):
    whole = measure(name)
    main = get_class(CONFIGS[name]._target_).main_metric
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
