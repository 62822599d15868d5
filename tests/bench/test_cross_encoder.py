"""The cross-encoder beside stage A: its graphs are Hugging Face's model, whatever goes through it together."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from glimmer_export.exporter.bench.cross_encoder import (
    FP32_GRAPH,
    INT8_GRAPH,
    PLAIN_GRAPH,
    CrossEncoder,
    CrossEncoderShape,
    Ranker,
    pair_ids,
    write_cross_encoder,
)
from glimmer_export.exporter.bench.inputs import BenchQuestion
from glimmer_export.exporter.bench.measure import ContenderSpec
from glimmer_export.runtime.contract import BackendError
from glimmer_export.runtime.cpu_kind import cpu_flags

SHAPE = CrossEncoderShape(vocab_size=200, d_model=64, d_ff=128, num_layers=2, num_heads=4)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("cross") / "encoder"
    write_cross_encoder(directory, SHAPE)
    return directory


@pytest.fixture(scope="module")
def pairs():
    random = np.random.default_rng(0)
    return [
        pair_ids([*random.integers(2, 190, 6).tolist(), 1], [*random.integers(2, 190, length).tolist(), 1])
        for length in (30, 5, 17, 30, 9)
    ]


def test_its_scores_are_those_of_hugging_face(written, pairs):
    import torch
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    torch.manual_seed(0)
    model = XLMRobertaForSequenceClassification(XLMRobertaConfig(
        vocab_size=200, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, num_labels=1,
        initializer_range=0.125,
    )).eval()  # fmt: skip
    with torch.inference_mode():
        expected = [model(torch.tensor([ids])).logits.item() for ids in pairs]
    assert np.std(expected) > 0.01
    for at_once in (1, 2, 5):
        found = CrossEncoder(written / FP32_GRAPH, threads=1).scores(pairs, at_once=at_once)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_int8_is_int8_and_near(written, pairs):
    operators = {node.op_type for node in onnx.load(written / INT8_GRAPH).graph.node}
    assert {"QAttention", "MatMulInteger"} <= operators
    fp32, int8 = (CrossEncoder(written / name, threads=1).scores(pairs, at_once=5) for name in (FP32_GRAPH, INT8_GRAPH))
    assert 0 < np.abs(int8 - fp32).max() < 0.5 * np.std(fp32)


def test_a_pair_is_cut_at_the_longest_it_takes():
    assert pair_ids([7, 1], [8, 9, 1]) == [0, 12, 2, 2, 13, 14, 2]
    long = pair_ids([7, 1], range(2, 900))
    assert (len(long), long[-1]) == (512, 2)


def test_in_openvino(written, pairs):
    pytest.importorskip("openvino", reason="the engine: the extra openvino")
    expected = CrossEncoder(written / FP32_GRAPH, threads=1).scores(pairs, at_once=5)
    found = CrossEncoder(written / PLAIN_GRAPH, threads=1, engine="openvino").scores(pairs, at_once=5)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    if not {"avx512_bf16", "amx_bf16"} & cpu_flags():
        with pytest.raises(BackendError, match="to compute in bf16"):
            CrossEncoder(written / PLAIN_GRAPH, threads=1, engine="openvino", precision="bf16")
        return
    rounded = CrossEncoder(written / PLAIN_GRAPH, threads=1, engine="openvino", precision="bf16")
    difference = np.abs(rounded.scores(pairs, at_once=5) - expected).max()
    assert 1e-4 < difference < 0.5 * np.std(expected)


def test_a_bench_has_the_scores_of_every_question_in_its_passages_order(written):
    random = np.random.default_rng(1)
    rows = [(*random.integers(3, 190, length).tolist(), 1) for length in (6, 20, 9, 7, 20, 12)]
    asked = [BenchQuestion("", rows[0], (0, 1), tuple(rows[1:3])), BenchQuestion("", rows[3], (2, 3), tuple(rows[4:]))]
    model = CrossEncoder(written / FP32_GRAPH, threads=1)
    ranker = Ranker(ContenderSpec("cross_encoder", written / FP32_GRAPH, None, 2, None, 8, 1, "cross-encoder"), model)
    answered = ranker.answer(asked)
    pairs = [[pair_ids(item.token_ids, ids) for ids in item.passage_ids] for item in asked]
    expected = [[model.scores([pair], at_once=1)[0] for pair in row] for row in pairs]
    np.testing.assert_allclose(answered.scores, expected, atol=1e-5)
    assert answered.tokens == []
