"""What holds for every conf/method/*.yaml that distils graphs."""

import dataclasses
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class
from omegaconf import OmegaConf

from dd_bench import artifact
from dd_bench.models.gnn import GCN
from dd_bench.real import RealSet
from dd_bench.synthetic_graphs import GraphSet, SyntheticGraphs, TreeSet

FILES = sorted(Path(str(files("dd_bench.conf") / "method")).glob("*.yaml"))
CONFIGS = {
    file.stem: config
    for file in FILES
    if "graph" in get_class((config := OmegaConf.load(file))._target_).modalities
}
DRAWN = ("doscond", "random", "random_graphs")  # others may choose the same graphs from any seed
IPC = 3
each_method = pytest.mark.parametrize("name", list(CONFIGS))


def bytes_of(syn: SyntheticGraphs) -> bytes:
    return b"".join(t.contiguous().numpy().tobytes() for _, t in sorted(syn.tensors().items()))


@pytest.fixture
def distilled(make_method, make_ctx, gin, motifs):
    def run(name, seed=0, work="run", killed_at=None, **changes):
        network = dataclasses.replace(gin(motifs), make=GCN)  # the one that takes learned edges too
        ctx = make_ctx(seed, architecture=network, work=work, killed_at=killed_at)
        return make_method(name, **changes).distill(motifs.train_only(), IPC, ctx)

    return run


def test_the_catalogue_is_there():
    assert set(CONFIGS) >= set(
        [
            "doscond",
            "full",
            "random",
            "herding_graphs",
            "kcenter_graphs",
            "kmeans_graphs",
            "mirage",
            "mirage_released",
            "random_graphs",
        ]
    )


@each_method
def test_the_set_is_well_formed_and_comes_back_from_the_disk(distilled, motifs, name, tmp_path):
    syn = distilled(name)
    assert isinstance(syn, GraphSet | TreeSet)
    syn.check_ipc(IPC)
    graphs, labels = syn.materialise(torch.device("cpu"))
    graphs.check(syn.shape)
    assert len(graphs) == len(labels) and set(labels.tolist()) == {0, 1}
    assert syn.shape == motifs.shape and syn.class_names == motifs.class_names
    assert syn.weights().shape == labels.shape and float(syn.weights().mean()) == pytest.approx(1.0)
    given = {"method": name, "ipc": IPC, "seed": 0, "config": {}, "citations": ["somebody"], "provenance": {}}
    back, card = artifact.load(artifact.save(syn, tmp_path / "set", real=motifs, **given))
    assert bytes_of(back) == bytes_of(syn) and back.identity() == syn.identity()
    again, told = back.materialise(torch.device("cpu"))
    assert torch.equal(told, labels) and torch.equal(again.nodes, graphs.nodes)
    assert torch.equal(again.num_nodes, graphs.num_nodes)
    pairs = [sorted(g.edges.t().tolist()) for g in (again, graphs)]
    assert pairs[0] == pairs[1]
    assert artifact.fits(card, motifs) is None
    assert sum(syn.stored_bytes().values()) == sum(
        t.numel() * t.element_size() for t in syn.tensors().values()
    )


@each_method
def test_one_seed_is_one_set(distilled, name):
    first = bytes_of(distilled(name, work="first"))
    state = torch.get_rng_state()
    torch.rand(7)
    assert bytes_of(distilled(name, work="again")) == first
    others = [bytes_of(distilled(name, seed=s, work=f"other{s}")) for s in (1, 2)]
    same = all(other == first for other in others)
    assert same or not get_class(CONFIGS[name]._target_).deterministic
    assert not (same and name in DRAWN)
    torch.set_rng_state(state)


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if "iterations" in config])
@pytest.mark.parametrize("stop", [1, 2])
def test_killed_and_resumed_is_the_same_bytes(distilled, name, stop):
    whole = bytes_of(distilled(name, work="whole"))
    with pytest.raises(KeyboardInterrupt):
        distilled(name, work="killed", killed_at=stop)
    assert bytes_of(distilled(name, work="killed")) == whole


@each_method
def test_it_never_sees_the_test_split(distilled, name, monkeypatch):
    def refuse(self):
        raise AssertionError("a method asked for test data")

    monkeypatch.setattr(RealSet, "test", property(refuse))
    distilled(name, work="blind")


@each_method
def test_images_are_refused_where_it_takes_graphs_alone(make_method, make_architecture, blobs, name):
    method = make_method(name)
    reason = method.unsupported(blobs, 2, make_architecture())
    if "image" in type(method).modalities:
        assert reason is None
    else:
        assert "distils graphs, dataset 'blobs' holds images" in reason
