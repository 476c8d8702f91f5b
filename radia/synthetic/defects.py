"""Defects seeded into images, and the coefficients of radia/image_quality.json found on drawn radiographs with defects.

`python -m radia.synthetic.defects` draws phantoms, seeds defects, fits, and writes the file. No real image is used.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radia.image_quality import COEFFICIENTS, SIDES, features, orientations
from radia.synthetic.anatomy import sample_body, sample_pose
from radia.synthetic.detector import attenuation, expose, font
from radia.synthetic.pathology import draw_chest
from radia.synthetic.population import populations, sample_age, sample_signs

Image = NDArray[np.uint8]


# --- defects --------------------------------------------------------------------------------------------------------


def blank(image: Image, rng: np.random.Generator) -> Image:
    """A detector that saw no patient: one level, a slope as of the heel effect, noise."""
    rows, columns = np.mgrid[-0.5 : 0.5 : image.shape[0] * 1j, -0.5 : 0.5 : image.shape[1] * 1j]
    slope = rng.uniform(0, 30) * rows + rng.uniform(0, 15) * columns
    return _gray(rng.uniform(0, 255) + slope + rng.normal(0, rng.uniform(0, 12), image.shape))


def inverted(image: Image, rng: np.random.Generator) -> Image:
    """Bone black."""
    return 255 - image


def turned(image: Image, rng: np.random.Generator) -> Image:
    """A quarter, a half or three quarters of a turn."""
    return np.ascontiguousarray(np.rot90(image, int(rng.integers(1, 4))))


def cropped(image: Image, rng: np.random.Generator, side: str = "") -> Image:
    """Three to five tenths of the image cut off at one side, the rest stretched back to the square."""
    kept = 1 - rng.uniform(0.3, 0.5)
    rows, columns = image.shape
    part = {
        "top": image[int((1 - kept) * rows) :],
        "bottom": image[: int(kept * rows)],
        "left": image[:, int((1 - kept) * columns) :],
        "right": image[:, : int(kept * columns)],
    }[side or SIDES[int(rng.integers(4))]]
    return _resized(part, image.shape[0])


def lateral(image: Image, rng: np.random.Generator) -> Image:
    """A drawing of a lateral chest radiograph: spine behind, heart in front and below, one lung field between."""
    side = image.shape[0]
    y, x = np.mgrid[0 : 1 : side * 1j, 0 : 1 : side * 1j] + rng.normal(0, 0.02, 2)[:, None, None]
    width = rng.uniform(0.32, 0.44)
    chest = _soft(1 - ((x - 0.5) / width) ** 2 - np.maximum(0, (0.12 - y) / 0.2) ** 2, 0.06)
    spine_x = 0.5 + width * (0.55 + 0.25 * np.sin(np.pi * (y + rng.uniform(-0.1, 0.1))))
    spine = np.exp(-(((x - spine_x) / rng.uniform(0.05, 0.08)) ** 2))
    vertebrae = 1 + 0.15 * np.sin(2 * np.pi * y * rng.uniform(12, 16))
    sternum = np.exp(-(((x - (0.5 - 0.85 * width - 0.1 * (y - 0.4) ** 2)) / 0.02) ** 2)) * (y < 0.7)
    heart_x, heart_y = 0.5 - width * rng.uniform(0.2, 0.45), rng.uniform(0.55, 0.68)
    heart = _soft(1 - ((x - heart_x) / (0.42 * width)) ** 2 - ((y - heart_y) / rng.uniform(0.14, 0.2)) ** 2, 0.2)
    dome = rng.uniform(0.72, 0.84) - 0.1 * np.cos((x - 0.45) / width * 1.6) + 0.12 * (x - 0.5)
    belly = _soft((y - dome) * 12, 0.3)
    shoulder = np.exp(-(((x - 0.53) / 0.2) ** 2 + (np.maximum(0, y - 0.05) / rng.uniform(0.12, 0.2)) ** 2))
    ribs = sum(
        np.exp(-(((y - at - rng.uniform(0.2, 0.4) * (x - 0.5)) / 0.012) ** 2)) for at in np.arange(0.15, 0.8, 0.075)
    )
    dense = 0.25 + 0.45 * spine * vertebrae + 0.2 * sternum + 0.35 * heart + 0.5 * belly + 0.4 * shoulder + 0.06 * ribs
    gray = chest * (1 - np.exp(-rng.uniform(1.0, 1.8) * dense)) + (1 - chest) * rng.uniform(0, 0.1)
    gray = gray ** np.exp(rng.normal(0, 0.25)) + rng.normal(0, 0.01, gray.shape)
    drawn = _gray(255 * gray / max(float(gray.max()), 1e-6))
    return np.ascontiguousarray(drawn[:, ::-1]) if rng.random() < 0.5 else drawn


def text(image: Image, rng: np.random.Generator) -> Image:
    """A line of text burned in, near the top or the bottom: light on what is darker, or dark on a light label."""
    from PIL import Image as Picture
    from PIL import ImageDraw

    side, size = image.shape[0], int(rng.integers(9, 18))
    words = ("DUPONT JEAN M", "1961-04-12 14:05", "ID 4471209", "CLINIQUE DU LAC", "MARTIN CLAIRE 54F")
    line = words[int(rng.integers(len(words)))]
    picture = Picture.fromarray(image)
    draw, letters = ImageDraw.Draw(picture), font(size)
    width = min(side - 4, int(draw.textlength(line, font=letters)))
    left, top = int(rng.integers(0, side - width)), int(rng.choice([rng.integers(1, 30), side - size - 4]))
    under = float(np.asarray(picture)[top : top + size, left : left + width].max(initial=0))
    if under > 150 or rng.random() < 0.3:
        draw.rectangle((left - 2, top - 1, left + width + 2, top + size + 3), fill=255)
        draw.text((left, top), line, font=letters, fill=0)
    else:
        draw.text((left, top), line, font=letters, fill=int(rng.integers(230, 256)))
    return np.asarray(picture)


def noisy(image: Image, rng: np.random.Generator) -> Image:
    """Quantum noise of far too small a dose: stronger where it is dark on film, 4 to 12% of the range on average."""
    dose = 0.5 + 0.5 * np.sqrt(image / 255.0)
    return _gray(image + rng.normal(0, 255 * rng.uniform(0.04, 0.12), image.shape) * dose)


SEEDED: dict[str, Callable[[Image, np.random.Generator], Image]] = {
    "blank": blank,
    "inverted": inverted,
    "turned": turned,
    "cropped": cropped,
    "lateral": lateral,
    "text": text,
}
"""By the name that radia.image_quality gives the defect."""


def near_duplicate(image: Image, rng: np.random.Generator) -> Image:
    """The same picture sent twice: another exposure, size and compression, a little noise, a few pixels aside."""
    from io import BytesIO

    from PIL import Image as Picture

    side = image.shape[0]
    gray = 255 * (image / 255.0) ** np.exp(rng.normal(0, 0.15)) + rng.normal(0, 3, image.shape)
    edge = rng.integers(0, max(1, side // 60), 4)
    gray = gray[edge[0] : side - edge[1], edge[2] : side - edge[3]]
    buffer = BytesIO()
    Picture.fromarray(_gray(gray)).save(buffer, "JPEG", quality=int(rng.integers(60, 95)))
    return _resized(np.asarray(Picture.open(buffer)), side)


# --- drawn radiographs, framed as hospitals frame them and as they should not ----------------------------------------


@dataclass(frozen=True)
class Drawn:
    """A chest drawn small, so that much lies around it: gray in 0..1 and where the lungs are, both [side, side]."""

    gray: NDArray[np.float64]
    lungs: NDArray[np.bool_]


def draw(rng: np.random.Generator, *, side: int = 192) -> Drawn:
    """A patient of any population, with more of neck and abdomen than a radiograph shows."""
    kinds = list(populations().values())
    kind = kinds[int(rng.integers(len(kinds)))]
    body = sample_body(rng, sex="F" if rng.random() < 0.47 else "M", age=sample_age(rng, kind))
    usual = sample_pose(rng, bedside=kind.bedside)
    pose = replace(
        usual,
        scale=rng.uniform(0.62, 0.95),
        across=usual.across + rng.normal(0, 0.02),
        down=rng.normal(0, 0.03),
        tilt=rng.normal(0, 0.05),
        breath=rng.uniform(-0.6, 1.1),
    )
    signs, seed = sample_signs(rng, kind), int(rng.integers(2**31))
    chest = draw_chest(body, pose, signs, side, seed=seed)
    look, noise = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
    gray = np.clip(expose(attenuation(chest), kind.look, look, noise), 0, 1).astype(np.float64)
    return Drawn(gray, np.asarray(chest.lung > 1.0))


def framed(drawn: Drawn, rng: np.random.Generator, *, cut: str = "") -> Image:
    """A radiograph [96, 96] of it: whole lungs within any margins, or an eighth to two thirds cut off at one side."""
    gray = _toned(_hidden_bases(drawn, rng) if rng.random() < 0.3 else drawn.gray, rng)
    rows, columns = np.flatnonzero(drawn.lungs.any(axis=1)), np.flatnonzero(drawn.lungs.any(axis=0))
    edges = {"top": rows[0], "bottom": rows[-1] + 1, "left": columns[0], "right": columns[-1] + 1}
    high, wide = edges["bottom"] - edges["top"], edges["right"] - edges["left"]
    outwards = {"top": -high, "bottom": high, "left": -wide, "right": wide}
    most = {"top": 0.45, "bottom": 0.6, "left": 0.25, "right": 0.25}
    for name in SIDES:
        margin = -rng.uniform(0.13, 0.65) if name == cut else rng.uniform(-0.03, most[name])
        edges[name] = int(np.clip(edges[name] + margin * outwards[name], 0, len(gray)))
    part = gray[edges["top"] : edges["bottom"], edges["left"] : edges["right"]]
    return _on_film(part, rng)


def _hidden_bases(drawn: Drawn, rng: np.random.Generator) -> NDArray[np.float64]:
    """Fluid, breasts or a high abdomen before the bases, of one lung or of both."""
    side = len(drawn.gray)
    y, x = np.mgrid[:side, :side]
    rows = np.flatnonzero(drawn.lungs.any(axis=1))
    level = rows[0] + (rows[-1] - rows[0]) * rng.uniform(0.55, 1.0) + rng.normal(0, 0.15) * (x - side / 2)
    veil = _soft(y - level, rng.uniform(1, 8)) * rng.uniform(0.4, 1)
    if rng.random() < 0.5:
        veil = veil * ((x > side / 2) == (rng.random() < 0.5))
    return np.asarray(drawn.gray * (1 - veil) + veil * rng.uniform(0.75, 1))


def _toned(gray: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Another exposure, slopes and patches of brightness, dense parts without detail."""
    side = len(gray)
    y, x = np.mgrid[-0.5 : 0.5 : side * 1j, -0.5 : 0.5 : side * 1j]
    toned = gray ** np.exp(rng.normal(0, 0.35)) + rng.normal(0, 0.15) * y + rng.normal(0, 0.1) * x
    for _ in range(int(rng.integers(0, 3))):
        at_y, at_x = rng.uniform(-0.5, 0.5, 2)
        reach = 2 * rng.uniform(0.06, 0.25) ** 2
        toned = toned + rng.normal(0, 0.25) * np.exp(-((y - at_y) ** 2 + (x - at_x) ** 2) / reach)
    if rng.random() < 0.5:
        white = rng.uniform(0.55, 0.95)
        toned = np.minimum(toned, white) / white
    return np.asarray(np.clip(toned, 0, 1))


def _on_film(gray: NDArray[np.float64], rng: np.random.Generator) -> Image:
    """Within a skewed border or none, stretched to the square or letterboxed."""
    rows, columns = gray.shape
    y, x = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j]
    if rng.random() < 0.35:
        width = rng.uniform(0, 0.08, 4) * (rng.random(4) < 0.5)
        skew = rng.normal(0, 0.02, 4)
        across, down = x - 0.5, y - 0.5
        bare = (y < width[0] + skew[0] * across) | (y > 1 - width[1] + skew[1] * across)
        bare |= (x < width[2] + skew[2] * down) | (x > 1 - width[3] + skew[3] * down)
        gray = np.where(bare, float(rng.random() < 0.2), gray)
    if rng.random() < 0.7:
        return _resized(_gray(255 * gray), _SIDE)
    longest = max(rows, columns)
    top, left = (longest - rows) // 2, (longest - columns) // 2
    padding = ((top, longest - rows - top), (left, longest - columns - left))
    return _resized(_gray(255 * np.pad(gray, padding)), _SIDE)


# --- lines and a network --------------------------------------------------------------------------------------------

_SIDE, _HIDDEN, _EPOCHS, _SOUND = 96, 32, 15, 4
KINDS = (*SIDES, "lateral")


def fit(phantoms: int, *, seed: int = 0) -> dict[str, object]:
    """The content of image_quality.json, from so many drawn chests: four sound views of each, one cut at each side."""
    rng = np.random.default_rng(seed)
    cells, kinds = _views(phantoms, rng)
    mirrored = kinds.copy()
    mirrored[:, 2:4] = kinds[:, 3:1:-1]
    rows = np.concatenate([cells, cells[..., ::-1]])
    truth = np.concatenate([kinds, mirrored])
    frontal = cells[~kinds[:, -1]]
    return {
        "made by": f"python -m radia.synthetic.defects: {phantoms} drawn radiographs, seed {seed}",
        "upright": _rounded(_fit_upright(frontal[rng.permutation(len(frontal))[:6000]])),
        **_fit_network(rows.reshape(len(rows), -1), truth, rng),
    }


def _views(phantoms: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Features [n, 2, 16, 16] and what is wrong, [n, KINDS]."""
    cells, kinds = [], []
    for _ in range(phantoms):
        drawn = draw(rng)
        wrong = [*[""] * _SOUND, *SIDES, "lateral"]
        views = [framed(drawn, rng, cut=kind) for kind in wrong[:-1]]
        views.append(_on_film(_toned(lateral(np.zeros((128, 128), np.uint8), rng) / 255.0, rng), rng))
        cells.append(features(np.array(views)))
        kinds += [[kind == name for name in KINDS] for kind in wrong]
    return np.concatenate(cells), np.array(kinds)


def _fit_network(rows: NDArray[np.float32], truth: NDArray[np.bool_], rng: np.random.Generator) -> dict[str, object]:
    """A layer of 32 units and a logistic answer for each kind; every round sees the rows with other noise."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    network = MLPClassifier((_HIDDEN,), alpha=1.0, max_iter=1, batch_size=256, warm_start=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a round at a time, as is meant
        for epoch in range(_EPOCHS):
            network.set_params(learning_rate_init=2e-3 * (1 - epoch / _EPOCHS))
            strength = np.exp(rng.normal(0, 0.2, (len(rows), 1)))
            network.fit((rows * strength + rng.normal(0, 0.15, rows.shape)).astype(np.float32), truth)
    (hidden, answer), (hidden_offset, answer_offset) = network.coefs_, network.intercepts_
    return {
        "hidden": base64.b64encode(hidden.T.astype("<f2").tobytes()).decode(),
        "hidden_offset": _rounded(hidden_offset),
        "answers": {name: _rounded(answer[:, place]) for place, name in enumerate(KINDS)},
        "answer_offsets": {name: round(float(answer_offset[place]), 3) for place, name in enumerate(KINDS)},
    }


def _fit_upright(cells: NDArray[np.float32]) -> NDArray[np.float64]:
    """One line that is highest for the right one of an image's 8 ways: a softmax over them."""
    from scipy.optimize import minimize

    ways = orientations(np.concatenate([cells, cells[..., ::-1]])).astype(np.float64)

    def loss(line: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        fits = ways @ line
        share = np.exp(fits - fits.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        slope = np.einsum("nk,nkd->d", share, ways) / len(ways) - ways[:, 0].mean(axis=0)
        return float(-np.log(share[:, 0] + 1e-300).mean() + 0.01 * line @ line), slope + 0.02 * line

    return np.asarray(minimize(loss, np.zeros(ways.shape[2]), jac=True, method="L-BFGS-B").x)


def _soft(values: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """0 where values are negative, 1 where they are positive, smooth between."""
    return np.asarray(1 / (1 + np.exp(-np.clip(values / width, -30, 30))))


def _resized(part: Image, side: int) -> Image:
    from PIL import Image as Picture

    picture = Picture.fromarray(np.ascontiguousarray(part)).resize((side, side), Picture.Resampling.BILINEAR)
    return np.asarray(picture)


def _gray(values: NDArray[np.floating[Any]]) -> Image:
    return np.clip(np.asarray(values) + 0.5, 0, 255).astype(np.uint8)


def _rounded(line: NDArray[np.float64]) -> list[float]:
    return [round(float(value), 3) for value in line]


if __name__ == "__main__":
    COEFFICIENTS.write_text(json.dumps(fit(4000), indent=None, separators=(",", ":")) + "\n", encoding="utf-8")
