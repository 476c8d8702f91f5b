"""Rectangles of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Box:
    """A rectangle of pixels; x1 and y1 are the first outside."""

    x0: int
    y0: int
    x1: int
    y1: int

    def as_list(self) -> list[int]:
        """x0, y0, x1, y1."""
        return [self.x0, self.y0, self.x1, self.y1]

    @property
    def area(self) -> int:
        """In pixels."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)

    def scaled(self, factor: int, rows: int, cols: int) -> Box:
        """The same place in an image `factor` times as large, of at most that size."""
        x1, y1 = min(self.x1 * factor, cols), min(self.y1 * factor, rows)
        return Box(self.x0 * factor, self.y0 * factor, x1, y1)

    def moved(self, x: int, y: int) -> Box:
        """The same, so much further to the right and below."""
        return Box(self.x0 + x, self.y0 + y, self.x1 + x, self.y1 + y)

    def meets(self, other: Box) -> bool:
        """Whether they share a pixel."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

    def shared(self, other: Box) -> int:
        """The area that both have, in pixels."""
        wide = min(self.x1, other.x1) - max(self.x0, other.x0)
        high = min(self.y1, other.y1) - max(self.y0, other.y0)
        return max(wide, 0) * max(high, 0)

    def share_in(self, others: list[Box]) -> float:
        """The share of its pixels that lie in any of the others."""
        near = [other for other in others if self.meets(other)]
        if len(near) < 2:
            return self.shared(near[0]) / max(self.area, 1) if near else 0.0
        inside = np.zeros((self.y1 - self.y0, self.x1 - self.x0), bool)
        for box in near:
            inside[max(box.y0 - self.y0, 0) : box.y1 - self.y0, max(box.x0 - self.x0, 0) : box.x1 - self.x0] = True
        return float(inside.mean())

    def joined(self, other: Box) -> Box:
        """The smallest box around both."""
        corner = min(self.x0, other.x0), min(self.y0, other.y0)
        return Box(*corner, max(self.x1, other.x1), max(self.y1, other.y1))
