"""Memory that is given out again: only when nothing refers to it any more."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from glimmer_export.runtime.passage_memory import KEPT, BufferPool


def place(array):
    return array.__array_interface__["data"][0]


def test_memory_that_was_let_go_is_given_out_again():
    pool = BufferPool()
    first = pool.take((3, 50), "float32")
    where = place(first)
    del first
    again = pool.take((10, 10), "uint8")
    assert place(again) == where
    assert (again.shape, again.dtype) == ((10, 10), np.uint8)


@pytest.mark.parametrize("keep", [lambda array: array, lambda array: array[1:, :2], lambda array: array.view("int32")])
def test_memory_that_anything_refers_to_is_not(keep):
    pool = BufferPool()
    array = pool.take((4, 4), "float32")
    array[...] = 7
    kept = keep(array)
    del array
    pool.take((4, 4), "float32")[...] = 0
    assert (kept.view("float32") == 7).all()


def test_the_smallest_that_fits_is_taken():
    pool = BufferPool()
    arrays = [pool.take((size,), "uint8") for size in (4096, 64, 1024)]
    small = place(arrays[2])
    del arrays
    assert place(pool.take((1000,), "uint8")) == small


def test_what_is_kept_is_bounded():
    pool = BufferPool()
    held = [pool.take((64 * size,), "uint8") for size in range(1, KEPT + 9)]
    assert len({place(array) for array in held}) == len(held)
    assert len(pool._buffers) == KEPT
    del held
    large = pool.take((1 << 20,), "uint8")
    assert len(pool._buffers) == KEPT
    where = place(large)
    del large
    assert place(pool.take((1 << 20,), "uint8")) == where


def test_an_array_of_nothing():
    assert BufferPool().take((0, 3), "float16").shape == (0, 3)


def test_threads_never_share():
    pool, faults = BufferPool(), []

    def work(number):
        for turn in range(300):
            array = pool.take((8 + turn % 5,), "int64")
            array[...] = number
            if not (array == number).all():
                faults.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
