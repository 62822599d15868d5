"""Selection of the m best."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.runtime.rerank import cascade_scores, select_by_mass, select_top_m, take_selected

# Few values, so that ties are common; -inf for a passage that is absent.
SCORE = st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 0.25, 3.0])
ROWS = st.integers(1, 7).flatmap(
    lambda k: st.lists(st.lists(SCORE, min_size=k, max_size=k), min_size=1, max_size=4)
)


@given(rows=ROWS, num_selected=st.integers(1, 9))
def test_the_best_are_selected_and_the_earlier_of_equals(rows, num_selected):
    scores = np.array(rows, np.float32)
    selected = select_top_m(scores, num_selected)
    assert selected.dtype == np.int32
    assert selected.shape == (len(rows), min(num_selected, scores.shape[1]))
    for row, found in zip(rows, selected.tolist(), strict=True):
        ranking = sorted(range(len(row)), key=lambda place: (-row[place], place))
        assert found == sorted(ranking[:num_selected])


@given(row=st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=30), num_selected=st.integers(1, 30))
def test_any_scores(row, num_selected):
    scores = np.array([row], np.float32)
    selected = set(select_top_m(scores, num_selected)[0].tolist())
    others = set(range(len(row))) - selected
    assert min(scores[0, list(selected)]) >= max(scores[0, list(others)], default=-np.inf)


@pytest.mark.parametrize(
    ("scores", "num_selected", "expected"),
    [
        ([1.0, 3.0, 2.0], 2, [1, 2]),
        ([1.0, 1.0, 1.0], 2, [0, 1]),
        ([0.0, 2.0, 2.0, 2.0], 2, [1, 2]),
        ([-np.inf, 5.0, -np.inf], 2, [0, 1]),
        ([4.0], 3, [0]),
        ([2.0, 1.0], 2, [0, 1]),
    ],
)  # fmt: skip
def test_by_hand(scores, num_selected, expected):
    assert select_top_m(np.array([scores], np.float32), num_selected).tolist() == [expected]


@given(rows=ROWS, data=st.data(), num_shortlisted=st.integers(1, 9), num_selected=st.integers(1, 9))
def test_a_cascade_ranks_as_the_reference(rows, data, num_shortlisted, num_selected):
    """Ties of either level and absent passages among them: the same are kept and read, with the same scores."""
    torch = pytest.importorskip("torch")
    from glimmer_export.exporter.stages.model import cascade_scores as reference

    shortlist, most = np.array([[0.25, *row] for row in rows], np.float32), max(num_shortlisted, num_selected)
    finite = st.lists(SCORE.filter(np.isfinite), min_size=shortlist.shape[1], max_size=shortlist.shape[1])
    drawn = np.array([data.draw(finite) for _ in shortlist], np.float32)
    scores = np.where(np.isneginf(shortlist), -np.inf, drawn)
    places = select_top_m(shortlist, most)
    of_kept = np.take_along_axis(scores, places, axis=1)
    found = cascade_scores(shortlist, places, of_kept)
    expected, dropped = reference(torch.tensor(shortlist), torch.tensor(scores), most)
    assert found.tolist() == expected.tolist()
    ranking = np.where(dropped.numpy(), -np.inf, scores)
    selected = np.take_along_axis(places, select_top_m(of_kept, num_selected), axis=1)
    for row, wanted, own in zip(selected.tolist(), select_top_m(ranking, num_selected).tolist(), ranking, strict=True):
        assert [place for place in row if own[place] > -np.inf] == [place for place in wanted if own[place] > -np.inf]


@given(rows=ROWS, num_selected=st.integers(1, 9), mass=st.sampled_from([0.001, 0.3, 0.5, 0.7501, 0.97, 1.0]))
def test_no_more_are_read_than_hold_the_mass(rows, num_selected, mass):
    scores = np.array([[0.0, *row] for row in rows], np.float32)
    selected, read = select_by_mass(scores, num_selected, mass)
    assert selected.dtype == np.int32
    assert read.shape == selected.shape
    counts = []
    for row, found, kept in zip(scores.tolist(), selected.tolist(), read.tolist(), strict=True):
        assert found == sorted(found)
        ranking = sorted(range(len(row)), key=lambda place: (-row[place], place))
        total, count = 0.0, 0
        while count < min(num_selected, len(row)) and total < mass:
            total += math.exp(row[ranking[count]]) / sum(map(math.exp, row))
            count += 1
        present = [place for place in ranking[:count] if math.isfinite(row[place])]
        own = [place for place, one in zip(found, kept, strict=True) if one and math.isfinite(row[place])]
        assert own == sorted(present)
        counts.append(sum(kept))
    assert selected.shape[1] == max(counts)


@pytest.mark.parametrize(
    ("scores", "mass", "expected"),
    [
        ([0.0, math.log(2), math.log(7)], 0.69, [2]),
        ([0.0, math.log(2), math.log(7)], 0.71, [1, 2]),
        ([0.0, math.log(2), math.log(7)], 0.9001, [0, 1, 2]),
        ([1e30, 0.0, 0.0], 1.0, [0]),
        ([-np.inf, 5.0, 4.0], 0.01, [1]),
        ([np.nan, 5.0, 4.0], 0.01, [0, 1, 2]),
    ],
)  # fmt: skip
def test_mass_by_hand(scores, mass, expected):
    selected, read = select_by_mass(np.array([scores], np.float32), 3, mass)
    assert selected[read].tolist() == expected


def test_what_is_not_read_is_masked_and_takes_no_room():
    lengths = np.array([[7, 2, 3], [1, 6, 4]])
    memory = {
        "memory": np.random.default_rng(0).standard_normal((2, 3, 7, 4)).astype(np.float16),
        "memory_mask": (np.arange(7) < lengths[..., None]).astype(np.int32),
    }
    before = memory["memory_mask"].copy()
    taken = take_selected(memory, np.array([[0, 2], [0, 2]], np.int32), np.array([[False, True], [True, True]]))
    assert taken["memory"].shape == (2, 2, 4, 4)
    assert taken["memory_mask"].sum(axis=2).tolist() == [[0, 3], [1, 4]]
    assert (memory["memory_mask"] == before).all()


def test_selected_memory_ends_with_the_longest_selected_passage():
    random = np.random.default_rng(0)
    lengths = np.array([[7, 2, 3], [1, 7, 0]])
    memory = {
        "memory": random.standard_normal((2, 3, 7, 4)).astype(np.float16),
        "memory_scale": random.random((2, 3)).astype(np.float32),
        "memory_mask": (np.arange(7) < lengths[..., None]).astype(np.int32),
    }
    selected = np.array([[1, 2], [0, 2]], np.int32)
    taken = take_selected(memory, selected)
    assert taken["memory"].shape == (2, 2, 3, 4)
    for row, places in enumerate(selected):
        for place, passage in enumerate(places):
            assert (taken["memory"][row, place] == memory["memory"][row, passage, :3]).all()
            assert taken["memory_scale"][row, place] == memory["memory_scale"][row, passage]
            assert taken["memory_mask"][row, place].sum() == lengths[row, passage]


def test_states_keep_the_question_in_front():
    states = np.random.default_rng(0).standard_normal((1, 2, 3 + 5, 4)).astype(np.float32)
    mask = np.array([[[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]], np.int32)
    taken = take_selected({"rerank_states": states, "memory_mask": mask}, np.array([[1]], np.int32))
    assert (taken["rerank_states"] == states[:, 1:, : 3 + 2]).all()
    assert taken["memory_mask"].tolist() == [[[1, 1]]]


def test_selected_memory_keeps_one_token_where_every_passage_is_absent():
    memory = {"memory": np.ones((1, 2, 5, 4), np.float16), "memory_mask": np.zeros((1, 2, 5), np.int32)}
    assert take_selected(memory, np.array([[0]], np.int32))["memory"].shape == (1, 1, 1, 4)
