"""Folders of image files: labels, sizes, transparency, hidden files, links, and sets that were exported."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from dd_bench.hub.importers.class_order import class_order
from dd_bench.hub.importers.image_folder import read_folder
from dd_bench.hub.png_folder import png_folder
from dd_bench.synthetic.images import ImageSet

LABEL_OF = {"ape": 0, "bee": 1, "cod": 2}


def fill(root, names=LABEL_OF, side=8, mode="L", count=2):
    draw = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(count):
            shape = (side, side) if mode == "L" else (side, side, 3)
            Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


def read(folder, real, ipc=2, background=None, label_of=LABEL_OF):
    return read_folder(folder, label_of, real, ipc, background)


def test_images_and_labels(blobs, tmp_path):
    root = fill(tmp_path / "s", ["cod", "ape", "bee"])
    images, labels, files = read(root, blobs)
    assert labels.tolist() == [0, 0, 1, 1, 2, 2] and images.dtype == torch.uint8
    assert np.array_equal(images[2, 0].numpy(), np.asarray(Image.open(root / "bee" / "0.png")))
    assert files == sorted(root.rglob("*.png"))


def test_wrong_sizes_and_colours_are_rejected(blobs, tmp_path):
    with pytest.raises(ValueError, match="must have 8x8 pixels, got 9x9"):
        read(fill(tmp_path / "b", side=9), blobs)
    with pytest.raises(ValueError, match="got colour images"):
        read(fill(tmp_path / "c", mode="RGB"), blobs)


def test_images_are_resized_only_on_request(blobs, tmp_path):
    root = fill(tmp_path / "b", side=12)
    (root / "ape" / "0.png").unlink()
    Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12)).save(
        root / "ape" / "0.png"
    )  # 12 wide, 8 high
    with pytest.raises(ValueError, match=r"must have 8x8 pixels, got 12x8\. .* or --resize to resize"):
        read(root, blobs)
    cropped = read_folder(root, LABEL_OF, blobs, 2, resize="crop").images
    assert cropped.shape == (6, 1, 8, 8)
    assert torch.equal(cropped[0, 0], torch.arange(96, dtype=torch.uint8).view(8, 12)[:, 2:10])
    assert not torch.equal(read_folder(root, LABEL_OF, blobs, 2, resize="squash").images[0], cropped[0])


def test_number_of_images_is_checked_before_they_are_decoded(blobs, tmp_path):
    root = fill(tmp_path / "s", count=3)
    (root / "ape" / "0.png").write_text("no image")
    with pytest.raises(
        ValueError, match=r"with --ipc 2, .* must contain at most 6 images, got 9\. Use --ipc 3"
    ):
        read(root, blobs)


def test_transparent_pixels(blobs, tmp_path):
    """The error advised dataset.background, which the import does not take."""
    root = fill(tmp_path / "s")
    Image.new("LA", (8, 8), (0, 0)).save(root / "bee" / "0.png")
    with pytest.raises(
        ValueError, match=r"bee/0\.png has transparent pixels\..* Example: --background white"
    ):
        read(root, blobs)
    assert read(root, blobs, background="white").images[2].unique().tolist() == [255]
    with pytest.raises(
        ValueError, match=r"^--background must be a colour, got 'wite'\. Example: --background white"
    ):
        read(root, blobs, background="wite")


def test_hidden_files_are_not_read(blobs, tmp_path):
    root = fill(tmp_path / "s")
    for name in (
        ".DS_Store",
        "ape/.DS_Store",
        "ape/._0.png",
        "ape/Thumbs.db",
        "__MACOSX/x.png",
        "README.txt",
    ):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("")
    assert read(root, blobs).files == [root / c / f"{i}.png" for c in LABEL_OF for i in range(2)]


@pytest.mark.parametrize("name", ["ape/0.png", "ape", "labels.csv"])
def test_links_are_rejected(blobs, tmp_path, name):
    root = fill(tmp_path / "s")
    if name == "labels.csv":
        (root / name).write_text("file,ape,bee,cod\n")
    (root / name).rename(tmp_path / "private")
    (root / name).symlink_to(tmp_path / "private")
    with pytest.raises(ValueError, match=rf"{name} must be a .*, got a symbolic link.*cp -rL"):
        read(root, blobs)


class TestExported:
    """Sets that `dd-bench export` wrote."""

    @pytest.fixture
    def soft(self, real_set):
        """Real images with soft labels, of classes in any order, one of which is never the most probable."""
        real = real_set(names=("=cod", "file", "猫"))
        images = real.train.pixels(torch.tensor([3, 90, 1, 50])).byte()
        labels = torch.tensor([[0.2, 0.7, 0.1], [0.6, 0.3, 0.1], [0.1, 0.9, 0.0], [1 / 3, 2 / 3, 0]])
        return real, ImageSet.of(real, images, labels, "pixel")

    def back(self, real, folder, ipc=2):
        names = [path.name for path in folder.iterdir() if path.is_dir()]
        return read(folder, real, ipc, label_of=class_order(names, real.class_names).label_of)

    def test_soft_labels(self, soft, tmp_path):
        real, syn = soft
        images, labels, files = self.back(real, png_folder(syn, tmp_path / "s").path)
        assert torch.equal(labels, syn.labels) and torch.equal(images, syn.images) and len(files) == 5

    def test_hard_labels(self, real_set, tmp_path):
        """Class names without Latin letters and digits are known too."""
        real = real_set(names=("猫", "犬", "!"))
        syn = ImageSet.coreset(real, torch.cat([real.train.of_class(c)[:2] for c in range(3)]))
        images, labels, _ = self.back(real, png_folder(syn, tmp_path / "s").path)
        assert torch.equal(labels, syn.labels) and torch.equal(images, syn.images)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("file,", "name,", r"the first line of .*labels\.csv must be file,'=cod,file,猫, got name,"),
            ("file,猫", "file", "the first line of"),
            ("0.png,", "9.png,", r"labels\.csv, line 2: must contain an image file"),
            ("1.png,", "1.png,0,", "line 3: must contain an image file"),
            ("1.png,", "1.png,x", "line 3: could not convert string"),
            ("\n1_file/2", "\n1_file/0", "line 4: must contain an image file"),
            (
                "0.69999998807907",
                "0.0000001",
                r"0\.png is in the folder of class file, but its most probable class",
            ),
        ],
    )
    def test_labels_that_do_not_match_are_rejected(self, soft, tmp_path, old, new, message):
        real, syn = soft
        file = png_folder(syn, tmp_path / "s").path / "labels.csv"
        assert old in file.read_bytes().decode().replace("\r\n", "\n")
        file.write_text(file.read_bytes().decode().replace("\r\n", "\n").replace(old, new, 1))
        with pytest.raises(ValueError, match=message):
            self.back(real, tmp_path / "s")
        lines = file.read_text().splitlines()
        file.write_text("\n".join(lines[:2]))
        with pytest.raises(ValueError):
            self.back(real, tmp_path / "s")

    def test_order_of_columns(self, soft, tmp_path):
        real, syn = soft
        file = png_folder(syn, tmp_path / "s").path / "labels.csv"
        with file.open(newline="") as source:
            rows = list(csv.reader(source))
        with file.open("w", newline="") as to:
            csv.writer(to).writerows([row[0], *row[:0:-1]] for row in rows)
        assert torch.equal(self.back(real, tmp_path / "s").labels, syn.labels)
