"""The context of a run with teachers. Teachers guide methods and label training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from dd_bench.data.dataset import RealSet
from dd_bench.records.record import TeacherId
from dd_bench.runtime.context import RunContext
from dd_bench.teachers.backbones import Backbone, backbone_of
from dd_bench.teachers.squeeze import Measure
from dd_bench.teachers.teacher_spec import TeacherSpec
from dd_bench.teachers.teachers import Teacher, teacher_of


@dataclass(kw_only=True)
class TeacherContext(RunContext):
    """A context with the teachers of the run.

    Attributes:
        teachers: the teachers selected by `teacher=[...]`, in the order of this list.
        measure: a function that returns the test accuracy of a network, which is only written to a teacher's card.
        used_teachers: the teachers that the last call of `teachers_of` returned; the run's record lists them.
    """

    teachers: tuple[TeacherSpec, ...] = ()
    measure: Measure | None = None
    used_teachers: list[TeacherId] = field(default_factory=list)

    def teachers_of(self, real: RealSet) -> list[Teacher]:
        """Return the teachers selected by `teacher=[...]`, training those that are not cached.

        Raises:
            ValueError: no teacher is selected.
        """
        if not self.teachers:
            raise ValueError(
                "the run requires a teacher, and none is selected. "
                "Example: teacher=convnet_bn, or teacher=[convnet_bn,resnet18]"
            )
        teachers = [teacher_of(spec, real, self.cache, self.runtime, self.measure) for spec in self.teachers]
        self.used_teachers[:] = [
            TeacherId(name=t.name, digest=t.digest, accuracy=t.accuracy) for t in teachers
        ]
        return teachers

    def backbone_of(self, real: RealSet) -> Backbone:
        """Return the run's teacher as a backbone of linear probes, training it if it is not cached.

        Raises:
            ValueError: there is not exactly one teacher, or see `dd_bench.teachers.backbones.backbone_of`.
        """
        if reason := check_backbone(self.teachers):
            raise ValueError(reason)
        backbone = backbone_of(self.teachers[0], real, self.cache, self.runtime, self.measure)
        self.used_teachers[:] = [
            TeacherId(name=backbone.name, digest=backbone.digest, accuracy=backbone.accuracy)
        ]
        return backbone


def check_backbone(teachers: Sequence[TeacherSpec]) -> str | None:
    """Return why these teachers are not one backbone, or None if they are."""
    if len(teachers) == 1:
        return None
    names = ", ".join(t.name for t in teachers) or "none"
    return (
        f"a linear probe requires exactly one teacher, whose features it uses, got {names}. "
        "Use teacher=backbone_w32. For several backbones, evaluate the set with each: "
        "dd-bench evaluate -m set=FOLDER teacher=backbone_w32,backbone_d2_w32"
    )
