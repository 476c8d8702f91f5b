"""A queue before the model: images that are asked for at the same time go through it in one forward pass.

Bounded in length (then `Busy` says when to come again) and in wait (a lone image does not wait for company; while other
requests are still decoding theirs, it waits WAIT_SECONDS at most). One thread a process asks the model. What does not
belong here: models, images, web pages.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Group = TypeVar("Group")
Question = TypeVar("Question")
Answer = TypeVar("Answer")

LONGEST, LARGEST, WAIT_SECONDS = 256, 4, 0.02
"""Four images at once: on a CPU, DenseNet-121 at 320 pixels takes as long for each as for one alone, and twice as
long at 16; a slim network gains half (benchmarks/web.py)."""
FIRST_GUESS_SECONDS = 0.05


class Busy(Exception):
    """The queue is full. seconds: when there should be room again."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"too many images are waiting: try again in {seconds} s")
        self.seconds = seconds


@dataclass
class _Waiting(Generic[Group, Question, Answer]):
    group: Group
    question: Question
    future: Future[Answer] = field(default_factory=Future)


class Batches(Generic[Group, Question, Answer]):
    """Questions from many threads, answered in batches by one.

    answer: called with a group (only questions of the same group are asked together: one model, for one) and its
    questions; gives as many answers.
    """

    def __init__(
        self,
        answer: Callable[[Group, Sequence[Question]], Sequence[Answer]],
        *,
        longest: int = LONGEST,
        largest: int = LARGEST,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._answer, self._longest, self._largest, self._wait = answer, longest, largest, wait_seconds
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._queue: deque[_Waiting[Group, Question, Answer]] = deque()
        self._changed = threading.Condition()
        self._coming = 0
        self._asked = 0
        self._thread: threading.Thread | None = None
        self._seconds_each = FIRST_GUESS_SECONDS

    @contextmanager
    def coming(self) -> Iterator[None]:
        """Around what a request does before it asks (decoding): a batch may wait for it."""
        self._in_this_process()
        with self._changed:
            self._coming += 1
        try:
            yield
        finally:
            with self._changed:
                self._coming -= 1
                self._changed.notify_all()

    def waiting(self) -> int:
        """Questions that wait or are being answered."""
        return len(self._queue) + self._asked

    def room(self, count: int = 1) -> None:
        """Raises Busy where so many more questions do not fit."""
        if self.waiting() + count > self._longest:
            raise Busy(max(1, round(self.waiting() * self._seconds_each)))

    def ask(self, group: Group, questions: Sequence[Question]) -> list[Answer]:
        """The answers, when they are there. Raises Busy, and what `answer` raises."""
        self._in_this_process()
        waiting: list[_Waiting[Group, Question, Answer]] = [_Waiting(group, question) for question in questions]
        with self._changed:
            self.room(len(waiting))
            self._queue.extend(waiting)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="forward passes", daemon=True)
                self._thread.start()
            self._changed.notify_all()
        return [entry.future.result() for entry in waiting]

    def _in_this_process(self) -> None:
        """A fork has neither the thread nor a lock that it could trust."""
        if self._process != os.getpid():
            self._begin()

    def _work(self) -> None:
        while True:
            batch = self._next()
            began = time.perf_counter()
            try:
                answers = self._answer(batch[0].group, [entry.question for entry in batch])
                for entry, answer in zip(batch, answers, strict=True):
                    entry.future.set_result(answer)
            except BaseException as error:  # the thread must live; who asked is told
                for entry in batch:
                    if not entry.future.done():
                        entry.future.set_exception(error)
            each = (time.perf_counter() - began) / len(batch)
            with self._changed:
                self._asked = 0
                self._seconds_each += 0.2 * (each - self._seconds_each)

    def _next(self) -> list[_Waiting[Group, Question, Answer]]:
        with self._changed:
            self._changed.wait_for(lambda: bool(self._queue))
            self._changed.wait_for(lambda: len(self._queue) >= self._largest or not self._coming, timeout=self._wait)
            group = self._queue[0].group
            batch = [self._queue.popleft()]
            while self._queue and len(batch) < self._largest and self._queue[0].group is group:
                batch.append(self._queue.popleft())
            self._asked = len(batch)
            return batch
