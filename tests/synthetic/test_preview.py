"""The picture of a set, without the slow import of torchvision."""

import subprocess
import sys

import pytest
import torch

from dd_bench.synthetic.preview import picture_grid


@pytest.mark.parametrize(
    "shape", [(1, 1, 4, 5), (1, 3, 4, 5), (3, 1, 4, 5), (7, 3, 5, 4), (10, 1, 2, 2), (11, 3, 1, 1)]
)
@pytest.mark.parametrize("columns", [1, 3, 10])
def test_the_grid_is_that_of_torchvision(shape, columns):
    from torchvision.utils import make_grid

    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    expected = make_grid(images, nrow=columns, padding=2, pad_value=1.0)
    assert torch.equal(picture_grid(images, columns), expected)


def test_previews_do_not_import_torchvision():
    code = (
        "import sys, torch, dd_bench.synthetic.preview as p; "
        "p.picture_grid(torch.ones(2, 1, 3, 3), 2); assert 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
