"""Tests of the simulated device: CUDA's rules for devices, counts of waits and launches, and values as on the CPU."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dd_bench.training.scoring import accuracy


@pytest.fixture
def device(simulated, counts):
    return simulated.DEVICE


def on(device, *shape):
    return torch.ones(*shape, device=device)


class TestWaits:
    """Each wait is counted once, and a step without one counts none."""

    @pytest.mark.parametrize(
        ("name", "waits"),
        [
            ("item", lambda x: x[0].item()),
            ("float", lambda x: float(x.sum())),
            ("bool", lambda x: bool((x > 0).all())),
            ("tolist", lambda x: x.tolist()),
            ("cpu", lambda x: x.cpu()),
            ("boolean index", lambda x: x[x > 0]),
            ("boolean assignment", lambda x: x.__setitem__(x > 0, 2.0)),
            ("nonzero", lambda x: x.nonzero()),
            ("unique", lambda x: x.unique()),
            ("from a list", lambda x: torch.tensor([1.0, 2.0], device=x.device)),
            ("from the CPU", lambda x: torch.ones(3).to(x.device)),
            ("copy_", lambda x: x.copy_(torch.ones(3))),
            ("index on the CPU", lambda x: x[torch.tensor([0, 1])]),
            ("repeats on the device", lambda x: x.repeat_interleave(torch.ones_like(x, dtype=torch.int64))),
            ("to sparse", lambda x: x.expand(2, 3).to_sparse_csr()),
        ],
    )
    def test_counted(self, device, counts, name, waits):
        x = on(device, 3)
        before = counts.waits.total()
        waits(x)
        assert counts.waits.total() == before + 1

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: (x * 2 + 1).sum(),
            lambda x: x[torch.arange(2, device=x.device)],
            lambda x: torch.zeros(2, device=x.device),
            lambda x: x.masked_fill(x > 0, 1.0),
            lambda x: x.__setitem__(0, 1.0),
            lambda x: torch.where(x > 0, x, 0.0),
            lambda x: torch.ones(3).pin_memory().to(x.device, non_blocking=True),
            lambda x: torch.ones(3).pin_memory().copy_(x, non_blocking=True),
            lambda x: x.repeat_interleave(2),
        ],
    )
    def test_not_counted(self, device, counts, function):
        function(on(device, 3))
        assert not counts.waits

    def test_non_blocking_copy_needs_pinned_memory(self, device, counts):
        x = torch.ones(3).to(device, non_blocking=True)
        assert counts.waits.total() == 1
        torch.ones(3).copy_(x, non_blocking=True)
        assert counts.waits.total() == 2

    def test_place_is_the_line_of_dd_bench(self, device, counts, runtime):
        net = nn.Linear(2, 2).to(device)
        counts.waits.clear()
        accuracy(net, iter([(on(device, 3, 2), torch.zeros(3, dtype=torch.int64, device=device))]), runtime)
        assert [wait.place for wait in counts.waits] == [
            "dd_bench/training/scoring.py: return int(right) / seen"
        ]
        assert all(counts.lines[wait.place] > 0 for wait in counts.waits)


class TestDevices:
    """An operation on tensors of two devices is an error where it is one on CUDA."""

    @pytest.mark.parametrize(
        "function",
        [
            lambda x, cpu: x + cpu,
            lambda x, cpu: cpu + x,
            lambda x, cpu: torch.cat([x, cpu]),
            lambda x, cpu: F.linear(x, cpu),
            lambda x, cpu: cpu[x.long()],
            lambda x, cpu: x.index_select(0, cpu.long()),
            lambda x, cpu: x.__setitem__(torch.zeros(3, dtype=torch.int64, device=x.device), cpu),
            lambda x, cpu: F.mse_loss(x, cpu),
        ],
    )
    def test_mixture_raises(self, device, simulated, function):
        with pytest.raises(simulated.DeviceMismatch, match="lazy and on the CPU"):
            function(on(device, 3), torch.ones(3))

    @pytest.mark.parametrize(
        "function", [lambda x, scalar: x * scalar, lambda x, scalar: torch.where(x > 0, x, scalar)]
    )
    def test_scalars_on_the_cpu_are_allowed(self, device, function):
        assert function(on(device, 3), torch.tensor(2.0)).device.type == device.type

    @pytest.mark.parametrize(("of", "at"), [("cpu", "lazy"), ("lazy", "cpu")])
    def test_generator_on_another_device(self, device, simulated, of, at):
        with pytest.raises(simulated.DeviceMismatch, match="generator"):
            torch.rand(3, generator=torch.Generator(of), device=at)

    def test_numpy_of_a_tensor_on_the_device(self, device):
        with pytest.raises((TypeError, RuntimeError)):
            on(device, 3).numpy()

    def test_device_ends_with_its_context(self, simulated):
        generator, tolist = torch.Generator, torch.Tensor.tolist
        with simulated.simulated_device():
            x = torch.ones(2, device=simulated.DEVICE)
        assert torch.Generator is generator and torch.Tensor.tolist is tolist
        assert not torch._C._only_lift_cpu_tensors()
        with pytest.raises(AssertionError, match="outside"):
            x + 1


class TestValues:
    """The device computes what the CPU computes."""

    @pytest.fixture
    def trained(self):
        def run(device):
            torch.manual_seed(0)
            net = nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
            )
            x, y = torch.randn(6, 1, 8, 8), torch.arange(6) % 3
            net, x, y = net.to(device), x.to(device), y.to(device)
            optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, fused=True)
            for _ in range(3):
                optimizer.zero_grad()
                F.cross_entropy(net(x), y).backward()
                optimizer.step()
            gradients = torch.autograd.grad(
                F.cross_entropy(net(x), y), [*net.parameters()], create_graph=True
            )
            sum((g**2).sum() for g in gradients).backward()
            return [p.detach().cpu() for p in net.parameters()] + [p.grad.cpu() for p in net.parameters()]

        return run

    def test_training_and_second_derivatives(self, device, trained):
        for a, b in zip(trained(device), trained(torch.device("cpu")), strict=True):
            assert torch.equal(a, b)

    def test_vmap_launches_once_for_all_networks(self, device, counts):
        x = on(device, 5, 3)
        before = counts.launches
        y = torch.vmap(lambda row: row * 2)(x)
        assert counts.launches == before + 1 and y.tolist() == [[2.0] * 3] * 5

    def test_random_numbers_are_those_of_the_cpu(self, device):
        numbers = [
            torch.rand(4, generator=torch.Generator(d).manual_seed(3), device=d).tolist()
            for d in (device, "cpu")
        ]
        assert numbers[0] == numbers[1]

    def test_sparse_matrices(self, device, counts):
        """Products and their gradients, with a matrix that is moved, and one that is made on the device."""
        dense = torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 3.0]])
        moved = dense.to_sparse_csr().to(device)
        made = torch.sparse_csr_tensor(
            *(t.to(device) for t in (torch.tensor([0, 1, 3]), torch.tensor([1, 0, 2]), torch.tensor([2.0, 1, 3]))),
            (2, 3), check_invariants=False,
        )  # fmt: skip
        x = torch.arange(6.0).view(3, 2).to(device).requires_grad_()
        before = counts.waits.total()
        results = []
        for matrix in (moved, made):
            assert matrix.device.type == device.type and matrix.is_sparse_csr
            products = (matrix @ x, torch.sparse.mm(matrix, x))
            results += [(p, *torch.autograd.grad(p.square().sum(), x)) for p in products]
        assert counts.waits.total() == before
        expected = dense @ torch.arange(6.0).view(3, 2)
        for product, gradient in results:
            assert torch.equal(product.cpu(), expected)
            assert torch.equal(gradient.cpu(), 2 * dense.t() @ expected)
        assert made.col_indices().tolist() == [1, 0, 2] and made.values().tolist() == [2.0, 1.0, 3.0]

    def test_quantile(self, device, counts):
        x = torch.arange(4.0, device=device)
        assert x.quantile(0.5).shape == () and counts.waits.total() == 0 and float(x.quantile(0.5)) == 1.5

    def test_in_place_operations_change_views(self, device):
        x = torch.zeros(2, 2, device=device)
        x[0] += 1
        x[:, 1].mul_(3)
        assert x.tolist() == [[1.0, 3.0], [0.0, 0.0]]

    def test_deepcopy_is_independent(self, device):
        net = nn.Linear(2, 2).to(device)
        other = copy.deepcopy(net)
        with torch.no_grad():
            other.weight.zero_()
        assert float(net.weight.detach().abs().sum()) > 0 and isinstance(other.weight, nn.Parameter)
