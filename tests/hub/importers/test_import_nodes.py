"""Released sets of nodes: GCond's files, their labels, and files that are refused."""

import pickle
from collections import Counter

import pytest
import torch

from dd_bench.hub.importers.command import import_command
from dd_bench.hub.importers.node_files import gcond_labels
from dd_bench.leaderboards.admission.consistency import check_complete
from dd_bench.records.record import load_record
from dd_bench.synthetic import storage

SBM = [
    "dataset=sbm",
    "dataset.nodes=120",
    "dataset.classes=3",
    "dataset.features=8",
    "dataset.train=10",
    "dataset.val=30",
]


def adjacency(n=6):
    """Return a dense adjacency as that of GCond: symmetric, in [0, 1), with a zero diagonal."""
    a = torch.rand(n, n, generator=torch.Generator().manual_seed(0))
    return ((a + a.t()) / 2).fill_diagonal_(0)


def files(folder, n=6, d=8, weights=None, name="sbm_0.2_0"):
    """Write the two files of a set in GCond's format."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(1))
    torch.save(x, folder / f"feat_{name}.pt")
    torch.save(adjacency(n) if weights is None else weights, folder / f"adj_{name}.pt")
    return [folder / f"adj_{name}.pt", folder / f"feat_{name}.pt"]


def run(sources, *options, ipc=2, to="set"):
    words = [
        *map(str, sources),
        *SBM,
        "--ipc",
        str(ipc),
        "--name",
        "gcond-authors",
        "--to",
        str(to),
        *options,
    ]
    return import_command(words)


def test_from_released_files_to_a_record(dd_bench, tmp_path):
    sources = files(tmp_path)
    assert run(sources, to=tmp_path / "set") == 0
    syn, card = storage.load(tmp_path / "set")
    assert (
        syn.kind == "nodes" and card.method == "gcond-authors" and syn.labels.bincount().tolist() == [2, 2, 2]
    )
    assert torch.equal(syn.features, torch.load(sources[1])) and syn.edges.shape == (2, 30)
    dense = torch.zeros(6, 6)
    dense[syn.edges[0], syn.edges[1]] = syn.weights
    assert torch.equal(dense, adjacency())
    short = ["protocol.recipe.steps=2", "evaluator.num_networks=1", "model.hidden=8"]
    done = dd_bench("evaluate", "set=set", *SBM, *short)
    assert done.code == 0, done.text
    (path,) = (tmp_path / "runs" / "records").glob("*.json")
    record = load_record(path)
    assert record.method == "gcond-authors" and record.config["released"] == card.config["released"]
    check_complete(record)


def test_labels_of_a_file_and_features_alone(tmp_path):
    sources = files(tmp_path)
    torch.save(torch.tensor([0, 0, 1, 1, 2, 2]), tmp_path / "label.pt")
    assert run(sources[1:], "--labels", str(tmp_path / "label.pt"), to=tmp_path / "a") == 0
    syn, _ = storage.load(tmp_path / "a")
    assert syn.labels.tolist() == [0, 0, 1, 1, 2, 2] and not syn.edges.numel()
    torch.save(torch.eye(3).repeat(2, 1), tmp_path / "soft.pt")
    assert run(sources, "--labels", str(tmp_path / "soft.pt"), to=tmp_path / "b") == 0
    assert storage.load(tmp_path / "b")[0].labels.shape == (6, 3)


def released_labels(train, ratio):
    """Count the nodes of each class as GCond's code does, from the class with the fewest training nodes on."""
    counter = sorted(Counter(train).items(), key=lambda x: x[1])
    labels = []
    for i, (c, number) in enumerate(counter):
        size = max(int(number * ratio), 1)
        if i == len(counter) - 1:
            size = int(len(train) * ratio) - len(labels)
        labels += [c] * size
    return labels


@pytest.mark.parametrize("ratio", [0.25, 0.5, 1.0])
def test_labels_are_those_of_the_released_code(ratio):
    train = [3, 4, 4, 0, 3, 2, 0, 3, 3, 2, 4, 2, 1] * 8
    assert gcond_labels(torch.tensor(train), ratio, 6).tolist() == released_labels(train, ratio)
    balanced = [2, 0, 1] * 20
    assert gcond_labels(torch.tensor(balanced), 0.25, 3).tolist() == [2] * 5 + [0] * 5 + [1] * 5
    with pytest.raises(ValueError, match=r"leaves no node for class 1\. Add --labels FILE"):
        gcond_labels(torch.tensor(balanced), 0.02, 3)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.zeros(5, 5), r"must have shape (6, 6), got (5, 5)"),
        (adjacency().triu(), "must be symmetric"),
        (adjacency() + torch.eye(6), "diagonal"),
        (-adjacency(), "must be finite and >= 0"),
        (adjacency() * float("nan"), "must be finite and >= 0"),
    ],
)
def test_wrong_adjacencies(tmp_path, capsys, weights, message):
    assert run(files(tmp_path, weights=weights), to=tmp_path / "set") == 1
    assert message in capsys.readouterr().err and not (tmp_path / "set").exists()


def test_wrong_files_and_options(tmp_path, capsys):
    def refused(sources, *options):
        assert run(sources, *options, to=tmp_path / "set") == 1
        return capsys.readouterr().err

    good = files(tmp_path)
    assert "--classes applies to images only" in refused(good, "--classes", "sorted")
    assert "--resize requires a folder" in refused(good, "--resize")
    assert "at most one of the adjacency" in refused([*good, good[0]])
    assert "features must have shape (n, 8)" in refused(files(tmp_path, d=7))
    assert "must have the ratio of GCond" in refused(files(tmp_path, name="sbm"))
    assert "got 6 labels for 5 nodes" in refused(files(tmp_path, n=5))
    assert "with ipc=1" in refused(files(tmp_path), *["--ipc", "1"])


class Runs:
    def __reduce__(self):
        return eval, ("1 / 0",)


def test_files_never_run_code(tmp_path, capsys):
    sources = files(tmp_path)
    sources[1].write_bytes(pickle.dumps(Runs()))
    assert run(sources, to=tmp_path / "set") == 1
    assert "was not loaded" in capsys.readouterr().err
