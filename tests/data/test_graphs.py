"""Graphs end to end, and their parts: batches, files, sets, scores, and the command."""

import gzip
import json
import math
import subprocess
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
    """Builds four sets of one star each, of one to four leaves, with the given supports."""

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
    def test_a_batch_is_its_graphs(self, motifs):
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

    def test_degrees_roots_and_weights_come_along(self, motifs):
        g = motifs.train.graphs
        marked = replace(
            g, roots=g.nodes[:, 0] == 2, degrees=g.nodes[:, 0], weights=torch.rand(g.edges.shape[1])
        )
        part = marked[torch.tensor([4])]
        own = (marked.graph_of == 4).nonzero().flatten()
        assert torch.equal(part.roots, marked.roots[own]) and torch.equal(part.degrees, marked.degrees[own])
        assert part.weights.numel() == part.edges.shape[1]

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"nodes": torch.zeros(3, 1)}, "ptr has to rise"),
            ({"edges": torch.tensor([[0, 5], [1, 0]])}, r"must be in 0\.\.3"),
            ({"edges": torch.tensor([[0, 2], [1, 0]])}, "from one graph into another"),
            ({"nodes": torch.tensor([[0], [1], [0], [9]])}, "a label of the nodes is outside"),
            ({"edge_labels": torch.tensor([[0], [7]])}, "a label of the edges is outside"),
            ({"ptr": torch.tensor([0, 4, 4])}, "ptr has to rise"),
        ],
    )
    def test_what_is_wrong_is_named(self, change, told):
        good = {
            "nodes": torch.tensor([[0], [1], [0], [1]]),
            "edges": torch.tensor([[0, 1], [1, 0]]),
            "edge_labels": torch.tensor([[0], [0]]),
            "ptr": torch.tensor([0, 2, 4]),
        }
        Graphs(**good).check(GraphShape((2,), (1,)))
        with pytest.raises(ValueError, match=told):
            Graphs(**good | change).check(GraphShape((2,), (1,)))

    def test_papers_count_an_edge_once(self):
        """Two nodes and an edge are four numbers of two bytes, a third for its label where labels differ."""
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

    def test_two_directions_that_are_labelled_apart_are_one_edge(self):
        edges, labels = to_undirected(torch.tensor([[1, 0, 2], [0, 1, 1]]), torch.tensor([[4], [3], [5]]))
        assert edges.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]]
        assert labels.flatten().tolist() == [4, 4, 5, 5]

    def test_a_large_graph_is_drawn_in_part(self):
        v = 2000
        chain = torch.stack([torch.arange(v - 1), torch.arange(1, v)])
        long = Graphs(
            torch.zeros(v, 1).long(),
            torch.cat([chain, chain.flip(0)], 1),
            torch.zeros(2 * v - 2, 0).long(),
            torch.tensor([0, v]),
        )
        began = time.monotonic()
        assert draw(long).shape == (1, 3, 112, 112)
        assert time.monotonic() - began < 60, "thousands of nodes took minutes"

    def test_coalesced(self):
        edges = torch.tensor([[0, 1, 0, 2, 1], [1, 0, 1, 2, 0]])
        once, labels = coalesce(edges, torch.tensor([[3], [4], [5], [6], [7]]))
        assert once.t().tolist() == [[0, 1], [1, 0]] and labels.flatten().tolist() == [3, 4]

    def test_the_published_split(self):
        """`torch.manual_seed(0)` and a shuffle, the first tenth to test: what the graph papers share."""
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
        with pytest.raises(ValueError, match="wanted shares"):
            random_split(10, 0, 0.6, 0.5)


def write_tu(folder, **files):
    """Two triangles and a path, as TUDataset writes them."""
    plain = {
        "A": "1, 2\n2, 1\n2, 3\n3, 2\n1, 3\n3, 1\n4, 5\n5, 4\n"
        + "".join(f"{a}, {b}\n{b}, {a}\n" for a, b in ((6, 7), (7, 8), (6, 8))),
        "graph_indicator": "1\n1\n1\n2\n2\n3\n3\n3\n",
        "graph_labels": "-1\n1\n-1\n",
        "node_labels": "3\n3\n5\n3\n3\n5\n5\n3\n",
    }
    # enough of each class for all three parts of the split
    copies = 10
    n = len(plain["graph_indicator"].split())
    for copy in range(1, copies):
        plain["A"] += "".join(
            ", ".join(str(int(x) + copy * n) for x in line.split(",")) + "\n" for line in TRIANGLES
        )
        plain["graph_indicator"] += "".join(f"{int(x) + 3 * copy}\n" for x in "11122333")
        plain["graph_labels"] += "-1\n1\n-1\n"
        plain["node_labels"] += "3\n3\n5\n3\n3\n5\n5\n3\n"
    folder.mkdir(parents=True, exist_ok=True)
    for part, text in (plain | files).items():
        if text is not None:
            (folder / f"TOY_{part}.txt").write_text(text)


TRIANGLES = [
    f"{a}, {b}"
    for x, y in ((1, 2), (2, 3), (1, 3), (4, 5), (6, 7), (7, 8), (6, 8))
    for a, b in ((x, y), (y, x))
]


def toy(root, **changes):
    how = {"name": "TOY", "root": str(root), "download": False, "node_labels": "labels", "seed": 0}
    return tu(**how | {"test": 0.2, "val": 0.2, "device": CPU} | changes)


class TestTU:
    @pytest.mark.parametrize("layout", ["TOY", "TOY/raw"])
    def test_the_true_format(self, tmp_path, layout):
        write_tu(tmp_path / layout)
        real = toy(tmp_path)
        assert real.class_names == ("-1", "1") and real.modality == "graph"
        assert (len(real.train), len(real.val), len(real.test)) == (18, 6, 6)
        assert real.shape == GraphShape((2,), ()) and set(real.train.graphs.num_nodes.tolist()) == {2, 3}
        assert real.digest == toy(tmp_path).digest != toy(tmp_path, seed=1).digest

    def test_doubled_edges_are_one(self, tmp_path):
        write_tu(tmp_path / "TOY")
        first = toy(tmp_path)
        text = (tmp_path / "TOY" / "TOY_A.txt").read_text()
        (tmp_path / "TOY" / "TOY_A.txt").write_text(text + text)
        assert toy(tmp_path).digest == first.digest

    def test_degrees_have_to_be_asked_for(self, tmp_path):
        write_tu(tmp_path / "TOY", node_labels=None)
        with pytest.raises(ValueError, match=r"Use dataset\.node_labels=degree"):
            toy(tmp_path)
        real = toy(tmp_path, node_labels="degree")
        g = real.train.graphs
        assert torch.equal(g.nodes[:, 0], torch.bincount(g.edges[1], minlength=len(g.nodes)))

    @pytest.mark.parametrize(
        ("files", "told"),
        [
            ({"A": "1, 2\n2, 99\n"}, r"TOY_A.txt: wanted two node numbers of 1\.\.80"),
            ({"A": "1, 2\n2\n"}, "TOY_A.txt: wanted whole numbers"),
            ({"A": "1, x\n"}, "TOY_A.txt: wanted whole numbers"),
            ({"graph_labels": "1\n"}, "TOY_graph_labels.txt has 1 lines, there are 30 graphs"),
            ({"graph_indicator": "2\n1\n"}, "numbered from 1 on"),
            ({"graph_indicator": "-1\n1\n"}, "numbered from 1 on"),
            ({"graph_indicator": "1\n1\n999999999999\n"}, "numbered from 1 on"),
            ({"node_labels": "1\n"}, "TOY_node_labels.txt has 1 lines, there are 80 nodes"),
            ({"edge_labels": "1\n"}, "TOY_edge_labels.txt has 1 lines"),
            ({"A": "1, 2\n2, 1\n1, 4\n"}, "TOY_A.txt, line 3: an edge from graph 1 into graph 2"),
        ],
    )
    def test_malformed_files_are_named(self, tmp_path, files, told):
        write_tu(tmp_path / "TOY", **files)
        with pytest.raises(ValueError, match=told):
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
        wanted = roc_auc_score(
            y3.numpy(), many.double().softmax(1).numpy(), multi_class="ovr", average="macro"
        )
        assert graph_score("auc", many, y3) == pytest.approx(wanted)
        assert graph_score("auc", torch.zeros(50, 2), y) == 0.5

    def test_controls_of_size(self, motifs):
        """House and cycle graphs have equally many nodes: size says nothing."""
        assert size_only("auc", motifs.train, motifs.test) == 0.5
        assert majority("auc", motifs.train, motifs.test) == 0.5
        top = int(motifs.train.counts.argmax())
        assert majority("accuracy", motifs.train, motifs.test) == float(
            (motifs.test.labels == top).float().mean()
        )


class TestSets:
    def test_the_permuted_control_differs_in_its_labels_alone(self, motifs):
        syn = GraphSet.coreset(motifs, torch.arange(12))
        other = syn.permute_labels(torch.Generator().manual_seed(1))
        assert sorted(other.labels.tolist()) == sorted(syn.labels.tolist()) and not torch.equal(
            other.labels, syn.labels
        )
        assert {k for k in syn.tensors() if not torch.equal(syn.tensors()[k], other.tensors()[k])} == {
            "labels"
        }

    def test_permuted_labels_say_nothing_of_the_class(self, motifs):
        """Ten of each class: five keep their label, whatever the draw; a shuffle would keep two to eight."""
        index = torch.cat([motifs.train.of_class(c)[:10] for c in range(2)])
        syn = GraphSet.coreset(motifs, index)
        drawn = [syn.permute_labels(torch.Generator().manual_seed(s)).labels for s in range(40)]
        assert {int((labels == syn.labels).sum()) for labels in drawn} == {10}
        assert len({tuple(labels.tolist()) for labels in drawn}) > 30
        pair = replace(
            syn, graphs=syn.graphs[torch.tensor([0, 10])], labels=torch.tensor([0, 1]), source=None
        )
        told = {
            tuple(pair.permute_labels(torch.Generator().manual_seed(s)).labels.tolist()) for s in range(20)
        }
        assert told == {(0, 1), (1, 0)}

    def test_sizes_are_told_three_ways(self, motifs):
        syn = GraphSet.coreset(motifs, torch.arange(4))
        nodes = int(motifs.train.graphs.num_nodes[:4].sum())
        assert syn.size_metrics() == {"samples": 4, "nodes": nodes, "paper bytes": syn.paper_bytes()}

    def test_the_shortest_integers(self):
        for most, kind in (
            (255, torch.uint8),
            (256, torch.int16),
            (2**15, torch.int32),
            (2**31, torch.int64),
        ):
            assert to_smallest_dtype(torch.tensor([0, most])).dtype == kind

    def test_pictures(self, motifs):
        pictures = draw(motifs.train.inputs(torch.arange(2)))
        assert pictures.shape == (2, 3, 112, 112) and 0.5 < float(pictures.mean()) < 1
        assert not torch.equal(pictures[0], pictures[1])

    def test_a_tampered_tree_is_refused(self, dd_bench, tmp_path):
        done = dd_bench("distill", "method=mirage", "ipc=2", "method.depth=2", *TINY)
        assert done.code == 0, done.text
        (folder,) = (tmp_path / "runs" / "sets").glob("mirage-*")
        syn, _ = storage.load(folder)
        assert isinstance(syn, TreeSet) and syn.paper_bytes() > 0
        for change, told in (
            ({"parents": syn.parents + 500}, "node 0 has parent 500: a root must be its own parent"),
            ({"parents": torch.zeros_like(syn.parents)}, "must come before the node in its tree"),
            ({"weighting": "often"}, "weighting must be one of none, sampling, loss, got 'often'"),
            ({"patterns": syn.patterns + 99}, r"patterns must be in 0\.\."),
            ({"support": syn.support * 0}, "support >= 1"),
            ({"sizes": syn.sizes + 1}, "sum of sizes"),
        ):
            with pytest.raises(ValueError, match=told):
                replace(syn, **change)


class TestWeights:
    """What a pattern's support does to the training of a network."""

    @pytest.fixture
    def weighed(self, make_tree_set):
        return lambda weighting: make_tree_set((1, 3, 8, 4), weighting)

    def test_none(self, weighed):
        syn = weighed("none")
        assert syn.weights().tolist() == [1.0] * 4 and _labelled_batches(syn, 8, 0, CPU)[1] is None

    def test_batches_are_drawn_in_proportion(self, weighed):
        syn = weighed("sampling")
        _, lessons = _labelled_batches(syn, 8, 0, CPU)
        sizes = syn.materialise(CPU)[0].num_nodes.tolist()
        assert len(set(sizes)) == 4
        seen = torch.cat([x.num_nodes for epoch in range(1500) for _, x, _ in lessons(epoch)])
        share = torch.tensor([(seen == size).float().mean() for size in sizes])
        torch.testing.assert_close(share, torch.tensor([1, 3, 8, 4]) / 16, atol=0.02, rtol=0)
        again = next(iter(_labelled_batches(syn, 8, 0, CPU)[1](3)))
        assert torch.equal(next(iter(lessons(3)))[2], again[2]), "drawn by seed and epoch"

    def test_a_larger_class_is_not_drawn_more_often_for_its_size(self, weighed):
        """Supports of 1 and 3 of ten graphs, of 8 and 4 of forty."""
        syn = replace(weighed("sampling"), class_graphs=(10, 40))
        torch.testing.assert_close(syn.weights() / 4, torch.tensor([0.1, 0.3, 0.2, 0.1]) / 0.7)
        again = TreeSet.restore(syn.config(), syn.tensors(), syn.class_names, syn.preprocess)
        assert again.class_graphs == (10, 40) and torch.equal(again.weights(), syn.weights())
        with pytest.raises(ValueError, match="class_graphs must be 2 integers"):
            replace(syn, class_graphs=(10,))

    def test_the_loss_is_weighed(self, weighed):
        syn = weighed("loss")
        _, lessons = _labelled_batches(syn, 8, 0, CPU)
        ((_, x, target),) = lessons(0)
        assert isinstance(target, Weighted) and float(target.weights.mean()) == pytest.approx(1.0)
        logits = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
        each = torch.nn.functional.cross_entropy(logits, target.labels, reduction="none")
        assert float(weighted_loss(logits, target)) == pytest.approx(float((each * target.weights).mean()))
        sizes = syn.materialise(CPU)[0].num_nodes.tolist()
        order = dict(zip(sizes, syn.weights().tolist(), strict=True))
        assert target.weights.tolist() == [order[size] for size in x.num_nodes.tolist()]


class TestCommand:
    def test_one_line_from_graphs_to_a_record(self, dd_bench, tmp_path):
        done = dd_bench("run", "method=mirage", "ipc=3", "method.depth=2", *TINY, *SHORT)
        assert done.code == 0, done.text
        (path,) = (tmp_path / "runs" / "records").glob("*.json")
        r = load_record(path)
        assert (r.main_metric, r.dataset, r.evaluator, r.label_mode) == ("auc", "motifs", "graph", "hard")
        wanted = "accuracy auc balanced_accuracy best_val majority permuted size_only untrained"
        assert r.metrics == wanted.split()
        assert {s.value for s in r.scores if s.metric == "size_only"} == {0.5}
        (folder,) = (tmp_path / "runs" / "sets").glob("mirage-*")
        assert "dataset=motifs" in (folder / "README.md").read_text()
        again = dd_bench("evaluate", f"set={folder}", "model=gcn", *TINY, *SHORT)
        assert again.code == 0, again.text

    def test_the_whole_training_set_has_no_permuted_twin(self, dd_bench, tmp_path):
        done = dd_bench("run", "method=full", *TINY, *SHORT)
        assert done.code == 0, done.text
        (path,) = (tmp_path / "runs" / "records").glob("*.json")
        assert "permuted" not in load_record(path).metrics

    def test_pairs_that_cannot_be_are_skipped_with_their_reason(self, dd_bench):
        for how, told in (
            (["method=dm", *TINY], "DM distils images, but dataset 'motifs' contains graphs"),
            (
                ["method=mirage", "dataset=digits"],
                "Mirage distils graphs, but dataset 'digits' contains images",
            ),
            (["method=mirage", *TINY, "model=convnet"], "ConvNet takes images, the dataset holds graphs"),
            (["method=mirage", *TINY, "method.theta=[3]"], "one threshold a class"),
            (["method=mirage", *TINY, "method.theta=[3,999]"], "no tree can be in 999 of them"),
            (["method=random_graphs", *TINY, "method.amount=5"], "less than one graph of each class"),
        ):
            how = [h for h in how if not (h.startswith("model.") and "model=convnet" in how)]
            done = dd_bench("run", *how)
            assert done.code == 1 and told in done.text, done.text

    def test_trees_that_are_too_shallow_are_said(self, dd_bench, tmp_path):
        done = dd_bench("distill", "method=mirage", "ipc=2", "method.depth=1", *TINY)
        assert done.code == 0, done.text
        assert "GIN has 2 layers, the trees 1 levels" in done.text
        (path,) = (tmp_path / "runs" / "sets").glob("*/provenance.json")
        assert "method.depth=2" in json.loads(path.read_text())["notes"][0]


def test_without_pyg_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    monkeypatch.delitem(sys.modules, "torch_geometric.nn", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'dd-bench\[graph\]'"):
        import_pyg("nn")


def test_a_command_on_graphs_prints_no_warning_of_others():
    """PyG's import warns of torch's deprecations, which no user of ours can mend."""
    code = "from dd_bench.data.pyg import import_pyg; import_pyg('nn')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Warning" not in done.stderr


def test_the_record_says_in_what_the_networks_were_trained(dd_bench, tmp_path):
    """Graph networks are trained in float32, whatever the runtime has for images."""
    here = [*TINY[:-1], "runtime.precision=bf16", *SHORT]
    done = dd_bench("run", "method=random", "ipc=2", *here)
    assert done.code == 0, done.text
    (path,) = (tmp_path / "runs" / "records").glob("*.json")
    assert "(fp32 networks" in load_record(path).device


class TestWhatCannotBe:
    @pytest.mark.parametrize(
        ("protocol", "told"),
        [
            ("dsa-1000", "recipe.augment=color"),
            ("fkd-300", "has labels=..."),
            ("graph-500 protocol.selection=best_on_test protocol.eval_every=1", "selection=best_on_test"),
            ("graph-500 protocol.recipe.cutmix=0.5", "recipe.cutmix=0.5"),
        ],
    )
    def test_protocols_of_images_are_refused_before_anything_is_distilled(
        self, dd_bench, tmp_path, protocol, told
    ):
        knobs = [k for k in SHORT if "steps" not in k]
        done = dd_bench("run", "method=mirage", "ipc=2", *TINY, *knobs, *f"protocol={protocol}".split())
        assert done.code != 0 and told in done.text and "Use protocol=graph-500" in done.text
        assert not list(tmp_path.glob("runs/sets/*"))

    def test_classes_that_are_none(self, motifs):
        part = motifs.train
        split = tuple(torch.arange(len(part)).chunk(3))
        given = {"shape": part.spec, "class_names": ("a", "b"), "licence": "", "citation": "", "device": CPU}
        for wrong in (2, -1):
            labels = part.labels.clone()
            labels[0] = wrong
            with pytest.raises(ValueError, match=r"classes .* there are 2: 0 to 1"):
                graph_set("x", part.graphs, labels, split, **given)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"sizes": torch.tensor([2, 3, 9, 0])}, "a tree at least one node"),
            ({"sizes": torch.tensor([16, 3, -3, -2])}, "a tree at least one node"),
            ({"sizes": torch.zeros(0).long()}, "a set needs at least one tree"),
            ({"degrees": torch.full((14,), -1)}, "has -1 neighbours"),
            ({"degrees": torch.ones(3).long()}, "degrees are one a node"),
            (
                {"patterns": torch.zeros(0).long(), "pattern_sizes": torch.zeros(0).long()},
                "patterns must not be",
            ),
            ({"pattern_sizes": torch.tensor([2, 3, -1, 0])}, "number of patterns, 4"),
            ({"patterns": torch.tensor([0, 1, 2, 4])}, r"must be in 0\.\.3"),
            ({"support": torch.tensor([1, 1, 0, 1])}, "a support >= 1"),
        ],
    )
    def test_trees_that_are_none(self, make_tree_set, change, told):
        with pytest.raises(ValueError, match=told):
            replace(make_tree_set((1, 3, 8, 4), "none"), **change)

    def test_what_is_not_exact_is_said_where_it_is_not(self, make_tree_set, gin, motifs):
        """Of nodes without neighbours every network sees all; GCN says of degrees what they are."""
        stars, network = make_tree_set((1, 3, 8, 4), "none"), gin(motifs, layers=2)
        assert any("the trees 1 levels" in note for note in stars.caveats(network))
        point = torch.zeros(1).long()
        lone = replace(
            stars,
            nodes=point[:, None],
            parents=point,
            edge_labels=torch.zeros(1, 0).long(),
            sizes=point + 1,
            patterns=torch.zeros(4).long(),
        )
        assert any("unless it has no neighbours" in note for note in lone.caveats(network))
        assert lone.caveats(network) != replace(lone, degrees=point).caveats(network) == []
        gcn = replace(gin(motifs, layers=1), make=GCN)
        assert any("do not hold" in note for note in stars.caveats(gcn))
        assert any(
            "where their leaves have the same" in n
            for n in replace(stars, degrees=stars.parents).caveats(gcn)
        )

    def test_a_class_that_is_no_number(self, tmp_path, monkeypatch):
        (tmp_path / "m").mkdir()
        monkeypatch.setattr(smiles, "featurise", lambda written: concatenate([Graphs(
            torch.zeros(2, 9).long(), torch.tensor([[0, 1], [1, 0]]), torch.zeros(2, 3).long(), torch.tensor([0, 2])
        )] * len(written)))  # fmt: skip
        for label in ("active", "", "0.5"):
            (tmp_path / "m" / "smiles.csv").write_text(f"smiles,label\nCC,0\nCC,{label}\n")
            with pytest.raises(
                ValueError, match=r"smiles\.csv, line 3: its label is .*, wanted a whole number"
            ):
                ogb_mol(name="m", root=str(tmp_path), kept=str(tmp_path / "kept"), device=CPU)
        (tmp_path / "m" / "smiles.csv").write_text("smiles,label\nCC,0\nCC,1\nCC,0\n")
        for part, line in (("train", "0 1"), ("valid", "2"), ("test", "2")):
            (tmp_path / "m" / f"{part}.txt").write_text(line)
        with pytest.raises(ValueError, match="in two parts"):
            ogb_mol(name="m", root=str(tmp_path), kept=str(tmp_path / "kept"), device=CPU)
        (tmp_path / "m" / "test.txt").write_text("")
        with pytest.raises(
            ValueError, match=r"one class alone: .* Use train\.txt and valid\.txt and test\.txt of"
        ):
            ogb_mol(name="m", root=str(tmp_path), kept=str(tmp_path / "kept"), device=CPU)

    def test_a_split_of_one_class(self, motifs):
        part = motifs.train
        order = part.labels.argsort(stable=True)
        split = (order[4:], order[:2], order[2:4])
        given = {"shape": part.spec, "class_names": ("a", "b"), "licence": "", "citation": "", "device": CPU}
        with pytest.raises(ValueError, match="its val split has one class alone"):
            graph_set("x", part.graphs, part.labels, split, **given)

    def test_what_a_saved_set_does_not_show_another_network_is_said(self, dd_bench, tmp_path):
        done = dd_bench("distill", "method=mirage_released", "ipc=2", "method.depth=2", *TINY)
        assert done.code == 0, done.text
        (folder,) = (tmp_path / "runs" / "sets").glob("mirage_released-*")
        deeper = [k for k in TINY if "layers" not in k]
        done = dd_bench(
            "evaluate", f"set={folder}", "model=gcn", "model.layers=4", "model.norm=batch", *deeper, *SHORT
        )
        assert done.code == 0, done.text
        (path,) = (tmp_path / "runs" / "records").glob("*.json")
        notes = "\n".join(load_record(path).notes)
        for told in ("GCN has 4 layers, the trees 2 levels", "divides by degrees", "BatchNorm sees"):
            assert told in notes


@pytest.mark.parametrize("batch", [5, 128])
def test_looks_are_by_step_and_the_twin_is_not_looked_at(dd_bench, tmp_path, monkeypatch, batch):
    """A set of several batches is looked at as often as one of one."""
    asked, plain = [], graph_evaluator._answers
    monkeypatch.setattr(graph_evaluator, "_answers", lambda *a: asked.append(0) or plain(*a))
    how = ["protocol.recipe.steps=10", f"protocol.recipe.batch_size={batch}", "evaluator.eval_points=4"]
    done = dd_bench("run", "method=random", "ipc=8", *TINY, *how, "evaluator.num_networks=1")
    assert done.code == 0, done.text
    (path,) = (tmp_path / "runs" / "records").glob("*.json")
    assert {"auc", "best_val", "permuted", "untrained", "size_only", "majority"} <= set(
        load_record(path).metrics
    )
    looks = len(asked) - 4  # before and after the last step, of the network and of its permuted twin
    assert 5 <= looks <= 8, "four at the validation graphs, and one at the test graphs where it was better"


def test_the_rate_falls_by_step_whatever_the_size_of_the_set(recipe, convnet, blobs, runtime, monkeypatch):
    rates = []
    plain = loop.set_rate

    def spy(optimizer, plan, epoch):
        plain(optimizer, plan, epoch)
        rates.append(optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(loop, "set_rate", spy)
    for n in (4, 20):
        rates.clear()
        plan = recipe(epochs=1, steps=10, batch_size=4, milestones=(), schedule="cosine", lr=1.0)
        x = blobs.train.inputs(torch.arange(n))
        fetch = fetch_from(x, blobs.train.labels[:n])
        loop.train(convnet(blobs).fresh(0, CPU), fetch, n, plan, seed=0, runtime=runtime, flip=False)
        by_step = list(dict.fromkeys(round(r, 6) for r in rates))
        assert by_step == [round(0.5 * (1 + math.cos(math.pi * s / 10)), 6) for s in range(10)]


def test_a_network_that_diverges_leaves_a_record_that_says_so(dd_bench, tmp_path):
    how = ["protocol.recipe.steps=12", "protocol.recipe.lr=1e30", "evaluator.eval_points=4"]
    done = dd_bench("run", "method=random", "ipc=3", *TINY, *how, "evaluator.num_networks=1")
    assert done.code != 0 and "diverged" in done.text and "smaller protocol.recipe.lr than 1e+30" in done.text
    (path,) = (tmp_path / "runs" / "records").glob("*.json")
    assert load_record(path).status == "diverged"


def test_numbers_that_are_none_name_their_file(tmp_path):
    raw = tmp_path / "m" / "raw"
    raw.mkdir(parents=True)
    for name in ("node-feat", "edge", "edge-feat", "graph-label", "num-node-list", "num-edge-list"):
        with gzip.open(raw / f"{name}.csv.gz", "wt") as file:
            file.write("1,2\nx,3\n")
    with pytest.raises(ValueError, match=r"node-feat\.csv\.gz is damaged"):
        ogb_mol(name="m", root=str(tmp_path), kept=None, device=CPU)
