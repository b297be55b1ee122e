"""The context of a run with teachers, which guide methods and label the training data of networks."""

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
        teachers: the teachers that `teacher=[...]` names, in order.
        measure: accuracy of a network on held-out data, for the card of a teacher only.
        used_teachers: the teachers that `teachers_of` has returned, in order; for the record.
    """

    teachers: tuple[TeacherSpec, ...] = ()
    measure: Measure | None = None
    used_teachers: list[TeacherId] = field(default_factory=list)

    def teachers_of(self, real: RealSet) -> list[Teacher]:
        """Returns the teachers that `teacher=[...]` names, training those that are missing.

        Raises:
            ValueError: it names none.
        """
        if not self.teachers:
            raise ValueError(
                "this needs a teacher, and the run has none. Use teacher=convnet_bn, or several: [a,b]"
            )
        found = [teacher_of(spec, real, self.cache, self.runtime, self.measure) for spec in self.teachers]
        self.used_teachers[:] = [TeacherId(name=t.name, digest=t.digest, accuracy=t.accuracy) for t in found]
        return found
