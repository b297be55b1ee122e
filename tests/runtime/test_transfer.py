"""Packing of parameters into one transfer, and constants."""

import torch
from torch import nn

from dd_bench.runtime.transfer import constant, move_module, pack, to_host, unpack


def test_packed_tensors_of_several_types_are_restored():
    tensors = [torch.randn(3, 5), torch.tensor(7), torch.randn(2, dtype=torch.float64), torch.zeros(0, 4)]
    packed, offsets = pack(tensors)
    assert all(offset % 256 == 0 for offset in offsets)
    for restored, tensor in zip(unpack(packed, offsets, tensors), tensors, strict=True):
        assert restored.dtype == tensor.dtype
        assert torch.equal(restored, tensor)


def test_copies_on_the_cpu_are_contiguous_and_share_no_memory():
    x = torch.arange(6.0).view(2, 3)
    tensors = [x.T, x, torch.tensor(7), torch.zeros(0, 4), torch.ones(2, requires_grad=True)]
    copies = to_host(tensors)
    assert all(
        torch.equal(copy, t) and copy.dtype == t.dtype for copy, t in zip(copies, tensors, strict=True)
    )
    assert all(copy.is_contiguous() and not copy.requires_grad for copy in copies)
    x.zero_()
    assert copies[0].tolist() == [[0, 3], [1, 4], [2, 5]]


def test_a_module_is_moved_in_place():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = {name: (t.shape, t.dtype) for name, t in net.state_dict().items()}
    assert move_module(net, torch.device("meta")) is net
    after = net.state_dict()
    assert all(t.device.type == "meta" for t in after.values())
    assert {name: (t.shape, t.dtype) for name, t in after.items()} == before
    assert all(t._base is None for t in after.values())  # views would share one version counter


def test_a_module_stays_on_the_cpu():
    net = nn.Linear(2, 2)
    weight = net.weight
    assert move_module(net, torch.device("cpu")).weight is weight


def test_constants_are_made_once_and_are_no_inference_tensors():
    device = torch.device("cpu")
    with torch.inference_mode():
        first = constant((0.1, 0.2), device, torch.float32)
    assert first is constant((0.1, 0.2), device, torch.float32)
    assert not first.is_inference()
    assert torch.equal(first, torch.tensor([0.1, 0.2]))
    assert constant((0.1, 0.2), device, torch.float64).dtype == torch.float64
