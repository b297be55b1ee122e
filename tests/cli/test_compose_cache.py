"""The cache of compositions, which makes the suite faster, does not change what Hydra composes."""

import pickle

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

CHOICES = [
    ["method=dm", "ipc=3"],
    ["method=mtt", "dataset=cifar10", "teacher=[convnet_w32_bn,convnet_bn]", "method.experts.count=2"],
    ["method=mtt", "dataset=cifar10", "protocol=rded-300", "+hydra.job.env_set.A=b"],
    ["experiment=demo"],
    ["method=mirage", "dataset=motifs"],
]


@pytest.fixture(scope="module")
def hydra():
    with initialize_config_module("dd_bench.conf", version_base="1.3"):
        yield


@pytest.mark.parametrize("overrides", CHOICES, ids=lambda o: o[0] if len(o) < 3 else o[2])
def test_composition_equals_that_of_hydra(hydra, compose_cache, overrides):
    def composed():
        cfg = compose("config", overrides, return_hydra_config=True)
        flags = {key: cfg._get_node(key)._metadata.flags for key in cfg}
        return OmegaConf.to_container(cfg), flags, list(cfg), cfg._metadata.flags

    compose_cache.enabled = False
    try:
        expected = pickle.dumps(composed())
    finally:
        compose_cache.enabled = True
    for _ in ("maybe the first time", "from the cache"):
        assert composed() == pickle.loads(expected)


def test_overrides_of_one_composition_do_not_reach_the_next(hydra, compose_cache, monkeypatch, tmp_path):
    """With another search path, Hydra changes the primary file that it has read."""
    for name in ("results", "files", "configs"):
        monkeypatch.setattr(compose_cache, name, {})
    assert compose("config", ["ipc=3", f"hydra.searchpath=[file://{tmp_path}]"]).ipc == 3
    assert compose("config", []).ipc == 10
