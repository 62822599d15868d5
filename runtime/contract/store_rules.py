"""Whether a store's manifest is one that a writer could have made: every field, alone and beside the others."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from glimmer_export.runtime.codecs import CODECS, CodecLayout, codec_layout
from glimmer_export.runtime.contract.errors import StoreError
from glimmer_export.runtime.contract.manifest import PRECISIONS, FileEntry
from glimmer_export.runtime.contract.store_layout import CODEC_ARRAYS, FOLDING, INDEX_ENGINES, StoreManifest

__all__ = ["MAX_GENERATION", "check_store_manifest"]

MAX_GENERATION = 2**31 - 1
ROUNDED = ("bf16", "int8-bf16")
"""What a memory encoder computes in where the backend rounds to BF16, whatever its graph's own precision."""
MAX_COUNT = 2**63 - 1
"""What SQLite numbers passages by."""
MAX_SIZES = {"d_model": 1 << 24, "passage_length": 1 << 16, "passages_per_shard": MAX_COUNT, "chunk_words": MAX_COUNT}
HEADER_BYTES = 1 << 16
"""What a safetensors file of ours has beside its tensors, at most."""
DIGEST = re.compile(r"[0-9a-f]{64}")
SHARD = re.compile(r"shards/\d{5,}\.safetensors")
TEXTS = re.compile(r"passages(?:\.(\d{5,}))?\.sqlite")
TOMBSTONES = re.compile(r"tombstones/(\d{5,})\.safetensors")
INDEX = re.compile(r"index-(\d{5,})/[\w-]+\.\w+")
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
    for checks in (_sizes, _codec, _shards, _totals, _names, _entries):
        for field, expected, found in checks(manifest):
            raise StoreError(f"{subject}, {field}", expected=expected, found=repr(found)[:80], fix=fix)


def _sizes(manifest: StoreManifest) -> Iterator[Fault]:
    if not 0 <= manifest.generation <= MAX_GENERATION:
        yield "generation", f"0 to {MAX_GENERATION}", manifest.generation
    for name, limit in MAX_SIZES.items():
        value = getattr(manifest, name)
        if value is not None and not 1 <= value <= limit:
            yield name, f"1 to {limit}", value
    for name in ("num_passages", "num_tokens", "num_truncated", "num_tombstones"):
        if not 0 <= getattr(manifest, name) <= MAX_COUNT:
            yield name, f"0 to {MAX_COUNT}", getattr(manifest, name)
    for name in ("memory_digest", "tokenizer_digest", "corpus_sha256"):
        if not DIGEST.fullmatch(getattr(manifest, name)):
            yield name, "a SHA-256", getattr(manifest, name)
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


def _shards(manifest: StoreManifest) -> Iterator[Fault]:
    layout = _layout(manifest)
    assert not isinstance(layout, str)
    per_passage, per_token = 8, 4  # of the offsets and the token ids
    if layout is not None:
        per_passage += sum(tensor.num_bytes for tensor in layout.per_passage)
        per_token += layout.bytes_per_token
    for index, shard in enumerate(manifest.shards):
        where = f"shards[{index}]"
        if not 1 <= shard.num_passages <= manifest.passages_per_shard:
            yield f"{where}.num_passages", f"1 to {manifest.passages_per_shard}", shard.num_passages
        most = shard.num_passages * manifest.passage_length
        if not shard.num_passages <= shard.num_tokens <= most:
            yield f"{where}.num_tokens", f"{shard.num_passages} to {most}", shard.num_tokens
        size = 8 + shard.num_passages * per_passage + shard.num_tokens * per_token
        if not 0 < shard.file.bytes - size <= HEADER_BYTES:
            yield f"{where}.file.bytes", f"{size} and a header", shard.file.bytes


def _totals(manifest: StoreManifest) -> Iterator[Fault]:
    numbers = manifest.num_numbers
    if manifest.num_passages + manifest.num_tombstones != numbers:
        found = f"{manifest.num_passages} and {manifest.num_tombstones}"
        yield "num_passages", f"with num_tombstones the {numbers} passages of its shards", found
    if (tokens := sum(shard.num_tokens for shard in manifest.shards)) != manifest.num_tokens:
        yield "num_tokens", f"the {tokens} of its shards", manifest.num_tokens
    if manifest.num_truncated > numbers:
        yield "num_truncated", f"at most {numbers}", manifest.num_truncated
    tombstones, size = manifest.tombstones, 8 * manifest.num_tombstones
    if (tombstones is not None) != (size > 0) or (tombstones and not 0 < tombstones.bytes - size <= HEADER_BYTES):
        found = str(tombstones and tombstones.bytes)
        yield "tombstones", f"a file of {manifest.num_tombstones} numbers, null if there are none", found


def _names(manifest: StoreManifest) -> Iterator[Fault]:
    """Names such as a writer gives, of no later generation, each once."""
    named: list[tuple[str, FileEntry, re.Pattern[str]]] = [("texts", manifest.texts, TEXTS)]
    if manifest.tombstones is not None:
        named.append(("tombstones", manifest.tombstones, TOMBSTONES))
    named += [(f"index.files[{place}]", file, INDEX) for place, file in enumerate(manifest.index.files)]
    for where, file, pattern in named:
        match = pattern.fullmatch(file.path)
        if match is None or int(match[1] or 0) > manifest.generation:
            yield f"{where}.path", f"the name of a file of generation {manifest.generation} or before", file.path
    folders = {file.path.partition("/")[0] for file in manifest.index.files}
    metas = [file for file in manifest.index.files if file.path.endswith("/meta.json")]
    if (len(folders), len(metas)) != ((0, 0) if manifest.index.engine == "fts5" else (1, 1)):
        yield "index.files", f"those of one index of {manifest.index.engine}", f"{len(manifest.index.files)} files"
    for index, shard in enumerate(manifest.shards):
        if not SHARD.fullmatch(shard.file.path):
            yield f"shards[{index}].file.path", "the name of a shard", shard.file.path
    if manifest.codec_arrays is not None and manifest.codec_arrays.path != CODEC_ARRAYS:
        yield "codec_arrays.path", CODEC_ARRAYS, manifest.codec_arrays.path
    seen: set[str] = set()
    for file in manifest.files():
        if file.path in seen:
            yield "files", "each named once", file.path
        seen.add(file.path)


def _entries(manifest: StoreManifest) -> Iterator[Fault]:
    for file in manifest.files():
        if not 0 <= file.bytes <= MAX_COUNT:
            yield f"{file.path}, bytes", "a size", file.bytes
        if not DIGEST.fullmatch(file.sha256):
            yield f"{file.path}, sha256", "a SHA-256", file.sha256
