"""The citation graphs Cora, Citeseer and Pubmed with Planetoid's public split (Yang et al., ICML 2016).

The files are pickles of Python 2. They are read by an unpickler that can only create arrays, sparse matrices and dicts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dd_bench.data.array_unpickler import load_arrays
from dd_bench.data.dataset import RealSet
from dd_bench.data.locate import base_folder, downloading, not_found
from dd_bench.data.node_dataset import node_set, row_normalised
from dd_bench.data.nodes import NodeGraph, undirected
from dd_bench.data.pyg import import_pyg

PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")
URL = "https://github.com/kimiyoung/planetoid/raw/master/data"
CLASSES = {"cora": 7, "citeseer": 6, "pubmed": 3}
VALIDATION = 500


def planetoid(
    *,
    name: str,
    root: str | None,
    download: bool,
    features: str,
    split: str,
    setting: str,
    device: torch.device,
) -> RealSet:
    """Load the files `ind.<name>.*` in `<root>/<name>/raw/`, `<root>/<name>/` or `<root>/`.

    Edges are undirected, and self-loops and duplicates are removed. Citeseer has 15 nodes without features and without
    a label, which are in no split.

    Args:
        name: `cora`, `citeseer` or `pubmed`.
        root: folder of the files or a parent of it; None means `data`.
        download: whether to download missing files.
        features: `row_sum`: rows divided by their sum; `raw`: as in the files.
        split: `public`: 20 training nodes per class, 500 for validation, 1,000 for testing; `random`: 56, 24 and 20 %
            of the nodes, the split of Bonsai's code. The name of the dataset is then `<name>_random_split`.
        setting: see `node_set`.
        device: where the graph is stored.

    Raises:
        FileNotFoundError: a file is missing and `download` is false.
        ValueError: a value is unknown, or a file is damaged or contains other objects than arrays.
    """
    for key, value, known in (
        ("name", name, tuple(CLASSES)),
        ("features", features, ("row_sum", "raw")),
        ("split", split, ("public", "random")),
    ):
        if value not in known:
            raise ValueError(
                f"dataset.{key} must be one of {', '.join(known)}, got {value!r}. Example: dataset.{key}={known[0]}"
            )
    x, labels, edges, test = _read(_folder(base_folder(root), name, download), name, CLASSES[name])
    indices = _public_split(labels, test, CLASSES[name]) if split == "public" else _random_split(labels)
    return node_set(
        name if split == "public" else f"{name}_random_split",
        NodeGraph.of(row_normalised(x) if features == "row_sum" else x, undirected(edges)[0]),
        labels,
        indices,
        setting=setting,
        class_names=tuple(str(c) for c in range(CLASSES[name])),
        licence="none stated (Planetoid)",
        citation="Yang, Cohen and Salakhutdinov, Revisiting Semi-Supervised Learning with Graph Embeddings, ICML 2016",
        device=device,
    )


def _folder(root: Path, name: str, download: bool) -> Path:
    """Return the folder that contains all files of a dataset; download them first if `download` is true."""
    folders = [root / name / "raw", root / name, root]
    for folder in folders:
        if all((folder / f"ind.{name}.{part}").is_file() for part in PARTS):
            return folder
    if not download:
        raise not_found(
            name,
            f"files ind.{name}.x and so on",
            folders,
            ["dataset.download=true", "dataset.root=FOLDER, which contains the files"],
        )
    with downloading(name, URL, folders[0], f"which contains ind.{name}.x and so on"):
        fetch = import_pyg("data").download_url
        for part in PARTS:
            fetch(f"{URL}/ind.{name}.{part}", str(folders[0]), log=False)
    return folders[0]


def _read(folder: Path, name: str, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return features `(v, d)`, labels `(v,)` (-1: none), directed edges `(2, m)` and the test nodes.

    `x` and `y` are the first rows of `allx` and `ally`. Row i of `tx` belongs to the node on line i of `test.index`.
    """
    read = {part: load_arrays(folder / f"ind.{name}.{part}") for part in PARTS if part != "test.index"}
    path = folder / f"ind.{name}.test.index"
    try:
        order = np.array([int(line) for line in path.read_text().split()])
        known = read["allx"].shape[0]
        v = max(int(order.max()) + 1, known)
        x = np.zeros((v, read["allx"].shape[1]), np.float32)
        one_hot = np.zeros((v, k), np.int64)
        x[:known], one_hot[:known] = read["allx"].toarray(), read["ally"]
        x[order], one_hot[order] = read["tx"].toarray(), read["ty"]
        pairs = [(a, b) for a, others in read["graph"].items() for b in others]
        edges = torch.tensor(pairs, dtype=torch.int64).t().contiguous()
    except (ValueError, IndexError, AttributeError, TypeError) as error:
        raise ValueError(
            f"the files ind.{name}.* in {folder} are damaged: {error}. Download them again"
        ) from error
    labels = np.where(one_hot.any(1), one_hot.argmax(1), -1)
    return torch.from_numpy(x), torch.from_numpy(labels), edges, torch.from_numpy(np.sort(order))


def _public_split(labels: Tensor, test: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the first 20 * k nodes, the next 500, and the test nodes. All of them have a label."""
    train = torch.arange(20 * k)
    return train, torch.arange(20 * k, 20 * k + VALIDATION), test[labels[test] >= 0]


def _random_split(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the split of Bonsai's README: 20 % of all nodes for testing, 70 % of the others for training."""
    from sklearn.model_selection import train_test_split

    rest, test = train_test_split(range(len(labels)), test_size=0.2, random_state=42)
    train = np.random.RandomState(0).choice(rest, int(0.7 * len(rest)), replace=False)
    val = np.setdiff1d(rest, train)
    parts = (torch.from_numpy(np.sort(np.asarray(part))) for part in (train, val, test))
    a, b, c = (part[labels[part] >= 0] for part in parts)
    return a, b, c
