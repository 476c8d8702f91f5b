"""Burned-in text measured: lines covered, markers kept, clean pixels changed, CPU; beside plain RapidOCR.

usage: python benchmarks/burned_in.py [IMAGES [SEED]]     (IMAGES of each side and background; 4 where none is given)

Lines of invented names, numbers and dates are burned into phantoms of RADIA's own generator and, where a folder
`shared` lies beside the checkout, into real radiographs: in every font of matplotlib and of the system, in Hershey's
vector fonts and in bitmap fonts, lying, standing and upside down, lighter and darker, on plates and over anatomy. The
height of a line is the size of its font (capitals have about 0.7 of it); its contrast is in 255ths of the range of the
image. A line is covered where 95% of its ink is inside boxes. One thread; CPU time.
"""

from __future__ import annotations

import logging
import random
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from radia.dicom.burned_in import Box, find_text
from radia.dicom.pixels import stored_pixels
from radia.errors import Refusal
from radia.synthetic.phantom import sample_radiograph
from radia.synthetic.population import populations

ROOT = Path(__file__).resolve().parents[1]
SIDES = (1024, 2000, 2500)
HEIGHTS = (14, 16, 20, 26, 34, 48, 64)
CONTRASTS = (25, 40, 80, 160)
MARKERS = ("L", "R", "G", "D", "AP", "PA", "DEBOUT", "PORTABLE", "COUCHÉ", "SUPINE", "ERECT", "GAUCHE", "DROIT", "LEFT")
_LAST = (
    "TREMBLAY", "Gagnon", "Côté", "BOUCHARD", "Lévesque", "O'Connor", "NGUYEN", "Smith-Jones", "Désilets", "McKenzie",
    "ROY", "Ait-Ahmed", "Beauchamp", "FORTIER", "Haddad", "SINGH", "Zhang", "Pelletier",
)  # fmt: skip
_FIRST = ("Luc", "Marie", "ANDRÉ", "Zoé", "J.", "Benoît", "JOHN", "Émilie", "Fatima", "GEORGES", "Ann", "Wei", "Élodie")
_SYSTEM_FONTS = Path("/usr/share/fonts")
_HERSHEY = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_PLAIN,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
)

Gray = NDArray[Any]


@dataclass(frozen=True)
class Ink:
    """One thing written into an image: where its ink is, and how it was made."""

    ink: NDArray[np.bool_]
    at: tuple[int, int]
    traits: dict[str, object]

    def covered(self, boxes: list[Box]) -> float:
        """The share of the ink inside boxes."""
        x, y = self.at
        left = self.ink.copy()
        for box in boxes:
            left[max(box.y0 - y, 0) : max(box.y1 - y, 0), max(box.x0 - x, 0) : max(box.x1 - x, 0)] = False
        return 1 - float(left.sum()) / float(self.ink.sum())


# --- what is written --------------------------------------------------------------------------------------------------


def sentence(chance: random.Random) -> str:
    """An invented line as modalities burn in: a name, a number, a date, a hospital, a physician."""
    last, first = chance.choice(_LAST), chance.choice(_FIRST)
    year, month, day = chance.randint(1925, 2025), chance.randint(1, 12), chance.randint(1, 28)
    number = chance.randint(10**5, 10**8)
    return chance.choice(
        [
            f"{last} {first}", f"{last}^{first}", f"{last}, {first}", f"{last.upper()}", f"Patient: {first} {last}",
            f"ID {number}", f"{number}", f"MRN:{number}", f"Dossier {number}", f"DDN {year}-{month:02}-{day:02}",
            f"{day:02}/{month:02}/{year}", f"{year}.{month:02}.{day:02}", f"{day} mars {year}",
            f"Né le {day}/{month}/{year}",
            f"{last[:3].upper()}{first[0].upper()} {year % 100:02}{month:02} {day:02}18",
            f"514-{number % 900 + 100}-{number % 9000 + 1000}",
            f"Hôpital {last}", f"CHU {last}", f"Dr {last}", f"Dre {first} {last}", f"{number % 9000 + 100} rue {last}",
            f"{last} {first} {year}{month:02}{day:02} {'MF'[number % 2]}",
        ]
    )  # fmt: skip


@cache
def fonts() -> tuple[str, ...]:
    """Files of fonts with letters and figures: matplotlib's and the system's."""
    import matplotlib

    folders = [Path(matplotlib.get_data_path()) / "fonts" / "ttf", _SYSTEM_FONTS]
    found = sorted({path.name: path for folder in folders for path in folder.rglob("*.ttf")}.items())
    return tuple(str(path) for name, path in found if not name.startswith("cm") and _is_whole(path))


def _is_whole(path: Path) -> bool:
    """Whether a font draws letters, figures and accents, each in its own way (and not a box for all it lacks)."""
    font = ImageFont.truetype(str(path), 24)
    return len({bytes(font.getmask(letter)) for letter in "ABENaeno0123É-"}) == 14


def drawn(text: str, height: int, chance: random.Random) -> tuple[NDArray[np.float64], str]:
    """The share of ink [rows, cols] in 0..1 of a line in a font of that height, and the kind of font."""
    kind = chance.choices(["smooth", "bitmap", "pixel doubled", "hershey"], [6, 2, 1, 2])[0]
    if kind == "hershey":
        return _hershey(text, height, chance), kind
    size = height // 2 if kind == "pixel doubled" else height
    if kind == "pixel doubled" and size < 9:
        kind, size = "bitmap", height
    font = ImageFont.truetype(chance.choice(fonts()), size)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    tile = Image.new("L", (right - left + 4, bottom - top + 4))
    brush = ImageDraw.Draw(tile)
    if kind != "smooth":
        brush.fontmode = "1"
    brush.text((2 - left, 2 - top), text, fill=255, font=font)
    share = np.asarray(tile, float) / 255
    return (np.kron(share, np.ones((2, 2))) if kind == "pixel doubled" else share), kind


def _hershey(text: str, height: int, chance: random.Random) -> NDArray[np.float64]:
    from radia.dicom.text import plain

    text = "".join(c for c in plain(text) if ord(c) < 128)
    face, thick = chance.choice(_HERSHEY), max(1, round(height / 14 * chance.uniform(0.6, 1.2)))
    unit = cv2.getTextSize("H", face, 1.0, 1)[0][1]
    scale = 0.7 * height / unit
    (wide, high), below = cv2.getTextSize(text, face, scale, thick)
    tile = np.zeros((high + below + 2 * thick + 4, wide + 2 * thick + 4), np.uint8)
    cv2.putText(tile, text, (thick + 1, high + thick + 1), face, scale, 255, thick, cv2.LINE_AA)
    return tile.astype(float) / 255


def burn(stored: Gray, chance: random.Random, taken: list[Box], *, marker: str = "") -> Ink | None:
    """Writes one line, or a marker, into the image, in place, where nothing was written; None where no room was."""
    rows, cols = stored.shape
    height = chance.choice((24, 32, 44, 60)) if marker else chance.choice(HEIGHTS)
    contrast = 160 if marker else chance.choice(CONTRASTS)
    turn = 0 if marker else chance.choices([0, 1, 2, 3], [5, 2, 1, 2])[0]
    share, font = drawn(marker or sentence(chance), height, chance)
    share = np.rot90(share, turn)
    place = _place(share.shape, (rows, cols), chance, taken, corner=marker != "" or chance.random() < 0.35)
    if place is None:
        return None
    taken.append(place)
    part = stored[place.y0 : place.y1, place.x0 : place.x1]
    mode = "plain" if marker else chance.choices(["plain", "added", "plate", "extreme"], [5, 3, 2, 1])[0]
    shades, darker = _ink(stored, part, mode, contrast, chance, white=bool(marker))
    if mode == "plate":
        part[:] = shades[0]
    mixed = part.astype(float) * (1 - share) + shades[-1] * share
    info = np.iinfo(stored.dtype)
    part[:] = np.clip(np.round(mixed), info.min, info.max).astype(stored.dtype)
    traits = {"height": height, "contrast": 255 if mode == "extreme" else contrast, "turned": 90 * turn, "font": font,
              "ink": mode, "shade": "darker" if darker else "lighter"}  # fmt: skip
    return Ink(share > 0.5, (place.x0, place.y0), {"marker": marker} if marker else traits)


def _place(
    shape: tuple[int, ...], room: tuple[int, int], chance: random.Random, taken: list[Box], *, corner: bool
) -> Box | None:
    for _ in range(60):
        spare_y, spare_x = room[0] - shape[0] - 8, room[1] - shape[1] - 8
        if spare_x < 0 or spare_y < 0:
            return None
        x, y = chance.randint(0, spare_x), chance.randint(0, spare_y)
        if corner:
            x, y = chance.choice([x % 60 % (spare_x + 1), spare_x - x % 60]), chance.choice([y % 60, spare_y - y % 60])
        x, y = max(x, 0) + 4, max(y, 0) + 4
        box = Box(x, y, x + shape[1], y + shape[0])
        around = Box(x - 30, y - 30, box.x1 + 30, box.y1 + 30)
        if not any(around.meets(other) for other in taken):
            return box
    return None


def _ink(
    stored: Gray, part: Gray, mode: str, contrast: int, chance: random.Random, *, white: bool
) -> tuple[list[Any], bool]:
    """The shades of plate and ink (or of ink alone, one or one for each pixel), and whether it is darker."""
    low, high = (float(edge) for edge in np.percentile(stored[::4, ::4], (0.5, 99.5)))
    top, bottom = max(high, low + 32), low
    step = (top - bottom) * contrast / 255
    light, dark = float(np.percentile(part, 98)), float(np.percentile(part, 2))
    darker = not white and chance.random() < 0.4
    if mode == "plate":
        paper = top if darker else bottom
        return [paper, paper - step if darker else paper + step], darker
    if mode == "extreme":
        darker = light + dark > top + bottom
        return [bottom if darker else top], darker
    if darker and dark - step < bottom - step / 2:
        darker = False
    if not darker and light + step > top + step and not white:
        darker = True
    if mode == "added":
        return [part.astype(float) + (-step if darker else step)], darker
    return [dark - step if darker else light + step], darker


# --- what it is written into ------------------------------------------------------------------------------------------


def phantoms(side: int, seed: int) -> Iterator[Gray]:
    """Radiographs of nobody, 12 bits; without end."""
    sites = sorted(populations())
    number = 0
    while True:
        rng = np.random.default_rng([seed, side, number])
        pixels = sample_radiograph(rng, populations()[sites[number % len(sites)]], side=side).pixels
        stored = np.round(pixels * 3600 + 200).astype(np.uint16)
        if number % 4 == 3:
            stored = (stored >> 4).astype(np.uint8)
        yield 4095 - stored if number % 5 == 4 else stored
        number += 1


def radiographs(side: int, seed: int) -> Iterator[Gray]:
    """Real radiographs, at that side: mirrored side by side, or enlarged and with the noise of a detector."""
    folder = ROOT.parent / "shared" / "hospital-sample" / "inbox"
    paths = sorted(folder.rglob("*.dcm"))
    chance = random.Random(seed * 10_000 + side)
    chance.shuffle(paths)
    for number, path in enumerate(paths):
        try:
            stored = stored_pixels(pydicom.dcmread(path))
        except (Refusal, pydicom.errors.InvalidDicomError, EOFError):
            continue
        if number % 2:
            double = np.block([[stored, stored[:, ::-1]], [stored[::-1], stored[::-1, ::-1]]])
            again = -(-side // double.shape[0])
            yield np.ascontiguousarray(np.tile(double, (again, again))[:side, :side])
            continue
        large = cv2.resize(stored.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
        spread = float(np.subtract(*np.percentile(large[::4, ::4], (99, 1))))
        large += np.random.default_rng(number).normal(0, 0.008 * spread, large.shape)
        info = np.iinfo(stored.dtype)
        yield np.clip(np.round(large), info.min, info.max).astype(stored.dtype)


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
    markers: list[bool] = field(default_factory=list)
    changed: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, inks: list[Ink], boxes: list[Box], traits: dict[str, object]) -> None:
        for ink in inks:
            share = ink.covered(boxes)
            if "marker" in ink.traits:
                self.markers.append(share < 0.05)
                continue
            for trait in ({"all": "lines"} | ink.traits | traits).items():
                self.lines[trait].append(share >= 0.95)
            if share < 0.95:
                self.missed.append(f"{share:.2f} {ink.traits | traits}")


def measure(images: int, seed: int, sides: tuple[int, ...] = SIDES, *, rival: bool = True) -> dict[str, Tally]:
    """Every finder on the same images."""
    finders: dict[str, Callable[[Gray], list[Box]]] = {"radia": find_text}
    if rival:
        finders["RapidOCR"] = _rapidocr()
    tallies = {name: Tally() for name in finders}
    for finder in finders.values():
        finder(np.zeros((256, 256), np.uint8))
    for side in sides:
        for background, source in (("phantom", phantoms(side, seed)), ("real", radiographs(side, seed))):
            for number, stored in zip(range(images), source, strict=False):
                chance = random.Random(f"{seed} {side} {background} {number}")
                written, taken = stored.copy(), list[Box]()
                lines = [burn(written, chance, taken) for _ in range(chance.choice((1, 3, 6)))]
                marks = [burn(written, chance, taken, marker=chance.choice(MARKERS)) for _ in range(2)]
                inks = [ink for ink in (*lines, *marks) if ink is not None]
                for name, finder in finders.items():
                    tally, kind = tallies[name], f"{background} {side}"
                    start = time.process_time()
                    boxes = finder(stored)
                    middle = time.process_time()
                    tally.changed[kind].append(_area(boxes, stored.shape))
                    found = finder(written)
                    tally.seconds[f"{kind}, clean"].append(middle - start)
                    tally.seconds[f"{kind}, with text"].append(time.process_time() - middle)
                    tally.add(inks, found, {"side": side, "background": background, "bits": stored.dtype.itemsize * 8})
    return tallies


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
        cells = [(sum(t.lines[trait, value]), len(t.lines[trait, value])) for t in tallies.values()]
        row(f"covered  {trait} {value}", [f"{hit}/{of} {hit / of:7.2%}" for hit, of in cells])
    row("markers kept", [f"{sum(t.markers)}/{len(t.markers)}" for t in tallies.values()])
    for kind in ours.changed:
        cells = [t.changed[kind] for t in tallies.values()]
        row(f"changed in none  {kind}", [f"{np.mean(c):.3%} max {max(c):.3%}" for c in cells])
    for kind in ours.seconds:
        row(
            f"CPU-s  {kind}",
            [f"{np.mean(t.seconds[kind]):.2f} max {max(t.seconds[kind]):.2f}" for t in tallies.values()],
        )
    for missed in ours.missed:
        print("missed", missed)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable()
    cv2.setNumThreads(1)
    numbers = [int(text) for text in sys.argv[1:]]
    report(measure(*(numbers or [4]), *([0] if len(numbers) < 2 else [])))
