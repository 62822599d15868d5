"""Passages -> one shard of the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from exporter.memory.plan import BuildPlan
from exporter.memory.shard_writer import ShardWriter
from exporter.memory.work import ShardRecord
from runtime.backends import Graph
from runtime.contract import FileEntry, ShardEntry, StoreError, file_digest, shard_name
from runtime.memory import encode_fp16, encode_passages
from runtime.store import Passage
from runtime.text import TextEncoder

__all__ = ["encode_shard", "length_batches"]


def encode_shard(
    store: Path, index: int, passages: Sequence[Passage], plan: BuildPlan, *,
    text: TextEncoder, graph: Graph | None, advance: Callable[[int], None],
) -> ShardRecord:
    """Write shard `index` below `store`; it appears there whole. `graph` None: token ids only.

    `advance` is told how many passages are done after each batch. Raises StoreError where a passage's memory is not
    finite.
    """
    encoded = [text.passage(passage.title, passage.text) for passage in passages]
    ids = [tokens for tokens, _ in encoded]
    path = store / shard_name(index)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with ShardWriter(temporary, ids, d_model=plan.d_model, codec=plan.codec) as writer:
            for rows in length_batches([len(row) for row in ids], plan.batch_tokens):
                if graph is not None:
                    _encode_batch(graph, writer, rows, passages, [ids[row] for row in rows])
                advance(len(rows))
        entry = FileEntry(shard_name(index), temporary.stat().st_size, file_digest(temporary))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return ShardRecord(ShardEntry(entry, len(passages), writer.num_tokens), sum(cut for _, cut in encoded))


def _encode_batch(
    graph: Graph, writer: ShardWriter, rows: list[int], passages: Sequence[Passage], ids: list[list[int]]
) -> None:
    for row, memory in zip(rows, encode_passages(graph, ids), strict=True):
        try:
            codes, scale = encode_fp16(memory)
        except FloatingPointError:
            raise StoreError(
                f"passage {passages[row].id!r}", expected="memory that is finite", found="infinity or NaN",
                fix="check the checkpoint's weights, or export it with a higher precision",
            ) from None
        writer.put(row, codes, scale)


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
