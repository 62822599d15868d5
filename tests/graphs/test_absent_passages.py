"""A passage whose mask is all 0 is not there: it scores -inf, and neither it nor its question copy is read."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from glimmer_export.exporter.graphs.samples import Sizes, sample_inputs
from glimmer_export.exporter.tolerances import TOLERANCES, max_abs_error
from tests.exported import VARIANTS, Exported

K, QUESTION, PASSAGE = 3, 4, 6
SIZES = Sizes(2, passages=K, selected=2, question=QUESTION, passage=PASSAGE, encoder_tokens=7, prefix=5, cache_length=6)


def run(source: Exported, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(source.graph(name), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return max_abs_error(found, expected) <= TOLERANCES["fp32"].limit(expected)


def with_absent(source: Exported, name: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inputs of three passages, and the same with a fourth that is absent, though something is in its place."""
    inputs = sample_inputs(source.io[name], source.shape, SIZES, seed=8)
    lengths = np.random.default_rng(1).integers(1, PASSAGE + 1, (2, K, 1))
    inputs["memory_mask"] = (np.arange(PASSAGE) < lengths).astype(np.int32)
    more = dict(inputs)
    for tensor in ("memory", "memory_scale", "memory_mask", "rerank_states"):
        if tensor in inputs:
            values = inputs[tensor]
            extra = np.zeros_like(values[:, :1]) if tensor == "memory_mask" else values[:, :1] * 3
            more[tensor] = np.concatenate([values, extra.astype(values.dtype)], axis=1)
    return inputs, more


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_scores_minus_infinity_and_changes_no_other_score(exported, variant):
    source = exported(variant)
    if not source.shape.traits.selects:
        return
    inputs, more = with_absent(source, "live_stage_a")
    expected, found = run(source, "live_stage_a", inputs), run(source, "live_stage_a", more)
    assert np.isfinite(expected["scores"]).all()
    assert (found["scores"][:, K] == -np.inf).all()
    assert close(found["scores"][:, :K], expected["scores"])
    if "rerank_states" in expected:
        assert close(found["rerank_states"][:, :K], expected["rerank_states"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_nothing_of_it_is_read(exported, variant):
    source = exported(variant)
    if not source.shape.traits.has_memory:
        return
    inputs, more = with_absent(source, "live_stage_b")
    if source.shape.traits.selects:
        inputs["selected"] = np.array([[0, 2], [1, 2]], np.int32)
        more["selected"] = np.array([[0, 2, 3], [1, 2, 3]], np.int32)
    expected, found = run(source, "live_stage_b", inputs), run(source, "live_stage_b", more)
    present = expected["encoder_attention_mask"].shape[1]
    mask = found["encoder_attention_mask"]
    assert mask.shape[1] > present
    assert (mask[:, :present] == expected["encoder_attention_mask"]).all()
    assert not mask[:, present:].any()
    assert close(found["encoder_hidden_states"][:, :present], expected["encoder_hidden_states"])
    assert np.isfinite(found["encoder_hidden_states"]).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_question_is_read_with_each_passage_that_is_there(exported, variant):
    source = exported(variant)
    if not source.shape.traits.encodes_question:
        return
    inputs, _ = with_absent(source, "live_stage_b")
    chosen = inputs["memory_mask"]
    if source.shape.traits.selects:
        inputs["selected"] = np.array([[0, 2], [1, 2]], np.int32)
        chosen = np.take_along_axis(chosen, inputs["selected"][..., None], axis=1)
    mask = run(source, "live_stage_b", inputs)["encoder_attention_mask"].reshape(2, chosen.shape[1], QUESTION + PASSAGE)
    assert (mask[..., QUESTION:] == chosen).all()
    assert (mask[..., :QUESTION] == inputs["question_mask"][:, None]).all()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["decoder_step", "decoder_prefill"])
def test_the_decoder_sees_no_masked_state(exported, variant, name):
    source = exported(variant)
    if name not in source.io:
        return
    inputs = sample_inputs(source.io[name], source.shape, SIZES, seed=9)
    inputs["encoder_attention_mask"][:] = 1
    more = dict(inputs)
    for tensor, values in inputs.items():
        axis = 2 if ".encoder." in tensor else 1 if tensor.startswith("encoder_") else None
        if axis is not None:
            extra = np.zeros_like(values) if tensor == "encoder_attention_mask" else values * 5
            more[tensor] = np.concatenate([values, extra], axis=axis)
    expected, found = run(source, name, inputs), run(source, name, more)
    assert close(found["logits"], expected["logits"])
    assert (found["next_token"] == expected["next_token"]).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_sees_no_place_of_the_cache_behind_its_own(exported, variant):
    source = exported(variant)
    inputs = sample_inputs(source.io["decoder_step"], source.shape, SIZES, seed=10)
    inputs["step"] = np.array([0, 3], np.int32)
    other = dict(inputs)
    for tensor, values in inputs.items():
        if ".decoder." in tensor:
            behind = np.arange(values.shape[2])[None, None, :, None] >= inputs["step"][:, None, None, None]
            other[tensor] = np.where(behind, values * 7 + 1, values)
    expected, found = run(source, "decoder_step", inputs), run(source, "decoder_step", other)
    assert close(found["logits"], expected["logits"])
    for tensor, values in expected.items():
        if tensor.startswith("present."):
            past = inputs[tensor.replace("present", "past_key_values")]
            for row, step in enumerate(inputs["step"]):
                assert (values[row, :, :step] == past[row, :, :step]).all()
                assert (values[row, :, step + 1 :] == past[row, :, step + 1 :]).all()
                assert not np.allclose(values[row, :, step], past[row, :, step])
                assert close(found[tensor][row, :, step], values[row, :, step])
