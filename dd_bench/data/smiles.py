"""Molecules from SMILES strings: OGB's features, computed once and stored, and OGB's scaffold split."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from dd_bench.data.graphs import Graphs
from dd_bench.runtime.files import write_atomic


def molecules(folder: Path, cache: Path) -> tuple[Graphs, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Return the graphs, labels and split of `folder/smiles.csv`, see `dd_bench.data.ogb_mol`.

    The graphs are stored in the folder `cache`.

    Raises:
        ImportError: ogb or rdkit is not installed.
        ValueError: a column is missing, a SMILES string is not valid, or a label is not an integer.
    """
    import pandas as pd

    path = folder / "smiles.csv"
    table = pd.read_csv(path)
    others = [column for column in table.columns if column != "smiles"]
    label = "label" if "label" in others else others[0] if len(others) == 1 else None
    if label is None or "smiles" not in table.columns:
        raise ValueError(f"{path} must have the columns smiles and label, got {list(table.columns)}")
    smiles = table["smiles"].astype(str).tolist()
    digest = hashlib.sha256("\n".join(smiles).encode()).hexdigest()
    stored = cache / f"{folder.name}-{digest[:16]}.safetensors"
    if not stored.exists():
        graphs = featurise(smiles)
        tensors = {name: getattr(graphs, name) for name in ("nodes", "edges", "edge_labels", "ptr")}
        write_atomic(stored, save({name: tensor.contiguous() for name, tensor in tensors.items()}))
    graphs = Graphs(**load_file(stored))
    numbers = pd.to_numeric(table[label], errors="coerce")
    if bool((invalid := numbers.isna() & table[label].notna()).any()):
        row = int(invalid.to_numpy().argmax())
        raise ValueError(f"{path}, line {row + 2}: {label} must be an integer, got {table[label][row]!r}")
    values = torch.tensor(numbers.to_numpy())
    labels = values.long()
    if bool((values != labels).any()):  # true for a missing label, which is NaN
        row = int((values != labels).nonzero()[0])
        raise ValueError(f"{path}, line {row + 2}: {label} must be an integer, got {values[row]}")
    files = [folder / f"{part}.txt" for part in ("train", "valid", "test")]
    if all(file.exists() for file in files):
        train, valid, test = (torch.tensor([int(i) for i in file.read_text().split()]) for file in files)
        return graphs, labels, (train, valid, test)
    return graphs, labels, scaffold_split(smiles)


def featurise(smiles: Sequence[str]) -> Graphs:
    """Return one graph per SMILES string, with OGB's nine atom and three bond features.

    Raises:
        ImportError: ogb or rdkit is not installed.
        ValueError: a SMILES string is not valid.
    """
    try:
        from ogb.utils.features import atom_to_feature_vector, bond_to_feature_vector
    except ImportError as error:
        raise ImportError(
            "reading SMILES requires ogb and rdkit. Use: pip install 'dd-bench[smiles]'"
        ) from error
    nodes, edges, edge_labels, sizes, shift = [], [], [], [], 0
    for row, text in enumerate(smiles):
        molecule = _molecule(text, row)
        nodes += [atom_to_feature_vector(atom) for atom in molecule.GetAtoms()]
        for bond in molecule.GetBonds():
            a, b = bond.GetBeginAtomIdx() + shift, bond.GetEndAtomIdx() + shift
            edges += [(a, b), (b, a)]
            edge_labels += [bond_to_feature_vector(bond)] * 2
        sizes.append(molecule.GetNumAtoms())
        shift += sizes[-1]
    count = torch.tensor(sizes)
    ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
    return Graphs(torch.tensor(nodes), torch.tensor(edges).t().contiguous(), torch.tensor(edge_labels), ptr)


def scaffold_split(smiles: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the train, validation and test indices of OGB's scaffold split.

    Molecules are grouped by their Bemis-Murcko scaffold with chirality. The groups are sorted by decreasing size, and
    groups of equal size by decreasing index of their first molecule. In this order, a group joins the training split
    if this split then has at most 80 % of all molecules. Otherwise it joins the validation split if the two splits
    then have at most 90 % together. All other groups form the test split.
    """
    scaffold: Any = import_module("rdkit.Chem.Scaffolds.MurckoScaffold").MurckoScaffoldSmiles

    groups: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(smiles):
        groups[scaffold(mol=_molecule(text, row), includeChirality=True)].append(row)
    train: list[int] = []
    valid: list[int] = []
    test: list[int] = []
    n = len(smiles)
    for group in sorted(groups.values(), key=lambda g: (len(g), g[0]), reverse=True):
        if len(train) + len(group) <= 0.8 * n:
            train.extend(group)
        elif len(train) + len(valid) + len(group) <= 0.9 * n:
            valid.extend(group)
        else:
            test.extend(group)
    return torch.tensor(train), torch.tensor(valid), torch.tensor(test)


def _molecule(text: str, row: int) -> Any:
    """Return the molecule as parsed by rdkit. If this fails, parse it without the check of valences."""
    from rdkit import Chem, rdBase

    rdBase.DisableLog("rdApp.*")
    molecule = Chem.MolFromSmiles(text)
    if molecule is not None:
        return molecule
    molecule = Chem.MolFromSmiles(text, sanitize=False)
    if molecule is None:
        raise ValueError(f"line {row + 2} of smiles.csv must be a valid SMILES string, got {text!r}")
    molecule.UpdatePropertyCache(strict=False)
    Chem.SanitizeMol(molecule, Chem.SANITIZE_ALL ^ Chem.SANITIZE_PROPERTIES)
    return molecule
