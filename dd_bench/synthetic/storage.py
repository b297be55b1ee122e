"""Save and load a synthetic set as a folder without pickle files.

    synthetic.safetensors   the tensors
    preprocess.safetensors  the fitted preprocessing, if it has tensors (ZCA)
    card.json               what the set is, how it was created, and the sha256 of the other files
    README.md               a Hugging Face dataset card
    preview.png             images of each class
    provenance.json         seconds, memory, machine and remarks of the distillation; optional, without a sha256

With the same seed on the same kind of machine, all files with a sha256 have the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from dd_bench import __version__
from dd_bench.data import preprocess
from dd_bench.data.dataset import RealSet
from dd_bench.records.overrides import choice_overrides, dataset_overrides, without_local_paths
from dd_bench.runtime import untrusted
from dd_bench.runtime.cache import publish
from dd_bench.runtime.files import canonical, write_atomic
from dd_bench.runtime.terminal import sanitize
from dd_bench.synthetic.base import SyntheticSet
from dd_bench.synthetic.card import (
    CARD,
    PREVIEW,
    PROVENANCE,
    README,
    TENSORS,
    TRANSFORM,
    Card,
    read_card,
)
from dd_bench.synthetic.compensated import CompensatedSet
from dd_bench.synthetic.graphs import GraphSet, TreeSet
from dd_bench.synthetic.images import ImageSet
from dd_bench.synthetic.licences import OTHER, hub_licence, licence_name
from dd_bench.synthetic.method_limits import check_method
from dd_bench.synthetic.nodes import NodeSet
from dd_bench.synthetic.preview import preview_png
from dd_bench.synthetic.quantised import QuantisedSet
from dd_bench.synthetic.tensor_file import parse_tensors

KINDS: dict[str, type[SyntheticSet]] = {
    kind.kind: kind for kind in (ImageSet, QuantisedSet, CompensatedSet, GraphSet, TreeSet, NodeSet)
}


def save(
    syn: SyntheticSet,
    folder: Path,
    *,
    real: RealSet,
    method: str,
    ipc: int,
    seed: int,
    config: dict[str, Any],
    citations: list[str],
    provenance: dict[str, Any],
    base: Card | None = None,
) -> Path:
    """Write a set to `folder` atomically and return the folder.

    Args:
        syn: the set.
        folder: the folder to create.
        real: the real set that it was distilled from.
        method: name of the method.
        ipc: images per class.
        seed: seed of the distillation.
        config: the configuration for the card.
        citations: of the method and of the dataset.
        provenance: the fields of `provenance.json`.
        base: card of the set that it was made from. Its licence and citations are carried over.

    Raises:
        FileExistsError: the folder exists.
        OSError: the set could not be written. No partial folder remains.
    """
    card = Card(
        kind=syn.kind,
        method=method,
        dataset=real.name,
        dataset_digest=real.digest,
        class_names=list(syn.class_names),
        ipc=ipc,
        seed=seed,
        set=syn.config(),
        preprocess=syn.preprocess.config(),
        preprocess_digest=syn.preprocess.digest,
        stored_bytes=syn.stored_bytes(),
        config=without_local_paths(config),
        licence="; ".join(dict.fromkeys([real.licence, *([base.licence] if base else [])])),
        citations=list(dict.fromkeys([*citations, *(base.citations if base else [])])),
        sha256={},
    )
    return _write(syn, folder, card, provenance)


def save_derived(
    syn: SyntheticSet, folder: Path, *, card: Card, config: dict[str, Any], provenance: dict[str, Any]
) -> Path:
    """Write a set that was made from the images of another set alone; otherwise like `save`.

    Args:
        syn: the new set.
        folder: the folder to create.
        card: card of the other set. Method, dataset, seed, licence and citations are carried over.
        config: the configuration for the new card.
        provenance: the fields of `provenance.json`.
    """
    changes = {
        "kind": syn.kind,
        "set": syn.config(),
        "stored_bytes": syn.stored_bytes(),
        "config": config,
        "dd_bench": __version__,
    }
    return _write(syn, folder, card.model_copy(update=changes), provenance)


def _write(syn: SyntheticSet, folder: Path, card: Card, provenance: dict[str, Any]) -> Path:
    """Write the files of a set. The card does not have their hashes yet."""
    files = {TENSORS: to_safetensors(syn.tensors()), PREVIEW: preview_png(syn)}
    if syn.preprocess.tensors():
        files[TRANSFORM] = to_safetensors(syn.preprocess.tensors())
    words = [*_dataset(card), *_network(card), f"protocol={syn.protocol}"]
    files[README] = sanitize(_readme(card, syn, words)).encode()
    card = card.model_copy(update={"sha256": {name: _sha256(data) for name, data in sorted(files.items())}})
    files[CARD] = (canonical(card.model_dump(mode="json"), indent=2) + "\n").encode()
    files[PROVENANCE] = (canonical(provenance, indent=2) + "\n").encode()

    def fill(scratch: Path) -> None:
        for name, data in files.items():
            write_atomic(scratch / name, data)

    return publish(folder, fill)


def load(folder: Path) -> tuple[SyntheticSet, Card]:
    """Load and check a set. The folder may come from an untrusted source; no code from it is executed.

    Raises:
        ValueError: a file is missing or has another hash; a tensor has a wrong shape, dtype or range; or the classes
            or the preprocessing do not match the card; or the method in the card cannot return such a set.
    """
    card = read_card(folder)
    if TENSORS not in card.sha256:
        raise ValueError(f"{folder / CARD} must list {TENSORS} under sha256, got {sorted(card.sha256)}")
    contents = {name: _read_verified(folder, name, card) for name in card.sha256}
    try:
        tensors = parse_tensors(contents[TENSORS], card.tensor_bytes(TENSORS))
        fitted = (
            parse_tensors(contents[TRANSFORM], card.tensor_bytes(TRANSFORM)) if TRANSFORM in contents else {}
        )
        syn = _restore(card, tensors, fitted)
    except KeyError as error:
        raise ValueError(f"{folder} is damaged: {error} is missing in its card or tensors") from error
    # RuntimeError: torch rejects some shapes; LookupError, OverflowError: so does indexing
    except (ValueError, TypeError, RuntimeError, LookupError, OverflowError, MemoryError) as error:
        raise ValueError(f"{folder} is damaged: {untrusted.shorten(error)}") from error
    return syn, card


def _restore(card: Card, tensors: dict[str, Tensor], fitted: dict[str, Tensor]) -> SyntheticSet:
    """Rebuild a set, and check that its tensors, its fields and its preprocessing are exactly those in the files."""
    transform = preprocess.restore(card.preprocess, fitted)
    _check_equal("preprocess", transform.config(), card.preprocess)
    _check_equal("the tensors of preprocess", sorted(transform.tensors()), sorted(fitted))
    if transform.digest != card.preprocess_digest:
        raise ValueError(
            f"preprocess_digest must be {transform.digest[:12]}, got {card.preprocess_digest[:12]} in the card"
        )
    if card.kind not in KINDS:
        raise ValueError(f"kind must be one of {sorted(KINDS)}, got {card.kind!r}")
    syn = KINDS[card.kind].restore(card.set, tensors, tuple(card.class_names), transform)
    _check_equal("set", syn.config(), card.set)
    stored = syn.tensors()
    for name, tensor in tensors.items():
        if name not in stored:
            raise ValueError(f"tensor {name!r} does not belong to a set of kind {card.kind!r}")
        if (got := (tensor.dtype, tensor.shape)) != (expected := (stored[name].dtype, stored[name].shape)):
            raise ValueError(
                f"tensor {name!r} must be {expected[0]} {tuple(expected[1])}, got {got[0]} {tuple(got[1])}"
            )
        if stored[name] is not tensor and not torch.equal(stored[name], tensor):
            raise ValueError(f"tensor {name!r} has values that a set of kind {card.kind!r} does not store")
    syn.check_ipc(card.ipc)
    check_method(card.method, card.config, kind=card.kind, whole=syn.whole, decoding=syn.decoding())
    if syn.stored_bytes() != card.stored_bytes:
        raise ValueError(f"stored_bytes must be {syn.stored_bytes()}, got {card.stored_bytes} in the card")
    return syn


def _check_equal(what: str, restored: Any, in_card: Any) -> None:
    """Raise ValueError unless two JSON values are equal, with equal types: 1, 1.0 and true are different."""
    if canonical(restored) != canonical(in_card):
        raise ValueError(f"{what} must be {restored}, got {in_card} in the card")


def digest(folder: Path) -> str:
    """Return the digest of a set: the sha256 of its card.

    The card contains the sha256 of every other file except provenance.json.
    """
    return _sha256(untrusted.read_bytes(folder / CARD))


def check_dataset(card: Card, real: RealSet) -> str | None:
    """Return the reason why the set cannot be evaluated on `real`, or None if it can be."""
    if card.dataset_digest != real.digest:
        return (
            f"the set was distilled from {card.dataset!r} ({card.dataset_digest[:12]}), "
            f"but the dataset is {real.name!r} ({real.digest[:12]})"
        )
    if tuple(card.class_names) != real.class_names:
        return (
            f"the set and the dataset must have the same class names in the same order, got {card.class_names} for "
            f"the set and {list(real.class_names)} for the dataset"
        )
    if card.preprocess_digest != real.preprocess.digest:
        return (
            f"the set was distilled with preprocessing {card.preprocess}, but the dataset is loaded with "
            f"{real.preprocess.config()}. Load the dataset with the preprocessing of the set"
            f"{_preprocess_example(card.preprocess, real.preprocess.config())}"
        )
    shape = card.set.get("image_shape", card.set.get("shape"))
    expected = json.loads(json.dumps(real.shape))
    if shape != expected:
        return f"the set must have {real.modality}s of shape {expected} like the dataset, got {shape}"
    return None


def _preprocess_example(of_set: dict[str, Any], of_real: dict[str, Any]) -> str:
    """Return the overrides that give the dataset the preprocessing of the set, as the end of a message."""
    words = [f"dataset.preprocess={of_set['kind']}"] if of_set.get("kind") != of_real["kind"] else []
    if not words:  # a fitted transform cannot be set by overrides
        words = [
            f"dataset.{key}={canonical(of_set[key]).replace(' ', '')}"
            for key in ("mean", "std")
            if key in of_set and of_set[key] != of_real[key]
        ]
    return f". Example: {' '.join(words)}" if words else ""


def _read_verified(folder: Path, name: str, card: Card) -> bytearray:
    """Check the hash of a file. Return its content if it contains tensors, else an empty buffer."""
    path, limit, has_tensors = folder / name, card.size_limit(name), name in (TENSORS, TRANSFORM)
    try:
        content = untrusted.read_buffer(path, limit) if has_tensors else bytearray()
        actual = _sha256(content) if has_tensors else untrusted.sha256(path, limit)
    except FileNotFoundError as error:
        raise ValueError(f"{folder} is incomplete: {name!r} is missing") from error
    if actual != card.sha256[name]:
        raise ValueError(
            f"{path} was modified or truncated: its sha256 must be {card.sha256[name][:12]}, got {actual[:12]}"
        )
    return content


def _sha256(data: bytes | bytearray) -> str:
    return hashlib.sha256(data).hexdigest()


def _readme(card: Card, syn: SyntheticSet, evaluation: Sequence[str]) -> str:
    total = sum(card.stored_bytes.values())
    parts = ", ".join(f"{name} {size:,}" for name, size in card.stored_bytes.items())
    citations = "\n".join(f"- {c}" for c in card.citations)
    licence = hub_licence(card.licence)
    name = f"\nlicense_name: {licence_name(card.licence)}" if licence == OTHER else ""
    return f"""---
license: {licence}{name}
task_categories: [{syn.task}]
tags: [dataset-distillation, dd-bench, {_tag(card.method)}, {_tag(card.dataset)}, ipc-{card.ipc}]
---

# {card.method} on {card.dataset}, {card.ipc} {syn.modality}(s) per class

A synthetic training set for {len(card.class_names)} classes, made by dd_bench {card.dd_bench}
with seed {card.seed}. Stored bytes: {total:,} ({parts}).

![the {syn.modality}s, one row a class](preview.png)

Score it with fresh networks:

    dd-bench evaluate set=THIS_FOLDER {" ".join(map(shlex.quote, evaluation))}

Any protocol can be used. `dd-bench list protocols` prints them.

Read it without dd_bench:

    from safetensors.torch import load_file
    tensors = load_file("synthetic.safetensors")   # {syn.main_tensors}

{syn.describe_tensors()}
Check every file against `card.json`: `dd-bench verify THIS_FOLDER`.

Licence of the {syn.modality}s: {card.licence}.

{citations}
"""


def _tag(text: str) -> str:
    """Return a YAML scalar, quoted if it could be parsed as something other than a string."""
    return text if re.fullmatch(r"[A-Za-z][A-Za-z0-9_.+-]*", text) else json.dumps(text)


def _dataset(card: Card) -> list[str]:
    """Return the overrides that select the dataset and its changed values, or only its name if it is not shipped."""
    try:
        return dataset_overrides(card.config.get("dataset", {}), card.dataset)
    except ValueError:
        return [f"dataset={card.dataset}"]


def _network(card: Card) -> list[str]:
    """Return the overrides that select the network of the distillation, or none if it is not shipped."""
    try:
        return choice_overrides("model", card.config.get("model", {}))
    except ValueError:
        return []
