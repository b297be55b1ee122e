"""The dataset card of a release folder, as the Hugging Face Hub and `datasets` read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dd_bench.hub.hub import SET, TRAIN
from dd_bench.hub.training_images import TrainingImages
from dd_bench.records.bibtex import bibtex, keyed
from dd_bench.records.record import Record
from dd_bench.runtime.terminal import sanitize
from dd_bench.synthetic.base import SyntheticSet
from dd_bench.synthetic.card import PREVIEW, Card
from dd_bench.synthetic.licences import OTHER, hub_licence, licence_name

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def release_card(
    syn: SyntheticSet,
    card: Card,
    digest: str,
    records: Sequence[Record],
    images: TrainingImages | None,
    *,
    lossless: bool,
) -> str:
    """Return the text of the dataset card: YAML front matter, use, scores, licence and BibTeX.

    Args:
        syn: the set.
        card: its card.
        digest: its digest.
        records: its evaluations, for the table of scores.
        images: what the Parquet file contains; None if there is none.
        lossless: whether the Parquet file has the column `input`.
    """
    title = f"{card.method} on {card.dataset}, {card.ipc} {syn.modality}{'s' * (card.ipc > 1)} per class"
    parts = [
        f"# {title}",
        f"A synthetic training set for {len(card.class_names)} classes, made by dd_bench {card.dd_bench}. It has "
        f"{len(syn.labels) if images is None else len(images.labels):,} training {syn.modality}s and "
        f"{sum(card.stored_bytes.values()):,} stored bytes.",
        f"![the {syn.modality}s, one row per class]({SET}/{PREVIEW})" if PREVIEW in card.sha256 else "",
        _use(syn, card, digest, images, lossless),
        _scores(records),
        f"## Licence\n\n{card.licence}",
        f"## Citation\n\n```bibtex\n{bibtex(_citations(card))}```",
    ]
    front = _front_matter(syn, card, title, images)
    return sanitize(f"---\n{front}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n")


def _front_matter(syn: SyntheticSet, card: Card, title: str, images: TrainingImages | None) -> str:
    from huggingface_hub import DatasetCardData

    licence = hub_licence(card.licence)
    count = len(syn.labels) if images is None else len(images.labels)
    config = {"config_name": "default", "data_files": [{"split": "train", "path": TRAIN}]}
    fields: dict[str, Any] = {"viewer": False} if images is None else {"configs": [config]}
    data = DatasetCardData(
        license=licence,
        license_name=licence_name(card.licence) if licence == OTHER else None,
        pretty_name=title,
        task_categories=[syn.task],
        size_categories=[next((name for limit, name in _SIZES if count < limit), "1M<n<10M")],
        tags=["dataset-distillation", "dd-bench", card.method, card.dataset, f"ipc-{card.ipc}"],
        **fields,
    )
    return str(data.to_yaml())


def _use(syn: SyntheticSet, card: Card, digest: str, images: TrainingImages | None, lossless: bool) -> str:
    """Return how to load the set, and how its inputs were preprocessed."""
    lines = ["## Use", ""]
    if images is not None:
        label = "soft_label" if images.labels.ndim == 2 else "label"
        lines += [
            "```python",
            "from datasets import load_dataset",
            "",
            'train = load_dataset("USER/NAME", split="train").with_format("torch")',
            f'x, y = train["{"input" if lossless else "image"}"][:], train["{label}"][:]',
            "```",
            "",
            "| column | content |",
            "|---|---|",
            "| `image` | pixels, rounded and clipped to 8 bits, for viewing |",
            f"| `label` | the class{'' if images.labels.ndim == 1 else ', the argmax of `soft_label`'} |",
            *(["| `soft_label` | probabilities of the classes, float32 |"] * (images.labels.ndim == 2)),
            *(["| `input` | what networks are trained on, float32 (c, h, w), lossless |"] * lossless),
            "",
            f"Of the pixels of `image`, {100 * images.clipped:.2f} % were outside the range of pixels.",
            _preprocessing(card),
            "Preprocess test images in the same way.",
            "",
        ]
    if syn.lr is not None:
        lines += [f"A learning rate was distilled with the set: {syn.lr:g}.", ""]
    return "\n".join(
        [
            *lines,
            "With dd_bench, which checks every hash:",
            "",
            "```python",
            "import dd_bench",
            "",
            f'syn = dd_bench.load("hf://datasets/USER/NAME/{SET}", digest="{digest[:16]}")',
            "```",
        ]
    )


def _preprocessing(card: Card) -> str:
    config = card.preprocess
    if config["kind"] == "normalise":
        return (
            "Network inputs are `(pixels / 255 - mean) / std` for each channel, with "
            f"mean {config['mean']} and std {config['std']}."
        )
    if config["kind"] == "zca":
        return (
            "Network inputs are ZCA-whitened: `(pixels / 255 - mean) @ transform` for flattened images, with the "
            f"arrays in `{SET}/preprocess.safetensors`."
        )
    return "Network inputs are not preprocessed."


def _scores(records: Sequence[Record]) -> str:
    """Return the table of scores, or '' if there are none."""
    if not records:
        return ""
    rows = []
    for r in records:
        s = r.summary()
        factor, unit = (100, " %") if r.is_share else (1, "")
        std = "" if s.std is None else f" ± {factor * s.std:.2f}"
        low, high = s.ci_low, s.ci_high
        interval = "" if low is None or high is None else f"{factor * low:.2f} to {factor * high:.2f}"
        cells = (
            f"{r.protocol.name} v{r.protocol.version}",
            r.model,
            r.evaluator,
            r.label_mode,
            r.main_metric,
            f"{factor * s.mean:.2f}{std}{unit}",
            interval,
            str(s.num_networks),
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(
        [
            "## Scores",
            "",
            "Fresh networks were trained on the set and scored on the test data. ± is the standard deviation over "
            "networks. The 95 % confidence interval is that of the mean.",
            "",
            "| protocol | network | evaluator | labels | metric | mean ± std | 95 % CI | networks |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _citations(card: Card) -> dict[str, str]:
    """Return the citations by BibTeX key. The last one is that of the dataset, see `storage.save`."""
    *methods, data = card.citations or [""]
    return keyed([(card.method, methods), (card.dataset, [data] if data else [])])
