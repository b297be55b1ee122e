"""Build the synthetic sets and the record of an experiment, if they do not exist yet.

Files written under `out`:

- `sets/<method>-<dataset>-ipc<N>-<key>/`: a synthetic set, see `storage`.
- `records/<key>.json`: the measured scores, see `record`.
- `work/<key>/`: log.jsonl, previews of the images, and the checkpoints and scores of an unfinished set or record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

from dd_bench.contracts import DistillContext
from dd_bench.pipeline import provenance
from dd_bench.pipeline.measure import measure
from dd_bench.pipeline.parts import RunParts
from dd_bench.pipeline.report import Outcome, build_record, summary
from dd_bench.pipeline.score_log import ScoreLog
from dd_bench.records.config_diff import STORED
from dd_bench.records.overrides import without_local_paths
from dd_bench.records.record import Record, load_record
from dd_bench.runtime import distributed
from dd_bench.runtime.cache import locked
from dd_bench.runtime.loggers import Jsonl, MultiLogger
from dd_bench.runtime.outer_loop import OuterLoop
from dd_bench.runtime.seeding import seed_for
from dd_bench.runtime.shards import AlreadyBuilt
from dd_bench.synthetic import storage
from dd_bench.synthetic.method_limits import check_method
from dd_bench.synthetic.precision import chosen_store, store_as

_log = logging.getLogger(__name__)


class Experiment(RunParts):
    """Build the outputs of a run: shared teachers and experts, synthetic sets, and the record."""

    def prepare(self) -> dict[Path, float]:
        """Build the experts of the method, and the teachers of the method and the protocol. Other runs reuse them.

        Returns:
            A dict that maps the folder of each cache entry to its build time in seconds.
        """
        built: dict[Path, float] = {}
        for index in range(self.num_sets):
            with self._set_context(index) as (ctx, _), self._logging(index):
                self.method.prepare(self.real.train_only(), ctx)
                if self.evaluator.uses_backbone:
                    ctx.backbone_of(self.real.train_only())
                elif self.protocol.uses_teachers and self.teachers:
                    ctx.teachers_of(self.real.train_only())
            built |= {ctx.cache.root / name: seconds for name, seconds in ctx.cache.seconds.items()}
        return built

    def synthetic_set(self, index: int) -> Path:
        """Return the folder of set number `index`; distill the set if it does not exist."""
        with self._set_context(index) as (ctx, folder):
            if folder.exists():
                return folder
            with self._logging(index), suppress(AlreadyBuilt):
                self._distill(folder, ctx)
        with self._set_context(index) as (_, folder):  # another process may have saved the set here
            return folder

    @contextmanager
    def _set_context(self, index: int) -> Iterator[tuple[DistillContext, Path]]:
        """Yield the context and the folder of set number `index`, holding the lock of the set.

        For methods with `in_shards`, the lock is not held, so several processes can work on one set.
        """
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
                log_images_every=self.log_images_every,
            ),
            teachers=self.teachers,
            measure=self.test_accuracy,
            base=None if self.base is None else self.base.stored,
            is_done=folder.exists,
            bits=self.config["method"].get("bits"),
            ipc=self.ipc,
        )
        with nullcontext() if self.method.in_shards else self._lock(key):
            yield ctx, folder

    def _lock(self, key: str) -> AbstractContextManager[None]:
        if distributed.rank() > 0:
            return nullcontext()  # process 0 holds the lock for all processes
        return locked(self.out / "work" / f"{key}.lock")

    @contextmanager
    def _logging(self, index: int) -> Iterator[None]:
        self._open_logger(self.set_key(index), "distill")
        try:
            yield
        finally:
            self.logger.close()

    def _open_logger(self, key: str, stage: str) -> None:
        title = f"{self.method_name} on {self.real.name}, ipc={self.ipc}: {stage}"
        self.logger.open(self.out / "work" / key, key, without_local_paths(self.config), title)

    def _distill(self, folder: Path, ctx: DistillContext) -> None:
        stages, real = provenance.Stages(self.runtime.device), self.real.train_only()
        with stages.measure("prepare"):
            self.method.prepare(real, ctx)
        with stages.measure("distill"):
            syn = self.method.distill(real, self.ipc, ctx)
        syn.check_ipc(self.ipc)
        syn.check_whole(real.train.labels)
        decoding = syn.decoding()
        check_method(self.method_name, self.config, kind=syn.kind, whole=syn.whole, decoding=decoding)
        stored: dict[str, Any] = {}
        if (store := chosen_store(self.config["method"])) is not None:
            ctx.check_bits_used()
            syn, stored[STORED] = store_as(syn, store)
        seconds = {
            "prepare": round(sum(ctx.cache.seconds.values()), 3),  # includes the build time of cached entries
            "distill": round(stages.seconds["distill"] + ctx.loop.seconds_before, 3),
        }
        used, base = self.method.uses_teachers, self.base
        if base is not None:
            ctx.note(f"made from the set {self.config['base']['set']}; the seconds do not include that set")
        save = partial(
            storage.save,
            syn,
            folder,
            real=real,
            method=self.method_name,
            ipc=self.ipc,
            seed=ctx.seed,
            config={k: self.config[k] for k in ("method", "dataset", "model", "ipc", "seed")}
            | ({"teachers": self.config["teachers"]} if used else {})
            | ({} if base is None else {"base": self.config["base"]})
            | stored,
            base=None if base is None else base.card,
            citations=[self.method.citation, self.real.citation],
            provenance=provenance.set_provenance(stages, seconds, ctx.notes, self.runtime, ctx.used_teachers),
        )
        with self._lock(folder.name.rpartition("-")[2]) if self.method.in_shards else nullcontext():
            if ctx.is_done():
                raise AlreadyBuilt
            save()
            ctx.loop.clean_up()

    def record(self, identities: list[str], sets: Callable[[], list[Path]]) -> tuple[Record, Path]:
        """Return the record of the sets and its file. If no finished record exists, measure the sets.

        A record with status `skipped` or `diverged` is measured again. If a finished record has no `tuning`, or
        another one, that of this run is written to it.

        Args:
            identities: content keys of the sets, or digests of their folders, for the key of the record.
            sets: function that distils the missing sets and returns the folders of all sets.

        Raises:
            ValueError: the configuration does not have the values that `tuning` has chosen.
        """
        self.check_tuning()
        key = self.record_key(identities)
        path = self.out / "records" / f"{key}.json"
        with locked(self.out / "work" / f"{key}.lock"):
            if path.exists() and (found := _existing_record(path)).status == "done":
                _log.info("already measured: the record exists")
                if found.code != provenance.code():
                    _log.warning(
                        "the record comes from another revision of the code, %s. "
                        "To measure again, delete it and the folder of its set: rm %s",
                        found.code.revision, path,
                    )  # fmt: skip
                if self.tuning not in (None, found.tuning):
                    _log.info("the search that chose its hyper-parameters was added to the record")
                    found = found.model_copy(update={"tuning": self.tuning})
                    found.save(path)
                return found, path
            self._warn_of_old_key(identities, key)
            log = ScoreLog(self.out / "work" / key / "scores.jsonl")

            def finished_sets() -> list[Path]:
                folders = sets()  # each distillation is a run of its own in the loggers
                self._open_logger(key, "evaluate")
                return folders

            try:
                record = build_record(self, key, measure(self, finished_sets, log))
                record.save(path)
                self.logger.summarise(summary(record))
            finally:
                self.logger.close()
            if record.status == "done":
                log.remove()
        return record, path

    def _warn_of_old_key(self, identities: list[str], key: str) -> None:
        """Log that an earlier version has measured these sets, or a part of their networks, under another key."""
        old = self.old_record_key(identities)
        record, scores = self.out / "records" / f"{old}.json", self.out / "work" / old / "scores.jsonl"
        for path in (record, scores):
            if path.exists():
                _log.warning(
                    "%s was written before device and precision were part of the key of a record. It is not used, "
                    "and the networks are trained again. The new key is %s (%s, %s)",
                    path, key, self.runtime.device.type, self.runtime.precision,
                )  # fmt: skip

    def skipped(self, key: str, reason: str) -> tuple[Record, Path]:
        """Write a record with status `skipped` and the reason, and return it and its file."""
        outcome = Outcome(provenance.Stages(self.runtime.device))
        record = build_record(self, key, outcome.finish("skipped", reason))
        return record, record.save(self.out / "records" / f"{key}.json")


def _existing_record(path: Path) -> Record:
    try:
        return load_record(path)
    except ValueError as error:
        raise ValueError(f"{error}\nTo measure again: rm {path}") from error
