"""The preprocessing check distinguishes pixels, normalised and ZCA-whitened sets, and accepts correct imports."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dd_bench.data.digits import digits
from dd_bench.hub.importers import preprocessing
from dd_bench.hub.importers.image_model import Gaussian
from dd_bench.hub.importers.pixel_range import as_pixels, check_white, rescaled
from dd_bench.hub.importers.preprocessing import check_inputs, compare
from dd_bench.synthetic import storage
from dd_bench.synthetic.quantised import QuantisedSet

SETS = Path(__file__).resolve().parents[3] / "leaderboards" / "sets" / "digits"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def reals():
    """Digits loaded with each preprocessing."""
    return {kind: digits(preprocess=kind, val_fraction=0, device=CPU) for kind in ("normalise", "zca")}


def images_of(real, ipc=1, seed=0):
    """Pixels of random training images."""
    index = real.train.draw(ipc, torch.Generator().manual_seed(seed)).flatten()
    return real.train.pixels(index).float() / 255


def averages(real, seed):
    """Network inputs that are averages of two images of a class, with noise; like distilled sets, not exactly real."""
    generator = torch.Generator().manual_seed(seed)
    pixels = (images_of(real, 10, seed) + images_of(real, 10, seed + 1)) / 2
    return real.preprocess(pixels) + 0.2 * torch.randn(pixels.shape, generator=generator)


@pytest.mark.parametrize(
    "make", [lambda real: real.preprocess(images_of(real)), lambda real: averages(real, 3)]
)
@pytest.mark.parametrize(("used", "other"), [("normalise", "zca"), ("zca", "normalise")])
def test_used_preprocessing_is_detected(reals, make, used, other):
    images = make(reals[used])
    assert f"preprocessing {used}" in check_inputs(images, reals[used])
    with pytest.raises(
        ValueError, match=f"(?s)do not fit dataset.preprocess={other}, but {used}.*dataset.preprocess={used}"
    ):
        check_inputs(images, reals[other])


@pytest.mark.parametrize("used", ["normalise", "zca"])
def test_distilled_sets_are_detected(dd_bench, tmp_path, reals, used):
    """A set of DM, as its authors would release it."""
    done = dd_bench(
        *("distill", "method=dm", "dataset=digits", f"dataset.preprocess={used}", "ipc=1", "model.width=8"),
        *("method.iterations=20", "method.batch_real=16", "runtime=plain"),
    )
    assert done.code == 0, done.text
    (folder,) = (tmp_path / "runs" / "sets").iterdir()
    images = storage.load(folder)[0].images
    check_inputs(images, reals[used])
    (other,) = set(reals) - {used}
    with pytest.raises(ValueError, match=f"dataset.preprocess={used}"):
        check_inputs(images, reals[other])


def test_pixels_outside_their_range_are_detected(reals):
    """Pixels of a method that does not clamp them."""
    pixels = images_of(reals["normalise"], 10) * 1.1 - 0.05
    for real in reals.values():
        with pytest.raises(ValueError, match=r"(?s)but pixels.*Add --pixels"):
            check_inputs(pixels, real)


@pytest.mark.slow
def test_committed_sets_are_not_refused(reals, monkeypatch):
    """Sets of all methods, some of them with much noise, fit their own preprocessing. All are refused as whitened."""
    real = reals["normalise"]
    pixels = real.train.pixels(torch.arange(len(real.train))).float() / 255
    transforms = preprocessing.known_transforms(real, pixels)
    monkeypatch.setattr(preprocessing, "known_transforms", lambda *_: transforms)  # fits the whitening once
    # Quantised images of few bits have few different values, as images that are stored with black and white have.
    found = (storage.load(folder)[0] for folder in sorted(SETS.iterdir()))
    sets = [syn for syn in found if not isinstance(syn, QuantisedSet)]
    assert len(sets) >= 30
    for syn in sets:
        images = syn.materialise(CPU)[0]
        fits = compare(images, real)
        monkeypatch.setattr(preprocessing, "compare", lambda *_, fits=fits: fits)
        check_inputs(images, real)
        with pytest.raises(ValueError, match=r"Use dataset\.preprocess=normalise"):
            check_inputs(images, replace(real, preprocess=transforms["zca"]))


def test_white_noise_is_accepted(reals):
    """Sets that were distilled from noise may contain little else."""
    noise = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for real in reals.values():
        for scale in (0.3, 1, 5, 20):
            check_inputs(scale * noise, real)


def test_inputs_on_another_scale_are_refused(reals):
    """Pixels in 0..255 from which a mean was subtracted."""
    images = 255 * images_of(reals["normalise"], 10) - 100
    for real in reals.values():
        with pytest.raises(ValueError, match=r"no known preprocessing fits|many values are exactly"):
            check_inputs(images, real)


@pytest.mark.parametrize("n", [1, 10])
@pytest.mark.parametrize(
    ("transform", "cure"),
    [
        (lambda x: (x - 0.5) / 0.5, "but mean 0.5, std 0.5.*Add --mean 0.5 --std 0.5"),
        (
            lambda x: (x - 0.5) / 0.5 + 0.1 * torch.randn(x.shape),
            "but mean 0.5, std 0.5.*Add --mean 0.5 --std 0.5",
        ),
        (lambda x: (x - 0.1307) / 0.3081, "but MNIST's constants.*Add --mean 0.1307 --std 0.3081"),
        (lambda x: 2 * x - 0.5, "many values are exactly.*add --range -0.5,1.5"),
        (lambda x: (0.3049 - x) / 0.3756, "but negated inputs.*Convert them"),
        (lambda x: (0.6951 - x) / 0.3756, "but negative images.*Convert them"),
        (
            lambda x: (x - x.mean(0)) / (x.std(0) + 1e-3),
            "(but standardised pixels|no known preprocessing fits).*Convert them",
        ),
    ],
    ids=["half", "noisy_half", "mnist", "affine", "negated", "negative", "per_pixel"],
)
def test_other_transforms_are_refused_with_their_cure(reals, transform, cure, n):
    torch.manual_seed(0)
    with pytest.raises(ValueError, match=f"(?s){cure}") as caught:
        check_inputs(transform(images_of(reals["normalise"], n)), reals["normalise"])
    assert "dataset.preprocess=zca" not in str(caught.value)


def test_dim_sets_are_not_refused(reals):
    """Averages of many images do not use the whole range of pixels."""
    real = reals["normalise"]
    means = torch.stack([images_of(real, 5, seed).mean(0) for seed in range(10)])
    check_inputs(real.preprocess(means), real)
    stored = (255 * means).byte()
    check_white(stored, as_pixels(stored), real)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32])
@pytest.mark.parametrize("top", [1, 16, 100])
def test_small_ranges_are_refused(reals, dtype, top):
    """Also in 0..16, as scikit-learn stores digits; the message states the range."""
    real = reals["normalise"]
    stored = (images_of(real, 2) * top).round().to(dtype)
    if (top, dtype) == (1, torch.float32):  # black and white images in [0, 1]
        return check_white(stored, as_pixels(stored), real)
    with pytest.raises(ValueError, match=f"--range 0,{top}, or --range 0,255"):
        check_white(stored, as_pixels(stored), real)


def test_stated_range():
    stored = torch.tensor([0, 8, 16]).view(1, 1, 1, 3)
    assert rescaled(stored, 0, 16).flatten().tolist() == [0, 0.5, 1]
    assert rescaled(stored, 0, 255).dtype == torch.uint8
    assert rescaled(torch.tensor([-1.5, 1.0]), -1, 1).tolist() == [-0.25, 1]
    with pytest.raises(ValueError, match=r"--range 0,15 for values in 0\.\.16"):
        rescaled(stored, 0, 15)


def test_error_shows_statistics(reals):
    images = reals["zca"].preprocess(images_of(reals["zca"], 10))
    with pytest.raises(ValueError, match="do not fit") as caught:
        check_inputs(images, reals["normalise"])
    lines = str(caught.value).splitlines()
    assert lines[1].split() == ["mean", "std", "min", "max", "neighbours", "channels"]
    rows = {line.split("  ")[1]: line.split()[-6:] for line in lines[2:6]}
    assert set(rows) == {"this set", "real, pixels", "real, normalise", "real, zca"}
    assert float(rows["real, normalise"][0]) == pytest.approx(0, abs=0.02)
    assert float(rows["this set"][1]) == pytest.approx(float(rows["real, zca"][1]), abs=0.05)


def test_colour_images(real_set):
    """The mean and the correlation of channels are compared too."""
    real = real_set(4, 3)
    images = real.train.inputs(torch.arange(20)) + 0.1
    fits = compare(images, real)
    assert max(preprocessing.KINDS, key=lambda name: fits[name].model.value) == "normalise"
    assert -1 <= fits["normalise"].expected.channels <= 1


class TestPixels:
    def test_uint8(self):
        images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
        pixels, text, _ = as_pixels(images)
        assert torch.equal(pixels, images) and text == "uint8 in 0..255"
        assert torch.equal(as_pixels(images.long())[0], images)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
    def test_floats(self, dtype):
        images = torch.rand(2, 1, 4, 4).to(dtype)
        pixels = as_pixels(images).images
        assert pixels.dtype == torch.float32 and torch.equal(pixels, images.float())

    def test_floats_up_to_255(self):
        images = torch.full((1, 1, 2, 2), 255.0)
        assert torch.equal(as_pixels(images)[0], images / 255)

    @pytest.mark.parametrize(("low", "high"), [(-0.1, 1), (0, 1.1), (-2, 2), (-100, 155)])
    def test_other_ranges_are_no_pixels(self, low, high):
        assert as_pixels(torch.tensor([low, high]).view(1, 1, 1, 2)) is None
        assert as_pixels(torch.tensor([-1, 300]).view(1, 1, 1, 2)) is None


def test_likelihood_is_that_of_the_model():
    """For images of the model with noise, the fitted noise is the true one, and the likelihood the negative entropy."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(4, 4, generator=generator)
    draw = torch.randn(20000, 4, generator=generator) @ mixing + 3
    model = Gaussian.of(draw.view(-1, 1, 2, 2))
    variance = 0.5 * model.eigenvalues.mean()
    images = draw + variance.sqrt() * torch.randn(draw.shape, generator=generator)
    likelihood, noise, _ = model.likelihood(images.view(-1, 1, 2, 2).float())
    expected = -0.5 * ((model.eigenvalues + variance).log().mean() + 1)
    assert noise**2 == pytest.approx(0.5, rel=0.2) and likelihood == pytest.approx(float(expected), abs=0.02)
