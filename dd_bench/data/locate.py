"""Locate and verify the files of a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path

from dd_bench.runtime.files import expand_home


def base_folder(root: str | None) -> Path:
    """Return `root` as a path with `~` expanded, or `data` if it is None.

    Raises:
        FileNotFoundError: the home folder of the user is not known.
    """
    return expand_home("data" if root is None else root, "dataset.root=FOLDER with an absolute path")


def not_found(name: str, what: str, folders: Sequence[Path], fixes: Sequence[str]) -> FileNotFoundError:
    """Return an error that names the missing files, the folders searched, and the possible fixes."""
    searched = "".join(f"\n  {folder}" for folder in folders)
    lines = "".join(f"\n  {fix}" for fix in fixes)
    return FileNotFoundError(f"{name}: no {what} in{searched}\nTry one of{lines}")


@contextmanager
def downloading(name: str, url: str, folder: Path, instead: str) -> Iterator[None]:
    """If the download in the context fails, raise an error that names the folder to put the files into by hand.

    Args:
        name: name of the dataset.
        url: source of the files.
        folder: where the downloaded files are stored.
        instead: description of the folder to give as `dataset.root`.

    Raises:
        FileNotFoundError: the download failed.
    """
    try:
        yield
    except (
        OSError,
        RuntimeError,
        HTTPException,
    ) as error:  # torchvision and torch_geometric raise all of these
        raise FileNotFoundError(
            f"{name}: the download failed ({str(error).strip() or type(error).__name__}).\n"
            f"On a computer with internet access, download {url}\n"
            f"and put the unpacked files into\n  {folder}\n"
            f"or use a copy: dataset.root=FOLDER, {instead}"
        ) from error


def verify_files(name: str, folder: Path, files: Sequence[tuple[str, str]], fixes: Sequence[str]) -> None:
    """Check that `folder` contains all `files`, a list of pairs (file name, md5), and that every md5 matches.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the md5 of a file differs.
    """
    from torchvision.datasets.utils import check_integrity  # the import takes seconds

    for file, md5 in files:
        if not (folder / file).is_file():
            raise not_found(name, file, [folder], fixes)
        if not check_integrity(str(folder / file), md5):
            raise ValueError(
                f"{folder / file} is damaged or is not a file of {name}: its md5 is not {md5}. "
                "Delete it and use dataset.download=true"
            )
