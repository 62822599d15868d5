"""The decoding loop against graphs that follow a script: where it stops, and what it passes on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from runtime.contract import ModelShape
from runtime.decode import greedy_decode
from runtime.placement import HostPlacement

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
    """Graphs that answer token `script[row][n]` in run n, and keep their inputs."""

    def __init__(self, script: list[list[int]], cache_length: int) -> None:
        self.script, self.cache_length = script, cache_length
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
        self.runs += 1
        dims = (len(tokens), HEADS, self.cache_length, D_KV)
        # Each cache is told from the others by its number and the run that wrote it.
        present = {f"present.{name}": np.full(dims, 10 * self.runs + place) for place, name in enumerate(CACHES)}
        return {"next_token": np.array(tokens, np.int32)[:, None], "logits": np.zeros((len(tokens), 50)), **present}


class Runs:
    def __init__(self, function) -> None:
        self.run = function


def decode(script: list[list[int]], *, shape: ModelShape = SHAPE, prefixes=None) -> tuple[list[list[int]], Script]:
    made = Script(script, shape.cache_length)
    states = np.ones((len(script), 3, 6), np.float32)
    mask = np.ones((len(script), 3), np.int32)
    answers = greedy_decode(HostPlacement(made.graphs()), shape, states, mask, prefixes or [[START]] * len(script))
    return answers, made


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
