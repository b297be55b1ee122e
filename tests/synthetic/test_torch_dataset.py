"""The PyTorch dataset of a set contains exactly what an evaluation trains on."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from dd_bench.synthetic import base
from dd_bench.synthetic.compensated import CompensatedSet
from dd_bench.synthetic.images import ImageSet
from dd_bench.synthetic.torch_dataset import ImageDataset

CPU = torch.device("cpu")


def double(label):
    return 2 * label


@pytest.fixture
def tiled(blobs):
    """Two stored images that are decoded to four training images each, with soft labels."""
    images = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    return ImageSet.of(blobs, images, labels, "unit", factor=2)


@pytest.fixture
def canvas(blobs):
    """A stored image that is cut into four training images."""
    images = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return ImageSet.of(blobs, images, torch.arange(3), "input", canvas=2)


@pytest.fixture
def compensated(blobs):
    u = torch.randn(1, 2, 1, 8, 8, generator=torch.Generator().manual_seed(0)).half()
    images = blobs.train.pixels(torch.arange(3))
    return CompensatedSet(images, torch.arange(3), u, blobs.class_names, blobs.preprocess, (0, 1, 2))


@pytest.mark.parametrize("kind", ["tiled", "canvas", "compensated"])
@pytest.mark.parametrize("limit", [base.MATERIALISE_LIMIT, 0])
def test_items_are_the_training_images(kind, limit, request, monkeypatch):
    """With the limit 0, every image is decoded when it is read, as in sets that exceed the memory."""
    monkeypatch.setattr(base, "MATERIALISE_LIMIT", limit)
    syn = request.getfixturevalue(kind)
    inputs, labels = syn.materialise(CPU)
    data = ImageDataset(syn)
    assert len(data) == len(labels) > len(syn.images) and data.classes == list(syn.class_names)
    x, y = next(iter(DataLoader(data, batch_size=len(data))))
    assert torch.equal(x, inputs) and torch.equal(y, labels)
    assert torch.equal(data[-1][0], inputs[-1])
    with pytest.raises(IndexError):
        data[len(data)]


def test_transforms(tiled):
    data = ImageDataset(tiled, v2.Compose([v2.RandomHorizontalFlip(1.0), v2.Resize(4)]), double)
    image, label = data[5]
    plain = ImageDataset(tiled)[5]
    assert torch.equal(image, v2.functional.resize(plain[0].flip(-1), 4)) and image.shape == (1, 4, 4)
    assert torch.equal(label, 2 * plain[1])


@pytest.mark.parametrize("limit", [base.MATERIALISE_LIMIT, 0])
def test_a_dataset_can_be_sent_to_a_worker(compensated, limit, monkeypatch):
    monkeypatch.setattr(base, "MATERIALISE_LIMIT", limit)
    data = ImageDataset(compensated, v2.RandomHorizontalFlip(1.0), double)
    copy = pickle.loads(pickle.dumps(data))
    assert all(torch.equal(a, b) for a, b in zip(copy[7], data[7], strict=True))
