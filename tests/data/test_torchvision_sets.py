"""CIFAR-10, CIFAR-100 and SVHN from small files in the published formats."""

import hashlib
import pickle
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import scipy.io
import torch
from torchvision import datasets

from dd_bench.data.cifar import cifar10, cifar100
from dd_bench.data.svhn import svhn

CPU = torch.device("cpu")
KNOBS = {"download": False, "preprocess": "normalise", "val_fraction": 0.0, "device": CPU}
CONSTANTS = {"mean": [0.5071, 0.4866, 0.4409], "std": [0.2673, 0.2564, 0.2762]}


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(root: Path, dataset, names, labels_key, n, monkeypatch):
    """Write every batch in the published pickle format: rows of 3072 bytes, channel by channel."""
    folder, rng, arrays = root / dataset.base_folder, np.random.default_rng(0), {}
    folder.mkdir()
    for kind in ("train_list", "test_list"):
        listed, rows, labels = [], [], []
        for file, _ in getattr(dataset, kind):
            data = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
            classes = [int(c) for c in rng.permutation(n) % len(names)]
            with (folder / file).open("wb") as out:
                pickle.dump({"data": data, labels_key: classes, "filenames": ["x.png"] * n}, out, protocol=2)
            listed.append([file, md5(folder / file)])
            rows.append(data)
            labels += classes
        monkeypatch.setattr(dataset, kind, listed)
        arrays[kind] = torch.from_numpy(np.concatenate(rows)).view(-1, 3, 32, 32), torch.tensor(labels)
    meta = folder / dataset.meta["filename"]
    with meta.open("wb") as out:
        pickle.dump({dataset.meta["key"]: names}, out, protocol=2)
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": md5(meta)})
    return arrays


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    return write_cifar(tmp_path, datasets.CIFAR10, names, "labels", 20, monkeypatch)


def test_cifar10(tmp_path, cifar):
    real = cifar10(root=str(tmp_path), **KNOBS)
    pixels, labels = cifar["train_list"]
    assert torch.equal(real.train.pixels(torch.arange(100)), pixels) and torch.equal(
        real.train.labels, labels
    )
    assert torch.equal(real.test.pixels(torch.arange(20)), cifar["test_list"][0])
    assert real.class_names[0] == "airplane" and real.class_names[9] == "truck" and real.flip
    red = (pixels[0, 0, 0, 0] / 255 - 0.4914) / 0.2023
    torch.testing.assert_close(real.train.inputs(torch.tensor([0]))[0, 0, 0, 0], red)


def test_cifar100_uses_the_configured_constants(tmp_path, monkeypatch):
    names = [f"fine{c}" for c in range(100)]
    arrays = write_cifar(tmp_path, datasets.CIFAR100, names, "fine_labels", 100, monkeypatch)
    real = cifar100(root=str(tmp_path), **CONSTANTS, **KNOBS)
    assert real.class_names == tuple(names)
    assert torch.equal(real.train.labels, arrays["train_list"][1])
    assert real.preprocess.config() == {"kind": "normalise", **CONSTANTS}


def test_cifar_rejects_a_modified_pickle_before_loading_it(tmp_path, cifar):
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("a modified pickle was executed",))

    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"data_batch_3 is damaged or is not a file of cifar10"):
        cifar10(root=str(tmp_path), **KNOBS)


def test_cifar_missing(tmp_path, cifar):
    (tmp_path / "cifar-10-batches-py" / "test_batch").unlink()
    with pytest.raises(FileNotFoundError, match=r"(?s)cifar10: no test_batch in.*dataset.download=true"):
        cifar10(root=str(tmp_path), **KNOBS)


@pytest.mark.parametrize("error", [URLError("no route"), RuntimeError("no route")], ids=["URL", "other"])
def test_error_of_a_failed_download_names_the_folder(tmp_path, monkeypatch, error):
    def offline(*_, **__):
        raise error

    for cls in (datasets.CIFAR10, datasets.CIFAR100):
        monkeypatch.setattr(cls, "download", offline)
    monkeypatch.setattr(datasets.SVHN, "download", offline)
    knobs = {**KNOBS, "root": str(tmp_path), "download": True}
    for load, words in (
        (lambda: cifar10(**knobs), ("cifar-10-batches-py", "cifar-10-batches-bin", "train/CLASS/INDEX.png")),
        (lambda: cifar100(**knobs, **CONSTANTS), ("cifar-100-python", "cifar-100-binary")),
        (lambda: svhn(**knobs), ("train_32x32.mat", str(tmp_path))),
    ):
        with pytest.raises(FileNotFoundError, match=r"the download failed .*no route") as caught:
            load()
        assert all(word in str(caught.value) for word in (*words, "dataset.root=FOLDER"))


@pytest.fixture
def house_numbers(tmp_path, monkeypatch):
    """SVHN's MATLAB files: X (32, 32, 3, n) and y (n, 1), where 10 is the digit 0."""
    rng, arrays, listed = np.random.default_rng(0), {}, dict(datasets.SVHN.split_list)
    for split, n in (("train", 40), ("test", 20)):
        images = rng.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
        labels = (rng.permutation(n) % 10 + 1).astype(np.uint8)[:, None]
        path = tmp_path / f"{split}_32x32.mat"
        scipy.io.savemat(path, {"X": images, "y": labels})
        listed[split] = [listed[split][0], path.name, md5(path)]
        arrays[split] = images, labels
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)
    return arrays


def test_svhn(tmp_path, house_numbers):
    real = svhn(root=str(tmp_path), **KNOBS)
    images, labels = house_numbers["train"]
    assert torch.equal(real.train.pixels(torch.arange(40)), torch.from_numpy(images).permute(3, 2, 0, 1))
    assert real.train.labels.tolist() == [int(y) % 10 for y in labels[:, 0]]
    assert real.shape == (3, 32, 32) and not real.flip and len(real.test) == 20


def test_svhn_missing_and_damaged(tmp_path, house_numbers):
    path = tmp_path / "test_32x32.mat"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"test_32x32.mat is damaged"):
        svhn(root=str(tmp_path), **KNOBS)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"(?s)no test_32x32.mat in.*dataset.root=FOLDER"):
        svhn(root=str(tmp_path), **KNOBS)
