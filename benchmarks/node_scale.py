"""Time and peak memory of Bonsai on a generated graph of 100,000 nodes.

    python benchmarks/node_scale.py [--nodes 100000] [--features 16] [--out FILE]      # minutes

The graph is a stochastic block model (`dataset=sbm`) whose other values are those of its YAML file. Half of the nodes
are training nodes. The budget is 50,000 stored bytes. The search for nearest neighbours has a sample of 3,000 training
nodes (`method.sample=3000`) or all of them (the default). Each case runs in a process of its own, without evaluation.
Memory is the growth of the peak of the process during the distillation; the graph is loaded before.
"""

from __future__ import annotations

import argparse
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import report
import torch

from dd_bench.api import DistillContext
from dd_bench.data.sbm import sbm
from dd_bench.methods.bonsai import Bonsai
from dd_bench.records.config_diff import shipped_config

CLASSES = 5
AMOUNT = 50_000


def high_water() -> int:
    """Return the peak memory in bytes; not from `getrusage`, whose maximum a child inherits from its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def values(group: str, name: str) -> dict[str, Any]:
    return {k: v for k, v in shipped_config(group, name).items() if not k.startswith("_")}


def in_child(pipe: Connection, nodes: int, features: int, sample: int | None, threads: int) -> None:
    torch.set_num_threads(threads)
    changed = {"nodes": nodes, "features": features, "classes": CLASSES, "train": nodes // (2 * CLASSES)}
    real = sbm(**values("dataset", "sbm") | changed, device=torch.device("cpu")).train_only()
    method = Bonsai(**values("method", "bonsai") | {"amount": AMOUNT, "sample": sample})
    ctx = cast(DistillContext, SimpleNamespace(seed_for=lambda *_: 0))  # all that Bonsai uses
    small = sbm(**values("dataset", "sbm"), device=torch.device("cpu")).train_only()
    method.distill(small, 20, ctx)  # imports
    before, began, cpu = high_water(), time.perf_counter(), time.process_time()
    syn = method.distill(real, nodes, ctx)
    pipe.send(
        {
            "nodes": nodes,
            "edges": real.train.graph.adjacency.edges.shape[1],
            "training_nodes": len(real.train),
            "sample": sample,
            "seconds": time.perf_counter() - began,
            "cpu_seconds": time.process_time() - cpu,
            "peak": high_water() - before,
            "set_nodes": len(syn.labels),
            "set_bytes": sum(syn.stored_bytes().values()),
        }
    )


def measured(*arguments: Any) -> dict[str, Any]:
    receiver, sender = get_context("spawn").Pipe()
    child = get_context("spawn").Process(target=in_child, args=(sender, *arguments))
    child.start()
    sender.close()  # so that `recv` fails if the child does
    row: dict[str, Any] = receiver.recv()
    child.join()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "node_scale.json")
    args = parser.parse_args()
    rows = [measured(args.nodes, args.features, sample, args.threads) for sample in (3000, None)]
    report.write(args.out, {"features": args.features, "bonsai": rows}, threads=args.threads)


if __name__ == "__main__":
    main()
