"""How like the training images an image looks to a model: the limit, and what is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from radia.errors import CheckpointError
from radia.familiarity import FILE, Familiarity, learn, load, save

RNG = np.random.default_rng(4)
MIX = RNG.normal(size=(12, 12))


def features(n: int, *, moved: float = 0.0) -> np.ndarray:
    return (RNG.normal(size=(n, 12)) @ MIX + moved).astype(np.float32)


def learnt(validation: int = 400) -> Familiarity:
    found = learn(features(2000), features(validation))
    assert found is not None
    return found


def test_images_like_those_of_training_lie_within_the_limit_and_others_beyond() -> None:
    known = learnt()
    assert (known.distance(features(2000)) > known.limit).mean() < 0.02
    assert (known.distance(features(200, moved=30.0)) > known.limit).all()
    assert np.median(known.distance(features(500))) == pytest.approx(1, abs=0.2)


def test_a_direction_in_which_training_images_do_not_differ_counts_more() -> None:
    wide, narrow = np.eye(2, dtype=np.float32) * np.float32(3)
    spread = (RNG.normal(size=(3000, 2)) * [5, 0.1]).astype(np.float32)
    known = learn(spread[:2000], spread[2000:])
    assert known is not None
    along, across = known.distance(np.stack([wide, narrow]))
    assert along < known.limit < across


def test_too_few_images_say_nothing() -> None:
    assert learn(features(19), features(400)) is None
    assert learn(features(400), features(19)) is None


def test_few_validation_images_leave_room_beyond_the_greatest() -> None:
    few = features(30)
    known = learn(features(2000), few)
    assert known is not None
    assert known.limit > known.distance(few).max()


def test_what_is_kept_comes_back_and_a_damaged_file_is_told(tmp_path: Path) -> None:
    known = learnt()
    assert load(tmp_path) is None
    save(tmp_path, known)
    again = load(tmp_path)
    assert again is not None
    assert np.array_equal(again.distance(features(5)[:1] * 0), known.distance(features(5)[:1] * 0))
    assert again.limit == known.limit
    (tmp_path / FILE).write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="is damaged"):
        load(tmp_path)
