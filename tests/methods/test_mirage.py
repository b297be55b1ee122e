"""Tests of Mirage: colour refinement, itemset mining, budgets, and known numbers on published datasets."""

import itertools
import os
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pandas as pd
import pytest
import torch

from dd_bench.data.graph_dataset import GraphSplit
from dd_bench.data.graphs import Graphs, GraphShape, concatenate
from dd_bench.data.ogb_mol import ogb_mol
from dd_bench.data.smiles import scaffold_split
from dd_bench.data.tu import tu
from dd_bench.evaluation.graph_metrics import size_only
from dd_bench.methods._mirage.colour_refinement import colours, dense
from dd_bench.methods._mirage.itemsets import (
    TooManyItemsets,
    frequent_itemsets,
    is_frequent,
    ranked_closed_itemsets,
    ranked_itemsets,
)
from dd_bench.methods._mirage.transactions import absolute_support, tidsets_of, tree_graph_pairs
from dd_bench.methods._mirage.trees import unfold

CPU = torch.device("cpu")
DATA = Path(
    os.environ.get("DD_BENCH_DATA", Path(__file__).resolve().parents[3] / "shared" / "data" / "graphs")
)
needs_graphs = [
    pytest.mark.needs_data,
    pytest.mark.skipif(not (DATA / "NCI1").is_dir(), reason=f"no graphs in {DATA}; set DD_BENCH_DATA"),
]


def random_graphs(seed, count=6, labels=2, edge_values=2, loops=False):
    """Small labelled graphs, some with isolated nodes."""
    g = torch.Generator().manual_seed(seed)
    parts = []
    for _ in range(count):
        v = int(torch.randint(1, 8, (), generator=g))
        pairs = (
            torch.tensor([(a, b) for a in range(v) for b in range(a if loops else a + 1, v)])
            .long()
            .view(-1, 2)
        )
        selected = pairs[torch.rand(len(pairs), generator=g) < 0.35]
        one = selected.t().contiguous()
        edge_label = torch.randint(edge_values, (one.shape[1], 1), generator=g)
        no_loop = one[0] != one[1]
        edges = torch.cat([one, one[:, no_loop].flip(0)], 1)
        nodes = torch.randint(labels, (v, 1), generator=g)
        parts.append(Graphs(nodes, edges, torch.cat([edge_label, edge_label[no_loop]]), torch.tensor([0, v])))
    return concatenate(parts)


def canonical(graphs, v, depth):
    """The computation tree of node v as nested tuples, by its recursive definition."""
    if depth == 0:
        return tuple(graphs.nodes[v].tolist())
    into = (graphs.edges[1] == v).nonzero().flatten().tolist()
    children = sorted(
        (tuple(graphs.edge_labels[e].tolist()), canonical(graphs, int(graphs.edges[0, e]), depth - 1))
        for e in into
    )
    return (tuple(graphs.nodes[v].tolist()), tuple(children))


class TestColours:
    @pytest.mark.parametrize("depth", [0, 1, 2, 3])
    @pytest.mark.parametrize("loops", [False, True])
    def test_colours_equal_computation_trees(self, depth, loops):
        for seed in range(8):
            graphs = random_graphs(seed, loops=loops)
            trees = [canonical(graphs, v, depth) for v in range(len(graphs.nodes))]
            numbers = {tree: i for i, tree in enumerate(sorted(set(trees), key=repr))}
            expected = [numbers[tree] for tree in trees]
            for hash_seed in (0, 1):
                got = colours(graphs, depth, seed=hash_seed).tolist()
                assert len(set(zip(got, expected, strict=True))) == len(set(got)) == len(set(expected))

    def test_repeated_children_count(self):
        """Stars with two and three equal leaves have different colours, which sets of children would not give."""

        def star(n):
            out = torch.tensor([[0] * n, list(range(1, n + 1))])
            edges, ptr = torch.cat([out, out.flip(0)], 1), torch.tensor([0, n + 1])
            return Graphs(torch.zeros(n + 1, 1).long(), edges, torch.zeros(2 * n, 0).long(), ptr)

        both = concatenate([star(2), star(3)])
        c = colours(both, 1)
        assert c[0] != c[3] and c[1] == c[4]

    def test_edge_labels_are_optional(self):
        graphs = random_graphs(3, count=12, labels=1, edge_values=3)
        assert len(colours(graphs, 2).unique()) > len(colours(graphs, 2, edge_labels=False).unique())

    def test_colours_are_invariant_to_the_order_of_edges_and_graphs(self):
        graphs = random_graphs(5)
        order = torch.randperm(graphs.edges.shape[1], generator=torch.Generator().manual_seed(0))
        shuffled = Graphs(graphs.nodes, graphs.edges[:, order], graphs.edge_labels[order], graphs.ptr)
        assert torch.equal(colours(graphs, 3), colours(shuffled, 3))
        index = torch.randperm(len(graphs), generator=torch.Generator().manual_seed(1))
        moved = colours(graphs[index], 3)
        back = torch.cat([colours(graphs, 3)[graphs.graph_of == i] for i in index])
        assert torch.equal(moved, back)

    def test_dense(self):
        assert dense(torch.tensor([7, 3, 7])).tolist() == [1, 0, 1]


class TestTrees:
    @pytest.mark.parametrize("depth", [0, 1, 3])
    def test_unfold_equals_computation_tree(self, depth):
        graphs = random_graphs(2, loops=True)
        degree = torch.bincount(graphs.edges[1], minlength=len(graphs.nodes))
        for v in range(len(graphs.nodes)):
            tree = unfold(graphs, v, depth)
            children = torch.arange(1, len(tree.nodes))
            edges = torch.stack([children, tree.parents[1:]])
            tree_graph = Graphs(tree.nodes, edges, tree.edge_labels[1:], torch.tensor([0, len(tree.nodes)]))
            assert canonical(tree_graph, 0, depth) == canonical(graphs, v, depth)
            assert tree.parents[0] == 0 and tree.degrees[0] == degree[v]


def brute_force(transactions, least):
    items = sorted(set().union(*transactions))
    found = {}
    for size in range(1, len(items) + 1):
        for chosen in itertools.combinations(items, size):
            support = sum(set(chosen) <= t for t in transactions)
            if support >= least:
                found[chosen] = support
    return found


def tidsets_by_item(transactions):
    tidsets = {}
    for bit, transaction in enumerate(transactions):
        for item in transaction:
            tidsets[item] = tidsets.get(item, 0) | (1 << bit)
    return tidsets


class TestItemsets:
    def test_against_brute_force(self):
        for seed in range(60):
            g = torch.Generator().manual_seed(seed)
            rows = (torch.rand(9, 6, generator=g) < 0.5).tolist()
            transactions = [{i for i, has in enumerate(row) if has} for row in rows]
            transactions += transactions[:2]  # ties and equal transactions
            for least in (1, 2, 4):
                expected = brute_force(transactions, least)
                got = frequent_itemsets(tidsets_by_item(transactions), least, 10_000)
                assert {s.items: s.support for s in got} == expected
                assert [s.support for s in got] == sorted((s.support for s in got), reverse=True)
                larger = lambda a: [b for b in expected if set(a) < set(b)]  # noqa: B023, E731
                closed = {a for a in expected if all(expected[b] < expected[a] for b in larger(a))}
                assert {
                    s.items for s in frequent_itemsets(tidsets_by_item(transactions), least, 10_000, "closed")
                } == closed
                maximal = {a for a in expected if not larger(a)}
                assert {
                    s.items
                    for s in frequent_itemsets(tidsets_by_item(transactions), least, 10_000, "maximal")
                } == maximal

    def test_ranked_itemsets_have_the_same_order(self):
        for seed in range(30):
            g = torch.Generator().manual_seed(seed)
            rows = (torch.rand(9, 6, generator=g) < 0.5).tolist()
            tidsets = tidsets_by_item([{i for i, has in enumerate(row) if has} for row in rows])
            all_itemsets = frequent_itemsets(tidsets, 1, 10_000)
            assert list(ranked_itemsets(tidsets)) == all_itemsets
            larger = lambda s: [b for b in all_itemsets if set(s.items) < set(b.items)]  # noqa: B023, E731
            closed = [s for s in all_itemsets if all(b.support < s.support for b in larger(s))]
            assert list(ranked_closed_itemsets(tidsets)) == closed

    def test_closed_itemsets_are_found_without_enumerating_all(self):
        """Sixty items that always occur together have 2^60 subsets, but only one closed itemset."""
        tidsets = tidsets_by_item([set(range(61))] * 3 + [set(range(60))] * 2)
        assert [(len(s.items), s.support) for s in ranked_closed_itemsets(tidsets)] == [(60, 5), (61, 3)]
        assert [len(s.items) for s in frequent_itemsets(tidsets, 2, 10, "maximal")] == [61]

    def test_is_frequent_with_omitted_items(self):
        tidsets = {0: 0b1110, 1: 0b0111}
        assert is_frequent((0, 1), tidsets, 2) and not is_frequent((0, 1), tidsets, 3)
        assert not is_frequent((0, 2), tidsets, 1)

    def test_four_equal_transactions(self):
        """The FP-growth package of the released code fails here; all 7 itemsets have support 4."""
        assert [s.support for s in frequent_itemsets(tidsets_by_item([{0, 1, 2}] * 4), 2, 100)] == [4] * 7

    def test_too_many_itemsets_raise_early(self):
        with pytest.raises(
            TooManyItemsets, match="more than 50 frequent itemsets with a support of at least 1"
        ):
            frequent_itemsets({i: 1 for i in range(40)}, 1, 50)
        with pytest.raises(TooManyItemsets):  # not RecursionError
            frequent_itemsets(dict.fromkeys(range(1500), 7), 1, 1000)


def itemsets_of(syn, c):
    """The stored tree sets of a class: indices of their trees, and supports."""
    patterns = syn.patterns.split(syn.pattern_sizes.tolist())
    return [
        (frozenset(p.tolist()), int(s))
        for p, s, y in zip(patterns, syn.support, syn.labels, strict=True)
        if y == c
    ]


class TestBudgets:
    """Budgets of ipc tree sets per class or of bytes, compared with all itemsets of a small dataset."""

    @pytest.fixture
    def tree_set(self, make_method, motifs):
        return lambda ipc, **knobs: make_method("mirage", depth=1, **knobs).tree_set(motifs.train_only(), ipc)

    @pytest.fixture
    def tidsets(self, motifs):
        split = motifs.train
        pairs = tree_graph_pairs(split, colours(split.graphs, 1), isolated=True)
        return [tidsets_of(pairs, split, c, 1) for c in range(2)]

    @pytest.mark.parametrize("itemsets", ["all", "closed"])
    @pytest.mark.parametrize("ipc", [1, 3, 12])
    def test_most_frequent_sets(self, tree_set, tidsets, itemsets, ipc):
        syn = tree_set(ipc, itemsets=itemsets)
        for c in range(2):
            expected = frequent_itemsets(tidsets[c], 2, 100_000, itemsets)[:ipc]
            assert len(expected) == ipc
            assert [s for _, s in itemsets_of(syn, c)] == [s.support for s in expected]
            assert [len(p) for p, _ in itemsets_of(syn, c)] == [len(s.items) for s in expected]

    @pytest.mark.parametrize(
        ("knobs", "ipc"),
        [
            ({"cross_class": "drop"}, 3),
            ({"cross_class": "drop", "itemsets": "closed"}, 3),
            ({"cross_class": "drop", "itemsets": "maximal"}, 3),
            ({"itemsets": "maximal"}, 3),
            ({"itemsets": "maximal"}, 10),
        ],
    )
    def test_best_common_threshold(self, tree_set, tidsets, motifs, knobs, ipc):
        counts = motifs.train.counts.tolist()
        best, least = 0, []
        for i in range(1000, 0, -1):
            if least == [absolute_support(i / 1000, n) for n in counts]:
                continue
            least = [absolute_support(i / 1000, n) for n in counts]
            try:
                found = [
                    frequent_itemsets(h, t, 1000, knobs.get("itemsets", "all"))
                    for h, t in zip(tidsets, least, strict=True)
                ]
            except TooManyItemsets:
                break
            if knobs.get("cross_class") == "drop":
                everywhere = [
                    {s.items for s in frequent_itemsets(h, t, 10**6)}
                    for h, t in zip(tidsets, least, strict=True)
                ]
                found = [[s for s in of if s.items not in everywhere[1 - c]] for c, of in enumerate(found)]
            if all(0 < len(of) <= ipc for of in found):
                best = max(best, sum(map(len, found)))
        assert best > 0
        assert len(tree_set(ipc, **knobs).labels) == best

    def test_drop_uses_all_frequent_itemsets_of_other_classes(self, tree_set, tidsets):
        """Closed and maximal tree sets are also dropped if a larger set represents them in the other class."""
        least = [5, 5]
        everywhere = [{s.items: s.support for s in frequent_itemsets(h, 5, 10**6)} for h in tidsets]
        dropped = 0
        for itemsets in ("closed", "maximal"):
            named = [{s.items for s in frequent_itemsets(h, 5, 10**6, itemsets)} for h in tidsets]
            selected = [{i for i in named[c] if i not in everywhere[1 - c]} for c in range(2)]
            dropped += sum(len(named[c] - named[1 - c]) - len(selected[c]) for c in range(2))
            syn = tree_set(10**6, theta=least, itemsets=itemsets, cross_class="drop")
            assert torch.bincount(syn.labels).tolist() == [len(k) for k in selected]
        assert dropped > 0  # otherwise the test could not detect a wrong definition

    def test_search_that_ends_early_is_noted(self, make_method, motifs):
        notes = []
        method = make_method("mirage", depth=1, itemsets="maximal", most=20)
        method.tree_set(motifs.train_only(), 10, notes.append)
        assert len(notes) == 1 and "method.most=20" in notes[0] and "were not looked at" in notes[0]
        with pytest.raises(
            ValueError, match=r"ended at .* more than method\.most=1 .* a larger method\.most"
        ):
            make_method("mirage", depth=1, cross_class="drop", most=1).tree_set(motifs.train_only(), 10)

    @pytest.mark.parametrize(
        "knobs", [{}, {"itemsets": "closed"}, {"cross_class": "drop"}, {"itemsets": "maximal"}]
    )
    def test_largest_set_within_the_byte_budget(self, tree_set, motifs, knobs):
        budget, sizes = 600, []
        counts = motifs.train.counts.tolist()
        for least in dict.fromkeys(
            tuple(absolute_support(i / 1000, n) for n in counts) for i in range(1000, 0, -1)
        ):
            try:
                syn = tree_set(10**6, theta=list(least), **knobs)
            except ValueError as error:  # a class is empty, or there are too many itemsets
                if isinstance(error, TooManyItemsets):
                    break
                continue
            sizes.append(sum(syn.stored_bytes().values()))
        held = max(size for size in sizes if size <= budget)
        assert sum(tree_set(10**6, bytes=budget, **knobs).stored_bytes().values()) == held

    def test_ranking_with_equal_tidsets(self):
        """Twelve items that always occur together have thousands of itemsets with the same support."""
        tidsets = tidsets_by_item([set(range(12))] * 4)
        assert [s.items for s in islice(ranked_itemsets(tidsets), 2)] == [(0,), (1,)]

    def test_byte_budget_respects_ipc(self, tree_set):
        many, few = tree_set(10**6, bytes=600), tree_set(4, bytes=600)
        assert torch.bincount(many.labels).max() > 4 >= torch.bincount(few.labels).max()

    def test_three_classes(self, make_method, motifs):
        """A tree set that is frequent in two classes is dropped from all; one of a single class is stored."""
        split = motifs.train
        labels = torch.arange(len(split)) % 3
        three = replace(
            motifs,
            train=GraphSplit(split.graphs, labels, 3, split.spec),
            class_names=("a", "b", "c"),
            val=None,
        )
        pairs = tree_graph_pairs(three.train, colours(split.graphs, 1), isolated=True)
        named = [
            {s.items for s in frequent_itemsets(tidsets_of(pairs, three.train, c, 3), 3, 10**6)}
            for c in range(3)
        ]
        expected = [
            len(of - set().union(*(named[d] for d in range(3) if d != c))) for c, of in enumerate(named)
        ]
        assert all(expected) and sum(expected) < sum(map(len, named))
        syn = make_method("mirage", depth=1, cross_class="drop", theta=[3, 3, 3]).tree_set(three, 10**6)
        assert torch.bincount(syn.labels).tolist() == expected
        weights = syn.support / torch.bincount(labels)[syn.labels]
        assert torch.allclose(syn.weights(), weights / weights.mean())

    def test_too_small_budget_raises(self, tree_set):
        with pytest.raises(ValueError, match=r"method\.bytes=3 is too small: .* Use a larger budget"):
            tree_set(3, bytes=3)


def load(name):
    if name.startswith("ogbg"):
        return ogb_mol(name=name, root=str(DATA), kept=None, device=CPU)
    labels = "degree" if name.startswith("IMDB") else "labels"
    return tu(
        name=name, root=str(DATA), download=False, node_labels=labels, seed=0, test=0.1, val=0.1, device=CPU
    )


def unique_trees(real, depth):
    colour = colours(real.train.graphs, depth)
    of = real.train.labels[real.train.graphs.graph_of]
    return [len(colour[of == c].unique()) for c in range(real.num_classes)], len(colour.unique())


@pytest.fixture
def mined(make_method, make_ctx, gin):
    def run(real, depth, theta, **knobs):
        ctx = make_ctx(architecture=gin(real, layers=min(depth, 3)), work=str(theta))
        return make_method("mirage", depth=depth, theta=list(theta), **knobs).distill(
            real.train_only(), 1000, ctx
        )

    return run


class TestKnownNumbers:
    """The numbers were counted independently of this code, some of them with the official C++ code."""

    pytestmark = needs_graphs

    def test_nci1(self, mined):
        real = load("NCI1")
        assert real.train.counts.tolist() == [1627, 1661] and len(real.val) == len(real.test) == 411
        assert unique_trees(real, 2)[0] == [2972, 2072]
        syn = mined(real, 2, (440, 570))
        assert torch.bincount(syn.labels).tolist() == [9, 11]
        only = mined(real, 2, (440, 570), cross_class="drop")
        assert torch.bincount(only.labels).tolist() == [2, 4]
        graphs, _ = only.materialise(CPU)
        assert (len(graphs.nodes), graphs.edges.shape[1]) == (51, 43)
        other = mined(real, 2, (420, 550))
        assert torch.bincount(other.labels).tolist() == [10, 11]
        only = mined(real, 2, (420, 550), cross_class="drop")
        graphs, _ = only.materialise(CPU)
        assert torch.bincount(only.labels).tolist() == [2, 3]
        assert (len(graphs.nodes), graphs.edges.shape[1]) == (46, 39)
        assert size_only("auc", real.train, real.test) == pytest.approx(0.681, abs=5e-4)

    def test_molbace(self, mined):
        real = load("ogbg_molbace")
        assert unique_trees(real, 3) == ([5892, 3592], 8015)
        syn = mined(real, 3, (150, 104))
        sizes = syn.materialise(CPU)[0].num_nodes
        assert sorted(zip(syn.support[:4].tolist(), sizes[:4].tolist(), strict=True)) == [
            (151, 10), (152, 16), (152, 31), (223, 15),
        ]  # fmt: skip
        assert sorted(syn.support[4:].tolist()) == [104, 104, 104, 104, 109, 109, 117, 122, 132]

    def test_molbbbp(self, mined):
        real = load("ogbg_molbbbp")
        assert real.train.counts.tolist() == [262, 1369]
        assert unique_trees(real, 2)[0] == [2581, 8973]
        assert torch.bincount(mined(real, 2, (24, 109)).labels).tolist() == [13, 17]

    @pytest.mark.slow
    def test_molhiv(self, mined, tmp_path):
        """The molecules are featurised from SMILES, which takes a minute."""
        real = ogb_mol(name="ogbg_molhiv_rebuilt", root=str(DATA), kept=str(tmp_path), device=CPU)
        assert real.train.counts.tolist() == [32_901 - 1232, 1232]
        assert unique_trees(real, 3)[0] == [193_441, 12_941]
        syn = mined(real, 3, (1800, 115))
        assert syn.support.tolist() == [7502, 2413, 2208, 1955, 211, 118, 118, 118, 116]

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["ogbg_molbace", "ogbg_molbbbp"])
    def test_scaffold_split_equals_the_official_split(self, name, tmp_path):
        """The split is computed from SMILES only, and the features equal those of OGB's raw files."""
        real = load(name)
        smiles = pd.read_csv(DATA / name / "mapping" / "mol.csv.gz")["smiles"].tolist()
        folder = tmp_path / name
        folder.mkdir()
        label = pd.read_csv(DATA / name / "raw" / "graph-label.csv.gz", header=None)[0]
        pd.DataFrame({"smiles": smiles, "label": label}).to_csv(folder / "smiles.csv", index=False)
        mine = ogb_mol(name=name, root=str(tmp_path), kept=str(tmp_path / "kept"), device=CPU)
        for found, part in zip(scaffold_split(smiles), ("train", "valid", "test"), strict=True):
            official = pd.read_csv(DATA / name / "split" / "scaffold" / f"{part}.csv.gz", header=None)[0]
            assert set(found.tolist()) == set(official.tolist()) and len(found) == len(official)
        assert unique_trees(mine, 2) == unique_trees(real, 2)

    def test_imdb(self):
        real = load("IMDB-BINARY")
        edges = sum(s.graphs.edges.shape[1] for s in (real.train, real.val, real.test))
        assert edges == 2 * 96_531


@pytest.fixture(scope="session")
def small():
    return random_graphs(11, count=10, labels=3, edge_values=2)


@pytest.mark.parametrize("model", ["gin", "gat", "sage", "gcn"])
@pytest.mark.parametrize("edges", [True, False])
def test_embedding_of_a_tree_root_equals_that_of_the_node(make_gnn, small, model, edges):
    """This makes the method independent of the network; GCN also requires the degrees."""
    shape = GraphShape((3,), (2,) if edges else ())
    graphs = Graphs(small.nodes, small.edges, small.edge_labels[:, : int(edges)], small.ptr)
    net = make_gnn(model, shape, layers=2).double().eval()
    v = len(graphs.nodes)
    each = Graphs(graphs.nodes, graphs.edges, graphs.edge_labels, torch.tensor([0, v]))

    def embeddings(of, roots):
        """Embed one graph with a readout at each of the given nodes."""
        out = []
        for r in roots:
            mask = torch.zeros(len(of.nodes), dtype=torch.bool).index_fill_(0, torch.tensor(r), True)
            out.append(net.embed(Graphs(of.nodes, of.edges, of.edge_labels, of.ptr, mask, of.degrees)))
        return torch.cat(out)

    expected = embeddings(each, list(range(v)))
    got, without_degrees = [], []
    for node in range(v):
        tree = unfold(graphs, node, 2)
        n = len(tree.nodes)
        to_root = torch.stack([torch.arange(1, n), tree.parents[1:]])
        for degrees, out in ((tree.degrees, got), (None, without_degrees)):
            tree_graph = Graphs(
                tree.nodes, to_root, tree.edge_labels[1:], torch.tensor([0, n]), None, degrees
            )
            out.append(embeddings(tree_graph, [0]))
    torch.testing.assert_close(torch.cat(got), expected, atol=1e-12, rtol=1e-10)
    error = float((torch.cat(without_degrees) - expected).detach().abs().max())
    assert (error > 1e-3) == (model == "gcn")


@pytest.mark.parametrize("multiplicity", ["one", "mean"])
def test_multiplicity(make_method, make_ctx, gin, motifs, multiplicity):
    """A tree is repeated as often as it occurs on average in the graphs of the tree set, or stored once."""
    real = motifs.train_only()
    method = make_method("mirage", depth=1, multiplicity=multiplicity)
    syn = method.distill(real, 3, make_ctx(architecture=gin(motifs, layers=1)))
    graphs, labels = real.train.graphs, real.train.labels
    counts = [Counter() for _ in labels]
    for v, graph in enumerate(graphs.graph_of.tolist()):
        around = graphs.nodes[graphs.edges[0, graphs.edges[1] == v], 0].tolist()
        counts[graph][int(graphs.nodes[v, 0]), tuple(sorted(around))] += 1
    stars, end = [], 0
    for size in syn.sizes.tolist():  # the root comes first
        root, *leaves = syn.nodes[end : end + size, 0].tolist()
        stars.append((root, tuple(sorted(leaves))))
        end += size
    repeated = 0
    for named, support, c in zip(
        syn.patterns.split(syn.pattern_sizes.tolist()), syn.support, syn.labels, strict=True
    ):
        found = Counter(stars[i] for i in named.tolist())
        containing = [
            h for h, y in zip(counts, labels, strict=True) if y == c and all(star in h for star in found)
        ]
        assert len(containing) == support
        for star, times in found.items():
            mean = sum(h[star] for h in containing) / len(containing)
            assert times == (max(1, round(mean)) if multiplicity == "mean" else 1)
            repeated += times > 1
    assert (repeated > 0) == (multiplicity == "mean")
