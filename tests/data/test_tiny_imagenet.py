"""Tiny-ImageNet with the supported layouts of its validation folder."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from dd_bench.data.tiny_imagenet import tiny_imagenet

KNOBS = {"preprocess": "normalise", "val_fraction": 0.0, "device": torch.device("cpu")}
WNIDS = ["n03", "n01", "n02"]  # wnids.txt is not sorted


def write(folder, layout):
    rng = np.random.default_rng(0)

    def picture(path, grey=False):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (64, 64) if grey else (64, 64, 3), dtype=np.uint8)).save(
            path, "JPEG"
        )

    (folder / "val").mkdir(parents=True)
    (folder / "wnids.txt").write_text("\n".join(WNIDS) + "\n")
    for wnid in sorted(WNIDS):
        for i in range(3):
            picture(folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG", grey=i == 1)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t62\t62\n")
    subfolder = {"released": "images", "val": "{}", "val/*/images": "{}/images", "val/images": "images/{}"}[
        layout
    ]
    lines = []
    for i, wnid in enumerate(["n02", "n01", "n03", "n01", "n03", "n02"]):
        picture(folder / "val" / subfolder.format(wnid) / f"val_{i}.JPEG")
        lines.append(f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))


@pytest.mark.parametrize("layout", ["released", "val", "val/*/images", "val/images"])
def test_dataset_does_not_depend_on_the_layout(tmp_path, layout):
    write(tmp_path / "released", "released")
    write(tmp_path / "other" / "tiny-imagenet-200", layout)
    released, other = (tiny_imagenet(root=str(tmp_path / r), **KNOBS) for r in ("released", "other"))
    assert released.class_names == tuple(WNIDS) and released.shape == (3, 64, 64) and released.flip
    assert released.train.counts.tolist() == [3, 3, 3] and released.test.counts.tolist() == [2, 2, 2]
    for a, b in ((released.train, other.train), (released.test, other.test)):
        index = torch.arange(len(a))
        assert torch.equal(a.pixels(index), b.pixels(index)) and torch.equal(a.labels, b.labels)
    assert released.digest == other.digest


def test_labels_from_annotations_and_class_order_from_wnids(tmp_path):
    write(tmp_path, "released")
    real = tiny_imagenet(root=str(tmp_path), **KNOBS)
    with Image.open(
        tmp_path / "val" / "images" / "val_2.JPEG"
    ) as image:  # the first image of n03, which is class 0
        expected = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)
    assert torch.equal(real.test.pixels(torch.tensor([0]))[0], expected)


def test_digest_depends_on_class_order_and_pixels(tmp_path):
    write(tmp_path, "released")
    digests = {tiny_imagenet(root=str(tmp_path), **KNOBS).digest}
    (tmp_path / "wnids.txt").write_text("n01\nn02\nn03\n")
    digests.add(tiny_imagenet(root=str(tmp_path), **KNOBS).digest)
    path = tmp_path / "train" / "n01" / "images" / "n01_0.JPEG"
    with Image.open(path) as image:
        image.load()
    image.putpixel((0, 0), (255, 0, 0))
    image.save(path, "JPEG")
    digests.add(tiny_imagenet(root=str(tmp_path), **KNOBS).digest)
    assert len(digests) == 3


def test_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)no wnids.txt.*tiny-imagenet-200.*dataset.root=FOLDER"):
        tiny_imagenet(root=str(tmp_path), **KNOBS)
    write(tmp_path, "released")
    annotations = tmp_path / "val" / "val_annotations.txt"
    text = annotations.read_text()
    annotations.write_text(text.replace("n02", "n99"))
    with pytest.raises(ValueError, match=r"the class n99 of val_0.JPEG is not in"):
        tiny_imagenet(root=str(tmp_path), **KNOBS)
    annotations.unlink()
    with pytest.raises(FileNotFoundError, match=r"val_annotations.txt"):
        tiny_imagenet(root=str(tmp_path), **KNOBS)
    shutil.rmtree(tmp_path / "train" / "n01")
    with pytest.raises(FileNotFoundError, match=r"class folder\(s\) not found.*n01"):
        tiny_imagenet(root=str(tmp_path), **KNOBS)
