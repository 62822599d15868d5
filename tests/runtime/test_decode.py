"""The decoding loop against graphs that follow a script: where it stops, and what it passes on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from glimmer_export.runtime.contract import LOG_PROBABILITY, ModelShape, NotFiniteError
from glimmer_export.runtime.decode import Reading, greedy_decode
from glimmer_export.runtime.placement import Placement

EOS, START, HEADS, D_KV, LAYERS = 1, 7, 2, 3, 2
SHAPE = ModelShape(
    architecture="glimmer", vocab_size=50, d_model=6, d_kv=D_KV, d_ff=8, num_heads=HEADS, feed_forward_proj="relu",
    num_memory_layers=1,
    num_stage_a_layers=1, num_stage_b_layers=1, num_decoder_layers=LAYERS, separate_question_encoder=False,
    question_length=5, passage_length=9, question_template="{question}", passage_template="{text}", num_retrieved=3,
    num_selected=2, max_new_tokens=4, pad_token_id=0, eos_token_id=EOS, decoder_start_token_id=START,
)
CACHES = [f"{layer}.decoder.{part}" for layer in range(LAYERS) for part in ("key", "value")]


class Script:
    """Graphs that answer token `script[row][n]` in run n, and keep their inputs.

    Its log-probability is that of the row's place in tens and the run in hundredths, so that each is told from others.
    """

    def __init__(self, script: list[list[int]], cache_length: int, *, log_probability: bool = True) -> None:
        self.script, self.cache_length, self.log_probability = script, cache_length, log_probability
        self.steps: list[dict[str, np.ndarray]] = []
        self.prefills: list[dict[str, np.ndarray]] = []
        self.runs = 0

    def graphs(self) -> dict[str, object]:
        return {
            "cross_kv": Runs(lambda inputs: {"past_key_values.0.encoder.key": inputs["encoder_hidden_states"] * 2}),
            "decoder_step": Runs(lambda inputs: self.next(inputs, self.steps)),
            "decoder_prefill": Runs(lambda inputs: self.next(inputs, self.prefills)),
        }

    def next(self, inputs: dict[str, np.ndarray], calls: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        calls.append(dict(inputs))
        tokens = [row[self.runs] if self.runs < len(row) else 49 for row in self.script]
        chosen = [[log_probability(row, self.runs)] for row in range(len(tokens))]
        self.runs += 1
        dims = (len(tokens), HEADS, self.cache_length, D_KV)
        # Each cache is told from the others by its number and the run that wrote it.
        present = {f"present.{name}": np.full(dims, 10 * self.runs + place) for place, name in enumerate(CACHES)}
        outputs = {"next_token": np.array(tokens, np.int32)[:, None], "logits": np.zeros((len(tokens), 50)), **present}
        return {**outputs, LOG_PROBABILITY: np.array(chosen, np.float32)} if self.log_probability else outputs


def log_probability(row: int, run: int) -> float:
    return -(10.0 * (row + 1) + (run + 1) / 4)


class Runs:
    def __init__(self, function) -> None:
        self.run = function


def decode(script: list[list[int]], *, shape: ModelShape = SHAPE, prefixes=None) -> tuple[list[list[int]], Script]:
    made = Script(script, shape.cache_length)
    return [answer.tokens for answer in decoded(made, shape=shape, prefixes=prefixes)], made


def decoded(
    made: Script, *, shape: ModelShape = SHAPE, prefixes=None, eos_interval: int = 1, check_finite: bool = False
) -> list[Reading]:
    script = made.script
    states = np.ones((len(script), 3, 6), np.float32)
    mask = np.ones((len(script), 3), np.int32)
    place = Placement(made.graphs())
    place.device.eos_interval = eos_interval
    prefixes = prefixes or [[START]] * len(script)
    return greedy_decode(place, shape, states, mask, prefixes, check_finite=check_finite)


@pytest.mark.parametrize(
    ("script", "answers", "runs"),
    [
        ([[EOS]], [[]], 1),
        ([[5, 6, EOS]], [[5, 6]], 3),
        ([[5, 6, 8, 9, 10]], [[5, 6, 8, 9]], 4),
        ([[5, 6, 8, EOS]], [[5, 6, 8]], 4),
        ([[5, EOS, 8, 9], [EOS, 4, 4, 4], [5, 6, EOS, 3]], [[5], [], [5, 6]], 3),
        ([[EOS, 2, 2, 2], [3, 3, 3, 3]], [[], [3, 3, 3, 3]], 4),
        ([[0, 0, EOS]], [[0, 0]], 3),
    ],
)  # fmt: skip
def test_stops_at_eos_or_at_the_longest_answer(script, answers, runs):
    found, made = decode(script)
    assert found == answers
    assert made.runs == runs


def test_one_token_at_most():
    found, made = decode([[5, 6], [EOS, 6]], shape=dataclasses.replace(SHAPE, max_new_tokens=1))
    assert (found, made.runs) == ([[5], []], 1)


def test_each_step_has_its_token_its_position_and_the_cache_before():
    _, made = decode([[5, 6, 8, 9], [15, 16, EOS, 0]])
    assert [call["decoder_input_ids"].tolist() for call in made.steps] == [
        [[START], [START]], [[5], [15]], [[6], [16]], [[8], [EOS]],
    ]
    assert [call["step"].tolist() for call in made.steps] == [[0, 0], [1, 1], [2, 2], [3, 3]]
    for run, call in enumerate(made.steps):
        assert call["decoder_input_ids"].dtype == call["step"].dtype == np.int32
        assert (call["past_key_values.0.encoder.key"] == 2).all()
        assert call["encoder_attention_mask"].shape == (2, 3)
        for place, name in enumerate(CACHES):
            past = call[f"past_key_values.{name}"]
            assert past.shape == (2, HEADS, SHAPE.cache_length, D_KV)
            assert (past == (10 * run + place if run else 0)).all()
    assert not made.prefills


def test_a_prefix_is_read_at_once_each_row_to_its_own_end():
    shape = dataclasses.replace(SHAPE, architecture="memory_fid", num_selected=None)
    found, made = decode(
        [[5, 6, EOS, 0], [8, 9, 10, 11]], shape=shape, prefixes=[[START, 30, 31, EOS], [START, EOS]]
    )
    assert found == [[5, 6], [8, 9, 10, 11]]
    (prefill,) = made.prefills
    assert prefill["decoder_input_ids"].tolist() == [[START, 30, 31, EOS], [START, EOS, 0, 0]]
    assert prefill["step"].tolist() == [3, 1]
    assert not any(".decoder." in name for name in prefill)
    assert [call["step"].tolist() for call in made.steps] == [[4, 2], [5, 3], [6, 4]]
    assert [call["decoder_input_ids"].tolist() for call in made.steps] == [[[5], [8]], [[6], [9]], [[EOS], [10]]]
    assert (made.steps[0][f"past_key_values.{CACHES[1]}"] == 11).all()


@pytest.mark.parametrize("eos_interval", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("script", "chosen"),
    [
        ([[EOS, 5, 6, 8]], [1]),
        ([[5, 6, EOS, 8]], [3]),
        ([[5, 6, 8, EOS]], [4]),
        ([[5, 6, 8, 9, EOS]], [4]),
        ([[5, EOS, 8, EOS], [EOS, EOS, 4, 4], [5, 6, 8, 9]], [2, 1, 4]),
    ],
)
def test_what_was_chosen_counts_eos_too_and_nothing_behind_it(script, chosen, eos_interval):
    """Where the tokens are looked at every few steps, rows run on behind their EOS."""
    answers = decoded(Script(script, SHAPE.cache_length), eos_interval=eos_interval)
    assert [answer.log_probability for answer in answers] == [
        sum(log_probability(row, run) for run in range(count)) for row, count in enumerate(chosen)
    ]


def test_a_question_before_the_answer_was_not_chosen():
    shape = dataclasses.replace(SHAPE, architecture="memory_fid", num_selected=None)
    made = Script([[5, EOS]], shape.cache_length)
    (answer,) = decoded(made, shape=shape, prefixes=[[START, 30, 31, EOS]])
    assert answer == Reading([5], log_probability(0, 0) + log_probability(0, 1), runs=2)


def test_graphs_that_do_not_tell_give_none():
    made = Script([[5, EOS], [EOS]], SHAPE.cache_length, log_probability=False)
    assert decoded(made, check_finite=True) == [Reading([5], None, runs=2), Reading([], None, runs=1)]


@pytest.mark.parametrize(("run", "raises"), [(1, True), (3, False)])
def test_a_step_whose_logits_are_not_looked_at_is_checked_too(monkeypatch, run, raises):
    """A device hands out the logits of some steps alone; what comes behind EOS is of no account."""
    monkeypatch.setitem(globals(), "log_probability", lambda _row, step: np.nan if step == run else -1.0)
    made = Script([[5, 6, EOS, 8]], SHAPE.cache_length)
    if raises:
        with pytest.raises(NotFiniteError, match="found nan"):
            decoded(made, eos_interval=4, check_finite=True)
    else:
        (answer,) = decoded(made, eos_interval=4, check_finite=True)
        assert answer.log_probability == -3.0
