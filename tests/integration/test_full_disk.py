"""Tests of writing to a full disk: the operating system rejects the write, and existing files stay unchanged."""

import pytest

PRELUDE = """
import resource
def full(): resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
def free(): resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
# Python ignores SIGXFSZ, so a file above the limit raises OSError (EFBIG), like a full disk (ENOSPC).

CHECKPOINT = """
import torch
from dd_bench.runtime import checkpoint
path = folder / "c.safetensors"
checkpoint.save(path, 1, 0.0, {"x": torch.ones(9000)})
full()
try: checkpoint.save(path, 2, 0.0, {"x": torch.zeros(9000)})
except OSError as error: print(error)
free()
x = torch.zeros(9000)
assert checkpoint.restore(path, {"x": x}) == (1, 0.0) and x.sum() == 9000
"""
RECORD = """
from dd_bench.runtime.files import write_atomic
path = folder / "r.json"
write_atomic(path, b"old")
full()
try: write_atomic(path, b"x" * 5000)
except OSError as error: print(error)
free()
assert path.read_bytes() == b"old"
"""
ARTIFACT = """
import torch
from dd_bench.synthetic import storage
from dd_bench.data.preprocess import Normalise
from dd_bench.data.dataset import tensor_set
from dd_bench.synthetic.images import ImageSet
pixels, labels = torch.zeros(12, 1, 32, 32, dtype=torch.uint8), torch.arange(12) % 2
real = tensor_set("tiny", (pixels, labels), (pixels, labels), class_names=("a", "b"),
    preprocess=Normalise([0.5], [0.5]), flip=False, licence="", citation="", device=torch.device("cpu"), val_fraction=0)
def save(name):
    storage.save(ImageSet.coreset(real, torch.arange(12)), folder / name, real=real, method="m", ipc=6, seed=0,
        config={}, citations=[], provenance={})
save("old")
full()
try: save("new")
except OSError as error: print(error)
free()
storage.load(folder / "old")
"""
SCORE_LOG = """
from dd_bench.pipeline.score_log import ScoreLog
from dd_bench.records.record import Score
path = folder / "scores.jsonl"
scores = [Score(metric=letter * 150, value=0.5, set=0, network=0, seed=0) for letter in "abcde"]
score_log = ScoreLog(path)
full()
try:
    for network in range(9): score_log.add([s.model_copy(update={"network": network}) for s in scores], 1.0)
except OSError as error: print(error)
free()
networks, rest = divmod(len(score_log.scores), len(scores))
assert ScoreLog(path).finished(0) == set(range(networks)) != set() and rest == 0
assert len(path.read_text().splitlines()) == networks
"""


@pytest.mark.parametrize(
    ("code", "expected_files"),
    [
        (CHECKPOINT, ["c.safetensors"]),
        (RECORD, ["r.json"]),
        (ARTIFACT, ["old"]),
        (SCORE_LOG, ["scores.jsonl"]),
    ],
    ids=["checkpoint", "record", "artifact", "score_log"],
)
def test_failed_write_leaves_existing_files_unchanged(fork, tmp_path, code, expected_files):
    folder = tmp_path / "full"
    folder.mkdir()
    status = fork(PRELUDE + code, folder=folder).wait(120)
    printed = (tmp_path / "printed.txt").read_text()
    assert status == 0, printed
    assert "File too large" in printed
    if code is not SCORE_LOG:  # the score log appends, and ignores an incomplete last line
        assert "any existing file is unchanged" in printed and str(folder) in printed
    assert [p.name for p in folder.iterdir()] == expected_files


@pytest.mark.parametrize("call", ["fsync", "write"])
def test_run_on_a_full_disk_can_be_resumed(dd_bench, small, tmp_path, monkeypatch, call):
    """The checkpoint cannot be written, so the run ends with an error message; a later run finishes."""

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        if call == "fsync":
            full.setattr("dd_bench.runtime.files.os.fsync", no_space)
        else:
            full.setattr("dd_bench.runtime.files.tempfile.mkstemp", no_space)
        done = dd_bench("run", *small("dm"))
    assert done.code == 1 and "Traceback" not in done.text
    assert "No space left on device; any existing file is unchanged: " in done.text
    assert not [p for p in (tmp_path / "runs").rglob(".*") if p.name != ".hydra"]
    assert not list((tmp_path / "runs").glob("records/*")) and not list((tmp_path / "runs").glob("sets/*"))
    assert dd_bench("run", *small("dm")).code == 0
    assert len(list((tmp_path / "runs").glob("records/*.json"))) == 1
