"""The peer of ranking: a cross-encoder of the shape of BAAI/bge-reranker-base, XLM-RoBERTa base with random weights.

It reads question and passage together, each pair through all of its layers (Nogueira and Cho 2019). Its graphs are
what its users would run in ONNX Runtime: attention, GELU and layer norms fused by ONNX Runtime's own optimiser, in
FP32, and from that in INT8 by its dynamic quantisation; OpenVINO gets the graph as it was before that, which it fuses
itself.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glimmer_export.exporter.bench.inputs import BenchQuestion
from glimmer_export.exporter.bench.measure import Answered, ContenderSpec
from glimmer_export.exporter.bench.peer_graphs import open_peer_graph, quantize_as_users_do
from glimmer_export.exporter.bench.roster import ORT
from glimmer_export.exporter.files.publish import publish_directory
from glimmer_export.runtime.backends import Array

__all__ = ["CrossEncoder", "CrossEncoderShape", "Ranker", "pair_ids", "write_cross_encoder"]

OPSET = 17
"""The newest whose operators the optimiser knows."""
FP32_GRAPH, INT8_GRAPH, PLAIN_GRAPH = "fp32.onnx", "int8.onnx", "plain.onnx"
BOS, PAD, EOS = 0, 1, 2
NUM_SPECIAL = 5
MAX_TOKENS = 512
AT_ONCE = 5
"""Pairs of a bench that go through it together."""


@dataclass(frozen=True)
class CrossEncoderShape:
    """Widths and depths; the defaults are those of BAAI/bge-reranker-base, 278 million parameters."""

    vocab_size: int = 250_002
    d_model: int = 768
    d_ff: int = 3072
    num_layers: int = 12
    num_heads: int = 12


def write_cross_encoder(directory: Path, shape: CrossEncoderShape | None = None, *, seed: int = 0) -> None:
    """Write `fp32.onnx`, `int8.onnx` and `plain.onnx` into a new directory.

    Each: (batch, tokens) int64 ids and mask -> (batch,) scores.

    Raises OutputError if the directory exists or cannot be written.
    """
    import torch
    from onnxruntime.transformers.optimizer import optimize_model
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    shape = shape or CrossEncoderShape()
    config = XLMRobertaConfig(
        vocab_size=shape.vocab_size, hidden_size=shape.d_model, intermediate_size=shape.d_ff,
        num_hidden_layers=shape.num_layers, num_attention_heads=shape.num_heads,
        max_position_embeddings=MAX_TOKENS + PAD + 1, type_vocab_size=1, layer_norm_eps=1e-5, num_labels=1,
        bos_token_id=BOS, pad_token_id=PAD, eos_token_id=EOS,
        initializer_range=shape.d_model**-0.5,  # its own 0.02 makes scores that hardly differ
        attn_implementation="eager",  # the optimiser knows no other
    )  # fmt: skip
    ids = torch.arange(NUM_SPECIAL, NUM_SPECIAL + 16).reshape(2, 8)
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # the optimiser's, of what it may not fuse; what it did is looked at below
    try:
        with publish_directory(directory) as work, warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # the exporter that the optimiser was made for is deprecated
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                model = XLMRobertaForSequenceClassification(config).eval()
            traced, fp32 = work / PLAIN_GRAPH, work / FP32_GRAPH
            torch.onnx.export(
                model, (ids, torch.ones_like(ids)), str(traced), dynamo=False, opset_version=OPSET,
                input_names=["input_ids", "attention_mask"], output_names=["scores"],
                dynamic_axes={"input_ids": {0: "batch", 1: "tokens"}, "attention_mask": {0: "batch", 1: "tokens"}},
            )
            fused = optimize_model(
                str(traced), model_type="bert", num_heads=shape.num_heads, hidden_size=shape.d_model, opt_level=0
            )
            if fused.get_fused_operator_statistics()["Attention"] != shape.num_layers:
                raise RuntimeError(f"ONNX Runtime's optimiser fused {fused.get_fused_operator_statistics()}")
            fused.save_model_to_file(str(fp32))
            quantize_as_users_do(fp32, work / INT8_GRAPH)
    finally:
        logging.disable(level)


def pair_ids(question_ids: Sequence[int], passage_ids: Sequence[int]) -> list[int]:
    """`<s> question </s></s> passage </s>` of at most 512 ids, with those of our tokenizer in the place of its own.

    Both may end in EOS. Its vocabulary is larger and its pieces of English are about as long, so that what is compared
    has as many tokens as it would have.
    """
    question, passage = ([NUM_SPECIAL + item for item in ids if item != 1] for ids in (question_ids, passage_ids))
    ids = [BOS, *question, EOS, EOS, *passage]
    return [*ids[: MAX_TOKENS - 1], EOS]


class CrossEncoder:
    """One of its graphs on the CPU."""

    def __init__(self, graph: Path, *, threads: int, engine: str = ORT, precision: str = "fp32") -> None:
        self._run = open_peer_graph(graph, engine, precision, threads)

    def scores(self, pairs: Sequence[Sequence[int]], *, at_once: int) -> Array:
        """Scores of pairs, (n,) float32; `at_once` go through it together, those of like length."""
        found = np.empty(len(pairs), np.float32)
        order = sorted(range(len(pairs)), key=lambda place: -len(pairs[place]))
        for start in range(0, len(order), at_once):
            places = order[start : start + at_once]
            ids = np.full((len(places), len(pairs[places[0]])), PAD, np.int64)
            for row, place in enumerate(places):
                ids[row, : len(pairs[place])] = pairs[place]
            inputs = {"input_ids": ids, "attention_mask": (ids != PAD).astype(np.int64)}
            found[places] = self._run(inputs)["scores"][:, 0]
        return found


class Ranker:
    """Scores all passages of each question of a bench."""

    def __init__(self, spec: ContenderSpec, model: CrossEncoder) -> None:
        self._spec, self._model = spec, model

    def answer(self, batch: Sequence[BenchQuestion]) -> Answered:
        """Scores of each question's passages, in their order; no answer."""
        count = self._spec.num_passages
        pairs = [pair_ids(item.token_ids, ids) for item in batch for ids in item.passage_ids[:count]]
        scores = self._model.scores(pairs, at_once=AT_ONCE).reshape(len(batch), count)
        return Answered([], scores=scores.tolist())
