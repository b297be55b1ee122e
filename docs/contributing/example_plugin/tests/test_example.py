"""Tests of the example: the mathematics first, then one run."""

from types import SimpleNamespace

import numpy as np
import torch
from example_plugin.group_means import group_means
from example_plugin.shapes import CLASSES, draw
from example_plugin.small_net import SmallNet

import dd_bench

SEARCHPATH = "hydra.searchpath=[pkg://example_plugin.conf]"


def test_the_mean_of_equal_groups_is_the_class_mean():
    real = dd_bench.real_set("shapes", SEARCHPATH, "dataset.per_class=20")
    ctx = SimpleNamespace(device=torch.device("cpu"), generator=lambda *_: torch.Generator().manual_seed(0))
    images = group_means(real, 4, ctx)
    assert images.shape == (4, 4, 1, 16, 16)
    for c in range(4):
        torch.testing.assert_close(images[c].mean(0), real.train.inputs(real.train.of_class(c)).mean(0))


def test_shapes_are_drawn_as_described():
    images, labels = draw(30, 0.0, np.random.default_rng(0))
    assert images.shape == (120, 1, 16, 16) and images.dtype == torch.uint8
    assert torch.equal(labels.bincount(), torch.full((4,), 30))
    assert all(len(image.unique()) == 2 for image in images), "without noise, a shape on a black background"
    area = {name: (images[labels == c] > 0).float().mean() for c, name in enumerate(CLASSES)}
    assert area["disc"] > area["square"] > area["triangle"] > area["cross"]


def test_network_maps_images_to_logits():
    net = SmallNet(num_classes=4, in_channels=3, width=8)
    assert net(torch.zeros(2, 3, 16, 16)).shape == (2, 4)


def test_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    choices = ["method=group_means", "model=small_net", "dataset=shapes", "ipc=2"]
    short = ["method.iterations=3", "evaluator.num_networks=2", "protocol.recipe.epochs=3"]
    record = dd_bench.run([SEARCHPATH, *choices, *short])
    assert (record.method, record.dataset, len(record.scores)) == ("group_means", "shapes", 2)
