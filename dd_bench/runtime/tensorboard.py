"""A logger that writes event files for TensorBoard. The extra `tensorboard` installs the package that it needs."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dd_bench.runtime.files import canonical
from dd_bench.runtime.loggers import Logger

FOLDER = "tensorboard"
"""Subfolder of a run's work folder. `tensorboard --logdir runs/work` shows all runs."""


class TensorBoard(Logger):
    """Event files in the run's work folder. The tag of a scalar is `<loop>/<name>`.

    A resumed run adds another event file to the same folder. Steps after the last checkpoint are in both files, with
    equal values.
    """

    def __init__(self) -> None:
        """Check that the package is installed.

        Raises:
            ImportError: it is not installed.
        """
        if find_spec("tensorboard") is None:
            raise ImportError(
                "logger=tensorboard requires the package tensorboard, which is not installed. "
                "Use: pip install 'dd-bench[tensorboard]'"
            )
        self._writer: Any = None

    def open(self, folder: Path, run_id: str, config: dict[str, Any], title: str = "") -> None:
        """See `Logger`."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import

        self._writer = SummaryWriter(str(folder / FOLDER))
        self._writer.add_text("run", f"{title} ({run_id})")
        self._writer.add_text("config", f"```\n{canonical(config, indent=2)}\n```")

    def log(self, loop: str, step: int, values: dict[str, float]) -> None:
        """See `Logger`. Does nothing before `open` and after `close`."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{loop}/{name}", value, step)

    def log_image(self, name: str, step: int, path: Path) -> None:
        """See `Logger`."""
        if self._writer is not None:
            import numpy as np
            from PIL import Image

            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            self._writer.add_image(f"{name}/images", pixels, step, dataformats="HWC")

    def summarise(self, values: dict[str, float | str]) -> None:
        """See `Logger`. Numbers are also written as scalars `summary/<name>`."""
        if self._writer is not None:
            rows = "\n".join(f"| {name} | {value} |" for name, value in values.items())
            self._writer.add_text("summary", f"| name | value |\n|---|---|\n{rows}")
            self.log("summary", 0, {k: v for k, v in values.items() if not isinstance(v, str)})

    def close(self) -> None:
        """See `Logger`."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
