"""Forward and backward pass of the convolutions of r networks in lock step, by layout: milliseconds and ratios.

    python benchmarks/convolution_layout.py --device cpu       # or cuda

- `grouped`: one grouped convolution.
- `grouped channels_last`: the same in channels-last memory.
- `unfold`: patches as columns, and one batched matrix product.
- `loop`: one convolution after the other, for comparison.

The images are in the memory layout in which the same convolution of the previous layer leaves them, so they are not
copied. Networks in lock step use `grouped` (`dd_bench.training.joined_channels`). Another layout is worth a second
formulation only if it is faster on a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import report
import torch
import torch.nn.functional as F
from torch import Tensor

OUT = Path(__file__).parent / "results" / "convolution_layout.json"
SHAPES = [
    (3, 32),
    (32, 16),
    (128, 16),
    (128, 8),
]  # input channels, and side of the images; the first layer has 128 output channels


def grouped(x: Tensor, w: Tensor) -> Tensor:
    r, b, c, h, side = x.shape
    out = F.conv2d(
        x.transpose(0, 1).reshape(b, r * c, h, side), w.flatten(0, 1), padding=1, groups=r
    )  # (b, r o, h, w)
    return out.unflatten(1, (r, -1)).transpose(0, 1)


def grouped_channels_last(x: Tensor, w: Tensor) -> Tensor:
    r, b, c, h, side = x.shape
    flat = x.transpose(0, 1).reshape(b, r * c, h, side).contiguous(memory_format=torch.channels_last)
    weight = w.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return F.conv2d(flat, weight, padding=1, groups=r).unflatten(1, (r, -1)).transpose(0, 1)


def unfold(x: Tensor, w: Tensor) -> Tensor:
    r, b, _, h, side = x.shape
    columns = F.unfold(x.flatten(0, 1), 3, padding=1).unflatten(0, (r, b))  # (r, b, 9 c, h w)
    return (w.flatten(2)[:, None] @ columns).unflatten(3, (h, side))


def loop(x: Tensor, w: Tensor) -> Tensor:
    return torch.stack([F.conv2d(i, j, padding=1) for i, j in zip(x, w, strict=True)])


LAYOUTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "grouped": grouped,
    "grouped channels_last": grouped_channels_last,
    "unfold": unfold,
    "loop": loop,
}


def images(layout: str, shape: tuple[int, int, int, int], like: Tensor) -> Tensor:
    """Return images `(r, b, c, side, side)` in the memory of a layout, with the type and device of `like`."""
    r, b, c, side = shape
    if layout == "grouped":
        x = torch.randn(b, r, c, side, side, device=like.device, dtype=like.dtype).transpose(0, 1)
    elif layout == "grouped channels_last":
        x = torch.randn(b, side, side, r, c, device=like.device, dtype=like.dtype).permute(3, 0, 4, 1, 2)
    else:
        x = torch.randn(r, b, c, side, side, device=like.device, dtype=like.dtype)
    return x.requires_grad_()


def milliseconds(run: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Return the median time of a call, after a warm-up."""
    times = []
    for i in range(repeats + 2):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times += [time.perf_counter() - began] if i > 1 else []
    return 1000 * statistics.median(times)


def step(layout: Callable[[Tensor, Tensor], Tensor], x: Tensor, w: Tensor) -> None:
    """Compute a convolution and its gradients."""
    torch.autograd.grad(layout(x, w).float().square().mean(), (x, w))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--networks", type=int, nargs="+", default=[5, 20])
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    device = torch.device(args.device)
    print("| type | networks | channels | side |", *(f"{name}, ms |" for name in LAYOUTS))
    print("|---|--:|--:|--:|" + "--:|" * len(LAYOUTS))
    rows = []
    for row in measure(device, args.networks, args.batch, args.repeats):
        rows.append(row)
        print(
            f"| {row['type']} | {row['networks']} | {row['channels']} | {row['side']} |",
            *(f"{v:.2f} |" for v in row["ms"].values()),
            flush=True,
        )
    report.write(args.out, {"device": str(device), "batch": args.batch, "rows": rows})


def measure(device: torch.device, networks: list[int], batch: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each type, number of networks and shape."""
    for dtype in (torch.float32, torch.bfloat16):
        for r in networks:
            for c, side in SHAPES:
                out = 128 if c == 3 else c
                w = torch.randn(r, out, c, 3, 3, device=device, dtype=dtype, requires_grad=True)
                ms = {}
                for name, layout in LAYOUTS.items():
                    x = images(name, (r, batch, c, side), w)
                    ms[name] = milliseconds(partial(step, layout, x, w), device, repeats)
                kind = str(dtype).removeprefix("torch.")
                yield {"type": kind, "networks": r, "channels": c, "side": side, "ms": ms}


if __name__ == "__main__":
    main()
