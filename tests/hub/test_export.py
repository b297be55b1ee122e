"""Exported sets, as other code reads them."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from dd_bench.hub.export import export_command, parquet, png_folder
from dd_bench.synthetic import storage
from dd_bench.synthetic.compensated import CompensatedSet
from dd_bench.synthetic.graphs import GraphSet
from dd_bench.synthetic.images import ImageSet


@pytest.fixture
def coreset(blobs):
    return ImageSet.coreset(blobs, torch.tensor([0, 3, 1, 4, 2, 5]))


@pytest.fixture
def soft(blobs):
    """Two tensors that store four images each, with soft labels and pixels that 8 bits cannot represent."""
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    return ImageSet.of(blobs, images, labels, "unit", factor=2)


class TestPng:
    def test_real_images_are_exact(self, coreset, tmp_path):
        exported = png_folder(coreset, tmp_path / "out")
        assert exported.images == 6 and exported.clipped == 0
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["0_ape", "1_bee", "2_cod"]
        for i, label in enumerate(coreset.labels.tolist()):
            (path,) = (tmp_path / "out").glob(f"{label}_*/{i}.png")
            assert np.array_equal(np.asarray(Image.open(path)), coreset.images[i, 0].numpy())

    def test_soft_labels_are_in_a_csv_file(self, soft, tmp_path):
        assert png_folder(soft, tmp_path / "out").images == 8
        with (tmp_path / "out" / "labels.csv").open() as file:
            header, *rows = csv.reader(file)
        assert header == ["file", "ape", "bee", "cod"]
        assert len(rows) == 8 and all((tmp_path / "out" / row[0]).is_file() for row in rows)
        assert [float(x) for x in rows[-1][1:]] == soft.labels[1].tolist()

    def test_fraction_of_clipped_pixels(self, blobs, tmp_path):
        images = blobs.preprocess(torch.tensor([0.0, 0.5, 1.5, -0.5]).repeat(16).view(1, 1, 8, 8))
        exported = png_folder(ImageSet.of(blobs, images, torch.tensor([0]), "input"), tmp_path / "out")
        assert exported.clipped == 0.5
        (path,) = (tmp_path / "out").glob("0_ape/*.png")
        assert np.asarray(Image.open(path))[0, :4].tolist() == [0, 128, 255, 0]

    def test_folder_is_complete_or_missing(self, coreset, tmp_path, monkeypatch):
        (tmp_path / "out").mkdir()
        with pytest.raises(FileExistsError):
            png_folder(coreset, tmp_path / "out")
        monkeypatch.setattr("dd_bench.hub.export._png", lambda _: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            png_folder(coreset, tmp_path / "other")
        assert [p.name for p in tmp_path.iterdir()] == ["out"]

    def test_folder_names_have_no_special_characters(self, real_set, tmp_path):
        real = real_set(names=("T-shirt/top", "../up", "c d"))
        png_folder(ImageSet.coreset(real, torch.arange(3)), tmp_path / "out")
        folders = sorted(p.name for p in (tmp_path / "out").iterdir())
        assert folders == ["0_T-shirt_top", "1____up", "2_c_d"]


class TestParquet:
    def test_datasets_loads_it(self, coreset, tmp_path):
        datasets = pytest.importorskip("datasets")
        parquet(coreset, tmp_path / "a.parquet")
        loaded = datasets.Dataset.from_parquet(str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "cache"))
        assert loaded.features["label"].names == ["ape", "bee", "cod"]
        assert loaded["label"][:] == coreset.labels.tolist()
        assert np.array_equal(np.asarray(loaded[3]["image"]), coreset.images[3, 0].numpy())

    def test_soft_labels(self, soft, tmp_path):
        datasets = pytest.importorskip("datasets")
        parquet(soft, tmp_path / "a.parquet")
        loaded = datasets.Dataset.from_parquet(str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "cache"))
        assert len(loaded) == 8 and loaded["label"][:] == [0] * 4 + [2] * 4
        assert loaded[7]["soft_label"] == soft.labels[1].tolist()

    def test_missing_library(self, coreset, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "datasets", None)
        with pytest.raises(ImportError, match=r"pip install 'dd-bench\[parquet\]'"):
            parquet(coreset, tmp_path / "a.parquet")


def test_compensated_images_are_all_exported(blobs, tmp_path):
    """Each natural image, and one image per compensator."""
    images = blobs.train.pixels(torch.arange(3))
    u = torch.zeros(1, 2, 1, 8, 8, dtype=torch.float16)
    syn = CompensatedSet(images, torch.arange(3), u, blobs.class_names, blobs.preprocess, (0, 1, 2))
    assert png_folder(syn, tmp_path / "out").images == len(list((tmp_path / "out").rglob("*.png"))) == 9


def test_graphs_are_rejected(motifs, tmp_path):
    syn = GraphSet.coreset(motifs, torch.arange(2))
    with pytest.raises(ValueError, match="only sets of images can be exported"):
        png_folder(syn, tmp_path / "out")


def test_command(coreset, blobs, tmp_path, capsys):
    folder = storage.save(
        coreset,
        tmp_path / "set",
        real=blobs,
        method="random",
        ipc=2,
        seed=0,
        config={},
        citations=[],
        provenance={},
    )
    assert export_command([str(folder), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'out'}: 6 images\n"
    assert export_command([str(tmp_path), str(tmp_path / "b")]) == 1
    assert "is not a synthetic set" in capsys.readouterr().err
