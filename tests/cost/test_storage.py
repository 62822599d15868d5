"""Bytes of the store and of the decoder's caches."""

from __future__ import annotations

import pytest

from glimmer_export.exporter.cost import CostRequest, cost_report
from glimmer_export.runtime.contract import CODECS, read_store_manifest

MIB = 1 << 20


def test_the_decoder_caches_of_design_section_2():
    cache = cost_report(CostRequest(model="base")).cache_bytes
    assert cache["cached"] / MIB == pytest.approx(124, abs=0.5)
    assert cache["absorbed"] / MIB == pytest.approx(5, abs=0.5)
    assert cache["self_attention"] == 2 * 12 * 768 * 32 * 4


@pytest.mark.parametrize(("questions", "before", "after"), [(1, 1.142, 0.962), (16, 6.523, 3.654)])
def test_a_cached_step_at_large_size_with_fp16_between_the_graphs(questions, before, after):
    """By hand, of a question: 48 keys and values of 1,760 tokens, a cache of 32 in and out, mask and FP32 logits."""
    moved = cost_report(CostRequest(model="large", cross_attention="cached")).step_bytes
    in_gb = [(moved.weights["fp16"] + questions * moved.states[name]) / 1e9 for name in ("fp32", "fp16")]
    assert in_gb == pytest.approx([before, after], abs=5e-4)
    elements = 48 * 1024 * (1760 + 2 * 32)
    rest = 4 * (1760 + 32128 + 4)
    assert moved.states == {"fp32": 4 * elements + rest, "fp16": 2 * elements + rest}


def test_codecs_at_width_1024():
    codecs = cost_report(CostRequest(model="large", passage_tokens=100)).codecs
    assert list(codecs) == list(CODECS)
    beside = 8 + 4 + 100 * 4
    assert {name: size - beside for name, size in codecs.items()} == {
        "fp16": 100 * 2048 + 4, "int8": 100 * (1024 + 4), "int4": 100 * (512 + 32 + 16 + 4),
        "rq4x": 100 * 513, "rq8x": 100 * 257, "pq8x": 100 * 256, "rq16x": 100 * 129, "pq16x": 100 * 128,
    }  # fmt: skip


@pytest.mark.parametrize("variant", ["glimmer", "fid"])
def test_a_store_that_was_built(exported, variant):
    source = exported(variant)
    manifest = read_store_manifest(source.store)
    sizes = []
    for tokens in (4, 5):
        codecs = cost_report(CostRequest(bundle=source.bundle, passage_tokens=tokens)).codecs
        sizes.append(next(iter(codecs.values())))
    per_token = sizes[1] - sizes[0]
    reckoned = manifest.num_passages * (sizes[0] - 4 * per_token) + manifest.num_tokens * per_token
    on_disk = sum(shard.file.bytes for shard in manifest.shards)
    # A shard has a header, and one offset more than passages.
    assert reckoned < on_disk < reckoned + 1000 * len(manifest.shards)


def test_a_fid_stores_token_ids_alone():
    codecs = cost_report(CostRequest(model="base", architecture="fid", passage_tokens=10)).codecs
    assert codecs == {"none": 8 + 4 + 4 * 10}
