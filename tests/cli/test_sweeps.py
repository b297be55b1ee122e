"""Sweeps: the state of every job, the selection of missing jobs, and the launchers."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from dd_bench.cli.jobs import Job, job_id, jobs_of, read_job, stop_jobs
from dd_bench.cli.progress import has_failed, headline, report
from dd_bench.cli.sweep_overrides import defer_to_jobs, expand, typed_argument
from dd_bench.records.record import load_record

SMALL = ["model.width=8", "protocol.recipe.epochs=2", "evaluator.num_networks=1", "runtime=one_thread"]


def sweep_file(folder):
    (path,) = (folder / "sweeps").glob("*.json")
    return path


def test_expand():
    jobs = expand(["method=random,dm", "ipc=1,10", "hydra/launcher=joblib", "model.width=8"])
    assert jobs == [[f"method={m}", f"ipc={i}", "model.width=8"] for m in ("random", "dm") for i in (1, 10)]
    assert job_id("run", jobs[0]) == job_id("run", jobs[0][::-1]) != job_id("distill", jobs[0])


def test_keys_of_swept_groups_are_deferred_to_jobs():
    """The default method has no `syn_steps`, and Hydra composes the defaults before the jobs."""
    arguments = [
        "-m",
        "method=mtt,ftd",
        "method.syn_steps=3",
        "ipc=1",
        "model.width=8",
        "out=a,b",
        "--config-dir=x",
    ]
    assert defer_to_jobs(arguments) == [w.replace("=3", "=choice(3)") for w in arguments]
    assert [typed_argument(w) for w in defer_to_jobs(arguments)] == arguments
    assert expand(["method=mtt,ftd", "method.syn_steps=choice(3)"])[1] == ["method=ftd", "method.syn_steps=3"]
    arguments = [
        "experiment=glob(a*)",
        "protocol.recipe.milestones=[1,2]",
        "dataset.name=null",
        "hydra.verbose=true",
    ]
    assert defer_to_jobs(arguments) == [
        arguments[0],
        "protocol.recipe.milestones=choice([1,2])",
        *arguments[2:],
    ]
    assert [typed_argument(w) for w in defer_to_jobs(arguments)] == arguments
    assert typed_argument("ipc=choice(1,[2,3])") == "ipc=choice(1,[2,3])"
    for unchanged in (
        ["method=mtt", "method.syn_steps=3"],
        ["method=mtt,ftd", "method.a=1,2"],
        ["a=[", "b.c=1"],
    ):
        assert defer_to_jobs(unchanged) == unchanged


@pytest.mark.parametrize(
    "value",
    ["3", "-1.5e-3", "true", "word", "a/b:c-d", "[1,2]", "[a,[b]]", "{a:1,b:[2]}", "null", "[1,null]", "'3'", '"a,b"',
     "'null'", '"it\'s"', "int(3)", "${seed}", "", "[]", "{}"],
)  # fmt: skip
def test_deferred_value_is_unchanged(value):
    """`choice(x)` has the value of `x`. Values that Hydra parses differently inside `choice` are not deferred."""
    arguments = ["method=mtt,ftd", f"method.x={value}"]
    parse = OverridesParser.create().parse_overrides
    (_, job) = parse(expand(defer_to_jobs(arguments))[1])
    (plain,) = parse(arguments[1:])
    assert job.value() == plain.value() and type(job.value()) is type(plain.value())


def test_sweep_over_methods_with_a_key_missing_in_the_default(dd_bench):
    graphs = ["dataset=motifs", "dataset.graphs=20", "dataset.base=6", "model=gin"]
    done = dd_bench("run", "-m", "method=mtt,ftd", "method.syn_steps=3", *graphs)
    assert done.code == 0 and "sweep: 0 of 2 done, 2 skipped" in done.text, done.text


@pytest.fixture
def write_sweep(tmp_path):
    """Write a sweep of four jobs, and the states of some of them."""

    def write(**states):
        words = [[f"ipc={i}"] for i in range(4)]
        (tmp_path / "sweeps" / "jobs").mkdir(parents=True, exist_ok=True)
        path = tmp_path / "sweeps" / "x.json"
        path.write_text(json.dumps({"verb": "run", "overrides": ["ipc=0,1,2,3"], "jobs": words}))
        for name, values in states.items():
            word = f"ipc={name[1:]}"
            fields = {
                "verb": "run",
                "overrides": [word],
                "started": 0.0,
                "host": "elsewhere",
                "pid": 1,
            } | values
            job = Job(**fields)
            (tmp_path / "sweeps" / "jobs" / f"{job_id('run', [word])}.json").write_text(job.model_dump_json())
        return path

    return write


def test_headline(write_sweep):
    assert headline(write_sweep()) == "sweep: 0 of 4 done"
    path = write_sweep(
        j0={"state": "done", "seconds": 600.0},
        j1={"state": "running"},
        j2={"state": "failed", "reason": "why"},
    )
    assert headline(path) == "sweep: 1 of 4 done, 1 running, 1 failed, about 20 min to go"
    path = write_sweep(
        **{f"j{i}": {"state": "done", "seconds": s} for i, s in enumerate([3600.0, 60.0, 60.0])}
    )
    assert headline(path) == "sweep: 3 of 4 done, about 1 min to go", (
        "the first job builds the teachers and must not count"
    )
    path = write_sweep(j0={"state": "done"}, j1={"state": "running"}, j2={"state": "failed", "reason": "why"})
    running, hint, *failed = report(path).splitlines()[1:]
    assert hint.strip().startswith("This machine cannot check the process")
    assert running.startswith("  running on elsewhere for ") and running.endswith(" h: ipc=1")
    assert failed == ["  failed: ipc=2", "      why"]


def test_job_whose_process_is_gone_has_died(write_sweep):
    import socket

    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    path = write_sweep(j0={"state": "running", "host": socket.gethostname(), "pid": process.pid})
    assert "1 died" in headline(path) and "its process no longer exists" in report(path)
    assert "1 running" in headline(
        write_sweep(j0={"state": "running", "host": socket.gethostname(), "pid": os.getpid()})
    )


def test_job_that_ends_at_once_after_a_signal_is_interrupted(write_sweep):
    """A job that was stopped before it could handle the signal has not died."""
    import socket

    process = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"]
    )  # ends without a handler
    path = write_sweep(j0={"state": "running", "host": socket.gethostname(), "pid": process.pid})
    stop_jobs(path)
    assert process.wait(timeout=10) == -signal.SIGTERM
    assert "1 interrupted" in headline(path) and "start the sweep again" in report(path)


def test_job_stopped_during_its_imports_is_interrupted(dd_bench, tmp_path, monkeypatch):
    """The signal arrives before the first step, and causes another error if it interrupts an import."""
    from dd_bench.pipeline import run

    def interrupted(config):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            raise ImportError("partially initialized module")

    monkeypatch.setattr(run, "run", interrupted)
    done = dd_bench("run", "-m", "method=random", "ipc=1,2", *SMALL)
    assert done.code == 143 and "1 interrupted" in done.text and "failed" not in done.text, done.text
    (job,) = (job for _, job in jobs_of(next(tmp_path.glob("runs/sweeps/*.json"))) if job)
    assert job.state == "interrupted"


def test_job_that_another_sweep_has_completed_is_done(write_sweep, tmp_path):
    path = write_sweep(j0={"state": "failed", "reason": "full disk", "config": "a" * 16})
    assert "1 failed" in headline(path)
    write_sweep(j7={"state": "done", "config": "a" * 16})
    assert headline(path) == "sweep: 1 of 4 done" and not has_failed(path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+method.nosuch=1"], "method.nosuch is not a configuration key"),
        (["+protocol.recipe.nosuch=1"], "protocol.recipe.nosuch is not a configuration key"),
        (["~protocol.recipe.lr"], "conf/protocol/quick.yaml has protocol.recipe.lr=0.01"),
    ],
)
def test_wrong_keys_are_reported_before_the_first_job(dd_bench, monkeypatch, overrides, message):
    from dd_bench.pipeline import run

    monkeypatch.setattr(run, "run", lambda config: pytest.fail("a job was launched"))
    done = dd_bench("run", "-m", "method=random", "ipc=1,2", *SMALL, *overrides)
    assert done.code == 1 and "2 of 2 jobs are not launched" in done.text and message in done.text, done.text


def test_incomplete_job_file_is_ignored(write_sweep, tmp_path):
    path = write_sweep(j0={"state": "done"})
    (tmp_path / "sweeps" / "jobs" / f"{job_id('run', ['ipc=0'])}.json").write_text('{"verb"')
    assert [job for _, job in jobs_of(path)] == [None] * 4


def test_failed_jobs_are_listed_and_do_not_stop_the_sweep(dd_bench, tmp_path):
    """Sweeps with skipped jobs, with jobs that do not compose, and with failing jobs; also with --only-missing."""
    command_line = ["run", "-m", "model=convnet,mlp", "method=random", "ipc=1,999", *SMALL]
    done = dd_bench(*command_line, "seed=0")
    assert done.code == 0, done.text
    path = sweep_file(tmp_path / "runs")
    states = {(w[0], w[2]): job.state for w, job in jobs_of(path)}
    assert states[("model=convnet", "ipc=1")] == states[("model=mlp", "ipc=1")] == "done"
    assert states[("model=convnet", "ipc=999")] == "skipped"
    assert "sweep: 2 of 4 done, 2 skipped" in done.text and "ipc=999 exceeds the size of class" in done.text
    progress = dd_bench("progress", "runs")
    assert progress.code == 0 and "dd-bench run -m model=convnet,mlp method=random" in progress.text

    one = ["method=random", "ipc=1", *SMALL, "seed=0"]
    typo = dd_bench("run", "-m", "model=convnet,nosuch,mlp", *one, "out=my runs")
    assert (
        typo.code == 1
        and "2 of 3 done, 1 failed" in typo.text
        and "failed: model=nosuch method=random ipc=1" in typo.text
    )
    assert "1 of 3 jobs are not launched" in typo.text and "Launching 2 jobs" in typo.text
    assert typo.text.count("model=nosuch does not exist") == 2, "before the first job and at the end"
    progress = dd_bench("progress", "my runs")
    assert progress.code == 1 and "'out=my runs'" in progress.text
    quoted = dd_bench("run", "-m", "--only-missing", "model=convnet,mlp", *one, "out='my runs'")
    assert quoted.code == 0 and "2 of 2 jobs are finished, 0 to run" in quoted.text
    assert "sweep: 2 of 2 done" in quoted.text
    empty = dd_bench("run", "-m", "experiment=glob(nosuch_*)", "out=empty")
    assert (
        empty.code == 1 and "a glob(...) in experiment=glob(nosuch_*) out=empty matches no file" in empty.text
    )

    broken = dd_bench(*[w.replace("ipc=1,999", "ipc=1,zero") for w in command_line])
    assert broken.code == 1 and broken.text.count("must be an integer") >= 2
    assert (
        "failed: model=convnet method=random ipc=zero" in broken.text
        and "2 of 4 done, 2 failed" in broken.text
    )
    assert dd_bench("progress", "runs").code == 1


def test_plugins_on_the_search_path(dd_bench, tmp_path):
    """A sweep finds the methods and experiments of another package, also through glob(...)."""
    for group, name, text in (
        ("method", "mine", "defaults: [random]"),
        ("experiment", "plug_a", "# @package _global_\nipc: 2"),
        ("experiment", "plug_b", "# @package _global_\nipc: 3"),
    ):
        (tmp_path / "conf" / group).mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / group / f"{name}.yaml").write_text(text)
    search = f"hydra.searchpath=[{tmp_path}/conf]"
    sweep = ["run", "-m", "--only-missing", search, "method=mine", "experiment=glob(plug_*)", *SMALL]
    done = dd_bench(*sweep)
    assert done.code == 0 and "0 of 2 jobs are finished, 2 to run" in done.text, done.text
    assert {load_record(p).ipc for p in (tmp_path / "runs" / "records").glob("*.json")} == {2, 3}
    again = dd_bench(*sweep)
    assert again.code == 0 and "2 of 2 jobs are finished, 0 to run" in again.text, again.text
    listed = dd_bench("list", "methods", "experiment", search)
    assert "  mine " in listed.text and "  plug_a " in listed.text
    assert "does not exist" in dd_bench("list", "method", "hydra.searchpath=[nowhere]").text


def test_forget_ended_sweeps(dd_bench, write_sweep):
    path = write_sweep(j0={"state": "failed", "reason": "why"}, j1={"state": "running"})
    failed = dd_bench("progress", str(path.parent.parent))
    assert failed.code == 1 and f"dd-bench progress {path.parent.parent} --forget" in failed.text
    assert "1 job(s) are running" in dd_bench("progress", str(path.parent.parent), "--forget").text
    write_sweep(j1={"state": "interrupted", "reason": "stopped"})
    stopped = dd_bench("progress", str(path.parent.parent))
    assert stopped.code == 1 and "1 interrupted" in stopped.text and "start their sweep again" in stopped.text
    assert dd_bench("progress", str(path.parent.parent), "--forget").code == 0 and not path.exists()
    assert list(path.parent.glob("jobs/*.json")), "--only-missing reads the states of the jobs"


def test_missing_launcher_library(dd_bench, monkeypatch):
    monkeypatch.setattr("dd_bench.cli.main.find_spec", lambda name: None)
    for launcher, library in (
        ("cores", "joblib"),
        ("slurm", "submitit"),
        ("gpus", "ray"),
        ("submitit_local", "submitit"),
    ):
        done = dd_bench("run", "-m", f"hydra/launcher={launcher}", "ipc=1,2")
        assert f"requires hydra-{library}-launcher" in str(done.code) and "'dd-bench[launchers]'" in str(
            done.code
        )
    assert dd_bench("run", "-m", "hydra/launcher=basic", "method=random", "ipc=1", *SMALL).code == 0


def test_only_missing_jobs_are_launched(dd_bench, tmp_path, monkeypatch):
    from hydra.core.plugins import Plugins

    Plugins.instance()
    sweeper = sys.modules["hydra._internal.core_plugins.basic_sweeper"].BasicSweeper
    monkeypatch.setattr(sweeper, "split_arguments", staticmethod(sweeper.split_arguments))
    command_line = ["run", "-m", "method=random", *SMALL]
    assert dd_bench(*command_line, "ipc=1").code == 0
    both = dd_bench(*command_line, "ipc=1,2", "--only-missing")
    assert both.code == 0 and "1 of 2 jobs are finished, 1 to run" in both.text and "#1" not in both.text
    (tmp_path / "runs" / "records").glob("*.json").__next__().unlink()
    again = dd_bench(*command_line, "ipc=1,2", "--only-missing")
    assert "1 of 2 jobs are finished, 1 to run" in again.text, "a job with a deleted record must run again"
    assert "0 to run" in dd_bench(*command_line, "ipc=1,2", "--only-missing").text
    monkeypatch.setattr("dd_bench.cli.sweeps.NUMBERS_VERSION", 99)
    assert "2 to run" in dd_bench(*command_line, "ipc=1,2", "--only-missing").text, (
        "jobs of another NUMBERS_VERSION must run again"
    )


@pytest.mark.slow
def test_flags_after_overrides(dd_bench):
    done = dd_bench("run", "ipc=1", "--cfg", "job")
    assert done.code == 0 and "ipc: 1" in done.text
    done = dd_bench("run", "method=random,herding", "ipc=1", *SMALL, "-m")
    assert done.code == 0 and "2 of 2 done" in done.text
    assert "--only-missing requires a sweep" in str(dd_bench("run", "ipc=1", "--only-missing").code)


def command(out, *words):
    return [sys.executable, "-m", "dd_bench", "run", "-m", *SMALL, f"out={out}", *words]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "cores"])
def test_sweep_terminated_before_the_first_step(tmp_path, launcher):
    """The process of the job may still import its modules when it receives the signal."""
    process = subprocess.Popen(
        command(tmp_path, f"hydra/launcher={launcher}", "method=dm", "ipc=1"),
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob("sweeps/jobs/*.json")):
        time.sleep(0.01)
        assert process.poll() is None
    process.terminate()
    _, text = process.communicate(timeout=60)
    assert process.returncode == 143 and "1 interrupted" in text and "died" not in text, text
    assert "Traceback" not in text, text


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "cores"])
def test_terminated_sweep(tmp_path, launcher):
    """The running job saves its state and is shown as interrupted, whichever process runs it."""
    words = [f"hydra/launcher={launcher}", "method=dm", "method.iterations=100000", "ipc=1", "log_every=1"]
    process = subprocess.Popen(command(tmp_path, *words), stderr=subprocess.PIPE, text=True)
    while not any(p.stat().st_size for p in tmp_path.glob("work/*/log.jsonl")):
        time.sleep(0.1)
        assert process.poll() is None
    process.terminate()
    _, text = process.communicate(timeout=60)
    assert process.returncode == 143 and "1 interrupted" in text and "Traceback" not in text, text
    assert len(list(tmp_path.glob("work/*/distill.checkpoint.safetensors"))) == 1


@pytest.mark.slow
def test_killed_sweep_is_resumed(tmp_path):
    """The sweep and its processes are killed. The second run does not repeat finished jobs."""
    words = ["method=random,herding", "ipc=1,2,3"]
    first = subprocess.Popen(command(tmp_path, *words), start_new_session=True, stderr=subprocess.DEVNULL)
    while len(list((tmp_path / "records").glob("*.json"))) < 2:
        time.sleep(0.1)
        assert first.poll() is None
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "records").glob("*.json")}
    done = subprocess.run([*command(tmp_path, *words), "--only-missing"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = {p: p.stat().st_mtime_ns for p in (tmp_path / "records").glob("*.json")}
    assert len(after) == 6 and before.items() <= after.items()
    assert "sweep: 6 of 6 done" in done.stderr


@pytest.mark.parametrize(
    "launcher",
    [
        pytest.param("cores", marks=pytest.mark.slow),
        pytest.param("processes", marks=pytest.mark.slow),
        pytest.param("cluster", marks=pytest.mark.slow),
    ],
)
def test_launchers(tmp_path, launcher):
    """Records, states and the report are the same as without a launcher."""
    pytest.importorskip({"cores": "joblib", "processes": "submitit", "cluster": "ray"}[launcher])
    words = [f"hydra/launcher={launcher}", "method=random,herding", "ipc=1,999"]
    if launcher == "cluster":
        words += ["+hydra.launcher.ray.init.num_cpus=2"]
    done = subprocess.run(command(tmp_path, *words), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    records = [load_record(p) for p in (tmp_path / "records").glob("*.json")]
    assert sorted((r.method, r.status) for r in records) == [
        ("herding", "done"),
        ("herding", "skipped"),
        ("random", "done"),
        ("random", "skipped"),
    ]
    assert (
        "sweep: 2 of 4 done, 2 skipped" in done.stderr and "ipc=999 exceeds the size of class" in done.stderr
    )
    pids = {read_job(tmp_path, job_id("run", words)).pid for words, _ in jobs_of(sweep_file(tmp_path))}
    assert os.getpid() not in pids and len(pids) > 1, "jobs must run in several processes"


@pytest.mark.slow
def test_two_launchers_do_not_collide(tmp_path):
    """The same sweep runs twice at the same time: every record is written once, and both succeed."""
    words = ["hydra/launcher=cores", "method=random,herding", "ipc=1,2"]
    both = [subprocess.Popen(command(tmp_path, *words), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    texts = [p.communicate()[1] for p in both]
    assert [p.returncode for p in both] == [0, 0], texts
    assert (
        len(list((tmp_path / "records").glob("*.json"))) == 4
        and len(list((tmp_path / "sets").iterdir())) == 4
    )
    assert all("4 of 4 done" in text for text in texts)


@pytest.mark.parametrize(
    ("launcher", "target", "knob"),
    [
        ("cores", "JoblibLauncher", ("n_jobs", -1)),
        ("processes", "LocalLauncher", ("cpus_per_task", 1)),
        ("slurm", "SlurmLauncher", ("gpus_per_node", 1)),
        ("cluster", "RayLauncher", ("ray.remote.num_cpus", 1)),
        ("gpus", "RayLauncher", ("ray.remote.num_gpus", 1)),
    ],
)
def test_launchers_compose(launcher, target, knob):
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    with initialize_config_module("dd_bench.conf", version_base="1.3"):
        cfg = compose("config", [f"hydra/launcher={launcher}"], return_hydra_config=True)
    assert cfg.hydra.launcher._target_.endswith(target)
    assert OmegaConf.select(cfg.hydra.launcher, knob[0]) == knob[1]
