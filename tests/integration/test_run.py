"""Tests of `dd-bench run` and its parts: written files, error messages and sweeps."""

import json
import re
import shlex
from pathlib import Path

import pytest

from dd_bench.pipeline.compose import USER_ERRORS
from dd_bench.records.record import load_record
from dd_bench.synthetic import storage
from dd_bench.synthetic.card import read_provenance


def records(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "runs" / "records").glob("*.json"))


def sets(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "runs" / "sets").glob("[!.]*"))


class TestOneRun:
    def test_files_of_a_run(self, dd_bench, small, tmp_path):
        done = dd_bench("run", *small("dm", "seed=3"))
        assert done.code == 0, done.text
        (path,), (folder,) = records(tmp_path), sets(tmp_path)
        assert str(path.relative_to(tmp_path)) in done.text and "accuracy" in done.text

        r = load_record(path)
        assert (r.status, r.method, r.dataset, r.ipc, r.evaluator) == ("done", "dm", "digits", 1, "accuracy")
        assert (r.protocol.name, r.selection, r.label_mode, r.model) == (
            "quick(recipe.epochs=3)",
            "last",
            "hard",
            "convnet(width=8)",
        )
        assert [(s.set, s.network, s.metric) for s in r.scores] == [(0, 0, "accuracy"), (0, 1, "accuracy")]
        assert len({s.seed for s in r.scores}) == 2 and all(0 <= s.value <= 1 for s in r.scores)
        assert set(r.seconds) == {"prepare", "distill", "evaluate"}
        assert set(r.peak_memory) == {"load", *r.seconds}
        assert r.seconds["evaluate"] > 0 and r.peak_memory["evaluate"] > 2**20
        assert r.stored_bytes == {"images": 10 * 64 * 4, "labels": 80}
        assert r.config["seed"] == 3 and r.config["method"]["iterations"] == 3 and r.seeds == {"run": 3}
        assert r.set_digests == [storage.digest(folder)]
        assert {"python", "torch", "kornia"} <= set(r.versions) and r.device
        assert r.code.version and path.stem == r.key

        syn, card = storage.load(folder)
        assert (card.method, card.dataset, card.ipc) == ("dm", "digits", 1) and card.config["method"][
            "lr_img"
        ] == 1.0
        assert card.dataset_digest == r.real_digest and len(syn.labels) == 10
        assert read_provenance(folder)["seconds"]["distill"] == r.seconds["distill"]

        work = tmp_path / "runs" / "work"
        (log,) = work.glob("*/*")
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        assert log.name == "log.jsonl" and [(row["loop"], row["step"]) for row in rows] == [
            ("distill", s) for s in range(3)
        ]

    def test_one_seed_gives_the_same_bytes(self, dd_bench, small, tmp_path):
        values = []
        for out, seed in (("a", 0), ("b", 0), ("c", 1)):
            assert dd_bench("run", *small("dm", f"out={out}", f"seed={seed}")).code == 0
            (folder,) = (tmp_path / out / "sets").iterdir()
            (path,) = (tmp_path / out / "records").iterdir()
            files = {
                p.name: p.read_bytes() for p in folder.iterdir() if p.name != "provenance.json"
            }  # seconds
            values.append((folder.name, files, [s.value for s in load_record(path).scores]))
        assert values[0] == values[1]
        assert values[0][1]["synthetic.safetensors"] != values[2][1]["synthetic.safetensors"]

    def test_second_run_does_nothing(self, dd_bench, small, tmp_path, monkeypatch):
        dd_bench("run", *small("dm"))
        before = {p: p.stat().st_mtime_ns for p in (*records(tmp_path), *sets(tmp_path)[0].iterdir())}
        monkeypatch.setattr(
            "dd_bench.evaluation.fresh_networks.train", lambda *a, **k: pytest.fail("trained again")
        )
        done = dd_bench("run", *small("dm"))
        assert done.code == 0 and "already measured" in done.text and "accuracy" in done.text
        assert before == {p: p.stat().st_mtime_ns for p in (*records(tmp_path), *sets(tmp_path)[0].iterdir())}

    def test_computational_settings_do_not_change_the_key(self, dd_bench, small, tmp_path):
        """With other computational or logging settings, the existing record is found."""
        dd_bench("run", *small("random"))
        for other in ("runtime=one_thread", "log_every=3", "checkpoint_seconds=5"):
            assert "already measured" in dd_bench("run", *small("random", other)).text
        assert len(records(tmp_path)) == 1

    def test_other_protocols_reuse_the_set(self, dd_bench, small, tmp_path, monkeypatch):
        dd_bench("run", *small("dm"))
        monkeypatch.setattr("dd_bench.methods.dm.DM.distill", lambda *a: pytest.fail("distilled again"))
        changed = ("protocol=dc-300", "protocol.recipe.epochs=2", "protocol.recipe.milestones=[]")
        assert dd_bench("run", *small("dm", *changed)).code == 0
        assert dd_bench("run", *small("dm", "evaluator.num_networks=1")).code == 0
        assert len(sets(tmp_path)) == 1 and len(records(tmp_path)) == 3
        assert {load_record(p).protocol.name for p in records(tmp_path)} == {
            "quick(recipe.epochs=3)",
            "dc-300(recipe.epochs=2, recipe.milestones=[])",  # a changed protocol has another name
        }

    def test_readme_of_the_set_has_a_command_that_works(self, dd_bench, small, tmp_path):
        assert dd_bench("run", *small("random", "dataset.preprocess=zca")).code == 0
        (folder,) = sets(tmp_path)
        (line,) = re.findall("^    (dd-bench evaluate .*)$", (folder / "README.md").read_text(), re.MULTILINE)
        assert "dataset=digits dataset.preprocess=zca model=convnet model.width=8 protocol=dsa-1000" in line
        words = shlex.split(line.replace("THIS_FOLDER", str(folder)))[1:]
        quick = ("protocol.recipe.epochs=1", "protocol.recipe.milestones=[]", "evaluator.num_networks=1")
        assert dd_bench(*words, *quick, "runtime=plain", "out=b").code == 0

    def test_set_does_not_depend_on_the_protocol(self, dd_bench, small, tmp_path):
        """Boards compare one set under several protocols by its digest."""
        for protocol in ("dc-300", "dsa-1000"):
            changed = (f"protocol={protocol}", "protocol.recipe.epochs=1", "protocol.recipe.milestones=[]")
            assert dd_bench("run", *small("random", *changed), f"out={protocol}").code == 0
        cards = [p.read_bytes() for p in sorted(tmp_path.glob("*/sets/*/card.json"))]
        assert len(cards) == 2 and cards[0] == cards[1]

    def test_several_sets(self, dd_bench, small, tmp_path):
        done = dd_bench("run", *small("random", "num_sets=2"))
        assert done.code == 0 and "n=4 networks on 2 sets" in done.text
        (path,) = records(tmp_path)
        r = load_record(path)
        assert [(s.set, s.network) for s in r.scores] == [(0, 0), (0, 1), (1, 0), (1, 1)]
        assert [s.seed for s in r.scores[:2]] == [s.seed for s in r.scores[2:]]  # same networks for each set
        assert len(set(r.set_digests)) == 2 == len(sets(tmp_path)) and r.summary().std_sets is not None
        first = {f.name for f in sets(tmp_path)}
        dd_bench("run", *small("random"))
        assert {f.name for f in sets(tmp_path)} == first  # the first of several sets equals a single set

    def test_distill_then_evaluate(self, dd_bench, small, tmp_path):
        """A set that is distilled and then evaluated from its folder has the scores of a single run."""
        done = dd_bench("distill", *small("dm", "out=a"))
        assert done.code == 0 and not (tmp_path / "a" / "records").exists()
        (folder,) = (tmp_path / "a" / "sets").iterdir()
        evaluate = [o for o in small("random") if not o.startswith(("method", "ipc"))]
        done = dd_bench("evaluate", f"set={folder}", *evaluate, "out=b")
        assert done.code == 0, done.text
        (path,) = (tmp_path / "b" / "records").iterdir()
        scored = load_record(path)
        assert (scored.method, scored.ipc, scored.config["method"]["iterations"]) == ("dm", 1, 3)
        dd_bench("run", *small("dm", "out=a"))
        (path,) = (tmp_path / "a" / "records").iterdir()
        assert load_record(path).scores == scored.scores

    def test_set_without_provenance(self, dd_bench, small, tmp_path):
        dd_bench("distill", *small("dm"))
        (folder,) = sets(tmp_path)
        for text in (None, '{"seconds": {}}', '{"seconds": {"distill": 1.5}}', "nonsense"):
            (folder / "provenance.json").unlink(missing_ok=True)
            if text is not None:
                (folder / "provenance.json").write_text(text)
            done = dd_bench("evaluate", f"set={folder}", *small("random")[1:], f"out={abs(hash(text))}")
            assert done.code == 0, done.text

    def test_prepare_builds_what_run_uses(self, dd_bench, small, tmp_path, monkeypatch):
        teacher = ("method.teacher.epochs=1", "num_sets=2")
        done = dd_bench("prepare", *small("herding", *teacher))
        assert done.code == 0 and "prepared: " in done.text
        (entry,) = [p for p in (tmp_path / "runs" / "cache").iterdir() if p.is_dir()]
        assert not records(tmp_path) and not sets(tmp_path)
        monkeypatch.setattr(
            "dd_bench.teachers.trained_network.train", lambda *a, **k: pytest.fail("trained again")
        )
        assert dd_bench("run", *small("herding", *teacher)).code == 0
        cost = json.loads((entry / "entry.json").read_text())["seconds"]
        assert load_record(records(tmp_path)[0]).seconds["prepare"] == cost  # full cost although cached


class TestErrors:
    """Errors have exit status 1, a helpful message and no traceback, and leave no incomplete files."""

    @staticmethod
    def check_error(done, *words):
        assert done.code == 1, done.text
        assert (
            "Traceback" not in done.text and "HYDRA_FULL_ERROR" not in done.text and "use +" not in done.text
        )
        for word in words:
            assert re.search(word, done.text, re.M), f"{word!r} is not in:\n{done.text}"

    @pytest.mark.parametrize(
        ("overrides", "words"),
        [
            (
                ["iterations=5"],
                [r"^error: iterations is not a configuration key. Did you mean method.iterations\?$"],
            ),
            (["method.iteratoins=5"], [r"method.iteratoins is not .* Did you mean method.iterations\?"]),
            (["+method.iteratoins=5"], [r"method.iteratoins is not .* Did you mean method.iterations\?"]),
            (
                ["method=dmm"],
                [r"method=dmm does not exist. Did you mean dm, \w+ or \w+\? .*dd-bench list method$"],
            ),
            (["out=/proc/x"], ["^error: .*/proc/x.* Use folders that you can write to: out=FOLDER"]),
            (["out=my rüns"], [r"cannot be parsed: .* put it in quotes: 'out=.my rüns.'"]),
            (["ipc=0"], ["^error: ipc must be an integer >= 1, got 0"]),
            (
                ["ipc=600"],
                [
                    r"ipc=600 exceeds the size of class '8' of digits \(131 images\)",
                    "method.init=noise or ipc<=131",
                ],
            ),
            (
                ["dataset=cifar10"],
                ["cifar10: no data_batch_1", "dataset.download=true", "dataset.root=FOLDER"],
            ),
        ],
        ids=lambda v: " ".join(v) if v and "=" in v[0] else "",
    )
    def test_command(self, dd_bench, small, tmp_path, overrides, words):
        self.check_error(dd_bench("run", *small("dm"), *overrides), *words)
        assert not sets(tmp_path)

    @pytest.mark.parametrize(
        ("overrides", "words"),
        [
            (["+iterations=5"], [r"iterations is not a configuration key. Did you mean method.iterations\?"]),
            (
                ["++iterations=5"],
                [r"iterations is not a configuration key. Did you mean method.iterations\?"],
            ),
            (["+teachers.nope=1"], ["teachers.nope is not a configuration key"]),
            (["teachers=x"], ["teachers must map names to teachers, got 'x'. Example: teacher=convnet_bn"]),
            (["+dataset.nope=1"], ["dataset.nope is not a configuration key"]),
            (["+model.widht=1"], [r"model.widht is not .* Did you mean model.width\?"]),
            (["+evaluator.num_network=1"], [r"is not .* Did you mean evaluator.num_networks\?"]),
            (["+protocol.recipe.nope=1"], [r"protocol\.recipe\.nope is not a configuration key"]),
            (["ipc=ten"], ["ipc must be an integer >= 1, got 'ten'"]),
            (["ipc=1.5"], ["ipc must be an integer >= 1, got 1.5"]),
            (["ipc=true"], ["ipc must be an integer >= 1, got True"]),
            (["num_sets=0"], ["num_sets must be an integer >= 1, got 0"]),
            (["seed=-1"], ["seed must be an integer >= 0, got -1"]),
            (["log_every=0"], ["log_every must be an integer >= 1, got 0"]),
            (["checkpoint_seconds=-1"], ["checkpoint_seconds must be a number >= 0, got -1"]),
            (["checkpoint_seconds=soon"], ["checkpoint_seconds must be a number >= 0, got 'soon'"]),
            (["method.lr_img=nan"], ["nan or infinite"]),
            (["method.iterations=-3"], ["iterations must be an integer >= 0, got -3"]),
            (["method.iterations=2.5"], [r"method\.iterations=2\.5: .*valid integer"]),
            (["method=random", "ipc=132"], ["ipc=132 exceeds the size of class '8'", "ipc<=131"]),
            (["method.init=nothing"], [r"method\.init.*nothing.*"]),
            (["method.augment=blur"], ["the augmentation must be none, or some of", "got 'blur'"]),
            (["model.width=wide"], [r"model\.width='wide': .*valid integer"]),
            (["model.norm=nonorm"], ["nonorm", "instancenorm"]),
            (["model=lenet"], ["LeNet reduces 8x8 images to an empty map. Use model=convnet"]),
            (
                ["method=datadam_released", "model=mlp"],
                ["method.norm=batchnorm requires model.norm", "MLP", "method.norm=null"],
            ),
            (
                ["method=datadam", "method.norm=null", "model=mlp"],
                ["two layers of activation maps", "model=convnet"],
            ),
            (["method.norm=batchnorm", "method.class_chunk=2"], ["class_chunk=2", "BatchNorm"]),
            (["method.lr_img=abc"], [r"method\.lr_img='abc': .*valid number"]),
            (["method.batch_real=0"], ["method.batch_real must be >= 1, got 0"]),
            (["evaluator.num_networks=0"], [r"evaluator\.num_networks must be >= 1, got 0"]),
            (["evaluator.num_networks=few"], [r"evaluator\.num_networks='few': .*valid integer"]),
            (["protocol.recipe.lr=0"], [r"protocol\.recipe\.lr=0: Input should be greater than 0"]),
            (["protocol.recipe.optimizer=lion"], [r"optimizer='lion': .*'sgd', 'adam' or 'adamw'"]),
            (["protocol.selection=best_on_val", "protocol.eval_every=1"], ["dataset.val_fraction=0.1"]),
            (
                ["protocol=ddranking-compat", "protocol.recipe.epochs=3"],
                ["eval_from must be <= epochs=3, got 242"],
            ),
            (["runtime.device=gpu"], ["runtime.device must be auto, cpu, cuda or cuda:N, got 'gpu'"]),
            (
                ["runtime.threads=0"],
                [r"runtime\.threads=0: Input should be greater than or equal to 1 or .*'auto'"],
            ),
            (["runtime.precision=fp8"], [r"runtime\.precision='fp8'"]),
            (["dataset.val_fraction=1"], ["dataset.val_fraction must be in .0, 1., got 1"]),
            (["dataset.preprocess=log"], ["dataset.preprocess must be normalise or zca, got 'log'"]),
            (["dataset=imagenette"], ["data/imagenet"]),
        ],
        ids=lambda v: " ".join(v) if v and "=" in v[0] else "",
    )
    def test_messages(self, job, small, tmp_path, overrides, words):
        groups = {o.split("=")[0] for o in overrides}
        base = [o for o in small("dm") if not ("model" in groups and o.startswith("model."))]
        if "method" in groups:
            base = [o for o in base if not o.startswith("method")]
        with pytest.raises(USER_ERRORS) as raised:
            job(*base, *overrides)
        for word in words:
            assert re.search(word, str(raised.value)), f"{word!r} is not in: {raised.value}"
        assert not sets(tmp_path) or "best_on_val" in overrides[0]
        assert all(load_record(p).status == "skipped" for p in records(tmp_path))

    @pytest.mark.gpu
    def test_missing_gpu(self, dd_bench, small):
        self.check_error(
            dd_bench("run", *small("dm", "runtime.device=cuda:99")), "cuda:99 is not available: torch finds"
        )

    def test_cuda_without_gpu(self, dd_bench, small, monkeypatch):
        monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
        self.check_error(
            dd_bench("run", *small("dm", "runtime.device=cuda")), "finds 0 CUDA", "runtime.device=cpu"
        )

    def test_compile_without_compiler(self, dd_bench, small, monkeypatch):
        monkeypatch.setattr("shutil.which", lambda _: None)
        self.check_error(
            dd_bench("run", *small("dm", "runtime.compile=always")),
            "requires a C++ compiler".replace("+", r"\+"),
        )

    def test_skipped_run_is_recorded(self, dd_bench, small, tmp_path):
        self.check_error(dd_bench("run", *small("dm", "ipc=600")), "skipped")
        (path,) = records(tmp_path)
        r = load_record(path)
        assert r.status == "skipped" and r.reason.startswith("ipc=600 exceeds") and r.scores == []

    def test_diverged_run_is_recorded_and_retried(self, dd_bench, small, tmp_path):
        diverging = small("dm", "method.lr_img=1e30", "log_every=1", "checkpoint_seconds=0")
        for _ in range(2):
            self.check_error(
                dd_bench("run", *diverging),
                "diverged: dm on digits",
                "loss is",
                "The last finite state is saved",
            )
        (path,) = records(tmp_path)
        assert load_record(path).status == "diverged" and "lr_img" in load_record(path).reason
        assert not sets(tmp_path)
        self.check_error(dd_bench("distill", *diverging), "error: loss is")

    @pytest.mark.parametrize("workers", [1, 2])
    def test_diverged_fresh_network(self, dd_bench, small, tmp_path, workers):
        """Its accuracy is at chance and must not be stored as the score of the set."""
        diverging = small("random", "protocol.recipe.lr=1e30", f"runtime.workers={workers}")
        self.check_error(
            dd_bench("run", *diverging),
            "diverged: random",
            r"with protocol.recipe.lr=1e.30\. Check the images",
        )
        (path,) = records(tmp_path)
        assert load_record(path).status == "diverged" and load_record(path).scores == []
        assert len(sets(tmp_path)) == 1

    def test_diverged_teacher(self, dd_bench, small, tmp_path):
        diverging = small("herding", "method.teacher.lr=1e30", "method.teacher.epochs=2")
        self.check_error(
            dd_bench("run", *diverging), "diverged", r"with method.teacher.lr=1e.30\. Use a smaller value"
        )
        assert not list((tmp_path / "runs").glob("cache/*/entry.json"))

    def test_damaged_checkpoint(self, dd_bench, small, tmp_path):
        diverging = small("dm", "method.lr_img=1e30", "log_every=1", "checkpoint_seconds=0")
        dd_bench("run", *diverging)
        (path,) = (tmp_path / "runs").glob("work/*/*.safetensors")
        path.write_bytes(path.read_bytes()[:50])
        self.check_error(
            dd_bench("run", *diverging), "checkpoint .* is damaged", f"rm {path.relative_to(tmp_path)}"
        )

    def test_damaged_record(self, dd_bench, small, tmp_path):
        dd_bench("run", *small("random"))
        (path,) = records(tmp_path)
        path.write_text("{")
        self.check_error(
            dd_bench("run", *small("random")),
            "is not a record",
            f"To measure again: rm runs/records/{path.name}",
        )

    def test_damaged_set(self, dd_bench, small, tmp_path):
        dd_bench("distill", *small("random"))
        (folder,) = sets(tmp_path)
        data = bytearray((folder / "synthetic.safetensors").read_bytes())
        data[-1] ^= 1
        (folder / "synthetic.safetensors").write_bytes(data)
        self.check_error(
            dd_bench("run", *small("random")), r"synthetic\.safetensors was modified or truncated"
        )


class TestEvaluateErrors:
    check_error = staticmethod(TestErrors.check_error)

    @pytest.fixture
    def folder(self, dd_bench, small, tmp_path):
        dd_bench("distill", *small("random"))
        return sets(tmp_path)[0]

    @pytest.fixture
    def evaluate(self, dd_bench, small):
        return lambda *more: dd_bench(
            "evaluate", *(o for o in small("random")[1:] if not o.startswith("ipc")), *more
        )

    def test_set_is_required(self, evaluate):
        self.check_error(
            evaluate(), "`set` must be the folder of a synthetic set", "dd-bench evaluate set=FOLDER"
        )

    def test_missing_set(self, evaluate, tmp_path):
        self.check_error(evaluate("set=missing"), r"missing is not a synthetic set: it has no card\.json")
        (tmp_path / "empty").mkdir()
        self.check_error(evaluate("set=empty"), "empty is not a synthetic set")
        self.check_error(evaluate("set=5"), "5 is not a synthetic set")

    def test_other_preprocessing(self, evaluate, folder):
        self.check_error(
            evaluate(f"set={folder}", "dataset.preprocess=zca"),
            "cannot be evaluated",
            "dataset.preprocess=normalise",
        )

    def test_other_data(self, evaluate, folder, tmp_path, monkeypatch):
        """Three-channel data are rejected for a one-channel set before a network is built."""
        from PIL import Image

        for split in ("train", "val"):
            for c in range(10):
                (tmp_path / "colour" / split / str(c)).mkdir(parents=True)
                Image.new("RGB", (8, 8), (25 * c, 9, 9)).save(tmp_path / "colour" / split / str(c) / "a.png")
        colour = ("dataset=image_folder", "dataset.root=colour")
        self.check_error(
            evaluate(f"set={folder}", *colour), "was distilled from 'digits'", "the dataset is 'image_folder'"
        )

    def test_unsupported_network(self, evaluate, dd_bench, folder):
        done = dd_bench("evaluate", f"set={folder}", "model=lenet", "runtime=plain")
        self.check_error(done, "LeNet reduces 8x8 images to an empty map")

    def test_changed_set(self, evaluate, folder):
        (folder / "README.md").write_text("better")
        self.check_error(evaluate(f"set={folder}"), r"README\.md was modified or truncated")


class TestSweep:
    def test_sweep_continues_after_a_skip(self, dd_bench, small, tmp_path):
        done = dd_bench("run", "-m", *small("random", "ipc=600,1"))
        assert done.code == 0, done.text
        by_status = {load_record(p).status: load_record(p) for p in records(tmp_path)}
        assert set(by_status) == {"skipped", "done"} and "ipc=600 exceeds" in by_status["skipped"].reason
        assert "skipped: random on digits, ipc=600" in done.text
        # A second start runs missing jobs only, of which there are none.
        before = {p: p.stat().st_mtime_ns for p in records(tmp_path) if load_record(p).status == "done"}
        assert dd_bench("run", "-m", *small("random", "ipc=600,1")).code == 0
        assert all(p.stat().st_mtime_ns == t for p, t in before.items())

    def test_unsupported_network_is_skipped(self, dd_bench, small, tmp_path):
        overrides = [o for o in small("random") if not o.startswith("model")]
        done = dd_bench("run", "-m", *overrides, "model=lenet,mlp")
        assert done.code == 0, done.text
        assert {load_record(p).model.split("(")[0]: load_record(p).status for p in records(tmp_path)} == {
            "lenet": "skipped",
            "mlp": "done",
        }

    def test_sweep_continues_after_an_error(self, dd_bench, small, tmp_path):
        """The sweep reports the error after all other jobs have finished."""
        done = dd_bench("run", "-m", *small("random", "dataset=cifar10,digits"))
        TestErrors.check_error(done, "cifar10: no data_batch_1", "method=random .*dataset=cifar10.*: cifar10")
        assert [load_record(p).dataset for p in records(tmp_path)] == ["digits"]

    def test_jobs_have_their_own_number_of_threads(self, dd_bench, small, monkeypatch):
        import torch

        monkeypatch.setattr("dd_bench.runtime.runtime._THREADS", 2)
        seen = []
        monkeypatch.setattr(
            "dd_bench.pipeline.experiment.Experiment.synthetic_set",
            lambda *_: seen.append(torch.get_num_threads()) or 1 / 0,
        )
        for threads in ("1", "auto"):
            dd_bench("run", *small("random", f"runtime.threads={threads}"))
        torch.set_num_threads(1)
        assert seen == [1, 2]


class TestTracebacks:
    def test_bugs_have_a_traceback(self, dd_bench, small, monkeypatch):
        """Only errors caused by user input are shown without a traceback."""
        monkeypatch.setattr("dd_bench.methods.random_selection.Random.distill", lambda *_: {}["bug"])
        done = dd_bench("run", *small("random"))
        assert done.code == 1 and "Traceback" in done.text and "KeyError: 'bug'" in done.text

    def test_traceback_on_request(self, dd_bench, small, monkeypatch):
        monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
        with pytest.raises(Exception, match="ipc must be an integer >= 1, got 0"):
            dd_bench("run", *small("random", "ipc=0"))


class TestCommand:
    def test_usage(self, dd_bench):
        done = dd_bench("--help")
        assert done.code == 0 and "usage: dd-bench COMMAND" in done.text and "HYDRA_FULL_ERROR" in done.text
        for command in ("run", "prepare", "distill", "evaluate", "list", "show", "verify", "leaderboard"):
            assert re.search(rf"^  {command} ", done.text, re.M)
        assert dd_bench().code == 2

    def test_unknown_command(self, dd_bench):
        done = dd_bench("train")
        assert done.code == 2 and "unknown command 'train'" in done.text and "usage" in done.text
        assert "'compare'. Did you mean dd-bench leaderboard compare?" in dd_bench("compare").text

    def test_version(self, dd_bench):
        assert re.fullmatch(r"dd-bench \d+\.\d+\.\d+\n", dd_bench("--version").text)

    def test_composition_loads_no_torch(self, tmp_path):
        import subprocess
        import sys

        code = (
            "import sys; sys.argv = ['dd-bench', 'run', '--cfg', 'job']; from dd_bench.cli.main import main; main(); "
            "sys.exit(3 if 'torch' in sys.modules else 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "num_networks: 5" in done.stdout and "checkpoint_seconds: 60" in done.stdout
