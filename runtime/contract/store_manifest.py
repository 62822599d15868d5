"""Read a store's manifest, and its lists of shards: against its replica, byte for byte, and all that they must be."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.runtime.contract.errors import StoreError
from glimmer_export.runtime.contract.files import is_there, read_limited
from glimmer_export.runtime.contract.kinds import STORE, error_of_kind
from glimmer_export.runtime.contract.manifest import MANIFEST, FileEntry
from glimmer_export.runtime.contract.records import MAX_JSON_BYTES, json_object, record_from_json, record_of_kind
from glimmer_export.runtime.contract.store_layout import (
    OLDER_MANIFESTS,
    STORE_FILE,
    ShardEntry,
    ShardListEntry,
    StoreManifest,
    older_manifest_name,
)
from glimmer_export.runtime.contract.store_replica import Replica, newest_replica, read_replica
from glimmer_export.runtime.contract.store_rules import check_shard_list, check_store_manifest
from glimmer_export.runtime.contract.store_schema4 import is_of_schema_4, manifest_of_schema_4
from glimmer_export.runtime.contract.store_schema5 import SCHEMA_5, as_schema_6

__all__ = [
    "ShardList", "manifest_replica", "parse_store_manifest", "read_shard_list", "read_shards", "read_store_manifest",
    "store_files",
]  # fmt: skip

FIX = "build the store again with `glimmer-export memory build`"
BOTH = "go back with `glimmer-export memory repair {} --rollback`, copy the store again, or build it again"
ATTEMPTS = 100
"""Changes of the store that may come between two looks at it."""


def read_store_manifest(directory: Path, name: str = MANIFEST) -> StoreManifest:
    """Parse and check `directory/manifest.json`, or an older manifest by its `name` below the store.

    Raises StoreError: absent, not JSON, other schema, fields that no writer gives, or other bytes than its replica
    vouches for.
    """
    if name != MANIFEST:
        return _read_older(directory, name)
    attempts = 0
    try:
        content = _content(directory, name)
    except StoreError as error:
        raise _with_fix(directory, error) from None
    while True:
        try:
            manifest = parse_store_manifest(directory, content)
            if _is_vouched(directory, manifest, content):
                return manifest
            damage = StoreError(
                f"store {directory}, {MANIFEST}", expected="the bytes that were written",
                found=_digest_of(content), fix=FIX,
            )
        except StoreError as error:
            damage = error
        attempts += 1
        again = _content(directory, name)
        if again == content or attempts >= ATTEMPTS:
            raise _with_fix(directory, damage)
        content = again  # a change of the store came between the manifest and its replica


def parse_store_manifest(directory: Path, content: bytes, name: str = MANIFEST) -> StoreManifest:
    """The manifest that these bytes are; raises StoreError as `read_store_manifest`, replicas apart."""
    subject = f"store {directory}, {name}"
    data = json_object(content, error=StoreError, subject=str(directory / name), fix=FIX)
    if is_of_schema_4(data):
        manifest = manifest_of_schema_4(data, subject=subject, fix=FIX)
    else:
        data = as_schema_6(data) if data.get("schema_version") == SCHEMA_5 else data
        manifest = record_of_kind(data, STORE_FILE, StoreManifest, error=StoreError, subject=subject, fix=FIX)
    check_store_manifest(manifest, subject=subject, fix=FIX)
    return manifest


@dataclass(frozen=True)
class ShardList:
    """What the file of a ShardListEntry holds."""

    shards: tuple[ShardEntry, ...]


def read_shard_list(directory: Path, manifest: StoreManifest, part: ShardListEntry) -> tuple[ShardEntry, ...]:
    """The shards of one of a manifest's lists; raises StoreError if it is absent, or not as it was written."""
    subject, path = f"store {directory}, {part.file.path}", directory / part.file.path
    fix = f"restore it with `glimmer-export memory repair {directory}`, or {BOTH.format(directory)}"
    content = read_limited(path, limit_bytes=part.file.bytes, error=StoreError, subject=str(path), fix=fix)
    if (len(content), hashlib.sha256(content).hexdigest()) != (part.file.bytes, part.file.sha256):
        raise StoreError(subject, expected="the bytes that were written", found=_digest_of(content), fix=fix)
    data = json_object(content, error=StoreError, subject=subject, fix=fix)
    shards = record_from_json(ShardList, data, error=StoreError, subject=subject, fix=fix).shards
    check_shard_list(manifest, part, shards, subject=subject, fix=fix)
    return shards


def read_shards(directory: Path, manifest: StoreManifest) -> tuple[ShardEntry, ...]:
    """All shards of a store, in the order of their numbers; raises StoreError as `read_shard_list`."""
    return tuple(_shards_of(directory, manifest))


def store_files(directory: Path, manifest: StoreManifest) -> list[FileEntry]:
    """Every file that the manifest vouches for, by itself and by its lists; raises as `read_shard_list`."""
    listed = [shard.file for part in manifest.shard_lists for shard in read_shard_list(directory, manifest, part)]
    return [*manifest.files(), *listed]


def _shards_of(directory: Path, manifest: StoreManifest) -> Iterator[ShardEntry]:
    for part in manifest.shard_lists:
        yield from read_shard_list(directory, manifest, part)
    yield from manifest.shards


def manifest_replica(directory: Path, generation: int | None = None) -> Replica | None:
    """The replica by which a damaged manifest is mended; None if there is none, or it is damaged too.

    It is the newest one, or that of an older `generation`. If a change was killed that had made all but the
    manifest, the newest is that of the change.
    """
    with suppress(StoreError):
        replica = newest_replica(directory) if generation is None else read_replica(directory, generation)
        if replica is not None and replica.is_sound:
            parse_store_manifest(directory, replica.content)
            return replica
    return None


def _read_older(directory: Path, name: str) -> StoreManifest:
    content = _content(directory, name)
    manifest = parse_store_manifest(directory, content, name)
    replica = read_replica(directory, manifest.generation)
    if older_manifest_name(manifest.generation) != name or (replica and not replica.vouches_for(content)):
        raise StoreError(
            f"store {directory}, {name}", expected="the bytes that were written", found=_digest_of(content),
            fix="see `glimmer-export memory verify`",
        )
    return manifest


def _is_vouched(directory: Path, manifest: StoreManifest, content: bytes) -> bool:
    """Whether nothing speaks against the manifest: its own replica, or if it has none another's."""
    replica = read_replica(directory, manifest.generation)
    if replica is not None:
        return replica.vouches_for(content)
    newest = newest_replica(directory)
    if newest is None or not newest.is_legible:
        return True
    return newest.generation < manifest.generation and _has_passed(directory, newest)


def _has_passed(directory: Path, replica: Replica) -> bool:
    """Whether a version that writes no replicas has changed the store since: the generation is kept as an older one.

    Once that version has compacted the store, files of the generation are missing.
    """
    older = directory / older_manifest_name(replica.generation)
    with suppress(StoreError):
        if is_there(older) and replica.vouches_for(_content(directory, f"{OLDER_MANIFESTS}/{older.name}")):
            return True
        manifest = parse_store_manifest(directory, replica.content)
        return not all(is_there(directory / file.path) for file in manifest.files())
    return False


def _digest_of(content: bytes) -> str:
    return f"{len(content):,} bytes of SHA-256 {hashlib.sha256(content).hexdigest()[:12]}"


def _with_fix(directory: Path, damage: StoreError) -> StoreError:
    """What is there if it is no store; else with a replica that is sound, and with one that is not, what mends it."""
    other = error_of_kind(damage, directory, STORE)
    if other is not damage:
        return other
    fix = damage.fix
    if manifest_replica(directory) is not None:
        fix = f"run `glimmer-export memory repair {directory}`, which restores it"
    elif newest_replica(directory) is not None:
        fix = f"its replica is damaged too: {BOTH.format(directory)}"
    return StoreError(damage.subject, expected=damage.expected, found=damage.found, fix=fix)


def _content(directory: Path, name: str) -> bytes:
    path = directory / name
    if not is_there(path):
        raise StoreError(str(path.parent), expected=f"a file {path.name}", found="none", fix=FIX)
    return read_limited(path, limit_bytes=MAX_JSON_BYTES, error=StoreError, subject=str(path), fix=FIX)
