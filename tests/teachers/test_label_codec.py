"""Stored logits: exact sizes, the error of quantised logits, and the values of logits that are not stored."""

import numpy as np
import pytest
import torch

from dd_bench.teachers.label_codec import LabelCodec, dequantise, quantise
from dd_bench.teachers.label_store import StoreHeader

LOGITS = 4 * torch.randn(6, 10, generator=torch.Generator().manual_seed(0))


def decoded(**values):
    codec = LabelCodec(10, **values)
    return codec.decode(codec.encode(LOGITS)).float()


def imagenet(pool, **values):
    """Return the size of the labels of 10 images per class of ImageNet-1K for 300 epochs, in bytes."""
    header = StoreHeader(
        "", 10_000, 1000, 300 // pool, 0, 1024, {}, ("",), ("",), "eval", values.pop("top", None), **values
    )
    return header.layout.size


class TestSizes:
    def test_published_sizes_of_imagenet(self):
        """5.6 GiB for all logits, and 60 MB for 50 logits of a tenth of the epochs (SRe2L, LPQLD)."""
        assert imagenet(1) == 6_000_000_000 and round(imagenet(1) / 2**30, 1) == 5.6
        assert imagenet(10, top=50, rest="zero") == 60_000_000
        assert imagenet(10, top=50, rest="minimum") == 60_000_000
        assert imagenet(10, top=50) == 60_000_000 + 2 * 30 * 10_000, "one more value per view"

    def test_batches(self):
        """A fortieth of 3,000 batches is 75 batches; the last batch of an epoch has 784 images."""
        assert imagenet(40, batches=75) == 2 * 1000 * (7 * 10_000 + 5 * 1024)
        assert imagenet(30, batches=10) == imagenet(300, batches=None) == 2 * 1000 * 10_000

    @pytest.mark.parametrize(
        ("values", "size"),
        [
            ({}, 20),
            ({"bits": 8}, 10 + 4),
            ({"bits": 4}, 5 + 4),
            ({"bits": 3}, 4 + 4),
            ({"top": 3}, 3 * 4 + 2),
            ({"top": 3, "rest": "zero"}, 3 * 4),
            ({"top": 3, "rest": "zero", "bits": 2}, 1 + 4 + 2),  # three codes, three classes of 4 bits
            ({"top": 10}, 20),
        ],
    )
    def test_bytes_of_a_view(self, values, size):
        codec = LabelCodec(10, **values)
        arrays = codec.encode(LOGITS)
        shapes = {name: shape for name, (_, shape) in codec.arrays(6).items()}
        assert {name: a.shape for name, a in arrays.items()} == shapes
        types = {"F16": 2, "I16": 2, "U8": 1}
        stored = sum(types[codec.arrays()[name][0]] * a.size for name, a in arrays.items())
        assert codec.view_bytes == size and stored == 6 * size


class TestQuantisation:
    @pytest.mark.parametrize("bits", [1, 2, 4, 8])
    def test_error_is_at_most_half_a_step(self, bits):
        values = LOGITS.double().numpy()
        codes, ends = quantise(values, bits)
        step = np.diff(ends.astype(np.float64), axis=1) / (2**bits - 1)
        error = np.abs(dequantise(codes, ends, bits) - values)
        assert codes.min() >= 0 and codes.max() < 2**bits
        assert (error <= step / 2 * (1 + 1e-9)).all()
        assert (error > step / 4).any(), "the bound is tight"

    def test_quantising_again_changes_nothing(self):
        once = decoded(bits=3)
        codec = LabelCodec(10, bits=3)
        assert torch.equal(codec.decode(codec.encode(once)).float(), once)

    def test_equal_logits(self):
        codec = LabelCodec(3, bits=2)
        assert torch.equal(
            codec.decode(codec.encode(torch.full((2, 3), 1.5))), torch.full((2, 3), 1.5).half()
        )


class TestLogitsThatAreNotStored:
    def test_largest_logits_are_exact(self):
        for rest in ("share", "minimum", "zero"):
            cut = decoded(top=3, rest=rest)
            values, index = LOGITS.half().float().topk(3, 1)
            assert torch.equal(cut.gather(1, index), values)

    def test_zero_is_a_softmax_over_the_stored_logits(self):
        p = (decoded(top=3, rest="zero") / 20).softmax(1)
        values, index = LOGITS.half().float().topk(3, 1)
        expected = torch.zeros(6, 10).scatter(1, index, (values / 20).softmax(1))
        assert torch.allclose(p, expected, atol=1e-6)

    @pytest.mark.parametrize("bits", [None, 4])
    def test_minimum_is_the_smallest_stored_logit(self, bits):
        cut = decoded(top=3, rest="minimum", bits=bits).sort(1, descending=True).values
        assert torch.equal(cut[:, 2:], cut[:, 2:3].expand(-1, 8))

    def test_share_preserves_the_probability_of_the_stored_classes(self):
        cut, top = decoded(top=3, temperature=4.0), LOGITS.topk(3, 1).indices
        shares = [(z / 4).softmax(1).gather(1, top) for z in (LOGITS, cut)]
        assert torch.allclose(*shares, atol=1e-3)

    def test_codes_and_float16_agree_up_to_half_a_step(self):
        cut, coded = decoded(top=5, temperature=4.0), decoded(top=5, temperature=4.0, bits=8)
        assert torch.allclose(cut, coded, atol=0.05) and not torch.equal(cut, coded)
