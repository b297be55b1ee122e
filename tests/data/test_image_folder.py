"""Class folders of JPEG and PNG files: order, resizing, streaming, digests, errors."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from dd_bench.data import threads
from dd_bench.data.folder import FolderSplit
from dd_bench.data.image_decoder import Decoder
from dd_bench.data.image_folder import image_folder

CPU = torch.device("cpu")
KNOBS = {
    "name": "pets",
    "test_folder": "val",
    "classes": None,
    "size": 16,
    "resize": "squash",
    "background": None,
    "stream": False,
    "preprocess": "normalise",
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "flip": True,
    "licence": "none",
    "citation": "none",
    "val_fraction": 0.0,
    "device": CPU,
}


def picture(path: Path, seed: int, size=(24, 18), mode="RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8), mode).save(path)


@pytest.fixture
def root(tmp_path):
    """Classes of different sizes; JPEG, PNG and greyscale; different aspect ratios; a file that is not an image."""
    for part, counts in (("train", {"cat": 5, "ant": 3, "bee": 7}), ("val", {"ant": 2, "bee": 2, "cat": 2})):
        for c, (name, count) in enumerate(counts.items()):
            for i in range(count):
                suffix, mode = (".JPEG", "RGB") if i % 2 else (".png", "L" if i == 2 else "RGB")
                picture(tmp_path / part / name / f"{i}{suffix}", 100 * c + i + len(part), (18, 24 + i), mode)
    (tmp_path / "train" / "ant" / "notes.txt").write_text("not an image")
    return tmp_path


def load(root, **changes):
    return image_folder(root=str(root), **{**KNOBS, **changes})


def all_pixels(split):
    return split.pixels(torch.arange(len(split)))


def test_all_classes_sorted(root):
    real = load(root)
    assert real.class_names == ("ant", "bee", "cat") and real.shape == (3, 16, 16)
    assert real.train.counts.tolist() == [3, 7, 5] and real.test.counts.tolist() == [2, 2, 2]
    assert real.name == "pets" and real.flip


def test_squash_and_crop(root):
    path = root / "train" / "ant" / "0.png"  # 18 x 24
    with Image.open(path) as image:
        squashed = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR))
        cropped = np.asarray(image.resize((16, 21), Image.Resampling.BILINEAR))[2:18]
    ours = Decoder(16, "squash")(path), Decoder(16, "crop")(path)
    assert torch.equal(ours[0], torch.from_numpy(squashed.copy()).permute(2, 0, 1))
    assert torch.equal(ours[1], torch.from_numpy(cropped.copy()).permute(2, 0, 1))


def test_classes_by_name_and_by_index_give_labels_in_the_listed_order(root):
    by_name = load(root, classes=["cat", "ant"])
    assert by_name.class_names == ("cat", "ant") and by_name.train.counts.tolist() == [5, 3]
    by_index = load(root, classes=OmegaConf.create([2, 0]))
    assert by_index.class_names == ("cat", "ant") and by_index.digest == by_name.digest
    other = load(root, classes=["ant", "cat"])
    assert other.digest != by_name.digest
    assert torch.equal(all_pixels(other.train)[:3], all_pixels(by_name.train)[5:])


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([0, 701], "index of one of the 3 sorted folders .* got 701"),
        (["dog"], "'dog' is not one of the 3 folders"),
        (["ant", 0], "no folder twice, got"),
        ([], r"at least one folder .* got \[\]"),
    ],
)
def test_wrong_classes(root, classes, message):
    with pytest.raises(ValueError, match=message):
        load(root, classes=classes)


@pytest.mark.parametrize("resize", ["squash", "crop"])
def test_streaming_equals_in_memory_loading(root, resize):
    memory, stream = (load(root, resize=resize, stream=s, val_fraction=0.3) for s in (False, True))
    assert isinstance(stream.train, FolderSplit) and memory.digest == stream.digest
    assert memory.preprocess.digest == stream.preprocess.digest
    index = torch.tensor([4, 0, 4, 9])
    for name in ("train", "val", "test"):
        a, b = getattr(memory, name), getattr(stream, name)
        assert torch.equal(a.labels, b.labels) and torch.equal(a.members, b.members) and a.shape == b.shape
        assert torch.equal(all_pixels(a), all_pixels(b))
        selected = index % len(a)
        assert torch.equal(a.inputs(selected), b.inputs(selected)) and b.pixels(selected).dtype == torch.uint8
        assert torch.equal(
            a.subset(selected).inputs(torch.arange(4)), b.subset(selected).inputs(torch.arange(4))
        )
        for (x, y), (u, v) in zip(a.batches(2), b.batches(2), strict=True):
            assert torch.equal(x, u) and torch.equal(y, v)
    draws = [r.train.draw(2, torch.Generator().manual_seed(0)) for r in (memory, stream)]
    assert torch.equal(*draws)


@pytest.mark.parametrize("stream", [False, True])
def test_empty_split(root, stream):
    empty = load(root, stream=stream).train.subset(torch.empty(0).long())
    ((inputs, labels),) = empty.batches(4)
    assert inputs.shape == (0, *empty.shape) and labels.shape == (0,)
    assert empty.pixels(torch.empty(0).long()).dtype == torch.uint8


def test_streaming_decodes_at_most_one_batch_ahead(root, monkeypatch):
    paths = []
    original = Decoder.__call__
    monkeypatch.setattr(Decoder, "__call__", lambda self, path: (paths.append(path), original(self, path))[1])
    batches = load(root, stream=True).train.batches(4)
    assert not paths
    next(batches)
    threads.pool().submit(lambda: None).result()
    assert 4 <= len(paths) <= 8
    assert sum(len(labels) for _, labels in batches) == 11 and len(paths) == 15


def test_digest_depends_on_names_sizes_and_resizing(root):
    digests = {load(root).digest, load(root, size=8).digest, load(root, resize="crop").digest}
    picture(root / "val" / "ant" / "0.png", 7, (30, 30))
    digests.add(load(root).digest)
    (root / "train" / "ant" / "0.png").rename(root / "train" / "ant" / "zero.png")
    digests.add(load(root).digest)
    assert len(digests) == 5


def test_digest_depends_on_the_name(root):
    """A copy under another name has its own records and boards."""
    assert load(root, name="other").digest != load(root).digest
    with pytest.raises(ValueError, match=r"name of a dataset must contain only .* got '../evil'"):
        load(root, name="../evil")


def test_digest_depends_on_the_content_of_files(root):
    """An edit that keeps the length of the file and its modification time changes the digest."""
    before, path = load(root, stream=True), root / "train" / "ant" / "1.JPEG"
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns and path.stat().st_size == status.st_size
    assert load(root, stream=True).digest != before.digest


class TestDefaults:
    """Without a size and statistics, those of the images are used; where these are unknown, an error asks."""

    @pytest.fixture
    def uniform(self, tmp_path):
        """Images of 20 x 12 pixels."""
        for part, n in (("train", 4), ("val", 2)):
            for c, name in enumerate(("ant", "bee")):
                for i in range(n):
                    picture(tmp_path / part / name / f"{i}.png", 10 * c + i + n, (20, 12))
        return tmp_path

    def test_own_size_and_statistics_of_train(self, uniform):
        real = load(uniform, size=None, mean=None, std=None)
        pixels = all_pixels(real.train).float() / 255
        assert real.shape == (3, 12, 20)
        with Image.open(uniform / "train" / "ant" / "0.png") as image:
            assert torch.equal(all_pixels(real.train)[0], torch.from_numpy(np.array(image)).permute(2, 0, 1))
        config = real.preprocess.config()
        assert config["mean"] == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-4)
        assert config["std"] == pytest.approx(pixels.std((0, 2, 3)).tolist(), abs=1e-3)
        held_out = load(uniform, size=None, mean=None, std=None, val_fraction=0.5)
        assert held_out.preprocess.config() == config and held_out.digest == real.digest

    def test_square_images_have_the_digest_of_an_explicit_size(self, uniform):
        for path in uniform.rglob("*.png"):
            picture(path, 0, (8, 8))
        assert load(uniform, size=None).digest == load(uniform, size=8).digest

    def test_different_sizes_require_a_size(self, uniform):
        picture(uniform / "val" / "bee" / "1.png", 0, (9, 9))
        with pytest.raises(
            ValueError, match=r"2 different sizes, e\.g\. 20x12 .* 9x9 .*1\.png.*dataset\.size=64"
        ):
            load(uniform, size=None)
        assert load(uniform, size=8).shape == (3, 8, 8)

    def test_streams_require_statistics(self, uniform):
        with pytest.raises(ValueError, match=r"dataset\.stream=true requires dataset\.mean and dataset\.std"):
            load(uniform, stream=True, mean=None, std=None)
        with pytest.raises(ValueError, match=r"dataset\.mean and dataset\.std must both be lists"):
            load(uniform, mean=None)

    def test_unreadable_image(self, uniform):
        (uniform / "val" / "bee" / "1.png").write_bytes(b"no image")
        with pytest.raises(ValueError, match=r"cannot read the image .*val/bee/1\.png"):
            load(uniform, size=None)


def test_hidden_folders_are_no_classes(root):
    """Jupyter and macOS add folders with copies of the images."""
    expected = load(root)
    for name in ("train/.ipynb_checkpoints/0.png", "val/__MACOSX/0.png", "train/ant/._0.png"):
        picture(root / name, 0)
    real = load(root)
    assert real.class_names == ("ant", "bee", "cat") and real.digest == expected.digest


def test_background_is_part_of_the_digest(root):
    assert load(root, background="white").digest != load(root).digest


def test_zca_requires_images_in_memory(root):
    real = load(root, size=4, preprocess="zca")
    x = real.train.inputs(torch.arange(15))
    torch.testing.assert_close(real.preprocess.inverse(x), all_pixels(real.train) / 255, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match=r"dataset.stream=false"):
        load(root, preprocess="zca", stream=True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("damage", ["truncated", "text"])
def test_error_for_an_unreadable_image_names_the_file(root, stream, damage):
    path = root / "train" / "bee" / "1.JPEG"
    path.write_bytes(path.read_bytes()[:-200] if damage == "truncated" else b"GIF, honestly")
    with pytest.raises(ValueError, match=r"cannot read the image .*bee/1\.JPEG"):
        list(load(root, stream=stream).train.batches(4))


def test_errors_for_missing_folders_contain_a_fix(root):
    with pytest.raises(FileNotFoundError, match=r"(?s)pets: no folder 'train'.*dataset.root=FOLDER"):
        load(root / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"(?s)no folder 'test'.*dataset.test_folder=NAME"):
        load(root, test_folder="test")
    (root / "val" / "cat").rename(root / "gone")
    with pytest.raises(FileNotFoundError, match=r"class folder\(s\) not found.*cat"):
        load(root)
    (root / "val" / "cat").mkdir()
    with pytest.raises(FileNotFoundError, match=r"val/cat contains no image in a supported format"):
        load(root)
    assert load(root, classes=["ant", "bee"]).class_names == ("ant", "bee")
    (root / "gone").rename(root / "val" / "dog")
    with pytest.raises(ValueError, match=r"a class folder 'dog' that is missing in .*train"):
        load(root)


def test_default_root_is_a_subfolder_of_data(root, monkeypatch):
    (root / "data").mkdir()
    for part in ("train", "val"):
        (root / part).rename(root / "data" / part)
    (root / "data").rename(root / "pets")
    (root / "data").mkdir()
    (root / "pets").rename(root / "data" / "pets")
    monkeypatch.chdir(root)
    assert len(image_folder(root=None, **KNOBS).train) == 15


def test_wrong_resize_and_size(root):
    with pytest.raises(ValueError, match=r"dataset.resize must be"):
        load(root, resize="stretch")
    with pytest.raises(ValueError, match=r"dataset.size must be .* got 0"):
        load(root, size=0)
