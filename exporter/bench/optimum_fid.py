"""FiD as optimum exports it, its graphs alone: what decodes with them is here, so that optimum need not be installed.

optimum's encoder takes a row a passage; its first decoder graph makes keys and values of all that was read, which the
graph of the steps after it takes back with its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from glimmer_export.exporter.bench.inputs import BenchQuestion
from glimmer_export.exporter.bench.measure import Answered, ContenderSpec
from glimmer_export.exporter.bench.peer_graphs import open_peer_graph, quantize_as_users_do
from glimmer_export.exporter.files.publish import publish_directory

__all__ = ["OptimumFid", "OptimumGraphs", "quantize_optimum"]

ENCODER, FIRST, NEXT = "encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"
START = 0
"""T5's decoder starts with its padding token."""


def quantize_optimum(fp32: Path, int8: Path) -> None:
    """Quantise what optimum exported to `fp32` into the new directory `int8`; raises OutputError if it is there."""
    with publish_directory(int8, inputs=[fp32]) as work:
        for name in (ENCODER, FIRST, NEXT):
            quantize_as_users_do(fp32 / name, work / name)


class OptimumGraphs:
    """The three graphs, opened once for every number of passages."""

    def __init__(self, directory: Path, engine: str, precision: str, threads: int) -> None:
        self.encoder, self.first, self.next = (
            open_peer_graph(directory / name, engine, precision, threads) for name in (ENCODER, FIRST, NEXT)
        )


class OptimumFid:
    """Encodes each passage with the question and decodes from all of them at once, greedily, past EOS."""

    def __init__(self, spec: ContenderSpec, graphs: OptimumGraphs) -> None:
        self._spec, self._graphs = spec, graphs

    def answer(self, batch: Sequence[BenchQuestion]) -> Answered:
        """Answer a batch; the passages of all its questions go through the encoder together."""
        count = self._spec.num_passages
        rows = [[*question.token_ids, *ids] for question in batch for ids in question.passage_ids[:count]]
        ids = np.array(rows, np.int64)
        states = self._graphs.encoder({"input_ids": ids, "attention_mask": np.ones_like(ids)})["last_hidden_state"]
        states = states.reshape(len(batch), -1, states.shape[-1])
        mask = np.ones(states.shape[:2], np.int64)
        given = {"input_ids": np.full((len(batch), 1), START, np.int64), "encoder_attention_mask": mask}
        found = self._graphs.first({**given, "encoder_hidden_states": states})
        past = {name.replace("present", "past_key_values"): found[name] for name in found if name != "logits"}
        tokens = [found["logits"][:, -1].argmax(-1)]
        while len(tokens) < self._spec.answer_tokens:
            found = self._graphs.next({**given, "input_ids": tokens[-1][:, None].astype(np.int64), **past})
            past |= {name.replace("present", "past_key_values"): found[name] for name in found if name != "logits"}
            tokens.append(found["logits"][:, -1].argmax(-1))
        return Answered(np.stack(tokens, 1).tolist())
