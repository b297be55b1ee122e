"""The functions of `import dd_bench`, which do the same as the commands, for Python code and notebooks.

They write the same sets and records as the command line, under the same keys. They do not change
`sys.argv`, the logging configuration or Hydra's global state.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dd_bench.data.dataset import RealSet, tensor_set
from dd_bench.data.preprocess import channel_statistics, fit_preprocess
from dd_bench.hub.hub import located
from dd_bench.pipeline import run as verbs
from dd_bench.pipeline.choices import choices
from dd_bench.pipeline.compose import RunConfig, load_real_set
from dd_bench.records.config_diff import shipped_config
from dd_bench.records.overrides import dataset_overrides, to_override
from dd_bench.records.record import Record
from dd_bench.records.tuning import Tuning
from dd_bench.runtime.progress import bars
from dd_bench.synthetic.distilled_set import DistilledSet

Network = str | Callable[..., nn.Module] | None
Images = Tensor | np.ndarray[Any, Any]
NOT_IMPORTABLE = "__main__"  # worker processes cannot import the classes of a notebook


def list_methods() -> dict[str, str]:
    """Return a dict that maps the name of each method to its description."""
    return choices("method")


def list_datasets() -> dict[str, str]:
    """Return a dict that maps the name of each dataset to its description."""
    return choices("dataset")


def list_models() -> dict[str, str]:
    """Return a dict that maps the name of each network to its description."""
    return choices("model")


def list_protocols() -> dict[str, str]:
    """Return a dict that maps the name of each protocol to its description."""
    return choices("protocol")


def list_evaluators() -> dict[str, str]:
    """Return a dict that maps the name of each evaluator to its description."""
    return choices("evaluator")


def list_experiments() -> dict[str, str]:
    """Return a dict that maps the name of each experiment to its description."""
    return choices("experiment")


def load(where: str | Path, digest: str | None = None) -> DistilledSet:
    """Load the synthetic set in a folder or at a URL, and check every hash and shape.

    Args:
        where: a folder, or a URL that fsspec opens: `hf://datasets/USER/NAME@REVISION`, `s3://`, `https://`. A set at a
            URL is downloaded once.
        digest: expected digest of the set, or at least the first 8 digits of it. If a set with this digest was
            downloaded before, no connection is needed.

    Raises:
        ValueError: the set is damaged or has another digest.
        OSError: the set could not be read.
    """
    return DistilledSet.at(located(where, digest))


def real_set(name: str, *overrides: str) -> RealSet:
    """Load a real dataset, e.g. `real_set("fashion_mnist", "dataset.preprocess=zca")`.

    Args:
        name: one of `list_datasets()`.
        overrides: overrides of `conf/dataset/<name>.yaml`, as on the command line.

    Raises:
        ValueError, FileNotFoundError: an override is wrong, or the data are missing.
    """
    return load_real_set([f"dataset={name}", *overrides])[0]


def from_folder(root: str | Path, *overrides: str) -> RealSet:
    """Load a dataset of image files in class folders `root/train/CLASS/*` and `root/val/CLASS/*`.

    Args:
        root: the folder. Its name becomes the name of the dataset; other characters than letters, digits, _ . + and -
            become _.
        overrides: keys of `conf/dataset/image_folder.yaml`, e.g. `"dataset.size=32"`, `"dataset.flip=false"`.

    Raises:
        ValueError, FileNotFoundError: a folder is missing or empty, or an image is damaged.
    """
    folder = Path(root).expanduser().resolve()
    name = re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9_.+-]", "_", folder.name).lstrip("_") or "images"
    location = [f"dataset.{key}={to_override(str(v), key)}" for key, v in (("root", folder), ("name", name))]
    return real_set("image_folder", *location, *overrides)


def from_tensors(
    name: str,
    train: tuple[Images, Images],
    test: tuple[Images, Images],
    *,
    class_names: Sequence[str] | None = None,
    flip: bool = False,
    preprocess: str = "normalise",
    licence: str = "unknown",
    citation: str = "unknown",
) -> RealSet:
    """Make a dataset of tensors or NumPy arrays.

    Args:
        name: name of the dataset in records and cards.
        train: uint8 images `(n, c, h, w)` or `(n, h, w)`, and labels 0..k-1 `(n,)`. Methods receive only these.
        test: images and labels for scoring fresh networks, in the same format.
        class_names: names of the classes in label order; default: the numbers 0..k-1.
        flip: whether a horizontal flip preserves the class.
        preprocess: `normalise` (by the mean and standard deviation of each channel of `train`) or `zca`.
        licence: licence of the data, written into the card of every distilled set.
        citation: citation of the data, written into the same cards.

    Raises:
        ValueError: a tensor has a wrong dtype or shape, a label is out of range, or `name` is a shipped dataset.
    """
    if shipped_config("dataset", name):
        raise ValueError(f"{name!r} is the name of a shipped dataset. Use another name, e.g. 'my_{name}'")
    (x, y), held_out = _pair(name, "train", train), _pair(name, "test", test)
    names = tuple(class_names or map(str, range(int(y.max()) + 1)))
    mean, std = channel_statistics(x)
    cpu = torch.device("cpu")
    return tensor_set(
        name,
        (x, y),
        held_out,
        class_names=names,
        preprocess=fit_preprocess(preprocess, x, mean=mean, std=std, device=cpu),
        flip=flip,
        licence=licence,
        citation=citation,
        device=cpu,
        val_fraction=0.0,
    )


def run(overrides: Sequence[str] = (), *, progress: bool = True) -> Record:
    """Distill and evaluate, as `dd-bench run OVERRIDES` does: `run(["method=dm", "dataset=digits", "ipc=1"])`.

    The record and the synthetic sets are also written below `out` (default `runs`). The record of a finished run is
    read from there.

    Raises:
        ValueError, FileNotFoundError: an override is wrong, the data are missing, or the method, dataset, network and
            protocol cannot be combined.
    """
    with bars(progress):
        return verbs.run(RunConfig.of(overrides))


def tune(
    overrides: Sequence[str], *, trials: int = 20, name: str | None = None, progress: bool = True
) -> Tuning:
    """Search hyper-parameters on validation data, as `dd-bench tune OVERRIDES` does.

    For example, `tune(["method=dm", "ipc=1", "method.lr_img=0.1,1,10"])`. Finished trials of an earlier call with the
    same arguments are not repeated.

    Args:
        overrides: overrides of a run. Those with several values in Hydra's sweep grammar are the search space.
        trials: maximum number of trials. If the space has at most so many configurations, all are tried.
        name: folder of the study in `OUT/tune`; default: method, dataset, IPC and a hash of the search.
        progress: show progress bars.

    Returns:
        All trials and the number of the best. `overrides()` returns the best values as overrides. The file
        `OUT/tune/NAME/tuning.json` has the same content, for `run([..., "tuning=FILE"])`.

    Raises:
        ImportError: Optuna is not installed.
        ValueError, FileNotFoundError: see `run`; or no override has several values, or no trial has a score.
    """
    from dd_bench.pipeline import tune as search  # imports Optuna, which is optional

    with bars(progress):
        return search.tune(search.plan(overrides, name), trials)


def distill(
    method: str,
    real: str | RealSet,
    ipc: int,
    *,
    model: Network = None,
    overrides: Sequence[str] = (),
    out: str | Path = "runs",
    progress: bool = True,
) -> DistilledSet:
    """Distill one synthetic set, as `dd-bench distill` does, or load it if it already exists.

    Args:
        method: one of `list_methods()`.
        real: one of `list_datasets()`, or the result of `real_set`, `from_folder` or `from_tensors`.
        ipc: images per class.
        model: one of `list_models()`, or a class, see `evaluate`.
        overrides: further overrides, as on the command line, e.g. `["method.iterations=100", "seed=1"]`.
        out: output folder.
        progress: show a progress bar.

    Raises:
        ValueError, FileNotFoundError: see `run`.
    """
    words = [f"method={method}", f"ipc={ipc}"]
    with bars(progress):
        (folder, *_) = verbs.distill(_config(words, real, model, overrides, out))
    return DistilledSet.at(folder)


def evaluate(
    syn: DistilledSet | str | Path,
    *,
    dataset: str | RealSet | None = None,
    protocol: str | None = None,
    model: Network = None,
    num_networks: int | None = None,
    evaluator: str | None = None,
    overrides: Sequence[str] = (),
    out: str | Path = "runs",
    progress: bool = True,
) -> Record:
    """Train fresh networks on a saved set and score them on the test data, as `dd-bench evaluate set=FOLDER` does.

    Args:
        syn: a synthetic set from `load` or `distill`, or the folder or URL of one.
        dataset: one of `list_datasets()`, or a `RealSet`. The default is the dataset in the card of the set.
        protocol: one of `list_protocols()`. It defines how the networks are trained.
        model: one of `list_models()`, or a class derived from `torch.nn.Module`. Parameters of its constructor named
            `num_classes`, `in_channels` or `image_size` are filled in. Set other parameters with `functools.partial`.
        num_networks: number of fresh networks.
        evaluator: one of `list_evaluators()`. It defines what is measured.
        overrides: further overrides, as on the command line, e.g. `["model.width=32"]`.
        out: output folder.
        progress: show a progress bar.

    Raises:
        ValueError, FileNotFoundError: see `run`; or the set is damaged or was distilled from another dataset.
    """
    found = syn if isinstance(syn, DistilledSet) else load(syn)
    of_data: list[str] = []
    if dataset is None:
        try:
            of_data = dataset_overrides(found.card.config.get("dataset", {}), found.card.dataset)
        except ValueError as error:
            raise ValueError(
                f"the set was distilled from {found.card.dataset!r}, and {error}. Add: dataset=REAL_SET"
            ) from error
    given = (("protocol", protocol), ("evaluator", evaluator), ("evaluator.num_networks", num_networks))
    words = [*of_data, f"set={to_override(str(found.folder), 'set')}"]
    words += [f"{key}={value}" for key, value in given if value is not None]
    with bars(progress):
        return verbs.evaluate(_config(words, dataset, model, overrides, out))


def _config(
    words: Sequence[str],
    real: str | RealSet | None,
    model: Network,
    overrides: Sequence[str],
    out: str | Path,
) -> RunConfig:
    """Convert the arguments to overrides and compose the configuration.

    A dataset or network that is a Python object is passed on unchanged.

    Raises:
        ValueError: an override is wrong, or changes a dataset or network that is a Python object.
    """
    of_real = [f"dataset={real}"] if isinstance(real, str) else [*real.overrides] if real else []
    of_model = [f"model={model}"] if isinstance(model, str) else []
    network = None if isinstance(model, str) else model
    if network is not None and partial(network).func.__module__ == NOT_IMPORTABLE:
        of_model = ["runtime.workers=1"]
    for group, is_object in (("dataset", not isinstance(real, str | None)), ("model", network is not None)):
        if is_object and (
            ignored := [o for o in overrides if o.lstrip("+~").startswith((f"{group}=", f"{group}."))]
        ):
            raise ValueError(
                f"{group} is a Python object, so the override {ignored[0]} has no effect. Remove it"
            )
    return RunConfig.of(
        [*of_real, *of_model, *words, f"out={to_override(str(out), 'out')}", *overrides],
        real=None if isinstance(real, str) else real,
        network=network,
    )


def _pair(name: str, split: str, data: tuple[Images, Images]) -> tuple[Tensor, Tensor]:
    images, labels = (torch.as_tensor(part) for part in data)
    if images.ndim == 3:
        images = images[:, None]
    if images.dtype != torch.uint8 and images.is_floating_point():
        raise ValueError(
            f"{name} {split}: images must be uint8, got {images.dtype}. For floats in [0, 1]: "
            "(255 * images).round().to(torch.uint8)"
        )
    if images.ndim == 4 and images.shape[1] > 4 >= images.shape[3]:
        raise ValueError(
            f"{name} {split}: images must be (n, c, h, w), got {tuple(images.shape)}. Use images.permute(0, 3, 1, 2)"
        )
    if labels.is_floating_point():
        raise ValueError(
            f"{name} {split}: labels must be integers 0..k-1 of shape (n,), got {labels.dtype} {tuple(labels.shape)}. "
            "If they are class indices, use labels.long()"
        )
    return images.contiguous(), labels
