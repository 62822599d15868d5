"""Passages -> one shard of the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.exporter.memory.codec_error import CodecSample, ErrorMeter, SampleErrors
from glimmer_export.exporter.memory.plan import BuildPlan
from glimmer_export.exporter.memory.shard_writer import ShardWriter
from glimmer_export.exporter.memory.work import ShardRecord
from glimmer_export.exporter.whole_file import whole_file
from glimmer_export.runtime.backends import Array, Graph
from glimmer_export.runtime.codecs import Codec
from glimmer_export.runtime.contract import FileEntry, ShardEntry, StoreError, file_digest, shard_name
from glimmer_export.runtime.memory import encode_passages
from glimmer_export.runtime.store import Passage
from glimmer_export.runtime.text import TextEncoder

__all__ = ["Encoder", "encode_memory", "encode_shard", "length_batches"]


@dataclass(frozen=True)
class Encoder:
    """What makes a passage's memory: the memory encoder's graph, and the codec that it is kept in."""

    graph: Graph
    codec: Codec


def encode_shard(
    store: Path, index: int, passages: Sequence[Passage], plan: BuildPlan, *,
    text: TextEncoder, encoder: Encoder | None, advance: Callable[[int], None], sample: CodecSample | None = None,
) -> ShardRecord:
    """Write shard `index` below `store`; it appears there whole. `encoder` None: token ids only.

    The codec's error is measured on the passages of `sample` that the shard has. `advance` is told how many passages
    are done after each batch. Raises StoreError where a passage's memory is not finite.
    """
    encoded = [text.passage(passage.title, passage.text) for passage in passages]
    ids = [tokens for tokens, _ in encoded]
    meter = None if encoder is None or sample is None else ErrorMeter(encoder.codec, sample)
    first = index * plan.passages_per_shard
    with whole_file(store / shard_name(index)) as temporary:
        with ShardWriter(temporary, ids, d_model=plan.d_model, codec=plan.codec) as writer:
            for rows in length_batches([len(row) for row in ids], plan.batch_tokens):
                if encoder is not None:
                    memories = encode_passages(encoder.graph, [ids[row] for row in rows])
                    for row, memory in zip(rows, memories, strict=True):
                        tensors = encode_memory(encoder.codec, memory, passages[row].id)
                        writer.put(row, tensors)
                        if meter is not None:
                            meter.add(first + row, memory, tensors)
                advance(len(rows))
        entry = FileEntry(shard_name(index), temporary.stat().st_size, file_digest(temporary))
    return ShardRecord(
        ShardEntry(entry, len(passages), writer.num_tokens), sum(cut for _, cut in encoded),
        SampleErrors() if meter is None else meter.errors,
    )


def encode_memory(codec: Codec, memory: Array, identifier: int | str | None) -> dict[str, Array]:
    """A passage's memory (tokens, d_model) float32 in a codec; raises StoreError where it is not finite."""
    try:
        return codec.encode(memory)
    except FloatingPointError:
        raise StoreError(
            f"passage {identifier!r}", expected="memory that is finite", found="infinity or NaN",
            fix="check the checkpoint's weights, or export it with a higher precision",
        ) from None


def length_batches(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Rows in batches of like length, longest first: too little memory then shows in the first batch.

    A batch, padded to its longest row, has at most `batch_tokens` tokens, or is one row alone.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // lengths[order[start]])
        yield order[start : start + size]
        start += size
