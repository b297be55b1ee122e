"""Seeds: a stream is its name, whatever else was drawn, and nothing leaks into the global generators."""

import pytest
import torch

from dd_bench.seeding import generator, seed_for, seeded, stream


def test_held_by_value():
    """Every result depends on these; a change is a new NUMBERS_VERSION."""
    assert seed_for(0, "augment", 3) == 3248100074690797057
    assert seed_for(0) == 3456079177858693020


def test_names_do_not_run_into_each_other():
    names = [(), ("a",), ("a", "b"), ("ab",), ("a", 1), ("a1",), ("a", "1", ""), (1,), (11,), (1, 1)]
    seeds = {seed_for(base, *name) for base in (0, 1) for name in names}
    assert len(seeds) == 2 * len(names) and all(0 <= s < 2**63 for s in seeds)


def test_a_stream_is_its_name():
    torch.rand(5)
    a = torch.rand(3, generator=generator("cpu", 7, "real", 4))
    torch.rand(2)
    assert torch.equal(a, torch.rand(3, generator=generator("cpu", 7, "real", 4)))
    assert not torch.equal(a, torch.rand(3, generator=generator("cpu", 7, "real", 5)))


def test_on_the_cpu_both_sides_of_a_stream_are_one():
    """So that a choice and a tensor drawn one after the other are not the same numbers."""
    s = stream("cpu", 0, "augment")
    assert s.host is s.device


def test_seeded_restores_the_global_generator():
    torch.manual_seed(1)
    wanted = torch.rand(4)
    torch.manual_seed(1)
    with seeded("cpu", 9):
        inside = torch.rand(4)
    assert torch.equal(torch.rand(4), wanted)
    torch.manual_seed(1)
    with pytest.raises(KeyError), seeded("cpu", 9):
        assert torch.equal(torch.rand(4), inside)
        raise KeyError
    assert torch.equal(torch.rand(4), wanted), "after an error too"
