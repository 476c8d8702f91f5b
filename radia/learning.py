"""What a person looks at while a model is trained: curves over the epochs, and what it says of a few images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from radia.evaluate.figures import BAD, COLOURS, GOOD, INK, MUTED, png, subplots
from radia.findings import FINDINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Entry = Mapping[str, Any]
"""Of a training's history (radia.fit): epoch, loss, validation_auroc, auroc by finding; `fold` in an ensemble."""

SHOWN = 8
"""Images whose probabilities are shown."""
NAMED = 4
"""Findings named beside each."""


def metrics(history: Sequence[Entry]) -> Iterator[tuple[str, float, int]]:
    """Every figure of a history as (name, value, epoch); those of a network of an ensemble begin with its number."""
    for entry in history:
        fold = entry.get("fold")
        prefix = "training/" if fold is None else f"training/network {fold + 1}/"
        values = {"loss": entry["loss"], "validation AUROC": entry["validation_auroc"]}
        values |= {f"validation AUROC/{finding}": value for finding, value in entry["auroc"].items()}
        yield from (
            (prefix + name, float(value), entry["epoch"]) for name, value in values.items() if value is not None
        )


def curves(history: Sequence[Entry]) -> bytes:
    """Loss and validation AUROC over the epochs as a PNG: each finding thin, their mean thick; a line a network."""
    figure, axes = subplots(1, 2, width=10, height=3.6)
    loss, auroc = axes.flat
    folds = list(dict.fromkeys(entry.get("fold") for entry in history))
    for fold in folds:
        entries = [entry for entry in history if entry.get("fold") == fold]
        epochs = [entry["epoch"] for entry in entries]
        known = [(entry["epoch"], entry["loss"]) for entry in entries if entry["loss"] is not None]
        if known:
            loss.plot(*zip(*known, strict=True), color=COLOURS["candidate"], marker="o", markersize=3)
        if len(folds) == 1:
            for finding in entries[0]["auroc"]:
                auroc.plot(
                    epochs, [_or_nan(e["auroc"][finding]) for e in entries], color=COLOURS["base"], linewidth=0.7
                )
        mean = [entry["validation_auroc"] for entry in entries]
        auroc.plot(epochs, mean, color=COLOURS["candidate"], linewidth=2.2, marker="o", markersize=4)
    loss.set_title("Loss a labelled cell, training images", loc="left")
    auroc.set_title("AUROC on validation images: mean (thick), findings (thin)", loc="left")
    for axis in (loss, auroc):
        axis.set_xlabel("epoch", color=MUTED)
        axis.grid(axis="y")
        axis.xaxis.get_major_locator().set_params(integer=True)
    return png(figure, 110)


def examples(
    images: NDArray[np.uint8], given: NDArray[np.float64], probabilities: NDArray[np.floating[Any]], *, epoch: int
) -> bytes:
    """Some images [n, rows, columns] with the findings that the model finds likeliest, as a PNG.

    given, probabilities: [n, 14]; a finding whose given label is present is green, absent red, unknown gray.
    """
    columns = 4
    figure, axes = subplots(-(-len(images) // columns), columns, width=11.5, height=4.2 * -(-len(images) // columns))
    for axis, image, labels, said in zip(axes.flat, images, given, probabilities, strict=False):
        axis.imshow(image, cmap="gray", vmin=0, vmax=255)
        _name(axis, labels, said)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.suptitle(
        f"Validation images after epoch {epoch}: what is found likeliest (green: labelled present, red: labelled "
        "absent, gray: no label)",
        fontsize=10,
        color=INK,
    )
    return png(figure, 90)


def chosen(given: NDArray[np.float64]) -> NDArray[np.intp]:
    """Rows of [n, 14] to show all along: of each finding in turn the first that has it, then the first ones."""
    rows = [int(np.flatnonzero(column == 1)[0]) for column in given.T if (column == 1).any()]
    return np.array(list(dict.fromkeys([*rows, *range(len(given))]))[:SHOWN], dtype=np.intp)


def _name(axis: Axes, labels: NDArray[np.float64], said: NDArray[np.floating[Any]]) -> None:
    for line, at in enumerate(np.argsort(-said, kind="stable")[:NAMED]):
        colour = MUTED if np.isnan(labels[at]) else GOOD if labels[at] == 1 else BAD
        words = f"{FINDINGS[at]} {said[at]:.2f}"
        axis.text(0.0, -0.06 - 0.085 * line, words, transform=axis.transAxes, color=colour, fontsize=9, va="top")


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
