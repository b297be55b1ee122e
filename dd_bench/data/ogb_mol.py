"""OGB's binary molecule datasets, e.g. ogbg-molbace, -molbbbp and -molhiv, from CSV or SMILES (Hu et al., 2020)."""

from __future__ import annotations

import gzip
from pathlib import Path

import torch
from torch import Tensor

from dd_bench.data import smiles
from dd_bench.data.dataset import RealSet
from dd_bench.data.graph_dataset import graph_set
from dd_bench.data.graphs import Graphs, GraphShape
from dd_bench.data.locate import base_folder

ATOM = (119, 5, 12, 12, 10, 6, 6, 2, 2)
"""Number of values of each atom feature of OGB: atomic number, chirality, degree, formal charge, number of hydrogens,
radical electrons, hybridization, is aromatic, is in a ring."""
BOND = (5, 6, 2)
"""Number of values of each bond feature of OGB: type, stereo, is conjugated."""
SHAPE = GraphShape(ATOM, BOND)
PARTS = ("train", "valid", "test")


def ogb_mol(*, name: str, root: str | None, kept: str | None, device: torch.device) -> RealSet:
    """Return the molecules in the folder `<root>/<name>`, two classes, with the official scaffold split.

    The folder contains one of:

    - OGB's raw files, `raw/*.csv.gz` and `split/scaffold/*.csv.gz`. They are read without the ogb package.
    - `smiles.csv` with a column `smiles` and a column `label` (which can have any name if there are only two columns).
      The molecules are featurised once, which requires ogb and rdkit. The split is read from `train.txt`, `valid.txt`
      and `test.txt` in the same folder. If these are missing, the split is computed as OGB does, see
      `smiles.scaffold_split`.

    Args:
        name: name of the folder, e.g. ogbg_molbace.
        root: parent folder; None means `data`.
        kept: folder where featurised molecules are stored; None means `data/featurised`.
        device: where the graphs are stored.

    Raises:
        FileNotFoundError: the folder contains neither of these.
        ValueError: a file is malformed.
        ImportError: `smiles.csv` must be featurised, and ogb or rdkit is not installed.
    """
    folder = base_folder(root) / name
    if (folder / "raw" / "node-feat.csv.gz").exists():
        graphs, labels, split = _from_raw(folder)
    elif (folder / "smiles.csv").exists():
        graphs, labels, split = smiles.molecules(folder, base_folder(kept or "data/featurised"))
    else:
        raise FileNotFoundError(
            f"neither raw/node-feat.csv.gz nor smiles.csv found in {folder}. Unpack OGB's archive of {name} there, or "
            f"create smiles.csv (columns smiles, label). To use another parent folder of {name}/: dataset.root=FOLDER"
        )
    return graph_set(
        name,
        graphs,
        labels,
        split,
        shape=SHAPE,
        class_names=("0", "1"),
        licence="MIT (Open Graph Benchmark)",
        citation="Hu et al., Open Graph Benchmark: Datasets for Machine Learning on Graphs, NeurIPS 2020",
        device=device,
        other_split=f"your own {' and '.join(f'{part}.txt' for part in PARTS)} next to smiles.csv in {folder}",
    )


def _from_raw(folder: Path) -> tuple[Graphs, Tensor, tuple[Tensor, Tensor, Tensor]]:
    raw = folder / "raw"
    nodes, bonds = _read(raw / "node-feat.csv.gz"), _read(raw / "edge.csv.gz")
    bond_labels, labels = _read(raw / "edge-feat.csv.gz"), _read(raw / "graph-label.csv.gz")
    sizes, bond_counts = (_read(raw / f"num-{kind}-list.csv.gz")[:, 0] for kind in ("node", "edge"))
    for file, lines, expected in (
        ("node-feat", len(nodes), int(sizes.sum())),
        ("edge", len(bonds), int(bond_counts.sum())),
        ("edge-feat", len(bond_labels), len(bonds)),
        ("graph-label", len(labels), len(sizes)),
        ("num-edge-list", len(bond_counts), len(sizes)),
    ):
        if lines != expected:
            raise ValueError(
                f"{raw / file}.csv.gz must have {expected} lines to match the other files, got {lines}"
            )
    ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    shift = torch.repeat_interleave(ptr[:-1], bond_counts)
    one_way = bonds.t() + shift
    graphs = Graphs(
        nodes, torch.cat([one_way, one_way.flip(0)], 1), torch.cat([bond_labels, bond_labels]), ptr
    )
    train, valid, test = (_read(folder / "split" / "scaffold" / f"{part}.csv.gz")[:, 0] for part in PARTS)
    if labels.shape[1] != 1:
        raise ValueError(
            f"{raw / 'graph-label'}.csv.gz must have one task (one column), got {labels.shape[1]}"
        )
    return graphs, labels[:, 0], (train, valid, test)


def _read(path: Path) -> Tensor:
    """Return the integers in a CSV file, `(lines, columns)`. OGB writes some of them as floats."""
    import pandas as pd

    try:
        with gzip.open(path, "rt") as file:
            values = pd.read_csv(file, header=None, dtype="float64").to_numpy()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing. Unpack OGB's archive again") from error
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}. Unpack OGB's archive again") from error
    integers = torch.tensor(values).long()
    if len(other := torch.tensor(values)[torch.tensor(values) != integers]):
        raise ValueError(f"{path} must contain only integers, got {float(other[0])}")
    return integers
