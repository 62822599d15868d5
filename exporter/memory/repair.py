"""What is damaged in a store made again, and only that: shards from the texts, texts from the corpus.

If that cannot be done, `roll_back` goes back to an older generation.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from glimmer_export.exporter.files.publish import recover
from glimmer_export.exporter.files.whole_file import move, sync_file, write_errors
from glimmer_export.exporter.memory.append import check_same_writer, encoder_of
from glimmer_export.exporter.memory.commit import Change, changing, check_no_links, replace_manifest
from glimmer_export.exporter.memory.corpus import Corpus, CorpusSource, Paths
from glimmer_export.exporter.memory.encode import BuildPlan, Encoder, encode_shard
from glimmer_export.exporter.memory.full_text import write_segment
from glimmer_export.exporter.memory.generations import (
    mend_copies,
    mend_manifest,
    mend_older,
    mend_replicas,
    next_generation,
    older_generations,
)
from glimmer_export.exporter.memory.journal import Journal, begin_change, end_change, recall
from glimmer_export.exporter.memory.texts import read_live, write_texts_part
from glimmer_export.exporter.memory.verify import Damage, damaged_files
from glimmer_export.exporter.memory.work import check_output, work_directory
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    MANIFEST,
    STORE_SCHEMA_VERSION,
    BundleError,
    FileEntry,
    OptionError,
    ShardEntry,
    ShardListEntry,
    StoreError,
    StoreManifest,
    TokenizerError,
    read_shards,
    read_store_manifest,
    shard_name,
    store_files,
)
from glimmer_export.runtime.contract.kinds import BUNDLE, STORE, require_kind
from glimmer_export.runtime.contract.store_layout import (
    changed_shard_name,
    older_manifest_name,
    segment_name,
    texts_name,
    texts_part_name,
)
from glimmer_export.runtime.contract.store_manifest import manifest_replica, read_shard_list
from glimmer_export.runtime.contract.store_mending import made_again
from glimmer_export.runtime.store import Passage
from glimmer_export.runtime.text import TextEncoder

__all__ = ["RepairSummary", "RollbackSummary", "repair_store", "roll_back"]

SHARDS = "shards/"
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
        restored += mend_copies(change.store, manifest)  # lists of shards first: they say what else there is
        with progress_bar("Verifying", manifest.num_numbers, shown=progress) as advance:
            damaged = {damage.path: damage for damage in damaged_files(change.store, manifest, advance=advance)}
        _check_options(change, damaged, bundle_directory, given)
        restored += [*mend_older(change.store, manifest), *mend_replicas(change.store, manifest)]
        repair = _Repair(change, restored, [])
        if _texts_of(manifest) & damaged.keys():
            assert given is not None
            source = dataclasses.replace(given, chunk_words=manifest.chunk_words)
            manifest = repair.texts(manifest, damaged, source, progress=progress)
        manifest = repair.index(manifest, damaged)
        if any(path.startswith(SHARDS) for path in damaged):
            assert bundle_directory is not None
            manifest = repair.shards(
                manifest, damaged, Bundle.open(bundle_directory), batch_tokens=batch_tokens, threads=threads,
                progress=progress,
            )
        if repair.renewed:
            manifest = dataclasses.replace(
                manifest, schema_version=STORE_SCHEMA_VERSION, generation=change.generation
            )
            change.publish(manifest, dropped=[path for path in repair.renewed if path.startswith(SHARDS)])
    return RepairSummary(
        manifest.generation, tuple(repair.restored), tuple(repair.renewed), time.monotonic() - started
    )


def _texts_of(manifest: StoreManifest) -> set[str]:
    return {part.file.path for part in manifest.texts}


def _check_options(
    change: Change, damaged: Mapping[str, Damage], bundle: str | Path | None, corpus: CorpusSource | None
) -> None:
    """Raise before anything is done where something cannot be."""
    manifest = change.manifest
    texts, shards = sorted(_texts_of(manifest) & damaged.keys()), [path for path in damaged if path.startswith(SHARDS)]
    known = {*texts, *shards, *(file.path for segment in manifest.segments for file in segment.files)}
    for path, damage in damaged.items():
        if path not in known:
            raise StoreError(
                f"store {change.store}, {path}", expected=damage.expected, found=damage.found, fix=damage.fix
            )
    if shards and bundle is None:
        raise OptionError(
            "--bundle", expected=f"a bundle, to encode {shards[0]} again", found="none",
            fix="name the bundle that built the store",
        )
    if texts and corpus is None:
        raise OptionError(
            "--corpus", expected=f"the corpus of SHA-256 {manifest.corpus_sha256}, for {texts[0]}",
            found="none", fix=f"name it; {CHANGED}",
        )


@dataclass(frozen=True)
class _Repair:
    """Makes files in the staging directory and puts those of the right digest in place, noting which."""

    change: Change
    restored: list[str]
    renewed: list[str]
    encoded: list[str] = dataclasses.field(default_factory=list)

    def texts(
        self, manifest: StoreManifest, damaged: Collection[str], source: CorpusSource, *, progress: bool
    ) -> StoreManifest:
        corpus = Corpus.scan(source, part_size=manifest.passages_per_shard)
        if corpus.sha256 != manifest.corpus_sha256:
            raise StoreError(
                f"store {self.change.store}", expected=f"a corpus of SHA-256 {manifest.corpus_sha256}",
                found=f"{corpus.sha256} of {source}",
                fix=f"give the file that the store was built from; {CHANGED}",
            )
        passages, full_text = enumerate(corpus.passages()), self.change.full_text()
        texts = []
        with progress_bar("Writing texts", corpus.num_passages, shown=progress) as advance:
            for place, before in enumerate(manifest.texts):  # cut as they were, which another version may have done
                own, generation = islice(passages, before.num_numbers), self.change.generation
                if before.file.path not in damaged:
                    advance(sum(1 for _ in own))
                    texts.append(before)
                    continue
                name = texts_name(generation) if full_text else texts_part_name(generation, place)
                after = write_texts_part(
                    self.change.staged, name, own, first=before.first, num_numbers=before.num_numbers, advance=advance,
                    folding=self.change.folding(),
                )
                file = self._settle(before.file, name)
                texts.append(before if file == before.file else dataclasses.replace(after, file=file))
        return dataclasses.replace(manifest, texts=tuple(texts), index=self.change.index())

    def index(self, manifest: StoreManifest, damaged: Collection[str]) -> StoreManifest:
        """Other indexes of the same texts where one is damaged: an engine need not write the same bytes twice."""
        segments = list(manifest.segments)
        for place, segment in enumerate(segments):
            if any(file.path in damaged for file in segment.files):
                segments[place] = write_segment(
                    self.change.staged, segment_name(self.change.generation, place),
                    read_live(
                        self.change.place, manifest.texts, self.change.tombstones, segment.first, segment.end
                    ),
                    first=segment.first, num_numbers=segment.num_numbers, folding=manifest.index.folding,
                    advance=lambda _: None,
                )
                self.renewed.extend(file.path for file in segment.files)
        return dataclasses.replace(manifest, segments=tuple(segments))

    def shards(
        self, manifest: StoreManifest, damaged: Collection[str], bundle: Bundle, *,
        batch_tokens: int, threads: int | None, progress: bool,
    ) -> StoreManifest:
        check_same_writer(self.change.store, manifest, bundle)
        if bundle.text is None:
            raise TokenizerError(str(bundle), expected="a tokenizer", found="none", fix="export it with one")
        encoding = _Encoding(
            _plan(manifest, batch_tokens), bundle.text, encoder_of(self.change.store, manifest, bundle, threads)
        )
        (self.change.staged / shard_name(0)).parent.mkdir()
        lists: list[ShardListEntry] = []
        total = sum(
            shard.num_passages for shard in read_shards(self.change.store, manifest) if shard.file.path in damaged
        )
        with progress_bar("Encoding passages", total, shown=progress) as advance:
            for part in manifest.shard_lists:
                listed = read_shard_list(self.change.store, manifest, part)
                made = self._encoded(manifest, listed, damaged, encoding, advance)
                lists += [part] if made == listed else self.change.stage_lists(made)
            own = self._encoded(manifest, manifest.shards, damaged, encoding, advance)
        return dataclasses.replace(manifest, shard_lists=tuple(lists), shards=own)

    def _encoded(
        self, manifest: StoreManifest, shards: Sequence[ShardEntry], damaged: Collection[str], encoding: _Encoding,
        advance: Callable[[int], None],
    ) -> tuple[ShardEntry, ...]:
        entries = list(shards)
        for place, entry in enumerate(entries):
            if entry.file.path not in damaged:
                continue
            passages = self._passages(manifest, entry)
            record = encode_shard(
                self.change.staged, len(self.encoded), passages, encoding.plan, text=encoding.text,
                encoder=encoding.encoder, advance=advance,
            )
            name = changed_shard_name(self.change.generation, len(self.encoded))
            (self.change.staged / record.shard.file.path).rename(self.change.staged / name)
            self.encoded.append(name)
            file = self._settle(entry.file, name)
            if file != entry.file:
                entries[place] = dataclasses.replace(record.shard, file=file, first=entry.first)
        return tuple(entries)

    def _passages(self, manifest: StoreManifest, entry: ShardEntry) -> list[Passage | None]:
        """What a shard's rows are of; None of a deleted passage."""
        found = dict(
            read_live(self.change.place, manifest.texts, self.change.tombstones, entry.first, entry.end)
        )
        return [found.get(number) for number in range(entry.first, entry.end)]

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


@dataclass(frozen=True)
class _Encoding:
    """What encodes passages as those of the store are."""

    plan: BuildPlan
    text: TextEncoder
    encoder: Encoder | None


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
        check_no_links(store)
        with work_directory(store) as work:
            work.check_ours()
            try:
                current = _current(store)
                older = _newest_whole(store, current)
                manifest = dataclasses.replace(
                    older, schema_version=STORE_SCHEMA_VERSION, generation=next_generation(store)
                )
                _change_back(store, current, manifest)
            finally:
                work.remove()
    before = None if current is None else current.num_passages
    return RollbackSummary(
        manifest.generation, older.generation, before, manifest.num_passages, time.monotonic() - started
    )


def _change_back(store: Path, current: StoreManifest | None, manifest: StoreManifest) -> None:
    """Put the manifest in place; what it names is dropped no more, and what only the current one names is."""
    names = {file.path for file in store_files(store, manifest)}
    end_change(store, manifest.generation - 1)
    recall(store, names)
    gone: set[str] = set()
    with suppress(StoreError):  # a list of shards that cannot be read: `memory compact` finds what it named
        gone = set() if current is None else {file.path for file in store_files(store, current)} - names
    begin_change(store, Journal(manifest.generation, (), tuple(sorted(gone))))
    replace_manifest(store, current, manifest)
    end_change(store, manifest.generation)


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
