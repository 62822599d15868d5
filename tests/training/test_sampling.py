"""What a step draws: tasks uniformly, rows once an epoch, gold where the recipe has it, the same after a restore."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.demo.world import CHECKPOINT, NUM_CONTEXT, generate_split
from glimmer_export.exporter.training.passages import PassageTable
from glimmer_export.exporter.training.rows import TrainingRows, rows_from_world
from glimmer_export.exporter.training.sampling import Sampler, micro_batches
from glimmer_export.exporter.training.texts import RowText
from glimmer_export.runtime.contract import TrainingError

SIZES = {"big": 40, "small": 7, "one": 1}


def make_rows(text, sizes=SIZES, candidates=range(100, 110), gold=(), answers=3):
    rows = TrainingRows(PassageTable(text))
    for task, size in sizes.items():
        for number in range(size):
            rows.append(f"{task} {number}", [number], [(f"a{n}", [n]) for n in range(answers)], task, candidates, gold)
    return rows


def plain(drawn):
    return [(one.row, one.passages.tolist(), one.answer) for one in drawn]


class TestRows:
    @given(st.integers(0, 2**32), st.integers(1, 17), st.dictionaries(st.text("ab"), st.integers(1, 9), min_size=1))
    def test_every_row_of_a_task_comes_once_an_epoch(self, text, seed, batch, sizes):
        rows = make_rows(text, sizes)
        sampler = Sampler(rows, seed=seed)
        drawn = [one.row for _ in range(12) for one in sampler.draw(batch, 1)]
        for number, size in enumerate(sizes.values()):
            of_task = [row for row in drawn if rows.task[row] == number]
            epochs = [of_task[start : start + size] for start in range(0, len(of_task), size)]
            assert all(len({*epoch}) == len(epoch) for epoch in epochs)

    def test_tasks_are_drawn_uniformly_whatever_their_size(self, text):
        rows = make_rows(text)
        sampler = Sampler(rows, seed=5)
        counts = Counter(int(rows.task[one.row]) for _ in range(100) for one in sampler.draw(30, 1))
        chi_square = sum((counts[task] - 1000) ** 2 / 1000 for task in range(3))
        assert chi_square < 13.8  # p = 0.001 with two degrees of freedom

    def test_epochs_are_shuffled_anew(self, text):
        sampler = Sampler(make_rows(text, {"a": 40}), seed=5)
        first, second = ([one.row for one in sampler.draw(40, 1)] for _ in range(2))
        assert sorted(first) == sorted(second) == list(range(40))
        assert first != second
        assert first != list(range(40))

    def test_a_phase_has_its_tasks(self, text):
        rows = make_rows(text)
        sampler = Sampler(rows, seed=5)
        assert {rows.tasks[rows.task[one.row]] for one in sampler.draw(60, 1, ["one", "small"])} == {"one", "small"}
        with pytest.raises(TrainingError, match="task none: expected a task of the rows, big, small, one"):
            sampler.draw(60, 1, ["small", "none"])

    def test_answers_are_drawn(self, text):
        sampler = Sampler(make_rows(text, {"one": 1}), seed=5)
        counts = Counter(one.answer for one in sampler.draw(300, 1))
        assert {*counts} == {0, 1, 2}
        assert min(counts.values()) > 60

    @given(st.integers(0, 2**32))
    def test_a_seed_gives_its_own_batches(self, text, seed):
        rows = make_rows(text)
        batches = [plain(Sampler(rows, seed=one).draw(20, 3)) for one in (seed, seed, seed + 1)]
        assert batches[0] == batches[1] != batches[2]


class TestRestore:
    @given(st.integers(0, 9), st.integers(1, 9))
    def test_batches_are_the_same_after_a_restore(self, text, steps, batch):
        rows = make_rows(text, gold=[104, 999])
        options = {"seed": 3, "gold": "among", "distractors": "random"}
        unbroken, resumed = Sampler(rows, **options), Sampler(rows, **options)
        for _ in range(steps):
            unbroken.draw(batch, 4)
        resumed.restore(json.loads(json.dumps(unbroken.state())))
        for _ in range(5):
            assert plain(unbroken.draw(batch, 4)) == plain(resumed.draw(batch, 4))

    @pytest.mark.parametrize(
        "state", [{}, {"step": 3}, {"step": "3", "draws": {}}, {"step": 3, "draws": {"big": 1, "small": 2}}]
    )
    def test_a_state_of_other_rows_is_refused(self, text, state):
        sampler = Sampler(make_rows(text), seed=3)
        before = sampler.state()
        with pytest.raises(ValueError, match="other tasks"):
            sampler.restore(state)
        assert sampler.state() == before


class TestPassages:
    @staticmethod
    def drawn(text, most, steps=40, candidates=range(100, 110), **options):
        known = options.pop("known", ())
        rows = make_rows(text, {"one": 1}, candidates, known)
        sampler = Sampler(rows, seed=1, **options)
        return [one.passages.tolist() for one in sampler.draw(steps, most)]

    def test_they_are_the_first_as_retrieved(self, text):
        assert self.drawn(text, 3, 2) == [[100, 101, 102]] * 2
        assert self.drawn(text, 3, 2, known=[105, 999]) == [[100, 101, 102]] * 2
        assert self.drawn(text, 30, 1) == [list(range(100, 110))]

    def test_gold_among_the_first_changes_nothing(self, text):
        assert self.drawn(text, 3, 5, known=[102, 105], gold="among") == [[100, 101, 102]] * 5
        assert self.drawn(text, 30, 5, known=[109], gold="among") == [list(range(100, 110))] * 5

    @pytest.mark.parametrize("gold", [105, 999])
    def test_gold_beyond_the_first_takes_a_random_place(self, text, gold):
        drawn = self.drawn(text, 3, known=[gold], gold="among")
        assert {row.index(gold) for row in drawn} == {0, 1, 2}
        assert all([place for place in row if place != gold] == [100, 101] for row in drawn)
        assert self.drawn(text, 1, 3, known=[gold], gold="among") == [[gold]] * 3

    def test_random_ones_keep_their_order(self, text):
        drawn = self.drawn(text, 4, 200, distractors="random")
        assert all(row == sorted(row) and len({*row}) == 4 for row in drawn)
        counts = Counter(place for row in drawn for place in row)
        assert {*counts} == set(range(100, 110))
        assert min(counts.values()) > 50
        assert self.drawn(text, 30, 3, distractors="random") == [list(range(100, 110))] * 3

    def test_gold_keeps_its_place_among_random_ones(self, text):
        drawn = self.drawn(text, 4, 200, known=[104], gold="among", distractors="random")
        assert all(104 in row and row == sorted(row) and len({*row}) == 4 for row in drawn)
        others = Counter(place for row in drawn for place in row if place != 104)
        assert len(others) == 9
        assert min(others.values()) > 40

    def test_gold_that_was_not_retrieved_takes_a_random_place_among_random_ones(self, text):
        drawn = self.drawn(text, 3, 200, known=[999], gold="among", distractors="random")
        assert {row.index(999) for row in drawn} == {0, 1, 2}
        rest = [[place for place in row if place != 999] for row in drawn]
        assert all(row == sorted(row) and len(row) == 2 for row in rest)
        assert {place for row in rest for place in row} == set(range(100, 110))

    def test_one_of_several_gold_passages_is_there(self, text):
        drawn = self.drawn(text, 2, 200, known=[103, 107, 999], gold="among", distractors="random")
        assert all({103, 107} & {*row} for row in drawn)
        assert {place for row in drawn for place in row} == set(range(100, 110))

    def test_a_row_without_gold_is_as_retrieved(self, text):
        assert self.drawn(text, 3, 2, gold="among") == [[100, 101, 102]] * 2

    @pytest.mark.parametrize("gold", ["as_retrieved", "among"])
    @pytest.mark.parametrize("distractors", ["first", "random"])
    def test_fewer_candidates_than_k_are_all_read(self, text, gold, distractors):
        options = {"gold": gold, "distractors": distractors, "known": [8]}
        assert self.drawn(text, 3, 2, candidates=[7, 8], **options) == [[7, 8]] * 2


def test_the_demo_is_a_case_of_it():
    """Of a world each question once, less a remainder, with its gold passage and random others in their order."""
    world = generate_split("train", 50, seed=1)
    rows = rows_from_world(world, RowText.of(read_checkpoint(CHECKPOINT)), task="demo")
    sampler = Sampler(rows, seed=9, gold="among", distractors="random")
    seen = [one for _ in range(6) for one in sampler.draw(8, 4)]
    assert len({one.row for one in seen}) == 48
    for one in seen:
        context = world.questions[one.row]["ctx_ids"]
        places = [context.index(passage) for passage in one.passages]
        assert places == sorted(places)
        assert len({*places}) == 4
        assert world.questions[one.row]["gold_ids"][0] in one.passages
    assert len({place for one in seen for place in one.passages}) > NUM_CONTEXT


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 4))
def test_processes_share_a_step(size, micro, processes):
    drawn = list(range(size))
    parts = [micro_batches(drawn, micro, process, processes) for process in range(processes)]
    assert sorted(row for process in parts for part in process for row in part) == drawn
    assert all(0 < len(part) <= micro for process in parts for part in process)
    assert micro_batches(drawn, micro) == [
        parts[index % processes][index // processes] for index in range(-(-size // micro))
    ]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_rows_and_passages_are_cheap_to_draw(text):
    """A hundred thousand rows of forty passages: numbers in arrays, a few bytes each."""
    rows = TrainingRows(PassageTable(text))
    candidates = np.arange(40, dtype=np.int32)
    for number in range(100_000):
        rows.append("w1", [1, 2, 3], [("w1", [1, 2])], f"task {number % 6}", candidates, [])
    sampler = Sampler(rows, seed=0, distractors="random")
    assert len(sampler.draw(128, 25)) == 128
    assert rows.candidates._values.nbytes <= 2 * 4 * 40 * 100_000
