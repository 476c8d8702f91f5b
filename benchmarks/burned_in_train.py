"""Learns where lines of text may be, from strokes: the few numbers of radia/dicom/rules/writing.csv.

usage: python benchmarks/burned_in_train.py OUT.csv [IMAGES [STEPS]]     (without OUT nothing is learned)

Three small convolutions over the features of `burned_in_strokes`, fitted to generated images (burned_in_scenes) in the
fonts that are not held out. Lines of a level are those whose font is 10 to 30 of its pixels high; others do not count.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from burned_in_scenes import Gray, Ink, burn, phantoms, scenes

from radia.dicom.burned_in import Box
from radia.dicom.burned_in_places import turned
from radia.dicom.burned_in_strokes import features, levels, value_range

SEED = 9_000_000
SIZE = 40  # steps: the side of a piece that is learned from
CHANNELS = 8
Piece = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def pieces(stored: Gray, chance: random.Random) -> list[Piece]:
    """Pieces of an image with text: features, whether there is text, what counts."""
    taken: list[Box] = []
    inks: list[Ink] = []
    for _ in range(chance.choice((2, 4, 8))):
        inks += burn(stored, chance, taken, held_out=False)
    for marker in chance.sample(("DEBOUT", "PORTABLE", "SUPINE", "COUCHÉ"), 1):
        inks += burn(stored, chance, taken, marker=marker, held_out=False)
    made: list[Piece] = []
    for level in levels(stored, value_range(stored)):
        seen = features(level)
        for standing in (False, True):
            text, unknown = _targets(stored.shape, inks, taken, level.scale, seen.shape[1:], standing=standing)
            values = turned(seen) if standing else seen
            target, weight = (text.T, 1 - unknown.T) if standing else (text, 1 - unknown)
            made += _cut(values, target, weight, chance)
    return made


def _targets(
    shape: tuple[int, ...], inks: list[Ink], taken: list[Box], scale: int, grid: tuple[int, ...], *, standing: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    text, unknown = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    for box in taken:
        edge = 4 * scale
        unknown[max(box.y0 - edge, 0) : box.y1 + edge, max(box.x0 - edge, 0) : box.x1 + edge] = 1
    for ink in inks:
        upright = ink.traits.get("turned", 0) in (90, 270)
        (y, x), high = (ink.at[1], ink.at[0]), int(ink.traits.get("height", 32)) / scale
        rows, cols = np.flatnonzero(ink.ink.any(axis=1)), np.flatnonzero(ink.ink.any(axis=0))
        place = np.s_[y + rows[0] : y + rows[-1] + 1, x + cols[0] : x + cols[-1] + 1]
        if upright == standing and 10 <= high <= 30:
            text[place], unknown[place] = 1, 0
        elif upright != standing:
            unknown[place] = 0 if 14 <= high <= 24 else 1
    size = (grid[1], grid[0])
    covered = cv2.resize(text.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    doubtful = cv2.resize(unknown.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0
    return (covered >= 0.4).astype(np.float32), np.where(covered >= 0.4, 0, doubtful).astype(np.float32)


def _cut(
    values: NDArray[np.float32], target: NDArray[np.float32], weight: NDArray[np.float32], chance: random.Random
) -> list[Piece]:
    """Some about text, some where strokes are dense."""
    rows, cols = target.shape
    if min(rows, cols) < SIZE:
        return []
    dense = cv2.blur(np.maximum(values[0], values[7]), (9, 3))
    made = []
    for where, number in ((np.argwhere(target > 0), 6), (np.argwhere((dense > 0.2) & (target == 0)), 4)):
        for _ in range(number if len(where) else 0):
            y, x = where[chance.randrange(len(where))] - [chance.randrange(SIZE), chance.randrange(SIZE)]
            y, x = int(np.clip(y, 0, rows - SIZE)), int(np.clip(x, 0, cols - SIZE))
            cut = np.s_[..., y : y + SIZE, x : x + SIZE]
            made.append((values[cut].astype(np.float16), target[cut].astype(bool), weight[cut].astype(np.float16)))
    return made


def network() -> torch.nn.Sequential:
    """As `burned_in_places.heat` computes it."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(14, CHANNELS, 1), torch.nn.ReLU(),
        torch.nn.Conv2d(CHANNELS, CHANNELS, (3, 5), padding=(1, 2)), torch.nn.ReLU(),
        torch.nn.Conv2d(CHANNELS, CHANNELS, (3, 7), padding=(2, 6), dilation=2), torch.nn.ReLU(),
        torch.nn.Conv2d(CHANNELS, 1, 1),
    )  # fmt: skip


def fit(known: list[Piece], steps: int) -> torch.nn.Sequential:
    """Adam on random batches; either ink may be the lighter one, and a line may be read backwards."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng, model = np.random.default_rng(0), network()
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 8e-3, total_steps=steps)
    seen, there, counts = (np.stack([piece[n] for piece in known]) for n in range(3))
    for step in range(steps):
        batch = rng.integers(0, len(seen), 32)
        values = torch.from_numpy(seen[batch].astype(np.float32))
        target, weight = (torch.from_numpy(part[batch].astype(np.float32)) for part in (there, counts))
        if rng.random() < 0.5:
            values = torch.cat([values[:, 7:], values[:, :7]], 1)
        if rng.random() < 0.5:
            values, target, weight = values.flip(-2), target.flip(-2), weight.flip(-2)
        loss = (
            torch.nn.functional.binary_cross_entropy_with_logits(
                model(values)[:, 0], target, weight * (1 + target), reduction="sum"
            )
            / weight.sum()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step}: {float(loss):.4f}", flush=True)
    return model


def main(out: Path, images: int, steps: int) -> None:
    """Writes the numbers, one tensor a line: its shape, then its values."""
    known: list[Piece] = []
    sources = [(phantoms, 1024, 1), (scenes, 720, 1), (scenes, 1500, 4), (phantoms, 2000, 8)]
    for source, side, share in sources:
        for number, stored in zip(range(images // share), source(side, SEED), strict=False):
            known += pieces(stored.copy(), random.Random(f"{SEED} {side} {number}"))
    print(len(known), "pieces", f"{time.process_time():.0f} s", flush=True)
    model = fit(known, steps)
    lines = []
    for tensor in model.parameters():
        values = tensor.detach().numpy()
        shape = "x".join(str(size) for size in values.shape)
        lines.append(",".join([shape, *(f"{value:.3f}" for value in values.ravel())]))
    out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    cv2.setNumThreads(1)
    if len(sys.argv) > 1:
        numbers = [int(text) for text in sys.argv[2:]]
        main(Path(sys.argv[1]), *(numbers or [100]), *([2500] if len(numbers) < 2 else []))
    else:
        print(__doc__)
