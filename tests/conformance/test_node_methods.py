"""Conformance of every `conf/method/*.yaml` of methods for nodes: budgets, leaks, resuming and saved files."""

import dataclasses
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class

from dd_bench.data.dataset import RealSet
from dd_bench.data.node_dataset import NodeSplit
from dd_bench.data.nodes import NodeGraph
from dd_bench.records.config_diff import shipped_yaml
from dd_bench.synthetic import storage
from dd_bench.synthetic.nodes import NodeSet

FILES = sorted(Path(str(files("dd_bench.conf") / "method")).glob("*.yaml"))
CONFIGS = {
    file.stem: config
    for file in FILES
    if "node" in get_class((config := shipped_yaml("method", file.stem))["_target_"]).modalities
}
IPC = 3
FREE = ("full", "bonsai", "coarsening")  # the number of nodes does not follow from ipc
each_method = pytest.mark.parametrize("name", list(CONFIGS))


def bytes_of(syn: NodeSet) -> bytes:
    return b"".join(t.contiguous().numpy().tobytes() for _, t in sorted(syn.tensors().items()))


@pytest.fixture(scope="module")
def finished():
    """Sets by method, for the tests that only read them."""
    return {}


@pytest.fixture
def distilled(make_method, make_ctx, node_gcn, blocks, finished):
    def run(name, real=blocks, seed=0, work=None, killed_at=None, **changes):
        key = (name, seed) if real is blocks and work is None and not changes else None
        if key in finished:
            return finished[key]
        if name == "bonsai":
            changes = {"amount": 900, **changes}
        ctx = make_ctx(seed, architecture=node_gcn(real), work=work or f"run {seed}", killed_at=killed_at)
        syn = make_method(name, **changes).distill(real.train_only(), 10 if name == "bonsai" else IPC, ctx)
        return finished.setdefault(key, syn) if key else syn

    return run


def test_shipped_methods():
    names = "random herding kcenter kmeans"
    coresets = {f"{name}_nodes" for name in names.split()}
    learned = {"gcond", "gcondx", "doscondx", "gcdm", "sfgc", "geom", "gc_sntk"}
    assert set(CONFIGS) >= {"full", "bonsai", "coarsening", *learned, *coresets}


@each_method
def test_set_is_well_formed_and_can_be_saved(distilled, blocks, name, tmp_path):
    syn = distilled(name)
    assert isinstance(syn, NodeSet) and syn.shape == blocks.shape and syn.class_names == blocks.class_names
    labels = syn.labels[syn.labelled]
    if labels.ndim == 2:  # soft labels; a class of a node does not follow from them
        assert labels.shape == (3 * IPC, 3)
    else:
        assert set(labels.tolist()) == {0, 1, 2}
        assert name in FREE or labels.tolist() == [0] * IPC + [1] * IPC + [2] * IPC
    assert bool(syn.features.isfinite().all())
    if syn.weights is not None:
        assert bool(syn.weights.isfinite().all()) and float(syn.weights.min()) > 0
        assert name == "coarsening" or float(syn.weights.max()) <= 1  # it counts edges
    metadata = {
        "method": name, "ipc": 10 if name == "bonsai" else IPC, "seed": 0,
        "config": {"method": {"_choice_": name} | CONFIGS[name]}, "citations": ["somebody"], "provenance": {},
    }  # fmt: skip
    folder = storage.save(syn, tmp_path / "set", real=blocks, **metadata)
    loaded, card = storage.load(folder)
    assert bytes_of(loaded) == bytes_of(syn) and loaded.identity() == syn.identity()
    assert torch.equal(loaded.edges, syn.edges) and torch.equal(loaded.features, syn.features)
    assert storage.check_dataset(card, blocks) is None
    stored = sum(t.numel() * t.element_size() for t in syn.tensors().values())
    assert sum(card.stored_bytes.values()) == stored == sum(syn.stored_bytes().values())
    assert not [path for path in folder.iterdir() if path.suffix in (".pkl", ".pt")]


@each_method
def test_set_depends_on_the_seed_only(distilled, name):
    first = bytes_of(distilled(name))
    torch.rand(7)
    assert bytes_of(distilled(name, work="again")) == first
    other = bytes_of(distilled(name, seed=1, work="other"))
    same = other == first
    assert same == (get_class(CONFIGS[name]["_target_"]).deterministic or name == "bonsai")


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if "iterations" in config])
@pytest.mark.parametrize("stop", [1, 2])
def test_resumed_run_gives_the_same_bytes(distilled, name, stop):
    whole = bytes_of(distilled(name))
    with pytest.raises(KeyboardInterrupt):
        distilled(name, work="killed", killed_at=stop)
    assert bytes_of(distilled(name, work="killed")) == whole


def test_learned_edges_of_gcdm_are_resumed(distilled):
    values = {"structure": "pge", "edge_hidden": 8, "inner": 1}
    whole = bytes_of(distilled("gcdm", **values))
    with pytest.raises(KeyboardInterrupt):
        distilled("gcdm", work="killed", killed_at=2, **values)
    assert bytes_of(distilled("gcdm", work="killed", **values)) == whole


@each_method
def test_labels_of_other_splits_do_not_matter(distilled, blocks, name, monkeypatch):
    """Neither through the test split of the set, nor through its validation split."""

    def other(split):
        return NodeSplit(split.graph, split.index, split.labels.roll(1), 3, split.setting)

    changed = dataclasses.replace(blocks, val=other(blocks.val), _test=other(blocks.test))
    expected = bytes_of(distilled(name))
    monkeypatch.setattr(RealSet, "test", property(lambda self: pytest.fail("a method used test data")))
    assert bytes_of(distilled(name, changed, work="changed")) == expected


@each_method
def test_inductive_method_does_not_see_other_nodes(distilled, inductive_blocks, name):
    """The features and edges of validation and test nodes are replaced."""
    real = inductive_blocks

    def other(split):
        graph = NodeGraph.of(-split.graph.features, split.graph.adjacency.edges[:, :0])
        return NodeSplit(graph, split.index, split.labels, 3, split.setting)

    changed = dataclasses.replace(real, val=other(real.val), _test=other(real.test))
    one, two = (distilled(name, which, work=str(i)) for i, which in enumerate((real, changed)))
    assert bytes_of(one) == bytes_of(two)
    assert one.source is None or max(one.source) < len(real.train)


@pytest.mark.parametrize(
    "name", [name for name, config in CONFIGS.items() if "nodes" in config and name != "coarsening"]
)
def test_number_of_nodes_in_proportion_to_the_classes(distilled, blocks, name, make_method, node_gcn):
    index = torch.cat([blocks.train.of_class(c)[:n] for c, n in enumerate((10, 5, 2))])
    real = dataclasses.replace(blocks, train=blocks.train.subset(index))
    syn = distilled(name, real, work="nodes", nodes=8)
    assert syn.labels.shape == (8, 3) or torch.bincount(syn.labels).tolist() == [5, 2, 1]
    reason = make_method(name, nodes=8).check_dataset(real.train_only(), 4, node_gcn(real))
    assert "nodes=8 gives 5 nodes of class '0'" in reason and reason.endswith("Use method.nodes=7, or ipc=5")
    assert make_method(name, nodes=8).check_dataset(real.train_only(), 5, node_gcn(real)) is None
    reason = make_method(name).check_dataset(real.train_only(), 3, node_gcn(real))
    assert "at most 2 nodes of class '2'" in reason and reason.endswith("Use ipc=2")
    reason = make_method(name, nodes=2).check_dataset(real.train_only(), 5, node_gcn(real))
    assert "method.nodes must be >= 3" in reason


@each_method
def test_images_are_not_supported(make_method, make_architecture, train_blobs, name):
    reason = make_method(name).check_dataset(train_blobs, 2, make_architecture())
    assert (reason is None) == (name in ("full", "random"))
    assert reason is None or "distils nodes, but dataset 'blobs' contains images" in reason


@pytest.mark.parametrize("name", ["dm", "herding", "doscond", "mirage"])
def test_nodes_are_not_supported_by_other_methods(make_method, node_gcn, blocks, name):
    reason = make_method(name, smoke=False).check_dataset(blocks.train_only(), 2, node_gcn(blocks))
    assert "but dataset 'sbm' contains nodes" in reason
    assert name != "herding" or reason.endswith("Use method=herding_nodes")
