"""The set that a run starts from, `base=FOLDER`: it is opened here, not by the method."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dd_bench.data.dataset import RealSet
from dd_bench.synthetic import storage
from dd_bench.synthetic.distilled_set import DistilledSet


def load_base(folder: Path, real: RealSet) -> DistilledSet:
    """Read and check the set in `folder`, which must have been made from `real`.

    Raises:
        ValueError: the folder has no set, the set is damaged, or it was made from another dataset.
    """
    base = DistilledSet.at(folder)
    if reason := storage.check_dataset(base.card, real):
        raise ValueError(f"base={folder} cannot be used on this dataset: {reason}")
    return base


def describe_base(base: DistilledSet) -> dict[str, Any]:
    """Return what cards and records contain of a base set. Content keys contain only its digest.

    The dict has the name of the set, its `digest`, `method` and `ipc`. Its `config` has the hyper-parameters of the
    method and the description of the set's own base, which show how the hyper-parameters were chosen.
    """
    config = base.card.config
    return {
        "set": base.folder.resolve().name,
        "digest": storage.digest(base.folder),
        "method": base.card.method,
        "ipc": base.card.ipc,
        "config": {key: config[key] for key in ("method", "base") if config.get(key) is not None},
    }
