"""Decomposition and mining in Mirage: colour refinement and Eclat, against one tree per node and Apriori.

    python benchmarks/computation_trees.py [--root FOLDER] [--molhiv]      # minutes, mostly for the baseline

The baseline is the straightforward implementation: a canonical string for the computation tree of every node, by
recursion over neighbour lists, and frequent itemsets level by level with Python sets. The benchmark checks that both
give the same partition of the nodes and the same itemsets. All training graphs are decomposed. Reading files is not
timed.

It also times the complete `mirage` distillation of NCI1, and with `--molhiv` that of molhiv, whose molecules must
have been featurised before.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import report
import torch

from dd_bench.data.dataset import RealSet
from dd_bench.data.graph_dataset import GraphSplit, training_graphs
from dd_bench.data.graphs import Graphs
from dd_bench.data.ogb_mol import ogb_mol
from dd_bench.data.tu import tu
from dd_bench.methods._mirage.colour_refinement import colours
from dd_bench.methods._mirage.itemsets import frequent_itemsets
from dd_bench.methods._mirage.transactions import tidsets_of, tree_graph_pairs
from dd_bench.methods.mirage import Mirage

CPU = torch.device("cpu")
CASES = (("NCI1", 2, (440, 570)), ("ogbg_molbace", 3, (150, 104)))


def load(name: str, root: str) -> RealSet:
    if name.startswith("ogbg"):
        return ogb_mol(name=name, root=root, kept=None, device=CPU)
    return tu(
        name=name, root=root, download=False, node_labels="labels", seed=0, test=0.1, val=0.1, device=CPU
    )


def tree_strings(graphs: Graphs, depth: int) -> list[str]:
    """Return the canonical string of every node's computation tree."""
    label = ["-".join(map(str, row)) for row in graphs.nodes.tolist()]
    mark = ["-".join(map(str, row)) for row in graphs.edge_labels.tolist()]
    into: list[list[tuple[int, str]]] = [[] for _ in label]
    for (sender, receiver), m in zip(graphs.edges.t().tolist(), mark, strict=True):
        into[receiver].append((sender, m))

    def tree(v: int, levels: int) -> str:
        if levels == 0:
            return f"({label[v]})"
        return f"({label[v]}{''.join(sorted(m + tree(u, levels - 1) for u, m in into[v]))})"

    return [tree(v, depth) for v in range(len(label))]


def apriori(transactions: list[set[Any]], least: float) -> dict[frozenset[Any], int]:
    """Return the frequent itemsets with their supports, computed size by size."""
    found: dict[frozenset[Any], int] = {}
    level = [frozenset([item]) for item in set().union(*transactions)]
    while level:
        counted = {s: sum(s <= t for t in transactions) for s in level}
        selected = {s: n for s, n in counted.items() if n >= least}
        found |= selected
        level = list({a | b for a in selected for b in selected if len(a | b) == len(a) + 1})
    return found


def baseline(split: GraphSplit, depth: int, theta: tuple[int, ...]) -> tuple[list[Any], list[dict[Any, int]]]:
    trees = tree_strings(split.graphs, depth)
    sets: list[set[str]] = [set() for _ in range(len(split))]
    for tree, graph in zip(trees, split.graphs.graph_of.tolist(), strict=True):
        sets[graph].add(tree)
    of_class = [[sets[i] for i in split.of_class(c).tolist()] for c in range(split.num_classes)]
    # trees below the threshold are in no frequent set; without this filter the second level alone takes hours
    mined = []
    for transactions, least in zip(of_class, theta, strict=True):
        count: dict[str, int] = {}
        for transaction in transactions:
            for tree in transaction:
                count[tree] = count.get(tree, 0) + 1
        frequent_trees = {tree for tree, n in count.items() if n >= least}
        mined.append(apriori([t & frequent_trees for t in transactions], least))
    return trees, mined


def ours(split: GraphSplit, depth: int, theta: tuple[int, ...]) -> tuple[torch.Tensor, list[dict[Any, int]]]:
    colour = colours(split.graphs, depth)
    pairs = tree_graph_pairs(split, colour, isolated=True)
    holders = [tidsets_of(pairs, split, c, least) for c, least in enumerate(theta)]
    mined = [
        {frozenset(s.items): s.support for s in frequent_itemsets(has, least, 1000)}
        for has, least in zip(holders, theta, strict=True)
    ]
    return colour, mined


def best_of(rounds: int, function: Any, *arguments: Any) -> tuple[float, Any]:
    took, result = [], None
    for _ in range(rounds):
        began = time.perf_counter()
        result = function(*arguments)
        took.append(time.perf_counter() - began)
    return min(took), result


def compare(name: str, depth: int, theta: tuple[int, ...], root: str) -> dict[str, Any]:
    split = training_graphs(load(name, root))
    ours(split, depth, theta)  # warm-up
    fast, (colour, mined) = best_of(5, ours, split, depth, theta)
    slow, (trees, expected) = best_of(1, baseline, split, depth, theta)
    pairs = set(zip(colour.tolist(), trees, strict=True))
    assert len(pairs) == len(set(trees)) == len(colour.unique()), "the partitions of the nodes differ"
    string_of = dict(zip(colour.tolist(), trees, strict=True))
    for a, b in zip(mined, expected, strict=True):
        assert {frozenset(string_of[i] for i in s): n for s, n in a.items()} == b, "the itemsets differ"
    return {
        "data": name,
        "nodes": len(trees),
        "depth": depth,
        "trees": len(set(trees)),
        "itemsets": [len(m) for m in mined],
        "seconds": fast,
        "straightforward_seconds": slow,
        "ratio": slow / fast,
    }


def time_distillation(name: str, depth: int, theta: tuple[int, ...], root: str) -> dict[str, Any]:
    """Time the distillation as in a run, without writing files."""
    knobs = {"bytes": None, "itemsets": "all", "most": 1000, "cross_class": "keep", "isolated": "keep"}
    knobs |= {"edge_labels": True, "degrees": True, "multiplicity": "one"}
    knobs |= {"weighting": "sampling", "frequency": "fraction"}
    method = Mirage(depth=depth, theta=list(theta), **knobs)  # type: ignore[arg-type]
    real = load(name, root).train_only()
    took, syn = best_of(3, method.tree_set, real, 1000)
    return {
        "data": name,
        "seconds": took,
        "patterns": len(syn.labels),
        "bytes": sum(syn.stored_bytes().values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", default="data")
    parser.add_argument("--molhiv", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results" / "computation_trees.json"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [compare(*case, args.root) for case in CASES]
    runs = [time_distillation("NCI1", 2, (440, 570), args.root)]
    if args.molhiv:
        runs.append(time_distillation("ogbg_molhiv_rebuilt", 3, (1800, 115), args.root))
    report.write(args.out, {"decomposition_and_mining": rows, "distillation": runs}, threads=args.threads)


if __name__ == "__main__":
    main()
