"""Trainings by several workers on CPUs: the losses of one worker, uneven batches, and a worker that is killed."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from radia.errors import SettingsError, ShardDamaged, TrainingError
from radia.fit import FitResult, fit, train
from radia.model import ChestModel, Preprocessing, build
from radia.settings import FinetuneSettings, TrainSettings
from radia.synthetic.phantom import InMemory

N = 30
SETTINGS = FinetuneSettings(epochs=2, batch_size=11, learning_rate=1e-4, threads=1, precision="32-true", device="cpu")
"""Of two workers, one has six images of a batch and the other five."""
TWO = TrainSettings(workers=2, restarts=0)


class Deadly(InMemory):
    """Kills the process of the worker that reads so many times as the second of several; once."""

    def __init__(self, images: NDArray[np.uint8], at: int, mark: Path) -> None:
        super().__init__(images)
        self.at, self.mark, self.reads = at, mark, 0

    def read(self, ids: Sequence[str]) -> NDArray[np.uint8]:
        self.reads += 1
        if self.reads == self.at and os.environ.get("RANK") == "1" and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(ids)


class Silent(InMemory):
    """Stops the second worker in its second epoch; once. It does not die: nobody hears of it any more."""

    def __init__(self, images: NDArray[np.uint8], mark: Path) -> None:
        super().__init__(images)
        self.mark, self.reads = mark, 0

    def read(self, ids: Sequence[str]) -> NDArray[np.uint8]:
        self.reads += 1
        if self.reads == 6 and os.environ.get("RANK") == "1" and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().read(ids)


class Crowded:
    """The second worker has room for three images only, from its third step on: the second epoch of two steps each."""

    steps = 0

    def __call__(self, model: ChestModel, inputs: tuple[torch.Tensor, ...]) -> None:
        if not model.training or os.environ.get("RANK") != "1":
            return
        self.steps += 1
        if self.steps > 2 and len(inputs[0]) > 3:
            raise torch.OutOfMemoryError


class Damaged(InMemory):
    """A shard that is damaged for the second worker."""

    def read(self, ids: Sequence[str]) -> NDArray[np.uint8]:
        if os.environ.get("RANK") == "1":
            raise ShardDamaged("shard A/shard-00000.u8 is missing")
        return super().read(ids)


def slim() -> ChestModel:
    return build("densenet-slim", preprocessing=Preprocessing(32), seed=0)


def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (N, 32, 32), dtype=np.uint8)


def known(**options: Any) -> dict[str, Any]:
    """A small training; other settings by name."""
    targets = (np.random.default_rng(4).random((N, 14)) < 0.5).astype(np.float32)
    call = {
        "images": InMemory(pixels()),
        "ids": np.arange(N).astype(str),
        "targets": targets,
        "weights": np.ones_like(targets),
        "train": np.arange(N) >= 8,
        "validation": np.arange(N) < 8,
        "settings": SETTINGS,
        "seed": 5,
    }
    return call | options


def same_curve(several: FitResult, one: FitResult) -> None:
    assert [e["loss"] for e in several.history[1:]] == pytest.approx([e["loss"] for e in one.history[1:]], rel=1e-4)
    assert [e["validation_auroc"] for e in several.history] == pytest.approx(
        [e["validation_auroc"] for e in one.history], abs=0.02
    )


@pytest.fixture(scope="module")
def one() -> FitResult:
    return fit(slim(), **known())


def test_two_workers_have_the_loss_curve_of_one_and_tell_as_one_does(
    one: FitResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    steps: list[tuple[int, int]] = []
    epochs: list[tuple[int, tuple[int, ...]]] = []
    with caplog.at_level(logging.INFO):
        two = train(
            slim(),
            where=TWO,
            resume=tmp_path / "state",
            progress=lambda done, total: steps.append((done, total)),
            on_epoch=lambda entry, probabilities: epochs.append((entry["epoch"], probabilities.shape)),
            **known(),
        )
    same_curve(two, one)
    assert two.training["workers"] == 2
    assert two.thresholds.keys() == one.thresholds.keys()
    assert not two.model.training
    assert steps[-1] == (4, 4)
    assert epochs == [(1, (8, 14)), (2, (8, 14))]
    assert caplog.text.count("trained on 22 images") == 1
    assert list(tmp_path.iterdir()) == []


class TestADeadWorker:
    """The second worker is killed in its second epoch."""

    @pytest.fixture(scope="class")
    def twice(self, tmp_path_factory: pytest.TempPathFactory) -> tuple[FitResult, Path]:
        """The training after it was run again."""
        folder = tmp_path_factory.mktemp("killed")
        # one image for the size of the images, eight to validate, two a batch and epoch, eight to validate again
        options = known(images=Deadly(pixels(), 6, folder / "dead"))
        with pytest.raises(TrainingError, match=r"a worker of the training died.*run again, and the training goes on"):
            train(slim(), where=TWO, resume=folder / "state", **options)
        kept = [path.stem[-5:] for path in (folder / "state").glob("*.state")]
        assert kept == ["00001"]
        return train(slim(), where=TWO, resume=folder / "state", **options), folder

    def test_a_run_after_it_ends_as_if_nothing_had_been(self, one: FitResult, twice: tuple[FitResult, Path]) -> None:
        same_curve(twice[0], one)

    def test_nothing_is_left_of_it(self, twice: tuple[FitResult, Path]) -> None:
        assert sorted(path.name for path in twice[1].iterdir()) == ["dead"]


def test_an_error_of_the_training_is_raised_as_it_is_and_tried_once(tmp_path: Path) -> None:
    where = TrainSettings(workers=2, restarts=5)
    with pytest.raises(ShardDamaged, match=r"shard-00000\.u8 is missing"):
        train(slim(), where=where, resume=tmp_path / "state", **known(images=Damaged(pixels())))


def test_out_of_memory_in_one_worker_halves_the_part_of_all_and_keeps_the_batch(
    one: FitResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = slim()
    model.register_forward_pre_hook(Crowded())
    with caplog.at_level(logging.INFO):
        two = train(model, where=TWO, resume=tmp_path / "state", **known())
    assert "out of memory in a worker: all go on from the last epoch, with 3 images at once" in caplog.text
    assert "going on after epoch 1" in caplog.text
    assert (two.training["batch_size"], two.training["micro_batch"]) == (11, 3)
    assert [entry["epoch"] for entry in two.history] == [0, 1, 2]
    assert two.history[1]["loss"] == pytest.approx(one.history[1]["loss"], rel=1e-4)
    assert two.history[2]["loss"] == pytest.approx(one.history[2]["loss"], rel=0.05)  # batch norms of other parts


def test_a_worker_that_is_not_heard_of_counts_as_lost(
    one: FitResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    where = TrainSettings(workers=2, restarts=5, wait_seconds=30)
    two = train(slim(), where=where, resume=tmp_path / "state", **known(images=Silent(pixels(), tmp_path / "silent")))
    assert (tmp_path / "silent").exists()
    assert "all are started again, from the last epoch" in caplog.text
    same_curve(two, one)


def test_one_process_is_this_one(one: FitResult) -> None:
    here = train(slim(), where=TrainSettings(), **known())
    assert here.history == one.history
    assert "workers" not in here.training


def test_torchrun_starts_workers_too_also_where_the_trunk_rests_and_parts_are_uneven(tmp_path: Path) -> None:
    script = (
        "import os, json, sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.unit.test_fit_launch import SETTINGS, fit, known, slim\n"
        "settings = SETTINGS.model_copy(update={'micro_batch': 5, 'probe_epochs': 1})\n"
        "history = fit(slim(), **known(settings=settings)).history\n"
        "os.environ['RANK'] == '0' and json.dump(history, open(sys.argv[2], 'w'))\n"
    )
    (tmp_path / "worker.py").write_text(script)
    command = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    root = Path(__file__).resolve().parents[2]
    subprocess.run(
        [*command, tmp_path / "worker.py", root, tmp_path / "history.json"],
        check=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    losses = [entry["loss"] for entry in json.loads((tmp_path / "history.json").read_text())[1:]]
    assert losses == pytest.approx([0.7, 0.7], abs=0.1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_no_process_starts_for_a_device_that_is_not_there() -> None:
    with pytest.raises(TrainingError, match="CUDA was asked for"):
        train(slim(), where=TWO, **known(settings=SETTINGS.model_copy(update={"device": "cuda"})))


def test_ray_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"train\.backend is ray, which is not installed"):
        train(slim(), where=TrainSettings(backend="ray"), **known())


def test_workers_of_ray_train_go_on_after_one_was_killed_and_have_the_loss_curve_of_one(
    one: FitResult, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'radia[ray]'")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")  # other tests need memory too
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's workers do not know this file
    steps: list[tuple[int, int]] = []
    with caplog.at_level(logging.INFO):
        two = train(
            slim(),
            where=TrainSettings(backend="ray", workers=2, restarts=1),
            resume=tmp_path / "state",
            progress=lambda done, total: steps.append((done, total)),
            **known(images=Deadly(pixels(), 6, tmp_path / "dead")),
        )
    assert (tmp_path / "dead").exists()
    assert "going on after epoch 1" in caplog.text
    same_curve(two, one)
    assert two.training["backend"] == "ray"
    assert steps[-1] == (4, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["dead"]
