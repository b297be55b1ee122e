"""Saving and loading of synthetic sets, and errors for modified, truncated and forged files."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors

from dd_bench.data.inputs import LazyInputs
from dd_bench.data.preprocess import ZCA, Normalise
from dd_bench.records.config_diff import shipped_config
from dd_bench.runtime.files import canonical
from dd_bench.synthetic import storage
from dd_bench.synthetic.card import read_card, read_provenance
from dd_bench.synthetic.compensated import CompensatedSet
from dd_bench.synthetic.graphs import GraphSet
from dd_bench.synthetic.images import ImageSet

CPU = torch.device("cpu")


def put(syn, folder: Path, real, **changes) -> Path:
    fields = {
        "method": "m",
        "ipc": int(syn.stored_samples().max()),
        "seed": 0,
        "config": {"method": syn.decoding()},
        "citations": ["somebody"],
        "provenance": {},
    }
    return storage.save(syn, folder, real=real, **fields | changes)


@pytest.fixture(scope="module")
def white(real_set):
    """Blobs under a fitted ZCA."""
    plain = real_set()
    pixels = plain.train.pixels(torch.arange(len(plain.train))) / 255
    return real_set(preprocess=ZCA.fit(pixels))


def images_of(real, space, n):
    draw = torch.Generator().manual_seed(0)
    if space == "pixel":
        return torch.randint(0, 256, (n, *real.shape), generator=draw, dtype=torch.uint8)
    if space == "unit":
        return torch.rand(n, *real.shape, generator=draw)
    return 3 * torch.randn(n, *real.shape, generator=draw)


def labels_of(real, mode, n):
    if mode == "hard":
        return torch.arange(n) % real.num_classes
    return torch.rand(n, real.num_classes, generator=torch.Generator().manual_seed(1)).softmax(1)


@pytest.mark.parametrize("mode", ["hard", "soft"])
@pytest.mark.parametrize(
    ("space", "factor"), [("pixel", 1), ("pixel", 2), ("unit", 1), ("unit", 2), ("input", 1)]
)
@pytest.mark.parametrize("which", ["blobs", "blobs3", "white"])
def test_round_trip(tmp_path, request, which, space, factor, mode):
    real = request.getfixturevalue(which)
    n = 2 * real.num_classes
    syn = ImageSet.of(real, images_of(real, space, n), labels_of(real, mode, n), space, factor)
    back, card = storage.load(put(syn, tmp_path / "set", real))
    assert isinstance(back, ImageSet)
    assert torch.equal(back.images, syn.images) and back.images.dtype == syn.images.dtype
    assert torch.equal(back.labels, syn.labels) and back.labels.dtype == syn.labels.dtype
    assert (back.space, back.factor, back.source) == (space, factor, None)
    assert (back.class_names, card.ipc) == (real.class_names, 2)
    assert back.preprocess.digest == real.preprocess.digest
    for mine, theirs in zip(syn.materialise(CPU), back.materialise(CPU), strict=True):
        assert torch.equal(mine, theirs)
    inputs, labels = back.materialise(CPU)
    assert len(inputs) == len(labels) == n * factor**2 and inputs.dtype == torch.float32
    assert storage.check_dataset(card, real) is None
    with Image.open(tmp_path / "set" / "preview.png") as picture:
        assert picture.format == "PNG" and picture.mode == "RGB"


def test_zca_is_stored_with_the_set(tmp_path, white):
    """A loaded set in whitened space uses the stored ZCA matrices."""
    folder = put(
        ImageSet.of(white, images_of(white, "input", 3), torch.arange(3), "input"), tmp_path / "set", white
    )
    assert set(load_file(folder / "preprocess.safetensors")) == {"mean", "transform", "transform_inverse"}
    back, _ = storage.load(folder)
    x = white.train.inputs(torch.arange(5))
    pixels = white.train.pixels(torch.arange(5)) / 255
    assert torch.equal(back.preprocess(pixels), x)
    torch.testing.assert_close(back.preprocess.inverse(x), pixels, atol=1e-4, rtol=0)


def compensated(real, sets=2, teachers=3):
    index = torch.cat([real.train.of_class(c)[:sets, None] for c in range(real.num_classes)], 1).flatten()
    u = torch.randn(sets, teachers, *real.shape, generator=torch.Generator().manual_seed(0))
    return CompensatedSet.of(real, index, u)


class TestCompensated:
    @pytest.mark.parametrize("which", ["blobs", "blobs3"])
    def test_round_trip(self, tmp_path, request, which):
        """A loaded set gives the same inputs: natural images, then compensated images, clamped."""
        real = request.getfixturevalue(which)
        syn = compensated(real)
        back, card = storage.load(put(syn, tmp_path / "set", real, ipc=4))
        assert isinstance(back, CompensatedSet) and card.kind == "compensated"
        for mine, theirs in zip(syn.materialise(CPU), back.materialise(CPU), strict=True):
            assert torch.equal(mine, theirs)
        inputs, labels = back.materialise(CPU)
        k = real.num_classes
        assert len(inputs) == len(labels) == 4 * 2 * k
        natural = real.train.inputs(torch.tensor(back.source))
        assert torch.equal(inputs[: 2 * k], natural)
        u = back.compensators.float()
        first = real.preprocess.inverse(natural[:k] + u[0, 1]).clamp(0, 1)
        assert torch.allclose(real.preprocess.inverse(inputs[4 * k : 5 * k]), first, atol=1e-5)
        assert card.stored_bytes["compensators"] == 2 * u.numel()
        assert (tmp_path / "set" / "preview.png").stat().st_size > 100

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"compensators": torch.zeros(2, 3, 1, 8, 8)}, "compensators must be float16"),
            ({"compensators": torch.zeros(2, 3, 1, 4, 4).half()}, r"\(c, h, w\) = \(1, 8, 8\)"),
            (
                {"compensators": torch.zeros(3, 3, 1, 8, 8).half()},
                "got 6 images, 3 natural sets and 3 classes",
            ),
            ({"compensators": torch.full((2, 3, 1, 8, 8), torch.inf).half()}, "compensators must be finite"),
            ({"labels": torch.tensor([0, 1, 2, 0, 1, 1])}, "natural set 1 must contain one image of each"),
            ({"images": torch.zeros(6, 1, 8, 8)}, "images in space .pixel. must be torch.uint8"),
            ({"source": (1, 2)}, "source must have 6 indices of training samples, got 2"),
        ],
    )
    def test_invalid_arguments(self, blobs, change, message):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(compensated(blobs), **change)

    def test_more_images_than_ipc(self, tmp_path, blobs):
        with pytest.raises(
            ValueError,
            match=r"ipc=3, a set must store at most 3 images per class, got 4 of .*: 2 natural sets of 3 images and 3",
        ):
            storage.load(put(compensated(blobs), tmp_path / "set", blobs, ipc=3))


@pytest.mark.parametrize("which", ["blobs", "blobs3", "white"])
@pytest.mark.parametrize("kind", ["pixel", "factor", "canvas", "input", "soft", "compensated"])
def test_lazy_inputs_equal_materialised_inputs(request, monkeypatch, which, kind):
    """Sets that do not fit into device memory are decoded batch by batch."""
    real = request.getfixturevalue(which)
    syn = {
        "pixel": lambda: ImageSet.coreset(real, torch.tensor([5, 0, 1])),
        "factor": lambda: ImageSet.of(real, images_of(real, "unit", 3), torch.arange(3), "unit", 2),
        "canvas": lambda: on_canvas(real, "unit"),
        "input": lambda: ImageSet.of(real, images_of(real, "input", 3), torch.arange(3), "input"),
        "soft": lambda: ImageSet.of(real, images_of(real, "unit", 3), labels_of(real, "soft", 3), "unit"),
        "compensated": lambda: compensated(real),
    }[kind]()
    inputs, labels = syn.materialise(CPU)
    size = inputs.numel() * 4
    monkeypatch.setattr("dd_bench.synthetic.base.MATERIALISE_LIMIT", size)
    assert isinstance(syn.network_inputs(CPU)[0], torch.Tensor)
    monkeypatch.setattr("dd_bench.synthetic.base.MATERIALISE_LIMIT", size - 1)
    lazy, lazy_labels = syn.network_inputs(CPU)
    assert isinstance(lazy, LazyInputs) and len(lazy) == len(inputs) and torch.equal(lazy_labels, labels)
    index = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))[: len(inputs) // 2 + 1]
    torch.testing.assert_close(lazy[index], inputs[index], rtol=0, atol=1e-5 if which == "white" else 0)


def test_coreset_stores_pixels_and_indices(tmp_path, blobs):
    syn = ImageSet.coreset(blobs, torch.tensor([5, 0, 1]))
    back, _ = storage.load(put(syn, tmp_path / "set", blobs))
    assert back.source == (5, 0, 1) and back.images.dtype == torch.uint8
    assert torch.equal(back.materialise(CPU)[0], blobs.train.inputs(torch.tensor([5, 0, 1])))


@pytest.mark.parametrize("mode", ["hard", "soft"])
def test_wrong_ipc(tmp_path, blobs, mode):
    syn = ImageSet.of(blobs, images_of(blobs, "unit", 6), labels_of(blobs, mode, 6), "unit")
    with pytest.raises(ValueError, match=r"ipc=7, a set must store 7 images per class, got 2 .* Use ipc=2"):
        storage.load(put(syn, tmp_path / "set", blobs, ipc=7))


def test_the_whole_training_set_has_no_ipc(tmp_path, blobs):
    syn = ImageSet.coreset(blobs, torch.arange(len(blobs.train)), whole=True)
    full = {"method": "full", "config": {"method": {"_choice_": "full"}}}
    back, _ = storage.load(put(syn, tmp_path / "set", blobs, ipc=1, **full))
    back.check_whole(blobs.train.labels)
    assert back.whole and len(back.images) == len(blobs.train)


def test_whole_is_only_for_all_training_images_of_the_method_full(tmp_path, blobs):
    """A card with `"whole": true` switched off the check of the IPC, for any method and any number of images."""
    few = torch.arange(3 * blobs.num_classes)
    syn = ImageSet.coreset(blobs, few, whole=True)
    for i, config in enumerate(({"method": {"_choice_": "random"}}, {"method": {}}, {"released": {}})):
        name = "full" if "released" in config else "random"
        with pytest.raises(ValueError, match=f"a set of the method '{name}' is not the whole training set"):
            storage.load(put(syn, tmp_path / str(i), blobs, ipc=1, method=name, config=config))
    with pytest.raises(
        ValueError, match="method must be 'full' as in the configuration in its card, got 'random'"
    ):
        full = {"method": {"_choice_": "full"}}
        storage.load(put(syn, tmp_path / "named", blobs, ipc=1, method="random", config=full))
    with pytest.raises(
        ValueError, match=rf"must have all {len(blobs.train)} training images, got {len(few)}"
    ):
        syn.check_whole(blobs.train.labels)
    for source in (None, (*range(1, len(few)), 0)):
        with pytest.raises(ValueError, match=r"must have hard labels and the source 0, 1, \.\.\., "):
            dataclasses.replace(syn, source=source)
    ImageSet.coreset(blobs, few).check_whole(blobs.train.labels)


def test_stored_bytes(real_set, white):
    """Compare with sizes computed by hand for the stored dtypes."""
    real = real_set()

    def size(images, labels):
        return ImageSet(images, labels, "pixel", tuple("0123456789"), real.preprocess).stored_bytes()

    ten = torch.zeros(10, 1, 28, 28, dtype=torch.uint8)
    assert size(ten, torch.arange(10)) == {"images": 7840, "labels": 80}
    assert size(ten, torch.full((10, 10), 0.1)) == {"images": 7840, "labels": 400}
    floats = ImageSet(torch.zeros(3, 1, 8, 8), torch.arange(3), "input", white.class_names, white.preprocess)
    assert floats.stored_bytes() == {
        "images": 768,
        "labels": 24,
        "preprocess.mean": 4 * 64,
        "preprocess.transform": 4 * 64 * 64,
        "preprocess.transform_inverse": 4 * 64 * 64,
    }


def test_one_seed_gives_the_same_bytes(tmp_path, blobs):
    syn = ImageSet.of(blobs, images_of(blobs, "unit", 6), labels_of(blobs, "soft", 6), "unit")
    first, second = (put(syn, tmp_path / name, blobs) for name in "ab")
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name
    assert storage.digest(first) == storage.digest(second)


def test_existing_folder_is_not_replaced(tmp_path, blobs):
    syn = ImageSet.coreset(blobs, torch.arange(3))
    put(syn, tmp_path / "set", blobs)
    before = storage.digest(tmp_path / "set")
    with pytest.raises(FileExistsError, match="Remove it first"):
        put(syn, tmp_path / "set", blobs, seed=1)
    assert storage.digest(tmp_path / "set") == before and len(list(tmp_path.iterdir())) == 1


def on_canvas(real, space, mode="hard", n=None, side=2, **more):
    """Return a set whose stored images are canvases of side x side training images."""
    n = n or 2 * real.num_classes
    c, h, w = real.shape
    draw = torch.Generator().manual_seed(2)
    images = torch.rand(n, c, side * h, side * w, generator=draw)
    images = images if space == "unit" else 3 * images - 1
    return ImageSet.of(real, images, labels_of(real, mode, n), space, canvas=side, **more)


class TestLearnedRate:
    """The learning rate that was distilled with the images."""

    @pytest.mark.parametrize("lr", [0.01, 1e-6, 0.1 + 0.2, float(torch.tensor(0.0123)), 3e38, 5e-324])
    def test_round_trip(self, tmp_path, blobs, lr):
        syn = ImageSet.of(blobs, images_of(blobs, "unit", 6), labels_of(blobs, "soft", 6), "unit", lr=lr)
        back, card = storage.load(put(syn, tmp_path / "set", blobs))
        assert back.lr == lr and type(back.lr) is float and card.set["lr"] == lr
        assert storage.check_dataset(card, blobs) is None

    @pytest.mark.parametrize(
        "lr", [0.0, -0.01, torch.nan, torch.inf, 1, 0, True, "0.1", torch.tensor(0.1)], ids=repr
    )
    def test_invalid_values(self, blobs, lr):
        with pytest.raises(ValueError, match=r"lr must be a positive finite float, got "):
            ImageSet.of(blobs, images_of(blobs, "unit", 3), torch.arange(3), "unit", lr=lr)

    def test_default_is_none(self, tmp_path, blobs):
        for syn in (
            ImageSet.coreset(blobs, torch.arange(3)),
            ImageSet.of(blobs, images_of(blobs, "unit", 3), torch.arange(3), "unit"),
        ):
            assert syn.lr is None and syn.canvas == 1

    def test_it_changes_the_digest(self, tmp_path, blobs):
        digests = set()
        for lr in (None, 0.01, 0.02):
            syn = ImageSet.of(blobs, images_of(blobs, "unit", 3), torch.arange(3), "unit", lr=lr)
            digests.add(storage.digest(put(syn, tmp_path / f"{lr}", blobs)))
        assert len(digests) == 3


class TestCanvas:
    """Each stored image is a grid of canvas^2 training images."""

    @pytest.mark.parametrize("mode", ["hard", "soft"])
    @pytest.mark.parametrize("side", [2, 3])
    @pytest.mark.parametrize("space", ["unit", "input"])
    def test_round_trip(self, tmp_path, blobs3, space, side, mode):
        syn = on_canvas(blobs3, space, mode, side=side, lr=0.02)
        folder = put(syn, tmp_path / "set", blobs3)
        back, card = storage.load(folder)
        assert (back.canvas, back.lr, back.space) == (side, 0.02, space)
        assert torch.equal(back.images, syn.images) and torch.equal(back.labels, syn.labels)
        assert card.set["image_shape"] == [3, 8, 8] and card.set["canvas"] == side
        assert storage.check_dataset(card, blobs3) is None
        back.check_ipc(2 * side**2)
        assert card.stored_bytes["images"] == 8 * 3 * 64 * side**2 * 4, (
            "bytes of the stored images, not of the training images"
        )
        for mine, theirs in zip(syn.materialise(CPU), back.materialise(CPU), strict=True):
            assert torch.equal(mine, theirs)
        with Image.open(folder / "preview.png") as picture:
            assert picture.format == "PNG"

    @pytest.mark.parametrize("mode", ["hard", "soft"])
    @pytest.mark.parametrize("space", ["unit", "input"])
    def test_training_inputs_are_the_tiles_with_their_labels(self, blobs3, space, mode):
        syn = on_canvas(blobs3, space, mode, side=3)
        inputs, labels = syn.materialise(CPU)
        assert inputs.shape == (8 * 9, 3, 8, 8) and len(labels) == 8 * 9
        for n in range(8):
            for i in range(3):
                for j in range(3):
                    piece = syn.images[n : n + 1, :, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
                    expected = piece if space == "input" else blobs3.preprocess(piece)
                    assert torch.equal(inputs[9 * n + 3 * i + j], expected[0])
                    assert torch.equal(labels[9 * n + 3 * i + j], syn.labels[n])

    def test_under_zca_each_tile_is_whitened(self, white):
        """A transform fitted to 8x8 images is not applicable to 16x16 canvases."""
        syn = on_canvas(white, "unit", n=3)
        inputs, _ = syn.materialise(CPU)
        torch.testing.assert_close(inputs[1:2], white.preprocess(syn.images[:1, :, :8, 8:]))

    def test_preview_under_zca(self, tmp_path, white):
        storage.load(put(on_canvas(white, "input", n=3), tmp_path / "set", white))

    def test_readme_contains_the_stored_shape(self, tmp_path, blobs):
        folder = put(on_canvas(blobs, "unit"), tmp_path / "set", blobs)
        assert "[1, 16, 16]" in (folder / "README.md").read_text()

    def test_a_canvas_counts_as_the_images_of_its_size(self, tmp_path, blobs):
        """A set of one 64x64 image per class with 64 real digits was accepted as IPC 1."""
        syn = on_canvas(blobs, "unit", n=3, side=8)
        folder = put(syn, tmp_path / "set", blobs, ipc=1)
        message = (
            r"with ipc=1, a set must store 1 images per class, got 64 .* canvas=8, .* as 64\. Use ipc=64"
        )
        with pytest.raises(ValueError, match=message):
            storage.load(folder)
        syn.check_ipc(64)

    @pytest.mark.parametrize(
        ("space", "canvas", "factor"),
        [
            ("pixel", 2, 1),
            ("unit", 2, 2),
            ("unit", 0, 1),
            ("input", -1, 1),
            ("unit", "2", 1),
            ("unit", 2.0, 1),
            ("unit", True, 1),
            ("input", None, 1),
        ],
    )
    def test_invalid_values(self, blobs, space, canvas, factor):
        message = rf"got canvas={canvas!r} with factor={factor} in space '{space}'"
        with pytest.raises(ValueError, match=message):
            ImageSet.of(blobs, images_of(blobs, space, 3), torch.arange(3), space, factor, canvas=canvas)

    @pytest.mark.parametrize("shape", [(8, 9), (9, 8), (7, 7)])
    def test_canvas_must_divide_the_image_size(self, blobs, shape):
        with pytest.raises(
            ValueError, match=rf"canvas must divide the image size \({shape[0]}, {shape[1]}\), got 2"
        ):
            ImageSet.of(blobs, torch.zeros(3, 1, *shape), torch.arange(3), "unit", canvas=2)


def test_factor_and_canvas_are_those_of_the_method(tmp_path, blobs):
    """Ten 8x8 images with factor=300 became 900,000 training images."""
    with pytest.raises(
        ValueError, match=r"factor must be at most the shorter side of the images, 8, .* got 300"
    ):
        ImageSet.of(blobs, images_of(blobs, "unit", 3), torch.arange(3), "unit", 300)
    syn = ImageSet.of(blobs, images_of(blobs, "unit", 3), torch.arange(3), "unit", 2)
    for i, config in enumerate(({}, {"method": {}}, {"method": {"factor": 3}}, {"method": {"factor": "2"}})):
        with pytest.raises(ValueError, match=r"factor must be .* as in \w+\.factor of the configuration"):
            storage.load(put(syn, tmp_path / str(i), blobs, config=config))
    storage.load(put(syn, tmp_path / "released", blobs, config={"released": {"factor": 2}}))
    canvas = on_canvas(blobs, "unit", n=3)
    with pytest.raises(ValueError, match=r"canvas must be 1 as in method\.canvas"):
        storage.load(put(canvas, tmp_path / "canvas", blobs, config={"method": {"factor": 2}}))


def test_a_shipped_method_decodes_only_by_its_own_parameters(tmp_path, blobs):
    """A card of `random` with an invented `method.factor` decoded each image to factor^2 training images."""
    mosaics = ImageSet.of(blobs, images_of(blobs, "unit", 3), torch.arange(3), "unit", 2)

    def load(syn, name, part, **values):
        folder = tmp_path / f"{name}-{part}-{syn.kind}-{len(list(tmp_path.iterdir()))}"
        choice = {"_choice_": name} if part == "method" else {}
        values, teachers = {k: v for k, v in values.items() if k != "teachers"}, values.get("teachers", {})
        config = {part: choice | values, "teachers": teachers}
        return storage.load(put(syn, folder, blobs, method=name, config=config))

    for part in ("method", "released"):
        with pytest.raises(ValueError, match=r"the method 'random' has no parameter method\.factor, got 2"):
            load(mosaics, "random", part, factor=2)
        load(mosaics, "ncfm", part, factor=2)
        load(mosaics, "of another package", part, factor=2)
    canvas = on_canvas(blobs, "unit", n=3)
    with pytest.raises(ValueError, match=r"the method 'ncfm' has no parameter method\.canvas, got 2"):
        load(canvas, "ncfm", "method", canvas=2)
    load(canvas, "mtt", "method", canvas=2)
    added = compensated(blobs)
    with pytest.raises(
        ValueError, match=r"the method 'random' returns sets of kind images or graphs, got kind 'compensated'"
    ):
        load(added, "random", "method")
    with pytest.raises(ValueError, match=r"must have 1 compensators, one for each of the teachers"):
        load(added, "infer", "method", teachers={"a": {}})
    load(added, "infer", "method", teachers={str(i): {} for i in range(added.compensators.shape[1])})


def test_every_kind_counts_stored_samples(blobs):
    """One definition of IPC: arrays of the size of a dataset image per class, whatever is decoded from them."""
    soft = ImageSet.of(blobs, images_of(blobs, "unit", 6), labels_of(blobs, "soft", 6), "unit", 2)
    assert soft.stored_samples().tolist() == [2, 2, 2]
    assert compensated(blobs).stored_samples().tolist() == [4, 4, 4]
    assert on_canvas(blobs, "unit", n=3).stored_samples().tolist() == [4, 4, 4]


def test_config_omits_lr_and_canvas_at_their_defaults(tmp_path, blobs):
    """The digest is therefore that of sets created before these fields existed."""
    soft = labels_of(blobs, "soft", 6)
    syn = ImageSet.of(blobs, images_of(blobs, "unit", 6), soft, "unit", 2)
    plain = {"space": "unit", "factor": 2, "image_shape": [1, 8, 8], "source": None}
    assert syn.config() == plain and read_card(put(syn, tmp_path / "a", blobs)).set == plain
    assert ImageSet.coreset(blobs, torch.arange(3)).config() == {
        "space": "pixel",
        "factor": 1,
        "image_shape": [1, 8, 8],
        "source": [0, 1, 2],
    }
    explicit = ImageSet.of(blobs, syn.images, soft, "unit", 2, lr=None, canvas=1)
    assert storage.digest(put(explicit, tmp_path / "b", blobs)) == storage.digest(tmp_path / "a")


class TestReadme:
    """The dataset card for the Hugging Face hub."""

    @pytest.fixture
    def write(self, tmp_path, blobs):
        def write(syn=None, **changes):
            syn = syn or ImageSet.coreset(blobs, torch.arange(3))
            return (put(syn, tmp_path / "set", blobs, **changes) / "README.md").read_text()

        return write

    def test_changed_values_of_the_dataset_are_in_the_command(self, write):
        values = shipped_config("dataset", "cifar10") | {
            "preprocess": "zca",
            "root": "/home/me",
            "val_fraction": 0.1,
        }
        text = write(config={"dataset": values})
        words = "dataset=cifar10 dataset.preprocess=zca dataset.val_fraction=0.1 protocol=dsa-1000\n"
        assert f"    dd-bench evaluate set=THIS_FOLDER {words}" in text

    def test_network_of_the_distillation_is_in_the_command(self, write):
        text = write(
            config={"model": shipped_config("model", "convnet") | {"_choice_": "convnet", "width": 8}}
        )
        words = "dataset=blobs model=convnet model.width=8 protocol=dsa-1000\n"
        assert f"    dd-bench evaluate set=THIS_FOLDER {words}" in text

    def test_text_of_users_cannot_change_the_direction_of_the_page(self, write):
        text = write(method="a\u202eb", citations=["x\u2066y", "z\x1b[31m"])
        assert "# a\ufffdb on blobs" in text and "- x\ufffdy\n" in text
        assert not [c for c in text if not c.isprintable() and c != "\n"]


class TestDamagedFiles:
    @pytest.fixture
    def folder(self, tmp_path, white):
        syn = ImageSet.of(white, images_of(white, "unit", 6), labels_of(white, "hard", 6), "unit")
        return put(syn, tmp_path / "set", white)

    HASHED = ("synthetic.safetensors", "preprocess.safetensors", "preview.png", "README.md")

    def test_every_file_is_hashed(self, folder):
        assert {p.name for p in folder.iterdir()} == {*self.HASHED, "card.json", "provenance.json"}

    @pytest.mark.parametrize("name", HASHED)
    @pytest.mark.parametrize("where", [0, 0.5, -1])
    def test_flipped_bit(self, folder, name, where):
        data = bytearray((folder / name).read_bytes())
        data[int(where * len(data)) if where > 0 else where] ^= 1
        (folder / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{folder / name} was modified or truncated: its sha256"):
            storage.load(folder)

    @pytest.mark.parametrize("name", HASHED)
    def test_truncated_file(self, folder, name):
        (folder / name).write_bytes((folder / name).read_bytes()[:-7])
        with pytest.raises(ValueError, match=f"{name} was modified or truncated"):
            storage.load(folder)

    @pytest.mark.parametrize("name", HASHED)
    def test_missing_file(self, folder, name):
        (folder / name).unlink()
        with pytest.raises(ValueError, match=f"is incomplete: '{name}' is missing"):
            storage.load(folder)

    def test_no_card(self, folder):
        (folder / "card.json").unlink()
        with pytest.raises(ValueError, match=r"is not a synthetic set: it has no card\.json"):
            storage.load(folder)
        with pytest.raises(ValueError, match=r"is not a synthetic set"):
            storage.load(folder / "nowhere")

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "5", '"card"', "\udcff", "{}"])
    def test_invalid_card(self, folder, text):
        (folder / "card.json").write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(ValueError, match=r"card\.json"):
            storage.load(folder)

    def test_truncated_card(self, folder):
        data = (folder / "card.json").read_bytes()
        for where in range(0, len(data) - 2, 23):
            (folder / "card.json").write_bytes(data[:where])
            with pytest.raises(ValueError, match=r"card\.json is not a valid card"):
                storage.load(folder)

    def test_provenance_is_not_hashed_and_may_be_invalid(self, folder):
        assert read_provenance(folder) == {}
        good = {"seconds": {"distill": 1.5}, "notes": ["x"]}
        (folder / "provenance.json").write_text(json.dumps(good))
        assert read_provenance(folder) == good
        for text in ("", "[]", '{"seconds": "fast"}', '{"seconds": {"distill": "soon"}}', '{"notes": 5}'):
            (folder / "provenance.json").write_text(text)
            assert read_provenance(folder) == {}
        (folder / "provenance.json").unlink()
        storage.load(folder)


class TestForgedSets:
    """Sets with valid hashes but forged contents."""

    @pytest.fixture
    def folder(self, tmp_path, white):
        syn = ImageSet.of(white, images_of(white, "unit", 6), labels_of(white, "hard", 6), "unit")
        return put(syn, tmp_path / "set", white)

    @staticmethod
    def forge(folder: Path, tensors=None, transform=None, **card) -> None:
        path = folder / "card.json"
        data = json.loads(path.read_text())
        for name, values in (("synthetic.safetensors", tensors), ("preprocess.safetensors", transform)):
            if values is not None:
                (folder / name).write_bytes(to_safetensors({**load_file(folder / name), **values}))
                data["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for prefix, values in (("", tensors), ("preprocess.", transform)):
            data["stored_bytes"] |= {
                prefix + k: v.numel() * v.element_size() for k, v in (values or {}).items()
            }
        for key, value in card.items():
            data[key] = {**data[key], **value} if isinstance(value, dict) else value
        path.write_text(canonical(data))

    def test_unchanged_set_is_loaded(self, folder):
        self.forge(folder)
        storage.load(folder)

    def test_labels_of_a_dtype_without_comparison(self, folder):
        labels = torch.zeros(6, 3).to(torch.float8_e4m3fn)
        self.forge(folder, tensors={"labels": labels})
        with pytest.raises(ValueError, match="is damaged"):
            storage.load(folder)

    @pytest.mark.parametrize("name", ["../other.txt", "/etc/hostname", "..", "", "a/b", "."])
    def test_path_outside_the_folder(self, folder, name):
        (folder.parent / "other.txt").write_text("x")
        self.forge(folder, sha256={name: hashlib.sha256(b"x").hexdigest()})
        with pytest.raises(ValueError, match=r"must list only files in the folder|is missing"):
            storage.load(folder)

    @pytest.mark.parametrize(
        ("tensors", "message"),
        [
            (
                {"images": torch.zeros(6, 1, 8, 8, dtype=torch.float64)},
                "must have one of the dtypes F32, F16, I64, I32, I16, U8, got F64",
            ),
            (
                {"images": torch.zeros(6, 1, 8, 8, dtype=torch.uint8)},
                r"must be torch.float32 or torch.float16, got torch.uint8",
            ),
            ({"images": torch.full((6, 1, 8, 8), torch.nan)}, "all pixels must be finite"),
            ({"images": torch.full((6, 1, 8, 8), torch.inf)}, "all pixels must be finite"),
            ({"images": torch.full((6, 1, 8, 8), 1.5)}, r"must be in \[0, 1\], got \[1.5, 1.5\]"),
            ({"images": torch.full((6, 1, 8, 8), -0.1)}, r"got \[-0.1, -0.1\]"),
            (
                {"images": torch.zeros(6, 3, 8, 8)},
                r"images must have shape \[1, 8, 8\] as in the card, got \[3, 8, 8\]",
            ),
            ({"images": torch.zeros(6, 64)}, r"as in the card, got \[64\]"),
            ({"images": torch.zeros(5, 1, 8, 8)}, "got 5 images and 6 labels"),
            ({"images": torch.zeros(0, 1, 8, 8), "labels": torch.zeros(0).long()}, "each >= 1"),
            ({"labels": torch.tensor([0, 1, 2, 3, 0, 0])}, r"label of image 3 must be in 0\.\.2, got 3"),
            ({"labels": torch.tensor([0, 1, 2, -1, 0, 0])}, r"label of image 3 must be .* got -1"),
            ({"labels": torch.zeros(6, dtype=torch.int32)}, "labels must be int64"),
            ({"labels": torch.full((6, 4), 0.25)}, "soft labels must have 3 columns, one per class, got 4"),
            (
                {"labels": torch.full((6, 3), 0.5)},
                "the soft label of image 0 must be a probability distribution",
            ),
            (
                {"labels": torch.full((6, 3), torch.nan)},
                "the soft label of image 0 must be a probability distribution",
            ),
            ({"labels": torch.tensor([[1.5, -0.5, 0.0]] * 6)}, "must be a probability distribution"),
        ],
    )
    def test_tensors(self, folder, tensors, message):
        self.forge(folder, tensors)
        with pytest.raises(ValueError, match=f"{folder} is damaged: .*{message}"):
            storage.load(folder)

    def test_tensor_that_does_not_belong_to_the_set(self, folder):
        """Neither if the card lists its bytes, nor if it does not."""
        extra = {"extra": torch.zeros(5)}
        self.forge(folder, extra)
        with pytest.raises(ValueError, match="tensor 'extra' does not belong to a set of kind 'images'"):
            storage.load(folder)
        card = json.loads((folder / "card.json").read_text())
        del card["stored_bytes"]["extra"]
        (folder / "card.json").write_text(canonical(card))
        with pytest.raises(ValueError, match="tensor 'extra' is not in the stored_bytes of the card"):
            storage.load(folder)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
    def test_integers_of_a_graph_set_are_not_cast(self, tmp_path, motifs, dtype):
        syn = GraphSet.coreset(motifs, torch.tensor([0, 1]))
        folder = put(syn, tmp_path / "graphs", motifs, ipc=2)
        self.forge(folder, {"labels": syn.labels.to(dtype)})
        with pytest.raises(ValueError, match=r"tensor 'labels' must be torch.uint8 \(2,\), got"):
            storage.load(folder)

    def test_sizes_whose_sum_overflows(self, tmp_path, motifs):
        """Their sum in 64 bits is the number of nodes, but torch would allocate all memory."""
        syn = GraphSet.coreset(motifs, torch.tensor([0, 1]))
        folder = put(syn, tmp_path / "graphs", motifs, ipc=2)
        sizes = torch.tensor([2**63 - 1, 2**63 - 1, 2 + len(syn.graphs.nodes)])
        self.forge(folder, {"sizes": sizes})
        with pytest.raises(ValueError, match="sizes must be integers >= 1 that sum to"):
            storage.load(folder)

    def test_repeated_key(self, folder):
        path = folder / "card.json"
        path.write_text('{"method": "another",' + path.read_text().lstrip()[1:])
        with pytest.raises(ValueError, match="JSON must not repeat a key of an object, got 'method' twice"):
            storage.load(folder)

    def test_header_must_be_that_of_the_library(self, folder):
        """It could otherwise hold data that no hash of the tensors and no size covers."""
        path = folder / "synthetic.safetensors"
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        for text in (data[8 : 8 + length] + b" " * 8, b'{"__metadata__":{"a":"b"},' + data[9 : 8 + length]):
            text += b" " * (-len(text) % 8)
            path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
            self.forge(folder, sha256={path.name: hashlib.sha256(path.read_bytes()).hexdigest()})
            with pytest.raises(ValueError, match=r"must be as safetensors writes it|must have the keys"):
                storage.load(folder)

    def test_missing_tensor(self, folder):
        data = to_safetensors({"images": torch.zeros(6, 1, 8, 8)})
        (folder / "synthetic.safetensors").write_bytes(data)
        self.forge(folder, sha256={"synthetic.safetensors": hashlib.sha256(data).hexdigest()})
        with pytest.raises(ValueError, match=r"must contain the tensor 'labels', got only \['images'\]"):
            storage.load(folder)

    @pytest.mark.parametrize(
        ("transform", "message"),
        [
            ({"transform": torch.zeros(64, 63)}, r"ZCA arrays must be finite float32 \(64, 64\)"),
            ({"transform": torch.full((64, 64), torch.nan)}, "ZCA arrays must be finite"),
            ({"mean": torch.zeros(1, 60), "transform": torch.zeros(60, 60)}, r"\(60, 60\)"),
            ({"mean": torch.zeros(())}, r"\(1, 0\)"),
            (
                {
                    k: torch.zeros(9 if k != "mean" else 1, 9)
                    for k in ("mean", "transform", "transform_inverse")
                },
                "does not accept images",
            ),
        ],
    )
    def test_transform(self, folder, transform, message):
        self.forge(folder, transform=transform)
        with pytest.raises(ValueError, match=message):
            storage.load(folder)

    @pytest.mark.parametrize(
        ("card", "message"),
        [
            ({"set": {"space": "log"}}, "space must be one of pixel, unit, input, got 'log'"),
            ({"set": {"space": "pixel"}}, "space 'pixel' must be torch.uint8"),
            ({"set": {"factor": 0}}, "factor=0"),
            ({"set": {"factor": "2"}}, "factor='2'"),
            ({"set": {"source": 5}}, "damaged"),
            ({"set": {"lr": 0.0}}, r"lr must be a positive finite float, got 0\.0"),
            ({"set": {"lr": -0.1}}, r"lr must be .*, got -0\.1"),
            ({"set": {"lr": 1}}, "lr must be .*, got 1"),
            ({"set": {"lr": "fast"}}, "lr must be .*, got 'fast'"),
            ({"set": {"lr": [0.1]}}, r"lr must be .*, got \[0\.1\]"),
            ({"set": {"canvas": 0}}, "canvas must be an integer >= 1, got 0"),
            ({"set": {"canvas": "2"}}, "canvas must be an integer >= 1, got '2'"),
            ({"set": {"canvas": True}}, "canvas must be an integer >= 1, got True"),
            ({"set": {"canvas": 2}}, r"images must have shape \[1, 8, 8\] as in the card, got \[1, 4, 4\]"),
            (
                {"set": {"canvas": 3, "image_shape": [1, 2, 2]}},
                "does not accept images|must divide the image size",
            ),
            ({"set": {"canvas": 2, "factor": 2}}, r"\[1, 4, 4\]"),
            (
                {"kind": "tree"},
                r"kind must be one of \['codes', 'compensated', 'graphs', 'images', 'nodes', 'trees'\], got 'tree'",
            ),
            ({"preprocess": {"kind": "log"}}, "preprocessing must be .* got 'log'"),
            ({"preprocess": {"eps": 0.2}}, "preprocess_digest must be"),
            ({"preprocess_digest": "0"}, "got 0 in the card"),
            ({"stored_bytes": {"images": 1}}, "got .*'images': 1.* in the card"),
            ({"class_names": ["ape", "bee"]}, "must be in 0..1"),
            ({"schema_version": 99}, "schema_version must be 2, got 99"),
            ({"ipc": 0}, "ipc"),
            ({"surprise": 1}, "surprise"),
            ({"sha256": []}, "sha256"),
        ],
    )
    def test_cards(self, folder, card, message):
        self.forge(folder, **card)
        with pytest.raises(ValueError, match=message):
            storage.load(folder)

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "1e-999"])
    def test_lr_that_is_not_finite(self, folder, number):
        path = folder / "card.json"
        path.write_text(path.read_text().replace('"space": "unit"', f'"lr": {number}, "space": "unit"'))
        with pytest.raises(
            ValueError, match=r"JSON numbers must be finite|lr must be a positive finite float, got "
        ):
            storage.load(folder)

    def test_canvas_that_does_not_divide_the_image_size(self, tmp_path, blobs):
        """It raises even if the shape in the card matches the size rounded down."""
        syn = ImageSet.of(blobs, images_of(blobs, "unit", 3), torch.arange(3), "unit")
        folder = put(syn, tmp_path / "other", blobs)
        self.forge(folder, {"images": torch.zeros(3, 1, 17, 16)}, set={"canvas": 2})
        with pytest.raises(ValueError, match=r"canvas must divide the image size \(17, 16\), got 2"):
            storage.load(folder)

    @pytest.mark.parametrize("key", ["space", "factor", "image_shape", "source"])
    def test_card_with_a_missing_key(self, folder, key):
        data = json.loads((folder / "card.json").read_text())
        del data["set"][key]
        (folder / "card.json").write_text(canonical(data))
        with pytest.raises(ValueError, match=f"'{key}' is missing"):
            storage.load(folder)

    def test_card_without_tensors(self, folder):
        data = json.loads((folder / "card.json").read_text())
        del data["sha256"]["synthetic.safetensors"]
        (folder / "card.json").write_text(canonical(data))
        with pytest.raises(ValueError, match=r"must list synthetic\.safetensors"):
            storage.load(folder)


class TestCheckDataset:
    """A set scored on another dataset would raise no error, but give a wrong score."""

    @pytest.fixture
    def card(self, tmp_path, blobs):
        return storage.load(put(ImageSet.coreset(blobs, torch.arange(3)), tmp_path / "set", blobs))[1]

    def test_same_dataset(self, card, blobs):
        assert storage.check_dataset(card, blobs) is None

    def test_validation_split_does_not_matter(self, card, real_set):
        assert storage.check_dataset(card, real_set(val_fraction=0.2)) is None

    def test_other_dataset(self, card, real_set):
        reason = storage.check_dataset(card, real_set(noise=30))
        assert "was distilled from 'blobs'" in reason

    def test_other_preprocessing(self, card, white):
        reason = storage.check_dataset(card, white)
        assert (
            "distilled with preprocessing {'kind': 'normalise'" in reason
            and "dataset.preprocess=normalise" in reason
        )

    def test_other_mean_and_std(self, card, real_set):
        """Before, the message advised dataset.preprocess=normalise, which changed nothing."""
        reason = storage.check_dataset(card, real_set(preprocess=Normalise([0.5], [0.3])))
        assert reason.endswith("preprocessing of the set. Example: dataset.std=[0.25]")
        reason = storage.check_dataset(card, real_set(preprocess=Normalise([0.1], [0.3])))
        assert reason.endswith("Example: dataset.mean=[0.5] dataset.std=[0.25]")

    def test_other_class_order(self, card, blobs):
        swapped = card.model_copy(update={"class_names": ["bee", "ape", "cod"]})
        assert "the same class names in the same order" in storage.check_dataset(swapped, blobs)
        fewer = card.model_copy(update={"class_names": ["ape", "bee"]})
        assert "the same class names in the same order" in storage.check_dataset(fewer, blobs)

    def test_other_shape(self, card, blobs):
        bigger = card.model_copy(update={"set": {**card.set, "image_shape": [1, 16, 16]}})
        assert (
            storage.check_dataset(bigger, blobs)
            == "the set must have images of shape [1, 8, 8] like the dataset, got [1, 16, 16]"
        )
