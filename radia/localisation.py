"""Does a heat map point at the finding? Regions that people drew, and how well maps agree with them.

A region is boxes or a mask of one finding on one image. Two measures: whether the map's highest point lies inside (the
pointing game, Zhang et al., IJCV 2018), and the intersection over union of the region and the map above Otsu's
threshold, as in CheXlocalize (Saporta et al., Nature Machine Intelligence 2022). How maps are made is explain.py's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia.errors import LabelError
from radia.findings import FINDINGS
from radia.metrics import Bools, Interval, clustered_covariance, effective_size, group_codes, t_quantile, wilson

if TYPE_CHECKING:
    from radia.model import ChestModel

SIDE = 256
"""Cells along each side of the square on which maps and regions are compared."""

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 as fractions of the image's width and height."""


@dataclass(frozen=True)
class Region:
    """Where a finding is on an image: `boxes`, or `mask` [SIDE, SIDE] on the square that the image is letterboxed to.

    shape: rows and columns of the image that the boxes speak of; None where only the archive knows them.
    """

    image: str
    finding: str
    boxes: tuple[Box, ...] = ()
    mask: Bools | None = None
    shape: tuple[int, int] | None = None

    def on_square(self, shape: tuple[int, int] | None = None) -> Bools:
        """The region as booleans [SIDE, SIDE]. shape: rows and columns of the image where the region does not know."""
        if self.mask is not None:
            return self.mask
        rows, columns = self.shape or shape or (1, 1)
        size = max(rows, columns)
        left, top = (size - columns) / 2 / size, (size - rows) / 2 / size
        centers = (np.arange(SIDE) + 0.5) / SIDE
        inside = np.zeros((SIDE, SIDE), bool)
        for x0, y0, x1, y1 in self.boxes:
            across = (centers >= left + x0 * columns / size) & (centers < left + x1 * columns / size)
            down = (centers >= top + y0 * rows / size) & (centers < top + y1 * rows / size)
            inside |= down[:, None] & across
        return inside


# --- files ----------------------------------------------------------------------------------------------------------


def read_regions(path: Path) -> list[Region]:
    """The regions of a file, one an image and finding, whatever of these it is. Raises LabelError.

    NIH's BBox_List_2017.csv; CheXlocalize's gt_segmentations_*.json (COCO's run lengths); truth.json of the embedded
    hospital (by accession number); a CSV of ids, `finding`, `x0`, `y0`, `x1`, `y1` in 0..1 of the image.
    """
    try:
        if path.suffix == ".json":
            content = json.loads(path.read_text(encoding="utf-8"))
            regions = list(_embedded(content["studies"]) if "studies" in content else _chexlocalize(content))
        else:
            table = pd.read_csv(path, dtype={0: str})
            regions = list(_nih(table) if "Finding Label" in table.columns else _boxes(table))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise LabelError(f"{path.name} cannot be read as boxes or masks of findings: {type(error).__name__}") from error
    if not regions:
        raise LabelError(f"{path.name} has no region of a finding that models here know")
    return regions


def _boxes(table: pd.DataFrame) -> Iterable[Region]:
    for (image, finding), rows in table.groupby([table.columns[0], "finding"]):
        boxes = rows[["x0", "y0", "x1", "y1"]].to_numpy(np.float64)
        if not (np.isfinite(boxes).all() and (boxes >= 0).all() and (boxes <= 1).all()):
            raise ValueError("a box leaves its image")
        if finding in FINDINGS:
            yield Region(str(image), str(finding), tuple(_box(box) for box in boxes))


def _embedded(studies: Mapping[str, Any]) -> Iterable[Region]:
    for accession, study in studies.items():
        for finding in dict.fromkeys(entry["finding"] for entry in study["boxes"]):
            boxes = tuple(_box(entry["box"]) for entry in study["boxes"] if entry["finding"] == finding)
            yield Region(accession, finding, boxes)


NIH_FINDINGS = {
    "Atelectasis": "Atelectasis",
    "Cardiomegaly": "Cardiomegaly",
    "Effusion": "Pleural Effusion",
    "Infiltrate": "Lung Opacity",
    "Mass": "Lung Lesion",
    "Nodule": "Lung Lesion",
    "Pneumonia": "Pneumonia",
    "Pneumothorax": "Pneumothorax",
}
NIH_SIDE = 1024


def _nih(table: pd.DataFrame) -> Iterable[Region]:
    """Pixels x, y, width, height on 1024 x 1024; the header breaks `Bbox [x,y,w,h]` into four columns."""
    known = table.assign(finding=table["Finding Label"].map(NIH_FINDINGS)).dropna(subset=["finding"])
    for (image, finding), rows in known.groupby(["Image Index", "finding"]):
        x, y, width, height = rows.iloc[:, 2:6].to_numpy(np.float64).T / NIH_SIDE
        boxes = tuple(_box(box) for box in np.clip(np.column_stack([x, y, x + width, y + height]), 0, 1))
        yield Region(str(image), str(finding), boxes, shape=(NIH_SIDE, NIH_SIDE))


def _chexlocalize(content: Mapping[str, Any]) -> Iterable[Region]:
    for image, findings in content.items():
        for name, mask in findings.items():
            finding = "Lung Opacity" if name == "Airspace Opacity" else name
            rows, columns = (int(length) for length in mask["size"])
            if finding in FINDINGS and (drawn := decode_runs(mask["counts"], rows, columns)).any():
                yield Region(str(image), finding, mask=_squared(drawn))


def decode_runs(counts: str | Sequence[int], rows: int, columns: int) -> Bools:
    """COCO's run lengths as a mask [rows, columns]: lengths of 0 and 1 in turn, down the columns.

    As text, five bits a character from ASCII 48 on, the sixth says that more follow; from the third on, lengths are
    differences to the one before the last (maskApi.c of pycocotools). Raises ValueError where they do not add up.
    """
    lengths = _run_lengths(counts) if isinstance(counts, str) else list(counts)
    if min(lengths, default=0) < 0 or sum(lengths) != rows * columns:
        raise ValueError("run lengths do not add up to the size of the mask")
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return np.asarray(flat.reshape(columns, rows).T)


def _run_lengths(text: str) -> list[int]:
    lengths: list[int] = []
    value = bits = 0
    for character in text:
        code = ord(character) - 48
        value |= (code & 31) << bits
        bits += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << bits
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = bits = 0
    return lengths


def _squared(mask: Bools) -> Bools:
    """A mask of an image on the square that the image is letterboxed to, [SIDE, SIDE]."""
    rows, columns = mask.shape
    size = max(rows, columns)
    at = (np.arange(SIDE) + 0.5) / SIDE * size
    down, across = np.floor(at - (size - rows) / 2).astype(int), np.floor(at - (size - columns) / 2).astype(int)
    inside = ((down >= 0) & (down < rows))[:, None] & ((across >= 0) & (across < columns))
    return np.asarray(mask[down.clip(0, rows - 1)][:, across.clip(0, columns - 1)] & inside)


def _box(edges: Iterable[float]) -> Box:
    x0, y0, x1, y1 = (float(edge) for edge in edges)
    return x0, y0, x1, y1


# --- maps against regions -------------------------------------------------------------------------------------------


def pointed(
    model: ChestModel,
    read: Callable[[Sequence[str]], NDArray[np.uint8]],
    regions: Sequence[Region],
    *,
    patients: Mapping[str, str],
    shapes: Mapping[str, tuple[int, int]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """One row a region of a finding that the model knows: image, patient, finding, hit (0 or 1), iou, area (in 0..1).

    read: ids -> uint8 [n, side, side], letterboxed; patients and shapes (rows, columns) by image id.
    """
    from radia.explain import grad_cam, upsampled

    known = [region for region in regions if region.finding in model.findings]
    by_image = {image: [r for r in known if r.image == image] for image in dict.fromkeys(r.image for r in known)}
    rows, ids = [], list(by_image)
    for start in range(0, len(ids), 32):
        chunk = ids[start : start + 32]
        maps = grad_cam(model, read(chunk)).maps
        for image, of_image in zip(chunk, maps, strict=True):
            for region in by_image[image]:
                heat = upsampled(of_image[model.findings.index(region.finding)][None], SIDE)[0]
                inside = region.on_square((shapes or {}).get(image))
                hit, iou = agreement(heat, inside)
                row = {"image": image, "patient": patients[image], "finding": region.finding}
                rows.append({**row, "hit": hit, "iou": iou, "area": float(inside.mean())})
        if progress:
            progress(start + len(chunk), len(ids))
    return pd.DataFrame(rows, columns=["image", "patient", "finding", "hit", "iou", "area"])


def agreement(heat: NDArray[np.float32], inside: Bools) -> tuple[float, float]:
    """Whether the highest point of a map [h, w] lies in the region (1 or 0), and their intersection over union.

    A map of nothing points nowhere.
    """
    if heat.max() <= 0:
        return 0.0, 0.0
    hit = inside.flat[int(heat.argmax())]
    hot = heat > otsu(heat)
    union = float((hot | inside).sum())
    return float(hit), float((hot & inside).sum()) / union if union else 0.0


def otsu(values: NDArray[np.floating[Any]]) -> float:
    """The threshold that best parts values into two classes (Otsu 1979), over 256 levels."""
    counts, edges = np.histogram(values, bins=256)
    below = np.cumsum(counts)
    centers = (edges[:-1] + edges[1:]) / 2
    sums = np.cumsum(counts * centers)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[1:][int(np.nanargmax(np.where(above > 0, between, np.nan)))])


def summary(rows: pd.DataFrame) -> dict[str, Any]:
    """Hit rate and mean IoU with 95% limits: {"images", "findings": {F: {n, hit_rate, iou, chance}}, "mean": {...}}.

    rows: of `pointed`. chance: the mean area of the regions, which is the hit rate of a point thrown at random.
    Patients are the unit; the mean is over findings.
    """
    order = [finding for finding in FINDINGS if (rows["finding"] == finding).any()]
    parts = {finding: rows[rows["finding"] == finding] for finding in order}
    findings = {
        finding: {
            "n": len(part),
            "hit_rate": _hit_rate(part).as_json(),
            "iou": _mean([part], "iou", part).as_json(),
            "chance": float(part["area"].mean()),
        }
        for finding, part in parts.items()
    }
    means = {
        "hit_rate": _mean(list(parts.values()), "hit", rows).as_json(),
        "iou": _mean(list(parts.values()), "iou", rows).as_json(),
        "chance": float(np.mean([entry["chance"] for entry in findings.values()])) if findings else None,
        "over": len(findings),
    }
    return {"images": int(rows["image"].nunique()), "findings": findings, "mean": means}


def _hit_rate(part: pd.DataFrame) -> Interval:
    codes, count = group_codes(part["patient"].to_numpy(), len(part))
    hits = part["hit"].to_numpy() > 0
    size = effective_size(hits, np.ones(len(part), bool), codes, count)
    return Interval(float(hits.mean()), *wilson(float(hits.mean()), size))


def _mean(parts: Sequence[pd.DataFrame], column: str, rows: pd.DataFrame) -> Interval:
    """The mean over parts of their means, with limits from each patient's influence on it."""
    if not parts:
        return Interval(float("nan"), why="no region")
    codes, count = group_codes(rows["patient"].to_numpy(), len(rows))
    moved = pd.Series(0.0, index=rows.index)
    for part in parts:
        moved.loc[part.index] = (part[column] - part[column].mean()) / len(part) / len(parts)
    value = float(np.mean([part[column].mean() for part in parts]))
    influence = np.asarray(moved, np.float64)[None]
    spread = float(np.sqrt(clustered_covariance(influence, codes, count)[0, 0]))
    half = t_quantile(count - 1) * spread
    if count < 2:
        return Interval(value, why="one patient only")
    return Interval(value, max(value - half, 0.0), min(value + half, 1.0))
