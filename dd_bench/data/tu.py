"""TUDataset: any of its graph collections, from their raw text files (Morris et al., 2020)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.graph_dataset import graph_set, random_split
from dd_bench.data.graphs import Graphs, GraphShape, coalesce, first_occurrence
from dd_bench.data.pyg import import_pyg

NEEDED = ("A", "graph_indicator", "graph_labels")
OPTIONAL = ("node_labels", "edge_labels")


def tu(
    *,
    name: str,
    root: str | None,
    download: bool,
    node_labels: str,
    seed: int,
    test: float,
    val: float,
    device: torch.device,
) -> RealSet:
    """Returns the graphs of `root/NAME/NAME_A.txt` and so on, or of `root/NAME/raw/`.

    Edges are undirected, without loops and each once, as PyG reads them: older releases of IMDB list each twice.
    Continuous attributes are left out. The split is random, see `random_split`; TUDataset has none of its own.

    Args:
        name: of the collection, e.g. NCI1.
        root: folder that holds it; None: data.
        download: fetch it through torch_geometric if it is not there.
        node_labels: `labels`, those of the files; or `degree`, the number of neighbours, for collections without.
        seed, test, val: of the split.
        device: where the graphs go.

    Raises:
        FileNotFoundError: the files are not there.
        ValueError: they are malformed, or have no node labels and nobody asked for degrees.
    """
    folder = _folder(Path(root or "data"), name, download)
    table = {part: _read(folder, name, part) for part in NEEDED}
    table |= {
        part: _read(folder, name, part) for part in OPTIONAL if (folder / f"{name}_{part}.txt").exists()
    }
    graph_of = table["graph_indicator"][:, 0]
    v, step = len(graph_of), graph_of.diff()
    if not v or int(graph_of[0]) != 1 or bool(((step < 0) | (step > 1)).any()):
        raise ValueError(
            f"{folder / name}_graph_indicator.txt: graphs have to be numbered from 1 on, in order, each with nodes"
        )
    sizes = torch.bincount(graph_of)[1:]
    if len(table["graph_labels"]) != len(sizes):
        raise ValueError(
            f"{folder / name}_graph_labels.txt has {len(table['graph_labels'])} lines, there are {len(sizes)} graphs"
        )
    edges, marks = table["A"].t() - 1, table.get("edge_labels")
    if edges.shape[0] != 2 or (edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < v):
        raise ValueError(f"{folder / name}_A.txt: wanted two node numbers of 1..{v} a line")
    crossing = (graph_of[edges[0]] != graph_of[edges[1]]).nonzero().flatten()
    if len(crossing):
        line = int(crossing[0])
        raise ValueError(
            f"{folder / name}_A.txt, line {line + 1}: an edge from graph {int(graph_of[edges[0, line]])} into graph "
            f"{int(graph_of[edges[1, line]])}"
        )
    if marks is not None and len(marks) != edges.shape[1]:
        raise ValueError(
            f"{folder / name}_edge_labels.txt has {len(marks)} lines, there are {edges.shape[1]} edges"
        )
    edge_labels, edge_values = _columns(marks if marks is not None else torch.zeros(edges.shape[1], 0).long())
    edges, edge_labels = to_undirected(edges, edge_labels)
    nodes, values = _node_labels(table.get("node_labels"), edges, v, node_labels, folder / name)
    classes, labels = table["graph_labels"][:, 0].unique(return_inverse=True)
    ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    return graph_set(
        name,
        Graphs(nodes, edges, edge_labels, ptr),
        labels,
        random_split(len(sizes), seed, test, val),
        shape=GraphShape(values, edge_values),
        class_names=tuple(str(c) for c in classes.tolist()),
        licence="none stated by TUDataset",
        citation="Morris et al., TUDataset: A collection of benchmark datasets for learning with graphs, 2020",
        device=device,
    )


def to_undirected(edges: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Returns each undirected edge in both directions once, without loops; the first mention says its label."""
    labels = labels[first_occurrence(edges.sort(0).values)]  # by pair: two directions may be labelled apart
    return coalesce(torch.cat([edges, edges.flip(0)], 1), torch.cat([labels, labels]))


def _folder(root: Path, name: str, download: bool) -> Path:
    places = (root / name / "raw", root / name)
    if download and not any((place / f"{name}_A.txt").exists() for place in places):
        import_pyg("datasets").TUDataset(str(root), name)
    for place in places:
        missing = [part for part in NEEDED if not (place / f"{name}_{part}.txt").exists()]
        if not missing:
            return place
        if len(missing) < len(NEEDED):
            raise FileNotFoundError(
                f"{place / name}_{missing[0]}.txt is missing beside the other files of {name}"
            )
    raise FileNotFoundError(
        f"no {name}_A.txt in {places[1]} nor {places[0]}. Use dataset.root=FOLDER for the folder that holds {name}/, "
        "or dataset.download=true"
    )


def _read(folder: Path, name: str, part: str) -> Tensor:
    """Returns a file of whole numbers, `(lines, columns)`."""
    import pandas as pd

    path = folder / f"{name}_{part}.txt"
    try:
        values = pd.read_csv(path, header=None, dtype="int64").to_numpy()
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{path}: wanted whole numbers, as many on every line: {error}") from error
    return torch.tensor(values)


def _columns(labels: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Returns labels numbered from 0 on column by column, and how many values each column has."""
    columns = [column.unique(return_inverse=True)[1] for column in labels.unbind(1)]
    numbered = torch.stack(columns, 1) if columns else labels
    return numbered, tuple(int(column.max()) + 1 for column in columns)


def _node_labels(
    labels: Tensor | None, edges: Tensor, v: int, take: str, path: Path
) -> tuple[Tensor, tuple[int, ...]]:
    if take not in ("labels", "degree"):
        raise ValueError(f"dataset.node_labels={take}: wanted labels or degree")
    if take == "degree":
        degree = torch.bincount(edges[1], minlength=v)[:, None]
        return degree, (int(degree.max()) + 1,)
    if labels is None:
        raise ValueError(
            f"{path}_node_labels.txt is not there. Use dataset.node_labels=degree to label nodes by degree"
        )
    if len(labels) != v:
        raise ValueError(f"{path}_node_labels.txt has {len(labels)} lines, there are {v} nodes")
    return _columns(labels)
