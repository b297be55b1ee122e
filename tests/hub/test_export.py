"""Exported sets, as other code reads them."""

import csv
import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from dd_bench.hub.export import export_command
from dd_bench.hub.parquet import parquet
from dd_bench.hub.png_folder import png_folder
from dd_bench.hub.release import release
from dd_bench.hub.webdataset import webdataset
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
        monkeypatch.setattr(
            "dd_bench.hub.png_folder.png", lambda _: (_ for _ in ()).throw(OSError("disk full"))
        )
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
        parquet(coreset, tmp_path / "a.parquet", lossless=False)
        loaded = datasets.Dataset.from_parquet(str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "cache"))
        assert list(loaded.features) == ["image", "label"]
        assert loaded.features["label"].names == ["ape", "bee", "cod"]
        assert loaded["label"][:] == coreset.labels.tolist()
        assert np.array_equal(np.asarray(loaded[3]["image"]), coreset.images[3, 0].numpy())

    def test_inputs_and_soft_labels_are_lossless(self, soft, tmp_path):
        datasets = pytest.importorskip("datasets")
        exported = parquet(soft, tmp_path / "a.parquet")
        assert exported.lossless and exported.images == 8
        loaded = datasets.Dataset.from_parquet(str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "cache"))
        assert loaded["label"][:] == [0] * 4 + [2] * 4
        inputs, labels = soft.materialise(torch.device("cpu"))
        tensors = loaded.with_format("torch")
        assert torch.equal(tensors["input"][:], inputs) and torch.equal(tensors["soft_label"][:], labels)

    def test_missing_library(self, coreset, tmp_path, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "datasets", None)
        with pytest.raises(ImportError, match=r"pip install 'dd-bench\[parquet\]'"):
            parquet(coreset, tmp_path / "a.parquet")


class TestWebDataset:
    @staticmethod
    def samples(path):
        """The contents of the tar file by key and suffix, as any reader of tar files sees them."""
        found = {}
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                found.setdefault(key, {})[suffix] = tar.extractfile(member).read()
        return found

    def test_inputs_and_soft_labels_are_lossless(self, soft, tmp_path):
        assert webdataset(soft, tmp_path / "a.tar").lossless
        samples = self.samples(tmp_path / "a.tar")
        assert list(samples) == [f"{i:06d}" for i in range(8)]
        inputs, labels = soft.materialise(torch.device("cpu"))
        for sample, x, y in zip(samples.values(), inputs, labels, strict=True):
            assert np.array_equal(np.load(io.BytesIO(sample["npy"]), allow_pickle=False), x.numpy())
            facts = json.loads(sample["json"])
            assert torch.equal(torch.tensor(facts["soft_label"]), y)
            assert int(sample["cls"]) == int(y.argmax())
            assert facts["class_name"] == soft.class_names[int(y.argmax())]
            assert Image.open(io.BytesIO(sample["png"])).size == (8, 8)

    def test_datasets_reads_it(self, coreset, tmp_path):
        """Hugging Face's reader groups and decodes the files as the package `webdataset` does."""
        datasets = pytest.importorskip("datasets")
        webdataset(coreset, tmp_path / "a.tar")
        files = {"train": str(tmp_path / "a.tar")}
        stream = datasets.load_dataset("webdataset", data_files=files, split="train", streaming=True)
        samples = list(stream)
        assert [s["cls"] for s in samples] == coreset.labels.tolist()
        assert np.array_equal(np.asarray(samples[3]["png"]), coreset.images[3, 0].numpy())
        inputs = coreset.materialise(torch.device("cpu"))[0]
        assert np.array_equal(samples[3]["npy"], inputs[3].numpy())

    def test_same_bytes_every_time_and_only_images(self, coreset, tmp_path):
        for name in "ab":
            exported = webdataset(coreset, tmp_path / f"{name}.tar", lossless=False)
        assert exported.lossless, "8 bits are exact for real images"
        assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
        assert all(sorted(s) == ["cls", "json", "png"] for s in self.samples(tmp_path / "a.tar").values())


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


def test_a_release_of_graphs_has_no_parquet_file(motifs, tmp_path):
    syn = GraphSet.coreset(motifs, torch.arange(2))
    saved = storage.save(
        syn,
        tmp_path / "set",
        real=motifs,
        method="random",
        ipc=1,
        seed=0,
        config={},
        citations=["A | paper"],
        provenance={},
    )
    exported = release(saved, tmp_path / "to")
    assert exported.images == 2 and not (tmp_path / "to" / "data").exists()
    text = (tmp_path / "to" / "README.md").read_text()
    assert "viewer: false" in text and "configs:" not in text and "## Scores" not in text


@pytest.fixture
def saved(blobs, tmp_path):
    """The folder of a set whose pixels are in [0, 1], but not exact in 8 bits."""
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return storage.save(
        ImageSet.of(blobs, blobs.preprocess(images), torch.arange(3), "input"),
        tmp_path / "set",
        real=blobs,
        method="dm",
        ipc=1,
        seed=0,
        config={},
        citations=["A method, 2020", "A dataset, 2010"],
        provenance={},
    )


def test_formats_by_suffix_and_option(saved, tmp_path, capsys):
    def run(*words):
        code = export_command([str(saved), *map(str, words)])
        return code, "".join(capsys.readouterr())

    assert run(tmp_path / "png") == (0, f"{tmp_path / 'png'}: 3 images, rounded to 8 bits\n")
    assert run(tmp_path / "a.tar") == (0, f"{tmp_path / 'a.tar'}: 3 images\n")
    assert run(tmp_path / "b.tar", "--no-lossless") == (
        0,
        f"{tmp_path / 'b.tar'}: 3 images, rounded to 8 bits\n",
    )
    assert run(tmp_path / "c", "--format", "webdataset")[0] == 0 and tarfile.is_tarfile(tmp_path / "c")
    assert run(tmp_path / "d", "--lossless")[1].startswith(
        "error: --lossless requires --format parquet or webdataset"
    )
    assert run(tmp_path / "d.tar", "--record", tmp_path)[1].startswith(
        "error: --record requires --format hub"
    )
    assert "is not a synthetic set" in "".join(
        [str(export_command([str(tmp_path), "x"])), *capsys.readouterr()]
    )
    assert run(tmp_path / "a.tar") == (
        1,
        f"error: {tmp_path / 'a.tar'} exists. Remove it first, or choose another path\n",
    )
