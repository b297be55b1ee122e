"""The commands of `dd-bench`: what each does, and the function that runs it."""

from __future__ import annotations

HYDRA_COMMANDS = {
    "run": "distill a set, evaluate it with fresh networks, write a record",
    "prepare": "only build the teachers and expert buffers that runs share",
    "distill": "only distill a set and save it",
    "evaluate": "evaluate a saved set: dd-bench evaluate set=FOLDER or set=URL",
}
EXAMPLES = {
    "run": "dd-bench run method=dm dataset=digits model.width=32 ipc=1 protocol=dc-300",
    "prepare": "dd-bench prepare method=mtt dataset=digits",
    "distill": "dd-bench distill method=dm dataset=digits ipc=1",
    "evaluate": "dd-bench evaluate set=runs/sets/NAME protocol=dc-300",
}
"""One line to paste for each Hydra application."""
OTHER_COMMANDS = {
    "tune": ("dd_bench.cli.tune.tune_command", "search hyper-parameters on validation data"),
    "progress": (
        "dd_bench.cli.progress.progress_command",
        "print the progress of sweeps and their failed jobs",
    ),
    "list": (
        "dd_bench.cli.inspect.list_choices",
        "list methods, datasets, models, protocols, experiments, ...",
    ),
    "show": ("dd_bench.cli.inspect.show", "print a record or a synthetic set; --open shows its images"),
    "diff": ("dd_bench.cli.compare_sets.diff_command", "print what differs between two sets"),
    "quantise": (
        "dd_bench.cli.quantise.quantise_command",
        "make a set with fewer bits per value: dd-bench quantise SET bits=4",
    ),
    "verify": (
        "dd_bench.leaderboards.admission.verify.main",
        "check sets, records and entries, or retrain networks of an entry",
    ),
    "push": ("dd_bench.hub.hub.push_command", "upload a set: dd-bench push SET URL"),
    "pull": ("dd_bench.hub.hub.pull_command", "download a set and check it: dd-bench pull URL"),
    "import": ("dd_bench.hub.importers.command.import_command", "convert released files to a set"),
    "export": (
        "dd_bench.hub.export.export_command",
        "write a set as PNG files, Parquet or WebDataset, or for the Hugging Face Hub",
    ),
    "leaderboard": (
        "dd_bench.leaderboards.cli.main",
        "build tables from records, add a record, check entries",
    ),
    "completion": (
        "dd_bench.cli.completion.completion_command",
        "print the completion script of bash, zsh or fish",
    ),
}
LEADERBOARD_COMMANDS = ("build", "table", "plot", "add", "check", "compare")
"""Commands of `dd-bench leaderboard`, whose parser is slow to import."""
