"""Views on the simulated device are those of the CPU, and no batch waits."""

import pytest
import torch

from dd_bench.training.colour import ColourRecipe
from dd_bench.training.views import ViewRecipe, Views

COLOURS = ColourRecipe(
    brightness=0.4, contrast=0.4, saturation=0.4, lighting=0.1, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)
)
RECIPE = ViewRecipe(patches=2, pad=1, scale=(0.3, 1.0), flip=True, mix="cutmix", alpha=1.0)


@pytest.mark.parametrize(
    "changes",
    [{}, {"mix": "mixup"}, {"colour": COLOURS}, {"tile": 2}, {"dsa": "color_crop_cutout_flip_scale_rotate"}],
    ids=lambda changes: " ".join(changes) or "views",
)
def test_views(counts, runtime, changes):
    x = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    views = Views(RECIPE.model_copy(update=changes), 12, seed=0, batch_size=5, flip_allowed=True)
    on_device = x.to(runtime.device)
    list(views.epoch(on_device, 0))  # copies constants to the device
    before = counts.waits.total()
    found = list(views.epoch(on_device, 1))
    assert counts.waits.total() == before
    for here, there in zip(views.epoch(x, 1), found, strict=True):
        torch.testing.assert_close(there.x.cpu(), here.x, rtol=1e-4, atol=1e-5)
