"""One function over many items, in processes of this machine or over Ray: few under way at a time, in order or not.

A process that ends without a word (a decoder that crashes, the kernel out of memory) costs the one item that it had:
that is tried once more with nothing beside it, and then given up. What is done with an item that was given up is the
caller's business; so is what the function does. A function that raises ends everything with its exception.

Ray takes items here, below commands, DVC and Dagster alike, and not whole steps of Dagster: a step as a job of Ray, as
the package dagster-ray has it, would keep one node busy a step and move the ledger's writer to it.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from radia.errors import SettingsError, WorkerLost
from radia.settings import ScaleSettings, quiet_dependencies

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerContext

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 2
"""Items that a process is given at a time, so that it never waits for the next."""
_HELD = 8
"""Results a process that may wait for an earlier one, where they are wanted in order."""
_STARTS = 5
"""Attempts to start Ray: its own servers have 15 seconds to answer, which a busy machine may not give them."""
LOST = object()
"""In the place of a result: the process that had the item ended without a word."""


def each(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    if_lost: Callable[[Item], Result],
    scale: ScaleSettings,
    ordered: bool = True,
    preload: Sequence[str] = (),
) -> Generator[Result]:
    """The function's results, in the order of the items or, unless `ordered`, as they come.

    The function is pickled once a process and may keep state there; items are small, as paths are. if_lost gives the
    result of an item whose process ended twice. One worker is this process itself, which nothing guards from a crash.
    preload: modules that processes share from the start. Raises what the function raises, WorkerLost where processes
    cannot start, SettingsError where Ray is wanted and not installed.
    """
    if scale.backend == "processes" and scale.workers == 1:
        yield from map(function, items)
        return
    pool: _Pool = _Tasks(function, scale) if scale.backend == "ray" else _Processes(function, _count(scale), preload)
    with closing(pool):
        yield from _Course(pool, items, if_lost, ordered).results()


def _count(scale: ScaleSettings) -> int:
    return scale.workers or os.cpu_count() or 1


class _Pool(Protocol):
    """Where a function runs. Items are known by their number."""

    room: int

    def give(self, number: int, item: Any) -> None:
        """Takes one more item; at most `room` may be under way."""

    def take(self) -> list[tuple[int, Any]]:
        """Waits for results, LOST among them."""

    def close(self) -> None:
        """Ends what is under way."""


class _Course(Generic[Item, Result]):
    """Which items are under way, which are tried again, which results wait for their turn."""

    def __init__(self, pool: _Pool, items: Iterable[Item], if_lost: Callable[[Item], Result], ordered: bool) -> None:
        self._pool, self._if_lost, self._ordered = pool, if_lost, ordered
        self._waiting = enumerate(items)
        self._under_way: dict[int, Item] = {}
        self._again: dict[int, Item] = {}
        self._tried: set[int] = set()
        self._ready: dict[int, Result] = {}
        self._turn = 0

    def results(self) -> Iterator[Result]:
        """All results."""
        while True:
            self._give()
            if not self._under_way:
                return
            for number, result in self._pool.take():
                self._settle(number, result)
            yield from self._due()

    def _give(self) -> None:
        if self._again:
            if not self._under_way:  # alone: the memory of all is its own, and it is to blame if the process ends
                number = min(self._again)
                self._start(number, self._again.pop(number))
            return
        while len(self._under_way) < self._pool.room and len(self._ready) < _HELD * self._pool.room:
            try:
                number, item = next(self._waiting)
            except StopIteration:
                return
            self._start(number, item)

    def _start(self, number: int, item: Item) -> None:
        self._under_way[number] = item
        self._pool.give(number, item)

    def _settle(self, number: int, result: Any) -> None:
        item = self._under_way.pop(number)
        if result is not LOST:
            self._ready[number] = result
        elif number in self._tried:
            self._ready[number] = self._if_lost(item)
        else:
            self._tried.add(number)
            self._again[number] = item

    def _due(self) -> Iterator[Result]:
        if not self._ordered:
            while self._ready:
                yield self._ready.pop(next(iter(self._ready)))
        while self._turn in self._ready:
            yield self._ready.pop(self._turn)
            self._turn += 1


# --- processes ------------------------------------------------------------------------------------------------------


class _Processes:
    """Processes of this machine, each with a pipe of its own, so that it is known which item a dead one had."""

    def __init__(self, function: Callable[[Any], Any], count: int, preload: Sequence[str]) -> None:
        from multiprocessing import get_context

        self._function, self._context, self._count = function, get_context("forkserver"), count
        self._context.set_forkserver_preload([__name__, *preload])
        self.room = _AHEAD * count
        self._all: list[_Process] = []

    def give(self, number: int, item: Any) -> None:
        if len(self._all) < self._count and all(process.given for process in self._all):
            self._all.append(_Process(self._function, self._context))
        min(self._all, key=lambda process: len(process.given)).give(number, item)

    def take(self) -> list[tuple[int, Any]]:
        from multiprocessing.connection import wait

        by_pipe = {process.pipe: process for process in self._all}
        found: list[tuple[int, Any]] = []
        for pipe in wait(list(by_pipe)):
            found += by_pipe[pipe].take()  # type: ignore[index]
        return found

    def close(self) -> None:
        for process in self._all:
            process.end()


class _Process:
    """One process, and the items that it was given, oldest first."""

    def __init__(self, function: Callable[[Any], Any], context: ForkServerContext) -> None:
        self._function, self._context = function, context
        self.given: deque[tuple[int, Any]] = deque()
        self._begin()

    def _begin(self) -> None:
        self.pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=_serve, args=(theirs, self._function), daemon=True)
        self._process.start()
        theirs.close()
        self._lives = False

    def give(self, number: int, item: Any) -> None:
        self.given.append((number, item))
        self._send(item)

    def take(self) -> list[tuple[int, Any]]:
        """The result that lies in the pipe; LOST where it is broken, and a new process takes this one's place."""
        try:
            kind, answer = self.pipe.recv()
        except (EOFError, OSError, pickle.UnpicklingError):
            return self._replaced()
        if kind == "lives":
            self._lives = True
            return []
        if kind == "raised":
            raise answer
        return [(self.given.popleft()[0], answer)]

    def end(self) -> None:
        self.pipe.close()
        self._process.terminate()
        self._process.join()

    def _replaced(self) -> list[tuple[int, Any]]:
        if not self._lives:
            raise WorkerLost("a process ended before it took any work: free memory, or run with fewer workers")
        self.end()
        lost = [(self.given.popleft()[0], LOST)] if self.given else []
        self._begin()
        for _, item in self.given:
            self._send(item)
        return lost

    def _send(self, item: Any) -> None:
        try:
            self.pipe.send(item)
        except OSError:
            return  # it is dead: the next `take` sees it, and knows what it was given


def _serve(pipe: Connection, function: Callable[[Any], Any]) -> None:
    """The life of a process: as long as the pipe's other end is open."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C, and closes the pipe
    try:
        pipe.send(("lives", None))
        while True:
            pipe.send(_answer(function, pipe.recv()))
    except (EOFError, OSError):
        return


def _answer(function: Callable[[Any], Any], item: Any) -> tuple[str, Any]:
    try:
        return "result", function(item)
    except Exception as error:
        error.add_note("in a worker:\n" + "".join(traceback.format_tb(error.__traceback__)))
        return "raised", error.with_traceback(None)


# --- Ray ------------------------------------------------------------------------------------------------------------


@contextmanager
def cluster(address: str, *, cores: int, wanted_by: str) -> Iterator[Any]:
    """Ray, connected to the cluster of this address or, without one, started here for this machine alone.

    Left as it was where it was connected before. wanted_by: the section of params.yaml that names it, for the error.
    Raises SettingsError where Ray is not installed, WorkerLost where it cannot be reached or started.
    """
    quiet_dependencies()
    if not address:
        # Ray's name for "this machine alone": its servers then listen on 127.0.0.1
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
    except ImportError as error:
        message = f"{wanted_by}.backend is ray, which is not installed: pip install 'radia[ray]'"
        raise SettingsError(message) from error
    ours = not ray.is_initialized()
    if ours:
        _begin(ray, address, cores)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


def _begin(ray: Any, address: str, cores: int) -> None:
    own = {"address": "local", "num_cpus": cores, "include_dashboard": False}
    started: dict[str, Any] = {"address": address} if address else own
    for attempt in range(_STARTS):
        try:
            ray.init(**started, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray has no class of its own for a start that took longer than it waits
            ray.shutdown()
            if address or attempt == _STARTS - 1:
                where = f"reached at {address}" if address else f"started on this machine in {_STARTS} attempts"
                raise WorkerLost(f"Ray cannot be {where} ({type(error).__name__}: {error})") from error
        else:
            return


class _Tasks:
    """Tasks of a Ray cluster. Paths among the items must mean the same file on every node."""

    def __init__(self, function: Callable[[Any], Any], scale: ScaleSettings) -> None:
        self._connection = ExitStack()
        self._ray = self._connection.enter_context(cluster(scale.ray_address, cores=_count(scale), wanted_by="scale"))
        cores = int(self._ray.cluster_resources().get("CPU", 1))
        self.room = _AHEAD * (scale.workers or cores)
        self._function = self._ray.put(function)
        self._task = self._ray.remote(max_retries=0, num_cpus=1)(_call)
        self._under_way: dict[Any, int] = {}

    def give(self, number: int, item: Any) -> None:
        self._under_way[self._task.remote([self._function], item)] = number

    def take(self) -> list[tuple[int, Any]]:
        done, _ = self._ray.wait(list(self._under_way), num_returns=1)
        return [(self._under_way.pop(task), self._result(task)) for task in done]

    def close(self) -> None:
        for task in self._under_way:
            self._ray.cancel(task, force=True)
        self._connection.close()

    def _result(self, task: Any) -> Any:
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(task)
        except exceptions.RayTaskError as error:
            raise error.cause from error
        except (
            exceptions.WorkerCrashedError,
            exceptions.NodeDiedError,
            exceptions.OutOfMemoryError,
            exceptions.ObjectLostError,
        ):
            return LOST


_functions: dict[str, Callable[[Any], Any]] = {}


def _call(held: list[Any], item: Any) -> Any:
    """One task. The function is fetched once a process, so that it may keep state there."""
    reference = held[0]
    name = reference.hex()
    if name not in _functions:
        import ray

        _functions.clear()
        _functions[name] = ray.get(reference)
    return _functions[name](item)
