"""A store of as many passages as asked for, with memory and token ids by chance: no encoder runs for it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from glimmer_export.exporter.memory.full_text import write_texts_and_index
from glimmer_export.exporter.memory.generations import put_manifest
from glimmer_export.exporter.memory.shard_lists import built_lists
from glimmer_export.exporter.memory.shards import ShardWriter
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.codecs import encode_fp16
from glimmer_export.runtime.contract import (
    STORE_SCHEMA_VERSION,
    FileEntry,
    IndexEntry,
    ShardEntry,
    StoreManifest,
    shard_name,
)
from glimmer_export.runtime.contract.store_layout import FOLDING
from glimmer_export.runtime.store import Passage

__all__ = ["generated_store"]

TOKENS = (8, 16)


def generated_store(
    path: Path, bundle: Bundle, passages: Callable[[], Iterator[Passage]], count: int, *, engine: str,
    passages_per_shard: int = 4096, seed: int = 0,
) -> StoreManifest:
    """Write a store for a bundle at `path`, of the first `count` passages; equal arguments give equal shards."""
    (path / "shards").mkdir(parents=True)
    model, generator = bundle.manifest.model, np.random.default_rng(seed)
    shards = []
    for index, first in enumerate(range(0, count, passages_per_shard)):
        size, name = min(passages_per_shard, count - first), shard_name(index)
        lengths = generator.integers(*TOKENS, size).tolist()
        ids = [generator.integers(2, 40, length).tolist() for length in lengths]
        with ShardWriter(path / name, ids, d_model=model.d_model, codec="fp16") as writer:
            for row, length in enumerate(lengths):
                memory, scale = encode_fp16(generator.standard_normal((length, model.d_model)).astype(np.float32))
                writer.put(row, {"memory": memory, "memory_scale": scale})
        entry = FileEntry.named(name, path / name)
        shards.append(ShardEntry(entry, size, sum(lengths), first, checksums=True))
    texts, segments = write_texts_and_index(
        path, 0, enumerate(islice(passages(), count)), count, engine, advance=lambda _: None
    )
    lists, inline = built_lists(path, 0, shards)
    digests = bundle.manifest.memory_digest, bundle.manifest.tokenizer_digest
    return put_manifest(path, StoreManifest(
        schema_version=STORE_SCHEMA_VERSION, generation=0, memory_digest=digests[0], tokenizer_digest=str(digests[1]),
        codec="fp16", codec_arrays=None, precision="fp32", d_model=model.d_model, passage_length=model.passage_length,
        passages_per_shard=passages_per_shard, num_passages=count, num_truncated=0, corpus_sha256="0" * 64,
        earlier_sha256=None, chunk_words=None, index=IndexEntry(engine, FOLDING, unicodedata.unidata_version),
        shard_lists=lists, shards=inline, texts=texts, segments=segments, tombstone_files=(), tombstones=(),
    ))
