"""Drafts against a slow model of them, and decoding with them against decoding without: the same answers, in order."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from glimmer_export.runtime.contract import LOG_PROBABILITY, ModelShape, NotFiniteError
from glimmer_export.runtime.decode import Reading, greedy_decode
from glimmer_export.runtime.drafts import LONGEST_SUFFIX, Drafts, DraftSource, kept_of
from glimmer_export.runtime.placement import Placement

PAD, EOS, START, VOCABULARY = 0, 1, 7, 12
STOPS = {PAD, EOS}
SHAPE = ModelShape(
    architecture="glimmer", vocab_size=VOCABULARY, d_model=2, d_kv=1, d_ff=2, num_heads=1, feed_forward_proj="relu",
    num_memory_layers=1, num_stage_a_layers=1, num_stage_b_layers=1, num_decoder_layers=1,
    separate_question_encoder=False, question_length=3, passage_length=9, question_template="{question}",
    passage_template="{text}", num_retrieved=3, num_selected=2, max_new_tokens=9, pad_token_id=PAD, eos_token_id=EOS,
    decoder_start_token_id=START,
)
MEMORY_FID = dataclasses.replace(SHAPE, architecture="memory_fid", num_selected=None)
TOKENS = st.integers(PAD, 5)
"""Few, so that they repeat."""
PASSAGES = st.lists(st.lists(TOKENS, max_size=12), max_size=4)


def slow_draft(passages: list[list[int]], answer: list[int], most: int) -> list[int]:
    """The longest suffix first; each passage in turn; each of its places in turn."""
    for length in range(min(LONGEST_SUFFIX, len(answer)), 0, -1):
        suffix = answer[len(answer) - length :]
        for passage in passages:
            for place in range(len(passage) - length + 1):
                found, behind = passage[place : place + length], passage[place + length :]
                if found != suffix or STOPS & {*found}:
                    continue
                stop = next((index for index, token in enumerate(behind) if token in STOPS), len(behind))
                if stop:
                    return behind[: min(stop, most)]
    return []


@settings(max_examples=300, deadline=None)
@given(passages=PASSAGES, answer=st.lists(TOKENS, max_size=6), most=st.integers(0, 9))
@example(passages=[[3, 4], [3, 4, 5]], answer=[3, 4], most=2)
@example(passages=[[4, 5], [3, 4, 2]], answer=[3, 4], most=1)
@example(passages=[[3, 4, EOS], [4, 2]], answer=[3, 4], most=3)
@example(passages=[[PAD, 4, 2]], answer=[PAD, 4], most=3)
def test_a_draft_is_what_follows_the_longest_suffix_that_is_found(passages, answer, most):
    assert DraftSource(passages, STOPS).draft(answer, most) == (slow_draft(passages, answer, most) if most else [])


@pytest.mark.parametrize(
    ("draft", "chosen", "kept"),
    [
        ([], [5], 1), ([], [5, PAD, PAD], 1), ([5, 6], [5, 6, 8], 3), ([5, 6], [5, 9, 8], 2), ([5, 6], [9, 6, 8], 1),
        ([5], [5, 6, 6], 2), ([5, 6], [5, EOS, 6], 2),
    ],
)  # fmt: skip
def test_what_is_kept_of_a_draft(draft, chosen, kept):
    """Padding behind a short draft is kept by nobody, whatever was chosen there."""
    assert kept_of(draft, chosen) == kept


class Oracle:
    """Graphs that go on with `answers[row]` where the cache holds what stands before it, and else with a wrong token.

    What a step writes stays in the cache until it is written anew; beyond the cache every output is no number. Its
    log-probability tells row and position.
    """

    def __init__(self, answers: list[list[int]], prefixes: list[list[int]], shape: ModelShape) -> None:
        self.answers, self.prefixes, self.shape = answers, prefixes, shape
        self.lengths: list[int] = []

    def place(self) -> Placement:
        return Placement({"decoder_step": self, "decoder_prefill": Prefill(self)})

    def run(self, inputs):
        ids, cache = inputs["decoder_input_ids"], inputs["past_key_values.0.decoder.key"].copy()
        self.lengths.append(ids.shape[1])
        chosen = np.full(ids.shape, VOCABULARY - 1, np.int32)
        logits = np.full((*ids.shape, VOCABULARY), np.nan, np.float32)
        sure = np.full(ids.shape, np.nan, np.float32)
        for row, step in enumerate(inputs["step"]):
            inside = range(min(ids.shape[1], self.shape.cache_length - step))
            cache[row, 0, step : step + len(inside), 0] = ids[row, : len(inside)]
            for place in inside:
                chosen[row, place] = self.next(row, cache[row, 0, : step + place + 1, 0].astype(int).tolist())
                logits[row, place], sure[row, place] = 0, log_probability(row, step + place)
        return {"next_token": chosen, "logits": logits, LOG_PROBABILITY: sure, "present.0.decoder.key": cache,
                "present.0.decoder.value": inputs["past_key_values.0.decoder.value"]}

    def next(self, row: int, before: list[int]) -> int:
        whole = [*self.prefixes[row], *self.answers[row], EOS]
        begun = len(before) < len(whole) and before == whole[: len(before)]
        return whole[len(before)] if begun else 2 + sum(before) % 4


class Prefill:
    """The first run of a prefix, whose rows end each at its own step."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle

    def run(self, inputs):
        oracle = self.oracle
        ids, last = inputs["decoder_input_ids"], inputs["step"]
        cache = np.zeros((len(ids), 1, oracle.shape.cache_length, 1), np.float32)
        cache[:, 0, : ids.shape[1], 0] = ids
        chosen = [[oracle.next(row, oracle.prefixes[row])] for row in range(len(ids))]
        sure = [[log_probability(row, step)] for row, step in enumerate(last)]
        return {
            "next_token": np.array(chosen, np.int32), "logits": np.zeros((len(ids), VOCABULARY)),
            LOG_PROBABILITY: np.array(sure, np.float32), "present.0.decoder.key": cache,
            "present.0.decoder.value": cache,
        }


def log_probability(row: int, position: int) -> float:
    return -(16.0 * (row + 1) + position / 8)


@dataclasses.dataclass
class Decoded:
    readings: list[Reading]
    told: list[tuple[int, list[int], bool]]
    lengths: list[int]


def decoded(answers, shape, prefixes, drafts: Drafts | None, *, oracle: Oracle | None = None) -> Decoded:
    oracle = oracle or Oracle(answers, prefixes, shape)
    told: list[tuple[int, list[int], bool]] = []
    states, mask = np.ones((len(answers), 2, 2), np.float32), np.ones((len(answers), 2), np.int32)
    readings = greedy_decode(
        oracle.place(), shape, states, mask, prefixes, drafts=drafts, check_finite=True,
        on_step=lambda row, reading, ended: told.append((row, [*reading.tokens], ended)),
    )
    return Decoded(readings, told, oracle.lengths)


@st.composite
def batches(draw: st.DrawFn):
    """Answers, some longer than they may be, and passages that have parts of them, right and wrong."""
    rows = draw(st.integers(1, 3))
    answers = [draw(st.lists(st.integers(2, 5), max_size=11)) for _ in range(rows)]
    sources = []
    for answer in answers:
        begin, end = sorted(draw(st.tuples(st.integers(0, 11), st.integers(0, 11))))
        part = [*draw(st.lists(TOKENS, max_size=3)), *answer[begin:end], *draw(st.lists(TOKENS, max_size=4))]
        sources.append([*draw(PASSAGES), part])
    return answers, sources


@settings(max_examples=200, deadline=None)
@given(batch=batches(), tokens=st.integers(1, 10), prefixed=st.booleans(), data=st.data())
def test_drafts_change_no_answer(batch, tokens, prefixed, data):
    answers, passages = batch
    shape = MEMORY_FID if prefixed else SHAPE
    prefixes = [[START, *(data.draw(st.lists(TOKENS, max_size=3)) if prefixed else [])] for _ in answers]
    plain = decoded(answers, shape, prefixes, None)
    drafts = Drafts([DraftSource(row, STOPS) for row in passages], tokens)
    found = decoded(answers, shape, prefixes, drafts)
    for one, other, answer in zip(found.readings, plain.readings, answers, strict=True):
        assert one.tokens == other.tokens == answer[: shape.max_new_tokens]
        assert math.isclose(one.log_probability, other.log_probability, abs_tol=1e-9)
        assert other.runs == len(answer[: shape.max_new_tokens - 1]) + 1
        assert 1 <= one.runs <= other.runs
    for row in range(len(answers)):  # each row's tokens are told one by one, in order, and its end once
        assert [item for item in found.told if item[0] == row] == [item for item in plain.told if item[0] == row]
    assert {*found.lengths} <= {1, tokens + 1}
    assert len(found.lengths) + prefixed == max(reading.runs for reading in found.readings)


@pytest.mark.parametrize(
    ("answer", "passage", "tokens", "lengths"),
    [
        ([2, 3, 4, 5], [2, 3, 4, 5, 3], 4, [1, 5]),  # right, and EOS where the passage has another token
        ([2, 3, 4, 5], [2, 3, 5, 5, 5], 4, [1, 5, 1, 5]),  # wrong after one, then nowhere to go on from, then wrong
        ([2, 3, 4], [2, 3, 4, EOS, 9], 7, [1, 8]),  # short: it ends at the passage's EOS
        ([2, 3, 4, 5, 2, 3, 4, 5, 5], [2, 3, 4, 5, 2, 3, 4, 5, 5, 5], 9, [1, 10]),  # too long: max_new_tokens within
        ([2, 3], [9, 9], 4, [1, 1, 1]),  # none
    ],
)  # fmt: skip
def test_runs(answer, passage, tokens, lengths):
    """A draft's run has one length however short the draft is, and a run without a draft has a token."""
    found = decoded([answer], SHAPE, [[START]], Drafts([DraftSource([passage], STOPS)], tokens))
    assert (found.readings[0].tokens, found.readings[0].runs) == (answer, len(lengths))
    assert found.lengths == lengths


def test_rows_keep_as_many_as_each_chose():
    answers = [[2, 3, 4, 5], [3, 3], [5, 4, 3, 2, 5, 4]]
    passages = [[[2, 3, 4, 5]], [[9]], [[5, 4, 3], [3, 2, 5, 4]]]
    found = decoded(answers, SHAPE, [[START]] * 3, Drafts([DraftSource(row, STOPS) for row in passages], 3))
    assert [reading.tokens for reading in found.readings] == answers
    assert [reading.runs for reading in found.readings] == [2, 3, 3]


class Broken(Oracle):
    """Its logits are NaN at one position of one row."""

    position = 0

    def run(self, inputs):
        outputs = super().run(inputs)
        for row, step in enumerate(inputs["step"]):
            if row == 0 and 0 <= self.position - step < outputs["logits"].shape[1]:
                outputs["logits"][row, self.position - step] = np.nan
        return outputs


@pytest.mark.parametrize(("position", "raises"), [(2, True), (3, True), (5, False)])
def test_only_what_is_kept_is_checked(position, raises):
    """The row keeps positions 0 to 4, EOS's own among them; what came behind was not chosen."""
    answer = [2, 3, 4, 5]
    oracle = Broken([answer], [[START]], SHAPE)
    oracle.position = position
    drafts = Drafts([DraftSource([[2, 3, 4, 5, 3, 3]], STOPS)], 6)
    if raises:
        with pytest.raises(NotFiniteError, match="found nan"):
            decoded([answer], SHAPE, [[START]], drafts, oracle=oracle)
    else:
        assert decoded([answer], SHAPE, [[START]], drafts, oracle=oracle).readings[0].tokens == answer
