"""Shards that take turns: their order, who has the encoder when, and what ends them."""

from __future__ import annotations

from threading import Event, Lock

import pytest

from glimmer_export.exporter.memory.behind import Behind
from glimmer_export.exporter.memory.runners.in_turns import AT_ONCE, in_turns


def parts(count):
    return ((index, f"part {index}") for index in range(count))


def test_all_are_made_in_their_order_and_one_at_a_time_is_at_the_encoder():
    at_encoder, order, told = Lock(), [], []

    def make(index, part, turn):
        with turn.at_encoder:
            assert at_encoder.acquire(blocking=False)
            order.append(index)
            turn.advance(index)
            at_encoder.release()
        return part.upper()

    found = list(in_turns(parts(9), make, told.append))
    assert found == [(index, f"PART {index}") for index in range(9)]
    assert order == told == list(range(9))


def test_one_is_written_while_the_next_is_at_the_encoder():
    """Each waits, behind its turn, until the next has its own."""
    begun = [Event() for _ in range(5)]

    def make(index, _part, turn):
        with turn.at_encoder:
            begun[index].set()
        assert index == 4 or begun[index + 1].wait(60)
        return index

    assert [made for _, made in in_turns(parts(5), make, lambda _: None)] == list(range(5))


def test_no_more_are_under_way_than_are_taken():
    taken, waiting = [], Event()

    def counted():
        for index in range(9):
            taken.append(index)
            yield index, None

    def make(index, _part, turn):
        with turn.at_encoder:
            assert index == 0 or waiting.wait(60)
        return index

    made = in_turns(counted(), make, lambda _: None)
    assert next(made)[0] == 0
    assert taken == list(range(AT_ONCE))
    waiting.set()
    assert len(list(made)) == 8


@pytest.mark.parametrize("at_encoder", [False, True])
def test_what_one_raises_is_raised_and_ends_the_others(at_encoder):
    made = []

    def make(index, _part, turn):
        if index == 1 and not at_encoder:
            raise OSError(28, "full")
        with turn.at_encoder:
            if index == 1:
                raise OSError(28, "full")
            turn.advance(1)
        made.append(index)
        return index

    found = in_turns(parts(9), make, lambda _: None)
    assert next(found) == (0, 0)
    with pytest.raises(OSError, match="full"):
        next(found)
    assert set(made) <= {0, 2, 3}


def test_closed_it_ends_at_the_next_advance():
    ended = []

    def make(index, _part, turn):
        try:
            with turn.at_encoder:
                while index:
                    turn.advance(1)
        finally:
            ended.append(index)
        return index

    made = in_turns(parts(9), make, lambda _: None)
    assert next(made) == (0, 0)
    made.close()
    assert sorted(ended) == list(range(AT_ONCE))


def test_work_behind_is_done_in_its_order_and_all_of_it():
    done = []
    with Behind(2) as behind:
        for number in range(20):
            behind.do(lambda number=number: done.append(number))
    assert done == list(range(20))


def test_an_error_of_work_behind_is_raised_and_what_waits_is_dropped():
    done, begin = [], Event()

    def fail():
        begin.wait(60)
        raise OSError(28, "full")

    def work():
        with Behind(2) as behind:
            behind.do(fail)
            behind.do(lambda: done.append(1))
            begin.set()
            behind.do(lambda: done.append(2))

    with pytest.raises(OSError, match="full"):
        work()
    assert done in ([], [1])


def test_where_the_block_failed_that_is_what_is_raised():
    begin = Event()

    def wait():
        begin.wait(60)

    def work():
        with Behind(2) as behind:
            behind.do(wait)
            behind.do(lambda: 1 / 0)
            begin.set()
            raise ValueError("of the block")

    with pytest.raises(ValueError, match="of the block"):
        work()
