"""What a killed training goes on from: the last two epochs' states, also where one is damaged or the disk is full."""

from __future__ import annotations

import errno
import logging
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from radia.errors import StorageFull, TrainingError
from radia.fit import FitResult, fit
from radia.fit import state as states
from radia.model import ChestModel, Preprocessing, build
from radia.settings import FinetuneSettings
from radia.synthetic.phantom import InMemory

SETTINGS = FinetuneSettings(epochs=4, batch_size=8, learning_rate=3e-3, threads=1, precision="32-true", device="cpu")
STEPS = 2
"""Steps an epoch."""


def slim() -> ChestModel:
    return build("densenet-slim", preprocessing=Preprocessing(32), seed=0)


def trained(resume: Path | None = None, *, dies_at: int = 0, **options: Any) -> FitResult:
    """A short training; it is interrupted after so many steps."""
    rng = np.random.default_rng(3)
    targets = (rng.random((22, 14)) < 0.5).astype(np.float32)

    def tick(done: int, _total: int) -> None:
        if done == dies_at:
            raise KeyboardInterrupt

    return fit(
        slim(),
        images=InMemory(rng.integers(0, 256, (22, 32, 32), dtype=np.uint8)),
        ids=np.arange(22).astype(str),
        targets=targets,
        weights=np.ones_like(targets),
        train=np.arange(22) >= 8,
        validation=np.arange(22) < 8,
        settings=SETTINGS.model_copy(update=options),
        seed=5,
        resume=resume,
        progress=tick,
    )


def interrupted(resume: Path, *, after_epoch: int, **options: Any) -> list[Path]:
    """The states that a training leaves which dies in the epoch after this one, the newest first."""
    with pytest.raises(KeyboardInterrupt):
        trained(resume, dies_at=after_epoch * STEPS + 1, **options)
    return sorted(resume.glob("*.state"), reverse=True)


def same(first: FitResult, second: FitResult) -> bool:
    a, b = first.model.state_dict(), second.model.state_dict()
    return first.history == second.history and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole() -> FitResult:
    """The training that nothing disturbed."""
    return trained()


def test_the_last_two_epochs_are_kept(tmp_path: Path) -> None:
    assert [path.stem[-5:] for path in interrupted(tmp_path, after_epoch=3)] == ["00003", "00002"]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:1000], id="cut"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[:-500] + bytes(500), id="zeros at its end"),
        pytest.param(lambda content: content[:20000] + bytes([content[20000] ^ 1]) + content[20001:], id="one bit"),
    ],
)
def test_where_the_newest_is_damaged_the_one_before_is_gone_on_with(
    tmp_path: Path, whole: FitResult, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    newest, _ = interrupted(tmp_path, after_epoch=3)
    newest.write_bytes(damage(newest.read_bytes()))
    with caplog.at_level(logging.INFO):
        resumed = trained(tmp_path)
    assert f"{newest.name} is damaged" in caplog.text
    assert "going on after epoch 2" in caplog.text
    assert same(resumed, whole)


def test_where_none_is_whole_a_person_is_asked(tmp_path: Path) -> None:
    for path in interrupted(tmp_path, after_epoch=3):
        path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"no state in .* is whole \(2 damaged\): delete them"):
        trained(tmp_path)


def test_a_process_killed_while_it_writes_leaves_the_epoch_before(tmp_path: Path, whole: FitResult) -> None:
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        written = os.fsync

        def killed(file: int) -> None:
            killed.calls += 1
            if killed.calls == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            written(file)

        killed.calls = 0
        os.fsync = killed
        try:
            trained(tmp_path)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert [path.stem[-5:] for path in sorted(tmp_path.glob("*.state"))] == ["00001", "00002"]
    assert same(trained(tmp_path), whole)


def test_the_moving_average_is_gone_on_with(tmp_path: Path) -> None:
    interrupted(tmp_path, after_epoch=2, average=0.9)
    assert same(trained(tmp_path, average=0.9), trained(average=0.9))


class TestDisk:
    def test_a_disk_without_room_is_said_before_the_first_step(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.leave(monkeypatch, 1_000_000)
        with pytest.raises(StorageFull, match=r"1 MB free where the training keeps its state, \d+ MB needed"):
            trained(tmp_path, dies_at=1)

    def test_what_the_run_keeps_already_needs_no_room(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        kept = interrupted(tmp_path, after_epoch=3)
        size = states.SIZE_OF_STATE * sum(tensor.nbytes for tensor in slim().state_dict().values())
        self.leave(monkeypatch, (states.KEPT + 1) * size - sum(path.stat().st_size for path in kept))
        assert same(trained(tmp_path), trained())

    def test_a_disk_that_fills_up_while_the_state_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(_file: int) -> None:
            raise OSError(errno.ENOSPC, "no space")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StorageFull, match="no room left on the disk"):
            trained(tmp_path)
        assert list(tmp_path.glob("*.state")) == []

    @staticmethod
    def leave(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
        monkeypatch.setattr(states.shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
