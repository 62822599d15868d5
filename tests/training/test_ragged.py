"""Ragged rows give back what was appended, whatever came later."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.exporter.training.ragged import Ragged


@given(st.lists(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=900), max_size=8))
def test_rows_are_given_back(rows):
    ragged = Ragged()
    views = []
    for number, row in enumerate(rows):
        assert ragged.append(row) == number
        views.append(ragged[number])
    assert len(ragged) == len(rows)
    assert [view.tolist() for view in views] == rows
    assert [ragged[number].tolist() for number in range(len(rows))] == rows
    assert all(view.dtype == np.int32 for view in views)


def test_it_holds_four_bytes_a_number_and_little_more():
    row = np.arange(300, dtype=np.int32)
    ragged = Ragged.of(row for _ in range(15_850))
    assert ragged._values.nbytes < 2 * 4 * 300 * 15_850
    assert ragged._values.dtype == np.int32


@pytest.mark.parametrize("number", [1, -1])
def test_a_row_that_is_not_there(number):
    with pytest.raises(IndexError):
        Ragged.of([[1]])[number]
