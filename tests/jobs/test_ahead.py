import threading

import pytest

from vrprm_reward.jobs.ahead import ahead


def test_results_come_in_order_whatever_is_done_first() -> None:
    later_is_done = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert later_is_done.wait(30)
        if number == 2:
            later_is_done.set()
        return number * 10

    assert list(ahead(work, iter(range(5)), 3)) == [(n, n * 10) for n in range(5)]


def test_no_more_than_so_many_are_taken_before_they_are_wanted() -> None:
    taken: list[int] = []

    def items():
        for number in range(10):
            taken.append(number)
            yield number

    results = ahead(lambda number: number, items(), 3)
    assert next(results) == (0, 0)
    assert taken == [0, 1, 2]
    assert next(results) == (1, 1)
    assert taken == [0, 1, 2, 3]


def test_an_exception_is_raised_at_its_turn() -> None:
    def work(number: int) -> int:
        if number == 1:
            raise KeyboardInterrupt
        return number

    results = ahead(work, iter(range(3)), 3)
    assert next(results) == (0, 0)
    with pytest.raises(KeyboardInterrupt):
        next(results)
