"""Molecules written as SMILES: featurised as OGB does it, once, and split by their scaffolds."""

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


def molecules(folder: Path, kept: Path) -> tuple[Graphs, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Returns the graphs, classes and split of `folder/smiles.csv`; see `dd_bench.data.ogb_mol`.

    Raises:
        ImportError: ogb or rdkit are not installed.
        ValueError: a column is missing, or a line is no molecule.
    """
    import pandas as pd

    path = folder / "smiles.csv"
    table = pd.read_csv(path)
    others = [column for column in table.columns if column != "smiles"]
    label = "label" if "label" in others else others[0] if len(others) == 1 else None
    if label is None or "smiles" not in table.columns:
        raise ValueError(f"{path}: wanted the columns smiles and label; it has {list(table.columns)}")
    written = table["smiles"].astype(str).tolist()
    digest = hashlib.sha256("\n".join(written).encode()).hexdigest()
    stored = kept / f"{folder.name}-{digest[:16]}.safetensors"
    if not stored.exists():
        graphs = featurise(written)
        parts = {
            "nodes": graphs.nodes,
            "edges": graphs.edges,
            "edge_labels": graphs.edge_labels,
            "ptr": graphs.ptr,
        }
        stored.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(stored, save({k: v.contiguous() for k, v in parts.items()}))
    graphs = Graphs(**load_file(stored))
    numbers = pd.to_numeric(table[label], errors="coerce")
    if bool((unread := numbers.isna() & table[label].notna()).any()):
        at = int(unread.to_numpy().argmax())
        raise ValueError(f"{path}, line {at + 2}: its {label} is {table[label][at]!r}, wanted a whole number")
    values = torch.tensor(numbers.to_numpy())
    labels = values.long()
    if bool((values != labels).any()):  # a missing label is not a number
        line = int((values != labels).nonzero()[0]) + 2
        raise ValueError(f"{path}, line {line}: its {label} is {values[line - 2]}, wanted a whole number")
    files = [folder / f"{part}.txt" for part in ("train", "valid", "test")]
    if all(file.exists() for file in files):
        train, valid, test = (torch.tensor([int(i) for i in file.read_text().split()]) for file in files)
        return graphs, labels, (train, valid, test)
    return graphs, labels, scaffold_split(written)


def featurise(written: Sequence[str]) -> Graphs:
    """Returns one graph a SMILES, with OGB's nine atom and three bond features.

    Raises:
        ValueError: a line is no molecule.
    """
    try:
        from ogb.utils.features import atom_to_feature_vector, bond_to_feature_vector
    except ImportError as error:
        raise ImportError(
            "reading SMILES needs ogb and rdkit. Use: pip install 'dd-bench[smiles]'"
        ) from error
    nodes, edges, marks, sizes, shift = [], [], [], [], 0
    for line, text in enumerate(written):
        molecule = _molecule(text, line)
        nodes += [atom_to_feature_vector(atom) for atom in molecule.GetAtoms()]
        for bond in molecule.GetBonds():
            a, b = bond.GetBeginAtomIdx() + shift, bond.GetEndAtomIdx() + shift
            edges += [(a, b), (b, a)]
            marks += [bond_to_feature_vector(bond)] * 2
        sizes.append(molecule.GetNumAtoms())
        shift += sizes[-1]
    count = torch.tensor(sizes)
    ptr = torch.cat([count.new_zeros(1), count.cumsum(0)])
    return Graphs(torch.tensor(nodes), torch.tensor(edges).t().contiguous(), torch.tensor(marks), ptr)


def scaffold_split(written: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Returns train, validation and test indices by OGB's recipe.

    Molecules are grouped by their Bemis-Murcko scaffold with chirality; the groups, largest and latest first,
    fill train up to 80 %, validation up to 90 %, and test.
    """
    scaffold: Any = import_module("rdkit.Chem.Scaffolds.MurckoScaffold").MurckoScaffoldSmiles

    groups: dict[str, list[int]] = defaultdict(list)
    for line, text in enumerate(written):
        groups[scaffold(mol=_molecule(text, line), includeChirality=True)].append(line)
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    n = len(written)
    for group in sorted(groups.values(), key=lambda g: (len(g), g[0]), reverse=True):
        if len(parts[0]) + len(group) <= 0.8 * n:
            parts[0].extend(group)
        elif len(parts[0]) + len(parts[1]) + len(group) <= 0.9 * n:
            parts[1].extend(group)
        else:
            parts[2].extend(group)
    train, valid, test = (torch.tensor(part) for part in parts)
    return train, valid, test


def _molecule(text: str, line: int) -> Any:
    """Returns rdkit's molecule; of one with an impossible valence, that without the check of valences."""
    from rdkit import Chem, rdBase

    rdBase.DisableLog("rdApp.*")
    found = Chem.MolFromSmiles(text)
    if found is not None:
        return found
    found = Chem.MolFromSmiles(text, sanitize=False)
    if found is None:
        raise ValueError(f"line {line + 2} is no molecule: {text!r}")
    found.UpdatePropertyCache(strict=False)
    Chem.SanitizeMol(found, Chem.SANITIZE_ALL ^ Chem.SANITIZE_PROPERTIES)
    return found
