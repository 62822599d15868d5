"""Which jobs go together, and when."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.runtime.serving.batching import Job, Line, LineClosedError, LineFullError, Work, choose

NEVER_S = 1e6


def job(question_tokens: int = 1, row_tokens: int = 10, work: Work = Work(), **options) -> Job:  # noqa: B008
    return Job("w1", None, work, question_tokens, row_tokens, lambda result: None, **options)


def line(max_waiting: int = 100, max_batch_tokens: int = 1000, window_s: float = 0.0) -> Line:
    return Line(max_waiting, max_batch_tokens, window_s)


def test_those_of_like_length_go_with_the_oldest():
    oldest, far, near, same = job(5), job(9), job(6), job(5)
    batch = choose([oldest, far, near, same], 30)
    assert batch.jobs == [oldest, same, near]
    assert batch.is_full
    assert batch.padded_tokens == 30


def test_the_longest_row_counts_for_all():
    short, long = job(row_tokens=10), job(row_tokens=25)
    assert choose([short, long], 49).jobs == [short]
    assert choose([short, long], 50).jobs == [short, long]


def test_one_that_takes_more_than_a_batch_goes_alone():
    large = job(row_tokens=5000)
    assert choose([large, job()], 1000).jobs == [large]


def test_only_equal_work_goes_together():
    first, other, like = job(work=Work(top_k=3)), job(), job(work=Work(top_k=3))
    assert choose([first, other, like], 1000).jobs == [first, like]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 400), st.booleans()), min_size=1), st.integers(1, 1000))
def test_the_oldest_is_in_every_batch_so_that_none_starves(shapes, tokens):
    jobs = [job(length, rows, Work(ranks_only=ranks)) for length, rows, ranks in shapes]
    taken = line(max_batch_tokens=tokens)
    taken.put(jobs)
    left = list(jobs)
    while left:
        batch = taken.take()
        assert batch.jobs[0] is left[0]
        assert batch.padded_tokens <= tokens or len(batch.jobs) == 1
        assert len({item.work for item in batch.jobs}) == 1
        left = [item for item in left if item not in batch.jobs]
    assert len(taken) == 0


def test_an_idle_worker_gets_the_first_at_once():
    waiting = line(window_s=NEVER_S)
    with ThreadPoolExecutor(1) as idle:
        taken = idle.submit(waiting.take)
        one = job()
        waiting.put([one])
        assert taken.result(60).jobs == [one]


def test_what_came_while_the_worker_was_busy_waits_for_others_until_the_batch_is_full():
    waiting = line(max_batch_tokens=30, window_s=NEVER_S)
    first, second, third = job(), job(), job()
    waiting.put([first])
    with ThreadPoolExecutor(1) as busy:
        taken = busy.submit(waiting.take)
        waiting.put([second])
        waiting.put([third])
        assert taken.result(60).jobs == [first, second, third]


def test_what_came_while_the_worker_was_busy_goes_when_its_window_is_over():
    waiting = line(window_s=0.0)
    one = job()
    waiting.put([one])
    assert waiting.take().jobs == [one]


def test_a_line_that_is_full_takes_all_or_none():
    waiting = line(max_waiting=2)
    waiting.put([job()])
    with pytest.raises(LineFullError):
        waiting.put([job(), job()])
    assert len(waiting) == 1
    waiting.put([job()])


def test_what_nobody_wants_any_more_is_never_taken_and_takes_no_place():
    waiting = line(max_waiting=2)
    wanted = [True]
    waiting.put([job(is_wanted=lambda: wanted[0]), job(is_wanted=lambda: wanted[0])])
    wanted[0] = False
    one = job()
    waiting.put([one])
    assert waiting.take().jobs == [one]


def test_a_closed_line_hands_out_what_waits_and_then_nothing():
    waiting = line(window_s=NEVER_S)
    one = job()
    waiting.put([one])
    waiting.close()
    with pytest.raises(LineClosedError):
        waiting.put([job()])
    assert waiting.take().jobs == [one]
    assert waiting.take() is None
