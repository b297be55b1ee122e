"""Graphs: batches, files, synthetic sets, scores, and runs of the command."""

import gzip
import json
import math
import re
import sys
import time
from dataclasses import replace

import pytest
import torch
from sklearn.metrics import roc_auc_score

from dd_bench.data import smiles
from dd_bench.data.graph_dataset import graph_set, random_split
from dd_bench.data.graphs import Graphs, GraphShape, coalesce, concatenate
from dd_bench.data.ogb_mol import ogb_mol
from dd_bench.data.pyg import import_pyg
from dd_bench.data.tu import to_undirected, tu
from dd_bench.evaluation.graph_metrics import graph_score, majority, size_only
from dd_bench.evaluators import graph as graph_evaluator
from dd_bench.evaluators.graph import _labelled_batches
from dd_bench.leaderboards.admission.consistency import (
    check_best_runs,
    check_configuration,
    check_repeats,
)
from dd_bench.models.gnn import GCN
from dd_bench.records.record import load_record
from dd_bench.synthetic import storage
from dd_bench.synthetic.graph_pictures import draw
from dd_bench.synthetic.graphs import GraphSet, TreeSet, to_smallest_dtype
from dd_bench.training import loop
from dd_bench.training.batches import fetch_from
from dd_bench.training.losses import Weighted, weighted_loss

CPU = torch.device("cpu")
TINY = [
    "dataset=motifs",
    "dataset.graphs=40",
    "dataset.base=6",
    "model.hidden=8",
    "model.layers=2",
    "runtime=plain",
]
SHORT = ["protocol.recipe.steps=4", "evaluator.num_networks=2", "evaluator.eval_points=2"]


@pytest.fixture
def make_tree_set():
    """Return a function that builds four sets of one star each, with one to four leaves and the given supports."""

    def make(support, weighting):
        sizes = torch.arange(2, 6)
        parents = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
        return TreeSet(
            nodes=torch.zeros(len(parents), 1).long(),
            parents=parents,
            edge_labels=torch.zeros(len(parents), 0).long(),
            degrees=None,
            sizes=sizes,
            patterns=torch.arange(4),
            pattern_sizes=torch.ones(4).long(),
            support=torch.tensor(support),
            labels=torch.tensor([0, 0, 1, 1]),
            shape=GraphShape((1,), ()),
            class_names=("a", "b"),
            weighting=weighting,
        )

    return make


class TestGraphs:
    def test_batch_contains_its_graphs_in_order(self, motifs):
        graphs = motifs.train.graphs
        index = torch.tensor([5, 2, 5])
        batch = graphs[index]
        assert batch.num_nodes.tolist() == graphs.num_nodes[index].tolist()
        for position, i in enumerate(index.tolist()):
            one, same = graphs[torch.tensor([i])], batch[torch.tensor([position])]
            assert torch.equal(one.nodes, same.nodes)
            assert sorted(one.edges.t().tolist()) == sorted(same.edges.t().tolist())
        whole = concatenate([graphs[torch.tensor([i])] for i in range(len(graphs))])
        assert torch.equal(whole.nodes, graphs.nodes) and torch.equal(whole.ptr, graphs.ptr)

    def test_sizes_of_several_batches_are_known_before_they_are_taken(self, motifs):
        graphs = motifs.train.graphs
        indices = [torch.tensor([5, 2, 5]), torch.tensor([1])]
        for index, size in zip(indices, graphs.sizes(indices), strict=True):
            batch, same = graphs[index], graphs.take(index, size)
            assert size == (len(batch.nodes), batch.edges.shape[1])
            assert torch.equal(same.nodes, batch.nodes) and torch.equal(same.edges, batch.edges)

    def test_indexing_includes_degrees_roots_and_weights(self, motifs):
        g = motifs.train.graphs
        marked = replace(
            g, roots=g.nodes[:, 0] == 2, degrees=g.nodes[:, 0], weights=torch.rand(g.edges.shape[1])
        )
        part = marked[torch.tensor([4])]
        own = (marked.graph_of == 4).nonzero().flatten()
        assert torch.equal(part.roots, marked.roots[own]) and torch.equal(part.degrees, marked.degrees[own])
        assert part.weights.numel() == part.edges.shape[1]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"nodes": torch.zeros(3, 1)}, "ptr must increase"),
            ({"edges": torch.tensor([[0, 5], [1, 0]])}, r"must connect nodes in 0\.\.3"),
            ({"edges": torch.tensor([[0, 2], [1, 0]])}, "must be in the same graph"),
            ({"nodes": torch.tensor([[0], [1], [0], [9]])}, "node labels must be >= 0 and below"),
            ({"edge_labels": torch.tensor([[0], [7]])}, "edge labels must be >= 0 and below"),
            ({"ptr": torch.tensor([0, 4, 4])}, "ptr must increase"),
        ],
    )
    def test_invalid_graphs(self, change, message):
        good = {
            "nodes": torch.tensor([[0], [1], [0], [1]]),
            "edges": torch.tensor([[0, 1], [1, 0]]),
            "edge_labels": torch.tensor([[0], [0]]),
            "ptr": torch.tensor([0, 2, 4]),
        }
        Graphs(**good).check(GraphShape((2,), (1,)))
        with pytest.raises(ValueError, match=message):
            Graphs(**good | change).check(GraphShape((2,), (1,)))

    def test_paper_bytes_count_an_undirected_edge_once(self):
        """Two nodes and an edge are four numbers of two bytes each. An edge label adds one if labels differ."""
        two = Graphs(
            torch.zeros(4, 1).long(),
            torch.tensor([[0, 1, 2, 3], [1, 0, 3, 2]]),
            torch.tensor([[0], [0], [1], [1]]),
            torch.tensor([0, 2, 4]),
        )
        shape, labels = GraphShape((1,), (2,)), torch.tensor([0, 1])
        assert GraphSet(two, labels, shape, ("a", "b")).paper_bytes() == 2 * (4 + 4 + 2)
        same = replace(two, edge_labels=torch.zeros(4, 1).long())
        assert GraphSet(same, labels, shape, ("a", "b")).paper_bytes() == 2 * (4 + 4)

    def test_directions_with_different_labels_are_one_edge(self):
        edges, labels = to_undirected(torch.tensor([[1, 0, 2], [0, 1, 1]]), torch.tensor([[4], [3], [5]]))
        assert edges.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
        assert labels.flatten().tolist() == [4, 4, 5, 5]

    def test_drawing_a_large_graph_is_fast(self):
        v = 2000
        chain = torch.stack([torch.arange(v - 1), torch.arange(1, v)])
        long = Graphs(
            torch.zeros(v, 1).long(),
            torch.cat([chain, chain.flip(0)], 1),
            torch.zeros(2 * v - 2, 0).long(),
            torch.tensor([0, v]),
        )
        start = time.monotonic()
        assert draw(long).shape == (1, 3, 112, 112)
        assert time.monotonic() - start < 60

    def test_coalesce(self):
        edges = torch.tensor([[0, 1, 0, 2, 1], [1, 0, 1, 2, 0]])
        once, labels = coalesce(edges, torch.tensor([[3], [4], [5], [6], [7]]))
        assert once.t().tolist() == [[0, 1], [1, 0]] and labels.flatten().tolist() == [3, 4]

    def test_published_split(self):
        """The split of the graph papers: `torch.manual_seed(0)` and a shuffle, whose first tenth is the test split."""
        train, val, test = random_split(4110, 0, 0.1, 0.1)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            order = torch.randperm(4110)
        assert (
            torch.equal(test, order[:411])
            and torch.equal(val, order[411:822])
            and torch.equal(train, order[822:])
        )
        assert len(random_split(30, 0, 0.1, 0.1)[2]) == 3
        with pytest.raises(ValueError, match="with a sum below 1"):
            random_split(10, 0, 0.6, 0.5)


def write_tu(folder, **files):
    """Write ten copies of two triangles and an edge in the format of TUDataset."""
    contents = {
        "A": "1, 2\n2, 1\n2, 3\n3, 2\n1, 3\n3, 1\n4, 5\n5, 4\n"
        + "".join(f"{a}, {b}\n{b}, {a}\n" for a, b in ((6, 7), (7, 8), (6, 8))),
        "graph_indicator": "1\n1\n1\n2\n2\n3\n3\n3\n",
        "graph_labels": "-1\n1\n-1\n",
        "node_labels": "3\n3\n5\n3\n3\n5\n5\n3\n",
    }
    copies = 10
    n = len(contents["graph_indicator"].split())
    for copy in range(1, copies):
        contents["A"] += "".join(
            ", ".join(str(int(x) + copy * n) for x in line.split(",")) + "\n" for line in TRIANGLES
        )
        contents["graph_indicator"] += "".join(f"{int(x) + 3 * copy}\n" for x in "11122333")
        contents["graph_labels"] += "-1\n1\n-1\n"
        contents["node_labels"] += "3\n3\n5\n3\n3\n5\n5\n3\n"
    folder.mkdir(parents=True, exist_ok=True)
    for part, text in (contents | files).items():
        if text is not None:
            (folder / f"TOY_{part}.txt").write_text(text)


TRIANGLES = [
    f"{a}, {b}"
    for x, y in ((1, 2), (2, 3), (1, 3), (4, 5), (6, 7), (7, 8), (6, 8))
    for a, b in ((x, y), (y, x))
]


def toy(root, **changes):
    arguments = {"name": "TOY", "root": str(root), "download": False, "node_labels": "labels", "seed": 0}
    return tu(**arguments | {"test": 0.2, "val": 0.2, "device": CPU} | changes)


class TestTU:
    @pytest.mark.parametrize("layout", ["TOY", "TOY/raw"])
    def test_published_format(self, tmp_path, layout):
        write_tu(tmp_path / layout)
        real = toy(tmp_path)
        assert real.class_names == ("-1", "1") and real.modality == "graph"
        assert (len(real.train), len(real.val), len(real.test)) == (18, 6, 6)
        assert real.shape == GraphShape((2,), ()) and set(real.train.graphs.num_nodes.tolist()) == {2, 3}
        assert real.digest == toy(tmp_path).digest != toy(tmp_path, seed=1).digest

    def test_root_in_the_home_folder(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME", str(tmp_path))
        write_tu(tmp_path / "graphs" / "TOY")
        assert toy("~/graphs").digest == toy(tmp_path / "graphs").digest
        with pytest.raises(FileNotFoundError, match=re.escape(f"found in {tmp_path}/graphs/m.")):
            ogb_mol(name="m", root="~/graphs", kept=None, device=CPU)

    def test_duplicate_edges_are_removed(self, tmp_path):
        write_tu(tmp_path / "TOY")
        first = toy(tmp_path)
        text = (tmp_path / "TOY" / "TOY_A.txt").read_text()
        (tmp_path / "TOY" / "TOY_A.txt").write_text(text + text)
        assert toy(tmp_path).digest == first.digest

    def test_degrees_must_be_requested(self, tmp_path):
        write_tu(tmp_path / "TOY", node_labels=None)
        with pytest.raises(ValueError, match=r"is missing\. .* dataset\.node_labels=degree"):
            toy(tmp_path)
        real = toy(tmp_path, node_labels="degree")
        g = real.train.graphs
        assert torch.equal(g.nodes[:, 0], torch.bincount(g.edges[1], minlength=len(g.nodes)))

    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ({"A": "1, 2\n2, 99\n"}, r"TOY_A.txt must have two node numbers in 1\.\.80"),
            ({"A": "1, 2\n2\n"}, "TOY_A.txt must have the same number of integers"),
            ({"A": "1, x\n"}, "TOY_A.txt must have the same number of integers"),
            ({"graph_labels": "1\n"}, "TOY_graph_labels.txt must have 30 lines, one per graph, got 1"),
            (
                {"graph_labels": "1, 0\n" * 30},
                "TOY_graph_labels.txt must have one class label .* got 2 columns",
            ),
            ({"graph_indicator": "1, 1\n" * 80}, "TOY_graph_indicator.txt must have one .* got 2 columns"),
            ({"graph_indicator": "2\n1\n"}, "must number the graphs 1, 2, 3"),
            ({"graph_indicator": "-1\n1\n"}, "must number the graphs 1, 2, 3"),
            ({"graph_indicator": "1\n1\n999999999999\n"}, "must number the graphs 1, 2, 3"),
            ({"node_labels": "1\n"}, "TOY_node_labels.txt must have 80 lines, one per node, got 1"),
            ({"edge_labels": "1\n"}, "TOY_edge_labels.txt must have .* lines, one per edge, got 1"),
            ({"A": "1, 2\n2, 1\n1, 4\n"}, r"TOY_A.txt, line 3: .* got graphs 1 and 2"),
        ],
    )
    def test_errors_name_malformed_files(self, tmp_path, files, message):
        write_tu(tmp_path / "TOY", **files)
        with pytest.raises(ValueError, match=message):
            toy(tmp_path)

    def test_missing_files(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"dataset\.download=true"):
            toy(tmp_path)
        write_tu(tmp_path / "TOY", graph_labels=None)
        with pytest.raises(FileNotFoundError, match=r"TOY_graph_labels\.txt is missing"):
            toy(tmp_path)


class TestScores:
    def test_auc(self):
        g = torch.Generator().manual_seed(0)
        logits, y = torch.randn(50, 2, generator=g), torch.randint(2, (50,), generator=g)
        p = logits.softmax(1)[:, 1]
        assert graph_score("auc", logits, y) == pytest.approx(roc_auc_score(y.numpy(), p.numpy()))
        many, y3 = torch.randn(60, 3, generator=g), torch.randint(3, (60,), generator=g)
        expected = roc_auc_score(
            y3.numpy(), many.double().softmax(1).numpy(), multi_class="ovr", average="macro"
        )
        assert graph_score("auc", many, y3) == pytest.approx(expected)
        assert graph_score("auc", torch.zeros(50, 2), y) == 0.5

    def test_size_and_majority_baselines(self, motifs):
        """House and cycle graphs have the same number of nodes, so the size carries no information."""
        assert size_only("auc", motifs.train, motifs.test) == 0.5
        assert majority("auc", motifs.train, motifs.test) == 0.5
        top = int(motifs.train.counts.argmax())
        assert majority("accuracy", motifs.train, motifs.test) == float(
            (motifs.test.labels == top).float().mean()
        )


class TestSets:
    def test_permuted_control_differs_only_in_its_labels(self, motifs):
        syn = GraphSet.coreset(motifs, torch.arange(12))
        permuted = syn.permute_labels(torch.Generator().manual_seed(1))
        assert sorted(permuted.labels.tolist()) == sorted(syn.labels.tolist()) and not torch.equal(
            permuted.labels, syn.labels
        )
        assert {k for k in syn.tensors() if not torch.equal(syn.tensors()[k], permuted.tensors()[k])} == {
            "labels"
        }

    def test_permuted_labels_are_independent_of_the_class(self, motifs):
        """With ten graphs per class, exactly five of each keep their label. A shuffle would keep two to eight."""
        index = torch.cat([motifs.train.of_class(c)[:10] for c in range(2)])
        syn = GraphSet.coreset(motifs, index)
        drawn = [syn.permute_labels(torch.Generator().manual_seed(s)).labels for s in range(40)]
        assert {int((labels == syn.labels).sum()) for labels in drawn} == {10}
        assert len({tuple(labels.tolist()) for labels in drawn}) > 30
        pair = replace(
            syn, graphs=syn.graphs[torch.tensor([0, 10])], labels=torch.tensor([0, 1]), source=None
        )
        drawn = {
            tuple(pair.permute_labels(torch.Generator().manual_seed(s)).labels.tolist()) for s in range(20)
        }
        assert drawn == {(0, 1), (1, 0)}

    def test_size_metrics(self, motifs):
        syn = GraphSet.coreset(motifs, torch.arange(4))
        nodes = int(motifs.train.graphs.num_nodes[:4].sum())
        assert syn.size_metrics() == {"samples": 4, "nodes": nodes, "paper bytes": syn.paper_bytes()}

    def test_shortest_integer_type(self):
        for largest, dtype in (
            (255, torch.uint8),
            (256, torch.int16),
            (2**15, torch.int32),
            (2**31, torch.int64),
        ):
            assert to_smallest_dtype(torch.tensor([0, largest])).dtype == dtype

    def test_pictures(self, motifs):
        pictures = draw(motifs.train.inputs(torch.arange(2)))
        assert pictures.shape == (2, 3, 112, 112) and 0.5 < float(pictures.mean()) < 1
        assert not torch.equal(pictures[0], pictures[1])

    def test_invalid_trees_are_refused(self, dd_bench, tmp_path):
        done = dd_bench("distill", "method=mirage", "ipc=2", "method.depth=2", *TINY)
        assert done.code == 0, done.text
        (folder,) = (tmp_path / "runs" / "sets").glob("mirage-*")
        syn, _ = storage.load(folder)
        assert isinstance(syn, TreeSet) and syn.paper_bytes() > 0
        for change, message in (
            (
                {"parents": syn.parents + 500},
                "must be the root itself, .* got parent 500 for node 0",
            ),
            ({"parents": torch.zeros_like(syn.parents)}, "must be an earlier node of the same tree, got"),
            ({"weighting": "often"}, "weighting must be one of none, sampling, loss, got 'often'"),
            ({"patterns": syn.patterns + 99}, r"patterns must be in 0\.\."),
            ({"support": syn.support * 0}, r"support must be \d+ integers >= 1"),
            ({"sizes": syn.sizes + 1}, "sizes must be integers >= 1 that sum to"),
        ):
            with pytest.raises(ValueError, match=message):
                replace(syn, **change)


class TestWeights:
    """The effect of a pattern's support on the training of a network."""

    @pytest.fixture
    def weighted(self, make_tree_set):
        return lambda weighting: make_tree_set((1, 3, 8, 4), weighting)

    def test_none(self, weighted):
        syn = weighted("none")
        assert syn.weights().tolist() == [1.0] * 4 and _labelled_batches(syn, 8, 0, CPU)[1] is None

    def test_sampling_is_proportional_to_the_support(self, weighted):
        syn = weighted("sampling")
        _, batches = _labelled_batches(syn, 8, 0, CPU)
        sizes = syn.materialise(CPU)[0].num_nodes.tolist()
        assert len(set(sizes)) == 4
        seen = torch.cat([x.num_nodes for epoch in range(1500) for _, x, _ in batches(epoch)])
        share = torch.tensor([(seen == size).float().mean() for size in sizes])
        torch.testing.assert_close(share, torch.tensor([1, 3, 8, 4]) / 16, atol=0.02, rtol=0)
        same_seed = next(iter(_labelled_batches(syn, 8, 0, CPU)[1](3)))
        assert torch.equal(next(iter(batches(3)))[2], same_seed[2]), "determined by seed and epoch"

    def test_weights_are_relative_to_the_size_of_the_class(self, weighted):
        """Supports 1 and 3 of a class with ten graphs; 8 and 4 of a class with forty."""
        syn = replace(weighted("sampling"), class_graphs=(10, 40))
        torch.testing.assert_close(syn.weights() / 4, torch.tensor([0.1, 0.3, 0.2, 0.1]) / 0.7)
        restored = TreeSet.restore(syn.config(), syn.tensors(), syn.class_names, syn.preprocess)
        assert restored.class_graphs == (10, 40) and torch.equal(restored.weights(), syn.weights())
        with pytest.raises(ValueError, match="class_graphs must be 2 integers"):
            replace(syn, class_graphs=(10,))

    def test_weighted_loss(self, weighted):
        syn = weighted("loss")
        _, batches = _labelled_batches(syn, 8, 0, CPU)
        ((_, x, target),) = batches(0)
        assert isinstance(target, Weighted) and float(target.weights.mean()) == pytest.approx(1.0)
        logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
        each = torch.nn.functional.cross_entropy(logits, target.labels, reduction="none")
        assert float(weighted_loss(logits, target)) == pytest.approx(float((each * target.weights).mean()))
        sizes = syn.materialise(CPU)[0].num_nodes.tolist()
        order = dict(zip(sizes, syn.weights().tolist(), strict=True))
        assert target.weights.tolist() == [order[size] for size in x.num_nodes.tolist()]


class TestCommand:
    def test_run_writes_a_record(self, dd_bench, tmp_path):
        done = dd_bench("run", "method=mirage", "ipc=3", "method.depth=2", *TINY, *SHORT)
        assert done.code == 0, done.text
        (path,) = (tmp_path / "runs" / "records").glob("*.json")
        r = load_record(path)
        assert (r.main_metric, r.dataset, r.evaluator, r.label_mode) == ("auc", "motifs", "graph", "hard")
        expected = "accuracy auc balanced_accuracy best_val majority permuted size_only untrained"
        assert r.metrics == expected.split()
        assert {s.value for s in r.scores if s.metric == "size_only"} == {0.5}
        (folder,) = (tmp_path / "runs" / "sets").glob("mirage-*")
        assert "dataset=motifs" in (folder / "README.md").read_text()
        evaluated = dd_bench("evaluate", f"set={folder}", "model=gcn", *TINY, *SHORT)
        assert evaluated.code == 0, evaluated.text

    def test_full_training_set_has_no_permuted_control(self, dd_bench, tmp_path):
        done = dd_bench("run", "method=full", *TINY, *SHORT)
        assert done.code == 0, done.text
        (path,) = (tmp_path / "runs" / "records").glob("*.json")
        assert "permuted" not in load_record(path).metrics

    def test_impossible_pairs_are_skipped_with_a_reason(self, dd_bench):
        for overrides, message in (
            (["method=dm", *TINY], "DM distils images, but dataset 'motifs' contains graphs"),
            (
                ["method=mirage", "dataset=digits"],
                "Mirage distils graphs, but dataset 'digits' contains images",
            ),
            (
                ["method=mirage", *TINY, "model=convnet"],
                "ConvNet requires images, but the dataset contains graphs",
            ),
            (["method=mirage", *TINY, "method.theta=[3]"], "must have one threshold for each of 2 classes"),
            (
                ["method=mirage", *TINY, "method.theta=[3,999]"],
                "method.theta must be <= 14, the number of training graphs",
            ),
            (["method=random_graphs", *TINY, "method.amount=5"], "nodes for one graph per class"),
        ):
            overrides = [
                o for o in overrides if not (o.startswith("model.") and "model=convnet" in overrides)
            ]
            done = dd_bench("run", *overrides)
            assert done.code == 1 and message in done.text, done.text

    def test_note_on_trees_that_are_too_shallow(self, dd_bench, tmp_path):
        done = dd_bench("distill", "method=mirage", "ipc=2", "method.depth=1", *TINY)
        assert done.code == 0, done.text
        assert "GIN has 2 layers, the trees 1 levels" in done.text
        (path,) = (tmp_path / "runs" / "sets").glob("*/provenance.json")
        assert "method.depth=2" in json.loads(path.read_text())["notes"][0]


def test_error_without_pyg_contains_the_install_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    monkeypatch.delitem(sys.modules, "torch_geometric.nn", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'dd-bench\[graph\]'"):
        import_pyg("nn")


def test_record_contains_the_precision_of_training(dd_bench, tmp_path):
    """Graph networks are trained in float32 for every `runtime.precision`."""
    overrides = [*TINY[:-1], "runtime.precision=bf16", *SHORT]
    done = dd_bench("run", "method=random", "ipc=2", *overrides)
    assert done.code == 0, done.text
    (path,) = (tmp_path / "runs" / "records").glob("*.json")
    assert "(fp32 networks" in load_record(path).device


class TestInvalidInput:
    @staticmethod
    def described(part):
        """The arguments of `graph_set` that are the same for every split of these graphs."""
        return {"shape": part.spec, "class_names": ("a", "b"), "licence": "", "citation": "", "device": CPU}

    @pytest.mark.parametrize(
        ("protocol", "message"),
        [
            ("dsa-1000", "recipe.augment=color"),
            ("fkd-300", "has labels=..."),
            ("graph-500 protocol.selection=best_on_test protocol.eval_every=1", "selection=best_on_test"),
            ("graph-500 protocol.recipe.cutmix=0.5", "recipe.cutmix=0.5"),
        ],
    )
    def test_image_protocols_are_refused_before_distillation(self, dd_bench, tmp_path, protocol, message):
        overrides = [o for o in SHORT if "steps" not in o]
        done = dd_bench("run", "method=mirage", "ipc=2", *TINY, *overrides, *f"protocol={protocol}".split())
        assert done.code != 0 and message in done.text and "Use protocol=graph-500" in done.text
        assert not list(tmp_path.glob("runs/sets/*"))

    def test_labels_out_of_range(self, motifs):
        part = motifs.train
        split = tuple(torch.arange(len(part)).chunk(3))
        for label in (2, -1):
            labels = part.labels.clone()
            labels[0] = label
            with pytest.raises(ValueError, match=r"labels must be in 0\.\.1"):
                graph_set("x", part.graphs, labels, split, **self.described(part))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"sizes": torch.tensor([2, 3, 9, 0])}, "sizes must be integers >= 1"),
            ({"sizes": torch.tensor([16, 3, -3, -2])}, "sizes must be integers >= 1"),
            ({"sizes": torch.zeros(0).long()}, "sizes must be integers >= 1"),
            ({"degrees": torch.full((14,), -1)}, "degrees must be >= 0, got -1"),
            ({"degrees": torch.ones(3).long()}, "degrees must have one entry per node"),
            (
                {"patterns": torch.zeros(0).long(), "pattern_sizes": torch.zeros(0).long()},
                "pattern_sizes must be integers >= 1",
            ),
            (
                {"pattern_sizes": torch.tensor([2, 3, -1, 0])},
                "pattern_sizes must be integers >= 1 that sum to 4",
            ),
            ({"patterns": torch.tensor([0, 1, 2, 4])}, r"must be in 0\.\.3"),
            ({"support": torch.tensor([1, 1, 0, 1])}, "support must be 4 integers >= 1"),
        ],
    )
    def test_invalid_tree_sets(self, make_tree_set, change, message):
        with pytest.raises(ValueError, match=message):
            replace(make_tree_set((1, 3, 8, 4), "none"), **change)

    def test_caveats_are_only_reported_where_a_set_is_not_exact(self, make_tree_set, gin, motifs):
        """Trees represent nodes without neighbours exactly for every network. GCN also requires degrees."""
        stars, network = make_tree_set((1, 3, 8, 4), "none"), gin(motifs, layers=2)
        assert any("the trees 1 levels" in note for note in stars.caveats(network))
        point = torch.zeros(1).long()
        isolated = replace(
            stars,
            nodes=point[:, None],
            parents=point,
            edge_labels=torch.zeros(1, 0).long(),
            sizes=point + 1,
            patterns=torch.zeros(4).long(),
        )
        assert any("unless it has no neighbours" in note for note in isolated.caveats(network))
        assert isolated.caveats(network) != replace(isolated, degrees=point).caveats(network) == []
        gcn = replace(gin(motifs, layers=1), make=GCN)
        assert any("do not hold" in note for note in stars.caveats(gcn))
        assert any(
            "where their leaves have the same" in n
            for n in replace(stars, degrees=stars.parents).caveats(gcn)
        )

    def test_invalid_smiles_labels_and_splits(self, tmp_path, monkeypatch):
        (tmp_path / "m").mkdir()
        monkeypatch.setattr(smiles, "featurise", lambda smiles: concatenate([Graphs(
            torch.zeros(2, 9).long(), torch.tensor([[0, 1], [1, 0]]), torch.zeros(2, 3).long(), torch.tensor([0, 2])
        )] * len(smiles)))  # fmt: skip
        for label in ("active", "", "0.5"):
            (tmp_path / "m" / "smiles.csv").write_text(f"smiles,label\nCC,0\nCC,{label}\n")
            with pytest.raises(ValueError, match=r"smiles\.csv, line 3: label must be an integer, got"):
                ogb_mol(name="m", root=str(tmp_path), kept=str(tmp_path / "kept"), device=CPU)
        (tmp_path / "m" / "smiles.csv").write_text("smiles,label\nCC,0\nCC,1\nCC,0\n")
        for part, line in (("train", "0 1"), ("valid", "2"), ("test", "2")):
            (tmp_path / "m" / f"{part}.txt").write_text(line)
        with pytest.raises(ValueError, match="must be in at most one of train, val and test"):
            ogb_mol(name="m", root=str(tmp_path), kept=str(tmp_path / "kept"), device=CPU)
        (tmp_path / "m" / "test.txt").write_text("")
        with pytest.raises(
            ValueError,
            match=r"at least two classes.* Use your own train\.txt and valid\.txt and test\.txt next to",
        ):
            ogb_mol(name="m", root=str(tmp_path), kept=str(tmp_path / "kept"), device=CPU)

    def test_split_with_one_class(self, motifs):
        part = motifs.train
        order = part.labels.argsort(stable=True)
        split = (order[4:], order[:2], order[2:4])
        with pytest.raises(ValueError, match="the val split must contain graphs of at least two classes"):
            graph_set("x", part.graphs, part.labels, split, **self.described(part))

    def test_notes_on_evaluating_trees_with_another_network(self, dd_bench, tmp_path):
        done = dd_bench("distill", "method=mirage_released", "ipc=2", "method.depth=2", *TINY)
        assert done.code == 0, done.text
        (folder,) = (tmp_path / "runs" / "sets").glob("mirage_released-*")
        overrides = [o for o in TINY if "layers" not in o]
        done = dd_bench(
            "evaluate", f"set={folder}", "model=gcn", "model.layers=4", "model.norm=batch", *overrides, *SHORT
        )
        assert done.code == 0, done.text
        (path,) = (tmp_path / "runs" / "records").glob("*.json")
        notes = "\n".join(load_record(path).notes)
        for message in ("GCN has 4 layers, the trees 2 levels", "divides by degrees", "BatchNorm sees"):
            assert message in notes


@pytest.mark.parametrize("batch", [5, 128])
def test_evaluation_points_are_steps_and_exclude_the_permuted_control(dd_bench, tmp_path, monkeypatch, batch):
    """The number of evaluations does not depend on the number of batches of the set."""
    calls, original = [], graph_evaluator._predictions
    monkeypatch.setattr(graph_evaluator, "_predictions", lambda *a: calls.append(0) or original(*a))
    overrides = ["protocol.recipe.steps=10", f"protocol.recipe.batch_size={batch}", "evaluator.eval_points=4"]
    done = dd_bench("run", "method=random", "ipc=8", *TINY, *overrides, "evaluator.num_networks=1")
    assert done.code == 0, done.text
    (path,) = (tmp_path / "runs" / "records").glob("*.json")
    assert {"auc", "best_val", "permuted", "untrained", "size_only", "majority"} <= set(
        load_record(path).metrics
    )
    # without the four evaluations before the first and after the last step, of the network and its permuted control
    evaluations = len(calls) - 4
    assert 5 <= evaluations <= 8, "four on the validation graphs, and one on the test graphs per improvement"


def test_legacy_protocol_reports_the_best_networks_of_all(dd_bench, tmp_path):
    few = [
        "protocol=mirage-legacy",
        "protocol.recipe.epochs=3",
        "protocol.keep=2",
        "evaluator.num_networks=3",
    ]
    done = dd_bench("run", "method=mirage_released", "ipc=2", *TINY, *few)
    assert done.code == 0, done.text
    (path,) = (tmp_path / "runs" / "records").glob("*.json")
    record = load_record(path)
    assert (record.selection, record.main_metric) == ("best_on_val", "auc_best2")
    assert record.protocol.name == "mirage-legacy(keep=2, recipe.epochs=3)"
    values = {
        metric: {s.network: s.value for s in record.scores if s.metric == metric} for metric in record.metrics
    }
    best = sorted(range(3), key=lambda i: -values["val"][i])[:2]
    assert values["auc_best2"] == {i: values["auc"][i] for i in sorted(best)}
    for metric in ("auc", "accuracy", "val", "last", "untrained", "permuted", "size_only", "majority"):
        assert len(values[metric]) == 3
    check_best_runs(record)
    check_configuration(record)
    check_repeats(record)


def test_keep_requires_validation_scores(dd_bench):
    done = dd_bench("run", "method=random", "dataset=digits", "protocol=mirage-legacy", "runtime=plain")
    assert done.code == 1 and "keep=5, which evaluator accuracy does not support" in done.text


def test_learning_rate_schedule_by_step_does_not_depend_on_the_set_size(
    recipe, convnet, blobs, runtime, monkeypatch
):
    rates = []
    original = loop.set_lr

    def spy(optimizer, plan, epoch):
        original(optimizer, plan, epoch)
        rates.append(optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(loop, "set_lr", spy)
    for n in (4, 20):
        rates.clear()
        plan = recipe(epochs=1, steps=10, batch_size=4, milestones=(), schedule="cosine", lr=1.0)
        x = blobs.train.inputs(torch.arange(n))
        fetch = fetch_from(x, blobs.train.labels[:n])
        loop.train(convnet(blobs).fresh(0, CPU), fetch, n, plan, seed=0, runtime=runtime, flip=False)
        by_step = list(dict.fromkeys(round(r, 6) for r in rates))
        assert by_step == [round(0.5 * (1 + math.cos(math.pi * s / 10)), 6) for s in range(10)]


def test_divergence_is_recorded(dd_bench, tmp_path):
    overrides = ["protocol.recipe.steps=12", "protocol.recipe.lr=1e30", "evaluator.eval_points=4"]
    done = dd_bench("run", "method=random", "ipc=3", *TINY, *overrides, "evaluator.num_networks=1")
    assert (
        done.code != 0
        and "diverged" in done.text
        and "protocol.recipe.lr=1e+30. Use a smaller value" in done.text
    )
    (path,) = (tmp_path / "runs" / "records").glob("*.json")
    assert load_record(path).status == "diverged"


def test_error_for_invalid_numbers_names_the_file(tmp_path):
    raw = tmp_path / "m" / "raw"
    raw.mkdir(parents=True)
    for name in ("node-feat", "edge", "edge-feat", "graph-label", "num-node-list", "num-edge-list"):
        with gzip.open(raw / f"{name}.csv.gz", "wt") as file:
            file.write("1,2\nx,3\n")
    with pytest.raises(ValueError, match=r"node-feat\.csv\.gz is damaged"):
        ogb_mol(name="m", root=str(tmp_path), kept=None, device=CPU)
