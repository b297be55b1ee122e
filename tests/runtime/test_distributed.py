"""Data-parallel training on the CPU gives the weights of one process, up to rounding."""

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


def run(out, arguments, processes):
    module = ["-m", "dd_bench", *arguments, f"out={out}"]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), *module]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def weights(out, pattern):
    (path,) = (out / "cache").glob(pattern)
    return load_file(path)


def weights_of_one_and_two(tmp_path, arguments, pattern):
    """Return the weights from one and from two processes, which must have the same name in the cache."""
    for processes in (1, 2):
        done = run(tmp_path / str(processes), arguments, processes)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("prepared:") == 1, "only the first process prints it"
    one, two = ({p.relative_to(tmp_path / n) for p in (tmp_path / n / "cache").rglob("*")} for n in "12")
    assert one == two, "the same names and no temporary files"
    return weights(tmp_path / "1", pattern), weights(tmp_path / "2", pattern)


def test_local_part_of_a_batch(monkeypatch):
    monkeypatch.setattr("dd_bench.runtime.distributed.world_size", lambda: 3)
    monkeypatch.setattr("dd_bench.runtime.distributed.rank", lambda: 1)
    x, y = torch.arange(7), torch.arange(14).view(7, 2)
    scalar = torch.tensor(0.5)
    images, (labels, same) = local_part((x, (y, scalar)), 7)
    assert images.tolist() == [1, 4] and labels.tolist() == [[2, 3], [8, 9]] and same is scalar
    assert sum(loss_weight(len(range(r, 7, 3)), 7) for r in range(3)) == pytest.approx(3)


def test_local_views_are_rows_of_the_full_batch():
    """The view of each image has its own random numbers, so local parts are rows of full batches."""
    recipe = ViewRecipe(patches=1, pad=2, scale=(0.5, 1.0), flip=True, mix="none", alpha=1.0)
    images = torch.rand(11, 1, 8, 8)
    views = Views(recipe, 11, seed=0, batch_size=4, flip_allowed=True)
    whole = [views.view(draw, images[draw.index]).x for draw in views.draws(0)]
    for r in range(2):
        parts = [views.view(draw, images[draw.index]).x for draw in views.draws(0, (r, 2))]
        assert all(torch.equal(p, w[r::2]) for p, w in zip(parts, whole, strict=True))
    few = [len(draw.index) for draw in views.draws(0, (3, 4))]
    assert few == [1, 1, 1], "a process without images of its own gets the first image of the batch"


@pytest.mark.slow
def test_teacher_trained_by_two_processes(tmp_path):
    """Ten epochs of five batches, where the last batch has an odd number of images; views without mixing."""
    one, two = weights_of_one_and_two(tmp_path, TEACHER, "squeeze-*/network.safetensors")
    for name, value in one.items():
        assert torch.allclose(value, two[name], rtol=0, atol=2e-3), name
    distance = sum((one[n] - two[n]).square().sum() for n in one) ** 0.5
    length = sum(v.square().sum() for v in one.values()) ** 0.5
    assert 0 < distance / length < 1e-3


@pytest.mark.slow
def test_experts_trained_by_two_processes(tmp_path):
    one, two = weights_of_one_and_two(tmp_path, EXPERTS, "experts-*/experts.safetensors")
    (name,) = one
    a, b = one[name].float(), two[name].float()
    assert torch.equal(a[:, 0], b[:, 0]), "the initialisation"
    moved = (a[:, -1] - a[:, 0]).norm()
    assert 0 < (a[:, -1] - b[:, -1]).norm() / moved < 1e-2


@pytest.mark.slow
def test_unsupported_runs_of_several_processes(tmp_path):
    done = run(tmp_path, [a for a in TEACHER if "norm=" not in a], 2)
    assert (
        done.returncode != 0 and "BatchNorm in several processes requires CUDA" in done.stderr + done.stdout
    )
    done = run(tmp_path, ["run", *TEACHER[1:]], 2)
    assert done.returncode != 0 and "dd_bench supports only the command prepare" in done.stderr + done.stdout
