"""The labels of fresh networks: their source, how they are stored, and the loss that uses them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from dd_bench.records.label_keys import DEFAULTS, unused_keys
from dd_bench.records.overrides import to_override

Phase = tuple[Literal["soft", "hard"], int]
"""Labels of a part of the training, and its number of epochs."""


class TemperatureSchedule(BaseModel):
    """A temperature that is multiplied by `decay` after every `every` epochs, down to `minimum` (LPQLD)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decay: float = Field(gt=0, le=1)
    every: int = Field(ge=1)
    minimum: float = Field(gt=0)

    def at(self, epoch: int, start: float) -> float:
        """Return the temperature in `epoch` (0-based) of a training that starts with `start`."""
        return max(self.minimum, start * self.decay ** (epoch // self.every))


class LabelRecipe(BaseModel):
    """The labels that fresh networks are trained on, and their loss.

    Attributes:
        kind: source of the labels, see `dd_bench.teachers.labelers`.
        loss: `kl` of distributions at a temperature, `mse` of the logits, or `cosine`, 1 minus the cosine of the
            student's and the teacher's logits (GIFT).
        temperature: temperature of both distributions of `kl`.
        scaled: whether to multiply `kl` by the squared temperature.
        hard_weight: weight of the cross-entropy with the true class, which is added to the soft loss.
        mix_space: for `static`, whether a mixture interpolates `logits` or `probabilities`.
        teacher_mode: `eval`, or `train`, which normalises with the statistics of the batch, as the released CIFAR code
            of SRe2L does by accident. Running statistics do not change in either mode.
        pool: for `replay`, the number of training epochs with soft labels divided by the number of stored epochs.
            Training uses each stored epoch once, and then stored epochs that are drawn at random (LPLD).
        top: for `replay` and `static`, the number of logits stored per view, the largest ones; null: all logits. `rest`
            replaces the other logits.
        source: for `replay`, a folder of existing labels; null: compute them.
        pool_unit: whether `pool` and `stored_epochs` store whole epochs or single batches. With `batch`, the pool is
            the first batches of the training, and each pass over the pool uses each of its batches once. The first pass
            is in the stored order, later passes are in random order.
        stored_epochs: for `replay`, the number of stored epochs, instead of `pool`; it need not divide the number of
            epochs. With `pool_unit=batch`, the number of stored batches is this number times the batches of an epoch.
        rest: value of the logits that are not stored. `share` stores one more value per view, which preserves their
            total probability at `temperature` for `kl`, and their mean for the other losses. `minimum` is the smallest
            stored logit. `zero` gives them a probability of zero.
        label_bits: bits of a stored logit, at equal distances between the smallest and the largest logit stored for its
            view, which are two float16 numbers; null: float16 logits.
        refine: for `cosine`, weight of the unit vector of the smoothed class label, which is added to the unit vector
            of the teacher's logits (GIFT).
        hard_smoothing: label smoothing of the cross-entropy with the true class, in [0, 1], as in PyTorch. For
            `refine`, the share that the other classes have in equal parts, as in GIFT.
        temperature_schedule: how `temperature` falls during the training; null: it is constant.
        student_temperature: `same` as the teacher's; `calibrated`, the value in 0.01, 0.02, ..., 1 with the smallest
            loss on the last batch of the epoch before, starting with 1 (LPQLD); or `calibrated_ratio`, where these
            values are multiplied by the teacher's temperature.
        phases: parts of the training with soft labels and with class labels, in this order. Their epochs are scaled in
            proportion if their sum is not the number of epochs. null: soft labels in all epochs. Only epochs with soft
            labels are stored.
        teacher_weights: weights of the teachers' logits in their mean, in the order of `teacher=[...]`; only their
            ratios matter. null: equal weights. CV-DD weights teachers by their prior performance.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["hard", "static", "replay", "online"]
    loss: Literal["kl", "mse", "cosine"]
    temperature: float = Field(gt=0)
    scaled: bool
    hard_weight: float = Field(ge=0)
    mix_space: Literal["logits", "probabilities"]
    teacher_mode: Literal["eval", "train"]
    pool: int = Field(ge=1)
    top: int | None = Field(ge=1)
    source: str | None
    # The following keys were added later. They are omitted at their defaults, so keys of older results stay valid.
    pool_unit: Literal["epoch", "batch"] = "epoch"
    stored_epochs: int | None = Field(default=None, ge=1)
    rest: Literal["share", "minimum", "zero"] = "share"
    label_bits: int | None = Field(default=None, ge=1, le=8)
    refine: float = Field(default=0.0, ge=0)
    hard_smoothing: float = Field(default=0.0, ge=0, le=1)
    temperature_schedule: TemperatureSchedule | None = None
    student_temperature: Literal["same", "calibrated", "calibrated_ratio"] = "same"
    phases: tuple[Phase, ...] | None = None
    teacher_weights: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "static" and self.teacher_mode == "train":
            raise ValueError(
                "kind=static requires teacher_mode=eval, got teacher_mode=train, because the teachers label each "
                "image only once and not in training batches. Use teacher_mode=eval or kind=replay"
            )
        if self.stored_epochs is not None and self.pool != 1:
            raise ValueError(
                f"only one of pool and stored_epochs can be set, got pool={self.pool} and "
                f"stored_epochs={self.stored_epochs}. Use pool=1 or stored_epochs=null"
            )
        if self.loss != "kl":
            kl_only = {
                "rest": (self.rest, "zero", "share"),
                "temperature_schedule": (self.temperature_schedule is not None, True, "null"),
                "student_temperature": (self.student_temperature != "same", True, "same"),
            }
            for key, (value, wrong, default) in kl_only.items():
                if value == wrong:
                    raise ValueError(
                        f"{key}={getattr(self, key)} requires loss=kl, got loss={self.loss}. Use {key}={default}"
                    )
        if self.loss != "cosine" and self.refine:
            raise ValueError(
                f"refine requires loss=cosine, got refine={self.refine} with loss={self.loss}. Use refine=0"
            )
        if self.phases is not None and (
            not any(labels == "soft" for labels, _ in self.phases) or min(e for _, e in self.phases) < 1
        ):
            raise ValueError(
                f"phases must contain soft labels, and each phase must have at least one epoch, got {self.phases}. "
                "Example: phases=[[soft,75],[hard,150],[soft,75]]"
            )
        if self.teacher_weights is not None and not (
            min(self.teacher_weights, default=0) >= 0 and 0 < sum(self.teacher_weights) < math.inf
        ):
            raise ValueError(
                f"teacher_weights must be numbers >= 0 with a positive sum, got {list(self.teacher_weights)}. "
                "Example: teacher_weights=[0.7,0.3]"
            )
        return self

    @property
    def calibrates(self) -> bool:
        """Whether the student's temperature is calibrated after each epoch."""
        return self.student_temperature != "same"

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit later keys at their defaults."""
        values: dict[str, Any] = handler(self)
        fields = type(self).model_fields
        return {
            k: v
            for k, v in values.items()
            if fields[k].is_required() or getattr(self, k) != fields[k].default
        }


def check_used(labels: LabelRecipe, shipped: Mapping[str, Any]) -> None:
    """Check that every value that a user has changed has an effect. Otherwise equal trainings have several records.

    Args:
        labels: the labels of a run.
        shipped: those of the protocol file. Its kind of labels may have values without effect: a protocol and its
            variant with hard labels differ in the kind only. Empty if the file is not known.

    Raises:
        ValueError: a value has no effect. The message gives the values to use.
    """
    values = labels.model_dump(mode="json")
    usual = DEFAULTS | {"temperature": shipped.get("temperature", values["temperature"])}
    own = {**usual, **shipped} if labels.kind == shipped.get("kind") else usual
    wrong = {
        key: reason
        for key, reason in unused_keys(values).items()
        if values.get(key, usual[key]) not in (usual[key], own[key])
    }
    if wrong:
        found, use = (
            " ".join(
                f"protocol.labels.{key}={to_override(of[key], f'protocol.labels.{key}')}" for key in wrong
            )
            for of in (values, own)
        )
        reasons = ", ".join(dict.fromkeys(wrong.values()))
        raise ValueError(
            f"{found} {'has' if len(wrong) == 1 else 'have'} no effect with {reasons}. Use {use}"
        )
