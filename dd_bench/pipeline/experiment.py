"""An experiment: its parts, the content keys of what it makes, and how each piece is made if it is not there yet.

What it leaves under `out`:

- `sets/<method>-<dataset>-ipc<N>-<key>/`: a synthetic set, see `artifact`.
- `records/<key>.json`: what was measured, see `record`.
- `work/<key>/`: log.jsonl; checkpoints and scores of what is not finished yet.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from dd_bench import NUMBERS_VERSION
from dd_bench.api import Context, Evaluator, Method, Told
from dd_bench.data.dataset import RealSet
from dd_bench.data.labels import label_mode
from dd_bench.models.architecture import Architecture
from dd_bench.pipeline import provenance
from dd_bench.pipeline.score_log import Journal
from dd_bench.records.config_diff import describe
from dd_bench.records.record import ProtocolId, Record, Score, TeacherId, load_record
from dd_bench.runtime import distributed
from dd_bench.runtime.cache import Cache, locked
from dd_bench.runtime.files import content_key
from dd_bench.runtime.loggers import Jsonl, Logger, Several
from dd_bench.runtime.outer_loop import Diverged, OuterLoop
from dd_bench.runtime.runtime import Runtime
from dd_bench.runtime.seeding import seed_for
from dd_bench.runtime.shards import MadeMeanwhile
from dd_bench.synthetic import storage
from dd_bench.synthetic.base import SyntheticSet
from dd_bench.synthetic.card import read_provenance
from dd_bench.teachers.label_store import LabelStore
from dd_bench.teachers.teachers import TeacherSpec
from dd_bench.training.protocol import Protocol
from dd_bench.training.scoring import accuracy

_log = logging.getLogger(__name__)


@dataclass
class Experiment:
    """The parts of a run, built, and the resolved configuration they came from.

    Attributes:
        config: resolved, plain data.
        method_name: the choice in `conf/method/`, or the card's word for a set that was not distilled here.
        logger: a logger beside log.jsonl.
    """

    config: dict[str, Any]
    method_name: str
    evaluator_name: str
    runtime: Runtime
    protocol: Protocol
    real: RealSet
    architecture: Architecture
    method: Method
    evaluator: Evaluator
    logger: Several
    teachers: tuple[TeacherSpec, ...] = ()
    remarks: tuple[str, ...] = ()  # of the run, for the notes of its record

    def __post_init__(self) -> None:
        """Names the output folder, and remembers the revision of the code before anybody commits another."""
        provenance.code()
        if not getattr(self.method, "citation", ""):  # every card has it, and hours of distilling come before
            who = type(self.method).__name__
            raise ValueError(f"{who} says not where it comes from. Add: citation = 'Authors, Title, Venue'")
        self.out = Path(str(self.config["out"]))  # out=5 is a number to Hydra
        self.ipc, self.seed, self.num_sets = (int(self.config[k]) for k in ("ipc", "seed", "num_sets"))

    def unsupported(self) -> str | None:
        """Returns why the network cannot take these images, or the method cannot distil them, or None."""
        real = self.real.train_only()
        return (
            self.architecture.unfit()
            or self.method.unsupported(real, self.ipc, self.architecture)
            or self.method.unteachable(real, self.ipc, self.teachers)
            or self._no_teacher()
            or self.evaluator.refuses(self.protocol)
            or self.evaluator.unfit(self.real, self.architecture)
        )

    def set_key(self, index: int) -> str:
        """Returns the content key of synthetic set number `index`.

        Everything that defines the set. Not the device and its precision, which move its last bits; nor the code of
        the methods shipped here, whose changes raise `NUMBERS_VERSION`. A method from elsewhere counts by its source.
        """
        return content_key(
            {
                "numbers": NUMBERS_VERSION,
                "method": self.config["method"],
                **_foreign_source(type(self.method)),
                **self._taught_by(self.method.taught),
                "real": self._real_identity(),
                "architecture": self.architecture.describe(),
                "ipc": self.ipc,
                "seed": self.seed,
                "set": index,
            }
        )

    def record_key(self, sets: list[str]) -> str:
        """Returns the content key of a record: the sets (keys, or digests of folders) and how they are measured."""
        return content_key(
            {
                "numbers": NUMBERS_VERSION,
                "sets": sets,
                "real": self._real_identity(),
                "architecture": self.architecture.describe(),
                "evaluator": self.config["evaluator"],
                **_foreign_source(type(self.evaluator)),
                "protocol": self.config["protocol"],
                **self._taught_by(self.protocol.taught),
                **self._stored_labels(),
                "seed": self.seed,
            }
        )

    def _stored_labels(self) -> dict[str, str]:
        """What a key says of labels made elsewhere: their head, which names images, views and teachers."""
        labels = self.protocol.labels
        if labels is None or labels.kind != "replay" or labels.source is None:
            return {}
        return {"stored labels": LabelStore(Path(labels.source), self.runtime.device).digest}

    def _taught_by(self, taught: bool) -> dict[str, Any]:
        """What a key says of the teachers: in their order, which decides who guides what, and how they compute."""
        if not taught:
            return {}
        teachers = [[t.name, t.describe()] for t in self.teachers]
        return {"teachers": teachers, "autocast": self.runtime.autocast}

    def _real_identity(self) -> list[Any]:
        return [self.real.digest, len(self.real.train), self.real.preprocess.digest, self.real.flip]

    def context(self, key: str, seed: int) -> Context:
        """Returns the context of the piece of work `key`."""
        work = self.out / "work" / key
        logger: Logger = Several([Jsonl(work / "log.jsonl"), self.logger])
        log_every, seconds = self.config["log_every"], self.config["checkpoint_seconds"]
        loop = OuterLoop(work, logger, log_every=log_every, checkpoint_seconds=seconds)
        cache = Cache(Path(str(self.config["cache"])))
        return Context(
            seed,
            self.runtime,
            self.architecture,
            cache,
            loop,
            self.protocol,
            teachers=self.teachers,
            measure=lambda net: accuracy(net, self.real.test.batches(1000), self.runtime),
            ipc=self.ipc,
        )

    def prepare(self) -> dict[Path, float]:
        """Builds what is shared between runs: the method's experts, and teachers, the protocol's too.

        Returns what each entry of the cache has cost in seconds.
        """
        made: dict[Path, float] = {}
        for index in range(self.num_sets):
            with self._working_on(index) as (ctx, _), self._logging(index):
                self.method.prepare(self.real.train_only(), ctx)
                if self.protocol.taught and self.teachers:
                    ctx.teachers_of(self.real.train_only())
            made |= {ctx.cache.root / name: seconds for name, seconds in ctx.cache.seconds.items()}
        return made

    def synthetic_set(self, index: int) -> Path:
        """Returns the folder of set number `index`, distilling it first unless it is there."""
        with self._working_on(index) as (ctx, folder):
            if folder.exists():
                return folder
            with self._logging(index), suppress(MadeMeanwhile):
                self._distill(folder, ctx)
        with self._working_on(index) as (_, folder):  # where it is now, whoever made it
            return folder

    @contextmanager
    def _working_on(self, index: int) -> Iterator[tuple[Context, Path]]:
        """Gives the context and the folder of set number `index`; a second run that wants the set waits, or helps."""
        key = self.set_key(index)
        ctx = self.context(key, seed_for(self.seed, "set", index))
        folder = self.out / "sets" / f"{self.method_name}-{self.real.name}-ipc{self.ipc}-{key}"

        def made() -> Path | None:  # another preset may have made the same set
            return next(folder.parent.glob(f"*-{self.real.name}-ipc{self.ipc}-{key}"), None)

        ctx.over = lambda: made() is not None
        with nullcontext() if self.method.in_pieces else self._lock(key):
            yield ctx, made() or folder

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

    def _distill(self, folder: Path, ctx: Context) -> None:
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
        save = partial(
            storage.save,
            syn,
            folder,
            real=real,
            method=self.method_name,
            ipc=self.ipc,
            seed=ctx.seed,
            config={k: self.config[k] for k in ("method", "dataset", "model", "ipc", "seed")}
            | ({"teachers": self.config["teachers"]} if self.method.taught else {}),
            citations=[self.method.citation, self.real.citation],
            provenance={
                "seconds": seconds,
                "peak_memory": stages.peak_memory,
                "notes": ctx.notes,
                "device": self.runtime.describe(),
                "versions": provenance.versions(),
                "code": provenance.code().model_dump(),
            }
            | ({"teachers": [t.model_dump() for t in ctx.met]} if ctx.met else {}),
        )
        with self._lock(folder.name.rpartition("-")[2]) if self.method.in_pieces else nullcontext():
            if ctx.over():
                raise MadeMeanwhile
            save()
            ctx.loop.forget()

    def record(self, key: str, sets: Callable[[], list[Path]]) -> tuple[Record, Path]:
        """Returns the record of `key` and its file, measuring it first unless it is there.

        A record that says `skipped` or `diverged` is tried again.
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
            journal = Journal(self.out / "work" / key / "scores.jsonl")
            record = self._measure(key, sets, journal)
            record.save(path)
            if record.status == "done":
                journal.remove()
        return record, path

    def _measure(self, key: str, sets: Callable[[], list[Path]], journal: Journal) -> Record:
        stages, notes, told = provenance.Stages(self.runtime.device), list(self.remarks), None
        try:
            folders = sets()
        except Diverged as error:
            return self._as_record(key, "diverged", str(error), stages)
        for index, folder in enumerate(folders):
            syn, _ = storage.load(folder)
            if reason := self.evaluator.unsupported(syn, self.real) or self._untaught(syn):
                return self._as_record(key, "skipped", reason, stages, folders=folders)
            ctx = self.context(key, self.seed)
            ctx.finished, ctx.notes = journal.finished(index), notes
            try:
                with stages.measure("evaluate"):
                    self._score(index, syn, ctx, journal)
            except Diverged as error:
                return self._as_record(key, "diverged", str(error), stages, folders=folders, notes=notes)
            told = ctx.told
            stages.seconds["evaluate"] -= ctx.cache.spent
            priced = ctx.cache.seconds.items()  # the whole price, also of what was cached
            if reference := sum(s for name, s in priced if name.startswith("reference-")):
                stages.seconds["reference"] = round(reference, 3)
            if told is not None:  # of labels and teachers
                labels = sum(s for name, s in priced if not name.startswith("reference-"))
                stages.seconds["relabel"] = round(labels, 3)
        stages.seconds["evaluate"] = round(stages.seconds["evaluate"] + journal.seconds_before, 3)
        return self._as_record(
            key, "done", None, stages, scores=journal.scores, folders=folders, notes=notes, told=told
        )

    def _untaught(self, syn: SyntheticSet) -> str | None:
        """Returns why the protocol's teachers cannot speak of a set, or None."""
        if self.protocol.labels is not None and label_mode(syn.labels) == "soft":
            return (
                f"the set has soft labels of its own, and protocol {self.protocol.name} has others "
                f"({self.protocol.labels.kind}). Use a protocol without labels, e.g. protocol=mtt-1000"
            )
        return self._no_teacher()

    def _no_teacher(self) -> str | None:
        labels = self.protocol.labels
        if labels is None or not self.protocol.taught or self.teachers or labels.source:
            return None
        return f"protocol {self.protocol.name} needs a teacher. Use teacher=convnet_bn"

    def _score(self, index: int, syn: SyntheticSet, ctx: Context, journal: Journal) -> None:
        began = time.monotonic()
        for scores in self.evaluator.run(syn, self.real, ctx):
            journal.add([s.model_copy(update={"set": index}) for s in scores], time.monotonic() - began)
            began = time.monotonic()
            values = ", ".join(f"{s.metric} {s.value:.4f}" for s in scores)
            _log.info("set %d, network %d: %s", index, scores[0].network, values)

    def skipped(self, key: str, reason: str) -> tuple[Record, Path]:
        """Records why this experiment cannot be."""
        record = self._as_record(key, "skipped", reason, provenance.Stages(self.runtime.device))
        return record, record.save(self.out / "records" / f"{key}.json")

    def _as_record(
        self,
        key: str,
        status: Literal["done", "skipped", "diverged"],
        reason: str | None,
        stages: provenance.Stages,
        *,
        scores: Sequence[Score] = (),
        folders: Sequence[Path] = (),
        notes: Sequence[str] = (),
        told: Told | None = None,
    ) -> Record:
        labels = self.protocol.labels
        first = storage.load(folders[0])[0] if folders else None
        made = [read_provenance(folder) for folder in folders]
        seconds, memory = dict(stages.seconds), dict(stages.peak_memory)
        for stage in ("prepare", "distill"):
            spent = [m["seconds"][stage] for m in made if stage in m.get("seconds", {})]
            if spent:
                # sets of one run share what was prepared, each is distilled apart
                seconds[stage] = round(max(spent) if stage == "prepare" else sum(spent), 3)
            if peaks := [m["peak_memory"][stage] for m in made if stage in m.get("peak_memory", {})]:
                memory[stage] = max(peaks)
        recipe = {k: v for k, v in self.config["protocol"].items() if k not in ("name", "version")}
        return Record(
            key=key,
            status=status,
            reason=reason,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            method=self.method_name,
            dataset=self.real.name,
            model=describe("model", self.architecture.name, self.config["model"]),
            ipc=self.ipc,
            protocol=ProtocolId(
                name=describe("protocol", self.protocol.name, recipe), version=self.protocol.version
            ),
            evaluator=describe(
                "evaluator",
                self.evaluator_name,
                {k: v for k, v in self.config["evaluator"].items() if k not in self.evaluator.repeats},
            ),
            selection=self.protocol.selection,
            label_mode=labels.kind
            if labels
            else label_mode(first.labels)
            if first is not None
            else "unknown",
            main_metric=self.evaluator.main_metric,
            scores=sorted(scores, key=lambda s: (s.set, s.network, s.metric)),
            config=self.config,
            seeds={"run": self.seed},
            seconds=seconds,
            peak_memory=memory,
            stored_bytes=(first.stored_bytes() if first is not None else {})
            | ({"teacher labels": told.label_bytes} if told and told.label_bytes else {}),
            teacher_forwards=told.teacher_forwards if told else 0,
            teachers=list(told.teachers) if told and told.teachers else self._guides(made),
            sizes=first.told_sizes() if first is not None else {},
            real_digest=self.real.digest,
            set_digests=[storage.digest(folder) for folder in folders],
            code=provenance.code(),
            device=self.runtime.describe(),
            versions=provenance.versions(),
            notes=list(dict.fromkeys([*(note for m in made for note in m.get("notes", [])), *notes])),
        )

    def _guides(self, made: Sequence[dict[str, Any]]) -> list[TeacherId]:
        """Returns the teachers that guided the sets; where a set does not say them, those that this run names."""
        said = next((m["teachers"] for m in made if "teachers" in m), None)
        if said is not None:
            return [TeacherId(**t) for t in said]
        return [TeacherId(name=t.name) for t in self.teachers] if self.method.taught else []


def _left_behind(path: Path) -> Record:
    try:
        return load_record(path)
    except ValueError as error:
        raise ValueError(f"{error}\nTo measure anew: rm {path}") from error


def _foreign_source(kind: type) -> dict[str, str]:
    """Returns the hash of the module of a class that does not belong to this package, by the name of the class."""
    module = inspect.getmodule(kind)
    if module is None or module.__name__.startswith("dd_bench."):
        return {}
    try:
        source = inspect.getsource(module).encode()
    except (OSError, TypeError):  # typed into an interpreter
        return {}
    return {f"source of {kind.__name__}": hashlib.sha256(source).hexdigest()}
