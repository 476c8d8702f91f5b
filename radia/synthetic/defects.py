"""Defects seeded into images, and the lines of radia/image_quality.json found on drawn radiographs with such defects.

`python -m radia.synthetic.defects` draws phantoms, seeds defects, fits, and writes the file. No real image is used.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radia.image_quality import COEFFICIENTS, SIDES, features, orientations
from radia.synthetic.phantom import sample_radiograph
from radia.synthetic.population import populations

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
    """A quarter to a half of the image cut off at one side, the rest stretched back to the square."""
    kept = 1 - rng.uniform(0.25, 0.5)
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


SEEDED: dict[str, Callable[[Image, np.random.Generator], Image]] = {
    "blank": blank,
    "inverted": inverted,
    "turned": turned,
    "cropped": cropped,
    "lateral": lateral,
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


# --- lines ----------------------------------------------------------------------------------------------------------


def fit(phantoms: int, *, side: int = 128, seed: int = 0) -> dict[str, object]:
    """The content of image_quality.json, from so many phantoms of all populations and their framings."""
    rng = np.random.default_rng(seed)
    kinds = list(populations().values())
    drawn = [_gray(255 * sample_radiograph(rng, kinds[n % len(kinds)], side=side).pixels) for n in range(phantoms)]
    sound = features(np.array([_framed(_toned(image, rng), rng) for image in drawn for _ in range(2)]))
    cuts = {name: _cut(drawn, name, rng) for name in SIDES}
    views = features(np.array([lateral(image, rng) for image in drawn]))
    mirrored = {name: name in ("top", "bottom") for name in SIDES}
    return {
        "made by": f"python -m radia.synthetic.defects: {phantoms} drawn radiographs, seed {seed}",
        "upright": _rounded(_fit_upright(np.concatenate([features(np.array(drawn)), sound, *cuts.values()]))),
        "edges": {name: _fit_line(sound, cut, mirror=mirrored[name]) for name, cut in cuts.items()},
        "lateral": _fit_line(sound, views, mirror=True),
    }


def _cut(drawn: list[Image], side: str, rng: np.random.Generator) -> NDArray[np.float32]:
    return features(np.array([cropped(_framed(_toned(image, rng), rng, whole=side), rng, side) for image in drawn]))


MISSED = 0.03
"""Part of the seeded defects that a line may miss: as high a bar as this allows keeps false alarms few."""


def _fit_line(sound: NDArray[np.float32], defect: NDArray[np.float32], *, mirror: bool) -> dict[str, object]:
    """A line by logistic regression, above 0 for all but MISSED of the defects (on parts it was not fitted to)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    rows = np.concatenate([sound, sound[..., ::-1], defect, defect[..., ::-1]] if mirror else [sound, defect])
    truth = np.repeat([0, 1], [len(rows) - (2 if mirror else 1) * len(defect), (2 if mirror else 1) * len(defect)])
    model = LogisticRegression(C=0.003, max_iter=1000)
    flat = rows.reshape(len(rows), -1)
    held_out = cross_val_predict(model, flat, truth, cv=5, method="decision_function")
    line = model.fit(flat, truth)
    bar = max(0.0, float(np.quantile(held_out[truth == 1], MISSED)))
    return {"line": _rounded(line.coef_[0]), "offset": round(float(line.intercept_[0]) - bar, 4)}


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


def _toned(image: Image, rng: np.random.Generator) -> Image:
    """Another exposure, and a slope of brightness."""
    rows, columns = np.mgrid[-0.5 : 0.5 : image.shape[0] * 1j, -0.5 : 0.5 : image.shape[1] * 1j]
    gray = (image / 255.0) ** np.exp(rng.normal(0, 0.35)) + rng.normal(0, 0.12) * rows + rng.normal(0, 0.08) * columns
    return _gray(255 * gray)


def _framed(image: Image, rng: np.random.Generator, whole: str = "") -> Image:
    """Another framing, as hospitals differ: more neck or abdomen, or a tight field. `whole`: that side stays."""
    side = image.shape[0]
    more = rng.uniform(0, 1, 4) * (rng.random(4) < 0.5) * (0.3, 0.2, 0.12, 0.12)
    less = rng.uniform(0, 0.05 if whole else 0.1, 4)
    if whole:
        more[SIDES.index(whole)] = 0
    add, cut = (more * side).astype(int), (less * side).astype(int)
    wide = np.pad(image, ((add[0], add[1]), (add[2], add[3])), mode="edge")
    rows, columns = wide.shape
    return _resized(wide[cut[0] : rows - cut[1], cut[2] : columns - cut[3]], side)


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
    COEFFICIENTS.write_text(json.dumps(fit(600), indent=None, separators=(",", ":")) + "\n", encoding="utf-8")
