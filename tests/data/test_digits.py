"""Digits: the split and the normalisation constants."""

import pytest
import torch

from dd_bench.data.digits import MEAN, STD, digits

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def real():
    return digits(preprocess="normalise", val_fraction=0.0, device=CPU)


def test_split(real):
    assert (len(real.train), len(real.test), real.shape) == (1352, 445, (1, 8, 8))
    assert real.train.counts.tolist() == [134, 137, 133, 138, 136, 137, 136, 135, 131, 135]
    assert real.test.counts.tolist() == [44, 45, 44, 45, 45, 45, 45, 44, 43, 45]
    assert real.class_names == tuple("0123456789") and not real.flip
    # every result on this dataset depends on this digest
    assert real.digest == "6941ede2595df27f31be04a895c395084022ecd2fed4f30e9f2755d2b324190f"


def test_pixels_and_constants(real):
    pixels = real.train.pixels(torch.arange(1352))
    assert pixels.unique().tolist() == [round(v * 255 / 16) for v in range(17)]
    assert float((pixels / 255).mean()) == pytest.approx(MEAN[0], abs=1e-4)
    assert float((pixels / 255).std()) == pytest.approx(STD[0], abs=1e-4)
    inputs = real.train.inputs(torch.arange(1352))
    assert float(inputs.mean()) == pytest.approx(0, abs=1e-3) and float(inputs.std()) == pytest.approx(
        1, abs=1e-3
    )


def test_zca_and_validation(real):
    white = digits(preprocess="zca", val_fraction=0.1, device=CPU)
    assert white.digest == real.digest and white.preprocess.digest != real.preprocess.digest
    assert white.val is not None and len(white.val) == pytest.approx(135, abs=5)
    x = white.train.inputs(torch.arange(10))
    torch.testing.assert_close(
        white.preprocess.inverse(x), white.train.pixels(torch.arange(10)) / 255, atol=1e-4, rtol=0
    )
    # the whitening does not depend on the validation fraction
    assert digits(preprocess="zca", val_fraction=0.0, device=CPU).preprocess.digest == white.preprocess.digest
