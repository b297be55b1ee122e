"""Any graph dataset of TUDataset, read from its raw text files (Morris et al., 2020)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.graph_dataset import graph_set, random_split
from dd_bench.data.graphs import Graphs, GraphShape, coalesce, first_occurrence
from dd_bench.data.locate import base_folder, downloading
from dd_bench.data.pyg import import_pyg

REQUIRED = ("A", "graph_indicator", "graph_labels")
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
    """Load the graphs in `<root>/<name>/` or `<root>/<name>/raw/`, from the files `<name>_A.txt` and so on.

    As in PyG, edges are undirected, and self-loops and duplicates are removed (older releases of IMDB list each edge
    twice). Continuous attributes are ignored. TUDataset has no official split, so the split is random, see
    `random_split`.

    Args:
        name: name of the dataset, e.g. NCI1.
        root: parent folder; None means `data`.
        download: download the files through torch_geometric if they are missing.
        node_labels: `labels` reads node labels from the files; `degree` uses the number of neighbours instead.
        seed, test, val: see `random_split`.
        device: where the graphs are stored.

    Raises:
        FileNotFoundError: a file is missing and `download` is false.
        ValueError: a file is malformed, or `node_labels` is `labels` and the file of node labels is missing.
        ImportError: a file is missing, `download` is true and torch_geometric is not installed.
    """
    folder = _folder(base_folder(root), name, download)
    tables = {part: _read(folder, name, part) for part in REQUIRED}
    tables |= {
        part: _read(folder, name, part) for part in OPTIONAL if (folder / f"{name}_{part}.txt").exists()
    }
    for part, what in (("graph_indicator", "graph number"), ("graph_labels", "class label")):
        if (columns := tables[part].shape[1]) != 1:
            raise ValueError(
                f"{folder / name}_{part}.txt must have one {what} on each line, got {columns} columns. Datasets with "
                "several tasks are not supported: keep the column of one task"
            )
    graph_of = tables["graph_indicator"][:, 0]
    v, step = len(graph_of), graph_of.diff()
    if int(graph_of[0]) != 1 or bool(((step < 0) | (step > 1)).any()):
        wrong = int(torch.cat([graph_of[:1] != 1, (step < 0) | (step > 1)]).int().argmax())
        raise ValueError(
            f"{folder / name}_graph_indicator.txt must number the graphs 1, 2, 3, ..., sorted and without gaps, "
            f"got {int(graph_of[wrong])} in line {wrong + 1}"
        )
    sizes = torch.bincount(graph_of)[1:]
    _check_lines(tables["graph_labels"], len(sizes), "graph", f"{folder / name}_graph_labels.txt")
    edges = tables["A"].t() - 1
    if edges.shape[0] != 2 or (edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < v):
        raise ValueError(
            f"{folder / name}_A.txt must have two node numbers in 1..{v} on each line, "
            f"got {edges.shape[0]} numbers per line, {int(edges.min()) + 1} to {int(edges.max()) + 1}"
        )
    crossing = (graph_of[edges[0]] != graph_of[edges[1]]).nonzero().flatten()
    if len(crossing):
        line = int(crossing[0])
        raise ValueError(
            f"{folder / name}_A.txt, line {line + 1}: both nodes of an edge must be in the same graph, got graphs "
            f"{int(graph_of[edges[0, line]])} and {int(graph_of[edges[1, line]])}"
        )
    raw_labels = tables.get("edge_labels", torch.zeros(edges.shape[1], 0).long())
    _check_lines(raw_labels, edges.shape[1], "edge", f"{folder / name}_edge_labels.txt")
    edge_labels, edge_values = _columns(raw_labels)
    edges, edge_labels = to_undirected(edges, edge_labels)
    nodes, values = _node_labels(tables.get("node_labels"), edges, v, node_labels, folder / name)
    classes, labels = tables["graph_labels"][:, 0].unique(return_inverse=True)
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
    """Return every edge once per direction, without self-loops, with the label of its first occurrence."""
    labels = labels[first_occurrence(edges.sort(0).values)]  # the two directions can have different labels
    return coalesce(torch.cat([edges, edges.flip(0)], 1), torch.cat([labels, labels]))


def _check_lines(rows: Tensor, expected: int, kind: str, path: str) -> None:
    if len(rows) != expected:
        raise ValueError(f"{path} must have {expected} lines, one per {kind}, got {len(rows)}")


def _folder(root: Path, name: str, download: bool) -> Path:
    folders = (root / name / "raw", root / name)
    if download and not any((folder / f"{name}_A.txt").exists() for folder in folders):
        url = "https://www.chrsmrrs.com/graphkerneldatasets/" + f"{name}.zip"
        with downloading(name, url, folders[1], f"the folder that contains {name}/"):
            import_pyg("datasets").TUDataset(str(root), name)
    for folder in folders:
        missing = [part for part in REQUIRED if not (folder / f"{name}_{part}.txt").exists()]
        if not missing:
            return folder
        if len(missing) < len(REQUIRED):
            raise FileNotFoundError(
                f"{folder / name}_{missing[0]}.txt is missing. Add this file, or delete {folder} and use "
                "dataset.download=true"
            )
    raise FileNotFoundError(
        f"no {name}_A.txt in {folders[1]} or {folders[0]}. Use dataset.root=FOLDER for the parent folder of {name}/, "
        "or dataset.download=true"
    )


def _read(folder: Path, name: str, part: str) -> Tensor:
    """Return the integers in a file, `(lines, columns)`."""
    import pandas as pd

    path = folder / f"{name}_{part}.txt"
    try:
        values = pd.read_csv(path, header=None, dtype="int64").to_numpy()
    except (ValueError, pd.errors.ParserError) as error:
        raise ValueError(f"{path} must have the same number of integers on every line: {error}") from error
    return torch.tensor(values)


def _columns(labels: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Renumber the labels of each column from 0 and return them with the number of values of each column."""
    columns = [column.unique(return_inverse=True)[1] for column in labels.unbind(1)]
    numbered = torch.stack(columns, 1) if columns else labels
    return numbered, tuple(int(column.max()) + 1 for column in columns)


def _node_labels(
    labels: Tensor | None, edges: Tensor, v: int, source: str, path: Path
) -> tuple[Tensor, tuple[int, ...]]:
    if source not in ("labels", "degree"):
        raise ValueError(
            f"dataset.node_labels must be 'labels' or 'degree', got {source!r}. Example: dataset.node_labels=degree"
        )
    if source == "degree":
        degree = torch.bincount(edges[1], minlength=v)[:, None]
        return degree, (int(degree.max()) + 1,)
    if labels is None:
        raise ValueError(
            f"{path}_node_labels.txt is missing. To label nodes by degree: dataset.node_labels=degree"
        )
    _check_lines(labels, v, "node", f"{path}_node_labels.txt")
    return _columns(labels)
