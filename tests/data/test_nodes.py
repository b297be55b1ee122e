"""Graphs of nodes: sparse matrices against dense formulas, splits without other labels, and the readers."""

import gzip
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from dd_bench.data.array_unpickler import load_arrays
from dd_bench.data.graphsaint import graphsaint
from dd_bench.data.knn import knn
from dd_bench.data.node_dataset import node_set
from dd_bench.data.nodes import Adjacency, NodeGraph, undirected
from dd_bench.data.ogb_nodes import ogb_nodes
from dd_bench.data.planetoid import planetoid
from dd_bench.data.sbm import sbm

CPU = torch.device("cpu")
FILES = Path(__file__).resolve().parents[3] / "shared" / "data" / "nodes"


def dense(adjacency: Adjacency) -> torch.Tensor:
    """The adjacency as a dense matrix, row i with the incoming edges of node i."""
    a = torch.zeros(adjacency.v, adjacency.v)
    values = torch.ones(adjacency.edges.shape[1]) if adjacency.weights is None else adjacency.weights
    a[adjacency.edges[1], adjacency.edges[0]] = values
    return a


@pytest.fixture
def weighted():
    g = torch.Generator().manual_seed(0)
    edges, weights = undirected(torch.randint(9, (2, 20), generator=g), torch.rand(20, generator=g))
    return Adjacency(10, edges, weights)  # node 9 has no edge


def test_matrices_equal_the_dense_formulas(weighted):
    a = dense(weighted)
    assert torch.equal(a, a.t()) and float(a.diagonal().sum()) == 0
    loops = a + torch.eye(10)
    scale = torch.diag(loops.sum(1).rsqrt())
    torch.testing.assert_close(weighted.normalised.to_dense(), scale @ loops @ scale)
    torch.testing.assert_close(weighted.summed.to_dense(), a)
    torch.testing.assert_close(weighted.averaged.to_dense(), a / a.sum(1, keepdim=True).clamp_min(1e-9))
    index = torch.tensor([7, 2, 9, 5])
    assert torch.equal(dense(weighted.subgraph(index)), a[index][:, index])


def test_undirected_removes_loops_and_duplicates():
    edges, weights = undirected(
        torch.tensor([[0, 1, 2, 0], [1, 0, 2, 1]]), torch.tensor([0.5, 0.7, 0.9, 0.8])
    )
    assert edges.tolist() == [[0, 1], [1, 0]] and weights.tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        (torch.tensor([[0, 3], [1, 0]]), r"nodes in 0\.\.2, got 0\.\.3"),
        (torch.tensor([[1], [1]]), "self-loops"),
        (torch.zeros(3, 1).long(), "int64"),
    ],
)
def test_wrong_edges(edges, message):
    with pytest.raises(ValueError, match=message):
        Adjacency(3, edges)


def make(setting: str, **changes):
    values = {
        "nodes": 60, "classes": 3, "features": 4, "degree_in": 3.0, "degree_out": 1.0, "noise": 1.0, "train": 5,
        "val": 15, "setting": setting, "seed": 0, "device": CPU,
    }  # fmt: skip
    return sbm(**values | changes)


def test_method_sees_all_nodes_but_only_training_labels():
    real = make("transductive").train_only()
    assert real.train.graph.adjacency.v == 60 and len(real.train.labels) == 15
    assert real.val is None and real.train.counts.tolist() == [5, 5, 5]
    with pytest.raises(RuntimeError, match="reserved for evaluators"):
        _ = real.test


def test_inductive_splits_are_induced_subgraphs():
    whole = make("transductive")
    labels, index = torch.arange(60) % 3, (whole.train.index, whole.val.index, whole.test.index)
    options = {"class_names": ("a", "b", "c"), "licence": "", "citation": "", "device": CPU}
    parts = node_set("x", whole.train.graph, labels, index, setting="inductive", **options)
    assert parts.name == "x_inductive" and parts.digest != whole.digest
    for split, other in ((parts.train, whole.train), (parts.val, whole.val), (parts.test, whole.test)):
        assert split.graph.adjacency.v == len(split) and torch.equal(split.labels, other.labels)
        assert torch.equal(split.graph.features, other.graph.features[other.index])
        expected = dense(other.graph.adjacency)[other.index][:, other.index]
        assert torch.equal(dense(split.graph.adjacency), expected)


def test_inductive_block_models_have_equal_means_and_degrees():
    """Three draws: the graph of the training nodes is small, and as dense as the others."""
    values = {"nodes": 4000, "classes": 4, "train": 25, "val": 900, "degree_in": 5.0, "degree_out": 3.0}
    real = make("inductive", **values, noise=0.5)
    splits = real.train, real.val, real.test
    assert [len(split) for split in splits] == [100, 900, 3000] and real.train.counts.tolist() == [25] * 4
    for split, tolerance in zip(splits, (0.6, 0.3, 0.2), strict=True):
        sender, receiver = split.graph.adjacency.edges
        same = (split.labels[sender] == split.labels[receiver]).float().sum() / len(split)
        assert float(same) == pytest.approx(5.0, abs=tolerance)
        assert len(sender) / len(split) == pytest.approx(8.0, abs=tolerance)
        means = torch.stack([split.graph.features[split.of_class(c)].mean(0) for c in range(4)])
        expected = torch.stack([real.test.graph.features[real.test.of_class(c)].mean(0) for c in range(4)])
        torch.testing.assert_close(means, expected, atol=0.4, rtol=0)
    assert not torch.equal(real.val.graph.features[:100], real.train.graph.features)
    other = make("inductive", **{**values, "nodes": 4100}, noise=0.5)
    assert torch.equal(other.train.graph.features, real.train.graph.features), "drawn independently"


def test_inductive_block_model_with_too_few_nodes():
    message = (
        r"dataset\.degree_in must be < 4 and dataset\.degree_out < 10 for the 15 train nodes of 3 classes"
    )
    with pytest.raises(ValueError, match=message):
        make("inductive", degree_in=4.0)
    assert make("inductive", degree_in=0.0, degree_out=0.0).train.graph.adjacency.edges.numel() == 0


def test_transductive_graphs_keep_their_digests():
    """Those of the shipped configurations, which keys of sets and records contain."""
    values = {"classes": 5, "features": 32, "degree_in": 4.0, "degree_out": 3.2, "noise": 3.0, "train": 20}
    real = make("transductive", **values, nodes=2000, val=500)
    digits = knn(neighbours=8, train=20, val=300, setting="transductive", seed=0, device=CPU)
    assert (real.digest[:16], digits.digest[:16]) == ("d32bd0c370ba1da0", "67e20535e3ac204b")


def test_digest_depends_on_everything():
    real = make("transductive")
    graph, labels = real.train.graph, torch.arange(60) % 3
    split = (real.train.index, real.val.index, real.test.index)
    options = {"class_names": ("a", "b", "c"), "licence": "", "citation": "", "device": CPU}

    def digest(graph=graph, labels=labels, split=split, setting="transductive"):
        return node_set("x", graph, labels, split, setting=setting, **options).digest

    base = digest()
    moved = (split[0], split[1][1:], torch.cat([split[2], split[1][:1]]))
    fewer = NodeGraph.of(graph.features, graph.adjacency.edges[:, :-2])
    others = [
        digest(NodeGraph.of(graph.features + 1, graph.adjacency.edges)),
        digest(fewer), digest(labels=labels.roll(3)[torch.randperm(60)]), digest(split=moved),
        digest(setting="inductive"),
    ]  # fmt: skip
    assert base == digest() and len({base, *others}) == 6
    with pytest.raises(ValueError, match="each node must be in at most one split, got node"):
        digest(split=(split[0], split[1], torch.cat([split[2], split[0][:1]])))
    with pytest.raises(ValueError, match="each class must have a training node"):
        digest(split=(split[0][labels[split[0]] > 0], split[1], split[2]))
    with pytest.raises(ValueError, match=r"dataset\.setting must be transductive or inductive"):
        digest(setting="online")


def test_block_model_has_the_requested_degrees():
    real = make("transductive", nodes=3000, degree_in=6.0, degree_out=2.0)
    sender, receiver = real.train.graph.adjacency.edges
    same = sender % 3 == receiver % 3
    assert float(same.float().mean()) == pytest.approx(0.75, abs=0.02)
    assert len(sender) / 3000 == pytest.approx(8.0, abs=0.2)


def test_neighbours_of_digits_are_mostly_of_the_same_class():
    real = knn(neighbours=5, train=5, val=100, setting="transductive", seed=0, device=CPU)
    labels = torch.full((1797,), -1)
    for split in (real.train, real.val, real.test):
        labels[split.index] = split.labels
    sender, receiver = real.train.graph.adjacency.edges
    assert int(labels.min()) == 0 and real.train.counts.tolist() == [5] * 10
    assert float((labels[sender] == labels[receiver]).float().mean()) > 0.9


def test_inductive_neighbours_are_those_of_the_same_split():
    real = knn(neighbours=3, train=5, val=40, setting="inductive", seed=0, device=CPU)
    for split in (real.train, real.val, real.test):
        x, (sender, receiver) = split.graph.features, split.graph.adjacency.edges
        assert len(x) == len(split) and torch.bincount(sender, minlength=len(x)).min() >= 3
        own = receiver[sender == 7]
        near = torch.cdist(x[7:8], x)[0].argsort()[1:4]
        assert torch.isin(near, own).all()
    with pytest.raises(ValueError, match=r"dataset\.neighbours must be < 2, the size of the smallest split"):
        knn(neighbours=3, train=5, val=2, setting="inductive", seed=0, device=CPU)


class TestPlanetoid:
    """Files of the format of Planetoid. Row i of `tx` is the node on line i of `test.index`, which has a gap."""

    @pytest.fixture
    def folder(self, tmp_path):
        rows = np.eye(160 + 4, 6, dtype=np.float32) + 1.0
        one_hot = np.eye(7, dtype=np.int32)[np.arange(164) % 7]
        order = [163, 160, 164, 161]  # 162 has no features and no label
        parts = {
            "x": scipy.sparse.csr_matrix(rows[:140]), "y": one_hot[:140],
            "allx": scipy.sparse.csr_matrix(rows[:160]), "ally": one_hot[:160],
            "tx": scipy.sparse.csr_matrix(rows[160:]), "ty": one_hot[160:],
            "graph": {0: [1, 1, 0], 163: [160]},
        }  # fmt: skip
        for part, value in parts.items():
            data = pickle.dumps(value, protocol=3)
            for new, old in (
                (b"scipy.sparse._csr", b"scipy.sparse.csr"), (b"numpy._core", b"numpy.core"),
            ):  # fmt: skip
                data = data.replace(new, old)
            (tmp_path / f"ind.cora.{part}").write_bytes(data)
        (tmp_path / "ind.cora.test.index").write_text("\n".join(map(str, order)))
        return tmp_path

    def load(self, folder, **changes):
        values = {
            "name": "cora", "root": str(folder), "download": False, "features": "row_sum", "split": "public",
            "setting": "transductive", "device": CPU,
        }  # fmt: skip
        return planetoid(**values | changes)

    def test_rows_of_test_nodes_are_in_the_order_of_the_index(self, folder, monkeypatch):
        monkeypatch.setattr("dd_bench.data.planetoid.VALIDATION", 20)
        real = self.load(folder, features="raw")
        assert real.test.index.tolist() == [160, 161, 163, 164]
        assert real.test.labels.tolist() == [161 % 7, 163 % 7, 160 % 7, 162 % 7]
        x = real.test.graph.features
        assert torch.equal(x[163], torch.from_numpy(np.eye(164, 6, dtype=np.float32)[160] + 1))
        assert float(x[162].sum()) == 0
        assert real.test.graph.adjacency.edges.t().tolist() == [[0, 1], [1, 0], [160, 163], [163, 160]]
        torch.testing.assert_close(self.load(folder).train.graph.features[:162].sum(1), torch.ones(162))

    def test_other_objects_are_refused(self, folder):
        class Evil:
            def __reduce__(self):
                return print, ("executed",)

        path = folder / "ind.cora.ty"
        path.write_bytes(pickle.dumps(Evil(), protocol=2))
        with pytest.raises(ValueError, match=r"contains __builtin__\.print"):
            load_arrays(path)

    def test_missing_files_and_values(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"dataset\.download=true"):
            self.load(tmp_path)
        with pytest.raises(ValueError, match=r"dataset\.split must be one of public, random, got 'x'"):
            self.load(tmp_path, split="x")

    @pytest.mark.needs_data
    @pytest.mark.skipif(not FILES.exists(), reason="the files of Cora and Citeseer are missing")
    @pytest.mark.parametrize(
        ("name", "v", "d", "edges", "train", "isolated"),
        [("cora", 2708, 1433, 10556, 140, 0), ("citeseer", 3327, 3703, 9104, 120, 48)],
    )
    def test_counts(self, name, v, d, edges, train, isolated):
        real = self.load(FILES, name=name)
        graph = real.train.graph
        assert tuple(graph.features.shape) == (v, d) and graph.adjacency.edges.shape[1] == edges
        assert (len(real.train), len(real.val), len(real.test)) == (train, 500, 1000)
        assert int((graph.adjacency.sums == 0).sum()) == isolated
        assert graph.sparse_features is not None and graph.sparse_features.layout == torch.sparse_csr


def test_ogb_files(tmp_path):
    folder = tmp_path / "arxiv"
    x = np.arange(10.0).reshape(5, 2)
    files = {
        "raw/node-feat": x, "raw/edge": [[0, 1], [1, 0], [2, 4]], "raw/node-label": [[39], [0], [1], [0], [39]],
        "split/time/train": [[0], [1], [2]], "split/time/valid": [[3]], "split/time/test": [[4]],
    }  # fmt: skip
    for name, rows in files.items():
        path = folder / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt") as file:
            file.writelines(",".join(map(str, row)) + "\n" for row in rows)
    with pytest.raises(ValueError, match="each class must have a training node"):  # of 40 classes
        ogb_nodes(root=str(tmp_path), download=False, features="raw", setting="transductive", device=CPU)
    many = [[c] for c in range(40)]
    for name, rows in {
        "raw/node-feat": np.arange(84.0).reshape(42, 2), "raw/node-label": [*many, [3], [4]],
        "split/time/train": many, "split/time/valid": [[40]], "split/time/test": [[41]],
    }.items():  # fmt: skip
        with gzip.open(folder / f"{name}.csv.gz", "wt") as file:
            file.writelines(",".join(map(str, row)) + "\n" for row in rows)
    real = ogb_nodes(
        root=str(tmp_path), download=False, features="standardise", setting="transductive", device=CPU
    )
    assert real.train.graph.adjacency.edges.tolist() == [[0, 1, 2, 4], [1, 0, 4, 2]]
    assert real.test.labels.tolist() == [4] and real.name == "ogbn_arxiv"
    own = real.train.features()
    torch.testing.assert_close(own.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(own.std(0, correction=0), torch.ones(2))
    with pytest.raises(FileNotFoundError, match=r"dataset\.download=true"):
        ogb_nodes(root=str(tmp_path / "x"), download=False, features="raw", setting="inductive", device=CPU)


def test_graphsaint_files(tmp_path):
    folder = tmp_path / "flickr"
    folder.mkdir()
    edges = scipy.sparse.csr_matrix((np.ones(3), ([0, 7, 8], [1, 7, 0])), shape=(9, 9))
    scipy.sparse.save_npz(folder / "adj_full.npz", edges)
    np.save(folder / "feats.npy", np.arange(18.0).reshape(9, 2))
    classes = {str(i): [int(c == i % 7) for c in range(7)] for i in range(9)}
    (folder / "class_map.json").write_text(json.dumps(classes))
    (folder / "role.json").write_text(json.dumps({"tr": list(range(7)), "va": [7], "te": [8]}))
    options = {"root": str(tmp_path), "download": False, "features": "raw", "device": CPU}
    real = graphsaint(name="flickr", setting="inductive", **options)
    assert real.name == "flickr_inductive" and real.train.labels.tolist() == list(range(7))
    assert real.train.graph.adjacency.edges.tolist() == [[0, 1], [1, 0]]
    assert real.test.graph.adjacency.edges.numel() == 0 and real.test.labels.tolist() == [1]
    whole = graphsaint(name="flickr", setting="transductive", **options)
    assert whole.train.graph.adjacency.edges.shape[1] == 4
    (folder / "role.json").write_text("{}")
    with pytest.raises(ValueError, match="are damaged"):
        graphsaint(name="flickr", setting="inductive", **options)
    with pytest.raises(FileNotFoundError, match=r"dataset\.download=true"):
        graphsaint(name="reddit", setting="inductive", **options)
    with pytest.raises(ValueError, match=r"dataset\.name must be flickr or reddit"):
        graphsaint(name="yelp", setting="inductive", **options)
