"""Teachers and labels in runs of the command: records of teachers and label costs, and controls."""

import shutil
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image

from dd_bench.data.digits import digits
from dd_bench.evaluation import fresh_networks
from dd_bench.leaderboards.core.entries import teacher_names
from dd_bench.pipeline.compose import RunConfig
from dd_bench.pipeline.run import prepare
from dd_bench.records.record import load_record
from dd_bench.synthetic import storage
from dd_bench.synthetic.card import read_card
from dd_bench.synthetic.compensated import CompensatedSet
from dd_bench.synthetic.images import ImageSet
from dd_bench.teachers.label_store import LabelStore

SMALL = [
    "model.width=8",
    "model.norm=batchnorm",
    "runtime=plain",
    "teachers.convnet_bn.recipe.epochs=2",
    "teachers.convnet_bn.model.width=8",
    "protocol.recipe.epochs=4",
    "evaluator.num_networks=2",
]
SHORT = ["method.iterations=2"]
OTHER = ["teachers.convnet_w32_bn.recipe.epochs=1", "teachers.convnet_w32_bn.model.width=8"]


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.glob(pattern)
    return path


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """A cache with the teacher of `SMALL`, which is trained once."""
    out = tmp_path_factory.mktemp("teachers")
    prepare(RunConfig.of(["method=sre2l", "ipc=1", f"out={out}", *SMALL]))
    return out / "cache"


@pytest.fixture
def add_teachers(teachers, tmp_path):
    """Function that copies the trained teacher into the cache of a folder `out`."""
    return lambda out: shutil.copytree(teachers, tmp_path / out / "cache")


@pytest.mark.parametrize(
    ("protocol", "mode", "label_bytes", "forwards"),
    [
        ("sre2l-kd-400", "online", None, 4 * 20),
        ("sre2l-kd-400-static", "static", 20 * 10 * 2, 0),
        ("sre2l-kd-400-replay", "replay", 4 * 20 * 10 * 2, 0),
        ("sre2l-kd-400-hard", "hard", None, 0),
    ],
)
def test_record_of_teachers_and_label_cost(dd_bench, tmp_path, protocol, mode, label_bytes, forwards):
    done = dd_bench("run", "method=random", "ipc=2", f"protocol={protocol}", *SMALL)
    assert done.code == 0, done.text
    r = load_record(only(tmp_path / "runs" / "records", "*.json"))
    assert (r.label_mode, r.teacher_forwards) == (mode, forwards)
    assert r.stored_bytes.get("teacher labels") == label_bytes
    squeezed = list((tmp_path / "runs" / "cache").glob("squeeze-*[0-9a-f]"))
    assert bool(squeezed) == (mode != "hard"), "only used teachers must be trained"
    assert ("relabel" in r.seconds) and (r.seconds["relabel"] > 0) == (mode != "hard")
    assert r.seconds["evaluate"] > 0
    if mode == "hard":
        assert r.teachers == []
    else:
        (teacher,) = r.teachers
        assert teacher.name == "convnet_bn" and len(teacher.digest) == 64 and 0 < teacher.accuracy < 1


def test_prepare_trains_the_teachers_of_a_protocol(dd_bench, tmp_path, monkeypatch):
    overrides = ["method=random", "ipc=2", *SMALL]
    done = dd_bench("prepare", *overrides, "protocol=sre2l-kd-400-hard")
    assert done.code == 0 and "nothing to prepare: random uses no teachers or experts" in done.text
    done = dd_bench("prepare", *overrides, "protocol=sre2l-kd-400")
    assert done.code == 0 and "prepared: runs/cache/squeeze-" in done.text
    monkeypatch.setattr(
        "dd_bench.teachers.trained_network.train", lambda *a, **k: pytest.fail("trained again")
    )
    done = dd_bench("run", *overrides, "protocol=sre2l-kd-400")
    assert done.code == 0, done.text


@pytest.mark.parametrize("order", [["convnet_w32_bn", "convnet_bn"], ["convnet_bn", "convnet_w32_bn"]])
def test_record_has_the_order_of_teachers(dd_bench, tmp_path, order):
    """The first teacher guides SRe2L. The second run reads the order from the set."""
    overrides = ["run", "method=sre2l", "ipc=1", f"teacher=[{','.join(order)}]", *SMALL, *OTHER, *SHORT]
    for protocol in ("dc-300", "mtt-1000"):
        done = dd_bench(*overrides, f"protocol={protocol}")
        assert done.code == 0, done.text
    records = [load_record(p) for p in (tmp_path / "runs" / "records").glob("*.json")]
    assert [[t.name for t in r.teachers] for r in records] == [order, order]
    assert records[0].teachers == records[1].teachers and all(t.digest for t in records[0].teachers)


def test_controls_are_scored(dd_bench, tmp_path, add_teachers):
    """The natural images of a compensated set are scored alone. Another label mode gives the same tensors."""
    add_teachers("runs")
    done = dd_bench(
        "run", "method=infer", "ipc=2", "protocol=infer-400", "evaluator=controls", *SMALL, *SHORT
    )
    assert done.code == 0, done.text
    r = load_record(only(tmp_path / "runs" / "records", "*.json"))
    assert r.metrics == ["accuracy", "natural", "random"] and r.main_metric == "accuracy"
    assert len(r.scores) == 6
    folder = only(tmp_path / "runs" / "sets", "infer-*")
    syn, card = storage.load(folder)
    assert isinstance(syn, CompensatedSet) and card.kind == "compensated" and "teachers" in card.config

    done = dd_bench("run", "method=infer_dyn", "ipc=2", "protocol=infer-dyn-80", *SMALL, *SHORT)
    assert done.code == 0, done.text
    other = only(
        tmp_path / "runs" / "sets", "infer_dyn-*"
    )  # another name is another set, of the same tensors
    assert (other / "synthetic.safetensors").read_bytes() == (folder / "synthetic.safetensors").read_bytes()
    assert {load_record(p).method for p in (tmp_path / "runs" / "records").glob("*")} == {
        "infer",
        "infer_dyn",
    }


@pytest.mark.parametrize("equal", ["steps", "epochs"])
def test_controls_take_as_many_steps_as_the_set(dd_bench, monkeypatch, add_teachers, equal):
    """INFER's set has more images than the random and the natural images to which it is compared."""
    add_teachers("runs")
    calls, train = [], fresh_networks.train

    def spy(net, fetch, n, recipe, **options):
        calls.append((n, recipe.epochs))
        return train(net, fetch, n, recipe, **options)

    monkeypatch.setattr(fresh_networks, "train", spy)
    overrides = [
        "method=infer",
        "ipc=2",
        "protocol=sre2l-kd-400-replay",
        "evaluator=controls",
        *SMALL,
        *SHORT,
    ]
    overrides += ["protocol.recipe.batch_size=5", f"evaluator.equal={equal}", "evaluator.num_networks=1"]
    done = dd_bench("run", *overrides)
    assert done.code == 0, done.text
    sizes = dict(calls)
    largest = max(sizes)
    for n, e in sizes.items():
        steps = 4 * -(-largest // 5)
        assert e == (-(-steps // -(-n // 5)) if equal == "steps" else 4)
    assert len(sizes) >= 2


@pytest.mark.parametrize(
    "protocol", ["infer-400", "sre2l-kd-400-replay", "sre2l-kd-400", "sre2l-kd-400-hard"]
)
def test_set_that_is_not_materialised_has_the_same_scores(
    dd_bench, tmp_path, monkeypatch, add_teachers, protocol
):
    overrides = ["method=infer", "ipc=2", f"protocol={protocol}", "evaluator=controls", *SMALL, *SHORT]
    for out, limit in (("materialised", 2 << 30), ("lazy", 0)):
        monkeypatch.setattr("dd_bench.synthetic.base.MATERIALISE_LIMIT", limit)
        add_teachers(out)
        done = dd_bench("run", f"out={out}", *overrides)
        assert done.code == 0, done.text
    materialised, lazy = (
        load_record(only(tmp_path / out / "records", "*.json")) for out in ("materialised", "lazy")
    )
    assert materialised.scores == lazy.scores and materialised.teacher_forwards == lazy.teacher_forwards


def test_teachers_are_part_of_the_set_key(dd_bench, tmp_path):
    overrides = ["method=sre2l", "ipc=1", *SMALL[:5], *SHORT]
    assert dd_bench("distill", *overrides).code == 0
    assert dd_bench("distill", *overrides, "teachers.convnet_bn.recipe.lr=0.05").code == 0
    assert dd_bench("distill", *overrides, "teachers.convnet_bn.recipe.lr=0.05").code == 0
    assert len(list((tmp_path / "runs" / "sets").iterdir())) == 2
    assert dd_bench("distill", "method=random", "ipc=1").code == 0
    assert dd_bench("distill", "method=random", "ipc=1", "teachers.convnet_bn.recipe.lr=0.05").code == 0
    assert len(list((tmp_path / "runs" / "sets").iterdir())) == 3, "random uses no teacher"


def test_order_of_teachers_is_part_of_the_set_key(dd_bench, tmp_path):
    """The first teacher guides the method."""
    small = [
        f"teachers.{t}.{k}"
        for t in ("convnet_bn", "convnet_w32_bn")
        for k in ("recipe.epochs=1", "model.width=8")
    ]
    for order in ("[convnet_bn,convnet_w32_bn]", "[convnet_w32_bn,convnet_bn]"):
        overrides = ["method=sre2l", "ipc=1", f"teacher={order}", *small, *SMALL[:3], *SHORT]
        assert dd_bench("distill", *overrides).code == 0
    assert len(list((tmp_path / "runs" / "sets").iterdir())) == 2


def test_controls_with_stored_labels_of_another_run(dd_bench, tmp_path):
    """The stored labels cover only the set. Its controls are labelled by the run's teachers, or are left out."""
    overrides = ["method=random", "ipc=2", "protocol=sre2l-kd-400-replay", "evaluator=controls", *SMALL]
    assert dd_bench("run", *overrides).code == 0
    stores = {
        p.parent: LabelStore(p.parent, torch.device("cpu"))
        for p in tmp_path.glob("runs/cache/labels-*/*.safe*")
    }
    syn, _ = storage.load(only(tmp_path / "runs" / "sets", "random-*"))
    source = next(folder for folder, store in stores.items() if store.header.images == syn.identity())
    for teachers, metrics in (
        (["teacher=convnet_w32_bn", *OTHER], ["accuracy", "random"]),
        (["teacher=[]"], ["accuracy"]),
    ):
        others = [k for k in overrides if not k.startswith("teachers.")]
        done = dd_bench("run", *others, *teachers, f"protocol.labels.source={source}", f"out=o{len(metrics)}")
        assert done.code == 0, done.text
        r = load_record(only(tmp_path / f"o{len(metrics)}" / "records", "*.json"))
        assert r.metrics == metrics
        assert [t.name for t in r.teachers] == ["convnet_bn"], (
            "the record must have the teachers of the stored labels"
        )
        assert [t.digest for t in r.teachers] == list(stores[source].header.teachers)
        assert teacher_names(r) == "labels of convnet_bn"


class TestErrors:
    def test_set_with_its_own_soft_labels(self, dd_bench, tmp_path):
        real = digits(preprocess="normalise", val_fraction=0.0, device=torch.device("cpu"))
        soft = ImageSet.of(real, torch.rand(10, 1, 8, 8), torch.full((10, 10), 0.1), "unit")
        storage.save(
            soft,
            tmp_path / "soft",
            real=real,
            method="m",
            ipc=1,
            seed=0,
            config={},
            citations=["x"],
            provenance={},
        )
        done = dd_bench("evaluate", f"set={tmp_path / 'soft'}", "protocol=sre2l-kd-400", *SMALL)
        assert done.code != 0 and "the set contains soft labels" in done.text, done.text

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            (
                ["method=sre2l", "teacher=[]"],
                "requires a teacher. Use teacher=convnet_bn",
            ),
            (["method=random", "teacher=[]", "protocol=rded-300"], "needs a teacher. Use teacher=convnet_bn"),
            (["method=infer", "ipc=1"], "ipc must be >= 2 for one natural image of each of 10 classes"),
            (["method=sre2l", "teachers.convnet_bn.model.norm=instancenorm"], "has no BatchNorm layer"),
            (
                ["method=sre2l", "teachers.convnet_bn.epoch=1"],
                "teachers.convnet_bn.epoch must be null or one of",
            ),
            (
                ["method=sre2l", "teachers.convnet_bn.epoch=77"],
                "epoch must be at most teachers.convnet_bn.recipe.epochs=",
            ),
            (["method=sre2l", "teachers.convnet_bn.weights=bought"], "teachers.convnet_bn.weights='bought'"),
            (
                ["protocol=rded-300", "protocol.recipe.augment=flip"],
                "`views` replaces `augment` and `cutmix`",
            ),
            (
                ["protocol=rded-300", "protocol.recipe.views=null"],
                "labels require recipe.views, got recipe.views=null",
            ),
            (
                [
                    "method=random",
                    "protocol=rded-300",
                    "protocol.labels.source=nowhere",
                    "protocol.labels.kind=replay",
                ],
                "is not a folder of stored labels",
            ),
        ],
    )
    def test_messages(self, dd_bench, overrides, message):
        done = dd_bench("run", "ipc=2", *overrides)
        assert done.code != 0 and message in " ".join(done.text.split()), done.text
        assert "Traceback" not in done.text


class TestImageNet:
    """Streamed files, pretrained weights, chunks and stored labels, on a tiny folder in ImageNet's layout."""

    WNIDS = ("n01440764", "n02102040", "n03417042")  # tench, English springer, gas pump

    @pytest.fixture
    def folder(self, tmp_path):
        draw = torch.Generator().manual_seed(0)
        for part, count in (("train", 5), ("val", 2)):
            for wnid in self.WNIDS:
                (tmp_path / "imagenet" / part / wnid).mkdir(parents=True)
                for i in range(count):
                    pixels = torch.randint(0, 256, (40, 52, 3), generator=draw, dtype=torch.uint8).numpy()
                    Image.fromarray(pixels).save(tmp_path / "imagenet" / part / wnid / f"{wnid}_{i}.JPEG")
        return tmp_path / "imagenet"

    @pytest.fixture
    def overrides(self, folder, monkeypatch):
        state = torchvision.models.resnet18().state_dict()
        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda url, **_: state)
        return [
            "dataset=image_folder",
            f"dataset.root={folder}",
            "dataset.name=imagenet",
            "dataset.size=32",
            "dataset.resize=crop",
            "dataset.stream=true",
            "dataset.mean=[0.485,0.456,0.406]",
            "dataset.std=[0.229,0.224,0.225]",
            "teacher=imagenet_resnet18",
            "model.width=8",
            "model.norm=batchnorm",
            "protocol=fkd-300",
            "protocol.recipe.epochs=2",
            "protocol.recipe.batch_size=4",
            "evaluator=controls",
            "evaluator.num_networks=1",
            "runtime=plain",
            "ipc=2",
        ]

    @pytest.mark.parametrize(
        ("method", "n"),
        [
            pytest.param(["method=cda", *SHORT, "method.classes=2"], 6, marks=pytest.mark.slow),
            pytest.param(
                ["method=cda", *SHORT, "method.classes=2", "dataset.size=224"], 6, marks=pytest.mark.slow
            ),
            (["method=rded", "method.patches.factor=2", "method.patches.images=5", "ipc=1"], 3),
            (["method=infer", *SHORT], 6),  # three natural images, and one more for each with the compensator
        ],
        ids=["cda", "cda at 224 pixels", "rded", "infer"],
    )
    def test_from_files_to_a_record(self, dd_bench, overrides, tmp_path, method, n):
        done = dd_bench("run", *overrides, *method)
        assert done.code == 0, done.text
        r = load_record(only(tmp_path / "runs" / "records", "*.json"))
        assert r.label_mode == "replay" and "random" in r.metrics
        assert r.stored_bytes["teacher labels"] == 2 * n * 3 * 2  # epochs, images, classes, float16
        card = read_card(only(tmp_path / "runs" / "sets", "*-*"))
        assert card.class_names == list(self.WNIDS)
