"""Seeds: a stream depends only on its name, and the global generators are not changed."""

from contextlib import contextmanager

import pytest
import torch

from dd_bench.runtime import checkpoint
from dd_bench.runtime.seeding import Generators, generator, seed_for, seeded, stream


def test_seeds_do_not_change():
    """Every result depends on these values; a change requires a new NUMBERS_VERSION."""
    assert seed_for(0, "augment", 3) == 3248100074690797057
    assert seed_for(0) == 3456079177858693020


def test_different_names_have_different_seeds():
    names = [(), ("a",), ("a", "b"), ("ab",), ("a", 1), ("a1",), ("a", "1", ""), (1,), (11,), (1, 1)]
    seeds = {seed_for(base, *name) for base in (0, 1) for name in names}
    assert len(seeds) == 2 * len(names) and all(0 <= s < 2**63 for s in seeds)


def test_stream_depends_only_on_its_name():
    torch.rand(5)
    a = torch.rand(3, generator=generator("cpu", 7, "real", 4))
    torch.rand(2)
    assert torch.equal(a, torch.rand(3, generator=generator("cpu", 7, "real", 4)))
    assert not torch.equal(a, torch.rand(3, generator=generator("cpu", 7, "real", 5)))


def test_host_and_device_generator_are_identical_on_the_cpu():
    """Otherwise a decision and a tensor would use the same random numbers."""
    s = stream("cpu", 0, "augment")
    assert s.host is s.device


def test_seeded_restores_the_global_generator():
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    with seeded("cpu", 9):
        inside = torch.rand(4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        assert torch.equal(torch.rand(4), inside)
    assert torch.equal(torch.rand(4), expected)
    torch.manual_seed(1)
    with pytest.raises(KeyError), seeded("cpu", 9):
        assert torch.equal(torch.rand(4), inside)
        raise KeyError
    assert torch.equal(torch.rand(4), expected), "after an error too"


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
def test_seeded_seeds_only_the_generators_that_it_restores(device, monkeypatch):
    """`torch.manual_seed` would seed the generators of all GPUs, and only that of `device` would be restored."""
    seeds, active = {0: None, 1: None}, [0]

    @contextmanager
    def activate(device):
        active.append(device.index or 0)
        yield
        active.pop()

    monkeypatch.setattr("torch.cuda.device", activate)
    monkeypatch.setattr("torch.cuda.manual_seed", lambda seed: seeds.__setitem__(active[-1], seed))
    monkeypatch.setattr("torch.cuda.manual_seed_all", lambda seed: seeds.update({0: seed, 1: seed}))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_rng_state", lambda device: seeds[torch.device(device).index or 0])
    monkeypatch.setattr(
        "torch.cuda.set_rng_state",
        lambda state, device: seeds.__setitem__(torch.device(device).index or 0, state),
    )
    index = {"cpu": None, "cuda": 0, "cuda:1": 1}[device]
    with seeded(device, 9):
        assert seeds == {i: 9 if i == index else None for i in seeds}
    assert seeds == {0: None, 1: None}


class TestGenerators:
    """After a checkpoint is restored, streams continue with the same numbers."""

    CPU = torch.device("cpu")

    @staticmethod
    def streams(base=3):
        return [stream("cpu", base, role) for role in ("order", "augment")]

    @staticmethod
    def draw(streams):
        numbers = [torch.rand(3, generator=g) for s in streams for g in (s.host, s.device)]
        return torch.stack([*numbers, torch.rand(3), torch.randn(3)])

    def test_round_trip_through_a_checkpoint(self, tmp_path):
        with seeded("cpu", 1):
            streams = self.streams()
            self.draw(streams)
            torch.randn(1)  # normal numbers are drawn in pairs, so one of them is stored
            checkpoint.save(tmp_path / "c", 1, 0.0, {"streams": Generators(streams, self.CPU)})
            expected = [self.draw(streams) for _ in range(2)]
            assert not torch.equal(*expected)
        with seeded("cpu", 2):
            other = self.streams(base=4)
            self.draw(other)
            checkpoint.restore(tmp_path / "c", {"streams": Generators(other, self.CPU)})
            assert all(torch.equal(self.draw(other), w) for w in expected)

    def test_streams_have_separate_states(self):
        first, second = self.streams()
        torch.rand(5, generator=second.host)
        state = Generators([first, second], self.CPU).state_dict()
        fresh = self.streams()
        with seeded("cpu", 0):
            Generators(fresh, self.CPU).load_state_dict(state)
        for a, b in zip(fresh, (first, second), strict=True):
            assert torch.equal(torch.rand(4, generator=a.host), torch.rand(4, generator=b.host))

    def test_state_is_a_copy(self):
        streams = self.streams()
        state = Generators(streams, self.CPU).state_dict()
        before = {k: v.clone() for k, v in state.items()}
        self.draw(streams)
        assert all(torch.equal(v, before[k]) for k, v in state.items())
        assert set(state) == {"0.host", "0.device", "1.host", "1.device", "global"}

    def test_checkpoint_of_fewer_streams_is_refused(self, tmp_path):
        streams = self.streams()
        checkpoint.save(tmp_path / "c", 1, 0.0, {"streams": Generators(streams[:1], self.CPU)})
        with pytest.raises(checkpoint.CheckpointError, match=r"'streams' in checkpoint .*1\.host"):
            checkpoint.restore(tmp_path / "c", {"streams": Generators(streams, self.CPU)})
