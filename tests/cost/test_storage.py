"""Bytes of the store and of the decoder's caches."""

from __future__ import annotations

import pytest

from exporter.cost import CostRequest, cost_report
from exporter.cost.storage import CODECS
from runtime.contract import read_store_manifest

MIB = 1 << 20


def test_the_decoder_caches_of_design_section_2():
    cache = cost_report(CostRequest(model="base")).cache_bytes
    assert cache["cached"] / MIB == pytest.approx(124, abs=0.5)
    assert cache["absorbed"] / MIB == pytest.approx(5, abs=0.5)
    assert cache["self_attention"] == 2 * 12 * 768 * 32 * 4


def test_codecs_at_width_1024():
    codecs = cost_report(CostRequest(model="large", passage_tokens=100)).codecs
    assert tuple(codecs) == CODECS
    beside = 8 + 4 + 100 * 4
    assert {name: codec.bytes_per_passage - beside for name, codec in codecs.items()} == {
        "fp16": 100 * 2048, "int8": 100 * 1026, "int4": 100 * (512 + 32), "pq_8x": 100 * 256, "pq_16x": 100 * 128,
    }
    assert [name for name, codec in codecs.items() if codec.available] == ["fp16"]


@pytest.mark.parametrize("variant", ["glimmer", "fid"])
def test_a_store_that_was_built(exported, variant):
    source = exported(variant)
    manifest = read_store_manifest(source.store)
    sizes = []
    for tokens in (4, 5):
        codecs = cost_report(CostRequest(bundle=source.bundle, passage_tokens=tokens)).codecs
        sizes += [codec.bytes_per_passage for codec in codecs.values() if codec.available]
    per_token = sizes[1] - sizes[0]
    reckoned = manifest.num_passages * (sizes[0] - 4 * per_token) + manifest.num_tokens * per_token
    on_disk = sum(shard.file.bytes for shard in manifest.shards)
    # A shard has a header, and one offset more than passages.
    assert reckoned < on_disk < reckoned + 1000 * len(manifest.shards)


def test_a_fid_stores_token_ids_alone():
    codecs = cost_report(CostRequest(model="base", architecture="fid", passage_tokens=10)).codecs
    assert {name: codec.bytes_per_passage for name, codec in codecs.items()} == {"none": 8 + 4 * 10}
