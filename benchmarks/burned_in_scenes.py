"""Pictures with text burned in, for what is measured and for what is learned: lines, markers, backgrounds.

What is learned sees the fonts of one share and what is measured all of them, the others counted apart; seeds differ.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from radia.dicom.burned_in import Box
from radia.dicom.pixels import stored_pixels
from radia.dicom.text import plain
from radia.errors import Refusal
from radia.synthetic.phantom import sample_radiograph
from radia.synthetic.population import populations

ROOT = Path(__file__).resolve().parents[1]
HEIGHTS = (14, 16, 20, 26, 34, 48, 64)
CONTRASTS = (25, 40, 80, 160)
MARKERS = ("L", "R", "G", "D", "AP", "PA", "DEBOUT", "PORTABLE", "COUCHÉ", "SUPINE", "ERECT", "GAUCHE", "DROIT", "LEFT")
_LAST = (
    "TREMBLAY", "Gagnon", "Côté", "BOUCHARD", "Lévesque", "O'Connor", "NGUYEN", "Smith-Jones", "Désilets", "McKenzie",
    "ROY", "Ait-Ahmed", "Beauchamp", "FORTIER", "Haddad", "SINGH", "Zhang", "Pelletier",
)  # fmt: skip
_FIRST = ("Luc", "Marie", "ANDRÉ", "Zoé", "J.", "Benoît", "JOHN", "Émilie", "Fatima", "GEORGES", "Ann", "Wei", "Élodie")
_SYSTEM_FONTS = Path("/usr/share/fonts")
_HELD_OUT = ("STIX", "HKGrotesk", "LiberationMono", "LiberationSansNarrow", "DejaVuSerifCondensed")
_HERSHEY = {
    False: (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX),
    True: (cv2.FONT_HERSHEY_PLAIN, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX_SMALL),
}

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
def fonts(held_out: bool) -> tuple[str, ...]:
    """Files of fonts with letters and figures: matplotlib's and the system's; held out: those that nothing learns."""
    import matplotlib

    folders = [Path(matplotlib.get_data_path()) / "fonts" / "ttf", _SYSTEM_FONTS]
    further = find_spec("great_expectations")
    if further and further.origin:
        folders.append(Path(further.origin).parent / "render" / "view" / "static" / "fonts")
    found = sorted({path.name: path for folder in folders for path in folder.rglob("*.[to]tf")}.items())
    whole = (path for name, path in found if not name.startswith("cm") and _is_whole(path))
    return tuple(str(path) for path in whole if path.name.startswith(_HELD_OUT) == held_out)


def _is_whole(path: Path) -> bool:
    """Whether a font draws letters, figures and accents, each in its own way (and not a box for all it lacks)."""
    font = ImageFont.truetype(str(path), 24)
    return len({bytes(font.getmask(letter)) for letter in "ABENaeno0123É-"}) == 14


def drawn(
    texts: list[str], height: int, chance: random.Random, *, held_out: bool
) -> tuple[list[NDArray[np.float64]], str]:
    """The share of ink in 0..1 of lines in a font of that height, one under the other, each [rows, cols] of all of
    them; and the kind of font.
    """
    kind = chance.choices(["smooth", "bitmap", "pixel doubled", "hershey"], [6, 2, 1, 2])[0]
    if kind == "pixel doubled" and height < 18:
        kind = "bitmap"
    size = height // 2 if kind == "pixel doubled" else height
    if kind == "hershey":
        face, thick = chance.choice(_HERSHEY[held_out]), max(1, round(height / 14 * chance.uniform(0.6, 1.2)))
        tiles = [_hershey(text, height, face, thick) for text in texts]
    else:
        font = ImageFont.truetype(chance.choice(fonts(held_out)), size)
        tiles = [_typed(text, font, smooth=kind == "smooth") for text in texts]
    step = round(size * chance.uniform(1.0, 1.5))
    gaps = [0, *(max(step, tile.shape[0] + 1) for tile in tiles[:-1])]
    tops, wide = np.cumsum(gaps), max(tile.shape[1] for tile in tiles)
    lines = []
    for top, tile in zip(tops, tiles, strict=True):
        line = np.zeros((tops[-1] + tiles[-1].shape[0], wide))
        line[top : top + tile.shape[0], : tile.shape[1]] = tile
        lines.append(np.kron(line, np.ones((2, 2))) if kind == "pixel doubled" else line)
    return lines, kind


def _typed(text: str, font: ImageFont.FreeTypeFont, *, smooth: bool) -> NDArray[np.float64]:
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    tile = Image.new("L", (right - left + 4, bottom - top + 4))
    brush = ImageDraw.Draw(tile)
    if not smooth:
        brush.fontmode = "1"
    brush.text((2 - left, 2 - top), text, fill=255, font=font)
    return np.asarray(tile, float) / 255


def _hershey(text: str, height: int, face: int, thick: int) -> NDArray[np.float64]:
    text = "".join(c for c in plain(text) if ord(c) < 128)
    unit = cv2.getTextSize("H", face, 1.0, 1)[0][1]
    scale = 0.7 * height / unit
    (wide, high), below = cv2.getTextSize(text, face, scale, thick)
    tile = np.zeros((high + below + 2 * thick + 4, wide + 2 * thick + 4), np.uint8)
    cv2.putText(tile, text, (thick + 1, high + thick + 1), face, scale, 255, thick, cv2.LINE_AA)
    return tile.astype(float) / 255


def burn(
    stored: Gray, chance: random.Random, taken: list[Box], *, marker: str = "", held_out: bool | None = None
) -> list[Ink]:
    """Writes one to four lines, or a marker, into the image, in place, where nothing was; none where no room was."""
    height = chance.choice((24, 32, 44, 60)) if marker else chance.choice(HEIGHTS)
    contrast = 160 if marker else chance.choice(CONTRASTS)
    turn = 0 if marker else chance.choices([0, 1, 2, 3], [5, 2, 1, 2])[0]
    if held_out is None:
        held_out = chance.random() < 0.4
    number = 1 if marker else chance.choices([1, 2, 3, 4], [6, 2, 1, 1])[0]
    lines, font = drawn([marker or sentence(chance) for _ in range(number)], height, chance, held_out=held_out)
    lines = [np.rot90(line, turn) for line in lines]
    place = _place(lines[0].shape, stored.shape, chance, taken, corner=marker != "" or chance.random() < 0.35)
    if place and marker and _is_marked(stored, place):
        place = None
    if place is None:
        return []
    taken.append(place)
    part = stored[place.y0 : place.y1, place.x0 : place.x1]
    mode = "plain" if marker else chance.choices(["plain", "added", "plate", "extreme"], [5, 3, 2, 1])[0]
    if not marker and part.min() == part.max() and chance.random() < 0.4:
        mode = "hidden"
    shades, step, darker = _ink(stored, part, mode, contrast, chance, white=bool(marker))
    if mode == "plate":
        part[:] = shades[0]
    before, share = part.astype(float), np.maximum.reduce(lines)
    info = np.iinfo(stored.dtype)
    part[:] = np.clip(np.round(before * (1 - share) + shades[-1] * share), info.min, info.max).astype(stored.dtype)
    seen = np.abs(part - before) >= 0.7 * step
    contrast = {"extreme": 255, "hidden": 0}.get(mode, contrast)
    traits = {"height": height, "contrast": contrast, "turned": 90 * turn, "font": font,
              "ink": mode, "shade": "darker" if darker else "lighter", "held out": held_out,
              "in noise": _noise(before) > step / 2}  # fmt: skip
    inks = [line > 0.5 for line in lines]
    return [
        Ink(ink & seen, (place.x0, place.y0), {"marker": marker} if marker else traits)
        for ink in inks
        if (ink & seen).sum() >= 0.6 * ink.sum()
    ]


def _noise(part: NDArray[np.float64]) -> float:
    """The standard deviation of what differs from one pixel to the next, whatever is drawn there."""
    steps = np.abs(np.diff(part, axis=1))
    return float(np.median(steps)) / 0.954  # of the difference of two normal values, sqrt(2) * 0.6745


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


def _is_marked(stored: Gray, place: Box) -> bool:
    """Whether something stands out there already: a marker of the radiograph's own, the edge of a plate."""
    part = stored[place.y0 : place.y1, place.x0 : place.x1].astype(float)
    return float(np.ptp(np.percentile(part, (0.5, 99.5)))) > 0.3 * float(
        np.ptp(np.percentile(stored[::4, ::4], (1, 99)))
    )


def _ink(
    stored: Gray, part: Gray, mode: str, contrast: int, chance: random.Random, *, white: bool
) -> tuple[list[Any], Any, bool]:
    """The shades of plate and ink (or of ink alone, one or one for each pixel); by how much it differs from what it is
    on; whether it is darker.
    """
    low, high = (float(edge) for edge in np.percentile(stored[::4, ::4], (0.5, 99.5)))
    top, bottom = max(high, low + 32), low
    step = (top - bottom) * contrast / 255
    light, dark = float(np.percentile(part, 98)), float(np.percentile(part, 2))
    darker = not white and chance.random() < 0.4
    if mode == "plate":
        paper = top if darker else bottom
        return [paper, paper - step if darker else paper + step], step, darker
    if mode == "hidden":  # a few shades, which no window for the anatomy shows
        step, darker = chance.choice((3, 4, 6, 10)), light > (top + bottom) / 2
        return [light - step if darker else light + step], step, darker
    if mode == "extreme":
        darker = light + dark > top + bottom
        return [bottom if darker else top], (top - bottom) * 25 / 255, darker
    if darker and dark - step < bottom - step / 2:
        darker = False
    if not darker and light + step > top + step and not white:
        darker = True
    if mode == "added":
        return [part.astype(float) + (-step if darker else step)], step, darker
    return [dark - step if darker else light + step], step, darker


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
        yield (255 if stored.itemsize == 1 else 4095) - stored if number % 5 == 4 else stored
        number += 1


def scenes(side: int, seed: int) -> Iterator[Gray]:
    """What is no chest: gradients, clouds, grain, grids, collimators, wires, beads and plates; 8 to 16 bits."""
    number = 0
    while True:
        rng = np.random.default_rng([seed, side, number, 7])
        gray = _clouds(rng, side, float(rng.uniform(1.7, 2.8)))
        for add in rng.permutation([_grain, _grid, _collimator, _wires, _beads, _edges])[: int(rng.integers(1, 4))]:
            gray = add(rng, gray)
        gray = np.clip(gray + rng.normal(0, rng.uniform(0.001, 0.025), gray.shape), 0, 1)
        for _ in range(int(rng.integers(0, 3))):  # what nothing was exposed on, or all
            edge, deep = rng.integers(0, 4), int(rng.uniform(0.05, 0.2) * side)
            np.rot90(gray, edge)[:deep] = rng.choice([0, 0.05, 0.8, 1])
        bits = int(rng.choice([8, 10, 12, 14, 16]))
        yield np.round(gray * ((1 << bits) - 1)).astype(np.uint8 if bits == 8 else np.uint16)
        number += 1


def _clouds(rng: np.random.Generator, side: int, steep: float) -> NDArray[np.float64]:
    """Noise whose amplitude falls with frequency to that power, in 0.1..0.9."""
    small = min(side, 512)
    wave = np.hypot(*np.meshgrid(np.fft.fftfreq(small), np.fft.rfftfreq(small), indexing="ij"))
    wave[0, 0] = 1
    spectrum = np.fft.rfft2(rng.normal(size=(small, small))) / wave**steep
    cloud = cv2.resize(np.fft.irfft2(spectrum, (small, small)), (side, side), interpolation=cv2.INTER_CUBIC)
    low, high = np.percentile(cloud[::4, ::4], (1, 99))
    return np.asarray(np.clip((cloud - low) / (high - low), -0.1, 1.1) * 0.8 + 0.1)


def _grain(rng: np.random.Generator, gray: NDArray[np.float64]) -> NDArray[np.float64]:
    """As of bone: noise of a few pixels in breadth, in a part of the image."""
    fine = rng.uniform(0.7, 3.0)
    noise = rng.normal(size=gray.shape)
    band = cv2.GaussianBlur(noise, (0, 0), fine) - cv2.GaussianBlur(noise, (0, 0), 2 * fine)
    where = np.clip((_clouds(rng, gray.shape[0], 2.5) - rng.uniform(0.3, 0.7)) * 8, 0, 1)
    return gray + band / band.std() * rng.uniform(0.003, 0.02) * where


def _grid(rng: np.random.Generator, gray: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lines of an antiscatter grid, or its moire."""
    y, x = np.mgrid[: gray.shape[0], : gray.shape[1]]
    turn = rng.choice([0, np.pi / 2]) + rng.normal(0, 0.02)
    wave = np.sin((x * np.cos(turn) + y * np.sin(turn)) * 2 * np.pi / rng.uniform(2.2, 30))
    return np.asarray(gray + wave * rng.uniform(0.003, 0.02))


def _collimator(rng: np.random.Generator, gray: NDArray[np.float64]) -> NDArray[np.float64]:
    """All but a turned rectangle in the dark, or the bright."""
    side = gray.shape[0]
    turn, wide, high = rng.normal(0, 4), rng.uniform(0.6, 0.95) * side, rng.uniform(0.6, 0.95) * side
    corners = cv2.boxPoints(((side / 2 + rng.normal(0, 20), side / 2), (wide, high), turn))
    mask = cv2.fillPoly(np.zeros(gray.shape, np.uint8), [corners.astype(np.int32)], 1).astype(np.float64)
    mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.5, 3))
    return np.asarray(gray * mask + rng.choice([0.02, 0.97]) * (1 - mask))


def _wires(rng: np.random.Generator, gray: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leads, tubes and their stripes, sternal wires: bent lines, single, doubled and broken."""
    drawn, side = np.zeros(gray.shape, np.float32), gray.shape[0]
    for _ in range(int(rng.integers(2, 9))):
        t = np.linspace(0, 1, 200)[:, None]
        a, b, c, d = rng.uniform(-0.1, 1.1, (4, 2)) * side
        path = (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d
        if rng.random() < 0.3:  # a coil
            path += rng.uniform(4, 25) * np.stack([np.cos(t * 400), np.sin(t * 400)], -1)[:, 0]
        for shift in (0.0, rng.uniform(5, 18))[: int(rng.integers(1, 3))]:
            points = np.round((path + shift) * 8).astype(np.int32)[:, None]
            pieces = np.array_split(points, 40)[::2] if rng.random() < 0.25 else [points]
            cv2.polylines(drawn, pieces, False, rng.uniform(0.1, 0.6), int(rng.integers(1, 9)), cv2.LINE_AA, 3)
    return np.asarray(gray + drawn * (1 if rng.random() < 0.85 else -1))


def _beads(rng: np.random.Generator, gray: NDArray[np.float64]) -> NDArray[np.float64]:
    """Electrodes, clips, buttons, a scale: circles, rings, ticks."""
    drawn, side = np.zeros(gray.shape, np.float32), gray.shape[0]
    for _ in range(int(rng.integers(3, 30))):
        centre, radius = tuple(int(at) for at in rng.integers(0, side, 2)), int(rng.integers(2, 25))
        cv2.circle(drawn, centre, radius, rng.uniform(0.1, 0.6), int(rng.choice([-1, 1, 2, 4])), cv2.LINE_AA)
    if rng.random() < 0.4:
        x, step, length = int(rng.integers(10, side - 40)), int(rng.integers(6, 30)), int(rng.integers(6, 24))
        for number, y in enumerate(range(side // 5, 4 * side // 5, step)):
            cv2.line(drawn, (x, y), (x + length * (2 if number % 5 == 0 else 1), y), 0.5, int(step > 8) + 1)
    return np.asarray(gray + drawn)


def _edges(rng: np.random.Generator, gray: NDArray[np.float64]) -> NDArray[np.float64]:
    """Plates and joints: smooth shapes with sharp borders."""
    for _ in range(int(rng.integers(1, 6))):
        corners = np.round(rng.uniform(0, gray.shape[0], (int(rng.integers(3, 7)), 2))).astype(np.int32)
        mask = cv2.fillPoly(np.zeros(gray.shape, np.uint8), [cv2.convexHull(corners)], 1).astype(np.float64)
        gray = gray + cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.6, 6)) * rng.uniform(-0.25, 0.25)
    return gray


def radiographs(side: int, seed: int) -> Iterator[Gray]:
    """Real radiographs, at that side: side by side, or enlarged and with the noise of a detector."""
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
            again = -(-side // stored.shape[0])
            yield np.ascontiguousarray(np.tile(stored, (again, again))[:side, :side])
            continue
        large = cv2.resize(stored.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
        spread = float(np.subtract(*np.percentile(large[::4, ::4], (99, 1))))
        large += np.random.default_rng(number).normal(0, 0.008 * spread, large.shape)
        info = np.iinfo(stored.dtype)
        yield np.clip(np.round(large), info.min, info.max).astype(stored.dtype)
