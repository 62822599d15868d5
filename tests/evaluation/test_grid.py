"""Which k and m a model is asked with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from glimmer_export.exporter.checkpoint import CheckpointConfig
from glimmer_export.exporter.evaluation.grid import Cell, Grid, counterpart
from glimmer_export.runtime.arguments import MAX_PASSAGES
from glimmer_export.runtime.contract import OptionError
from tests.exported import GLIMMER, LUMEN, TINY

RANKS = CheckpointConfig(**{**TINY, **GLIMMER}).shape
READS_ALL = CheckpointConfig(**{**TINY, **LUMEN}).shape
"""k 5 of both, and m 2 of the first."""


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], Grid()), (["k=5"], Grid((5,))), ([" k = 10,5 , 5"], Grid((5, 10))),
        (["m=1,5,10", "k=5,10,25,40"], Grid((5, 10, 25, 40), (1, 5, 10))), (["k=1024"], Grid((1024,))),
    ],
)  # fmt: skip
def test_what_is_written_is_read(texts, expected):
    assert Grid.parse(texts) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((text, "k=N,N,... or m=N,N,...") for text in ("n=5", "K=5", "5", "k5", "=5", "")),
        *((text, "whole numbers") for text in ("k=", "k=5,", "k=5;10", "k=-1", "k=2.5", "m=²", f"k={'9' * 5000}")),
        *((text, f"from 1 to {MAX_PASSAGES}") for text in ("k=0", f"m=5,{MAX_PASSAGES + 1}")),
    ],
)  # fmt: skip
def test_anything_else_is_refused_by_name(text, expected):
    with pytest.raises(OptionError) as raised:
        Grid.parse([text])
    assert raised.value.subject == "option --grid"
    assert expected in raised.value.expected


def test_a_key_is_named_once():
    with pytest.raises(OptionError, match="expected k once"):
        Grid.parse(["k=5", "m=1", "k=10"])


@pytest.mark.parametrize(
    ("grid", "shape", "expected"),
    [
        (Grid(), RANKS, [Cell(5, 2)]),
        (Grid((1, 2, 10)), RANKS, [Cell(1, 1), Cell(2, 2), Cell(10, 2)]),
        (Grid((), (1, 5, 6)), RANKS, [Cell(5, 1), Cell(5, 5)]),
        (Grid((2, 5), (1, 3)), RANKS, [Cell(2, 1), Cell(5, 1), Cell(5, 3)]),
        (Grid(), READS_ALL, [Cell(5, None)]),
        (Grid((2, 5), (1, 3)), READS_ALL, [Cell(2, None), Cell(5, None)]),
    ],
)
def test_m_goes_up_to_k_and_only_where_passages_are_ranked(grid, shape, expected):
    assert grid.cells(shape) == expected


def test_an_m_above_every_k_leaves_nothing():
    with pytest.raises(OptionError, match="at most the largest k, 5"):
        Grid((), (6, 7)).cells(RANKS)
    assert Grid((), (6, 7)).cells(replace(RANKS, num_retrieved=7)) == [Cell(7, 6), Cell(7, 7)]


@pytest.mark.parametrize(
    ("cell", "cells", "expected"),
    [
        (Cell(25, 5), [Cell(5, None)], Cell(5, None)),  # the only one, whatever its k
        (Cell(10, 5), [Cell(5, 5), Cell(10, 5)], Cell(10, 5)),
        (Cell(10, 3), [Cell(5, 5), Cell(10, 5)], None),
        (Cell(10, 3), [Cell(5, None), Cell(10, None)], Cell(10, None)),
        (Cell(10, None), [Cell(5, 2), Cell(10, 1), Cell(10, 2)], Cell(10, 2)),  # its own m
        (Cell(10, None), [Cell(5, 2), Cell(10, 3), Cell(10, 4)], Cell(10, 3)),
        (Cell(25, None), [Cell(5, 2), Cell(10, 2)], None),
    ],
)
def test_like_is_compared_with_like(cell, cells, expected):
    assert counterpart(cell, cells, Cell(5, 2)) == expected
