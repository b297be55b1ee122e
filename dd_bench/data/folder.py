"""Image files in class folders, listed in a fixed order and decoded by threads, all at once or on demand."""

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
    """Read an image file into uint8 `(3, size, size)`. Greyscale is converted to RGB; EXIF rotation is ignored.

    `squash` resizes both sides and ignores the aspect ratio, as MTT does for its 128-pixel ImageNet subsets. `crop`
    resizes the shorter side and takes the centre crop. Both interpolate the uint8 pixels bilinearly with antialiasing.
    """

    size: int
    resize: str

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(
                f"dataset.size must be an integer >= 1, got {self.size}. Example: dataset.size=64"
            )
        if self.resize not in ("squash", "crop"):
            raise ValueError(
                f"dataset.resize must be squash or crop, got {self.resize}. Example: dataset.resize=crop"
            )

    def __call__(self, path: Path) -> Tensor:
        """Read one image.

        Raises:
            ValueError: the file is not an image, or is damaged.
        """
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(
                f"cannot read the image {path}: {error}. Download it again or delete it"
            ) from error
        if self.resize == "squash":
            image = transforms.resize(image, [self.size, self.size])
        else:
            image = transforms.center_crop(transforms.resize(image, [self.size]), [self.size, self.size])
        pixels: Tensor = transforms.pil_to_tensor(image)
        return pixels


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="decode")  # Pillow releases the GIL while it decodes


def decode_all(paths: Sequence[Path], decoder: Decoder) -> Tensor:
    """Return all images, uint8 `(n, 3, size, size)` on the CPU."""
    pixels = torch.empty(len(paths), 3, decoder.size, decoder.size, dtype=torch.uint8)
    for i, image in enumerate(_pool().map(decoder, paths)):
        pixels[i] = image
    return pixels


class FolderSplit(Split):
    """A split that reads its images from disk. Its outputs equal those of a `TensorSplit` of the same files."""

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Tensor,
        num_classes: int,
        preprocess: Preprocess,
        decoder: Decoder,
    ):
        """Create a split from image files and `labels`, int64 `(n,)`. Images are moved to the device of `labels`."""
        self.paths, self.labels, self.num_classes = list(paths), labels, num_classes
        self.shape = (3, decoder.size, decoder.size)
        self._preprocess, self._decoder = preprocess, decoder

    def _submit(self, index: Tensor) -> list[Future[Tensor]]:
        return [_pool().submit(self._decoder, self.paths[i]) for i in index.tolist()]

    def _stack(self, images: list[Future[Tensor]]) -> Tensor:
        return torch.stack([image.result() for image in images]).to(self.labels.device)

    def pixels(self, index: Tensor) -> Tensor:
        """See `Split`."""
        return self._stack(self._submit(index))

    def inputs(self, index: Tensor) -> Tensor:
        """See `Split`."""
        return self._preprocess(self.pixels(index).float() / 255)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See `Split`. The next batch is decoded while the caller uses the current one, so memory holds two batches."""
        queue: deque[tuple[Tensor, list[Future[Tensor]]]] = deque()
        for index in torch.split(torch.arange(len(self)), size):
            queue.append((index, self._submit(index)))
            if len(queue) == 2:
                yield self._batch(*queue.popleft())
        yield self._batch(*queue.popleft())

    def _batch(self, index: Tensor, images: list[Future[Tensor]]) -> tuple[Tensor, Tensor]:
        labels = self.labels[index.to(self.labels.device)]
        return self._preprocess(self._stack(images).float() / 255), labels

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
    """List the image files in the class folders of `folder`.

    Args:
        folder: parent of the class folders.
        label_of: maps the name of a class folder to its label.

    Returns:
        Paths, sorted by label and then by path, and labels `(n,)`.

    Raises:
        FileNotFoundError: a class folder is missing or contains no image.
    """
    missing = [c for c in label_of if not (folder / c).is_dir()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} class folder(s) not found. The first is {folder / missing[0]}. "
            "Set dataset.root to the folder of a complete copy of the dataset: dataset.root=FOLDER"
        )
    try:
        files = make_dataset(folder, dict(label_of), extensions=IMG_EXTENSIONS)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{folder}: {error}") from error
    files.sort(key=lambda item: (item[1], item[0]))
    return [Path(path) for path, _ in files], torch.tensor([label for _, label in files])


def digest_lines(items: Iterable[object]) -> str:
    """Return the sha256 of the items that identify a dataset, written one per line."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item}\n".encode(errors="surrogateescape"))  # file names need not be valid UTF-8
    return digest.hexdigest()
