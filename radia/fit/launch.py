"""A training by several workers: processes of this machine, or workers of Ray Train on many.

Every worker runs `radia.fit.loop.fit`, unchanged, on its part of each batch. What the first of them has to tell (its
progress, its epochs, its log, how it ended) lies in a folder beside the kept state, from which it is told here as if
the training ran in this process. A worker that dies, or is not heard of for `train.wait_seconds`, ends all of them:
they are started again and go on from the last epoch, as often as `train.restarts` allows. Where a part of a batch does
not fit into the memory of one, that one leaves, and all go on from the last epoch with half of it at once.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import pickle
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir, mkdtemp
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from radia import errors
from radia.errors import DoesNotFit, RadiaError, TrainingError
from radia.fit.loop import FitResult, OnEpoch, Progress, fit
from radia.fit.setup import accelerator_of
from radia.fit.workers import lost_another
from radia.model import ChestModel, Preprocessing
from radia.workers import cluster
from radia.workspace import written_whole

if TYPE_CHECKING:
    from radia.settings import TrainSettings

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.2
_TELL_SECONDS = 0.5
"""Progress is told no more often: the folder may lie on another machine."""
_DIED = "a worker of the training died"
_LOST_ANOTHER = 75
"""Exit status of a process that has lost another (EX_TEMPFAIL)."""


def train(
    model: ChestModel,
    *,
    where: TrainSettings,
    resume: Path | None = None,
    progress: Progress | None = None,
    on_epoch: OnEpoch | None = None,
    **call: Any,
) -> FitResult:
    """`fit`, by as many workers as `where` says; one worker that is not Ray's is this process itself.

    call: everything else that `fit` takes. Images, judge and all that they hold are pickled. With Ray, the folder that
    `resume` lies in, and the shards, must be the same on every node.

    Raises what `fit` raises, TrainingError where workers die more often than they may be started again, SettingsError
    where Ray is wanted and not installed.
    """
    device = call["settings"].device
    if where.backend == "processes" and _processes(where, device) == 1:
        return fit(model, resume=resume, progress=progress, on_epoch=on_epoch, **call)
    beside = resume.parent.resolve() if resume else Path(gettempdir())
    beside.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".workers-", dir=beside) as folder:
        told = _Told(Path(folder), progress, on_epoch)
        state = resume.resolve() if resume else Path(folder) / "state"
        job = _packed({"model": model, "resume": state, **call})
        by = _by_ray if where.backend == "ray" else _by_processes
        try:
            with by(job, told, where, device) as (workers, attempt):
                _until_done(attempt, told, where.restarts)
        finally:
            told.look()
        return told.result(model, {"workers": workers, "backend": where.backend})


class _Died(Exception):
    """An attempt ended because a worker did, without an error of the training itself."""


def _until_done(attempt: Callable[[], None], told: _Told, restarts: int) -> None:
    """Lets the workers run until they end well. Raises the training's own error, and TrainingError."""
    left, fits = restarts, told.fits()
    while True:
        try:
            attempt()
        except _Died as died:
            if refused := told.refused():
                raise refused from None
            before, fits = fits, told.fits()
            if fits != before:
                log.warning("out of memory in a worker: all go on from the last epoch, with %d images at once", fits)
                continue
            if not left:
                raise _too_often(restarts, str(died)) from died
            left -= 1
            log.warning("%s (%s): all are started again, from the last epoch", _DIED, died)
        else:
            return


def _packed(call: Mapping[str, Any]) -> bytes:
    import cloudpickle

    packed: bytes = cloudpickle.dumps(dict(call))
    return packed


# --- in a worker ----------------------------------------------------------------------------------------------------


def _work(job: bytes, folder: Path) -> None:
    """The life of a worker, whoever started it; its number is in the environment."""
    telling = _Telling(folder, first=os.environ["RANK"] == "0")
    if telling.ended():  # it was another worker that died after the end
        return
    with telling.log():
        try:
            call = pickle.loads(job)  # noqa: S301  what train packed
            at_once = _fits(folder)
            result = fit(**call, progress=telling.progress, on_epoch=telling.epoch, at_once=at_once)
        except DoesNotFit as error:
            telling.fits(error.micro)
            raise
        except RadiaError as error:
            telling.error(error)
            raise
    if telling.first:
        telling.result(result)


def _fits(folder: Path) -> int | None:
    """How many images at once have not run out of memory yet; None where nothing has."""
    path = folder / "at-once"
    return int(path.read_text()) if path.exists() else None


class _Telling:
    """The folder as a worker writes it."""

    def __init__(self, folder: Path, *, first: bool) -> None:
        self.first = first
        self._folder = folder
        self._events = folder / "events.jsonl"
        self._next = 0.0

    def ended(self) -> bool:
        return (self._folder / "result.pt").exists() or (self._folder / "error.json").exists()

    def progress(self, done: int, total: int) -> None:
        if self.first and (done == total or time.monotonic() >= self._next):
            self._next = time.monotonic() + _TELL_SECONDS
            self._say({"progress": [done, total]})

    def epoch(self, entry: Mapping[str, Any], probabilities: NDArray[np.float32]) -> None:
        name = f"epoch-{entry['epoch']}.npy"
        with written_whole(self._folder / name) as partial, partial.open("wb") as file:
            np.save(file, probabilities)
        self._say({"epoch": entry, "probabilities": name})

    @contextmanager
    def log(self) -> Iterator[None]:
        """What RADIA logs in the first worker is told; in the others it is the same."""
        own, handler = logging.getLogger("radia"), _LogTo(self._say)
        if self.first:
            own.addHandler(handler)
            own.setLevel(logging.INFO)
        try:
            yield
        finally:
            own.removeHandler(handler)

    def error(self, error: RadiaError) -> None:
        with written_whole(self._folder / "error.json") as partial:
            partial.write_text(json.dumps({"kind": type(error).__name__, "message": str(error)}))

    def fits(self, images: int) -> None:
        with written_whole(self._folder / "at-once") as partial:
            partial.write_text(str(images))

    def result(self, result: FitResult) -> None:
        model = result.model
        values = asdict(replace(result, model=None))  # type: ignore[arg-type]
        known = {"preprocessing": asdict(model.preprocessing), "tree": model.tree, "views": model.views}
        with written_whole(self._folder / "result.pt") as partial:
            torch.save({"weights": model.state_dict(), "known": known, "values": values}, partial)

    def _say(self, event: Mapping[str, Any]) -> None:
        with self._events.open("a") as file:
            # a line that a dead worker left unfinished ends here
            file.write("\n" + json.dumps(event) + "\n")


class _LogTo(logging.Handler):
    def __init__(self, say: Callable[[Mapping[str, Any]], None]) -> None:
        super().__init__(logging.INFO)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say({"log": [record.name, record.levelno, record.getMessage()]})


# --- here -----------------------------------------------------------------------------------------------------------


@dataclass
class _Told:
    """The folder as it is read here."""

    folder: Path
    progress: Progress | None
    on_epoch: OnEpoch | None
    _read: int = 0
    _epoch: int = 0

    def look(self) -> None:
        """Tells what is new."""
        events = self.folder / "events.jsonl"
        if not events.exists():
            return
        with events.open("rb") as file:
            file.seek(self._read)
            lines = file.read().split(b"\n")
        self._read += sum(len(line) + 1 for line in lines[:-1])
        for line in filter(None, lines[:-1]):
            try:
                event = json.loads(line)
            except ValueError:  # a worker died while it wrote this
                continue
            self._tell(event)

    def _tell(self, event: Mapping[str, Any]) -> None:
        if "log" in event:
            name, level, message = event["log"]
            logging.getLogger(name).log(level, "%s", message)
        elif "progress" in event and self.progress:
            self.progress(*event["progress"])
        elif "epoch" in event and event["epoch"]["epoch"] > self._epoch:
            self._epoch = event["epoch"]["epoch"]
            if self.on_epoch:
                self.on_epoch(event["epoch"], np.load(self.folder / event["probabilities"]))

    def fits(self) -> int | None:
        """How many images at once the workers go on with, after one ran out of memory."""
        return _fits(self.folder)

    def refused(self) -> RadiaError | None:
        """The error that the training itself ended with."""
        path = self.folder / "error.json"
        if not path.exists():
            return None
        known = json.loads(path.read_text())
        error: RadiaError = RadiaError.__new__(getattr(errors, known["kind"], TrainingError))
        error.args = (known["message"],)
        return error

    def result(self, model: ChestModel, training: Mapping[str, Any]) -> FitResult:
        """The result, its weights in this process's model."""
        if error := self.refused():
            raise error
        path = self.folder / "result.pt"
        if not path.exists():
            raise TrainingError("the workers of the training ended without a result: see their log")
        kept = torch.load(path, map_location="cpu", weights_only=True)
        known, values = kept["known"], kept["values"]
        model.preprocessing = Preprocessing(**known["preprocessing"])
        model.tree, model.views = known["tree"], known["views"]
        model.load_state_dict(kept["weights"])
        values["training"] |= training
        return FitResult(**values | {"model": model.eval()})


def _too_often(restarts: int, how: str) -> TrainingError:
    again = f"{restarts} times again" if restarts else "and none may be started again (train.restarts)"
    return TrainingError(
        f"{_DIED}, {again}: {how}. Out of memory, killed, cut off, or its machine is gone. What was done is kept; run "
        "again, and the training goes on from its last epoch"
    )


# --- processes of this machine --------------------------------------------------------------------------------------


def _processes(where: TrainSettings, device: str) -> int:
    if accelerator_of(device) == "cpu":
        return where.workers or 1
    there = torch.cuda.device_count()
    if where.workers > there:
        raise TrainingError(f"train.workers is {where.workers}, and this machine has {there} GPUs")
    return where.workers or there


@contextmanager
def _by_processes(
    job: bytes, told: _Told, where: TrainSettings, device: str
) -> Iterator[tuple[int, Callable[[], None]]]:
    """How many processes of this machine there are, and what lets them run once."""
    count = _processes(where, device)
    log.info("training with %d processes", count)
    yield count, lambda: _run_processes(count, accelerator_of(device), job, told, where.wait_seconds)


def _run_processes(count: int, accelerator: str, job: bytes, told: _Told, patience: int) -> None:
    from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

    meeting = Path(mkdtemp()) / "workers"
    args = (count, accelerator, meeting, job, told.folder, patience)
    workers: Any = start_processes(_process, args, count, join=False, start_method="spawn")  # type: ignore[no-untyped-call]
    try:
        while not workers.join(timeout=_LOOK_SECONDS, grace_period=5):
            told.look()
    except ProcessExitedException as error:
        raise _Died(str(error)) from error
    except ProcessRaisedException as error:
        # what left with an error of the training has told it; another exception is a fault of the program
        killed = any(one.exitcode == -signal.SIGKILL for one in workers.processes)
        if killed or told.refused():
            raise _Died("killed") from error
        raise
    finally:
        for one in workers.processes:
            one.kill()
        shutil.rmtree(meeting.parent)


def _process(rank: int, count: int, accelerator: str, meeting: Path, job: bytes, folder: Path, patience: int) -> None:
    """One of `count` processes of this machine. They meet in a file and talk through this machine alone."""
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ.update({name: str(value) for name, value in here.items()})
    os.environ.update({"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"})
    if accelerator == "cuda":
        torch.cuda.set_device(rank)
    backend = "nccl" if accelerator == "cuda" else "gloo"
    try:
        torch.distributed.init_process_group(
            backend, init_method=meeting.as_uri(), rank=rank, world_size=count, timeout=timedelta(seconds=patience)
        )
    except RuntimeError:  # of all kinds, gloo's without a class of its own: another did not come
        sys.exit(_LOST_ANOTHER)
    try:
        _work(job, folder)
    except DoesNotFit:
        sys.exit(_LOST_ANOTHER)
    except RuntimeError as error:
        if lost_another(error):
            sys.exit(_LOST_ANOTHER)
        raise
    finally:
        torch.distributed.destroy_process_group()


# --- Ray Train ------------------------------------------------------------------------------------------------------


@contextmanager
def _by_ray(job: bytes, told: _Told, where: TrainSettings, device: str) -> Iterator[tuple[int, Callable[[], None]]]:
    """How many workers of Ray there are, and what lets them run once."""
    # a cluster may take minutes to start a machine, or to get a lost one back; and paths stay what they are
    unless_set = {
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(where.wait_seconds),
        "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": str(where.wait_seconds),
        "RAY_CHDIR_TO_TRIAL_DIR": "0",
    }
    if not where.ray_address:
        unless_set["GLOO_SOCKET_IFNAME"] = "lo"
    here = cluster(where.ray_address, cores=where.workers or 1, wanted_by="train")
    with _environment(unless_set), here as ray:
        gpus = 0 if device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
        if device == "cuda" and gpus < max(1, where.workers):
            raise TrainingError(f"CUDA was asked for, and the Ray cluster has {gpus} GPUs for {where.workers} workers")
        count = where.workers or gpus or 1
        use_gpu = gpus >= count
        log.info("training with %d workers of Ray, %s", count, "a GPU each" if use_gpu else "without GPUs")
        config = {"job": ray.put(job), "folder": str(told.folder), "gpu": use_gpu}
        names = (f"ray-{number}" for number in itertools.count(1))
        yield count, lambda: _run_ray(config, told, name=next(names), count=count, patience=where.wait_seconds)


@contextmanager
def _environment(unless_set: Mapping[str, str]) -> Iterator[None]:
    """With these variables where the administrator has not set them."""
    own = {name: value for name, value in unless_set.items() if name not in os.environ}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)


def _run_ray(config: dict[str, Any], told: _Told, *, name: str, count: int, patience: int) -> None:
    from ray.exceptions import RayError
    from ray.train import RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.config import FailureConfig  # ray.train's own, typed as what it is

    trainer = TorchTrainer(
        _ray_worker,
        train_loop_config=config,
        torch_config=TorchConfig(timeout_s=patience),
        scaling_config=ScalingConfig(num_workers=count, use_gpu=config["gpu"]),
        # Ray itself would wait for ever for a node that does not come back: _until_done counts
        run_config=RunConfig(
            name=name, storage_path=str(told.folder), failure_config=FailureConfig(controller_failure_limit=0)
        ),
    )
    with ThreadPoolExecutor(1) as aside:
        running = aside.submit(trainer.fit)
        while not wait([running], _LOOK_SECONDS).done:
            told.look()
    try:
        running.result()
    except TrainingFailedError as error:
        raise _Died(_why(error)) from error
    except RayError as error:  # what looks after the workers is gone, and with it this process's place in the cluster
        raise TrainingError(
            f"Ray ended where the training was called ({_why(error)}). What was done is kept; run again once the "
            "cluster is there, and the training goes on from its last epoch"
        ) from error


def _why(error: Exception) -> str:
    """What Ray says of it, in a line."""
    failed = getattr(error, "worker_failures", None) or {}
    cause = next(iter(failed.values()), None) or getattr(error, "controller_failure", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return ": ".join([type(cause).__name__, *lines[:1]])[:200]


def _ray_worker(config: dict[str, Any]) -> None:
    import ray

    if not config["gpu"]:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a node's GPUs that others have are not for this
    _work(ray.get(config["job"]), Path(config["folder"]))
