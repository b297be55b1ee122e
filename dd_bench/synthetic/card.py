"""`card.json`: the description of a synthetic set and the sha256 of its other files except `provenance.json`.

This module does not import torch. A card may come from an untrusted source. The schema checks types and limits text
lengths and number ranges.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from dd_bench import __version__
from dd_bench.records.record import Code, Count, Seconds, TeacherId, Word
from dd_bench.runtime.files import file_sha256, parse_json

SCHEMA_VERSION = 2
CARD, PROVENANCE = "card.json", "provenance.json"
TENSORS, TRANSFORM = "synthetic.safetensors", "preprocess.safetensors"
PREVIEW, README = "preview.png", "README.md"
INDEX = "index.json"
"""File on a web server that lists the sets in a folder, as `{"sets": [...]}`. Many servers cannot list folders."""
NAME = r"[A-Za-z0-9_][A-Za-z0-9._+=-]{0,199}"
"""Regular expression of folder and file names that need no escaping in a URL or in a shell command."""

Text = Annotated[str, StringConstraints(max_length=10_000)]


class Card(BaseModel):
    """Schema of `card.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = SCHEMA_VERSION
    kind: Word
    method: Word
    dataset: Word
    dataset_digest: Word
    class_names: list[Word]
    ipc: Annotated[int, Field(ge=1, lt=2**31)]
    seed: Annotated[int, Field(gt=-(2**63), lt=2**64)]
    set: dict[str, Any]
    preprocess: dict[str, Any]
    preprocess_digest: Word
    stored_bytes: dict[Word, Count]
    config: dict[str, Any]
    dd_bench: Word = __version__
    licence: Text
    citations: list[Text]
    sha256: dict[str, Word]

    @field_validator("sha256")
    @classmethod
    def _in_the_folder(cls, files: dict[str, str]) -> dict[str, str]:
        if outside := [name for name in files if not re.fullmatch(NAME, name)]:
            raise ValueError(f"sha256 must list only files in the folder, got {outside[0]!r}")
        return files


class Provenance(BaseModel):
    """Schema of `provenance.json`; every field is optional."""

    seconds: dict[str, Seconds] = {}
    peak_memory: dict[str, Count] = {}
    notes: list[str] = []
    device: str = ""
    versions: dict[str, str] = {}
    code: Code | None = None
    teachers: list[TeacherId] = []


def read_card(folder: Path) -> Card:
    """Read and check `card.json`.

    Raises:
        ValueError: the card is missing or not valid, see `parse_card`.
    """
    path = folder / CARD
    if not path.is_file():
        raise ValueError(f"{folder} is not a synthetic set: it has no {CARD}")
    return parse_card(path.read_bytes(), str(path))


def parse_card(content: bytes, where: str) -> Card:
    """Parse and check the bytes of a card. Error messages contain `where`, its path or URL.

    Raises:
        ValueError: the card is not JSON, has another schema version, or does not match the schema.
    """
    try:
        data = parse_json(content)
        if data.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"schema_version must be {SCHEMA_VERSION}, got {data.get('schema_version')!r}")
        return Card.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{where} is not a valid card: {problems}") from error
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{where} is not a valid card: {error}") from error


def check_decoding(decoding: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Check that the configuration in a card states how a set decodes its stored samples.

    Without it, a set could multiply its training samples although its method does not.

    Args:
        decoding: `SyntheticSet.decoding()`, e.g. `{"factor": 2, "canvas": 1}`.
        config: the configuration in the card. The values are in `method`, or in `released` for imported sets.

    Raises:
        ValueError: a value is not 1, and not that in the configuration.
    """
    part = "method" if "method" in config else "released"
    stated = config.get(part)
    for name, value in decoding.items():
        expected = stated.get(name, 1) if isinstance(stated, Mapping) else 1
        if value != 1 and (value != expected or type(value) is not int or type(expected) is not int):
            raise ValueError(
                f"{name} must be {expected!r} as in {part}.{name} of the configuration in its card, got {value!r}"
            )


def find_damaged_file(folder: Path, card: Card) -> tuple[Path, str] | None:
    """Return the first missing or modified file of a set and its expected sha256, or None if there is no such file."""
    for name, expected in card.sha256.items():
        if file_sha256(folder / name) != expected:
            return folder / name, expected
    return None


def read_provenance(folder: Path) -> dict[str, Any]:
    """Return the fields in `provenance.json`; an empty dictionary if the file is missing or not valid."""
    try:
        return Provenance.model_validate_json((folder / PROVENANCE).read_bytes()).model_dump(
            exclude_unset=True
        )
    except (OSError, ValidationError):
        return {}


def has_provenance(folder: Path) -> bool:
    """Return whether a set has a valid `provenance.json` that can be copied with it.

    A symbolic link is rejected, because it could point to any file of the user, and the card has no hash to check it.
    """
    return not (folder / PROVENANCE).is_symlink() and read_provenance(folder) != {}
