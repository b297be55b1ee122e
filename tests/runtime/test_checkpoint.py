"""Checkpoints: saving and restoring is bitwise exact, and unusable files raise errors."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, MultiStepLR, ReduceLROnPlateau

from dd_bench.runtime import checkpoint
from dd_bench.runtime.checkpoint import CheckpointError, restore, save, saved_progress


def descend(images, optimizer, steps, scheduler=None):
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (images - 3).square().mul(torch.arange(6.0).view(2, 3)).sum()
        loss.backward()
        optimizer.step()
        if isinstance(scheduler, ReduceLROnPlateau):
            scheduler.step(float(loss.detach()))
        elif scheduler is not None:
            scheduler.step()


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.01, momentum=0.5),
    "sgd, no state": lambda p: torch.optim.SGD(p, 0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.1),
    "adam, fused": lambda p: torch.optim.Adam(p, 0.1, fused=True),
}
SCHEDULERS = {
    "none": lambda o: None,
    "plateau": lambda o: ReduceLROnPlateau(o, factor=0.5, patience=0, threshold=0.5),
    "cosine": lambda o: CosineAnnealingLR(o, 9),
    "steps": lambda o: MultiStepLR(o, [2, 5]),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_resuming_is_bitwise_exact(tmp_path, optimizer, scheduler):
    def fresh():
        images = torch.arange(6.0).view(2, 3).requires_grad_()
        opt = OPTIMIZERS[optimizer]([images])
        state = {"images": images, "optimizer": opt}
        schedule = SCHEDULERS[scheduler](opt)
        return state | ({} if schedule is None else {"scheduler": schedule}), schedule

    reference, schedule = fresh()
    descend(reference["images"], reference["optimizer"], 9, schedule)

    first, schedule = fresh()
    descend(first["images"], first["optimizer"], 4, schedule)
    save(tmp_path / "c", 4, 1.5, first)
    second, schedule = fresh()
    assert restore(tmp_path / "c", second) == (4, 1.5)
    assert torch.equal(second["images"], first["images"])
    descend(second["images"], second["optimizer"], 5, schedule)
    assert torch.equal(second["images"], reference["images"])
    assert second["optimizer"].param_groups[0]["lr"] == reference["optimizer"].param_groups[0]["lr"]


def test_module_with_buffers_and_tied_weights(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.a, self.b = nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight

    net, other = Tied(), Tied()
    net.norm(torch.randn(8, 4))
    save(tmp_path / "c", 1, 0.0, {"net": net})
    restore(tmp_path / "c", {"net": other})
    for (name, a), b in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(
    "value",
    [
        torch.tensor(3.5),
        torch.arange(4),
        torch.tensor([True, False]),
        torch.randn(3, 2).to(torch.bfloat16),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.randn(4, 3).t(),
        torch.randn(1, 3).expand(2, 3),
        torch.zeros(0, 3),
    ],
    ids=lambda t: f"{t.dtype}{tuple(t.shape)}{t.stride()}",
)
def test_dtypes_and_memory_layouts(tmp_path, value):
    save(tmp_path / "c", 0, 0.0, {"x": value})
    restored = torch.zeros_like(value)
    restore(tmp_path / "c", {"x": restored})
    assert torch.equal(restored, value) and restored.stride() == torch.zeros_like(value).stride()


def test_views_of_one_tensor(tmp_path):
    base = torch.arange(6.0)
    save(tmp_path / "c", 0, 0.0, {"a": base[:3], "b": base[3:], "c": base})
    restored = {k: torch.zeros(n) for k, n in (("a", 3), ("b", 3), ("c", 6))}
    restore(tmp_path / "c", restored)
    assert torch.equal(restored["c"], base) and torch.equal(restored["b"], base[3:])


def test_missing_checkpoint_starts_at_zero(tmp_path):
    x = torch.ones(2)
    assert restore(tmp_path / "none", {"x": x}) == (0, 0.0) and x.sum() == 2


def test_only_tensors_and_json_are_stored(tmp_path):
    images = torch.zeros(2, requires_grad=True)
    save(tmp_path / "c", 3, 2.0, {"images": images, "optimizer": torch.optim.Adam([images])})
    assert list(load_file(tmp_path / "c")) == ["images"]
    with safe_open(tmp_path / "c", framework="pt") as file:
        header = file.metadata()
    assert header["step"] == "3" and json.loads(header["plain"])["images"] == {"tensor": "images"}


class TestUnusable:
    """Every error names the file and contains the command to start from scratch."""

    @pytest.fixture
    def path(self, tmp_path):
        save(tmp_path / "c.safetensors", 7, 1.0, {"images": torch.ones(4, 3)})
        return tmp_path / "c.safetensors"

    @pytest.mark.parametrize("keep", [0, 5, 60, -1])
    def test_truncated_file(self, path, keep):
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(CheckpointError, match=rf"checkpoint {path} is damaged.*rm {path}"):
            restore(path, {"images": torch.zeros(4, 3)})

    def test_other_content(self, path):
        path.write_bytes(b"text that is longer than the header of a checkpoint")
        with pytest.raises(CheckpointError, match="damaged"):
            restore(path, {"images": torch.zeros(4, 3)})

    @pytest.mark.parametrize("header", [None, {}, {"step": "1", "seconds": "x", "plain": "{}"}])
    def test_another_safetensors_file(self, path, header):
        save_file({"images": torch.ones(4, 3)}, path, metadata=header)
        with pytest.raises(CheckpointError, match="damaged"):
            restore(path, {"images": torch.zeros(4, 3)})

    def test_other_names(self, path):
        with pytest.raises(
            CheckpointError, match=r"must contain \['images', 'optimizer'\], got \['images'\]"
        ):
            x = torch.zeros(4, 3, requires_grad=True)
            restore(path, {"images": x, "optimizer": torch.optim.SGD([x], 0.1)})

    @pytest.mark.parametrize("other", [torch.zeros(2, 3), torch.zeros(1, 4, 3), torch.zeros(4, 3).double()])
    def test_other_shape_or_dtype(self, path, other):
        """Shapes that would broadcast are refused too."""
        with pytest.raises(
            CheckpointError, match=r"expected torch.float\d\d \(.*got torch.float32 \(4, 3\).*rm "
        ):
            restore(path, {"images": other})
        save(path, 1, 0.0, {"images": torch.ones(1, 3)})
        with pytest.raises(
            CheckpointError, match=r"expected torch.float32 \(4, 3\), got torch.float32 \(1, 3\)"
        ):
            restore(path, {"images": torch.zeros(4, 3)})

    def test_other_optimiser(self, path):
        x, y = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
        save(path, 1, 0.0, {"optimizer": torch.optim.SGD([x], 0.1)})
        with pytest.raises(CheckpointError, match="'optimizer' in checkpoint"):
            restore(path, {"optimizer": torch.optim.SGD([x, y], 0.1)})

    def test_other_network(self, path):
        save(path, 1, 0.0, {"net": nn.Linear(2, 2)})
        with pytest.raises(CheckpointError, match="'net' in checkpoint"):
            restore(path, {"net": nn.Linear(3, 2)})

    def test_optimiser_in_place_of_a_tensor(self, path):
        save(path, 1, 0.0, {"images": torch.optim.SGD([torch.zeros(1)], 0.1)})
        with pytest.raises(CheckpointError, match="no tensor"):
            restore(path, {"images": torch.zeros(1)})


def test_failed_save_does_not_change_the_previous_checkpoint(tmp_path, monkeypatch):
    save(tmp_path / "c", 1, 0.0, {"x": torch.ones(3)})
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path / "c", 2, 0.0, {"x": torch.zeros(3)})
    x = torch.zeros(3)
    assert restore(tmp_path / "c", {"x": x})[0] == 1 and x.sum() == 3
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_tensors_in():
    x = torch.zeros(2, requires_grad=True)
    optimizer = torch.optim.SGD([x], 0.1, momentum=0.9)
    x.sum().backward()
    optimizer.step()
    assert set(checkpoint.tensors_in({"x": x, "optimizer": optimizer})) == {
        "x",
        "optimizer.state.0.momentum_buffer",
    }


class TestSavedProgress:
    """Steps and seconds of a checkpoint."""

    def test_steps_and_seconds(self, tmp_path):
        save(tmp_path / "c", 7, 1.25, {"x": torch.ones(3)})
        assert saved_progress(tmp_path / "c") == (7, 1.25)
        save(tmp_path / "c", 8, 0.1 + 0.2, {"x": torch.ones(3)})
        assert saved_progress(tmp_path / "c") == (8, 0.1 + 0.2), "exact"

    def test_missing_file(self, tmp_path):
        assert saved_progress(tmp_path / "none") == (0, 0.0) == saved_progress(tmp_path)

    @pytest.mark.parametrize("keep", [0, 5, 60, -1])
    def test_truncated_file(self, tmp_path, keep):
        save(tmp_path / "c", 7, 1.25, {"x": torch.ones(3)})
        (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:keep])
        assert saved_progress(tmp_path / "c") == (0, 0.0)

    @pytest.mark.parametrize("header", [None, {}, {"step": "1"}, {"step": "x", "seconds": "1"}])
    def test_other_file(self, tmp_path, header):
        save_file({"x": torch.ones(3)}, tmp_path / "c", metadata=header)
        assert saved_progress(tmp_path / "c") == (0, 0.0)
