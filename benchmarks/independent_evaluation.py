"""Score a set with a loop that shares no code with dd_bench, and compare the accuracies with those of a record.

    python benchmarks/independent_evaluation.py SET --protocol dc-300 --record RECORD.json --networks 20

SET is the folder of a set of Fashion-MNIST. Its tensors, images and labels, are read with the library safetensors, and
the normalisation and the learned step size from its card. RECORD is a record or an entry of the same set and protocol.
Scores are written to `benchmarks/results/independent_evaluation.json` after each network. The same command continues
where it was stopped, also with a larger `--networks`.

Network, augmentation and training are written as in the released code of DC, DSA and MTT: float32, no compiler, the
augmentation of one image after the other, a new SGD optimizer at the decay, 2 x 150 or 2 x 500 epochs plus one.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

OUT = Path(__file__).parent / "results" / "independent_evaluation.json"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
MEAN, STD = 0.2861, 0.3530
EPOCHS = {"dc-300": 300, "mtt-1000": 1000}


def convnet(width: int) -> nn.Module:
    """Return ConvNet-3 with instance normalisation for 28x28 images, as in `networks.py` of DC."""
    layers: list[nn.Module] = []
    for channels, padding in ((1, 3), (width, 1), (width, 1)):
        layers += [
            nn.Conv2d(channels, width, 3, padding=padding),
            nn.GroupNorm(width, width),
            nn.ReLU(),
            nn.AvgPool2d(2),
        ]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 4 * 4, 10))


def augmented(images: Tensor) -> Tensor:
    """Apply one operation of DSA, drawn for the batch, to each image with its own random numbers."""
    operation = [color, crop, cutout, flip, scale, rotate][int(torch.randint(6, ()))]
    return torch.stack([operation(image) for image in images])


def color(x: Tensor) -> Tensor:
    """Shift the brightness by -0.5 to 0.5, and scale the contrast by 0.5 to 1.5; grey images have no saturation."""
    x = x + (torch.rand(()) - 0.5)
    return (x - x.mean()) * (torch.rand(()) + 0.5) + x.mean()


def crop(x: Tensor) -> Tensor:
    """Shift by up to an eighth of the image, rounded; the border is zero."""
    size = x.shape[-1]
    most = int(size * 0.125 + 0.5)
    top, left = (int(torch.randint(2 * most + 1, ())) for _ in range(2))
    return F.pad(x, (most, most, most, most))[:, top : top + size, left : left + size]


def cutout(x: Tensor) -> Tensor:
    """Set a square with half the side of the image to zero. A part of it may lie outside the image."""
    size = x.shape[-1]
    side = int(size * 0.5 + 0.5)
    row, column = (int(torch.randint(size + 1 - side % 2, ())) - side // 2 for _ in range(2))
    x = x.clone()
    x[:, max(0, row) : max(0, row + side), max(0, column) : max(0, column + side)] = 0
    return x


def flip(x: Tensor) -> Tensor:
    """Mirror every second image."""
    return x.flip(-1) if torch.rand(()) < 0.5 else x


def scale(x: Tensor) -> Tensor:
    """Scale height and width independently, by up to 1.2."""
    a, b = (float(torch.rand(())) * (1.2 - 1 / 1.2) + 1 / 1.2 for _ in range(2))
    return sampled(x, [[a, 0, 0], [0, b, 0]])


def rotate(x: Tensor) -> Tensor:
    """Rotate by up to 15 degrees."""
    angle = (torch.rand(()) - 0.5) * 2 * 15 * torch.pi / 180
    sin, cos = float(angle.sin()), float(angle.cos())
    return sampled(x, [[cos, -sin, 0], [sin, cos, 0]])


def sampled(x: Tensor, matrix: list[list[float]]) -> Tensor:
    """Sample an image on an affine grid, with aligned corners as in the code of MTT."""
    grid = F.affine_grid(torch.tensor([matrix]), [1, *x.shape], align_corners=True)
    return F.grid_sample(x[None], grid, align_corners=True)[0]


def trained(images: Tensor, labels: Tensor, epochs: int, lr: float, augment: bool, width: int) -> nn.Module:
    """Train a network as `evaluate_synset` of DC does: `epochs + 1` epochs, with a decay after half of them."""
    net = convnet(width)
    optimizer = torch.optim.SGD(net.parameters(), lr, momentum=0.9, weight_decay=0.0005)
    for epoch in range(epochs + 1):
        for index in torch.randperm(len(images)).split(256):
            x = augmented(images[index]) if augment else images[index]
            loss = F.cross_entropy(net(x), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if epoch == epochs // 2 + 1:
            lr *= 0.1
            optimizer = torch.optim.SGD(net.parameters(), lr, momentum=0.9, weight_decay=0.0005)
    return net


@torch.no_grad()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of correctly classified images."""
    right = [net(x).argmax(1) == y for x, y in zip(images.split(100), labels.split(100), strict=True)]
    return float(torch.cat(right).float().mean())


def test_images(folder: Path) -> tuple[Tensor, Tensor]:
    """Return the 10,000 normalised test images and their labels from the IDX files in a folder."""
    pixels = np.frombuffer(
        gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16
    )
    labels = np.frombuffer(
        gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8
    )
    images = torch.tensor(pixels.reshape(-1, 1, 28, 28)).float() / 255
    return (images - MEAN) / STD, torch.tensor(labels).long()


def stored(folder: Path) -> tuple[Tensor, Tensor, float | None]:
    """Return the normalised images of a set, the labels and the learned step size.

    Raises:
        ValueError: the set has labels, an image format or a normalisation that this file does not support.
    """
    card, tensors = (
        json.loads((folder / "card.json").read_text()),
        load_file(folder / "synthetic.safetensors"),
    )
    images, labels = tensors["images"], tensors["labels"]
    known = {"kind": "normalise", "mean": [MEAN], "std": [STD]}
    if card["preprocess"] != known or card["set"]["factor"] != 1 or labels.ndim != 1:
        raise ValueError(f"{folder} must have whole images with hard labels and the normalisation {known}")
    if card["set"]["space"] == "pixel":
        images = (images.float() / 255 - MEAN) / STD
    return images, labels, card["set"].get("lr")


def scores_of(path: Path, protocol: str) -> tuple[str, list[float]]:
    """Return the digest of the first set of a record, and the accuracies of the networks on this set.

    Raises:
        ValueError: the record has another protocol.
    """
    record = json.loads(path.read_text())
    if record["protocol"]["name"] != protocol:
        raise ValueError(f"the record must have the protocol {protocol}, got {record['protocol']['name']}")
    values = [s["value"] for s in record["scores"] if s["metric"] == "accuracy" and s["set"] == 0]
    return record["set_digests"][0], values


def main() -> None:
    """Train the networks that are missing, and write all scores."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("set", type=Path, help="folder of a set of Fashion-MNIST")
    parser.add_argument("--protocol", choices=EPOCHS, required=True)
    parser.add_argument(
        "--record", type=Path, required=True, help="record or entry of the same set and protocol"
    )
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--epochs", type=int, help="for a quick check; default: those of the protocol")
    parser.add_argument("--data", type=Path, default=DEBIAN, help="folder of the IDX files")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    digest, theirs = scores_of(args.record, args.protocol)
    if hashlib.sha256((args.set / "card.json").read_bytes()).hexdigest() != digest:
        raise SystemExit(f"{args.record} is a record of the set {digest[:16]}, which is not {args.set}")
    images, labels, lr = stored(args.set)
    case: dict[str, Any] = {
        "set": args.set.name,
        "protocol": args.protocol,
        "width": args.width,
        "epochs": args.epochs or EPOCHS[args.protocol],
        "lr": lr if lr and args.protocol == "mtt-1000" else 0.01,
    }
    rows = json.loads(args.out.read_text())["results"] if args.out.exists() else []
    row = next((r for r in rows if case.items() <= r.items()), None)
    if row is None:
        row = case | {"independent": [], "seconds": []}
        rows.append(row)
    row |= {"record": args.record.stem, "dd_bench": theirs}
    test = test_images(args.data)
    for i in range(len(row["independent"]), args.networks):
        torch.manual_seed(i)
        began = time.perf_counter()
        net = trained(images, labels, case["epochs"], case["lr"], args.protocol == "mtt-1000", args.width)
        row["independent"].append(round(accuracy(net, *test), 6))
        row["seconds"].append(round(time.perf_counter() - began, 2))
        report.write(args.out, {"results": rows}, threads=1)
        sys.stdout.write(f"network {i}: {row['independent'][-1]:.4f} in {row['seconds'][-1]:.0f} s\n")
        sys.stdout.flush()
    report.write(args.out, {"results": rows}, threads=1)


if __name__ == "__main__":
    main()
