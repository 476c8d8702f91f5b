from __future__ import annotations

from pathlib import Path

import pytest
import torch

from radia.base_weights import resolve
from radia.errors import CheckpointError
from radia.findings import FINDINGS
from radia.model import save_checkpoint


def test_random_weights_say_that_no_finding_is_known_yet() -> None:
    base = resolve("random", backbone="densenet-slim", side=64, seed=4)
    assert base.checkpoint.initialised == FINDINGS
    assert base.checkpoint.source == "random"
    assert base.model.preprocessing.side == 64


def test_a_folder_is_a_checkpoint(tmp_path: Path) -> None:
    first = resolve("random", backbone="densenet-slim", seed=4)
    save_checkpoint(tmp_path / "base", first.model, first.checkpoint)
    again = resolve(str(tmp_path / "base"))
    assert again.checkpoint == first.checkpoint
    assert torch.equal(again.model.head.weight, first.model.head.weight)


def test_a_name_that_is_neither_is_an_error_that_says_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.json is missing"):
        resolve(str(tmp_path / "nowhere"))
