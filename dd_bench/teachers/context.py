"""The context of a run with teachers. Teachers guide methods and label training data."""

from __future__ import annotations

from dataclasses import dataclass, field

from dd_bench.data.dataset import RealSet
from dd_bench.records.record import TeacherId
from dd_bench.runtime.context import RunContext
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
