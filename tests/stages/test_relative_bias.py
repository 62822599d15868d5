"""Relative-position buckets are Hugging Face's, at every distance."""

from __future__ import annotations

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention

from glimmer_export.exporter.checkpoint import CheckpointConfig
from glimmer_export.exporter.stages.relative_bias import RelativeBias, distance_buckets

SHAPES = [(32, 128), (32, 20), (8, 20), (16, 64), (64, 256), (4, 3), (128, 1000), (32, 127)]


def config(num_buckets: int, max_distance: int) -> CheckpointConfig:
    return CheckpointConfig(
        architecture="fid", vocab_size=8, d_model=4, d_kv=2, d_ff=4, num_heads=2, num_memory_layers=0,
        num_stage_a_layers=0, num_stage_b_layers=1, num_decoder_layers=1,
        relative_attention_num_buckets=num_buckets, relative_attention_max_distance=max_distance,
    )


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), SHAPES)
def test_buckets(num_buckets: int, max_distance: int, bidirectional: bool) -> None:
    distances = torch.arange(-max_distance, max_distance + 1)
    expected = T5Attention._relative_position_bucket(
        distances, bidirectional=bidirectional, num_buckets=num_buckets, max_distance=max_distance
    )
    found = distance_buckets(num_buckets=num_buckets, max_distance=max_distance, bidirectional=bidirectional)
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), SHAPES)
def test_bias_beyond_the_largest_distance(num_buckets: int, max_distance: int, bidirectional: bool) -> None:
    """A table that holds its own row numbers shows which row each pair of positions reads."""
    bias = RelativeBias(config(num_buckets, max_distance), bidirectional=bidirectional)
    rows = torch.arange(num_buckets).float()
    bias.weight.data = torch.stack([rows, -rows], dim=1)
    query = torch.tensor([0, max_distance, 3 * max_distance], dtype=torch.int32)
    key = torch.arange(4 * max_distance, dtype=torch.int32)
    expected = T5Attention._relative_position_bucket(
        (key - query[:, None]).long(), bidirectional=bidirectional, num_buckets=num_buckets, max_distance=max_distance
    )
    found = bias(query, key)
    assert found.shape == (2, 3, 4 * max_distance)
    assert found[0].long().tolist() == expected.tolist()
    assert found[1].long().tolist() == (-expected).tolist()
