"""MNIST and Fashion-MNIST from IDX files."""

import gzip
import struct
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torchvision import datasets

from dd_bench.data import fashion_mnist as module
from dd_bench.data.fashion_mnist import DEBIAN, fashion_mnist
from dd_bench.data.idx import read_idx
from dd_bench.data.mnist import mnist

CPU = torch.device("cpu")
KNOBS = {"download": False, "preprocess": "normalise", "val_fraction": 0.0, "device": CPU}


def idx(values: torch.Tensor) -> bytes:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return header + values.numpy().tobytes()


def write(folder: Path, seed=0, zipped=True, n=(30, 20)):
    folder.mkdir(parents=True, exist_ok=True)
    g, arrays = torch.Generator().manual_seed(seed), {}
    for part, size in zip(("train", "t10k"), n, strict=True):
        images = torch.randint(0, 256, (size, 28, 28), generator=g, dtype=torch.uint8)
        labels = (torch.arange(size) % 10).to(torch.uint8)
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            name = f"{part}-{kind}-ubyte"
            if zipped:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(values)))
            else:
                (folder / name).write_bytes(idx(values))
        arrays[part] = (images[:, None], labels.long())
    return arrays


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    """Hide Debian's folder and the `data` folder of the current directory."""
    monkeypatch.setattr(module, "DEBIAN", tmp_path / "debian")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("subfolder", [".", "FashionMNIST/raw"])
def test_read_from_root(tmp_path, zipped, subfolder):
    arrays = write(tmp_path / "here" / subfolder, zipped=zipped)
    real = fashion_mnist(root=str(tmp_path / "here"), **KNOBS)
    assert torch.equal(real.train.pixels(torch.arange(30)), arrays["train"][0])
    assert torch.equal(real.test.labels, arrays["t10k"][1])
    assert real.class_names[0] == "T-shirt/top" and real.class_names[9] == "Ankle boot" and real.flip


def test_root_precedes_debian_and_debian_precedes_download(tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("downloaded although the files exist")

    monkeypatch.setattr(datasets.FashionMNIST, "__init__", never)
    user, debian = write(tmp_path / "user", seed=1), write(tmp_path / "debian", seed=2)
    real = fashion_mnist(root="user", **KNOBS)
    assert torch.equal(real.train.pixels(torch.arange(30)), user["train"][0])
    real = fashion_mnist(root=None, **{**KNOBS, "download": True})
    assert torch.equal(real.train.pixels(torch.arange(30)), debian["train"][0])


def test_files_directly_in_the_default_folder_are_not_used(tmp_path):
    write(tmp_path / "data")  # could be MNIST or Fashion-MNIST
    for dataset in (mnist, fashion_mnist):
        with pytest.raises(FileNotFoundError):
            dataset(root=None, **KNOBS)


def test_download_uses_torchvision(tmp_path, monkeypatch):
    class Fake(datasets.MNIST):
        def __init__(self, root, download):
            assert download
            write(Path(root) / "MNIST" / "raw")

    Fake.__name__ = "MNIST"
    monkeypatch.setattr(datasets, "MNIST", Fake)
    real = mnist(root=None, **{**KNOBS, "download": True})
    assert (len(real.train), len(real.test), real.flip) == (30, 20, False)


def test_error_of_a_failed_download_names_the_folder(tmp_path, monkeypatch):
    def offline(*_, **__):
        raise URLError("Name or service not known")

    monkeypatch.setattr(datasets.MNIST, "download", offline)
    monkeypatch.setattr(datasets.FashionMNIST, "download", offline)
    for dataset, folder in ((mnist, "MNIST"), (fashion_mnist, "FashionMNIST")):
        with pytest.raises(
            FileNotFoundError, match=r"the download failed .*Name or service not known"
        ) as error:
            dataset(root="files", **{**KNOBS, "download": True})
        for part in (
            f"files/{folder}/raw",
            "dataset.root=FOLDER, the folder that contains the four files",
            "http",
        ):
            assert part in str(error.value)


def test_error_for_missing_files_lists_folders_and_fixes(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        fashion_mnist(root="nowhere", **KNOBS)
    text = str(error.value)
    for part in (
        "train-images-idx3-ubyte",
        "\n  nowhere\n",
        str(Path("nowhere/FashionMNIST/raw")),
        str(tmp_path / "debian"),
        "\n  apt-get install dataset-fashion-mnist",
        "\n  dataset.root=",
        "\n  dataset.download=true",
    ):
        assert part in text
    with pytest.raises(FileNotFoundError) as error:
        mnist(root=None, **KNOBS)
    assert "apt-get" not in str(error.value)


def test_error_for_truncated_or_corrupt_gzip_names_the_file(tmp_path):
    write(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    content = path.read_bytes()
    for broken in (content[:-100], content[:2000] + b"\0" * 50 + content[2050:], b"not gzip at all"):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.gz is not a complete gzip file"):
            fashion_mnist(root=str(tmp_path), **KNOBS)


def test_error_for_wrong_header_length_or_counts_names_the_file(tmp_path):
    write(tmp_path, zipped=False)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte must start with 00000803 .* got 00000801"):
        read_idx(path, rank=3)
    path.write_bytes(content[:-1])
    with pytest.raises(
        ValueError,
        match=r"t10k-labels-idx1-ubyte must have 20 bytes of data, .* the shape \(20,\), got 19 bytes",
    ):
        mnist(root=str(tmp_path), **KNOBS)
    path.write_bytes(idx(torch.zeros(19, dtype=torch.uint8)))
    with pytest.raises(
        ValueError,
        match=r"t10k-images-idx3-ubyte and .* got 20 images and 19 labels",
    ):
        mnist(root=str(tmp_path), **KNOBS)


@pytest.mark.needs_data
def test_real_fashion_mnist():
    if not DEBIAN.is_dir():
        pytest.skip(f"no {DEBIAN}: apt-get install dataset-fashion-mnist")
    real = fashion_mnist(root=str(DEBIAN), **KNOBS)
    assert (len(real.train), len(real.test)) == (60_000, 10_000)
    assert real.train.counts.tolist() == [6000] * 10 and real.test.counts.tolist() == [1000] * 10
    pixels = real.train.pixels(torch.arange(60_000)).float() / 255
    assert float(pixels.mean()) == pytest.approx(0.2861, abs=1e-3)
    assert float(pixels.std()) == pytest.approx(0.3530, abs=1e-3)
