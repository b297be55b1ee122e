"""Image files in class folders: found in a fixed order, decoded by threads, at once or when asked for."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset
from torchvision.transforms import functional as transforms

from dd_bench.data.dataset import Split
from dd_bench.data.preprocess import Preprocess


@dataclass(frozen=True)
class Decoder:
    """Reads an image file into uint8 `(3, size, size)`; grey becomes RGB, EXIF rotation is ignored.

    `squash` resizes both sides, whatever the aspect ratio (the 128-pixel ImageNet subsets of MTT); `crop`
    resizes the shorter side and cuts out the centre. Both interpolate bilinearly with antialiasing, on bytes.
    """

    size: int
    resize: str

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"dataset.size={self.size} is not a number of pixels")
        if self.resize not in ("squash", "crop"):
            raise ValueError(
                f"unknown dataset.resize={self.resize}. Use dataset.resize=squash or dataset.resize=crop"
            )

    def __call__(self, path: Path) -> Tensor:
        """Reads one image.

        Raises:
            ValueError: the file is no image, or a damaged one.
        """
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(
                f"cannot read the image {path}: {error}. Fetch it again, or remove it"
            ) from error
        if self.resize == "squash":
            image = transforms.resize(image, [self.size, self.size])
        else:
            image = transforms.center_crop(transforms.resize(image, [self.size]), [self.size, self.size])
        pixels: Tensor = transforms.pil_to_tensor(image)
        return pixels


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="decode")  # Pillow decodes without the interpreter lock


def decode_all(paths: Sequence[Path], decoder: Decoder) -> Tensor:
    """Returns all images, uint8 `(n, 3, size, size)` on the CPU."""
    pixels = torch.empty(len(paths), 3, decoder.size, decoder.size, dtype=torch.uint8)
    for i, image in enumerate(_pool().map(decoder, paths)):
        pixels[i] = image
    return pixels


class FolderSplit(Split):
    """A split that stays on disk. Its numbers are those of a `TensorSplit` of the same files."""

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Tensor,
        num_classes: int,
        preprocess: Preprocess,
        decoder: Decoder,
    ):
        """Takes the files and their `labels` int64 `(n,)`; images go to the device of `labels`."""
        self.paths, self.labels, self.num_classes = list(paths), labels, num_classes
        self.shape = (3, decoder.size, decoder.size)
        self._preprocess, self._decoder = preprocess, decoder

    def _start(self, index: Tensor) -> list[Future[Tensor]]:
        return [_pool().submit(self._decoder, self.paths[i]) for i in index.tolist()]

    def _finish(self, started: list[Future[Tensor]]) -> Tensor:
        return torch.stack([image.result() for image in started]).to(self.labels.device)

    def pixels(self, index: Tensor) -> Tensor:
        """See `Split`."""
        return self._finish(self._start(index))

    def inputs(self, index: Tensor) -> Tensor:
        """See `Split`."""
        return self._preprocess(self.pixels(index).float() / 255)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split`; the next batch is decoded while the caller works on this one, so two are in memory."""
        ahead: deque[tuple[Tensor, list[Future[Tensor]]]] = deque()
        for index in torch.split(torch.arange(len(self)), size):
            ahead.append((index, self._start(index)))
            if len(ahead) == 2:
                yield self._batch(*ahead.popleft())
        yield self._batch(*ahead.popleft())

    def _batch(self, index: Tensor, started: list[Future[Tensor]]) -> tuple[Tensor, Tensor]:
        return self._preprocess(self._finish(started).float() / 255), self.labels[
            index.to(self.labels.device)
        ]

    def to(self, device: torch.device) -> FolderSplit:
        """See `Split`."""
        return FolderSplit(
            self.paths, self.labels.to(device), self.num_classes, self._preprocess, self._decoder
        )

    def subset(self, index: Tensor) -> FolderSplit:
        """See `Split`."""
        paths = [self.paths[i] for i in index.tolist()]
        return FolderSplit(paths, self.labels[index], self.num_classes, self._preprocess, self._decoder)


def find_images(folder: Path, label_of: Mapping[str, int]) -> tuple[list[Path], Tensor]:
    """Lists the image files below the class folders `label_of`: paths by label, then by path; labels `(n,)`.

    Raises:
        FileNotFoundError: a class folder is missing or holds no image.
    """
    empty = [c for c in label_of if not (folder / c).is_dir()]
    if empty:
        raise FileNotFoundError(f"no class folder {folder / empty[0]}, nor {len(empty) - 1} others")
    try:
        found = make_dataset(folder, dict(label_of), extensions=IMG_EXTENSIONS)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{folder}: {error}") from error
    found.sort(key=lambda item: (item[1], item[0]))
    return [Path(path) for path, _ in found], torch.tensor([label for _, label in found])


def digest_lines(facts: Iterable[object]) -> str:
    """Returns the sha256 of the facts, one a line. A dataset says which facts make it what it is."""
    digest = hashlib.sha256()
    for fact in facts:
        digest.update(f"{fact}\n".encode(errors="surrogateescape"))  # file names may be any bytes
    return digest.hexdigest()
