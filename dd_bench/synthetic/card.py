"""`card.json`: what a synthetic set is, how it was made, and the sha256 of every other file. Without torch.

A card may be a stranger's: what is read here is of the right kind, of a size that can be shown, and can be written.
"""

from __future__ import annotations

import re
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
"""Names the sets in a folder of a web server, many of which list nothing: `{"sets": [...]}`."""
NAME = r"[A-Za-z0-9_][A-Za-z0-9._+=-]{0,199}"
"""Names of folders and files that stand in a URL and in a command as they are."""

Text = Annotated[str, StringConstraints(max_length=10_000)]


class Card(BaseModel):
    """`card.json`."""

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
            raise ValueError(f"it names a file outside its folder: {outside[0]!r}")
        return files


class Provenance(BaseModel):
    """`provenance.json`; every field may be absent."""

    seconds: dict[str, Seconds] = {}
    peak_memory: dict[str, Count] = {}
    notes: list[str] = []
    device: str = ""
    versions: dict[str, str] = {}
    code: Code | None = None
    teachers: list[TeacherId] = []


def read_card(folder: Path) -> Card:
    """Read and checks `card.json`.

    Raises:
        ValueError: missing, or refused by `parse_card`.
    """
    path = folder / CARD
    if not path.is_file():
        raise ValueError(f"{folder} is no synthetic set: it has no {CARD}")
    return parse_card(path.read_bytes(), str(path))


def parse_card(content: bytes, where: str) -> Card:
    """Read and checks the bytes of a card; `where` names them in messages.

    Raises:
        ValueError: not JSON, of another schema version, or not valid.
    """
    try:
        data = parse_json(content)
        if data.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(
                f"schema_version={data.get('schema_version')!r}, this version reads {SCHEMA_VERSION}"
            )
        return Card.model_validate(data)
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{where} is not a valid card: {told}") from error
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{where} is not a valid card: {error}") from error


def damaged(folder: Path, card: Card) -> tuple[Path, str] | None:
    """Return the first file of a set that is missing or is not what its card says, with the sha256 that was wanted."""
    for name, wanted in card.sha256.items():
        if file_sha256(folder / name) != wanted:
            return folder / name, wanted
    return None


def read_provenance(folder: Path) -> dict[str, Any]:
    """Return the fields of `Provenance` that a set gives; none where the file is absent or says something else."""
    try:
        return Provenance.model_validate_json((folder / PROVENANCE).read_bytes()).model_dump(
            exclude_unset=True
        )
    except (OSError, ValidationError):
        return {}


def tells_its_making(folder: Path) -> bool:
    """Whether the provenance of a set can go elsewhere with it.

    No hash covers this file: a link, which may lead anywhere on this machine, is not followed.
    """
    return not (folder / PROVENANCE).is_symlink() and read_provenance(folder) != {}
