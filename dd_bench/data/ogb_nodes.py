"""ogbn-arxiv, a citation graph of the Open Graph Benchmark, read from its raw CSV files (Hu et al., NeurIPS 2020)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from dd_bench.data.dataset import RealSet
from dd_bench.data.locate import base_folder, downloading, not_found
from dd_bench.data.node_dataset import node_set, standardised
from dd_bench.data.nodes import NodeGraph, undirected
from dd_bench.data.pyg import import_pyg

URL = "http://snap.stanford.edu/ogb/data/nodeproppred/arxiv.zip"
PARTS = ("train", "valid", "test")
CLASSES = 40


def ogb_nodes(
    *, root: str | None, download: bool, features: str, setting: str, device: torch.device
) -> RealSet:
    """Load ogbn-arxiv from `<root>/arxiv/`, which contains `raw/edge.csv.gz` and `split/time/train.csv.gz`.

    Citations become undirected edges of weight one. The split is that of OGB, by year of publication.

    Args:
        root: parent folder of `arxiv/`; None means `data`.
        download: whether to download OGB's archive, 81 MB, if the folder is missing.
        features: `standardise`: columns with mean 0 and variance 1 over the training nodes; `raw`: as in the files.
        setting: see `node_set`.
        device: where the graph is stored.

    Raises:
        FileNotFoundError: a file is missing and `download` is false.
        ValueError: a file is damaged, or `features` is unknown.
    """
    if features not in ("standardise", "raw"):
        raise ValueError(
            f"dataset.features must be standardise or raw, got {features!r}. Example: dataset.features=standardise"
        )
    folder = base_folder(root) / "arxiv"
    if not (folder / "raw" / "edge.csv.gz").is_file():
        if not download:
            raise not_found(
                "ogbn_arxiv",
                "raw/edge.csv.gz",
                [folder],
                ["dataset.download=true", "dataset.root=FOLDER, which contains arxiv/"],
            )
        with downloading("ogbn_arxiv", URL, folder, "which contains arxiv/"):
            data = import_pyg("data")
            archive = data.download_url(URL, str(folder.parent), log=False)
            data.extract_zip(archive, str(folder.parent), log=False)
    x = _read(folder / "raw" / "node-feat.csv.gz", torch.float32)
    labels = _read(folder / "raw" / "node-label.csv.gz", torch.int64)[:, 0]
    edges = undirected(_read(folder / "raw" / "edge.csv.gz", torch.int64).t())[0]
    train, val, test = (_read(folder / "split" / "time" / f"{p}.csv.gz", torch.int64)[:, 0] for p in PARTS)
    return node_set(
        "ogbn_arxiv",
        NodeGraph.of(standardised(x, train) if features == "standardise" else x, edges),
        labels,
        (train, val, test),
        setting=setting,
        class_names=tuple(str(c) for c in range(CLASSES)),
        licence="ODC-BY (Open Graph Benchmark)",
        citation="Hu et al., Open Graph Benchmark: Datasets for Machine Learning on Graphs, NeurIPS 2020",
        device=device,
    )


def _read(path: Path, dtype: torch.dtype) -> Tensor:
    """Return the numbers in a CSV file without a header, `(lines, columns)`."""
    import pandas as pd

    kind = "int64" if dtype == torch.int64 else "float32"
    try:
        return torch.tensor(pd.read_csv(path, header=None, dtype=kind).to_numpy())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing. Unpack OGB's archive again") from error
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}. Unpack OGB's archive again") from error
