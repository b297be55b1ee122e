"""Keys of a protocol's labels: their usual values, and which of them have no effect with the values of the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULTS: dict[str, Any] = {
    "pool": 1,
    "pool_unit": "epoch",
    "stored_epochs": None,
    "top": None,
    "rest": "share",
    "label_bits": None,
    "phases": None,
    "temperature_schedule": None,
    "student_temperature": "same",
    "loss": "kl",
    "scaled": False,
    "refine": 0.0,
    "hard_weight": 0.0,
    "hard_smoothing": 0.0,
    "mix_space": "logits",
    "teacher_mode": "eval",
    "source": None,
    "teacher_weights": None,
}
"""Keys of a protocol's labels and their usual values, see `LabelRecipe`. A record without a key has this value."""

_STORED = ("pool", "pool_unit", "stored_epochs", "source")
NOT_USED = {
    "hard": frozenset({"temperature", *DEFAULTS} - {"hard_smoothing"}),
    "static": frozenset({*_STORED, "teacher_mode"}),
    "replay": frozenset({"mix_space"}),
    "online": frozenset({*_STORED, "top", "rest", "label_bits", "mix_space"}),
}
"""Keys that have no effect on a kind of labels, whatever the values of the other keys are."""


def unused_keys(labels: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys of labels that have no effect, with the values of other keys that are the reason.

    Args:
        labels: the keys of the labels; those that are missing have their usual values.
    """

    def has(key: str) -> Any:
        return labels.get(key, DEFAULTS.get(key))

    kind = str(labels["kind"])
    unused = {key: f"kind={kind}" for key in NOT_USED.get(kind, ())}
    if kind == "hard":
        return unused
    phases = [labels for labels, _ in has("phases") or ()]
    conditions = {
        "rest": (has("top") is not None, "top=null"),
        "pool_unit": (has("pool") != 1 or has("stored_epochs") is not None, "pool=1 and stored_epochs=null"),
        "scaled": (has("loss") == "kl", f"loss={has('loss')}"),
        "temperature": (
            has("loss") == "kl" or (kind == "static" and has("mix_space") == "probabilities"),
            f"loss={has('loss')}",
        ),
        "hard_smoothing": (
            has("hard_weight") or has("refine") or "hard" in phases,
            "hard_weight=0, refine=0 and no phases with class labels",
        ),
        "phases": (not phases or "hard" in phases, "soft labels in all phases"),
    }
    return {key: reason for key, (used, reason) in conditions.items() if not used} | unused
