"""The queue before the model: what is asked together, what is refused, what an error does to others."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from radia.web.batching import Batches, Busy

ONE, OTHER = object(), object()


def test_questions_that_wait_are_answered_in_one_batch_and_in_their_order() -> None:
    sizes: list[int] = []
    free = threading.Event()

    def answer(_group: object, questions: Sequence[int]) -> list[int]:
        free.wait()
        sizes.append(len(questions))
        return [10 * question for question in questions]

    batches: Batches[object, int, int] = Batches(answer, largest=8)
    with ThreadPoolExecutor(9) as pool:
        first = pool.submit(batches.ask, ONE, [0])
        others = [pool.submit(batches.ask, ONE, [number]) for number in range(1, 9)]
        while batches.waiting() < 9:
            pass
        free.set()
        assert [entry.result() for entry in [first, *others]] == [[10 * number] for number in range(9)]
    assert sum(sizes) == 9
    assert len(sizes) <= 3


def test_questions_to_two_models_are_never_in_one_batch() -> None:
    asked: list[tuple[object, list[str]]] = []

    def answer(group: object, questions: Sequence[str]) -> Sequence[str]:
        asked.append((group, list(questions)))
        return questions

    batches: Batches[object, str, str] = Batches(answer)
    with batches.coming(), ThreadPoolExecutor(2) as pool:
        results = [pool.submit(batches.ask, ONE, ["a", "b"]), pool.submit(batches.ask, OTHER, ["c"])]
        assert [entry.result() for entry in results] == [["a", "b"], ["c"]]
    assert sorted(questions for _, questions in asked) == [["a", "b"], ["c"]]
    assert {id(group) for group, _ in asked} == {id(ONE), id(OTHER)}


def test_a_full_queue_says_when_to_come_again() -> None:
    batches: Batches[object, int, int] = Batches(lambda _group, questions: questions, longest=2)
    assert batches.ask(ONE, [1, 2]) == [1, 2]
    with pytest.raises(Busy, match="try again in 1 s"):
        batches.ask(ONE, [1, 2, 3])


def test_an_error_reaches_who_asked_and_the_next_is_answered() -> None:
    def answer(_group: object, questions: Sequence[int]) -> Sequence[int]:
        if 13 in questions:
            raise ValueError("thirteen")
        return questions

    batches: Batches[object, int, int] = Batches(answer)
    with pytest.raises(ValueError, match="thirteen"):
        batches.ask(ONE, [13])
    assert batches.ask(ONE, [14]) == [14]
