"""OGB's molecules: ogbg-molbace, -molbbbp, -molhiv and their kind, raw CSV or SMILES (Hu et al., NeurIPS 2020)."""

from __future__ import annotations

import gzip
from pathlib import Path

import torch
from torch import Tensor

from dd_bench.data import smiles
from dd_bench.data.dataset import RealSet
from dd_bench.data.graph_dataset import graph_set
from dd_bench.data.graphs import Graphs, GraphShape

ATOM = (119, 5, 12, 12, 10, 6, 6, 2, 2)
"""Values of OGB's nine atom features: number, chirality, degree, charge, hydrogens, radicals, orbitals, two flags."""
BOND = (5, 6, 2)
"""Values of its three bond features: type, stereo, conjugated."""
SHAPE = GraphShape(ATOM, BOND)
PARTS = ("train", "valid", "test")


def ogb_mol(*, name: str, root: str | None, kept: str | None, device: torch.device) -> RealSet:
    """Returns the molecules of `root/NAME`, two classes, with the official scaffold split.

    Either OGB's raw files (`raw/*.csv.gz`, `split/scaffold/*.csv.gz`), read without ogb; or `smiles.csv` with the
    columns smiles and label (or one other), which takes ogb and rdkit and is featurised once. `train.txt`,
    `valid.txt` and `test.txt` beside it hold the split; without them it is made by the official recipe, see
    `smiles.scaffold_split`.

    Args:
        name: of the folder, e.g. ogbg_molbace.
        root: folder that holds it; None: data.
        kept: folder for featurised molecules; None: data/featurised.
        device: where the graphs go.

    Raises:
        FileNotFoundError: neither form is there.
        ValueError: a file is malformed.
    """
    folder = Path(root or "data") / name
    if (folder / "raw" / "node-feat.csv.gz").exists():
        graphs, labels, split = _from_raw(folder)
    elif (folder / "smiles.csv").exists():
        graphs, labels, split = smiles.molecules(folder, Path(kept or "data/featurised"))
    else:
        raise FileNotFoundError(
            f"neither raw/node-feat.csv.gz nor smiles.csv in {folder}. Unpack OGB's archive of {name} there, or write "
            f"smiles.csv (columns smiles, label). Use dataset.root=FOLDER for the folder that holds {name}/"
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
        other_split=f"{' and '.join(f'{part}.txt' for part in PARTS)} of your own beside smiles.csv in {folder}",
    )


def _from_raw(folder: Path) -> tuple[Graphs, Tensor, tuple[Tensor, Tensor, Tensor]]:
    raw = folder / "raw"
    nodes, bonds = _read(raw / "node-feat.csv.gz"), _read(raw / "edge.csv.gz")
    marks, labels = _read(raw / "edge-feat.csv.gz"), _read(raw / "graph-label.csv.gz")
    sizes, bond_counts = (_read(raw / f"num-{what}-list.csv.gz")[:, 0] for what in ("node", "edge"))
    for what, have, wanted in (
        ("node-feat", len(nodes), int(sizes.sum())),
        ("edge", len(bonds), int(bond_counts.sum())),
        ("edge-feat", len(marks), len(bonds)),
        ("graph-label", len(labels), len(sizes)),
        ("num-edge-list", len(bond_counts), len(sizes)),
    ):
        if have != wanted:
            raise ValueError(f"{raw / what}.csv.gz has {have} lines, the other files say {wanted}")
    ptr = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    shift = torch.repeat_interleave(ptr[:-1], bond_counts)
    once = bonds.t() + shift
    graphs = Graphs(nodes, torch.cat([once, once.flip(0)], 1), torch.cat([marks, marks]), ptr)
    parts = [_read(folder / "split" / "scaffold" / f"{part}.csv.gz")[:, 0] for part in PARTS]
    if labels.shape[1] != 1:
        raise ValueError(f"{raw / 'graph-label'}.csv.gz has {labels.shape[1]} tasks a molecule; wanted one")
    return graphs, labels[:, 0], (parts[0], parts[1], parts[2])


def _read(path: Path) -> Tensor:
    """Returns a file of whole numbers, `(lines, columns)`; OGB writes some of them as floats."""
    import pandas as pd

    try:
        with gzip.open(path, "rt") as file:
            values = pd.read_csv(file, header=None, dtype="float64").to_numpy()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing beside OGB's other files") from error
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    whole = torch.tensor(values).long()
    if bool((torch.tensor(values) != whole).any()):
        raise ValueError(f"{path}: wanted whole numbers")
    return whole
