"""The artifact: a synthetic set as a folder that anybody can download, check and use. No pickle in it.

    synthetic.safetensors   the tensors
    preprocess.safetensors  the fitted transform, where it has tensors (ZCA)
    card.json               what it is, how it was made, the sha256 of every other file
    README.md               a Hugging Face dataset card      preview.png   the images by class
    provenance.json         seconds, memory, machine and remarks of the making; not hashed, may be absent

One seed on one kind of machine gives the same bytes of every hashed file.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors

from dd_bench.data import preprocess
from dd_bench.data.dataset import RealSet
from dd_bench.runtime.cache import publish
from dd_bench.runtime.files import canonical, write_atomic
from dd_bench.synthetic.base import SyntheticSet
from dd_bench.synthetic.card import CARD, PREVIEW, PROVENANCE, README, TENSORS, TRANSFORM, Card, read_card
from dd_bench.synthetic.compensated import CompensatedSet
from dd_bench.synthetic.graphs import GraphSet, TreeSet
from dd_bench.synthetic.images import ImageSet
from dd_bench.synthetic.preview import preview_png

KINDS: dict[str, type[SyntheticSet]] = {
    kind.kind: kind for kind in (ImageSet, CompensatedSet, GraphSet, TreeSet)
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
) -> Path:
    """Write the artifact, whole or not at all, and returns its folder.

    Raises:
        FileExistsError: the folder exists.
        OSError: it could not be written; nothing is left behind.
    """
    files = {TENSORS: to_safetensors(syn.tensors()), PREVIEW: preview_png(syn)}
    if syn.preprocess.tensors():
        files[TRANSFORM] = to_safetensors(syn.preprocess.tensors())
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
        config=config,
        licence=real.licence,
        citations=citations,
        sha256={},
    )
    files[README] = _readme(card, syn).encode()
    card = card.model_copy(update={"sha256": {name: _sha256(data) for name, data in sorted(files.items())}})
    files[CARD] = (canonical(card.model_dump(mode="json"), indent=2) + "\n").encode()
    files[PROVENANCE] = (canonical(provenance, indent=2) + "\n").encode()

    def fill(scratch: Path) -> None:
        for name, data in files.items():
            write_atomic(scratch / name, data)

    return publish(folder, fill)


def load(folder: Path) -> tuple[SyntheticSet, Card]:
    """Load a set from a folder that may come from a stranger; runs no code of it.

    Raises:
        ValueError: a file is missing or its hash differs; a tensor has a wrong shape, dtype or range; the classes
            or the preprocessing do not fit the card.
    """
    card = read_card(folder)
    if TENSORS not in card.sha256:
        raise ValueError(f"{folder / CARD} names no {TENSORS}")
    files = {name: _verified(folder, name, wanted) for name, wanted in card.sha256.items()}
    try:
        tensors = from_safetensors(files[TENSORS])
        transform = preprocess.restore(
            card.preprocess, from_safetensors(files[TRANSFORM]) if TRANSFORM in files else {}
        )
        if transform.digest != card.preprocess_digest:
            raise ValueError(
                f"preprocessing {transform.digest[:12]} is not the card's {card.preprocess_digest[:12]}"
            )
        if card.kind not in KINDS:
            raise ValueError(f"kind {card.kind!r} is unknown; this version reads {sorted(KINDS)}")
        syn = KINDS[card.kind].restore(card.set, tensors, tuple(card.class_names), transform)
        syn.check_ipc(card.ipc)
        if syn.stored_bytes() != card.stored_bytes:
            raise ValueError(f"it stores {syn.stored_bytes()} bytes, the card says {card.stored_bytes}")
    except KeyError as error:
        raise ValueError(f"{folder} is damaged: {error} is missing in its card or tensors") from error
    except (
        SafetensorError,
        ValueError,
        TypeError,
        RuntimeError,
    ) as error:  # the last by labels of rare types
        raise ValueError(f"{folder} is damaged: {error}") from error
    return syn, card


def digest(folder: Path) -> str:
    """Return the set's digest: the sha256 of its card, which holds the hashes of all else."""
    return _sha256((folder / CARD).read_bytes())


def fits(card: Card, real: RealSet) -> str | None:
    """Return why the set cannot be scored on `real`, or None if it can."""
    if card.dataset_digest != real.digest:
        return (
            f"the set was distilled from {card.dataset!r} ({card.dataset_digest[:12]}), "
            f"this is {real.name!r} ({real.digest[:12]})"
        )
    if tuple(card.class_names) != real.class_names:
        return f"class order differs: the set has {card.class_names}, the dataset {list(real.class_names)}"
    if card.preprocess_digest != real.preprocess.digest:
        return (
            f"the set lives under preprocessing {card.preprocess}, the dataset is loaded with "
            f"{real.preprocess.config()}. Load it the same way, e.g. "
            f"dataset.preprocess={card.preprocess.get('kind', 'normalise')}"
        )
    has, wanted = card.set.get("image_shape", card.set.get("shape")), json.loads(json.dumps(real.shape))
    if has != wanted:
        return f"the set holds {real.modality}s {has}, the dataset {wanted}"
    return None


def _verified(folder: Path, name: str, wanted: str) -> bytes:
    path = folder / name
    if not path.is_file():
        raise ValueError(f"{folder} is incomplete: {name!r} is missing")
    data = path.read_bytes()
    if _sha256(data) != wanted:
        raise ValueError(
            f"{path} was changed or cut: sha256 {_sha256(data)[:12]}, the card says {wanted[:12]}"
        )
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _readme(card: Card, syn: SyntheticSet) -> str:
    total = sum(card.stored_bytes.values())
    parts = ", ".join(f"{name} {size:,}" for name, size in card.stored_bytes.items())
    citations = "\n".join(f"- {c}" for c in card.citations)
    licence = (
        re.sub(r"[^a-z0-9.]+", "-", card.licence.lower()).strip("-.") or "see-the-text"
    )  # as the hub has names
    return f"""---
license: other
license_name: {licence}
task_categories: [{syn.task}]
tags: [dataset-distillation, dd-bench, {_tag(card.method)}, {_tag(card.dataset)}, ipc-{card.ipc}]
---

# {card.method} on {card.dataset}, {card.ipc} {syn.modality}(s) per class

A synthetic training set for {len(card.class_names)} classes, made by dd_bench {card.dd_bench}
with seed {card.seed}. Stored bytes: {total:,} ({parts}).

![the {syn.modality}s, one row a class](preview.png)

Score it with fresh networks:

    dd-bench evaluate set=THIS_FOLDER {_dataset(card)} protocol={syn.protocol}

Read it without dd_bench:

    from safetensors.torch import load_file
    tensors = load_file("synthetic.safetensors")   # {syn.main_tensors}

{syn.explained()}
Check every file against `card.json`: `dd-bench verify THIS_FOLDER`.

Licence of the {syn.modality}s: {card.licence}.

{citations}
"""


def _tag(text: str) -> str:
    """Return a word as YAML has it, in quotes where it could be taken for something else."""
    return text if re.fullmatch(r"[A-Za-z][A-Za-z0-9_.+-]*", text) else json.dumps(text)


def _dataset(card: Card) -> str:
    """Return the words that name the dataset on the command line; some YAMLs serve many, by name."""
    how = card.config.get("dataset", {})
    if how.get("name") != card.dataset:
        return f"dataset={card.dataset}"
    return f"dataset={how.get('_choice_')} dataset.name={card.dataset}"
