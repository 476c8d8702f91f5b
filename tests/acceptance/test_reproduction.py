"""A registered model is brought back with everything it was made from, and made again to the bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from radia import digests, snapshot, steps
from radia.errors import NotReproducible, UnknownId
from radia.model import build, read_checkpoint, save_checkpoint
from radia.steps import open_run, recorded
from radia.workspace import Workspace

from .conftest import EmbeddedSite

pytestmark = pytest.mark.xdist_group("main-job")


def test_a_model_is_made_again_to_the_bit_from_what_was_brought_back(site: EmbeddedSite, tmp_path: Path) -> None:
    run = open_run()
    (registered,) = recorded(run.workspace, "finetune")
    restored = steps.restore(run, "1", tmp_path / "again")
    assert restored.snapshot == steps.current_snapshot(run).digest
    found = snapshot.load(Workspace(tmp_path / "again").snapshots, restored.snapshot)
    assert found.images.equals(steps.current_snapshot(run).images)

    made = steps.reproduce(run, "1", tmp_path / "again")
    assert made.exact
    assert made.difference == 0.0
    assert digests.of_folder(tmp_path / "again" / "models" / "candidate") == registered.outputs["checkpoint"]


def test_a_model_that_comes_out_differently_is_named(site: EmbeddedSite, tmp_path: Path) -> None:
    run, target = open_run(), tmp_path / "again"
    steps.restore(run, "cxr-candidate/1", target)
    known = read_checkpoint(target / "models" / "base")
    another = build(known.backbone, preprocessing=known.preprocessing, seed=99)
    save_checkpoint(target / "models" / "base", another, known)
    with pytest.raises(NotReproducible, match="differs"):
        steps.reproduce(run, "1", target)
    assert json.loads((target / "evaluation" / "metrics.json").read_text())


def test_an_unknown_model_and_a_folder_in_use_are_refused(site: EmbeddedSite, tmp_path: Path) -> None:
    with pytest.raises(UnknownId, match="nearest: cxr-candidate/1"):
        steps.restore(open_run(), "7", tmp_path / "new")
    (tmp_path / "file").touch()
    with pytest.raises(NotReproducible, match="not empty"):
        steps.restore(open_run(), "1", tmp_path)
