"""Proportions to layers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.exporter.checkpoint.options import Partition, parse_proportion, partition, round_half_up
from glimmer_export.runtime.contract import CheckpointError, OptionError

PROPORTIONS = st.fractions(min_value=Fraction(1, 1000), max_value=1)
PAPERS = {"live_proportion": Fraction(1, 3), "rerank_proportion": Fraction(1, 4)}


@given(st.fractions(min_value=0, max_value=1000))
def test_round_half_up_is_the_nearest_whole_number(value: Fraction) -> None:
    assert -Fraction(1, 2) < round_half_up(value) - value <= Fraction(1, 2)


@given(st.integers(min_value=0, max_value=1000))
def test_a_half_goes_up(whole: int) -> None:
    assert round_half_up(whole + Fraction(1, 2)) == whole + 1


@given(st.integers(min_value=1, max_value=100), PROPORTIONS, PROPORTIONS)
def test_parts_are_the_whole_and_none_is_empty(num_layers: int, live: Fraction, rerank: Fraction) -> None:
    num_live = max(1, round_half_up(live * num_layers))
    num_stage_a = max(1, round_half_up(rerank * num_live))
    try:
        cut = partition("glimmer", num_layers, live_proportion=live, rerank_proportion=rerank)
    except CheckpointError:
        assert num_live in {num_layers, num_stage_a}
    else:
        assert cut == Partition(num_layers - num_live, num_stage_a, num_live - num_stage_a)
        assert min(cut.num_memory_layers, cut.num_stage_a_layers, cut.num_stage_b_layers) >= 1


@pytest.mark.parametrize(
    ("num_layers", "expected"),
    [(8, (5, 1, 2)), (12, (8, 1, 3)), (24, (16, 2, 6))],
    ids=["small", "base", "large, xl, xxl"],
)
def test_the_papers_proportions(num_layers: int, expected: tuple[int, int, int]) -> None:
    assert partition("glimmer", num_layers, **PAPERS) == Partition(*expected)
    memory, stage_a, stage_b = expected
    assert partition("lumen", num_layers, **PAPERS) == Partition(memory, 0, stage_a + stage_b)


@given(st.integers(min_value=1, max_value=100), PROPORTIONS, PROPORTIONS)
def test_a_separate_reranker_has_as_many_layers_beside_the_live_ones(
    num_layers: int, live: Fraction, rerank: Fraction
) -> None:
    num_live = max(1, round_half_up(live * num_layers))
    num_stage_a = max(1, round_half_up(rerank * num_live))
    proportions = {"live_proportion": live, "rerank_proportion": rerank}
    try:
        cut = partition("glimmer", num_layers, **proportions, separate_reranker=True)
    except CheckpointError:
        assert num_live == num_layers
    else:
        assert cut == Partition(num_layers - num_live, num_stage_a, num_live)


def test_a_separate_reranker_in_the_papers_proportions() -> None:
    assert partition("glimmer", 12, **PAPERS, separate_reranker=True) == Partition(8, 1, 4)
    assert partition("glimmer", 24, **PAPERS, separate_reranker=True) == Partition(16, 2, 8)


def test_proportions_are_nothing_to_architectures_without_parts() -> None:
    assert partition("fid", 12, **PAPERS) == Partition(0, 0, 12)
    assert partition("memory_fid", 12, **PAPERS) == Partition(12, 0, 0)


def test_memory_deeper_than_what_the_live_layers_leave() -> None:
    assert partition("lumen", 12, **PAPERS, memory_layers=32) == Partition(32, 0, 4)


@pytest.mark.parametrize(
    ("architecture", "num_layers", "live", "rerank", "stage"),
    [
        ("glimmer", 12, "1", "1/4", "memory encoder"),
        ("lumen", 12, "1", "1/4", "memory encoder"),
        ("lumen", 1, "1/3", "1/4", "memory encoder"),
        ("lumen", 12, "23/24", "1/4", "memory encoder"),
        ("glimmer", 12, "1/3", "1", "stage B"),
        ("glimmer", 12, "1/3", "7/8", "stage B"),
        ("glimmer", 12, "1/12", "1/4", "stage B"),
    ],
)
def test_an_empty_stage_is_named(architecture: str, num_layers: int, live: str, rerank: str, stage: str) -> None:
    with pytest.raises(CheckpointError, match=f"at least one layer in its {stage}, found none"):
        partition(architecture, num_layers, live_proportion=Fraction(live), rerank_proportion=Fraction(rerank))


def test_unknown_architecture() -> None:
    with pytest.raises(OptionError, match="one of glimmer, lumen, memory_fid, fid, found 'gpt'"):
        partition("gpt", 12, **PAPERS)


@pytest.mark.parametrize(
    ("text", "expected"), [("1/3", (1, 3)), ("0.25", (1, 4)), ("1", (1, 1)), (" 1/4 ", (1, 4)), (".5", (1, 2))]
)
def test_proportions_are_read(text: str, expected: tuple[int, int]) -> None:
    assert parse_proportion(text, option="--live-proportion") == Fraction(*expected)


@given(st.fractions(min_value=Fraction(1, 999), max_value=1, max_denominator=999))
def test_fractions_are_read_as_they_are_printed(value: Fraction) -> None:
    assert parse_proportion(str(value), option="--live-proportion") == value


@pytest.mark.parametrize(
    "text",
    [
        "", "0", "0/3", "1/0", "2", "4/3", "1.0001", "-1/3", "a third", "nan", "1e-999999999", "1/3/5", "٣",
        "1_0/9",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="option --live-proportion: expected a proportion above 0 and at most 1"):
        parse_proportion(text, option="--live-proportion")


@pytest.mark.parametrize(
    ("num_layers", "live", "rerank", "fix"),
    [
        (12, "1/3", "1", {"rerank_proportion": Fraction(1, 4)}),
        (12, "1/12", "1/4", {"live_proportion": Fraction(1, 2)}),
        (3, "1/3", "1/4", {"live_proportion": Fraction(2, 3)}),
        (2, "1/2", "1/4", {"separate_reranker": True}),
    ],
)
def test_what_is_proposed_helps(num_layers: int, live: str, rerank: str, fix: dict[str, Any]) -> None:
    asked = {"live_proportion": Fraction(live), "rerank_proportion": Fraction(rerank)}
    with pytest.raises(CheckpointError) as raised:
        partition("glimmer", num_layers, **asked)
    (option,) = fix
    assert f"--{option.replace('_', '-')}" in raised.value.fix
    partition("glimmer", num_layers, **asked | fix)
    partition("lumen", num_layers, **asked)
