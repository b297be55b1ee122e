"""An experiment: its parts, and how each set and record is made if it is not there yet.

What it leaves under `out`:

- `sets/<method>-<dataset>-ipc<N>-<key>/`: a synthetic set, see `storage`.
- `records/<key>.json`: what was measured, see `record`.
- `work/<key>/`: log.jsonl; checkpoints and scores of what is not finished yet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

from dd_bench.api import DistillContext
from dd_bench.pipeline import provenance
from dd_bench.pipeline.measure import measure
from dd_bench.pipeline.parts import RunParts
from dd_bench.pipeline.report import Outcome, record_of
from dd_bench.pipeline.score_log import ScoreLog
from dd_bench.records.record import Record, load_record
from dd_bench.runtime import distributed
from dd_bench.runtime.cache import locked
from dd_bench.runtime.loggers import Jsonl, MultiLogger
from dd_bench.runtime.outer_loop import OuterLoop
from dd_bench.runtime.seeding import seed_for
from dd_bench.runtime.shards import AlreadyBuilt
from dd_bench.synthetic import storage

_log = logging.getLogger(__name__)


class Experiment(RunParts):
    """What a run makes of its parts: shared teachers and experts, synthetic sets, a record."""

    def prepare(self) -> dict[Path, float]:
        """Builds what is shared between runs: the method's experts, and teachers, the protocol's too.

        Returns what each entry of the cache has cost in seconds.
        """
        made: dict[Path, float] = {}
        for index in range(self.num_sets):
            with self._working_on(index) as (ctx, _), self._logging(index):
                self.method.prepare(self.real.train_only(), ctx)
                if self.protocol.uses_teachers and self.teachers:
                    ctx.teachers_of(self.real.train_only())
            made |= {ctx.cache.root / name: seconds for name, seconds in ctx.cache.seconds.items()}
        return made

    def synthetic_set(self, index: int) -> Path:
        """Returns the folder of set number `index`, distilling it first unless it is there."""
        with self._working_on(index) as (ctx, folder):
            if folder.exists():
                return folder
            with self._logging(index), suppress(AlreadyBuilt):
                self._distill(folder, ctx)
        with self._working_on(index) as (_, folder):  # where it is now, whoever made it
            return folder

    @contextmanager
    def _working_on(self, index: int) -> Iterator[tuple[DistillContext, Path]]:
        """Yields the context and the folder of set number `index`; a second run that wants the set waits, or helps."""
        key = self.set_key(index)
        folder = self.out / "sets" / f"{self.method_name}-{self.real.name}-ipc{self.ipc}-{key}"
        work = self.out / "work" / key
        ctx = DistillContext(
            seed=seed_for(self.seed, "set", index),
            runtime=self.runtime,
            cache=self.cache(),
            architecture=self.architecture,
            loop=OuterLoop(
                work,
                MultiLogger([Jsonl(work / "log.jsonl"), self.logger]),
                log_every=self.config["log_every"],
                checkpoint_seconds=self.config["checkpoint_seconds"],
            ),
            teachers=self.teachers,
            measure=self.test_accuracy,
            is_done=folder.exists,
        )
        with nullcontext() if self.method.in_shards else self._lock(key):
            yield ctx, folder

    def _lock(self, key: str) -> AbstractContextManager[None]:
        if distributed.rank() > 0:
            return nullcontext()  # the first process holds it for all
        return locked(self.out / "work" / f"{key}.lock")

    @contextmanager
    def _logging(self, index: int) -> Iterator[None]:
        key = self.set_key(index)
        self.logger.open(self.out / "work" / key, key, self.config)
        try:
            yield
        finally:
            self.logger.close()

    def _distill(self, folder: Path, ctx: DistillContext) -> None:
        stages, real = provenance.Stages(self.runtime.device), self.real.train_only()
        with stages.measure("prepare"):
            self.method.prepare(real, ctx)
        with stages.measure("distill"):
            syn = self.method.distill(real, self.ipc, ctx)
        syn.check_ipc(self.ipc)
        seconds = {
            "prepare": round(sum(ctx.cache.seconds.values()), 3),  # the whole price, also of what was cached
            "distill": round(stages.seconds["distill"] + ctx.loop.seconds_before, 3),
        }
        used = self.method.uses_teachers
        save = partial(
            storage.save,
            syn,
            folder,
            real=real,
            method=self.method_name,
            ipc=self.ipc,
            seed=ctx.seed,
            config={k: self.config[k] for k in ("method", "dataset", "model", "ipc", "seed")}
            | ({"teachers": self.config["teachers"]} if used else {}),
            citations=[self.method.citation, self.real.citation],
            provenance=provenance.of_set(stages, seconds, ctx.notes, self.runtime, ctx.used_teachers),
        )
        with self._lock(folder.name.rpartition("-")[2]) if self.method.in_shards else nullcontext():
            if ctx.is_done():
                raise AlreadyBuilt
            save()
            ctx.loop.clean_up()

    def record(self, key: str, sets: Callable[[], list[Path]]) -> tuple[Record, Path]:
        """Returns the record of `key` and its file, measuring it first unless it is there.

        A record with status `skipped` or `diverged` is tried again.
        """
        path = self.out / "records" / f"{key}.json"
        with locked(self.out / "work" / f"{key}.lock"):
            if path.exists() and (found := _left_behind(path)).status == "done":
                _log.info("already measured, nothing to do")
                if found.code != provenance.code():
                    _log.warning(
                        "it was measured by revision %s, this is another. To measure anew: rm %s, and rm -r its set",
                        found.code.revision, path,
                    )  # fmt: skip
                return found, path
            log = ScoreLog(self.out / "work" / key / "scores.jsonl")
            record = record_of(self, key, measure(self, sets, log))
            record.save(path)
            if record.status == "done":
                log.remove()
        return record, path

    def skipped(self, key: str, reason: str) -> tuple[Record, Path]:
        """Records why this experiment cannot be."""
        outcome = Outcome(provenance.Stages(self.runtime.device))
        record = record_of(self, key, outcome.ended("skipped", reason))
        return record, record.save(self.out / "records" / f"{key}.json")


def _left_behind(path: Path) -> Record:
    try:
        return load_record(path)
    except ValueError as error:
        raise ValueError(f"{error}\nTo measure anew: rm {path}") from error
