"""What is damaged in a store made again, and only that: shards from the texts, texts from the corpus.

If that cannot be done, `roll_back` goes back to an older generation.
"""

from __future__ import annotations

import dataclasses
import os
import time
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glimmer_export.exporter.files.publish import recover
from glimmer_export.exporter.files.whole_file import move, sync_file, write_errors
from glimmer_export.exporter.memory.append import check_same_writer, encoder_of
from glimmer_export.exporter.memory.commit import Change, changing, check_no_links, replace_manifest
from glimmer_export.exporter.memory.corpus import Corpus, CorpusSource, Paths
from glimmer_export.exporter.memory.encode import BuildPlan, encode_shard
from glimmer_export.exporter.memory.generations import (
    mend_codec,
    mend_manifest,
    mend_older,
    mend_replicas,
    next_generation,
    next_shard_index,
    older_generations,
)
from glimmer_export.exporter.memory.texts import read_texts, stored_numbers, write_index, write_texts
from glimmer_export.exporter.memory.verify import Damage, damaged_files
from glimmer_export.exporter.memory.work import check_output, work_directory
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    CODEC_ARRAYS,
    MANIFEST,
    BundleError,
    FileEntry,
    OptionError,
    ShardEntry,
    StoreError,
    StoreManifest,
    TokenizerError,
    read_store_manifest,
    shard_name,
)
from glimmer_export.runtime.contract.kinds import BUNDLE, STORE, require_kind
from glimmer_export.runtime.contract.store_layout import older_manifest_name, texts_name
from glimmer_export.runtime.contract.store_manifest import manifest_replica
from glimmer_export.runtime.contract.store_mending import made_again
from glimmer_export.runtime.store import Passage

__all__ = ["RepairSummary", "RollbackSummary", "repair_store", "roll_back"]

ABSENT = Passage(None, "", "")
"""Stands for a deleted passage, whose row must be there and whose text is not."""
CHANGED = "if the store was changed since it was built, pass --rollback to go back to an older generation"


@dataclass(frozen=True)
class RepairSummary:
    """What a repair made. `restored` files have their digests again.

    `renewed` ones have others than before, as on another type of CPU or with another SQLite: the store has got a new
    generation that names them.
    """

    generation: int
    restored: tuple[str, ...]
    renewed: tuple[str, ...]
    seconds: float


def repair_store(
    store: str | Path, *, bundle_directory: str | Path | None = None, corpus_path: Paths | None = None,
    corpus_format: str | None = None, batch_tokens: int = 4096, threads: int | None = None, progress: bool = False,
) -> RepairSummary:
    """Make the damaged files of a store's generation again; the bundle is for shards, the corpus for texts.

    With the `batch_tokens` of the build, on its type of CPU, a shard gets the same bytes.

    Raises OptionError (a bundle or a corpus is needed), StoreError (no store, a file that cannot be made again, another
    corpus or checkpoint), OutputError (another process changes the store, a full disk), and what `build_store` raises.
    Files that were restored before an error stay so.
    """
    started = time.monotonic()
    given = None if corpus_path is None else CorpusSource.of(corpus_path, corpus_format)
    require_kind(Path(store), STORE, error=StoreError)
    if bundle_directory is not None:
        require_kind(Path(bundle_directory), BUNDLE, error=BundleError)
    check_output(Path(store), [bundle_directory, *(given.paths if given else ())])
    restored = [MANIFEST] if mend_manifest(Path(store)) else []
    with changing(Path(store), damaged=True) as change:
        manifest = change.manifest
        with progress_bar("Verifying", manifest.num_numbers, shown=progress) as advance:
            damaged = {damage.path: damage for damage in damaged_files(change.store, manifest, advance=advance)}
        shards = [index for index, shard in enumerate(manifest.shards) if shard.file.path in damaged]
        if CODEC_ARRAYS in damaged and mend_codec(change.store, manifest):
            restored.append(CODEC_ARRAYS)
            del damaged[CODEC_ARRAYS]
        _check_options(change, damaged, shards, bundle_directory, given)
        restored += [*mend_older(change.store, manifest), *mend_replicas(change.store, manifest)]
        repair = _Repair(change, restored, [])
        if manifest.texts.path in damaged:
            assert given is not None
            source = dataclasses.replace(given, chunk_words=manifest.chunk_words)
            manifest = repair.texts(manifest, source, progress=progress)
        if manifest.tombstones is not None and manifest.tombstones.path in damaged:
            manifest = repair.tombstones(manifest)
        if any(file.path in damaged for file in manifest.index.files):
            manifest = repair.index(manifest)
        if shards:
            assert bundle_directory is not None
            manifest = repair.shards(
                manifest, shards, Bundle.open(bundle_directory), batch_tokens=batch_tokens, threads=threads,
                progress=progress,
            )
        if repair.renewed:
            manifest = dataclasses.replace(manifest, generation=change.generation)
            change.publish(manifest)
    return RepairSummary(
        manifest.generation, tuple(repair.restored), tuple(repair.renewed), time.monotonic() - started
    )


def _check_options(
    change: Change, damaged: Mapping[str, Damage], shards: list[int], bundle: str | Path | None,
    corpus: CorpusSource | None,
) -> None:
    """Raise before anything is done where something cannot be."""
    manifest = change.manifest
    known = {manifest.texts.path, *(manifest.shards[index].file.path for index in shards)}
    known.update(file.path for file in manifest.index.files)
    if manifest.tombstones is not None:
        known.add(manifest.tombstones.path)
    for path, damage in damaged.items():
        if path not in known:
            raise StoreError(
                f"store {change.store}, {path}", expected=damage.expected, found=damage.found, fix=damage.fix
            )
    if shards and bundle is None:
        raise OptionError(
            "--bundle", expected=f"a bundle, to encode {manifest.shards[shards[0]].file.path} again", found="none",
            fix="name the bundle that built the store",
        )
    if manifest.texts.path in damaged and corpus is None:
        raise OptionError(
            "--corpus", expected=f"the corpus of SHA-256 {manifest.corpus_sha256}, for {manifest.texts.path}",
            found="none", fix=f"name it; {CHANGED}",
        )


@dataclass(frozen=True)
class _Repair:
    """Makes files in the staging directory and puts those of the right digest in place, noting which."""

    change: Change
    restored: list[str]
    renewed: list[str]

    def texts(self, manifest: StoreManifest, source: CorpusSource, *, progress: bool) -> StoreManifest:
        corpus = Corpus.scan(source, part_size=manifest.passages_per_shard)
        if corpus.sha256 != manifest.corpus_sha256:
            raise StoreError(
                f"store {self.change.store}", expected=f"a corpus of SHA-256 {manifest.corpus_sha256}",
                found=f"{corpus.sha256} of {source}",
                fix=f"give the file that the store was built from; {CHANGED}",
            )
        name = texts_name(self.change.generation)
        with progress_bar("Indexing texts", corpus.num_passages, shown=progress) as advance:
            write_texts(
                self.change.staged / name, corpus.passages(), advance=advance, folding=self.change.folding()
            )
        index = manifest.index
        if self.change.folded_otherwise():  # the index among these texts was folded here
            index = dataclasses.replace(index, unicode=unicodedata.unidata_version)
        return dataclasses.replace(manifest, texts=self._settle(manifest.texts, name), index=index)

    def tombstones(self, manifest: StoreManifest) -> StoreManifest:
        assert manifest.tombstones is not None
        stored = stored_numbers(self._place(manifest.texts))
        if len(stored) != manifest.num_passages:
            raise StoreError(
                f"store {self.change.store}, {manifest.texts.path}", expected=f"{manifest.num_passages} passages",
                found=str(len(stored)), fix="build the store again",
            )
        numbers = np.setdiff1d(np.arange(manifest.num_numbers), stored)
        if len(numbers) != manifest.num_tombstones:
            raise StoreError(
                f"store {self.change.store}, {manifest.texts.path}", expected=f"numbers below {manifest.num_numbers}",
                found=f"numbers up to {stored[-1]}", fix="build the store again",
            )
        entry = self.change.stage_tombstones(numbers)
        return dataclasses.replace(manifest, tombstones=self._settle(manifest.tombstones, entry.path))

    def index(self, manifest: StoreManifest) -> StoreManifest:
        """Another index of the same texts: an engine need not write the same bytes twice."""
        passages = read_texts(self._place(manifest.texts))
        index = write_index(
            self.change.staged, self.change.generation, passages, manifest.index.engine, advance=lambda _: None,
            folding=manifest.index.folding,
        )
        self.renewed.extend(file.path for file in manifest.index.files)
        return dataclasses.replace(manifest, index=index)

    def shards(
        self, manifest: StoreManifest, indices: list[int], bundle: Bundle, *,
        batch_tokens: int, threads: int | None, progress: bool,
    ) -> StoreManifest:
        check_same_writer(self.change.store, manifest, bundle)
        if bundle.text is None:
            raise TokenizerError(str(bundle), expected="a tokenizer", found="none", fix="export it with one")
        plan = _plan(manifest, batch_tokens)
        encoder = encoder_of(self.change.store, manifest, bundle, threads)
        entries, fresh = list(manifest.shards), next_shard_index(self.change.store)
        (self.change.staged / shard_name(0)).parent.mkdir()
        total = sum(entries[index].num_passages for index in indices)
        with progress_bar("Encoding passages", total, shown=progress) as advance:
            for place, index in enumerate(indices):
                passages = self._passages(manifest, index)
                record = encode_shard(
                    self.change.staged, fresh + place, passages, plan, text=bundle.text, encoder=encoder,
                    advance=advance,
                )
                file = self._settle(entries[index].file, record.shard.file.path)
                entries[index] = ShardEntry(file, record.shard.num_passages, record.shard.num_tokens)
        return dataclasses.replace(
            manifest, shards=tuple(entries), num_tokens=sum(entry.num_tokens for entry in entries)
        )

    def _passages(self, manifest: StoreManifest, index: int) -> list[Passage]:
        """What a shard's rows are of."""
        start = sum(shard.num_passages for shard in manifest.shards[:index])
        stop = start + manifest.shards[index].num_passages
        found = dict(read_texts(self._place(manifest.texts), start, stop))
        return [found.get(number, ABSENT) for number in range(start, stop)]

    def _settle(self, damaged: FileEntry, name: str) -> FileEntry:
        """Put the staged file `name` in the damaged one's place, if its bytes are the same; else it keeps its name."""
        made = self.change.entry(name)
        if (made.bytes, made.sha256) == (damaged.bytes, damaged.sha256):
            sync_file(self.change.staged / name)
            move(self.change.staged / name, self.change.store / damaged.path)
            self.restored.append(damaged.path)
            return damaged
        self.renewed.append(damaged.path)
        return made

    def _place(self, entry: FileEntry) -> Path:
        staged = self.change.staged / entry.path
        return staged if staged.exists() else self.change.store / entry.path


def _plan(manifest: StoreManifest, batch_tokens: int) -> BuildPlan:
    """The plan by which a store's shards were encoded."""
    return BuildPlan(
        corpus_sha256=manifest.corpus_sha256,
        chunk_words=manifest.chunk_words,
        num_passages=manifest.num_numbers,
        memory_digest=manifest.memory_digest,
        tokenizer_digest=manifest.tokenizer_digest,
        codec=manifest.codec,
        arrays_sha256=manifest.codec_arrays.sha256 if manifest.codec_arrays else None,
        sample_passages=0,
        precision=manifest.precision,
        graph_sha256=(),
        d_model=manifest.d_model,
        passage_length=manifest.passage_length,
        index_engine=manifest.index.engine,
        passages_per_shard=manifest.passages_per_shard,
        batch_tokens=batch_tokens,
    )


@dataclass(frozen=True)
class RollbackSummary:
    """What a rollback made: a `generation` that holds what generation `back_to` held.

    Lost is every change after `back_to`. `damaged_passages` were there before, None where that cannot be told;
    `passages` are now.
    """

    generation: int
    back_to: int
    damaged_passages: int | None
    passages: int
    seconds: float


def roll_back(store: str | Path) -> RollbackSummary:
    """Make the newest older generation that is whole the store again.

    Raises OptionError where the store is whole, StoreError where no older generation is, OutputError where another
    process changes it, or it cannot be written.
    """
    started, store = time.monotonic(), Path(os.path.realpath(store))
    with write_errors(store):
        recover(store)
        require_kind(store, STORE, error=StoreError)
        check_no_links(store, None)
        with work_directory(store) as work:
            work.check_ours()
            try:
                current = _current(store)
                older = _newest_whole(store, current)
                manifest = dataclasses.replace(older, generation=next_generation(store))
                replace_manifest(store, current, manifest)
            finally:
                work.remove()
    before = None if current is None else current.num_passages
    return RollbackSummary(
        manifest.generation, older.generation, before, manifest.num_passages, time.monotonic() - started
    )


def _current(store: Path) -> StoreManifest | None:
    """The damaged generation, None where its manifest is what is damaged."""
    try:
        manifest = read_store_manifest(store)
    except StoreError:
        return None
    if _is_whole(store, manifest):
        raise OptionError(
            "--rollback", expected="a damaged store", found=f"{store}, which is whole", fix="leave it as it is"
        )
    return manifest


def _newest_whole(store: Path, current: StoreManifest | None) -> StoreManifest:
    for manifest in _older(store, current):
        if _is_whole(store, manifest):
            return manifest
    raise StoreError(
        f"store {store}", expected="an older generation whose files are whole", found="none",
        fix=_instead(store, current) or "build the store again with `glimmer-export memory build`",
    )


def _instead(store: Path, current: StoreManifest | None) -> str | None:
    """What makes the current generation's damaged files again; None where nothing does."""
    if current is None:
        again = manifest_replica(store) is not None
        return f"restore it with `glimmer-export memory repair {store}`" if again else None
    fixes = [made_again(store, current, damage.path) for damage in damaged_files(store, current)]
    known = [fix for fix in fixes if fix is not None]
    return " and ".join(dict.fromkeys(known)) if len(known) == len(fixes) else None


def _older(store: Path, current: StoreManifest | None) -> Iterator[StoreManifest]:
    """Older generations, newest first."""
    for generation in reversed(older_generations(store, -1 if current is None else current.generation)):
        with suppress(StoreError):
            yield read_store_manifest(store, older_manifest_name(generation))


def _is_whole(store: Path, manifest: StoreManifest) -> bool:
    return next(damaged_files(store, manifest), None) is None
