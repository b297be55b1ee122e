"""Released files are read unchanged or rejected with a reason, and no code in them is run."""

import pickle
import zipfile

import numpy as np
import pytest
import torch

from dd_bench.hub.importers import torch_files
from dd_bench.hub.importers.formats import read_files, read_pairs


@pytest.fixture
def tensors(blobs):
    """Network inputs of two images per class, and their classes."""
    index = torch.cat([(blobs.train.labels == c).nonzero()[:2, 0] for c in range(3)])
    return blobs.train.inputs(index), blobs.train.labels[index]


def save(tmp_path, name, content):
    torch.save(content, tmp_path / name)
    return tmp_path / name


class TestPairs:
    """The format of MTT, FTD, TESLA and DATM."""

    def test_images_and_labels(self, tensors, tmp_path):
        images, labels = (save(tmp_path, n, t) for n, t in zip(("x.pt", "y.pt"), tensors, strict=True))
        released = read_pairs([images], [labels])
        assert torch.equal(released.images, tensors[0]) and torch.equal(released.labels, tensors[1])

    def test_parameters_become_tensors(self, tensors, tmp_path):
        images = save(tmp_path, "images.pt", torch.nn.Parameter(tensors[0]))
        assert not read_pairs([images], [save(tmp_path, "labels.pt", tensors[1])]).images.requires_grad

    def test_shards(self, tensors, tmp_path):
        """Files are concatenated in the given order, and files of labels in another order are rejected."""
        images = [save(tmp_path, f"images_{i}.pt", tensors[0][2 * i : 2 * i + 2]) for i in range(3)]
        labels = [save(tmp_path, f"labels_{i:02d}.pt", tensors[1][2 * i : 2 * i + 2]) for i in range(3)]
        released = read_pairs(images, labels)
        assert torch.equal(released.images, tensors[0]) and torch.equal(released.labels, tensors[1])
        with pytest.raises(ValueError, match=r"images_0.pt is paired with labels_02.pt"):
            read_pairs(images, labels[::-1])
        with pytest.raises(ValueError, match="one file per file of images, got 1 for 3"):
            read_pairs(images, labels[:1])

    def test_shards_of_another_shape_are_rejected(self, tensors, tmp_path):
        images = [save(tmp_path, "x0.pt", tensors[0]), save(tmp_path, "x1.pt", tensors[0].double())]
        labels = [save(tmp_path, f"y{i}.pt", tensors[1]) for i in range(2)]
        with pytest.raises(ValueError, match=r"same dtype and shape, but those of x1.pt are torch.float64"):
            read_pairs(images, labels)

    @pytest.mark.parametrize("content", [torch.zeros(6), torch.zeros(5, 1, 8, 8), torch.zeros(0, 1, 8, 8)])
    def test_one_image_per_label_is_required(self, tensors, tmp_path, content):
        labels = save(tmp_path, "y.pt", tensors[1][: len(content) and 6])
        with pytest.raises(ValueError, match=r"must have shape \(n, c, h, w\) with one image per label"):
            read_pairs([save(tmp_path, "x.pt", content)], [labels])

    @pytest.mark.parametrize(
        "content", [[1.0], torch.zeros(6, dtype=torch.bool), torch.zeros(6, 1).to_sparse()]
    )
    def test_other_contents_are_rejected(self, tensors, tmp_path, content):
        images = save(tmp_path, "x.pt", content)
        with pytest.raises(ValueError, match="must contain a dense tensor of real numbers, got"):
            read_pairs([images], [save(tmp_path, "y.pt", tensors[1])])

    def test_a_tensor_that_repeats_stored_values_is_rejected(self, tensors, tmp_path):
        """A file of some kB could otherwise need gigabytes of memory."""
        images = save(tmp_path, "x.pt", torch.zeros(1).expand(400_000_000, 1, 8, 8))
        assert images.stat().st_size < 10_000
        with pytest.raises(ValueError, match=r"x\.pt must store every value, got a tensor of shape"):
            read_pairs([images], [save(tmp_path, "y.pt", tensors[1])])


class TestOneFile:
    """The formats of DC, DSA and DM (a list of sets) and of IDC (a pair)."""

    def content(self, tensors, count):
        accuracies = {"ConvNet": [np.float64(0.5), np.float32(0.25)]}
        return {"data": [[t.clone() for t in tensors] for _ in range(count)], "accs_all_exps": accuracies}

    @pytest.mark.parametrize("pair", [list, tuple])
    def test_pair(self, tensors, tmp_path, pair):
        released = read_files([save(tmp_path, "data.pt", pair(tensors))], None)
        assert torch.equal(released.images, tensors[0]) and torch.equal(released.labels, tensors[1])

    def test_shards_of_pairs(self, tensors, tmp_path):
        paths = [save(tmp_path, f"data{i}.pt", [t[3 * i : 3 * i + 3] for t in tensors]) for i in range(2)]
        assert torch.equal(read_files(paths, None).images, tensors[0])
        with pytest.raises(ValueError, match="--index requires one file"):
            read_files(paths, 0)

    def test_list_of_one_set(self, tensors, tmp_path):
        released = read_files([save(tmp_path, "res_DM_x.pt", self.content(tensors, 1))], None)
        assert torch.equal(released.images, tensors[0]) and torch.equal(released.labels, tensors[1])

    def test_list_of_several_sets(self, tensors, tmp_path):
        content = self.content(tensors, 3)
        content["data"][1][0] += 1
        path = save(tmp_path, "res.pt", content)
        assert torch.equal(read_files([path], 1).images, tensors[0] + 1)
        with pytest.raises(ValueError, match=r"contains 3 sets\. Use one of --index 0 to --index 2"):
            read_files([path], None)
        for index in (3, -1):
            with pytest.raises(ValueError, match=rf"--index must be in 0..2, .* got {index}"):
                read_files([path], index)

    @pytest.mark.parametrize(
        "content", [{"a": 1}, [1], {"data": []}, {"data": [[1, 2]]}, {"data": [torch.ones(2)]}]
    )
    def test_other_formats_are_rejected(self, tmp_path, content):
        with pytest.raises(ValueError, match=r"or a dictionary in which|must be two tensors"):
            read_files([save(tmp_path, "res.pt", content)], None)


class Malicious:
    def __reduce__(self):
        return (print, ("code was run",))


@pytest.mark.parametrize("write", [torch.save, lambda x, p: p.write_bytes(pickle.dumps(x))])
def test_code_is_not_run(tensors, tmp_path, capsys, write):
    path = tmp_path / "images.pt"
    write(Malicious(), path)
    with pytest.raises(ValueError, match=r"it calls print|it was not written by torch.save"):
        read_pairs([path], [save(tmp_path, "labels.pt", tensors[1])])
    assert "code was run" not in capsys.readouterr().out


def test_invalid_files_are_rejected(tensors, tmp_path):
    labels = save(tmp_path, "labels.pt", tensors[1])
    for content in (b"", b"not a file of tensors", (tmp_path / "labels.pt").read_bytes()[:100]):
        (tmp_path / "images.pt").write_bytes(content)
        with pytest.raises(ValueError, match="was not loaded"):
            read_pairs([tmp_path / "images.pt"], [labels])


def test_links_are_rejected(tensors, tmp_path):
    (tmp_path / "link.pt").symlink_to(save(tmp_path, "x.pt", tensors[0]))
    with pytest.raises(ValueError, match=r"link\.pt must be a regular file, got a symbolic link.*cp -rL"):
        read_pairs([tmp_path / "link.pt"], [save(tmp_path, "y.pt", tensors[1])])


def test_files_have_a_maximum_size(tmp_path, monkeypatch):
    path = save(tmp_path, "data.pt", [torch.zeros(1000), torch.zeros(1)])
    monkeypatch.setattr(torch_files, "MAX_FILE", 4000)
    with pytest.raises(
        ValueError, match=r"data\.pt must have at most 4,000 bytes, got 5.*Split it into several files"
    ):
        read_files([path], None)


@pytest.mark.parametrize("how", ["deflated", "truncated"])
def test_compressed_files_are_rejected(tmp_path, how):
    """A file of some kB could otherwise need gigabytes of memory."""
    plain, path = save(tmp_path, "plain.pt", torch.zeros(100_000)), tmp_path / "data.pt"
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as to:
        for name in source.namelist():
            to.writestr(name, source.read(name))
    assert torch.load(path, weights_only=True).shape == (100_000,)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-30])
    message = "must not be compressed, got .* bytes that expand to 400,|was not loaded: it is damaged"
    with pytest.raises(ValueError, match=message):
        read_files([path], None)
