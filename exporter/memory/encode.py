"""Passages -> the shards of a store: the plan that decides every byte, the codec that is fitted first, one shard."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from glimmer_export.exporter.files.whole_file import replace_file, whole_file
from glimmer_export.exporter.memory.behind import Behind
from glimmer_export.exporter.memory.codec_fit import (
    SAMPLE_PASSAGES,
    CodecSample,
    ErrorMeter,
    SampleErrors,
    choose_sample,
)
from glimmer_export.exporter.memory.corpus import Corpus
from glimmer_export.exporter.memory.shards import ShardWriter
from glimmer_export.exporter.memory.work import ShardRecord, Work
from glimmer_export.runtime.backends import Array, Graph
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.codec_file import open_codec, read_codec
from glimmer_export.runtime.codecs import Codec, decode_fp16, encode_fp16
from glimmer_export.runtime.contract import (
    BF16,
    CODEC_ARRAYS,
    CPU_BACKEND,
    FP32,
    MEMORY_ENCODER,
    BundleError,
    FileEntry,
    OptionError,
    ShardEntry,
    StoreError,
    StoreManifest,
    TokenizerError,
    codec_layout,
    computed_in_bf16,
    shard_name,
)
from glimmer_export.runtime.passage_memory import encode_passages
from glimmer_export.runtime.store import Passage
from glimmer_export.runtime.text import TextEncoder

__all__ = [
    "BuildPlan", "Encoder", "check_codec", "codec_entry", "corpus_sample", "encode_memory", "encode_shard",
    "freeze_codec", "frozen_codec", "length_batches", "plan_build",
]  # fmt: skip

WAITING = 2
"""Batches that are encoded before they are written, at most."""
AT_ONCE = 64
"""Passages of a sample that are encoded, in batches of like length, before they are given in their order."""


@dataclass(frozen=True)
class BuildPlan:
    """`plan.json` of a build under way. `batch_tokens` counts padding too; `graph_sha256` lists the encoder's files.

    `arrays_sha256` is the digest of the codec's arrays in a store that is appended to; a build fits its own, and has
    None. Shards of one would be read wrongly with the arrays of the other. `sample_passages` is how many passages in
    even steps through the corpus they are fitted to, 0 where they are not fitted here.

    `backend` runs the encoder: another one's memory differs in the last bits, and in `compute_precision` bf16 in more
    than these. The number of threads is not here: it may
    change from one run to the next, on a machine that is busier.
    """

    corpus_sha256: str
    chunk_words: int | None
    num_passages: int
    memory_digest: str
    tokenizer_digest: str
    codec: str | None
    arrays_sha256: str | None
    sample_passages: int
    precision: str | None
    graph_sha256: tuple[str, ...]
    d_model: int
    passage_length: int
    passages_per_shard: int
    batch_tokens: int
    index_engine: str
    backend: str = CPU_BACKEND
    compute_precision: str = FP32

    @property
    def num_shards(self) -> int:
        """How many shards the store will have."""
        return -(-self.num_passages // self.passages_per_shard)

    def shard_passages(self, index: int) -> int:
        """How many passages a shard will hold."""
        return min(self.passages_per_shard, self.num_passages - index * self.passages_per_shard)

    def sample(self) -> CodecSample:
        """The passages that the codec is fitted to, and those outside on which its error is measured."""
        return choose_sample(range(self.num_passages), self.sample_passages)

    def differences(self, other: BuildPlan | StoreManifest) -> list[str]:
        """Names of the settings in which another plan, or a finished store so far as it tells, differs."""
        names = [field.name for field in dataclasses.fields(self) if hasattr(other, field.name)]
        return [name for name in names if getattr(self, name) != getattr(other, name)]


def plan_build(
    bundle: Bundle, corpus: Corpus, *, codec: str | None, passages_per_shard: int, batch_tokens: int, index_engine: str,
    arrays: FileEntry | None = None, backend: str = CPU_BACKEND, compute_precision: str = FP32,
) -> BuildPlan:
    """The plan for a bundle and a corpus; `arrays` are those of the codec in a store that is appended to.

    `codec` None: the bundle's own where its graphs decode one alone, else fp16. `backend` is the name of what runs the
    memory encoder, `compute_precision` what its float operators are computed in.

    Raises TokenizerError for a bundle that cannot read text, OptionError for a codec that its graphs do not decode.
    """
    manifest = bundle.manifest
    if bundle.text is None:
        raise TokenizerError(
            str(bundle), expected="a tokenizer, to encode passages", found="none",
            fix="export it from a checkpoint with a tokenizer.json",
        )
    if manifest.tokenizer_digest is None:
        raise BundleError(
            str(bundle), expected="the digest of its tokenizer", found="none", fix="export the bundle again"
        )
    encoder = manifest.graphs.get(MEMORY_ENCODER)
    if codec is None:
        codec = manifest.codecs[0] if len(manifest.codecs) == 1 else "fp16"
    stored = check_codec(bundle, codec) if encoder else None
    fits = stored is not None and arrays is None and codec_layout(stored, manifest.model.d_model).arrays
    return BuildPlan(
        corpus_sha256=corpus.sha256,
        chunk_words=corpus.source.chunk_words,
        num_passages=corpus.num_passages,
        memory_digest=manifest.memory_digest,
        tokenizer_digest=manifest.tokenizer_digest,
        codec=stored,
        arrays_sha256=arrays.sha256 if arrays else None,
        sample_passages=SAMPLE_PASSAGES if fits else 0,
        precision=_precision(encoder.precision, compute_precision) if encoder else None,
        graph_sha256=tuple(file.sha256 for file in encoder.files) if encoder else (),
        d_model=manifest.model.d_model,
        passage_length=manifest.model.passage_length,
        passages_per_shard=passages_per_shard,
        batch_tokens=batch_tokens,
        index_engine=index_engine,
        backend=backend,
        compute_precision=compute_precision,
    )


def _precision(graph: str, compute_precision: str) -> str:
    return computed_in_bf16(graph) if compute_precision == BF16 else graph


def check_codec(bundle: Bundle, codec: str) -> str:
    """The codec, if the bundle's graphs decode it; raises OptionError."""
    if codec not in bundle.manifest.codecs:
        raise OptionError(
            "--codec", expected=f"one that {bundle} decodes, {', '.join(bundle.manifest.codecs)}", found=codec,
            fix=f"choose one of these, or export the bundle again with `--codecs {codec}`",
        )
    return codec


@dataclass(frozen=True)
class Encoder:
    """What makes a passage's memory: the memory encoder's graph, and the codec that it is kept in."""

    graph: Graph
    codec: Codec


def encode_shard(
    store: Path, index: int, passages: Sequence[Passage | None], plan: BuildPlan, *,
    text: TextEncoder, encoder: Encoder | None, advance: Callable[[int], None], sample: CodecSample | None = None,
    at_encoder: AbstractContextManager[None] | None = None,
) -> ShardRecord:
    """Write shard `index` below `store`; it appears there whole. `encoder` None: token ids only.

    In the place of a passage that is None there is a row without tokens.

    The codec's error is measured on the passages of `sample` that the shard has. `advance` is told how many passages
    are encoded after each batch; they come into the codec and into the file behind it, while the next is encoded.
    `at_encoder` is entered while batches are encoded, None: nobody else has the device. Raises StoreError where a
    passage's memory is not finite.
    """
    encoded = [([], False) if passage is None else text.passage(passage.title, passage.text) for passage in passages]
    ids = [tokens for tokens, _ in encoded]
    identifiers = [None if passage is None else passage.id for passage in passages]
    meter = None if encoder is None or sample is None else ErrorMeter(encoder.codec, sample)
    first = index * plan.passages_per_shard
    with whole_file(store / shard_name(index)) as temporary:
        with ShardWriter(temporary, ids, d_model=plan.d_model, codec=plan.codec) as writer, Behind(WAITING) as behind:

            def write(rows: Sequence[int], memories: Sequence[Array]) -> None:
                assert encoder is not None
                for row, memory in zip(rows, memories, strict=True):
                    tensors = encode_memory(encoder.codec, memory, identifiers[row])
                    writer.put(row, tensors)
                    if meter is not None:
                        meter.add(first + row, memory, tensors)

            with at_encoder or nullcontext():
                for rows in length_batches([len(row) for row in ids], plan.batch_tokens):
                    if encoder is not None:
                        behind.do(partial(write, rows, encode_passages(encoder.graph, [ids[row] for row in rows])))
                    advance(len(rows))
        entry = FileEntry.named(shard_name(index), temporary)
    num_empty = sum(passage is None for passage in passages)
    return ShardRecord(
        ShardEntry(entry, len(passages), writer.num_tokens, first, num_empty, checksums=True),
        sum(cut for _, cut in encoded), SampleErrors() if meter is None else meter.errors,
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
    """Rows that have a length in batches of like length, longest first: too little memory then shows in the first.

    A batch, padded to its longest row, has at most `batch_tokens` tokens, or is one row alone.
    """
    order = sorted((row for row, length in enumerate(lengths) if length), key=lambda row: (-lengths[row], row))
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // lengths[order[start]])
        yield order[start : start + size]
        start += size


def freeze_codec(work: Work, name: str, d_model: int, fit: Callable[[], dict[str, Array]]) -> None:
    """Fit the codec of the store under construction, unless it has no arrays or an earlier run has fitted it.

    Raises what `fit` does.
    """
    from safetensors.numpy import save

    with suppress(StoreError):
        frozen_codec(work.store, name, d_model)
        return
    # Shards that were written with arrays that are gone cannot be read with others.
    work.forget_shards()
    replace_file(work.store / CODEC_ARRAYS, save(fit()))


def frozen_codec(store: Path, name: str, d_model: int) -> Codec:
    """The codec that a build's shards are written in; raises StoreError where its arrays are absent or damaged."""
    if codec_layout(name, d_model).arrays:
        return read_codec(store, codec_entry(store), name, d_model)
    return open_codec(name, d_model, {}, subject=f"store {store}")


def codec_entry(store: Path) -> FileEntry | None:
    """The file of a store's codec arrays; None where it has none."""
    path = store / CODEC_ARRAYS
    return FileEntry.named(CODEC_ARRAYS, path) if path.is_file() else None


def corpus_sample(plan: BuildPlan, corpus: Corpus, text: TextEncoder, graph: Graph) -> Iterator[Array]:
    """Memory (tokens, d_model) float32 of passages in even steps through the whole corpus, in the corpus's order.

    It is what an fp16 store would hold, so that a conversion of that store is fitted to the same. Memory that is not
    finite is an error of the shard it belongs to, which says which passage it is.
    """
    chosen = plan.sample().fitted
    passages = (passage for number, passage in enumerate(corpus.passages()) if number in chosen)
    while group := list(islice(passages, AT_ONCE)):
        ids = [text.passage(passage.title, passage.text)[0] for passage in group]
        memories: dict[int, Array] = {}
        for rows in length_batches([len(row) for row in ids], plan.batch_tokens):
            memories.update(zip(rows, encode_passages(graph, [ids[row] for row in rows]), strict=True))
        yield from (_in_fp16(memories[row]) for row in range(len(group)))


def _in_fp16(memory: Array) -> Array:
    """k-means makes another codebook of another last bit, a little better or worse by chance."""
    return decode_fp16(*encode_fp16(memory)) if np.isfinite(memory).all() else memory
