"""Whether a store's manifest, or a list of shards, is one that a writer could have made.

Every field is looked at, alone and beside the others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

from glimmer_export.runtime.codecs import CODECS, CodecLayout, codec_layout
from glimmer_export.runtime.contract.errors import StoreError
from glimmer_export.runtime.contract.manifest import PRECISIONS, FileEntry
from glimmer_export.runtime.contract.records import MAX_JSON_BYTES
from glimmer_export.runtime.contract.store_layout import (
    CODEC_ARRAYS,
    FOLDING,
    INDEX_ENGINES,
    INDEX_PATH,
    LISTED_SHARDS,
    SHARD_LIST_PATH,
    SHARD_PATH,
    TEXTS_PATH,
    TOMBSTONES_PATH,
    SegmentEntry,
    ShardEntry,
    ShardListEntry,
    StoreManifest,
    TextsEntry,
    born_in,
)
from glimmer_export.runtime.contract.vector_layout import faults_of_vectors

__all__ = ["MAX_GENERATION", "check_shard_list", "check_store_manifest"]

MAX_GENERATION = 2**31 - 1
ROUNDED = ("bf16", "int8-bf16")
"""What a memory encoder computes in where the backend rounds to BF16, whatever its graph's own precision."""
MAX_COUNT = 2**63 - 1
"""What SQLite numbers passages by."""
MAX_SIZES = {"d_model": 1 << 24, "passage_length": 1 << 16, "passages_per_shard": MAX_COUNT, "chunk_words": MAX_COUNT}
HEADER_BYTES = 1 << 16
"""What a safetensors file of ours has beside its tensors, at most."""
DIGEST = re.compile(r"[0-9a-f]{64}")
SHARD, SHARD_LIST, TEXTS, TOMBSTONES, INDEX = map(
    re.compile, (SHARD_PATH, SHARD_LIST_PATH, TEXTS_PATH, TOMBSTONES_PATH, INDEX_PATH)
)
META = "/meta.json"
UNICODE = re.compile(r"\d+(\.\d+)*")
NEWER = "install a newer glimmer-export"
UNREGISTERED = f"{NEWER}, or register the codec before it is opened (register_codec)"

Fault = tuple[str, str, object]
"""A field, what was expected there, and what was found."""


def check_store_manifest(manifest: StoreManifest, *, subject: str, fix: str) -> None:
    """Raise StoreError for the first field that no writer gives, alone or beside the others.

    Files are not looked at. What a session would refuse of the manifest, no command goes on from.
    """
    for field, value, known, instead in (
        ("codec", manifest.codec, (*CODECS, None), UNREGISTERED),
        ("index.engine", manifest.index.engine, INDEX_ENGINES, NEWER),
    ):
        if value not in known:
            names = ", ".join(name for name in known if name)
            raise StoreError(f"{subject}, {field}", expected=f"one of {names}", found=repr(value)[:80], fix=instead)
    if manifest.index.folding > FOLDING:
        raise StoreError(
            f"{subject}, index.folding", expected=f"at most {FOLDING}", found=str(manifest.index.folding), fix=NEWER
        )
    for checks in (_sizes, _codec, _lists, _own_shards, _tombstones, _texts, _segments, _vectors, _names, _entries):
        _raise_first(checks(manifest), subject, fix)


def check_shard_list(
    manifest: StoreManifest, part: ShardListEntry, shards: Sequence[ShardEntry], *, subject: str, fix: str
) -> None:
    """Raise StoreError where a list does not hold the shards that the manifest says of it, or such as no writer has."""
    faults = (_shards(manifest, shards, part.first), _sums(part, shards), _shard_names(manifest, shards))
    _raise_first(chain(*faults, *(_entry(shard.file) for shard in shards)), subject, fix)


def _raise_first(faults: Iterator[Fault], subject: str, fix: str) -> None:
    for field, expected, found in faults:
        raise StoreError(f"{subject}, {field}", expected=expected, found=repr(found)[:80], fix=fix)


def _sizes(manifest: StoreManifest) -> Iterator[Fault]:
    if not 0 <= manifest.generation <= MAX_GENERATION:
        yield "generation", f"0 to {MAX_GENERATION}", manifest.generation
    for name, limit in MAX_SIZES.items():
        value = getattr(manifest, name)
        if value is not None and not 1 <= value <= limit:
            yield name, f"1 to {limit}", value
    for name in ("num_passages", "num_truncated"):
        if not 0 <= getattr(manifest, name) <= MAX_COUNT:
            yield name, f"0 to {MAX_COUNT}", getattr(manifest, name)
    for name in ("memory_digest", "tokenizer_digest", "corpus_sha256", "earlier_sha256"):
        value = getattr(manifest, name)
        if not DIGEST.fullmatch(value or "") and (name, value) != ("earlier_sha256", None):
            yield name, "a SHA-256", value
    if manifest.index.folding < 0:
        yield "index.folding", f"0 to {FOLDING}", manifest.index.folding
    unicode = manifest.index.unicode
    folded = manifest.index.folding > 0
    if folded != (unicode is not None) or (unicode is not None and not UNICODE.fullmatch(unicode)):
        yield "index.unicode", "the version of Unicode by which words were folded, else null", unicode


def _codec(manifest: StoreManifest) -> Iterator[Fault]:
    if manifest.precision not in ((None,) if manifest.codec is None else (*PRECISIONS, *ROUNDED)):
        yield "precision", "that of the memory encoder, null if there is no memory", manifest.precision
    arrays, snr = manifest.codec_arrays, manifest.codec_snr
    layout = _layout(manifest)
    if isinstance(layout, str):
        yield "codec", "one that fits d_model", layout
        return
    size = sum(array.num_bytes for array in layout.arrays) if layout else 0
    if (arrays is not None) != (size > 0) or (arrays and not 0 < arrays.bytes - size <= HEADER_BYTES):
        found = arrays and f"{arrays.bytes} bytes"
        yield "codec_arrays", f"{size} bytes of arrays for the codec {manifest.codec}, with a header", found
    for value in (snr.fitted_db, snr.outside_db) if snr else ():
        if value is not None and not math.isfinite(value):
            yield "codec_snr", "finite numbers", value


def _layout(manifest: StoreManifest) -> CodecLayout | str | None:
    """The codec's tensors, or why there are none; None without memory."""
    try:
        return None if manifest.codec is None else codec_layout(manifest.codec, manifest.d_model)
    except ValueError as reason:
        return str(reason)


def _lists(manifest: StoreManifest) -> Iterator[Fault]:
    """Each says as much as fits into a file of so many entries; what they hold is looked at when they are read."""
    first = 0
    for index, part in enumerate(manifest.shard_lists):
        where = f"shard_lists[{index}]"
        if part.first != first:
            yield f"{where}.first", f"{first}, after the one before", part.first
        if not 1 <= part.num_shards <= LISTED_SHARDS:
            yield f"{where}.num_shards", f"1 to {LISTED_SHARDS}", part.num_shards
        most = part.num_shards * manifest.passages_per_shard
        if not part.num_shards <= part.num_passages <= min(most, MAX_COUNT):
            yield f"{where}.num_passages", f"{part.num_shards} to {most}", part.num_passages
        most = part.num_passages * manifest.passage_length
        if not 0 <= part.num_tokens <= min(most, MAX_COUNT):
            yield f"{where}.num_tokens", f"0 to {most}", part.num_tokens
        if part.file.bytes > MAX_JSON_BYTES:
            yield f"{where}.file.bytes", f"at most {MAX_JSON_BYTES}", part.file.bytes
        first = part.end


def _own_shards(manifest: StoreManifest) -> Iterator[Fault]:
    return _shards(manifest, manifest.shards, sum(part.num_passages for part in manifest.shard_lists))


def _shards(manifest: StoreManifest, shards: Sequence[ShardEntry], first: int) -> Iterator[Fault]:
    layout = _layout(manifest)
    assert not isinstance(layout, str)
    per_passage, per_token = 8, 4  # of the offsets and the token ids
    if layout is not None:
        per_passage += sum(tensor.num_bytes for tensor in layout.per_passage)
        per_token += layout.bytes_per_token
    for index, shard in enumerate(shards):
        where = f"shards[{index}]"
        if shard.first != first:
            yield f"{where}.first", f"{first}, after the one before", shard.first
        if not 1 <= shard.num_passages <= manifest.passages_per_shard:
            yield f"{where}.num_passages", f"1 to {manifest.passages_per_shard}", shard.num_passages
        if not 0 <= shard.num_empty <= shard.num_passages:
            yield f"{where}.num_empty", f"0 to {shard.num_passages}", shard.num_empty
        least = shard.num_passages - shard.num_empty
        most = least * manifest.passage_length
        if not least <= shard.num_tokens <= most:
            yield f"{where}.num_tokens", f"{least} to {most}", shard.num_tokens
        size = 8 + shard.num_passages * (per_passage + 4 * shard.checksums) + shard.num_tokens * per_token
        if not 0 < shard.file.bytes - size <= HEADER_BYTES:
            yield f"{where}.file.bytes", f"{size} and a header", shard.file.bytes
        first = shard.end


def _sums(part: ShardListEntry, shards: Sequence[ShardEntry]) -> Iterator[Fault]:
    for name, expected, found in (
        ("num_shards", part.num_shards, len(shards)),
        ("num_passages", part.num_passages, sum(shard.num_passages for shard in shards)),
        ("num_tokens", part.num_tokens, sum(shard.num_tokens for shard in shards)),
    ):
        if expected != found:
            yield name, f"{expected}, as the manifest says", found


def _texts(manifest: StoreManifest) -> Iterator[Fault]:
    yield from _parts("texts", manifest.texts, manifest.num_numbers)
    if not manifest.texts:
        yield "texts", "a file at least", "none"
    if sum(part.num_passages for part in manifest.texts) < manifest.num_passages:
        yield "texts", f"{manifest.num_passages} passages at least", manifest.num_passages
    if manifest.index.engine == "fts5" and len(manifest.texts) > 1:
        yield "texts", "one file, with the index", len(manifest.texts)
    if manifest.num_truncated > manifest.num_numbers:
        yield "num_truncated", f"at most {manifest.num_numbers}", manifest.num_truncated


def _segments(manifest: StoreManifest) -> Iterator[Fault]:
    if manifest.index.engine == "fts5":
        if manifest.segments:
            yield "segments", "none, as the index is in the file of texts", len(manifest.segments)
        return
    yield from _parts("segments", manifest.segments, manifest.num_numbers)
    for index, segment in enumerate(manifest.segments):
        if segment.num_passages and not segment.files:
            yield f"segments[{index}].files", f"files of an index of {segment.num_passages} passages", "none"
        yield from _documents(segment, f"segments[{index}].documents")
    if sum(segment.num_passages for segment in manifest.segments) < manifest.num_passages:
        yield "segments", f"{manifest.num_passages} passages at least", manifest.num_passages


def _parts(name: str, parts: Sequence[TextsEntry | SegmentEntry], numbers: int) -> Iterator[Fault]:
    """They follow each other, and are those of all passages; none is of no number, but for the only one."""
    first = 0
    for index, part in enumerate(parts):
        where = f"{name}[{index}]"
        if part.first != first:
            yield f"{where}.first", f"{first}, after the one before", part.first
        if not (part.num_numbers > 0 or len(parts) == 1):
            yield f"{where}.num_numbers", "1 at least", part.num_numbers
        if not 0 <= part.num_passages <= part.num_numbers <= MAX_COUNT:
            yield f"{where}.num_passages", f"0 to {part.num_numbers}", part.num_passages
        first = part.end
    if first != numbers:
        yield name, f"those of the {numbers} passages of its shards", first


def _vectors(manifest: StoreManifest) -> Iterator[Fault]:
    if manifest.vectors is None:
        return
    for field, expected, found in faults_of_vectors(manifest.vectors, manifest.num_numbers):
        yield f"vectors.{field}", expected, found
    for file in manifest.vector_files():
        if born_in(file.path) > manifest.generation:
            yield "vectors", f"files of generation {manifest.generation} or before", file.path


def _documents(segment: SegmentEntry, where: str) -> Iterator[Fault]:
    """Those of tantivy's own segments, unless that lists them itself."""
    parts = {file.path.partition(".")[0] for file in segment.files}
    if not parts or any(file.path.endswith(META) for file in segment.files):
        parts = set()
    if len(segment.documents) != len(parts) or not all(1 <= count <= MAX_COUNT for count in segment.documents):
        yield where, f"how many documents each of {len(parts)} parts has", segment.documents
    elif parts and sum(segment.documents) != segment.num_passages:
        yield where, f"{segment.num_passages} together", segment.documents


def _tombstones(manifest: StoreManifest) -> Iterator[Fault]:
    numbers, deleted = manifest.num_numbers, manifest.tombstones
    for index, part in enumerate(manifest.tombstone_files):
        if not (1 <= part.count <= numbers and 0 < part.file.bytes - 8 * part.count <= HEADER_BYTES):
            yield f"tombstone_files[{index}]", f"a file of 1 to {numbers} numbers", (part.count, part.file.bytes)
    if manifest.num_passages + manifest.num_tombstones != numbers:
        found = f"{manifest.num_passages} and {manifest.num_tombstones}"
        yield "num_passages", f"with its tombstones the {numbers} passages of its shards", found
    if any(one >= other for one, other in pairwise(deleted)):
        yield "tombstones", "numbers that rise", deleted
    if deleted and not 0 <= deleted[0] <= deleted[-1] < numbers:
        yield "tombstones", f"numbers from 0 to below {numbers}", deleted


def _names(manifest: StoreManifest) -> Iterator[Fault]:
    """Names such as a writer gives, of no later generation, each once."""
    named: list[tuple[str, FileEntry, re.Pattern[str]]] = []
    for index, part in enumerate(manifest.shard_lists):
        named.append((f"shard_lists[{index}].file", part.file, SHARD_LIST))
    for index, deleted in enumerate(manifest.tombstone_files):
        named.append((f"tombstone_files[{index}].file", deleted.file, TOMBSTONES))
    for index, texts in enumerate(manifest.texts):
        named.append((f"texts[{index}].file", texts.file, TEXTS))
    for index, segment in enumerate(manifest.segments):
        named += [(f"segments[{index}].files[{place}]", file, INDEX) for place, file in enumerate(segment.files)]
        if not _is_of_one_index(segment):
            yield f"segments[{index}].files", "the files of one folder's index", f"{len(segment.files)} files"
    for where, file, pattern in named:
        if pattern.fullmatch(file.path) is None or born_in(file.path) > manifest.generation:
            yield f"{where}.path", f"the name of a file of generation {manifest.generation} or before", file.path
    yield from _shard_names(manifest, manifest.shards)
    if manifest.codec_arrays is not None and manifest.codec_arrays.path != CODEC_ARRAYS:
        yield "codec_arrays.path", CODEC_ARRAYS, manifest.codec_arrays.path
    seen: set[str] = set()
    for file in manifest.files():
        if file.path in seen:
            yield "files", "each named once", file.path
        seen.add(file.path)


def _is_of_one_index(segment: SegmentEntry) -> bool:
    """Whether its files lie in one folder: with tantivy's own list if that folder is of an earlier version."""
    folders = {file.path.partition("/")[0 if file.path.startswith("index-") else 2].partition("/")[0]
               for file in segment.files}
    lists = sum(file.path.endswith(META) for file in segment.files)
    return len(folders) <= 1 and lists == any(file.path.startswith("index-") for file in segment.files)


def _shard_names(manifest: StoreManifest, shards: Sequence[ShardEntry]) -> Iterator[Fault]:
    seen: set[str] = set()
    for index, shard in enumerate(shards):
        path = shard.file.path
        if not SHARD.fullmatch(path) or born_in(path) > manifest.generation or path in seen:
            yield f"shards[{index}].file.path", "the name of a shard, once", path
        seen.add(path)


def _entries(manifest: StoreManifest) -> Iterator[Fault]:
    for file in manifest.files():
        yield from _entry(file)


def _entry(file: FileEntry) -> Iterator[Fault]:
    if not 0 <= file.bytes <= MAX_COUNT:
        yield f"{file.path}, bytes", "a size", file.bytes
    if not DIGEST.fullmatch(file.sha256):
        yield f"{file.path}, sha256", "a SHA-256", file.sha256
