"""Burned-in text measured: lines covered, markers kept, clean pixels changed, CPU; beside plain RapidOCR.

usage: python benchmarks/burned_in.py [IMAGES [SEED]]     (IMAGES of each side and background; 4 where none is given)

Lines of invented names, numbers and dates, alone and in blocks, are burned into phantoms of RADIA's own generator, into
scenes that are no chest (burned_in_scenes) and, where a folder `shared` lies beside the checkout, into real
radiographs: in every font of matplotlib, of the system and of Great Expectations, in Hershey's vector fonts and in
bitmap fonts, lying, standing and upside down, lighter and darker, on plates and over anatomy; the fonts and seeds of
which nothing was learned are counted apart. The height of a line is the size of its font (capitals have about 0.7 of
it); its contrast is in 255ths of the range of the image (0: a few shades, which no window for the anatomy shows). A
line is covered where 95% of its ink is inside boxes; ink counts where it differs from what was there by seven tenths of
that contrast, and a line of which less than 0.6 does is none. "In noise" are lines whose contrast is less than twice
the standard deviation of the noise of a pixel: a reader hardly sees these. Real radiographs have text and markers of
their own: what changes in them "without text" is mostly that. One thread; CPU time. RapidOCR goes along on one image of
each kind.
"""

from __future__ import annotations

import logging
import random
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from burned_in_scenes import MARKERS, Gray, Ink, burn, phantoms, radiographs, scenes

from radia.dicom.burned_in import Box, find_text

SIDES = (1024, 1500, 2000, 2500)
SOURCES = {"phantom": phantoms, "scene": scenes, "real": radiographs}

# --- who looks for it -------------------------------------------------------------------------------------------------


def _rapidocr() -> Callable[[Gray], list[Box]]:
    """RapidOCR as it comes, over the image as it is shown."""
    from rapidocr import RapidOCR

    engine = RapidOCR(params={"EngineConfig.onnxruntime.intra_op_num_threads": 1, "Global.log_level": "critical"})

    def find(stored: Gray) -> list[Box]:
        low, high = (float(edge) for edge in np.percentile(stored[::4, ::4], (0.5, 99.5)))
        shown = np.clip((stored.astype(np.float32) - low) / max(high - low, 1) * 255, 0, 255).astype(np.uint8)
        answer = engine(cv2.cvtColor(shown, cv2.COLOR_GRAY2BGR))
        if answer.boxes is None:
            return []
        return [Box(*(int(edge) for edge in (*np.floor(c.min(axis=0)), *np.ceil(c.max(axis=0))))) for c in answer.boxes]

    return find


@dataclass
class Tally:
    """What one finder did."""

    lines: dict[tuple[str, object], list[bool]] = field(default_factory=lambda: defaultdict(list))
    missed: list[str] = field(default_factory=list)
    legible: list[bool] = field(default_factory=list)
    markers: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    changed: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, inks: list[Ink], boxes: list[Box], traits: dict[str, object]) -> None:
        """One image with these lines and markers, in which those boxes were found."""
        least = 1.0
        for ink in inks:
            share = ink.covered(boxes)
            if "marker" in ink.traits:
                self.markers[str(traits["background"])].append(share < 0.05)
                if share >= 0.05:
                    self.missed.append(f"marker {share:.2f} {ink.traits | traits} {ink.at}")
                continue
            least = min(least, share)
            for trait in ({"all": "lines"} | ink.traits | traits).items():
                self.lines[trait].append(share >= 0.95)
            if share < 0.95:
                self.missed.append(f"{share:.2f} {ink.traits | traits} {ink.at}")
        self.legible.append(least < 0.7)


def measure(images: int, seed: int, sides: tuple[int, ...] = SIDES) -> dict[str, Tally]:
    """The finders on the same images; the rival on the first of each kind alone."""
    finders: dict[str, Callable[[Gray], list[Box]]] = {"radia": find_text, "RapidOCR": _rapidocr()}
    tallies = {name: Tally() for name in finders}
    for finder in finders.values():
        finder(np.zeros((256, 256), np.uint8))
    for side in sides:
        for background, source in SOURCES.items():
            for number, stored in zip(range(images), source(side, seed), strict=False):
                chance = random.Random(f"{seed} {side} {background} {number}")
                written, taken = stored.copy(), list[Box]()
                inks: list[Ink] = []
                for _ in range(chance.choice((1, 3, 6))):
                    inks += burn(written, chance, taken)
                for _ in range(2):
                    inks += burn(written, chance, taken, marker=chance.choice(MARKERS))
                traits = {"where": f"{background} {side}", "background": background, "side": side}
                for name, finder in finders.items():
                    if name == "radia" or number == 0:
                        _look(finder, tallies[name], stored, written, inks, traits)
    return tallies


def _look(
    finder: Callable[[Gray], list[Box]], tally: Tally, stored: Gray, written: Gray, inks: list[Ink],
    traits: dict[str, object],
) -> None:  # fmt: skip
    start = time.process_time()
    boxes = finder(stored)
    middle = time.process_time()
    found = finder(written)
    end = time.process_time()
    tally.changed[str(traits["where"])].append(_area(boxes, stored.shape))
    tally.seconds[f"{traits['where']}, clean"].append(middle - start)
    tally.seconds[f"{traits['where']}, with text"].append(end - middle)
    tally.add(inks, found, traits | {"bits": stored.dtype.itemsize * 8})


def _area(boxes: list[Box], shape: tuple[int, ...]) -> float:
    mask = np.zeros(shape, bool)
    for box in boxes:
        mask[box.y0 : box.y1, box.x0 : box.x1] = True
    return float(mask.mean())


def report(tallies: dict[str, Tally]) -> None:
    """The table."""
    names = list(tallies)
    print(f"{'':34}" + "".join(f"{name:>22}" for name in names))

    def row(title: str, cells: list[str]) -> None:
        print(f"{title:34}" + "".join(f"{cell:>22}" for cell in cells))

    ours = tallies[names[0]]
    for trait, value in sorted(ours.lines, key=lambda key: (key[0] != "all", key[0], str(key[1]).zfill(5))):
        row(f"covered  {trait} {value}", [_share(tally.lines[trait, value]) for tally in tallies.values()])
    row("images with a line left", [f"{sum(t.legible)}/{len(t.legible)}" for t in tallies.values()])
    for kind in ours.markers:
        row(f"markers kept  {kind}", [_share(tally.markers[kind]) for tally in tallies.values()])
    for kind in ours.changed:
        cells = [t.changed[kind] for t in tallies.values()]
        row(f"changed in none  {kind}", [f"{np.mean(c):.3%} max {max(c):.3%}" for c in cells])
    for kind in ours.seconds:
        cells = [t.seconds[kind] for t in tallies.values()]
        row(f"CPU-s  {kind}", [f"{np.mean(c):.2f} max {max(c):.2f}" for c in cells])
    for missed in ours.missed:
        print("missed", missed)


def _share(hits: list[bool]) -> str:
    return f"{sum(hits)}/{len(hits)} {sum(hits) / max(len(hits), 1):7.2%}"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()
    cv2.setNumThreads(1)
    numbers = [int(text) for text in sys.argv[1:]]
    report(measure(*(numbers or [4]), *([0] if len(numbers) < 2 else [])))
