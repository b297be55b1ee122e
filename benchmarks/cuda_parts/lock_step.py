"""Networks in lock step: compared with DD-Ranking's loop, and by their number with and without CUDA graphs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import ddranking_loop
import torch

from cuda_parts.card import Card, Row, warnings_of
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.seeding import seed_for
from dd_bench.runtime.step_graphs import StepGraphs
from dd_bench.training.batches import fetch_from
from dd_bench.training.graphed_step import first_line
from dd_bench.training.together import train_together

PROTOCOL, EPOCHS, IPC, WIDTH = "dsa-1000", 1001, 10, 128
LAUNCHES = (
    "cudaLaunchKernel",
    "cudaLaunchKernelExC",
    "cuLaunchKernel",
    "cuLaunchKernelEx",
    "cudaGraphLaunch",
)
COPIES = ("cudaMemcpyAsync", "cudaMemsetAsync")


def rows(card: Card) -> Iterator[Row]:
    """Yield the comparison with DD-Ranking's loop, and then a row for each number of networks."""
    real, runtime = card.real_set(), card.runtime()
    size = {"ipc": 2, "width": 8} if card.small else {"ipc": IPC, "width": WIDTH}

    def sides(epochs: int | None) -> ddranking_loop.Sides:
        protocol = ddranking_loop.shortened(PROTOCOL, epochs)
        return ddranking_loop.Sides(real, runtime, protocol=protocol, **size)

    networks, plain = (3, 2) if card.small else (20, 4)
    with warnings_of("dd_bench") as warned:
        found = ddranking_loop.compare(
            sides(4 if card.small else None), networks=networks, rounds=1, plain_networks=plain
        )
    yield {
        "table": f"{PROTOCOL}, IPC {size['ipc']}, width {size['width']}, {real.name}: against the loop of DD-Ranking",
        "networks": networks,
        "loop, networks/h": round(found["plain_networks_per_hour"]),
        "ours, networks/h": round(found["ours_networks_per_hour"]),
        "ratio": round(found["ratio"], 2),
        "loop, %": percent(found["plain_accuracy"]),
        "ours, %": percent(found["ours_accuracy"]),
        "equal accuracy": "yes" if found["same_accuracy"] else "no",
        "warning": "; ".join(sorted(set(warned))),
        "data": found,
    }
    for count in (1, 2) if card.small else (20, 1, 5, 50):
        for graphs in (False,) if card.small else (True, False):
            how = replace(runtime, graphs=StepGraphs(graphs))
            with warnings_of("dd_bench") as warned:
                step = measured(card, sides, how, count)
            yield {
                "table": "A step of networks in lock step",
                "networks": count,
                "CUDA graph": (how.graphs.describe() or "none recorded") if graphs else "no",
                **step,
                "warning": "; ".join(sorted(set(warned))),
            }


def percent(interval: list[float]) -> str:
    return f"{100 * interval[0]:.2f} ± {100 * interval[1]:.2f}"


def measured(card: Card, sides: Any, runtime: Runtime, count: int) -> Row:
    """Return the values of `by_number`, or why they could not be measured, so that the other rows are measured too."""
    try:
        return by_number(card, sides, runtime, count)
    except torch.OutOfMemoryError:
        failed = {"ms/step": "out of memory"}
    except RuntimeError as error:
        failed = {"ms/step": f"failed: {first_line(error)[:150]}"}
    gc.collect()  # after `except`, whose error keeps the tensors of the failed training
    if card.device == "cuda":
        torch.cuda.empty_cache()
    return failed


def by_number(card: Card, sides: Any, runtime: Runtime, count: int) -> Row:
    """Measure a step of `count` networks.

    Two trainings of different length are subtracted, so that warm-up, recording of the graph and the creation of the
    optimiser are left out. The batch is the whole set, so an epoch is a step.
    """
    short, long = (2, 4) if card.small else (20, 120)

    def train(epochs: int) -> float:
        of = sides(epochs)
        seeds = [seed_for(0, "network", n) for n in range(count)]
        nets = [of.architecture.fresh(seed_for(s, "init"), runtime.device) for s in seeds]
        began = card.time()
        train_together(
            nets, fetch_from(of.images, of.labels), len(of.images), of.protocol.recipe,
            seeds=seeds, runtime=runtime, flip=of.real.flip,
        )  # fmt: skip
        return card.time() - began

    train(short)  # warm-up
    if card.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    step = (train(long) - train(short)) / (long - short)
    peak = torch.cuda.max_memory_allocated() / 2**30 if card.device == "cuda" else 0.0
    few, more = (calls(card, train, epochs) for epochs in (8, 18))
    return {
        "precision": runtime.precision,
        "ms/step": round(1000 * step, 3),
        "networks/h": round(3600 * count / (EPOCHS * step)) if step > 0 else "",
        "launches/step": round((more[0] - few[0]) / 10, 1),
        "copies/step": round((more[1] - few[1]) / 10, 1),
        "peak memory, GiB": round(peak, 2),
    }


def calls(card: Card, train: Any, epochs: int) -> tuple[int, int]:
    """Return the number of launches and of copies in a training, counted by torch.profiler; zero on a CPU."""
    if card.device != "cuda":
        return 0, 0
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        train(epochs)
    counts = {event.key: event.count for event in profile.key_averages()}
    launches, copies = (sum(counts.get(name, 0) for name in names) for names in (LAUNCHES, COPIES))
    return launches, copies
