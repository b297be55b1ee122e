"""CIFAR-10 and CIFAR-100 from the binary version and from folders of images, in small files of the true format."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dd_bench.data import cifar as cifar_module
from dd_bench.data.cifar import CIFAR10_BINARY, CIFAR10_CLASSES, CIFAR100_BINARY, cifar10, cifar100

KNOBS = {"download": False, "preprocess": "normalise", "val_fraction": 0.0, "device": torch.device("cpu")}


def known(monkeypatch, version, attribute, n=20, k=10):
    """Replace the known sha1 by those of files with n random images each, and return the content of the files."""
    draw, contents, lists = np.random.default_rng(0), {}, {}
    for part in ("train", "test"):
        lists[part] = ()
        for file, _ in getattr(version, part):
            rows = draw.integers(0, 256, (n, version.label_bytes + 3072), dtype=np.uint8)
            rows[:, version.label_bytes - 1] = draw.permutation(n) % k
            contents[file] = rows
            lists[part] += ((file, hashlib.sha1(rows.tobytes()).hexdigest()),)
    monkeypatch.setattr(cifar_module, attribute, replace(version, **lists))
    return contents


@pytest.fixture
def contents(monkeypatch):
    return known(monkeypatch, CIFAR10_BINARY, "CIFAR10_BINARY")


def write_binary(folder, contents, names_file="batches.meta.txt", names=CIFAR10_CLASSES):
    folder.mkdir(parents=True)
    for file, rows in contents.items():
        (folder / file).write_bytes(rows.tobytes())
    (folder / names_file).write_text("\n".join(names) + "\n\n")


def write_images(folder, contents, suffix="png", name="{i}", test="test"):
    for part in ("train", test):
        rows = np.concatenate([v for k, v in contents.items() if (k == "test_batch.bin") == (part == test)])
        counts = {c: 0 for c in CIFAR10_CLASSES}
        for i, row in enumerate(rows):
            c = CIFAR10_CLASSES[row[0]]
            (folder / part / c).mkdir(parents=True, exist_ok=True)
            file = folder / part / c / f"{name.format(i=i, c=c, of_class=counts[c])}.{suffix}"
            Image.fromarray(row[1:].reshape(3, 32, 32).transpose(1, 2, 0)).save(file)
            counts[c] += 1


@pytest.mark.parametrize("subfolder", ["cifar-10-batches-bin", ""])
def test_binary_version(tmp_path, contents, subfolder):
    write_binary(tmp_path / "copy" / subfolder, contents)
    real = cifar10(root=str(tmp_path / "copy"), **KNOBS)
    rows = np.concatenate(list(contents.values()))
    assert torch.equal(real.train.pixels(torch.arange(100)).flatten(1), torch.from_numpy(rows[:100, 1:]))
    assert real.train.labels.tolist() == rows[:100, 0].tolist() and real.class_names == CIFAR10_CLASSES
    assert real.test.labels.tolist() == rows[100:, 0].tolist() and real.name == "cifar10"


@pytest.mark.parametrize(
    ("suffix", "name", "test"),
    [
        ("png", "{i}", "test"),
        ("bmp", "{i:05d}", "val"),
        ("png", "{i}_{c}", "test"),
        ("tif", "img-{i}", "test"),
    ],
)
def test_folders_of_lossless_images_are_the_same_dataset(tmp_path, contents, suffix, name, test):
    write_binary(tmp_path / "binary", contents)
    write_images(tmp_path / "images", contents, suffix, name, test)
    binary, images = (cifar10(root=str(tmp_path / f), **KNOBS) for f in ("binary", "images"))
    assert images.digest == binary.digest and images.preprocess.digest == binary.preprocess.digest
    assert torch.equal(images.train.labels, binary.train.labels)


def test_cifar100_has_fine_labels(tmp_path, monkeypatch):
    contents = known(monkeypatch, CIFAR100_BINARY, "CIFAR100_BINARY", n=200, k=100)
    names = tuple(f"fine{c}" for c in range(100))
    write_binary(tmp_path / "cifar-100-binary", contents, "fine_label_names.txt", names)
    real = cifar100(root=str(tmp_path), mean=[0.5] * 3, std=[0.2] * 3, **KNOBS)
    assert real.train.labels.tolist() == contents["train.bin"][:, 1].tolist() and real.class_names == names
    assert torch.equal(
        real.test.pixels(torch.arange(200)).flatten(1), torch.from_numpy(contents["test.bin"][:, 2:])
    )


def test_a_modified_binary_file_is_an_error(tmp_path, contents):
    contents["data_batch_2.bin"][3, 7] ^= 1
    write_binary(tmp_path / "x", contents)
    with pytest.raises(ValueError, match=r"data_batch_2\.bin is missing, damaged or not a file of cifar10"):
        cifar10(root=str(tmp_path / "x"), **KNOBS)


def test_folders_of_another_dataset_are_not_a_copy(tmp_path, contents):
    for part in ("train", "val"):
        (tmp_path / part / "tench").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"(?s)cifar10: no data_batch_1 in.*cifar-10-batches-bin"):
        cifar10(root=str(tmp_path), **KNOBS)


class TestImagesThatAreNotTheDataset:
    """The error explains why, and how to use the images under another name."""

    def error(self, folder):
        with pytest.raises(
            ValueError, match=r"dataset=image_folder dataset\.name=my_cifar10 dataset\.root="
        ) as e:
            cifar10(root=str(folder), **KNOBS)
        return str(e.value)

    def test_lossy_format(self, tmp_path, contents):
        write_images(tmp_path, contents, "jpg")
        assert "is in a lossy format, so its pixels are not those of cifar10" in self.error(tmp_path)

    def test_other_pixels(self, tmp_path, contents):
        contents["data_batch_4.bin"][0, 5] ^= 1
        write_images(tmp_path, contents)
        assert "do not have the sha1 of the published file data_batch_4.bin" in self.error(tmp_path)

    def test_numbers_within_a_class(self, tmp_path, contents):
        write_images(tmp_path, contents, name="{of_class}")
        assert "Without it, the order is unknown" in self.error(tmp_path)

    def test_other_classes(self, tmp_path, contents):
        write_images(tmp_path, contents)
        (tmp_path / "test" / "truck").rename(tmp_path / "test" / "lorry")
        assert "must have the class folders of cifar10" in self.error(tmp_path)
