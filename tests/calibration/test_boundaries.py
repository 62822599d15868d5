"""Which tensors go from graph to graph in FP16: by their ranges, in every graph that they were seen in."""

from __future__ import annotations

import numpy as np
import pytest

from glimmer_export.calibration.fp16 import fp16_boundaries
from glimmer_export.calibration.fp16_limits import FP16_SAFE, SMALLEST_AMAX
from glimmer_export.calibration.ranges import TensorRange
from glimmer_export.runtime.contract import GraphIO, IOTensor, boundaries_of, boundary_of, with_fp16

KEY, VALUE, CACHE = "past_key_values.0.encoder.key", "past_key_values.0.encoder.value", "past_key_values.0.decoder.key"
STATES = "encoder_hidden_states"


def io(inputs: list[str], outputs: list[str]) -> GraphIO:
    return GraphIO(*(tuple(IOTensor(name, "float32", ("batch", 8)) for name in side) for side in (inputs, outputs)))


GRAPHS = {
    "live_stage_a": io(["question_states"], ["scores", "rerank_states"]),
    "live_stage_b": io(["rerank_states"], [STATES]),
    "cross_kv": io([STATES], [KEY, VALUE]),
    "decoder_step": io([CACHE, KEY, VALUE], ["logits", "next_token_log_probability", "present.0.decoder.key"]),
}


def seen(amax: float) -> TensorRange:
    return TensorRange(-amax, amax / 2, 8, 2.0**40, np.zeros(2, np.int64), None)


def ranges(**changes: dict[str, float]) -> dict[str, dict[str, TensorRange]]:
    """All are at most 3; `changes` by graph."""
    return {
        name: {
            tensor.name: seen(changes.get(name, {}).get(tensor.name, 3.0))
            for tensor in (*graph.inputs, *graph.outputs)
        }
        for name, graph in GRAPHS.items()
    }


def test_the_residual_stream_and_what_people_read_are_no_candidates():
    assert list(fp16_boundaries(GRAPHS, ranges(), list(GRAPHS))) == [STATES, KEY, VALUE, CACHE]
    assert set(fp16_boundaries(GRAPHS, ranges(), list(GRAPHS)).values()) == {None}
    names = ["rerank_states", "question_states", "memory", "hidden_states", "scores", "logits", "memory_scale"]
    assert {boundary_of(name) for name in [*names, "next_token_log_probability"]} == {None}


@pytest.mark.parametrize(
    ("graph", "tensor", "amax", "reason"),
    [
        ("live_stage_b", STATES, FP16_SAFE, None),
        ("live_stage_b", STATES, 1.01 * FP16_SAFE, "it reaches 3.31e+04"),
        ("cross_kv", STATES, 74 * 2.0**13, "it reaches 6.06e+05"),
        ("cross_kv", VALUE, 1e5, "it reaches 1e+05"),
        ("decoder_step", KEY, 1e5, "it reaches 1e+05"),
        ("decoder_step", "present.0.decoder.key", 1e5, "it reaches 1e+05"),
        ("decoder_step", CACHE, 1e5, "it reaches 1e+05"),
    ],
)
def test_the_largest_range_of_any_graph_decides(graph, tensor, amax, reason):
    found = fp16_boundaries(GRAPHS, ranges(**{graph: {tensor: amax}}), list(GRAPHS))
    assert found == {STATES: None, KEY: None, VALUE: None, CACHE: None} | {boundary_of(tensor): reason}


@pytest.mark.parametrize(("amax", "reason"), [(SMALLEST_AMAX, None), (0.0, None), (0.01, "it reaches only 0.01")])
def test_what_fp16_would_lose_stays(amax, reason):
    table = {name: dict.fromkeys(tensors, seen(amax)) for name, tensors in ranges().items()}
    assert set(fp16_boundaries(GRAPHS, table, list(GRAPHS)).values()) == {reason}


def test_without_a_range_it_stays():
    table = ranges()
    del table["cross_kv"][VALUE], table["decoder_step"][VALUE]
    found = fp16_boundaries(GRAPHS, table, list(GRAPHS))
    assert found == {STATES: None, KEY: None, VALUE: "no range of it is known", CACHE: None}
    assert set(fp16_boundaries(GRAPHS, {}, list(GRAPHS)).values()) == {"no range of it is known"}


def test_beside_a_graph_in_fp32_it_stays():
    found = fp16_boundaries(GRAPHS, ranges(), ["live_stage_a", "live_stage_b", "decoder_step"])
    because = "cross_kv computes in FP32"
    assert found == {STATES: because, KEY: because, VALUE: because, CACHE: None}


def test_both_sides_of_a_boundary_have_its_type():
    typed = with_fp16(GRAPHS, [STATES, CACHE])
    halves = {
        (name, tensor.name) for name, graph in typed.items() for tensor in (*graph.inputs, *graph.outputs)
        if tensor.dtype == "float16"
    }
    assert halves == {
        ("live_stage_b", STATES), ("cross_kv", STATES), ("decoder_step", CACHE),
        ("decoder_step", "present.0.decoder.key"),
    }  # fmt: skip
    assert boundaries_of(typed) == boundaries_of(GRAPHS) == {
        STATES: ("live_stage_b", "cross_kv"), KEY: ("cross_kv", "decoder_step"), VALUE: ("cross_kv", "decoder_step"),
        CACHE: ("decoder_step",),
    }  # fmt: skip
    assert with_fp16(GRAPHS, []) == GRAPHS
