"""The base class of methods that build images with teachers."""

from __future__ import annotations

from collections.abc import Sequence

from dd_bench.api import Architecture, DistillContext, Method, RealSet, TeacherSpec


class Guided(Method):
    """Base class of methods that build images with the run's teachers. The images are built in shards."""

    uses_teachers = True
    in_shards = True

    def check_dataset(self, real: RealSet, ipc: int, architecture: Architecture) -> str | None:
        """See `Method`."""
        if reason := super().check_dataset(real, ipc, architecture):
            return reason
        if real.preprocess.kind != "normalise":
            return (
                f"{type(self).__name__} clamps each channel to the pixel range, but ZCA whitening mixes channels. "
                "Use dataset.preprocess=normalise"
            )
        return None

    def check_teachers(self, real: RealSet, ipc: int, teachers: Sequence[TeacherSpec]) -> str | None:
        """See `Method`."""
        return None if teachers else f"{type(self).__name__} requires a teacher. Use teacher=convnet_bn"

    def prepare(self, real: RealSet, ctx: DistillContext) -> None:
        """Train the teachers."""
        ctx.teachers_of(real)
