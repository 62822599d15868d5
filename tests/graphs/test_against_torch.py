"""Every graph computes what its torch stage computes, at any size."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import onnxruntime
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from glimmer_export.exporter.graphs.check import compare_outputs, run_stage
from glimmer_export.exporter.graphs.samples import Sizes, sample_inputs
from glimmer_export.exporter.stages import stage_from_model
from glimmer_export.exporter.tolerances import TOLERANCES
from tests.exported import VARIANTS, Exported


@st.composite
def sizes(draw: st.DrawFn) -> Sizes:
    """Sizes from 1 up, none more likely to be equal than not; m at most k, prefix at most question_length + 1."""
    passages = draw(st.integers(1, 6))
    return Sizes(
        batch=draw(st.integers(1, 4)), passages=passages, selected=draw(st.integers(1, passages)),
        question=draw(st.integers(1, 12)), passage=draw(st.integers(1, 24)), encoder_tokens=draw(st.integers(1, 40)),
        prefix=draw(st.integers(1, 13)), cache_length=draw(st.integers(1, 18)),
        positions=draw(st.integers(1, 9)),
    )


@cache
def session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, sess_options=options, providers=["CPUExecutionProvider"])


ONES = Sizes(1, passages=1, selected=1, question=1, passage=1, encoder_tokens=1, prefix=1, cache_length=1)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=sizes(), seed=st.integers(0, 2**32 - 1))
@example(size=ONES, seed=0)
def test_graphs_agree_with_their_stages(exported, variant, size, seed):
    source: Exported = exported(variant)
    for name, io in source.io.items():
        inputs = sample_inputs(io, source.shape, size, seed=seed)
        expected = run_stage(stage_from_model(source.model, name, source.forms), io, inputs, "fp16")
        outputs = [tensor.name for tensor in io.outputs]
        found = dict(zip(outputs, session(source.graph(name)).run(outputs, inputs), strict=True))
        for output, array in expected.items():
            assert (found[output].shape, found[output].dtype) == (array.shape, array.dtype), (name, output)
        compare_outputs(name, found, expected, TOLERANCES["fp32"])
