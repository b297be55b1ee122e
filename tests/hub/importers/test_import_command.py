"""The command `dd-bench import`, from released files to a set with a card and a record."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dd_bench.data.image_decoder import Decoder
from dd_bench.hub.importers.command import import_command
from dd_bench.hub.png_folder import png_folder
from dd_bench.pipeline.compose import load_real_set
from dd_bench.records.config_diff import shipped_yaml
from dd_bench.records.record import load_record
from dd_bench.synthetic import storage
from dd_bench.synthetic.images import ImageSet


def save(tmp_path, name, content):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def read(*arguments, dataset="digits", to="set"):
    """Import a set with one image per class and return it."""
    command = [*map(str, arguments), f"dataset={dataset}", "--ipc", "1", "--name", "x", "--to", str(to)]
    assert import_command(command) == 0
    return storage.load(Path(to))[0]


@pytest.fixture
def in_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def digit_pixels():
    return torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_flags_of_other_formats_are_rejected(dd_bench, tmp_path):
    save(tmp_path, "res.pt", {"data": [[torch.zeros(10, 1, 8, 8), torch.arange(10)]]})
    arguments = ["import", "res.pt", "dataset=digits", "--ipc", "1", "--name", "x", "--to", "set"]
    assert (
        "--index requires a file with a list of sets"
        in dd_bench(*arguments, "--labels", "res.pt", "--index", "0").text
    )
    assert "the file missing.pt does not exist" in dd_bench("import", "missing.pt", *arguments[2:]).text
    save(tmp_path, "images.pt", torch.zeros(10, 1, 8, 8))
    assert (
        "got a Tensor. If it contains the images, add the file of labels: --labels labels.pt"
        in dd_bench("import", "images.pt", *arguments[2:]).text
    )
    assert dd_bench(*arguments).code == 0


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
    assert done.code == 0 and done.text.startswith("set\n"), done.text
    assert "preprocessing normalise: log-likelihood" in done.text and "classes by name: 0 -> 0" in done.text
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


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_pixels_are_recognised(in_folder, capsys, dtype):
    """Pixels are stored as pixels, and networks receive them after the preprocessing of the dataset."""
    pixels = digit_pixels()
    released = (255 * pixels).byte() if dtype == torch.uint8 else pixels
    syn = read(save(in_folder, "i.pt", released), "--labels", save(in_folder, "l.pt", torch.arange(10)))
    assert torch.equal(syn.images, released) and syn.space == ("pixel" if dtype == torch.uint8 else "unit")
    assert "images are pixels: " in capsys.readouterr().err
    inputs, _ = syn.materialise(torch.device("cpu"))
    assert torch.allclose(syn.preprocess.inverse(inputs), pixels, atol=1 / 255)


def test_idc(in_folder):
    """data.pt of IDC: pixels and labels, each image cut into factor^2 training images."""
    released = [digit_pixels(), torch.arange(10)]
    syn = read(save(in_folder, "data.pt", released), "--factor", "2")
    assert torch.equal(syn.images, released[0]) and syn.factor == 2
    inputs, labels = syn.materialise(torch.device("cpu"))
    assert len(inputs) == 40 and torch.equal(labels, torch.arange(10).repeat_interleave(4))


def test_shards(in_folder):
    """Several files of images and labels; overrides may follow the files of labels."""
    pixels, labels = digit_pixels(), torch.arange(10)
    images = [save(in_folder, f"images_{i}.pt", pixels[5 * i : 5 * i + 5]) for i in range(2)]
    files = [save(in_folder, f"labels_{i}.pt", labels[5 * i : 5 * i + 5]) for i in range(2)]
    assert torch.equal(read(*images, "--labels", *files).images, pixels)
    names = ["images_0.pt", "images_1.pt", "labels_0.pt", "labels_1.pt"]
    assert sorted(storage.load(in_folder / "set")[1].config["released"]["files"]) == names


def test_shards_with_equal_names(in_folder):
    for i in range(2):
        (in_folder / str(i)).mkdir()
    parts = [
        save(in_folder, f"{i}/data.pt", [digit_pixels()[i::2], torch.arange(10)[i::2]]) for i in range(2)
    ]
    read(*parts)
    assert sorted(storage.load(in_folder / "set")[1].config["released"]["files"]) == [
        "0/data.pt",
        "1/data.pt",
    ]


def test_preprocessing_is_checked(in_folder, capsys):
    """A whitened set is refused as a normalised one, and --force insists."""
    from dd_bench.data.digits import digits

    real = digits(preprocess="zca", val_fraction=0, device=torch.device("cpu"))
    index = real.train.draw(1, torch.Generator().manual_seed(0)).flatten()
    inputs = real.train.inputs(index)
    files = [save(in_folder, "i.pt", inputs), "--labels", save(in_folder, "l.pt", torch.arange(10))]
    command = [*map(str, files), "dataset=digits", "--ipc", "1", "--name", "x", "--to", "refused"]
    assert import_command(command) == 1 and not (in_folder / "refused").exists()
    assert "Use dataset.preprocess=zca, or add --force" in capsys.readouterr().err
    assert torch.equal(read(*files, "--force", to="forced").images, inputs)
    assert "not checked (--force)" in capsys.readouterr().err
    syn = read(*files, "dataset.preprocess=zca", to="whitened")
    assert torch.equal(syn.images, inputs) and syn.preprocess.kind == "zca"


def test_pixels_outside_their_range(in_folder):
    pixels = digit_pixels() * 1.2 - 0.1
    files = [save(in_folder, "i.pt", pixels), "--labels", save(in_folder, "l.pt", torch.arange(10))]
    syn = read(*files, "--pixels")
    assert syn.space == "input" and torch.allclose(syn.preprocess.inverse(syn.images), pixels, atol=1e-6)


def test_numbered_folders(in_folder, capsys):
    """The class of each folder is printed, and --classes changes it."""
    for i in range(10):
        (in_folder / "s" / f"new{i}").mkdir(parents=True)
        pixels = np.full((8, 8), i, dtype=np.uint8)
        Image.fromarray(pixels).save(in_folder / "s" / f"new{i}" / "0.png")
    syn = read("s")
    assert syn.images[:, 0, 0, 0].tolist() == list(range(10))
    assert "classes by name: new0 -> 0, new1 -> 1, " in capsys.readouterr().err
    (in_folder / "classes.csv").write_text("".join(f"new{i},{9 - i}\n" for i in range(10)))
    syn = read("s", "--classes", "classes.csv", to="reversed")
    assert syn.images[:, 0, 0, 0].tolist() == list(range(9, -1, -1))
    assert "classes by classes.csv: new9 -> 0, new8 -> 1, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--factor", "0"], "--factor must be an integer >= 1, got 0"),
        (["--factor", "2"], "--factor requires pixels in [0, 1], got -0.998..1"),
        (["--index", "-1"], "--index must be >= 0, got -1"),
        (["--pixels", "--force"], "exclude each other"),
        (["missing.pt"], "the file missing.pt does not exist"),
        (["--background", "white"], "--background requires a folder of images"),
        (["--logits"], "the soft labels are probabilities"),
    ],
)
def test_wrong_flags_are_rejected(in_folder, capsys, flags, message):
    source = save(in_folder, "data.pt", [digit_pixels() * 2 - 1, torch.eye(10)])
    command = [str(source), *flags, "dataset=digits", "--ipc", "1", "--name", "x", "--to", "set"]
    assert import_command(command) == 1
    assert message in capsys.readouterr().err and not (in_folder / "set").exists()


def test_hidden_files_are_not_part_of_the_digests(in_folder):
    """A file of the operating system changed the digest of the files."""
    for i in range(10):
        (in_folder / "s" / f"{i}").mkdir(parents=True)
        Image.new("L", (8, 8), i).save(in_folder / "s" / f"{i}" / "0.png")
    read("s", "--background", "white", to="a")
    for name in (".DS_Store", "3/._0.png", "3/notes.txt"):
        (in_folder / "s" / name).write_text("x")
    read("s", to="b")
    released = [storage.load(in_folder / to)[1].config["released"] for to in "ab"]
    assert released[0] == released[1] | {"background": "white"} and released[0]["files"] == 10


def test_soft_labels_of_an_exported_set(in_folder, blobs, monkeypatch, capsys):
    real = blobs
    monkeypatch.setattr("dd_bench.pipeline.compose.load_real_set", lambda _: (real, {"name": "blobs"}))
    soft = torch.rand(6, 3, generator=torch.Generator().manual_seed(0)).softmax(1)
    syn = ImageSet.of(real, real.train.pixels(torch.arange(6)).byte(), soft, "pixel")
    png_folder(syn, in_folder / "s")
    command = ["s", "dataset=x", "--ipc", "2", "--name", "x", "--to", "set"]
    assert import_command(command) == 0
    back, card = storage.load(in_folder / "set")
    assert torch.equal(back.labels, soft) and torch.equal(back.images, syn.images)
    assert (
        "labels.csv" in card.config["released"]["files"]
        and "soft labels: labels.csv" in capsys.readouterr().err
    )


@pytest.mark.parametrize("flag", [["--force"], ["--logits"], ["--lr", "0.1"], ["--pixels"], ["--index", "0"]])
def test_flags_of_tensors_are_rejected_for_folders(in_folder, capsys, flag):
    (in_folder / "s").mkdir()
    assert import_command(["s", *flag, "dataset=digits", "--ipc", "1", "--name", "x", "--to", "set"]) == 1
    assert f"{flag[0]} requires " in capsys.readouterr().err


def test_values_that_are_not_finite_are_rejected(in_folder, capsys):
    source = save(in_folder, "data.pt", [torch.full((10, 1, 8, 8), torch.nan), torch.arange(10)])
    assert import_command([str(source), "dataset=digits", "--ipc", "1", "--name", "x", "--to", "set"]) == 1
    assert "must be finite" in capsys.readouterr().err


def test_stated_ranges_and_normalisations(in_folder, capsys):
    """Each way of storing the same pixels gives the same set."""
    real, _ = load_real_set(["dataset=digits"])
    index = real.train.draw(1, torch.Generator().manual_seed(0)).flatten()
    pixels = (real.train.pixels(index).float() * 16 / 255).round() / 16
    stored = {
        "a.pt": (16 * pixels).long(),
        "b.pt": (pixels - 0.5) / 0.5,
        "c.pt": 2 * pixels - 0.5,
    }
    files = {name: save(in_folder, name, images) for name, images in stored.items()}
    labels = save(in_folder, "y.pt", torch.arange(10))
    command = ["--labels", str(labels), "dataset=digits", "--ipc", "1", "--name", "x", "--to"]
    for name, flags in (
        ("a.pt", ["--range", "0,16"]),
        ("b.pt", ["--mean", "0.5", "--std", "0.5"]),
        ("c.pt", ["--range=-0.5,1.5"]),
    ):
        assert import_command([str(files[name]), *command, "refused"]) == 1
        assert flags[0].replace("=", " ") in capsys.readouterr().err.replace(
            "--range -0.5", "--range=-0.5"
        ).replace("=", " ")
        assert read(files[name], "--labels", labels, *flags, to=f"set_{name}").images.allclose(
            pixels, atol=1e-6
        )
        assert f"by {flags[0].partition('=')[0]}" in capsys.readouterr().err
    assert import_command([str(files["a.pt"]), *command, "refused", "--mean", "0.5"]) == 1
    assert "--mean requires --std" in capsys.readouterr().err


def test_generated_images_of_an_imagenet_subset(dd_bench, tmp_path, monkeypatch):
    """The folders that generative methods release: class folders by WordNet ID, images larger than the dataset's."""
    monkeypatch.setenv("DD_BENCH_HOME", str(tmp_path / "home"))
    classes = shipped_yaml("dataset", "imagewoof_224")["classes"]
    draw = np.random.default_rng(0)
    for part, side, count in (("imagenet/train", 20, 2), ("imagenet/val", 24, 2), ("released", 22, 1)):
        for name in sorted(classes):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 256, (side, side + 2 * (part != "released"), 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / name / f"{i}.png")
    dataset = ["dataset=imagewoof_224", "dataset.root=imagenet", "dataset.size=16"]
    command = ["import", "released", *dataset, "--ipc", "1", "--name", "minimax-authors", "--to", "set"]
    refused = dd_bench(*command)
    assert refused.code == 1 and "must have 16x16 pixels, got 22x22" in refused.text
    done = dd_bench(*command, "--resize")
    assert done.code == 0 and "classes by name: n02096294 -> n02096294 (Australian terrier)" in done.text
    syn, card = storage.load(tmp_path / "set")
    decode = Decoder(16, "crop")
    expected = [decode(tmp_path / "released" / name / "0.png") for name in classes]
    assert syn.labels.tolist() == list(range(10)) and torch.equal(syn.images, torch.stack(expected))
    assert card.config["released"]["resize"] == "crop"
    network = [
        "model=resnetap10",
        "protocol=minimax-subset-10",
        "evaluator.num_networks=1",
        "runtime.device=cpu",
    ]
    short = [
        "protocol.recipe.epochs_by_size=[[10,2]]",
        "protocol.recipe.epochs=4",
        "protocol.recipe.milestones=[2]",
    ]
    done = dd_bench("evaluate", "set=set", *dataset, *network, *short)
    assert done.code == 0, done.text
    (record,) = (tmp_path / "runs" / "records").glob("*.json")
    assert load_record(record).protocol.name.startswith("minimax-subset-10")


def test_resize_requires_a_folder(dd_bench, tmp_path):
    save(tmp_path, "data.pt", [digit_pixels(), torch.arange(10)])
    done = dd_bench(
        "import", "data.pt", "dataset=digits", "--ipc", "1", "--name", "x", "--to", "set", "--resize"
    )
    assert done.code == 1 and "--resize requires a folder of images" in done.text
