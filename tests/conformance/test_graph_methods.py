"""Conformance of every `conf/method/*.yaml` of graph methods, and tests of random graphs and DosCond."""

import dataclasses
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from hydra.utils import get_class

from dd_bench.data.dataset import RealSet
from dd_bench.data.graph_dataset import GraphSplit
from dd_bench.data.graphs import Graphs, GraphShape
from dd_bench.methods.doscond import _complete
from dd_bench.models.gnn import GCN
from dd_bench.records.config_diff import shipped_yaml
from dd_bench.synthetic import storage
from dd_bench.synthetic.graphs import GraphSet, SyntheticGraphs, TreeSet

FILES = sorted(Path(str(files("dd_bench.conf") / "method")).glob("*.yaml"))
CONFIGS = {
    file.stem: config
    for file in FILES
    if "graph" in get_class((config := shipped_yaml("method", file.stem))["_target_"]).modalities
}
RANDOM = ("doscond", "random", "random_graphs")  # other methods may select the same graphs with every seed
IPC = 3
each_method = pytest.mark.parametrize("name", list(CONFIGS))


def by_group(split, index, joint=False):
    """Return the graphs at `index` and their labels, for each of the two classes or together."""
    parts = [index] if joint else [index[split.labels[index] == c] for c in range(2)]
    return [(split.graphs[part], split.labels[part]) for part in parts]


def bytes_of(syn: SyntheticGraphs) -> bytes:
    return b"".join(t.contiguous().numpy().tobytes() for _, t in sorted(syn.tensors().items()))


@pytest.fixture
def distilled(make_method, make_ctx, gin, motifs):
    def run(name, seed=0, work="run", killed_at=None, **changes):
        network = dataclasses.replace(gin(motifs), make=GCN)  # DosCond requires GCN
        ctx = make_ctx(seed, architecture=network, work=work, killed_at=killed_at)
        return make_method(name, **changes).distill(motifs.train_only(), IPC, ctx)

    return run


def test_shipped_methods():
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
def test_set_is_well_formed_and_can_be_saved(distilled, motifs, name, tmp_path):
    syn = distilled(name)
    assert isinstance(syn, GraphSet | TreeSet)
    syn.check_ipc(IPC)
    graphs, labels = syn.materialise(torch.device("cpu"))
    graphs.check(syn.shape)
    assert len(graphs) == len(labels) and set(labels.tolist()) == {0, 1}
    assert syn.shape == motifs.shape and syn.class_names == motifs.class_names
    assert syn.weights().shape == labels.shape and float(syn.weights().mean()) == pytest.approx(1.0)
    metadata = {
        "method": name,
        "ipc": IPC,
        "seed": 0,
        "config": {"method": {"_choice_": name} | CONFIGS[name]},
        "citations": ["somebody"],
        "provenance": {},
    }
    loaded, card = storage.load(storage.save(syn, tmp_path / "set", real=motifs, **metadata))
    assert bytes_of(loaded) == bytes_of(syn) and loaded.identity() == syn.identity()
    loaded_graphs, loaded_labels = loaded.materialise(torch.device("cpu"))
    assert torch.equal(loaded_labels, labels) and torch.equal(loaded_graphs.nodes, graphs.nodes)
    assert torch.equal(loaded_graphs.num_nodes, graphs.num_nodes)
    pairs = [sorted(g.edges.t().tolist()) for g in (loaded_graphs, graphs)]
    assert pairs[0] == pairs[1]
    assert storage.check_dataset(card, motifs) is None
    assert sum(syn.stored_bytes().values()) == sum(
        t.numel() * t.element_size() for t in syn.tensors().values()
    )


@each_method
def test_set_depends_on_the_seed_only(distilled, name):
    first = bytes_of(distilled(name, work="first"))
    state = torch.get_rng_state()
    torch.rand(7)
    assert bytes_of(distilled(name, work="loaded_graphs")) == first
    others = [bytes_of(distilled(name, seed=s, work=f"other{s}")) for s in (1, 2)]
    same = all(other == first for other in others)
    assert same or not get_class(CONFIGS[name]["_target_"]).deterministic
    assert not (same and name in RANDOM)
    torch.set_rng_state(state)


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if "iterations" in config])
@pytest.mark.parametrize("stop", [1, 2])
def test_resumed_run_gives_the_same_bytes(distilled, name, stop):
    whole = bytes_of(distilled(name, work="whole"))
    with pytest.raises(KeyboardInterrupt):
        distilled(name, work="killed", killed_at=stop)
    assert bytes_of(distilled(name, work="killed")) == whole


@each_method
def test_test_split_is_not_used(distilled, name, monkeypatch):
    def refuse(self):
        raise AssertionError("a method accessed test data")

    monkeypatch.setattr(RealSet, "test", property(refuse))
    distilled(name)


@each_method
def test_images_are_not_supported_by_graph_methods(make_method, make_architecture, train_blobs, name):
    method = make_method(name)
    reason = method.check_dataset(train_blobs, 2, make_architecture())
    if "image" in type(method).modalities:
        assert reason is None
    else:
        assert "distils graphs, but dataset 'blobs' contains images" in reason


@pytest.mark.parametrize(
    ("budget", "amount"), [("nodes", 60), ("nodes", 111), ("bytes", 300), ("bytes", 900)]
)
def test_random_graphs_use_their_budget(make_method, make_ctx, gin, motifs, budget, amount):
    """The set is within the budget, and the smallest other graph would not fit."""
    real = motifs.train_only()
    method = make_method("random_graphs", budget=budget, amount=amount)
    syn = method.distill(real, 100, make_ctx(architecture=gin(motifs)))
    chosen = syn.source

    def cost(index):
        index = torch.tensor(index)
        if budget == "nodes":
            return int(real.train.graphs.num_nodes[index].sum())
        return sum(GraphSet.coreset(real, index).stored_bytes().values())

    assert cost(list(chosen)) <= amount
    others = [i for i in range(len(real.train)) if i not in chosen]
    assert (
        not others or cost([*chosen, min(others, key=lambda i: int(real.train.graphs.num_nodes[i]))]) > amount
    )


@pytest.mark.parametrize("amount", [12, 20, 33, 100])
def test_random_graphs_equal_explicit_selection(make_method, make_ctx, gin, motifs, amount):
    """Classes alternate, graphs that do not fit are skipped, and every class has a graph."""
    g = torch.Generator().manual_seed(0)
    sizes = torch.randint(2, 30, (24,), generator=g)
    ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    v = int(ptr[-1])
    graphs = Graphs(torch.zeros(v, 1).long(), torch.zeros(2, 0).long(), torch.zeros(0, 0).long(), ptr)
    split = GraphSplit(graphs, torch.arange(24) % 2, 2, GraphShape((1,), ()))
    real = dataclasses.replace(motifs, train=split, val=None).train_only()
    method, ctx = (
        make_method("random_graphs", budget="nodes", amount=amount),
        make_ctx(architecture=gin(real)),
    )
    chosen = method.distill(real, 100, ctx).source
    queues = []
    for c in range(2):
        members = split.of_class(c)
        queues.append(members[torch.randperm(12, generator=ctx.generator("graphs", c))].tolist())
    of = lambda index: int(sizes[list(index)].sum())  # noqa: E731
    taken = [[], []]
    smallest = min(sizes[i] for i in queues[1])
    taken[0].append(
        next((i for i in queues[0] if sizes[i] + smallest <= amount), min(queues[0], key=lambda i: sizes[i]))
    )
    taken[1].append(next(i for i in queues[1] if of(taken[0]) + sizes[i] <= amount))
    remaining = [[i for i in q if i not in t] for q, t in zip(queues, taken, strict=True)]
    while any(remaining):
        for c in range(2):
            while remaining[c]:
                i = remaining[c].pop(0)
                if of([*taken[0], *taken[1], i]) <= amount:
                    taken[c].append(i)
                    break
    assert list(chosen) == [*taken[0], *taken[1]] and of(chosen) <= amount
    assert len(set(sizes.tolist())) > 5


class TestDosCond:
    """The loss and the relaxed edges against their definitions (Jin et al., KDD 2022)."""

    @pytest.fixture
    def doscond(self, make_method, make_ctx, gin, motifs):
        network = dataclasses.replace(gin(motifs), make=GCN)
        return make_method("doscond"), make_ctx(architecture=network), network

    def test_loss_is_zero_for_the_same_graphs_only(self, doscond, make_method, motifs):
        method, ctx, network = doscond
        split = motifs.train
        method = make_method("doscond", batch_real=10**6)  # every real graph
        net = ctx.network(network, 0)
        whole = method._match(net, split, by_group(split, torch.arange(len(split))), 0, ctx)
        assert float(whole.detach()) < 1e-9
        subset = torch.cat([split.of_class(c)[:2] for c in range(2)])
        part = method._match(net, split, by_group(split, subset), 0, ctx)
        assert float(part.detach()) > 1e-4

    @pytest.mark.parametrize("joint", [False, True])
    def test_loss_by_class_and_joint(self, make_method, doscond, motifs, joint):
        _, ctx, network = doscond
        split, net = motifs.train, ctx.network(network, 0)
        method = make_method("doscond", batch_real=10**6, joint=joint)
        subset = torch.cat([split.of_class(c)[:2] for c in range(2)])
        found = method._match(net, split, by_group(split, subset, joint), 0, ctx)

        def gradient(index):
            loss = torch.nn.functional.cross_entropy(net(split.graphs[index]), split.labels[index])
            return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])

        groups = [(subset, torch.arange(len(split)))]
        if not joint:
            groups = [(subset[split.labels[subset] == c], split.of_class(c)) for c in range(2)]
        expected = sum(
            ((gradient(a) - gradient(b)).square().sum() / gradient(b).square().sum()) for a, b in groups
        )
        assert float(found.detach()) == pytest.approx(float(expected), rel=1e-4)

    def test_relaxed_edges_are_symmetric_and_become_binary(self, doscond):
        method, ctx, _ = doscond
        logits = torch.randn(2, 5, 5, generator=torch.Generator().manual_seed(0))
        nodes = torch.ones(2, 5, 3)
        complete = _complete(2, 5, torch.device("cpu"))
        variance = []
        for step in (0, method.cool_over, 10 * method.cool_over):
            graphs = method._relaxed(nodes, logits, complete, step, ctx)
            a = torch.zeros(2, 5, 5)
            a[:, complete[0][0], complete[0][1]] = graphs.weights.view(2, -1)
            assert torch.equal(a, a.transpose(1, 2)) and float(a.diagonal(dim1=1, dim2=2).abs().max()) == 0
            assert 0 <= float(a.min()) <= float(a.max()) <= 1
            off = a[:, complete[0][0], complete[0][1]]
            variance.append(float((off * (1 - off)).mean()))
        assert variance[0] > 0.05  # at temperature 1 edge weights are far from 0 and 1
        assert variance[1] < 0.01 and variance[2] < 0.01  # at the final temperature they are nearly binary

    def test_sparsity_decreases_the_number_of_edges(self, make_method, make_ctx, gin, motifs):
        """A large weight of the sparsity term gives fewer edges."""
        network = dataclasses.replace(gin(motifs), make=GCN)
        edges = {}
        for sparsity in (0.0, 1e4):
            method = make_method("doscond", iterations=30, lr_edges=1.0, sparsity=sparsity, batch_real=8)
            syn = method.distill(motifs.train_only(), 2, make_ctx(architecture=network, work=str(sparsity)))
            edges[sparsity] = syn.graphs.edges.shape[1]
        assert edges[1e4] < edges[0.0]
