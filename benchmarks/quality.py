"""Each defect that the rules of data quality name, seeded into real radiographs: how often its rule finds it, and how
often the rule speaks of the same images as they came.

usage: python benchmarks/quality.py [FOLDER] [--side 384]      FOLDER: a tree of DICOM chest radiographs

Images with text burned in (planted in the development feed; truth.json beside the folder says where) are left out of
the clean ones where that is known. Words that were on the film from the start (PORTABLE) are not, and `text` rightly
speaks of them; likewise `cropped` of films at whose edge there is lung. A recall below 0.95 or more than 1% false
alarms is marked.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from radia.dicom.pixels import read_gray
from radia.errors import Refusal
from radia.frontal import objection
from radia.image_quality import measure, near_duplicates
from radia.images import _measured, letterbox, perceptual_hash
from radia.quality import load_rules
from radia.settings import QualitySettings
from radia.synthetic import defects

Image = NDArray[np.uint8]
Seed = Callable[[Image, np.random.Generator], Image]
GALLERY = 80
SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "hospital-sample" / "inbox"


def exposure(image: Image, rng: np.random.Generator) -> Image:
    """Almost black, or almost white."""
    left = image * rng.uniform(0.01, 0.07)
    return np.asarray(left if rng.random() < 0.5 else 255 - left, np.uint8)


def contrast(image: Image, rng: np.random.Generator) -> Image:
    """All grays within 2% of the range."""
    return np.asarray(rng.uniform(60, 180) + (image / 255 - 0.5) * rng.uniform(1, 5), np.uint8)


def saturation(image: Image, rng: np.random.Generator) -> Image:
    """A window so narrow that two thirds of the pixels and more are black or white."""
    keep = rng.uniform(0.05, 0.3)
    low, high = np.quantile(image, [0.5 - keep / 2, 0.5 + keep / 2])
    return np.asarray(np.clip((image - low) / max(high - low, 1) * 255, 0, 255), np.uint8)


def not_a_chest(image: Image, rng: np.random.Generator) -> Image:
    """A detail of the image at five times its size, a page of print, a step wedge, a hand, or noise."""
    side = len(image)
    kind = rng.integers(5)
    y, x = (np.mgrid[:side, :side] + 0.5) / side
    if kind == 0:
        top, left = rng.integers(0, side * 4 // 5, 2)
        detail = np.kron(image[top : top + side // 5, left : left + side // 5], np.ones((6, 6), np.uint8))
        return detail[:side, :side]
    if kind == 1:
        page = np.full((side, side), 255, np.uint8)
        for row in range(8, side - 12, 14):
            page = defects.text(page, rng).copy() if row < 40 else page
            page[row : row + 6, 10 : int(side * rng.uniform(0.5, 0.95))] = rng.integers(0, 2, 1)[0] * 90
        return page
    if kind == 2:
        return np.asarray(np.floor(x * rng.integers(6, 14)) / 14 * 255, np.uint8)
    if kind == 3:
        gray = np.where(((x - 0.5) / 0.25) ** 2 + ((y - 0.75) / 0.2) ** 2 < 1, 0.8, 0.02)
        for middle, top in ((0.26, 0.45), (0.38, 0.15), (0.5, 0.08), (0.62, 0.14), (0.76, 0.3)):
            at = middle + rng.normal(0, 0.01)
            gray[(np.abs(x - at) < 0.04) & (y > top) & (y < 0.75)] = 0.9
        return np.asarray(np.clip(gray + rng.normal(0, 0.02, gray.shape), 0, 1) * 255, np.uint8)
    return rng.integers(0, 256, (side, side), dtype=np.uint8)


def limits() -> dict[str, tuple[float, float]]:
    """The least and the most that the rules of manifest and pictures allow of each measure."""
    found: dict[str, tuple[float, float]] = {}
    for rule in load_rules(QualitySettings()):
        args = rule.args
        if rule.expect == "column_values_to_be_between" and "mostly" not in args and rule.severity == "warning":
            low, high = args.get("min_value", -np.inf), args.get("max_value", np.inf)
            found[args["column"]] = (float(low), float(high))
    return found


def alarms(images: Image, bounds: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """One row an image, a column a rule: whether it speaks."""
    table = measure(images)
    said = table[["blank", "inverted", "turned", "cropped", "lateral", "text"]] > 0
    said["noise"] = _outside(table["noise"], bounds["noise"])
    facts = pd.DataFrame([vars(_measured("", image, image)) for image in images])
    for name in ("exposure", "contrast", "saturation"):
        said[name] = _outside(facts[name].astype(float), bounds[name])
    said["not a chest"] = [bool(objection(modality=None, body_part=None, view=None, pixels=one)) for one in images]
    return said


def _outside(values: pd.Series, bounds: tuple[float, float]) -> pd.Series:
    return ~values.between(*bounds)


def clean_images(folder: Path, side: int) -> Image:
    """The radiographs of a folder as the shards have them, without those in which text was planted."""
    truth = folder.parent / "truth.json"
    planted = json.loads(truth.read_text()) if truth.is_file() else {}
    written = {name for name, entry in planted.items() if entry["boxes"]}
    shown = []
    for path in sorted(folder.rglob("*.dcm")):
        if str(path.relative_to(folder.parent)) in written:
            continue
        try:
            shown.append(letterbox(read_gray(path), side))
        except Refusal:
            continue
    return np.array(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=SAMPLE)
    parser.add_argument("--side", type=int, default=384)
    chosen = parser.parse_args()
    images, bounds = clean_images(chosen.folder, chosen.side), limits()
    if not len(images):
        parser.error(f"no radiograph can be read under {chosen.folder}")
    falsely = alarms(images, bounds).mean()
    sides = ("top", "bottom", "left", "right")
    seeds: dict[str, tuple[str, Seed]] = {name: (name, seed) for name, seed in defects.SEEDED.items()}
    del seeds["cropped"]
    seeds["cropped"] = ("cropped", defects.cropped)
    for edge in sides:
        seeds[f"cropped, {edge}"] = ("cropped", lambda image, rng, edge=edge: defects.cropped(image, rng, edge))
    seeds |= {name: (name, seed) for name, seed in (("exposure", exposure), ("contrast", contrast))}
    seeds |= {"saturation": ("saturation", saturation), "noise": ("noise", defects.noisy)}
    seeds["not a chest"] = ("not a chest", not_a_chest)
    print(f"{len(images)} clean images at {chosen.side}²")
    for name, (rule, seed) in seeds.items():
        rng = np.random.default_rng(1)
        seeded = np.array([seed(image, rng) for image in images])
        _report(name, float(alarms(seeded, bounds)[rule].mean()), float(falsely[rule]))
    _duplicates(images)


def _report(name: str, recall: float, falsely: float) -> None:
    short = " <-- under the bar" if recall < 0.95 or falsely > 0.01 else ""
    print(f"{name:18s} recall {recall:.3f}  false alarms {falsely:.3f}{short}")


def _duplicates(images: Image) -> None:
    """The same picture again, as it is and as another system would send it."""
    rng = np.random.default_rng(2)
    few = images[:GALLERY]
    again = np.array([defects.near_duplicate(image, rng) for image in few])
    for name, second in (("duplicate", few), ("near-duplicate", again)):
        both = np.concatenate([images, second])
        pairs = near_duplicates(both.__getitem__, [perceptual_hash(image) for image in both])
        found = {(pair.first, pair.second) for pair in pairs}
        true = {(place, len(images) + place) for place in range(len(few))}
        falsely = {place for pair in found - true for place in pair if max(pair) < len(images)}
        _report(name, len(found & true) / len(true), len(falsely) / len(images))


if __name__ == "__main__":
    main()
