"""Where the files of a dataset are, and what to say when they are not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torchvision.datasets.utils import check_integrity


def base_folder(root: str | None) -> Path:
    """Returns the folder `dataset.root`: relative to the current one, `~` expanded, null is `data`."""
    return Path("data" if root is None else root).expanduser()


def not_found(name: str, what: str, folders: Sequence[Path], fixes: Sequence[str]) -> FileNotFoundError:
    """Returns the error that says what was looked for, where, and which lines to paste."""
    places = "".join(f"\n  {folder}" for folder in folders)
    lines = "".join(f"\n  {fix}" for fix in fixes)
    return FileNotFoundError(f"{name}: no {what} in{places}\nTry one of{lines}")


def verify_files(name: str, folder: Path, files: Sequence[tuple[str, str]], fixes: Sequence[str]) -> None:
    """Checks that every `(file name, md5)` lies in `folder` and is what its publisher released.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file has another md5.
    """
    for file, md5 in files:
        if not (folder / file).is_file():
            raise not_found(name, file, [folder], fixes)
        if not check_integrity(str(folder / file), md5):
            raise ValueError(
                f"{folder / file} is damaged or not of {name}: its md5 is not {md5}. "
                "Delete it and run with dataset.download=true"
            )
