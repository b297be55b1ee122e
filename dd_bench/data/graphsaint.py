"""Flickr and Reddit in the format of GraphSAINT (Zeng et al., ICLR 2020): inductive node classification.

A folder contains `adj_full.npz` (a CSR matrix), `feats.npy`, `class_map.json` (class of each node) and `role.json`
(nodes of the splits `tr`, `va` and `te`).
"""

from __future__ import annotations

import json
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.locate import base_folder, downloading, not_found
from dd_bench.data.node_dataset import node_set, standardised
from dd_bench.data.nodes import NodeGraph, undirected
from dd_bench.data.pyg import import_pyg

FILES = {"adj_full": "adj_full.npz", "feats": "feats.npy", "class_map": "class_map.json", "role": "role.json"}
SOURCES = {"flickr": ("Flickr", 7), "reddit": ("Reddit2", 41)}
"""PyG's class that lists the files on Google Drive, and the number of classes."""


def graphsaint(
    *, name: str, root: str | None, download: bool, features: str, setting: str, device: torch.device
) -> RealSet:
    """Load the files in `<root>/<name>/`, or in the folder `raw/` in it.

    Edges are undirected and have weight one; self-loops and duplicates are removed. Reddit has the 23 million edges of
    GraphSAINT, not the 114 million of PyG's `Reddit`.

    Args:
        name: `flickr` or `reddit`.
        root: parent folder; None means `data`.
        download: whether to download the files from Google Drive, with PyG, if they are missing.
        features: `standardise`: columns with mean 0 and variance 1 over the training nodes; `raw`: as in the files.
        setting: see `node_set`. Papers on condensation use `inductive`.
        device: where the graph is stored.

    Raises:
        FileNotFoundError: a file is missing and `download` is false.
        ValueError: a file is damaged, or a value is unknown.
    """
    if name not in SOURCES or features not in ("standardise", "raw"):
        raise ValueError(
            f"dataset.name must be {' or '.join(SOURCES)}, and dataset.features standardise or raw, got {name!r} and "
            f"{features!r}. Example: dataset.name=flickr dataset.features=standardise"
        )
    folder = _folder(base_folder(root), name, download)
    try:
        edges = _edges(folder / FILES["adj_full"])
        x = torch.from_numpy(np.load(folder / FILES["feats"])).float()
        labels = _labels(folder / FILES["class_map"], len(x))
        roles = json.loads((folder / FILES["role"]).read_text())
        train, val, test = (torch.tensor(roles[part], dtype=torch.int64) for part in ("tr", "va", "te"))
    except (ValueError, KeyError, TypeError, OSError, BadZipFile) as error:
        raise ValueError(f"the files in {folder} are damaged: {error}. Download them again") from error
    return node_set(
        name,
        NodeGraph.of(standardised(x, train) if features == "standardise" else x, edges),
        labels,
        (train, val, test),
        setting=setting,
        class_names=tuple(str(c) for c in range(SOURCES[name][1])),
        licence="none stated (GraphSAINT)",
        citation="Zeng et al., GraphSAINT: Graph Sampling Based Inductive Learning Method, ICLR 2020",
        device=device,
    )


def _folder(root: Path, name: str, download: bool) -> Path:
    folders = [root / name / "raw", root / name]
    for folder in folders:
        if all((folder / file).is_file() for file in FILES.values()):
            return folder
    if not download:
        fixes = ["dataset.download=true", f"dataset.root=FOLDER, which contains {name}/"]
        raise not_found(name, "adj_full.npz, feats.npy, class_map.json and role.json", folders, fixes)
    source = getattr(import_pyg("datasets"), SOURCES[name][0])
    where = "the folder of GraphSAINT on Google Drive"
    with downloading(name, where, folders[0], f"which contains {name}/"):
        for key, file in FILES.items():
            import_pyg("data").download_google_url(getattr(source, f"{key}_id"), str(folders[0]), file)
    return folders[0]


def _edges(path: Path) -> Tensor:
    """Return the edges of a CSR matrix in the format of `scipy.sparse.save_npz`. NumPy refuses pickled arrays."""
    with np.load(path) as file:
        starts, ends = file["indptr"].astype(np.int64), file["indices"].astype(np.int64)
    sender = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    return undirected(torch.from_numpy(np.stack([sender, ends])))[0]


def _labels(path: Path, v: int) -> Tensor:
    """Return the classes `(v,)`, with the smallest class 0. A file has classes or lists with a single one."""
    found = {
        int(node): value.index(1) if isinstance(value, list) else int(value)
        for node, value in json.loads(path.read_text()).items()
    }
    labels = torch.full((v,), -1, dtype=torch.int64)
    smallest = min(found.values())
    for node, value in found.items():
        labels[node] = value - smallest
    return labels
