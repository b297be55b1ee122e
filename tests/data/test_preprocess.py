"""Normalisation and ZCA: mathematics, inverse, saving and loading."""

import json

import pytest
import torch
from kornia.enhance import ZCAWhitening
from safetensors.torch import load, save

from dd_bench.data import preprocess
from dd_bench.data.preprocess import ZCA, Normalise, channel_statistics, fit_preprocess, restore

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pixels():
    """Correlated images: blurred noise in [0, 1], in steps of 1/255."""
    g = torch.Generator().manual_seed(0)
    noise = torch.nn.functional.avg_pool2d(torch.rand(800, 2, 8, 8, generator=g), 3, stride=1)
    return (noise * 255).round() / 255  # (800, 2, 6, 6)


@pytest.fixture(scope="module")
def zca(pixels):
    return ZCA.fit(pixels)


def test_whitened_covariance_is_lambda_over_lambda_plus_eps(pixels, zca):
    eigenvalues, u = torch.linalg.eigh(pixels.flatten(1).double().T.cov())
    expected = u @ torch.diag(eigenvalues / (eigenvalues + zca.eps)) @ u.T
    torch.testing.assert_close(zca(pixels).flatten(1).T.cov().double(), expected, atol=1e-5, rtol=1e-4)
    assert float(zca(pixels).mean(0).abs().max()) < 1e-5


def test_small_eps_whitens():
    x = torch.rand(500, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    whitened = ZCA.fit(x, eps=1e-8)(x).flatten(1)
    torch.testing.assert_close(whitened.T.cov(), torch.eye(9), atol=1e-4, rtol=0)


def test_zca_equals_kornia(pixels, zca):
    kornia = ZCAWhitening(eps=0.1, compute_inv=True).fit(pixels)
    torch.testing.assert_close(zca(pixels), kornia(pixels), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(zca.inverse(zca(pixels)), kornia.inverse_transform(kornia(pixels)))


def test_zca_matrix_is_symmetric(zca):
    """Among all whitening matrices, ZCA's is the symmetric one."""
    torch.testing.assert_close(zca.transform, zca.transform.T, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["normalise", "zca"])
def test_inverse(kind, pixels, zca):
    transform = zca if kind == "zca" else Normalise([0.4, 0.5], [0.2, 0.3])
    torch.testing.assert_close(transform.inverse(transform(pixels)), pixels, atol=1e-5, rtol=0)


def test_zca_uses_float32_under_autocast_and_is_differentiable(pixels, zca):
    x = pixels[:4].clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = zca(x)
    assert y.dtype == torch.float32 and torch.equal(y, zca(pixels[:4]))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient[0].flatten(), zca.transform.sum(1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["normalise", "zca"])
def test_restore_from_json_and_safetensors_is_bitwise(kind, pixels, zca):
    transform = zca if kind == "zca" else Normalise([0.4, 0.5], [0.2, 0.3])
    config = json.loads(json.dumps(transform.config()))
    restored = restore(config, load(save(transform.tensors())))
    assert torch.equal(restored(pixels), transform(pixels))
    assert torch.equal(restored.inverse(pixels), transform.inverse(pixels))
    assert restored.digest == transform.digest


def test_digest_depends_on_the_data_and_not_on_rounding(pixels, zca):
    """A transform fitted on a GPU differs in the last bits, but must have the same digest."""
    perturbed = restore(zca.config(), {k: v * (1 + 1e-7) for k, v in zca.tensors().items()})
    assert perturbed.digest == zca.digest
    other = pixels.clone()
    other[0, 0, 0, 0] = 1 - other[0, 0, 0, 0]
    assert ZCA.fit(other).digest != zca.digest
    assert ZCA.fit(pixels, eps=0.2).digest != zca.digest
    assert Normalise([0.5], [0.2]).digest != Normalise([0.5], [0.3]).digest


def test_fit_preprocess_accepts_uint8_pixels(pixels, zca):
    stored = (pixels * 255).to(torch.uint8)
    fitted = fit_preprocess("zca", stored, mean=[0.5], std=[0.5], device=CPU)
    assert fitted.digest == zca.digest
    normalise = fit_preprocess("normalise", stored, mean=[0.4, 0.5], std=[0.2, 0.3], device=CPU)
    assert normalise.config() == {"kind": "normalise", "mean": [0.4, 0.5], "std": [0.2, 0.3]}


def test_errors_name_invalid_values(pixels):
    with pytest.raises(ValueError, match=r"dataset.preprocess must be normalise or zca"):
        fit_preprocess("pca", torch.zeros(2, 1, 2, 2, dtype=torch.uint8), mean=[0.5], std=[0.5], device=CPU)
    with pytest.raises(ValueError, match=r"std must be > 0"):
        Normalise([0.5], [0.0])
    with pytest.raises(ValueError, match=r"preprocessing must be .* got 'pca'"):
        restore({"kind": "pca"}, {})


def test_parts_of_the_images_give_the_same_whitening(pixels, zca, monkeypatch):
    """The memory of the fit does not grow with the number of images."""
    monkeypatch.setattr(preprocess, "_FIT_BYTES", 8 * 72 * 100)  # eight parts
    largest = []
    flat = preprocess._flat
    monkeypatch.setattr(preprocess, "_flat", lambda p, d: (largest.append(len(p)), flat(p, d))[1])
    parts = ZCA.fit(pixels)
    assert max(largest) == 100 and parts.digest == zca.digest
    for a, b in zip(parts.tensors().values(), zca.tensors().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_channel_statistics_are_exact(pixels):
    stored = (pixels * 255).to(torch.uint8)
    mean, std = channel_statistics(stored)
    values = stored.double().transpose(0, 1).flatten(1) / 255
    assert mean == [round(m, 4) for m in values.mean(1).tolist()]
    assert std == [round(s, 4) for s in values.std(1, correction=0).tolist()]
    assert channel_statistics(torch.full((3, 1, 2, 2), 51, dtype=torch.uint8)) == ([0.2], [1.0])
