"""Runs without padding against the padded batch: every graph of every architecture computes the same."""

from __future__ import annotations

import numpy as np
import pytest

from glimmer_export.calibration.collect import spread, unpadded_runs
from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from tests.exported import QUESTIONS, VARIANTS

FEW = [QUESTIONS[1], QUESTIONS[2], QUESTIONS[3]]
"""Of one word, of question_length and between."""


class RecordingBackend(OnnxRuntimeBackend):
    """Keeps what each graph was given and what came of it."""

    def __init__(self):
        super().__init__(threads=1)
        self.runs = []

    def load(self, path, io):
        graph = super().load(path, io)
        return Recorded(path.stem, graph, io, self.runs)


class Recorded:
    def __init__(self, name, graph, io, runs):
        self.name, self.graph, self.io, self.runs = name, graph, io, runs

    def run(self, inputs):
        outputs = self.graph.run(inputs)
        self.runs.append((self, inputs, dict(outputs)))  # whose scores the reader takes out
        return outputs


@pytest.fixture(scope="module")
def recorded(exported):
    """All graph runs of a padded batch."""
    found = {}

    def get(variant):
        if variant not in found:
            backend, source = RecordingBackend(), exported(variant)
            with Session.open(source.bundle, source.store, threads=1, backend=backend, draft_tokens=0) as session:
                answers = session.answer_many(FEW)
            assert all(answer.answer is not None for answer in answers)
            found[variant] = backend.runs
        return found[variant]

    return get


def taken(values, dims, places):
    for axis, dim in enumerate(dims):
        if dim in places:
            values = values.take(places[dim], axis=axis)
    return values


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_without_padding_computes_what_the_batch_did(recorded, exported, variant):
    mask = None
    seen = set()
    for graph, inputs, outputs in recorded(variant):
        mask = outputs.get("encoder_attention_mask", mask)
        for run in unpadded_runs(graph.io, inputs, 99, mask, fixed_keys=exported(variant).shape.cross_attention_bias):
            seen.add(graph.name)
            found = graph.graph.run(run.inputs)
            for tensor in graph.io.outputs:
                expected, values = outputs[tensor.name], found[tensor.name]
                if tensor.name.startswith("encoder_"):
                    expected, values = one_passage(inputs, expected, values, run)
                else:
                    expected = taken(expected, tensor.dims, run.places)
                    if "step" in inputs and tensor.name.startswith("present."):
                        length = int(inputs["step"][run.places["batch"][0]]) + 1
                        expected, values = expected[:, :, :length], values[:, :, :length]
                assert values.shape == expected.shape
                np.testing.assert_allclose(values, expected, rtol=2e-4, atol=2e-4)
            if not run.keep:
                for name, values in run.inputs.items():
                    assert not name.endswith("mask") or values.all()
    assert seen == {graph.name for graph, _, _ in recorded(variant)}


def one_passage(inputs, expected, values, run):
    """The part of the flattened encoder output that a run's passage has, less its padding."""
    (row,), (place,) = run.places["batch"], run.places["passages"]
    if "selected" in inputs:
        place = inputs["selected"][row].tolist().index(place)
        num_passages = inputs["selected"].shape[1]
    else:
        num_passages = inputs["memory_mask" if "memory_mask" in inputs else "attention_mask"].shape[1]
    passage = expected[row].reshape(num_passages, -1, *expected.shape[2:])[place]
    if "memory_mask" in inputs:
        question = inputs.get("question_mask", np.zeros((row + 1, 0)))[row]
        kept = np.concatenate([np.flatnonzero(question), len(question) + run.places["passage"]])
        return passage[kept][None], values
    return passage[run.keep["tokens"]][None], values[:, run.keep["tokens"]]


def test_selection_in_another_order_is_followed(recorded):
    for graph, inputs, _ in recorded("glimmer"):
        if graph.name == "live_stage_b":
            reversed_places = {**inputs, "selected": inputs["selected"][:, ::-1].copy()}
            runs = list(unpadded_runs(graph.io, reversed_places, 1, None))
            assert [run.places["passages"].tolist() for run in runs] == [[place] for place in inputs["selected"][:, -1]]
            assert all(run.inputs["selected"].tolist() == [[0]] for run in runs)


def test_absent_passages_are_not_run(recorded):
    for graph, inputs, _ in recorded("glimmer"):
        if graph.name == "live_stage_a":
            memory_mask = inputs["memory_mask"].copy()
            memory_mask[:, 1:] = 0
            runs = list(unpadded_runs(graph.io, {**inputs, "memory_mask": memory_mask}, 99, None))
            assert [run.places["passages"].tolist() for run in runs] == [[0]] * len(FEW)


def test_spread_is_even_and_has_both_ends():
    assert spread(range(5), 9) == [0, 1, 2, 3, 4]
    assert spread(range(9), 3) == [0, 4, 8]
    assert spread(range(4000), 200)[-1] == 3999
    assert spread(range(9), 1) == [0]
    assert len(set(spread(range(11), 10))) == 10
