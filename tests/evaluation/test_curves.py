"""Training curves: points, files of interrupted trainings, and the names under which they are logged."""

import json

import torch

from dd_bench.evaluation.curves import POINTS, CurveFolder, CurveReader


def logged(folder, networks, **other):
    rows = []
    reader = CurveReader(folder, lambda *row: rows.append(row), "convnet", "own set")
    reader.forward(networks, **other)
    return rows


def trained(curve, epochs, start=0, steps=2):
    """Losses are equal to the number of the epoch, plus and minus one."""
    for epoch in range(start, epochs):
        for step in range(steps):
            curve.add_loss(torch.tensor(epoch + 1.0 + (-1) ** step))
        curve.end_epoch(epoch + 1)


def test_loss_is_the_mean_over_the_steps_of_a_point(tmp_path):
    curve = CurveFolder(tmp_path, "own set").curve("convnet", [11], epochs=3)
    trained(curve, 3)
    curve.add(3, "val_accuracy", 0.5)
    curve.save(complete=True)
    assert logged(tmp_path, {11: 4}) == [
        ("train_loss", 1, {"network 4": 1.0}),
        ("train_loss", 2, {"network 4": 2.0}),
        ("train_loss", 3, {"network 4": 3.0}),
        ("train_val_accuracy", 3, {"network 4": 0.5}),
    ]
    assert not list(tmp_path.iterdir()), "a curve is logged once"


def test_number_of_points_is_limited(tmp_path):
    curve = CurveFolder(tmp_path, "own set").curve("convnet", [11], epochs=7 * POINTS)
    trained(curve, 7 * POINTS, steps=1)
    curve.save(complete=True)
    rows = logged(tmp_path, {11: 0})
    assert len(rows) == POINTS and rows[-1][1] == 7 * POINTS


def test_resumed_curve_replaces_the_repeated_points(tmp_path):
    folder = CurveFolder(tmp_path, "own set")
    curve = folder.curve("convnet", [11], epochs=5)
    trained(curve, 4)
    curve.save(complete=False)
    assert logged(tmp_path, {11: 0}, all_finished=True) == [], "the training is not finished"
    curve = folder.curve("convnet", [11], epochs=5)
    trained(curve, 5, start=2)
    curve.save(complete=True)
    assert [epoch for _, epoch, _ in logged(tmp_path, {11: 0})] == [1, 2, 3, 4, 5]


def test_names(tmp_path):
    """Curves of other networks, sets and learning rates have another name; unknown seeds are logged last."""
    for trained_on, model, seeds, part in (
        ("own set", "convnet", [11], "lr 0.1"),
        ("own set", "vgg11", [11], ""),
        ("another set", "convnet", [11], ""),
        ("own set", "convnet", [99], ""),
        ("own set", "convnet", [11, 12], ""),
    ):
        curve = CurveFolder(tmp_path, trained_on).curve(model, seeds, 1, part)
        curve.add(1, "val_accuracy", torch.tensor([0.1, 0.2])[: len(seeds)])
        trained(curve, 1)
        curve.save(complete=True)
    names = {name for _, _, values in logged(tmp_path, {11: 0, 12: 1}) for name in values}
    assert names == {
        "network 0 lr 0.1", "network 0 vgg11", "network 0 on another ", "network 0", "network 1",
        "mean of network 0 to network 1",
    }  # fmt: skip
    (left,) = (json.loads(p.read_text()) for p in tmp_path.iterdir())
    assert left["seeds"] == [99]
    assert [list(values) for _, _, values in logged(tmp_path, {}, all_finished=True)] == [["seed 99"]] * 2
