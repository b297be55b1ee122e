"""`card.json`: the description of a synthetic set and the sha256 of its other files except `provenance.json`.

This module does not import torch. A card may come from an untrusted source. The schema has an exact set of keys, exact
types and limited texts and numbers. `size_limit` gives the maximum size of the other files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
)

from dd_bench import __version__
from dd_bench.records.environment import Environment
from dd_bench.records.record import Code, Count, Seconds, TeacherId, Word
from dd_bench.runtime import untrusted

SCHEMA_VERSION = 2
CARD, PROVENANCE = "card.json", "provenance.json"
TENSORS, TRANSFORM = "synthetic.safetensors", "preprocess.safetensors"
PREVIEW, README = "preview.png", "README.md"
FILES = (TENSORS, TRANSFORM, README, PREVIEW)
"""Files that a card can list under `sha256`."""
MAX_HEADER = 64 << 10
"""Maximum size in bytes of the header of a safetensors file, which lists its tensors."""
MAX_TEXT, MAX_PREVIEW = 1 << 20, 64 << 20
"""Maximum sizes in bytes of `README.md` and `provenance.json`, and of `preview.png`."""
FITTED = "preprocess."
"""Prefix in `stored_bytes` of the tensors of the preprocessing, which are in `preprocess.safetensors`."""
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
    class_names: Annotated[list[Word], FailFast()]
    ipc: Annotated[int, Field(ge=1, lt=2**31)]
    seed: Annotated[int, Field(gt=-(2**63), lt=2**64)]
    set: dict[str, Any]
    preprocess: dict[str, Any]
    preprocess_digest: Word
    stored_bytes: Annotated[dict[Word, Count], Field(max_length=20)]
    config: dict[str, Any]
    dd_bench: Word = __version__
    licence: Text
    citations: Annotated[list[Text], Field(max_length=100)]
    sha256: Annotated[dict[str, Word], Field(max_length=20)]

    @field_validator("sha256")
    @classmethod
    def _in_the_folder(cls, files: dict[str, str]) -> dict[str, str]:
        if others := [name for name in files if name not in FILES]:
            raise ValueError(
                f"sha256 must list only files in the folder, {', '.join(FILES)}, got {others[0]!r}"
            )
        return files

    @field_validator("config")
    @classmethod
    def _groups_are_mappings(cls, config: dict[str, Any]) -> dict[str, Any]:
        for group in ("dataset", "method", "model"):
            if not isinstance(config.get(group, {}), dict):
                raise ValueError(f"{group} must be a mapping, got {config[group]!r}")
        return config

    def tensor_bytes(self, name: str) -> dict[str, int]:
        """Return the stated bytes of the tensors in the file `name`, TENSORS or TRANSFORM, by tensor."""
        fitted = {k.removeprefix(FITTED): v for k, v in self.stored_bytes.items() if k.startswith(FITTED)}
        own = {k: v for k, v in self.stored_bytes.items() if not k.startswith(FITTED)}
        return fitted if name == TRANSFORM else own

    def size_limit(self, name: str) -> int:
        """Return the maximum size in bytes of a file of the set. Files of tensors have the bytes stated in the card."""
        if name in (TENSORS, TRANSFORM):
            return 8 + MAX_HEADER + sum(self.tensor_bytes(name).values())
        return MAX_PREVIEW if name == PREVIEW else MAX_TEXT


class Provenance(BaseModel):
    """Schema of `provenance.json`; every field is optional."""

    model_config = ConfigDict(extra="forbid")

    seconds: dict[str, Seconds] = {}
    peak_memory: dict[str, Count] = {}
    notes: list[str] = []
    device: str = ""
    environment: Environment | None = None
    versions: dict[str, str] = {}
    code: Code | None = None
    teachers: list[TeacherId] = []


def read_card(folder: Path) -> Card:
    """Read and check `card.json`.

    Raises:
        ValueError: the card is missing or not valid, see `parse_card`.
    """
    path = folder / CARD
    try:
        content = untrusted.read_bytes(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ValueError(f"{folder} is not a synthetic set: it has no {CARD}") from error
    return parse_card(content, str(path))


def parse_card(content: bytes, where: str) -> Card:
    """Parse and check the bytes of a card. Error messages contain `where`, its path or URL.

    Raises:
        ValueError: the card is not JSON, has another schema version, or does not match the schema.
    """
    try:
        data = untrusted.parse_json(content)
        if data.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(f"schema_version must be {SCHEMA_VERSION}, got {data.get('schema_version')!r}")
        if wrong := sorted(data.keys() ^ Card.model_fields.keys()):
            raise ValueError(f"{wrong[0][:100]!r} is {'unknown' if wrong[0] in data else 'missing'}")
        return Card.model_validate(data, strict=True)
    except ValidationError as error:
        raise ValueError(f"{where} is not a valid card: {untrusted.problems(error)}") from error
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{where} is not a valid card: {untrusted.shorten(error)}") from error


def find_damaged_file(folder: Path, card: Card) -> tuple[Path, str] | None:
    """Return the first missing or modified file of a set and its expected sha256, or None if there is no such file.

    Raises:
        ValueError: a file is not a regular file, or is larger than the card allows.
    """
    for name, expected in card.sha256.items():
        try:
            if untrusted.sha256(folder / name, card.size_limit(name)) == expected:
                continue
        except FileNotFoundError:
            pass
        return folder / name, expected
    return None


def read_provenance(folder: Path) -> dict[str, Any]:
    """Return the fields in `provenance.json`; an empty dictionary if the file is missing or not valid."""
    try:
        content = untrusted.read_bytes(folder / PROVENANCE, MAX_TEXT)
        return parse_provenance(content).model_dump(exclude_unset=True)
    except (OSError, ValueError):
        return {}


def parse_provenance(content: bytes) -> Provenance:
    """Parse and check the bytes of `provenance.json`.

    Raises:
        ValueError: the content is not JSON, or does not match the schema.
    """
    return Provenance.model_validate(untrusted.parse_json(content), strict=True)


def has_provenance(folder: Path) -> bool:
    """Return whether a set has a valid `provenance.json` that can be copied with it.

    A symbolic link is not valid: it could point to any file of the user, and the card has no hash to check it.
    """
    return read_provenance(folder) != {}
