"""Released sets are imported unchanged or rejected with a reason, and no code in them is run."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from dd_bench.hub.importers import far_outside, import_command, read_folder, read_list, read_pair
from dd_bench.records.record import load_record
from dd_bench.synthetic import storage


@pytest.fixture
def tensors(blobs):
    """Network inputs of two images per class, and their classes."""
    index = torch.cat([(blobs.train.labels == c).nonzero()[:2, 0] for c in range(3)])
    return blobs.train.inputs(index), blobs.train.labels[index]


def save(tmp_path, name, content):
    torch.save(content, tmp_path / name)
    return tmp_path / name


class TestPair:
    """The format of MTT, FTD, TESLA and DATM."""

    def test_images_and_classes(self, blobs, tensors, tmp_path):
        images, labels = (
            save(tmp_path, n, t) for n, t in zip(("images.pt", "labels.pt"), tensors, strict=True)
        )
        syn = read_pair(images, labels, blobs, logits=False, lr=0.02)
        assert torch.equal(syn.materialise(torch.device("cpu"))[0], tensors[0]) and syn.lr == 0.02
        assert torch.equal(syn.labels, tensors[1]) and syn.space == "input" and far_outside(syn) == 0

    def test_soft_labels(self, blobs, tensors, tmp_path):
        logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).double()
        images, labels = save(tmp_path, "images.pt", tensors[0]), save(tmp_path, "labels.pt", logits)
        syn = read_pair(images, labels, blobs, logits=True, lr=None)
        assert torch.allclose(syn.labels, logits.softmax(1).float()) and syn.labels.dtype == torch.float32
        with pytest.raises(ValueError, match="must be a probability distribution"):
            read_pair(images, labels, blobs, logits=False, lr=None)

    def test_parameters_become_tensors(self, blobs, tensors, tmp_path):
        images = save(tmp_path, "images.pt", torch.nn.Parameter(tensors[0]))
        labels = save(tmp_path, "labels.pt", tensors[1].int())
        assert not read_pair(images, labels, blobs, logits=False, lr=None).images.requires_grad

    def test_images_of_another_dataset(self, blobs, tensors, tmp_path):
        images = save(tmp_path, "images.pt", tensors[0].expand(6, 3, 8, 8).clone())
        labels = save(tmp_path, "labels.pt", tensors[1])
        with pytest.raises(
            ValueError, match=r"must have shape \(n, 1, 8, 8\) like those of blobs, got \(6, 3, 8, 8\)"
        ):
            read_pair(images, labels, blobs, logits=False, lr=None)

    def test_another_preprocessing_is_detected(self, blobs, tensors, tmp_path):
        images, labels = save(tmp_path, "i.pt", tensors[0] * 9), save(tmp_path, "l.pt", tensors[1])
        assert far_outside(read_pair(images, labels, blobs, logits=False, lr=None)) > 0.1


class TestList:
    """The format of DC, DSA and DM."""

    def content(self, tensors, count):
        accuracies = {"ConvNet": [np.float64(0.5), np.float32(0.25)]}
        return {"data": [[t.clone() for t in tensors] for _ in range(count)], "accs_all_exps": accuracies}

    def test_one_set(self, blobs, tensors, tmp_path):
        syn = read_list(save(tmp_path, "res_DM_x.pt", self.content(tensors, 1)), None, blobs)
        assert torch.equal(syn.images, tensors[0]) and torch.equal(syn.labels, tensors[1])

    def test_several_sets(self, blobs, tensors, tmp_path):
        content = self.content(tensors, 3)
        content["data"][1][0] += 1
        path = save(tmp_path, "res.pt", content)
        assert torch.equal(read_list(path, 1, blobs).images, tensors[0] + 1)
        with pytest.raises(ValueError, match=r"contains 3 sets\. Use one of --index 0 to --index 2"):
            read_list(path, None, blobs)
        with pytest.raises(ValueError, match=r"--index must be in 0\.\.2"):
            read_list(path, 3, blobs)

    @pytest.mark.parametrize(
        "content", [{"a": 1}, [1], {"data": []}, {"data": [[1, 2]]}, {"data": [torch.ones(2)]}]
    )
    def test_other_formats_are_rejected(self, blobs, tmp_path, content):
        with pytest.raises(ValueError, match=r"must contain a dictionary in which|must be two tensors"):
            read_list(save(tmp_path, "res.pt", content), None, blobs)


class TestFolder:
    """The format of SRe2L and RDED."""

    def fill(self, root, names, side=8, mode="L"):
        draw = np.random.default_rng(0)
        for name in names:
            (root / name).mkdir(parents=True)
            for i in range(2):
                shape = (side, side) if mode == "L" else (side, side, 3)
                Image.fromarray(draw.integers(0, 256, shape, dtype=np.uint8)).save(root / name / f"{i}.png")
        return root

    def test_numbered_folders_are_in_label_order(self, blobs, tmp_path):
        root = self.fill(tmp_path / "s", ["00000", "00001", "00002"])
        syn = read_folder(root, blobs)
        assert syn.labels.tolist() == [0, 0, 1, 1, 2, 2] and syn.space == "pixel"
        assert np.array_equal(syn.images[2, 0].numpy(), np.asarray(Image.open(root / "00001" / "0.png")))

    def test_folders_are_matched_by_class_name(self, real_set, tmp_path):
        """Also folders written by `export`, and class names with characters that a folder name cannot contain."""
        real = real_set(names=("cod", "T-shirt/top", "bee"))
        for i, names in enumerate((["T-shirt_top", "bee", "cod"], ["0_cod", "1_T-shirt_top", "2_bee"])):
            root = self.fill(tmp_path / str(i), names)
            first = read_folder(root, real).images[0, 0].numpy()
            (cod,) = (n for n in names if n.endswith("cod"))
            assert np.array_equal(first, np.asarray(Image.open(root / cod / "0.png")))

    def test_numbers_are_sorted_numerically(self, real_set, tmp_path):
        real = real_set(classes=11, names=tuple("abcdefghijk"))
        root = self.fill(tmp_path / "s", [f"new{i}" for i in range(11)])
        images = read_folder(root, real).images[:, 0].numpy()
        assert np.array_equal(images[4], np.asarray(Image.open(root / "new2" / "0.png")))

    def test_other_names_are_rejected(self, blobs, tmp_path):
        with pytest.raises(
            ValueError, match=r"must be named like the classes of blobs .* got \['dog', 'eel'\]"
        ):
            read_folder(self.fill(tmp_path / "s", ["ape", "dog", "eel"]), blobs)

    def test_wrong_numbers_and_sizes_are_rejected(self, blobs, tmp_path):
        with pytest.raises(ValueError, match="a folder for each of the 3 classes of blobs, got 2"):
            read_folder(self.fill(tmp_path / "a", ["0", "1"]), blobs)
        with pytest.raises(ValueError, match="must have 8x8 pixels, got 9x9"):
            read_folder(self.fill(tmp_path / "b", ["0", "1", "2"], side=9), blobs)
        with pytest.raises(ValueError, match="got colour images"):
            read_folder(self.fill(tmp_path / "c", ["0", "1", "2"], mode="RGB"), blobs)


def test_flags_of_other_formats_are_rejected(dd_bench, tmp_path):
    save(tmp_path, "res.pt", {"data": [[torch.zeros(10, 1, 8, 8), torch.arange(10)]]})
    arguments = ["import", "res.pt", "dataset=digits", "--ipc", "1", "--name", "x", "--to", "set"]
    assert "--lr requires a file of labels" in dd_bench(*arguments, "--lr", "0.1").text
    assert "the file missing.pt does not exist" in dd_bench("import", "missing.pt", *arguments[2:]).text
    save(tmp_path, "images.pt", torch.zeros(10, 1, 8, 8))
    assert "got a Tensor. If it contains the images" in dd_bench("import", "images.pt", *arguments[2:]).text
    assert dd_bench(*arguments).code == 0


class Malicious:
    def __reduce__(self):
        return (print, ("code was run",))


@pytest.mark.parametrize("write", [torch.save, lambda x, p: p.write_bytes(pickle.dumps(x))])
def test_code_is_not_run(blobs, tensors, tmp_path, capsys, write):
    path = tmp_path / "images.pt"
    write(Malicious(), path)
    with pytest.raises(ValueError, match=r"it calls print|it was not written by torch.save"):
        read_pair(path, save(tmp_path, "labels.pt", tensors[1]), blobs, logits=False, lr=None)
    assert "code was run" not in capsys.readouterr().out


def test_invalid_files_are_rejected(blobs, tensors, tmp_path):
    labels = save(tmp_path, "labels.pt", tensors[1])
    for content in (b"", b"not a file of tensors", (tmp_path / "labels.pt").read_bytes()[:100]):
        (tmp_path / "images.pt").write_bytes(content)
        with pytest.raises(ValueError, match="was not loaded"):
            read_pair(tmp_path / "images.pt", labels, blobs, logits=False, lr=None)


def test_from_released_files_to_a_record(dd_bench, tmp_path):
    """Import a released set and evaluate it with fresh networks."""
    images = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    source, labels = (
        save(tmp_path, "images_best.pt", images),
        save(tmp_path, "labels_best.pt", torch.arange(10)),
    )
    arguments = [
        "import",
        str(source),
        "dataset=digits",
        "--labels",
        str(labels),
        "--ipc",
        "1",
        "--lr",
        "0.02",
    ]
    arguments += ["--to", "set", "--citation", "Authors (2022)", "--name"]
    done = dd_bench(*arguments, "mtt")
    assert done.code == 1
    assert "must not be the name of a method of dd_bench, got mtt. Example: --name mtt-authors" in done.text
    done = dd_bench(*arguments, "mtt-authors")
    assert (done.code, done.text) == (0, "set\n")
    syn, card = storage.load(tmp_path / "set")
    assert card.method == "mtt-authors" and "Authors (2022)" in card.citations and syn.lr == 0.02
    assert set(card.config["released"]["files"]) == {"images_best.pt", "labels_best.pt"}
    short = ["model.width=8", "protocol.recipe.epochs=2", "evaluator.num_networks=1"]
    done = dd_bench("evaluate", "set=set", *short)
    assert done.code == 0, done.text
    (path,) = (tmp_path / "runs" / "records").glob("*.json")
    record = load_record(path)
    assert record.method == "mtt-authors" and record.ipc == 1 and record.status == "done"


def test_exported_set_is_imported_unchanged(dd_bench, tmp_path):
    """Grey PNG files, with the commands export and import."""
    done = dd_bench("distill", "method=random", "dataset=digits", "ipc=1", "model.width=8")
    assert done.code == 0, done.text
    (folder,) = (tmp_path / "runs" / "sets").iterdir()
    assert dd_bench("export", str(folder), "images").code == 0
    done = dd_bench("import", "images", "--name", "authors", "--ipc", "1", "--to", "back", "dataset=digits")
    assert done.code == 0, done.text
    assert storage.load(tmp_path / "back")[0].images.equal(storage.load(folder)[0].images)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["dataset=nothing"], "nothing"),
        (["dataset=digits", "dataset.root"], "dataset.root"),
        ([], "the real set is missing"),
        (["dataset=digits", "ipc=7"], "only overrides of dataset are allowed, got ipc=7"),
        (["dataset=digits", "--name", "a: b] #2"], "must contain only letters, digits"),
        (["dataset=digits", "--name", "../up"], "must contain only letters, digits"),
        (["dataset=digits", "--name", ""], "must contain only letters, digits"),
        (["dataset=digits", "--ipc", "2"], "with ipc=2, a set must store 2 images per class, got"),
        (["dataset=motifs"], "consists of graphs"),
    ],
)
def test_command_rejects_wrong_arguments(tmp_path, capsys, changed, message):
    save(tmp_path, "i.pt", torch.zeros(10, 1, 8, 8)), save(tmp_path, "l.pt", torch.arange(10))
    arguments = [str(tmp_path / "i.pt"), "--labels", str(tmp_path / "l.pt"), "--ipc", "1", "--name", "x"]
    assert import_command([*arguments, "--to", str(tmp_path / "set"), *changed]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "set").exists()
