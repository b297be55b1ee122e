"""`dd-bench diff`, and the contact sheet of `dd-bench show --open`."""

import io
from dataclasses import replace

import torch
from PIL import Image

from dd_bench.cli.compare_sets import tensor_differences
from dd_bench.synthetic.contact_sheet import contact_sheet_png
from dd_bench.synthetic.images import ImageSet


def coreset(real, images=2):
    return ImageSet.coreset(real, torch.arange(3 * images))


def test_tensor_differences(blobs):
    one = replace(coreset(blobs), images=torch.zeros(6, 1, 8, 8, dtype=torch.uint8))
    images = one.images.clone()
    images[0, 0, 0, :2] = torch.tensor([51, 255], dtype=torch.uint8)
    rows = dict(row[:2] for row in tensor_differences(one, replace(one, images=images)))
    assert rows == {
        "images": "2 of 384 values differ; absolute difference: max 255, mean 0.7969",
        "pixels in [0, 1]": "2 of 384 values differ; absolute difference: max 1, mean 0.003125",
    }
    assert list(tensor_differences(one, one)) == []
    (row, *_) = tensor_differences(one, replace(one, images=images[:3], labels=one.labels[:3], source=None))
    assert row == ("images", "uint8 [6, 1, 8, 8]", "uint8 [3, 1, 8, 8]")


def test_diff_of_saved_sets(dd_bench, small, tmp_path):
    for seed in (0, 1):
        assert dd_bench("distill", *small("random", f"seed={seed}")).code == 0
    first, second = map(str, (tmp_path / "runs" / "sets").iterdir())
    done = dd_bench("diff", first, second)
    assert done.code == 1
    assert all(
        word in done.text for word in ("seed", "images", "absolute difference: max", "pixels in [0, 1]")
    )
    assert "method" not in done.text, "the method is the same"
    done = dd_bench("diff", first, first)
    assert done.code == 0 and "The sets are equal" in done.text
    done = dd_bench("diff", first, "nowhere")
    assert done.code == 2 and "error:" in done.text


def test_contact_sheet_shows_every_class(blobs):
    """Each row has the images of its class, enlarged, to the right of the name."""
    syn = coreset(blobs)
    order = syn.labels.argsort()
    sheet = Image.open(io.BytesIO(contact_sheet_png(syn)))
    count = int(torch.bincount(syn.labels).max())
    row = 64 + 4
    assert sheet.height == 4 + 3 * row and sheet.width >= count * row
    c = int(syn.labels[order[0]])
    pixels = torch.tensor(list(sheet.convert("L").getdata()), dtype=torch.uint8).view(
        sheet.height, sheet.width
    )
    left = sheet.width - count * row
    enlarged = syn.images[order[0], 0].repeat_interleave(8, 0).repeat_interleave(8, 1)
    top = 4 + c * row
    assert torch.equal(pixels[top : top + 64, left : left + 64], enlarged)
    assert (pixels[top : top + 64, :left] < 128).any(), "the name of the class"


def test_show_open(dd_bench, small, tmp_path, monkeypatch):
    assert dd_bench("distill", *small("random")).code == 0
    opened = []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr("dd_bench.cli.inspect.tempfile.mkdtemp", lambda prefix: str(tmp_path))
    monkeypatch.setattr("dd_bench.cli.inspect.webbrowser.open", lambda url: opened.append(url) or True)
    (folder,) = (tmp_path / "runs" / "sets").iterdir()
    done = dd_bench("show", str(folder), "--open")
    sheet = tmp_path / f"{folder.name}.png"
    assert done.code == 0 and f"contact sheet: {sheet}" in done.text and sheet.is_file()
    assert opened == [sheet.as_uri()]
    assert not (folder / sheet.name).exists()
