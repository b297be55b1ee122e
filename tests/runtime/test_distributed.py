"""Several processes that train one network, on the CPU: the same weights as one process, up to rounding."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from dd_bench.runtime.distributed import local_part, loss_weight
from dd_bench.training.views import ViewRecipe, Views

TEACHER = [
    "prepare",
    "method=rded",
    "dataset=digits",
    "teacher=convnet_w32_bn",
    "teachers.convnet_w32_bn.model.norm=instancenorm",
    "teachers.convnet_w32_bn.model.width=8",
    "teachers.convnet_w32_bn.keep=[]",
    "teachers.convnet_w32_bn.recipe.batch_size=301",
    "ipc=1",
    "runtime=plain",
]
EXPERTS = [
    "prepare",
    "method=mtt",
    "dataset=digits",
    "model.width=8",
    "method.experts.count=2",
    "method.experts.recipe.epochs=2",
    "method.expert_epochs=1",
    "method.window.stop=2",
    "ipc=1",
    "runtime=plain",
]


def run(out, words, processes):
    module = ["-m", "dd_bench", *words, f"out={out}"]
    how = [sys.executable, *module]
    if processes > 1:
        how = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={processes}",
            *module,
        ]
    done = subprocess.run(how, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return done


def weights(out, pattern):
    (path,) = (out / "cache").glob(pattern)
    return load_file(path)


def compared(tmp_path, words, pattern):
    """The weights of one process and of two, under one name in the cache."""
    for processes in (1, 2):
        done = run(tmp_path / str(processes), words, processes)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("prepared:") == 1, "the first process alone tells of it"
    one, two = ({p.relative_to(tmp_path / n) for p in (tmp_path / n / "cache").rglob("*")} for n in "12")
    assert one == two, "names, and nothing is left behind"
    return weights(tmp_path / "1", pattern), weights(tmp_path / "2", pattern)


def test_parts_of_a_batch(monkeypatch):
    monkeypatch.setattr("dd_bench.runtime.distributed.world_size", lambda: 3)
    monkeypatch.setattr("dd_bench.runtime.distributed.rank", lambda: 1)
    x, y = torch.arange(7), torch.arange(14).view(7, 2)
    keep = torch.tensor(0.5)
    mine, (labels, kept) = local_part((x, (y, keep)), 7)
    assert mine.tolist() == [1, 4] and labels.tolist() == [[2, 3], [8, 9]] and kept is keep
    assert sum(loss_weight(len(range(r, 7, 3)), 7) for r in range(3)) == pytest.approx(3)


def test_parts_of_views_are_those_of_whole_batches():
    """Each image's view is drawn by its own numbers, so that parts are the rows of whole batches."""
    recipe = ViewRecipe(patches=1, pad=2, scale=(0.5, 1.0), flip=True, mix="none", alpha=1.0)
    images = torch.rand(11, 1, 8, 8)
    views = Views(recipe, 11, seed=0, batch_size=4, flip_allowed=True)
    whole = [show(images[i]).x for i, show in views.batches(0, images.device)]
    for r in range(2):
        parts = [show(images[i]).x for i, show in views.batches(0, images.device, (r, 2))]
        assert all(torch.equal(p, w[r::2]) for p, w in zip(parts, whole, strict=True))
    few = [len(i) for i, _ in views.batches(0, images.device, (3, 4))]
    assert few == [1, 1, 1], "of a batch with fewer images than processes the first one is shown"


@pytest.mark.slow
def test_a_teacher_of_two_processes(tmp_path):
    """Ten epochs of five batches, the last of which is of an odd number of images; views without mixing."""
    one, two = compared(tmp_path, TEACHER, "squeeze-*/network.safetensors")
    for name, value in one.items():
        assert torch.allclose(value, two[name], rtol=0, atol=2e-3), name
    distance = sum((one[n] - two[n]).square().sum() for n in one) ** 0.5
    length = sum(v.square().sum() for v in one.values()) ** 0.5
    assert 0 < distance / length < 1e-3


@pytest.mark.slow
def test_experts_of_two_processes(tmp_path):
    one, two = compared(tmp_path, EXPERTS, "experts-*/experts.safetensors")
    (name,) = one
    a, b = one[name].float(), two[name].float()
    assert torch.equal(a[:, 0], b[:, 0]), "the initialisation"
    moved = (a[:, -1] - a[:, 0]).norm()
    assert 0 < (a[:, -1] - b[:, -1]).norm() / moved < 1e-2


@pytest.mark.slow
def test_what_several_processes_cannot(tmp_path):
    done = run(tmp_path, [w for w in TEACHER if "norm=" not in w], 2)
    assert done.returncode != 0 and "a network with BatchNorm needs CUDA" in done.stderr + done.stdout
    done = run(tmp_path, ["run", *TEACHER[1:]], 2)
    assert done.returncode != 0 and "only prepare runs under torchrun" in done.stderr + done.stdout
