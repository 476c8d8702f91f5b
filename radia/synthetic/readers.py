"""Readers of the embedded hospital: they read blind and err at known rates, since no radiologist is at hand.

They stand in where real people read: everything that comes of them says so. A reader's errors follow from the seed, the
study and the finding, so that the same reader says the same of the same study whenever asked.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class SimulatedReader:
    """A reader who finds `sensitivity` of what is there, and calls `1 - specificity` of what is not."""

    name: str
    sensitivity: float
    specificity: float

    def read(self, truth: pd.DataFrame, *, seed: int, look: int = 0) -> pd.DataFrame:
        """What this reader says of each study and finding: 1 or 0, in the shape of the truth (1, 0).

        look: 0 for the first time, 1 for the second, which errs anew on half of the cells (some errors are habits).
        """
        first = self._draws(truth, seed, 0)
        draws = first if look == 0 else np.where(self._draws(truth, seed, 2) < 0.5, self._draws(truth, seed, 1), first)
        present = truth.to_numpy() == 1
        said = np.where(present, draws < self.sensitivity, draws >= self.specificity)
        return pd.DataFrame(said.astype(np.float64), index=truth.index, columns=truth.columns)

    def _draws(self, truth: pd.DataFrame, seed: int, stream: int) -> NDArray[np.float64]:
        """Uniform numbers [n, f] that depend on nothing but reader, seed, study and stream."""
        rows = [
            np.random.default_rng(
                list(hashlib.sha256(f"{self.name}\0{seed}\0{study}\0{stream}".encode()).digest())
            ).random(truth.shape[1])
            for study in truth.index
        ]
        return np.array(rows).reshape(truth.shape)


READERS = (
    SimulatedReader("simulated reader A", sensitivity=0.90, specificity=0.97),
    SimulatedReader("simulated reader B", sensitivity=0.86, specificity=0.98),
)
ADJUDICATOR = SimulatedReader("simulated adjudicator", sensitivity=0.96, specificity=0.99)
