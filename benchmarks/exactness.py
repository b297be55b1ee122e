"""Difference of TESLA's truncated gradient from the exact one, and error of the adjoint gradient.

    python benchmarks/exactness.py

Both are compared with the unrolled gradient in float64, along an expert trained on 2000 Fashion-MNIST images
(ConvNet-3 of width 32, 16 epochs, segments of 2 epochs). The images are real, the labels are scaled one-hot logits,
the step size is 0.01, and there is no augmentation.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import report
import torch
from torch import Tensor

from dd_bench.data.fashion_mnist import fashion_mnist
from dd_bench.distillation.unroll import GRADIENTS, EagerDifferentiator, EpochTarget, InnerLoop, InnerStep
from dd_bench.models.architecture import Architecture
from dd_bench.models.convnet import ConvNet
from dd_bench.runtime.seeding import generator
from dd_bench.training.losses import classification_loss
from dd_bench.training.parameter_vector import FunctionalNetwork, flatten

KNOBS = {"depth": 3, "width": 32, "norm": "instancenorm", "activation": "relu", "pooling": "avg"}
CPU = torch.device("cpu")


def exactness() -> list[dict[str, Any]]:
    """Return the cosine of `truncated` with the exact gradient, and the error of `adjoint`, along an expert."""
    real = fashion_mnist(root=None, download=False, preprocess="normalise", val_fraction=0.0, device=CPU)
    chosen = real.train.draw(200, generator(CPU, 0, "subset")).flatten()
    x, y = real.train.inputs(chosen).double(), real.train.labels[chosen]
    net = Architecture(ConvNet, KNOBS, real.shape, 10, "convnet").fresh(0, CPU).double()
    optimizer, snapshots = torch.optim.SGD(net.parameters(), 0.01), [flatten(net)]
    for epoch in range(16):
        for batch in torch.randperm(len(x), generator=generator(CPU, epoch, "order")).split(64):
            optimizer.zero_grad()
            classification_loss(net(x[batch]), y[batch]).backward()
            optimizer.step()
        snapshots.append(flatten(net))
    flat, rows = FunctionalNetwork(net), []

    def loss(theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return classification_loss(flat(theta, x), y.softmax(1))

    for ipc, steps, epoch in (
        (1, 10, 0),
        (1, 20, 0),
        (1, 50, 0),
        (1, 20, 8),
        (1, 50, 8),
        (10, 30, 0),
        (10, 30, 8),
    ):
        index = real.train.draw(ipc, generator(CPU, 0, "images", ipc)).flatten()
        syn, logits = (
            real.train.inputs(index).double(),
            5 * torch.nn.functional.one_hot(real.train.labels[index], 10),
        )
        size = min(50, len(index))
        plan = [
            InnerStep(torch.randperm(len(index), generator=generator(CPU, i, "batch"))[:size], lambda b: b)
            for i in range(steps)
        ]
        inner = InnerLoop(
            EagerDifferentiator(loss, True),
            snapshots[epoch],
            plan,
            [EpochTarget(steps, snapshots[epoch + 2])],
        )
        rate = torch.tensor(0.01, dtype=torch.float64)
        exact, adjoint, truncated = (
            GRADIENTS[g](inner, syn, logits.double(), rate) for g in ("unroll", "adjoint", "truncated")
        )
        assert exact.labels is not None and truncated.labels is not None
        rows.append(
            {
                "ipc": ipc,
                "steps": steps,
                "start": epoch,
                "loss": float(exact.loss),
                "cosine_images": cosine(truncated.images, exact.images),
                "norm_ratio_images": float(truncated.images.norm() / exact.images.norm()),
                "cosine_labels": cosine(truncated.labels, exact.labels),
                "ratio_lr": float(truncated.lr / exact.lr),
                "adjoint_error": float((adjoint.images - exact.images).norm() / exact.images.norm()),
            }
        )
    return rows


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "exactness.json")
    args = parser.parse_args()
    rows = exactness()
    print("| IPC | N | start | cos images | norm ratio | cos labels | lr ratio | adjoint error |")
    for r in rows:
        print(
            f"| {r['ipc']} | {r['steps']} | {r['start']} | {r['cosine_images']:.3f} | {r['norm_ratio_images']:.2f} "
            f"| {r['cosine_labels']:.3f} | {r['ratio_lr']:.2f} | {r['adjoint_error']:.0e} |"
        )
    report.write(args.out, {"results": rows})


if __name__ == "__main__":
    main()
