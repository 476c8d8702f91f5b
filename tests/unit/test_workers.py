"""Functions over many items, on processes and on Ray: what a dead process costs, order, bounds, ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from radia.errors import SettingsError, WorkerLost
from radia.settings import ScaleSettings
from radia.workers import each

TWO = ScaleSettings(workers=2)


def doubled(number: int) -> int:
    return 2 * number


def slow_first(number: int) -> int:
    time.sleep(0.5 if number == 0 else 0)
    return number


class CrashOn:
    """Ends its process without a word on some numbers; with a folder, only the first time."""

    def __init__(self, *numbers: int, once: Path | None = None) -> None:
        self.numbers, self.once = numbers, once

    def __call__(self, number: int) -> int:
        if number in self.numbers and (self.once is None or not (self.once / str(number)).exists()):
            if self.once is not None:
                (self.once / str(number)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return number


class Counting:
    """How many items this process has seen: state that stays in a process."""

    seen = 0

    def __call__(self, _: int) -> int:
        self.seen += 1
        return self.seen


def refuse_seven(number: int) -> int:
    if number == 7:
        raise ValueError("seven")
    return number


def run(function: Callable[[int], int], count: int, scale: ScaleSettings = TWO, *, ordered: bool = True) -> list[int]:
    return list(each(function, range(count), if_lost=lambda number: -number, scale=scale, ordered=ordered))


class TestProcesses:
    def test_give_the_results_in_the_order_of_the_items(self) -> None:
        assert run(doubled, 100) == [2 * number for number in range(100)]
        assert run(slow_first, 10) == list(range(10))

    def test_give_them_as_they_come_where_order_does_not_matter(self) -> None:
        results = run(slow_first, 10, ordered=False)
        assert sorted(results) == list(range(10))
        assert results[0] != 0

    def test_of_which_there_is_one_is_this_one(self) -> None:
        counting = Counting()
        assert run(counting, 3, ScaleSettings(workers=1)) == [1, 2, 3]
        assert counting.seen == 3

    def test_keep_the_state_of_the_function(self) -> None:
        assert max(run(Counting(), 20)) > 1

    def test_that_die_cost_one_item_each(self) -> None:
        assert run(CrashOn(5, 6, 17), 20) == [-n if n in (5, 6, 17) else n for n in range(20)]

    def test_that_die_once_cost_nothing(self, tmp_path: Path) -> None:
        assert run(CrashOn(3, 4, once=tmp_path), 12) == list(range(12))

    def test_that_die_on_the_only_item_cost_it(self) -> None:
        assert run(CrashOn(0), 1) == [0]
        assert list(each(CrashOn(0), [0], if_lost=lambda _: 99, scale=TWO)) == [99]

    def test_of_no_item_give_nothing(self) -> None:
        assert run(doubled, 0) == []

    def test_pass_an_exception_on_and_say_where_it_was_raised(self) -> None:
        with pytest.raises(ValueError, match="seven") as caught:
            run(refuse_seven, 20)
        assert "refuse_seven" in "".join(caught.value.__notes__)

    def test_take_few_items_ahead_of_what_is_used(self) -> None:
        taken = []

        def items() -> Iterator[int]:
            for number in range(10_000):
                taken.append(number)
                yield number

        results = each(doubled, items(), if_lost=doubled, scale=TWO)
        assert [next(results) for _ in range(10)] == [2 * n for n in range(10)]
        assert len(taken) < 100
        results.close()  # type: ignore[attr-defined]

    def test_that_cannot_start_are_named(self) -> None:
        with pytest.raises(WorkerLost, match="fewer workers"):
            list(each(DiesOnArrival(), [1, 2], if_lost=doubled, scale=TWO))

    def test_end_with_a_command_that_is_interrupted(self, tmp_path: Path) -> None:
        script = tmp_path / "long.py"
        script.write_text(LONG)
        command = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
        assert command.stdout is not None
        workers = {int(command.stdout.readline()) for _ in range(4)}
        command.send_signal(signal.SIGINT)
        assert command.wait(300) != 0
        deadline = time.monotonic() + 300
        while alive := {worker for worker in workers if lives(worker)}:
            assert time.monotonic() < deadline, alive
            time.sleep(0.05)


def lives(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class DiesOnArrival:
    """Cannot be unpickled: the process that tries ends."""

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return os._exit, (1,)


LONG = """
import os, signal, time
from radia.settings import ScaleSettings
from radia.workers import each

def who(number):
    time.sleep(0.1)
    return os.getpid()

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background commands begin by ignoring it
    for worker in each(who, range(10**6), if_lost=who, scale=ScaleSettings(workers=2)):
        print(worker, flush=True)
"""


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingsError, match=r"radia\[ray\]"):
        run(doubled, 2, ScaleSettings(backend="ray"))
