"""From path lengths to a radiograph: attenuation, scatter, quantum noise, the detector's response, the processing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from radia.synthetic.anatomy import Chest
from radia.synthetic.grids import Field, blur, dome, shrink, step, tube

SOFT, BONE, LUNG_AIR = 0.185, 0.235, 0.78
"""Attenuation per cm at about 120 kVp: water, what bone adds to water; the share of a lung that is air."""


@dataclass(frozen=True)
class Look:
    """How one site's detectors and processing render an exposure. Ranges are drawn from uniformly, per image."""

    gamma: tuple[float, float] = (0.9, 1.1)
    contrast: tuple[float, float] = (1.0, 1.2)
    level: tuple[float, float] = (-0.03, 0.03)
    sharpen: tuple[float, float] = (0.2, 0.5)
    sharpen_radius: float = 0.012
    equalise: tuple[float, float] = (0.1, 0.3)  # how much of the broad bright and dark is taken out
    noise: tuple[float, float] = (0.008, 0.02)
    scatter: tuple[float, float] = (0.25, 0.5)
    black: float = 0.0  # gray of unexposed borders and of air
    collimated: float = 0.4  # share of images with visible collimator edges
    marker: str = "L"
    marker_tone: tuple[float, float] = (0.85, 1.0)


def attenuation(chest: Chest) -> Field:
    """The line integral along each ray."""
    free = 1 - chest.gas
    air = chest.lung * (LUNG_AIR * (1 - chest.filled) * free + chest.gas)
    soft = chest.tissue - air + chest.vessels * np.minimum(chest.lung * 0.2, 1) * free * (1 - chest.filled * 0.85)
    integral: Field = SOFT * np.maximum(soft, 0) + BONE * (chest.bone + chest.cage) + chest.metal
    return integral


def expose(integral: Field, look: Look, rng: np.random.Generator, noise: np.random.Generator) -> Field:
    """The processed picture in 0..1, bone white, of a field of line integrals."""
    side = integral.shape[0]
    scatter, amount = rng.uniform(*look.scatter), rng.uniform(*look.noise)
    primary = np.exp(-integral)
    body = np.minimum(primary, 0.35)
    received = primary + scatter * blur(body, 0.06)
    quanta = noise.standard_normal(received.shape, dtype=np.float32)
    received += (amount * min(side, 512) / 512) * np.sqrt(received) * quanta * 0.6
    signal = -np.log(np.maximum(received, 1e-4))
    return _processed(signal, look, rng)


def _processed(signal: Field, look: Look, rng: np.random.Generator) -> Field:
    field = shrink(signal, 32)[3:29, 4:28]
    low, high = min(float(np.quantile(field, 0.02)), 1.0), float(np.quantile(field, 0.985))
    gray = (signal - low) / (high - low)
    equalise, sharpen = rng.uniform(*look.equalise), rng.uniform(*look.sharpen)
    broad = blur(np.clip(gray, 0, 1.2), 0.09)
    gray = gray - equalise * (broad - 0.5) * step(gray - 0.02, 0.15)
    gray += sharpen * (gray - blur(gray, look.sharpen_radius))
    gray = rng.uniform(*look.contrast) * (gray - 0.52) + (0.50 + rng.uniform(*look.level))
    gray = np.clip(gray * 0.90 + 0.07, 0, 1.15)
    toned = _shoulder(gray) ** rng.uniform(*look.gamma)
    processed: Field = np.maximum(toned, look.black)
    return processed


def _shoulder(gray: Field) -> Field:
    """The response bends over towards white instead of clipping."""
    knee = 0.8
    over = np.maximum(gray - knee, 0)
    bent: Field = np.minimum(gray, knee) + 0.2 * (over / (over + 0.16)) * 1.4
    return bent


def collimate(picture: Field, look: Look, rng: np.random.Generator) -> Field:
    """Darkens what the collimator's blades covered, a little askew."""
    edges, askew = rng.uniform(0.0, 0.045, 4), rng.normal(0, 0.006, 4)
    if rng.random() > look.collimated:
        return picture
    side = picture.shape[0]
    centres = ((np.arange(side, dtype=np.float32) + 0.5) / side).astype(np.float32)
    x, y = centres[None, :], centres[:, None]
    distances = (
        x - edges[0] - askew[0] * y,
        (1 - edges[1]) - x - askew[1] * y,
        y - edges[2] - askew[2] * x,
        (1 - edges[3]) - y - askew[3] * x,
    )
    inside = np.minimum(np.minimum(distances[0], distances[1]), np.minimum(distances[2], distances[3]))
    shown = step(inside, 0.006)
    return picture * shown + look.black * (1 - shown)


def place_marker(picture: Field, look: Look, rng: np.random.Generator, *, bedside: bool) -> Field:
    """The lead letter of the side, as the technologist laid it: somewhere near a top corner, a little turned."""
    right = look.marker == "R" or (look.marker == "LR" and rng.random() < 0.5)
    x = rng.uniform(0.05, 0.12) if right else rng.uniform(0.86, 0.93)
    y, turn, tone, size = (
        rng.uniform(0.04, 0.16),
        rng.normal(0, 12),
        rng.uniform(*look.marker_tone),
        rng.uniform(0.030, 0.042),
    )
    text = ("R" if right else "L") if rng.random() < 0.8 else ("D" if right else "G")
    _stamp(picture, text, x, y, size, turn, tone)
    if bedside and rng.random() < 0.6:
        _stamp(picture, "PORT", rng.uniform(0.1, 0.2), rng.uniform(0.03, 0.06), 0.024, 0, tone)
    return picture


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which knows every accent; it comes with matplotlib, whose folder is found without importing it."""
    package = find_spec("matplotlib")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("matplotlib, whose fonts the embedded hospital writes with, is not installed")
    return ImageFont.truetype(str(Path(package.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


def _stamp(picture: Field, text: str, x: float, y: float, size: float, turn: float, tone: float) -> None:
    """Writes text into the picture, in place, centred at fractions x, y of the side."""
    side = picture.shape[0]
    over = 1 if side >= 256 else 4
    high = max(8, round(size * side * over))
    face = font(high)
    left, top, right, bottom = face.getbbox(text)
    pad = high // 2
    tile = Image.new("L", (int(right - left) + 2 * pad, int(bottom - top) + 2 * pad), 0)
    ImageDraw.Draw(tile).text((pad - left, pad - top), text, fill=255, font=face)
    tile = tile.rotate(turn, resample=Image.Resampling.BILINEAR, expand=True)
    if over > 1:
        tile = tile.resize((max(1, tile.width // over), max(1, tile.height // over)), Image.Resampling.BOX)
    letter = np.asarray(tile, np.float32) / 255
    x0, y0 = round(x * side - tile.width / 2), round(y * side - tile.height / 2)
    rows, columns = slice(max(y0, 0), min(y0 + tile.height, side)), slice(max(x0, 0), min(x0 + tile.width, side))
    part = letter[rows.start - y0 : rows.stop - y0, columns.start - x0 : columns.stop - x0]
    picture[rows, columns] += (tone - picture[rows, columns]) * part


def knee(rng: np.random.Generator, side: int) -> Field:
    """A knee from the front, which no chest pipeline should keep: [side, side] in 0..1."""
    centres = ((np.arange(side, dtype=np.float32) + 0.5) / side - 0.5).astype(np.float32)
    x, y = centres[None, :] + 0.05 * centres[:, None], centres[:, None]
    flare = 0.085 + 0.10 * np.exp(-((np.abs(y) - 0.02) ** 2) * 60)
    gap = step(np.abs(y + 0.25 * x * x) - 0.012, 0.012)
    long_bones = 3.2 * tube(x / flare, hollow=0.7) * gap
    fibula = 1.2 * tube((x - 0.19) / 0.025, hollow=0.6) * step(y - 0.07, 0.03)
    patella = 1.3 * dome((x / 0.085) ** 2 + ((y + 0.13) / 0.085) ** 2)
    flesh = 11 * dome((x / (0.24 + 0.10 * np.abs(y))) ** 2)
    integral = SOFT * flesh + 0.4 * (long_bones + fibula + patella)
    noise = np.random.default_rng(rng.integers(2**31))
    return np.clip(expose(integral.astype(np.float32), Look(), rng, noise), 0, 1)
