"""How like its training images an image looks to a model: the distance of its pooled features from theirs.

What belongs here: the distance, its limit, and how both are kept beside a checkpoint. What does not: whether an image
is a chest radiograph at all (frontal.py), and where features come from (predict.py).

The distance is Mahalanobis' (Lee et al., A simple unified framework for detecting out-of-distribution samples, NeurIPS
2018) with one covariance for all images and Ledoit and Wolf's shrinkage, because a small site has fewer images than a
network has features. Mean and covariance are kept and no image's own features: nothing in the file is of one patient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from radia.errors import CheckpointError

if TYPE_CHECKING:
    from radia.model import ChestModel

FILE = "familiarity.safetensors"
MOST_ROWS = 5000
"""Training images that the mean and the covariance are estimated from; more change nothing that can be seen."""
REFUSED_SHARE = 0.005
"""Of images like those of validation, so many lie beyond the limit."""
LEAST_ROWS = 20

CHUNK = 64

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Familiarity:
    """mean: [channels]. whitening: [channels, channels], lower triangular. limit: distances above it are unfamiliar."""

    mean: Floats
    whitening: Floats
    limit: float

    def distance(self, features: Floats) -> Floats:
        """Mahalanobis' distance by the root of the number of channels, [n]: about 1 for training images."""
        return _distance(features, self.mean, self.whitening)


Ids = Sequence[str] | NDArray[Any]


def learn_from(
    model: ChestModel, read: Callable[[Sequence[str]], NDArray[np.uint8]], *, train: Ids, validation: Ids
) -> Familiarity | None:
    """What the model makes of its training and validation images, by their ids; None where there are too few.

    read: the images of some ids, as ImageStore.read. Of many training images, MOST_ROWS at even distances are read.
    """
    from radia.predict import predict

    def features(ids: Ids) -> Floats:
        chosen = np.unique(np.linspace(0, len(ids) - 1, min(len(ids), MOST_ROWS)).astype(int))
        chunks: Iterator[NDArray[Any]] = (
            read([ids[row] for row in chosen[start : start + CHUNK]]) for start in range(0, len(chosen), CHUNK)
        )
        return predict(model, chunks).features

    return learn(features(train), features(validation))


def learn(train: Floats, validation: Floats) -> Familiarity | None:
    """From pooled features [n, channels] of training and validation images; None where there are too few of either.

    The limit is the quantile of the validation distances that a new image like them passes with a chance of at most
    REFUSED_SHARE (Vovk's conformal quantile); with fewer than 199 validation images, that share cannot be seen in
    them, and the limit lies as far beyond the greatest distance as the greatest lies beyond the median.
    """
    from sklearn.covariance import LedoitWolf

    train, validation = _usable(train), _usable(validation)
    if len(train) < LEAST_ROWS or len(validation) < LEAST_ROWS:
        return None
    fitted = LedoitWolf().fit(train.astype(np.float64))
    covariance = fitted.covariance_ + 1e-9 * np.trace(fitted.covariance_) / len(fitted.covariance_) * np.eye(
        train.shape[1]
    )
    whitening = np.linalg.inv(np.linalg.cholesky(covariance)).astype(np.float32)
    mean = fitted.location_.astype(np.float32)
    return Familiarity(mean, whitening, _limit(_distance(validation, mean, whitening)))


def save(folder: Path, familiarity: Familiarity) -> None:
    """Writes it into the folder of a checkpoint."""
    from safetensors.numpy import save as encoded

    tensors: dict[str, NDArray[Any]] = {
        "mean": familiarity.mean,
        "whitening": np.ascontiguousarray(familiarity.whitening),
        "limit": np.array([familiarity.limit], np.float64),
    }
    (folder / FILE).write_bytes(encoded(tensors))


def load(folder: Path) -> Familiarity | None:
    """What is kept beside a checkpoint; None where nothing is. Raises CheckpointError where it is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as decoded

    path = folder / FILE
    if not path.exists():
        return None
    try:
        tensors = decoded(path.read_bytes())
        mean, whitening, limit = (tensors[name] for name in ("mean", "whitening", "limit"))
    except (OSError, SafetensorError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged: not readable as safetensors of a familiarity") from error
    square = whitening.shape == (*mean.shape, *mean.shape)
    if not square or limit.shape != (1,) or not all(np.isfinite(value).all() for value in (mean, whitening, limit)):
        raise CheckpointError(f"{path} is damaged: its tensors are not those of a familiarity")
    return Familiarity(mean, whitening, float(limit[0]))


def _distance(features: Floats, mean: Floats, whitening: Floats) -> Floats:
    apart = (features.astype(np.float32) - mean) @ whitening.T
    return np.asarray(np.sqrt((apart**2).mean(axis=1)), dtype=np.float32)


def _limit(distances: Floats) -> float:
    ordered = np.sort(distances.astype(np.float64))
    rank = int(np.ceil((len(ordered) + 1) * (1 - REFUSED_SHARE)))
    if rank <= len(ordered):
        return float(ordered[rank - 1])
    return float(2 * ordered[-1] - np.median(ordered))


def _usable(features: Floats) -> Floats:
    return np.asarray(features[np.isfinite(features).all(axis=1)], dtype=np.float32)
