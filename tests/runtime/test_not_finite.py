"""NaN in a store's memory, in a graph's weights or in a score is an error, not an answer, wherever the graphs run."""

from __future__ import annotations

import shutil

import numpy as np
import onnx_ir as ir
import pytest
from safetensors.numpy import load_file, save_file

from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.contract import NotFiniteError
from glimmer_export.runtime.rerank import check_scores
from tests.exported import CORPUS, QUESTIONS, load_graph, question_answered, write_alone

WITH_MEMORY = ["glimmer", "glimmer, every option", "glimmer, exact algebra, two layers", "lumen", "memory_fid"]
"""Cached and absorbed cross-attention, stage A in full and lazy, with a score of one token and of the mean."""
GIVEN = [row["id"] for row in CORPUS[:4]]


def with_nan(source, directory):
    """A copy of a store whose third passage has NaN in one number of its memory."""
    store = shutil.copytree(source.store, directory)
    shard = store / "shards" / "00000.safetensors"
    arrays = load_file(shard)
    memory = arrays["memory"].copy()
    memory[arrays["offsets"][2] + 1, 5] = np.nan
    save_file({**arrays, "memory": memory}, shard)
    return store


class NanWeights(OnnxRuntimeBackend):
    """Loads graphs, one of them with NaN in one number of a weight."""

    def __init__(self, graph, weight, directory) -> None:
        super().__init__(threads=1)
        self.graph, self.weight, self.directory = graph, weight, directory

    def load(self, path, io):
        if path.stem != self.graph:
            return super().load(path, io)
        model = load_graph(path)
        name = next(name for name in model.graph.initializers if self.weight in name)
        value = model.graph.initializers[name]
        array = value.const_value.numpy().copy()
        array.flat[array.size // 2] = np.nan
        value.const_value = ir.tensor(array, name=name)
        return super().load(write_alone(model, self.directory, path.stem), io)


class Changed(OnnxRuntimeBackend):
    """Changes an output of a graph."""

    def __init__(self, graph, output, change) -> None:
        super().__init__(threads=1)
        self.graph, self.output, self.change = graph, output, change

    def load(self, path, io):
        run = super().load(path, io).run
        if path.stem != self.graph:
            return super().load(path, io)
        output, change = self.output, self.change

        class Changing:
            def run(self, inputs):
                outputs = run(inputs)
                return {**outputs, output: change(outputs[output].copy())}

        return Changing()


@pytest.mark.parametrize("variant", WITH_MEMORY)
def test_nan_in_the_memory_of_a_store(exported, tmp_path, variant):
    source = exported(variant)
    store = with_nan(source, tmp_path / "store")
    with Session.open(source.bundle, store, threads=1, verify=False) as session:
        assert session.answer(QUESTIONS[0], passages=GIVEN[:2]).answer is not None
        with pytest.raises(NotFiniteError, match="nan"):
            session.answer(QUESTIONS[0], passages=GIVEN)
        with pytest.raises(NotFiniteError, match="nan"):
            session.answer_many(QUESTIONS[:2], passages=[GIVEN[:2], GIVEN])


@pytest.mark.parametrize("variant", ["glimmer", "glimmer, exact algebra, two layers", "memory_fid", "fid"])
@pytest.mark.parametrize("weight", ["lm_head", "layer_norm"])
def test_nan_in_the_weights_of_the_decoder(exported, tmp_path, variant, weight):
    source = exported(variant)
    weight = "shared" if weight == "lm_head" and source.model.config.tie_word_embeddings else weight
    backend = NanWeights("decoder_step", weight, tmp_path)
    with (
        Session.open(source.bundle, source.store, backend=backend) as session,
        pytest.raises(NotFiniteError, match="decoder: expected finite logits, found nan"),
    ):
        session.answer(QUESTIONS[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_number(glimmer, value):
    def change(scores):
        scores[0, 2] = value
        return scores

    with Session.open(glimmer.bundle, glimmer.store, backend=Changed("live_stage_a", "scores", change)) as session:
        with pytest.raises(NotFiniteError, match=f"live_stage_a.*found {value} for passage 3 of 4"):
            session.answer(QUESTIONS[0], passages=GIVEN)
        # A passage that is absent, beside a row that has more, scores minus infinity.
        assert session.answer_many(QUESTIONS[:2], passages=[GIVEN[:2], GIVEN])[0].answer is not None


@pytest.mark.parametrize("step", [0, 1, 3])
def test_logits_of_any_step(glimmer, step):
    runs = []

    def change(logits):
        runs.append(len(logits))
        if len(runs) == step + 1:
            logits[0, :, 3] = np.nan
        return logits

    with Session.open(glimmer.bundle, glimmer.store, backend=Changed("decoder_step", "logits", change)) as session:
        usual = len(glimmer.session.answer(QUESTIONS[0]).token_ids)
        assert usual >= step
        with pytest.raises(NotFiniteError, match="logits"):
            session.answer(QUESTIONS[0])


def test_a_row_that_has_ended_may_have_any_logits(glimmer):
    """What it gives after EOS is dropped."""
    questions = [
        question_answered(glimmer, lambda answer: len(answer.token_ids) < 3),
        question_answered(glimmer, lambda answer: len(answer.token_ids) > 4),
    ]
    ends = [len(glimmer.session.answer(question).token_ids) for question in questions]
    runs = []

    def change(logits):
        runs.append(len(logits))
        if len(runs) > ends[0] + 1:
            logits[0] = np.nan
        return logits

    with Session.open(glimmer.bundle, glimmer.store, backend=Changed("decoder_step", "logits", change)) as session:
        answers = session.answer_many(questions)
    assert [len(answer.token_ids) for answer in answers] == ends


def test_scores_of_absent_passages_are_not_looked_at():
    scores = np.array([[0.5, -np.inf, np.nan], [0.1, 0.2, 0.3]], np.float32)
    check_scores(scores, [1, 3])
    with pytest.raises(NotFiniteError, match="passage 2 of 2"):
        check_scores(scores, [2, 3])
