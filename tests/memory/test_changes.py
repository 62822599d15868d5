"""Appending, replacing and deleting: what a new reader sees, what an open one keeps, and what is refused."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from glimmer_export.exporter.memory import (
    CorpusSource,
    append_passages,
    build_store,
    commit,
    compact_store,
    convert_store,
    delete_passages,
    id_from_text,
    merge_policy,
    read_ids,
    repair_store,
    store_stats,
    verify_store,
)
from glimmer_export.exporter.memory.corpus import Corpus
from glimmer_export.exporter.memory.work import work_directory
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    CorpusError,
    OutputError,
    PassageError,
    StoreError,
    read_store_manifest,
    store_files,
    store_manifest,
)
from glimmer_export.runtime.store import MemoryStore
from tests.bundle_factory import NOT_FINITE, make_bundle, rewrite, tree, write_rows
from tests.memory.contents import contents, open_contents, search_ids

ROWS = [
    {"id": f"p{index}" if index % 2 else index, "title": f"t{index}", "text": f"w{index} w1 w2"} for index in range(7)
]
NEW = [{"id": "p1", "title": "again", "text": "w40 w41"}, {"id": "q", "title": "added", "text": "w42 w40 w1"}]
SMALL = {"passages_per_shard": 3, "batch_tokens": 1}


@pytest.fixture(scope="module")
def opened(bundle):
    return Bundle.open(bundle)


@pytest.fixture(scope="module")
def built(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    build_store(bundle, write_rows(folder / "corpus.jsonl", ROWS), folder / "store", **SMALL)
    return folder / "store"


@pytest.fixture
def store(built, tmp_path):
    return shutil.copytree(built, tmp_path / "store")


@pytest.fixture
def new(tmp_path):
    return write_rows(tmp_path / "new.jsonl", NEW)


def add(store, bundle, corpus, **options):
    return append_passages(store, bundle, corpus, batch_tokens=1, **options)


def test_appended_passages_are_there(store, bundle, opened, tmp_path):
    before = tree(store)
    summary = add(store, bundle, write_rows(tmp_path / "new.jsonl", NEW[1:]))
    assert (summary.generation, summary.appended, summary.replaced, summary.passages) == (1, 1, 0, 8)
    assert summary.shards == 1
    with MemoryStore.open(store, opened) as now:
        assert now.numbers(["q"]) == [7]
        assert now.passage(7).text == "w42 w40 w1"
        assert search_ids(now, "w42")[0][0] == "q"
        assert now.memory(7).codes.shape == (len(now.input_ids(7)), 8)
        assert now.manifest.num_tombstones == 0
    del before["manifest.json"]
    assert before.items() <= tree(store).items()  # nothing that was there is touched
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.jsonl", "store"]


def test_an_id_that_is_there_is_replaced_only_on_request(store, bundle, opened, new):
    before = tree(store.parent)
    with pytest.raises(CorpusError, match=r"passage 'p1'.*--replace"):
        add(store, bundle, new)
    assert tree(store.parent) == before
    summary = add(store, bundle, new, replace=True)
    assert (summary.appended, summary.replaced, summary.passages) == (2, 1, 8)
    with MemoryStore.open(store, opened) as now:
        assert now.numbers(["p1", "q"]) == [7, 8]
        assert now.passage(7).text == "w40 w41"
        for read in (now.memory, now.input_ids, now.passage):
            with pytest.raises(IndexError):
                read(1)
        assert [identifier for identifier, _ in search_ids(now, "again")] == ["p1"]
        assert "p1" not in dict(search_ids(now, "w1 w2"))


def test_deleted_passages_are_not_found_nor_read(store, opened):
    summary = delete_passages(store, ["p5", 6, 0, 6])
    assert (summary.generation, summary.deleted, summary.passages) == (1, 3, 4)
    with MemoryStore.open(store, opened) as now:
        assert now.num_passages == 4
        for identifier, number in (("p5", 5), (6, 6), (0, 0)):
            with pytest.raises(PassageError, match="passage id"):
                now.numbers([identifier])
            with pytest.raises(IndexError):
                now.memory(number)
            with pytest.raises(IndexError):
                now.passages([number])
        assert sorted(map(str, dict(search_ids(now, "w1 w2 t5 t6 t0")))) == ["2", "4", "p1", "p3"]


def test_a_store_can_lose_every_passage_and_gain_others(store, bundle, opened, new):
    delete_passages(store, [row["id"] for row in ROWS])
    assert open_contents(store, opened) == []
    assert compact_store(store).passages == 0
    with MemoryStore.open(store, opened) as empty:
        assert empty.search("w1", 3) == []
        with pytest.raises(IndexError):
            empty.memory(0)
    add(store, bundle, new)
    assert [row[0] for row in open_contents(store, opened)] == ["p1", "q"]


@pytest.mark.parametrize("ids", [["p1", "absent"], ["1"], [True], ["p1\ud800"]])
def test_an_unknown_id_is_not_deleted(store, ids):
    before = tree(store.parent)
    with pytest.raises(PassageError, match="passage id"):
        delete_passages(store, ids)
    assert tree(store.parent) == before
    assert not (store.parent / "store.partial").exists()


def test_an_open_reader_keeps_its_generation(store, bundle, opened, new):
    with MemoryStore.open(store, opened) as old:
        before, found = contents(old), search_ids(old, "w1 w2 t1")
        add(store, bundle, new, replace=True)
        delete_passages(store, [4])
        with MemoryStore.open(store, opened) as between:
            expected = contents(between)
            summary = compact_store(store)
            assert (summary.generation, summary.removed, summary.open) == (3, (1,), (0, 2))
            old._shards.clear()  # as where nothing was read yet
            assert contents(old) == before
            assert search_ids(old, "w1 w2 t1") == found
            assert contents(between) == expected
        with MemoryStore.open(store, opened) as now:
            assert contents(now) == expected
            assert [row[0] for row in contents(now)] == [0, 2, "p3", "p5", 6, "p1", "q"]
        assert compact_store(store).open == (0,)
    summary = compact_store(store)
    assert (summary.removed, summary.open) == ((0,), ())
    assert open_contents(store, opened) == expected
    named = [file.path for file in store_files(store, read_store_manifest(store))]
    assert sorted(tree(store)) == sorted(["manifest.json", "replicas/00003.manifest", *named])


def test_numbers_stay_through_any_change(store, bundle, opened, new):
    add(store, bundle, new, replace=True)
    delete_passages(store, [0, 4])
    with MemoryStore.open(store, opened) as before:
        numbers = dict(zip([2, "p3", "p5", 6, "p1", "q"], [2, 3, 5, 6, 7, 8], strict=True))
        assert before.numbers(list(numbers)) == list(numbers.values())
        rows = contents(before)
        compact_store(store)
        with MemoryStore.open(store, opened) as after:
            assert after.numbers(list(numbers)) == list(numbers.values())
            assert contents(after) == rows


def test_what_nobody_holds_goes_with_the_next_change_but_for_the_generation_before(store, bundle, opened, tmp_path):
    """So that there is one to go back to; what a reader holds stays for as long as it does."""

    def put(index):
        row = {"id": f"n{index}", "text": f"w{index} w2"}
        return add(store, bundle, write_rows(tmp_path / "one.jsonl", [row])).generation

    put(0)
    with MemoryStore.open(store, opened) as held:
        before = contents(held)
        assert [put(index) for index in range(1, 5)] == [2, 3, 4, 5]
        assert sorted(path.name for path in (store / "manifests").iterdir()) == ["00001.json", "00004.json"]
        assert sorted(store.glob("*.sqlite")) == [store / f"passages.0000{number}.sqlite" for number in (1, 4, 5)]
        held._shards.clear()
        assert contents(held) == before
        assert verify_store(store).damaged == ()
    assert put(5) == 6
    assert sorted(path.name for path in (store / "manifests").iterdir()) == ["00005.json"]
    assert sorted(store.glob("*.sqlite")) == [store / f"passages.0000{number}.sqlite" for number in (5, 6)]
    assert verify_store(store).unnamed == ()


def test_what_a_store_keeps_is_said(store, bundle, opened, new):
    plain = store_stats(store)
    assert (plain.passages, plain.deleted, plain.shards, plain.texts_files, plain.segments) == (7, 0, 3, 1, 0)
    assert (plain.older, plain.open, plain.older_bytes, plain.warnings) == ((), (), 0, ())
    assert plain.shard_bytes == sum(path.stat().st_size for path in (store / "shards").iterdir())
    with MemoryStore.open(store, opened):
        add(store, bundle, new, replace=True)
        delete_passages(store, [0])
        found = store_stats(store)
        assert (found.passages, found.deleted, found.empty_rows, found.texts_left) == (7, 2, 0, 0)
        assert (found.older, found.open) == ((0, 1), (0,))
        kept = ("passages.sqlite", "passages.00001.sqlite")
        assert found.older_bytes == sum((store / name).stat().st_size for name in kept)
    compact_store(store)
    found = store_stats(store)
    assert (found.empty_rows, found.older, found.older_bytes) == (2, (), 0)


def test_a_change_reads_no_older_manifest(store, monkeypatch):
    """Nor any shard: what it costs does not rise with what was before."""
    for identifier in (0, "p1"):
        delete_passages(store, [identifier])
    (store / "manifests" / "00001.json").write_text("{")
    for path in (store / "shards").iterdir():
        os.truncate(path, path.stat().st_size)  # the same size: it is looked at, and not read
        path.chmod(0)
    parsed = []
    real = store_manifest.parse_store_manifest

    def parse(directory, content, name="manifest.json"):
        parsed.append(name)
        return real(directory, content, name)

    monkeypatch.setattr(store_manifest, "parse_store_manifest", parse)
    delete_passages(store, [2])
    assert set(parsed) == {"manifest.json"}


def test_a_reader_that_comes_during_a_change_reads_the_next(store, bundle, opened, tmp_path, monkeypatch):
    """Between opening the manifest and holding it, the store is changed and compacted."""
    flock, corpus = fcntl.flock, write_rows(tmp_path / "new.jsonl", NEW[1:])

    def slow(descriptor, operation):
        if operation == fcntl.LOCK_SH:
            monkeypatch.setattr(fcntl, "flock", flock)
            add(store, bundle, corpus)
            assert compact_store(store).removed == (0, 1)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", slow)
    with MemoryStore.open(store, opened) as late:
        assert late.manifest.generation == 2
        assert len(contents(late)) == 8


def test_a_store_on_a_file_system_without_locks_is_read(store, opened, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", flock)
    assert len(open_contents(store, opened)) == 7


def test_a_file_system_without_hard_links_is_named(store, opened, monkeypatch):
    def link(*_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", link)
    before = tree(store.parent)
    with pytest.raises(OutputError, match="hard links"):
        delete_passages(store, [0])
    assert tree(store.parent) == before


def test_a_reader_writes_nothing(store, opened, monkeypatch):
    """As it must be on read-only media, which root in a test cannot tell."""
    delete_passages(store, [0])
    real = os.open

    def read_only(path, flags, *arguments, **options):
        assert not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT), path
        return real(path, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", read_only)
    before = tree(store.parent)
    MemoryStore.open(store, opened).close()
    assert tree(store.parent) == before


def test_two_changes_of_one_store_do_not_meet(store):
    with work_directory(store), pytest.raises(OutputError, match="no other build"):
        delete_passages(store, [0])
    assert delete_passages(store, [0]).deleted == 1


def test_the_same_change_again_is_known(store, bundle, new):
    """As after a command that was killed at its very end."""
    add(store, bundle, new, replace=True)
    again = add(store, bundle, new)
    assert (again.already_complete, again.generation, again.passages) == (True, 1, 8)
    delete_passages(store, [0, "p3"])
    assert delete_passages(store, [0, "p3"]).already_complete
    with pytest.raises(PassageError):
        delete_passages(store, [0])
    with pytest.raises(CorpusError):
        add(store, bundle, new)


def test_a_changed_store_is_not_the_corpus_any_more(store, bundle, tmp_path):
    """The build of the first corpus must not call the store complete, though it has as many passages."""
    add(store, bundle, write_rows(tmp_path / "new.jsonl", NEW[:1]), replace=True)
    compact_store(store)
    with pytest.raises(OutputError, match="--overwrite"):
        build_store(bundle, write_rows(tmp_path / "corpus.jsonl", ROWS), store, **SMALL)


def test_an_interrupted_append_goes_on(store, bundle, opened, tmp_path, monkeypatch):
    corpus = write_rows(tmp_path / "new.jsonl", [{"id": f"n{index}", "text": f"w{index}"} for index in range(8)])
    plain = shutil.copytree(store, tmp_path / "plain")
    add(plain, bundle, corpus)
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("glimmer_export.exporter.memory.append.changed_texts", interrupt)
        with pytest.raises(KeyboardInterrupt):
            add(store, bundle, corpus)
    assert (tmp_path / "store.partial" / "store").is_dir()
    assert delete_passages(store, [0]).deleted == 1  # which leaves the unfinished append alone
    with pytest.raises(OutputError, match="--restart"):
        append_passages(store, bundle, corpus, batch_tokens=2)
    again = shutil.copytree(store, tmp_path / "again")
    shutil.copytree(tmp_path / "store.partial", tmp_path / "again.partial")
    assert append_passages(again, bundle, corpus, batch_tokens=2, restart=True).resumed_shards == 0
    assert not (tmp_path / "again.partial").exists()
    summary = add(store, bundle, corpus)
    assert (summary.resumed_shards, summary.appended) == (3, 8)
    assert open_contents(store, opened) == open_contents(plain, opened)[1:]
    assert not (tmp_path / "store.partial").exists()


def test_documents_that_were_cut_are_replaced_and_deleted_whole(bundle, opened, tmp_path):
    def document(identifier, words):
        return {"id": identifier, "title": "t", "text": " ".join(f"w{index}" for index in range(words))}

    store = tmp_path / "store"
    documents = [document(1, 25), document("a#0", 5), document("1#x", 12), document(10, 4)]
    corpus = write_rows(tmp_path / "c.jsonl", documents)
    build_store(bundle, CorpusSource(corpus, None, 10), store, **SMALL)
    new = write_rows(tmp_path / "new.txt", [document("1", 7), document("b", 11)])
    with pytest.raises(CorpusError, match="document '1'"):
        add(store, bundle, new, corpus_format="jsonl")
    summary = add(store, bundle, new, corpus_format="jsonl", replace=True)
    assert (summary.appended, summary.replaced, summary.passages) == (3, 3, 7)
    ids = ["a#0#0", "1#x#0", "1#x#1", "10#0", "1#0", "b#0", "b#1"]
    assert [row[0] for row in open_contents(store, opened)] == ids
    assert delete_passages(store, ["1#x", "b#0", 1]).deleted == 4
    assert [row[0] for row in open_contents(store, opened)] == ["a#0#0", "10#0", "b#1"]
    assert delete_passages(store, ["b"]).deleted == 1
    for absent in ("a", "1", "1#x"):
        with pytest.raises(PassageError):
            delete_passages(store, [absent])


def test_an_id_of_a_passage_and_of_a_document_is_not_guessed_at(bundle, opened, tmp_path):
    store = tmp_path / "store"
    corpus = write_rows(tmp_path / "c.jsonl", [{"id": name, "title": "t", "text": "w"} for name in ("a", "a#0", "b")])
    build_store(bundle, CorpusSource(corpus, None, 10), store, **SMALL)
    before = tree(store)
    with pytest.raises(PassageError, match="a passage and a document of that id"):
        delete_passages(store, ["b", "a#0"])
    assert tree(store) == before
    assert delete_passages(store, ["a#0#0"]).deleted == 1
    assert delete_passages(store, ["a#0"]).deleted == 1
    assert [row[0] for row in open_contents(store, opened)] == ["b#0"]


def test_a_changed_store_is_converted_and_changed_again(store, bundle, new, tmp_path):
    add(store, bundle, new, replace=True)
    opened = Bundle.open(make_bundle(tmp_path / "int8", codecs=("int8",)))
    convert_store(store, tmp_path / "converted", "int8")
    assert [row[0] for row in open_contents(tmp_path / "converted", opened)] == [0, 2, "p3", 4, "p5", 6, "p1", "q"]
    delete_passages(tmp_path / "converted", [0])
    compact_store(tmp_path / "converted")
    assert verify_store(tmp_path / "converted").damaged == ()
    assert [row[0] for row in open_contents(tmp_path / "converted", opened)] == [2, "p3", 4, "p5", 6, "p1", "q"]
    assert verify_store(store).damaged == ()  # with which the converted store may share files


def test_a_store_that_is_built_anew_meanwhile_is_not_appended_to(store, tmp_path, monkeypatch):
    bundle = make_bundle(tmp_path / "both", codecs=("fp16", "int8"))
    corpus = write_rows(tmp_path / "new.jsonl", NEW[1:])
    scan = Corpus.scan

    def build_meanwhile(*arguments, **options):
        with monkeypatch.context() as patched:
            patched.setattr(Corpus, "scan", scan)
            build_store(bundle, corpus, store, codec="int8", overwrite=True, **SMALL)
        return scan(*arguments, **options)

    monkeypatch.setattr(Corpus, "scan", build_meanwhile)
    with pytest.raises(StoreError, match="another codec"):
        add(store, bundle, corpus)
    assert verify_store(store).generation == 0


def test_shards_of_a_build_that_fits_other_arrays_are_not_appended(store, tmp_path, monkeypatch):
    """A build that was to overwrite the store was killed; its corpus is then appended instead."""
    bundle = make_bundle(tmp_path / "int8", codecs=("int8",))
    convert_store(store, tmp_path / "converted", "int8")
    corpus = write_rows(tmp_path / "new.jsonl", NEW[1:])
    before = tree(tmp_path / "converted")
    stopped = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr("glimmer_export.exporter.memory.build.write_texts_and_index", stopped)
    with pytest.raises(KeyboardInterrupt):
        build_store(bundle, corpus, tmp_path / "converted", codec="int8", overwrite=True, **SMALL)
    with pytest.raises(OutputError, match=r"arrays_sha256.*--restart"):
        add(tmp_path / "converted", bundle, corpus)
    assert tree(tmp_path / "converted") == before
    assert add(tmp_path / "converted", bundle, corpus, restart=True).resumed_shards == 0


@pytest.mark.parametrize("other", ["checkpoint", "precision"])
def test_only_the_stores_own_kind_of_bundle_appends(store, new, tmp_path, other):
    options = {"checkpoint": "b"} if other == "checkpoint" else {"precision": "fp16"}
    bundle = make_bundle(tmp_path / "other", **options)
    before = tree(store.parent)
    with pytest.raises(StoreError, match="memory encoder" if other == "checkpoint" else "precision"):
        add(store, bundle, new)
    assert tree(store.parent) == before


def test_memory_that_is_not_finite_leaves_the_store_as_it_was(store, bundle, opened, tmp_path):
    before = tree(store)
    with pytest.raises(StoreError, match="passage 'bad'"):
        add(store, bundle, write_rows(tmp_path / "new.jsonl", [{"id": "bad", "text": NOT_FINITE}]))
    assert tree(store) == before
    assert len(open_contents(store, opened)) == 7


def test_damage_is_not_carried_into_a_new_generation(store):
    delete_passages(store, [0])
    path = store / "passages.00001.sqlite"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="memory repair"):
        delete_passages(store, [2])


@pytest.mark.parametrize("numbers", [[3, 0], [0, 0], [-1, 0], [0, 7]])
def test_tombstones_that_are_not_a_stores_are_refused(store, opened, numbers):
    delete_passages(store, [0, 2])
    rewrite(store / "manifest.json", tombstones=numbers)
    with pytest.raises(StoreError, match="tombstones"):
        MemoryStore.open(store, opened, verify=False)


@pytest.mark.parametrize(("numbers", "count"), [([0, 3], 3), ([3, 0], 2), ([0, 0], 2), ([-1, 0], 2), ([0, 7], 2)])
def test_a_file_of_tombstones_that_is_not_a_stores_is_refused(store, opened, numbers, count):
    content = save({"numbers": np.array(numbers, np.int64)})
    (store / "tombstones").mkdir()
    (store / "tombstones" / "00000.safetensors").write_bytes(content)
    file = {"path": "tombstones/00000.safetensors", "bytes": len(content), "sha256": "0" * 64}
    rewrite(store / "manifest.json", tombstone_files=[{"file": file, "count": count}], num_passages=7 - count)
    with pytest.raises(StoreError, match=r"numbers that rise|tombstone_files"):
        MemoryStore.open(store, opened, verify=False)


def test_many_tombstones_lie_in_files_that_are_merged(store, opened, monkeypatch):
    monkeypatch.setattr(commit, "INLINE_TOMBSTONES", 1)
    monkeypatch.setattr(merge_policy, "PARTS", 2)
    for identifier in [0, "p1", 2, "p3", 4, "p5"]:
        delete_passages(store, [identifier])
    manifest = read_store_manifest(store)
    assert (manifest.num_tombstones, manifest.num_passages) == (6, 1)
    assert [part.count for part in manifest.tombstone_files] in ([6], [4, 2])
    for part in manifest.tombstone_files:
        copy = store / "replicas" / part.file.path.replace("/", "-")
        assert copy.read_bytes() == (store / part.file.path).read_bytes()
    assert [row[0] for row in open_contents(store, opened)] == [6]
    assert verify_store(store).unnamed == ()
    damaged = store / manifest.tombstone_files[0].file.path
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\1")
    assert [damage.path for damage in verify_store(store).damaged] == [manifest.tombstone_files[0].file.path]
    assert repair_store(store).restored == (manifest.tombstone_files[0].file.path,)
    assert verify_store(store).damaged == ()


def test_a_strange_directory_beside_the_store_is_left_alone(store):
    (store.parent / "store.partial").mkdir()
    (store.parent / "store.partial" / "diary.txt").write_text("mine")
    with pytest.raises(OutputError, match="diary"):
        delete_passages(store, [0])
    assert (store.parent / "store.partial" / "diary.txt").read_text() == "mine"


def test_what_is_no_store_is_not_touched(tmp_path, bundle, new):
    with pytest.raises(StoreError):
        delete_passages(tmp_path / "absent", [0])
    with pytest.raises(StoreError):
        add(bundle, bundle.parent / "absent", new)
    assert [path.name for path in tmp_path.iterdir()] == ["new.jsonl"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ('"7"', "7"), ("p1", "p1"), ("true", "true"), ("1.5", "1.5"), (str(2**63), str(2**63))],
)
def test_ids_of_options_are_numbers_where_they_look_so(text, value):
    found = id_from_text(text)
    assert (found, type(found)) == (value, type(value))


def test_ids_are_read_from_a_file_of_values_or_passages(tmp_path):
    path = tmp_path / "ids.jsonl"
    path.write_text('\ufeff1\n"1"\n\n{"id": "p", "text": "w1"}\n{"_id": "q", "id": null}\n', encoding="utf-8")
    assert read_ids(path) == [1, "1", "p", "q"]


@pytest.mark.parametrize("line", ["p1", "[1]", "1.5", "{}", "true", str(2**63)])
def test_a_line_without_an_id_is_named(tmp_path, line):
    path = tmp_path / "ids.jsonl"
    path.write_text(f"1\n{line}\n")
    with pytest.raises(CorpusError, match="line 2"):
        read_ids(path)


IDS = list(range(5))
CHANGES = st.one_of(
    st.tuples(st.just("put"), st.lists(st.sampled_from(IDS), min_size=1, max_size=4, unique=True)),
    st.tuples(st.just("delete"), st.lists(st.sampled_from(IDS), min_size=1, max_size=3, unique=True)),
    st.tuples(st.just("compact"), st.just([])),
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(CHANGES, min_size=1, max_size=5), words=st.randoms(use_true_random=False))
def test_any_changes_equal_a_build_of_what_is_left(bundle, opened, tmp_path, changes, words):
    def row(identifier):
        return {"id": identifier, "title": f"t{identifier}", "text": f"w{words.randrange(6)} w{words.randrange(6)}"}

    def write(rows):
        return write_rows(tmp_path / "drawn.jsonl", rows)

    kept = {identifier: row(identifier) for identifier in IDS[:3]}
    store, fresh = tmp_path / "changed", tmp_path / "fresh"
    build_store(bundle, write(list(kept.values())), store, overwrite=True, passages_per_shard=2, batch_tokens=1)
    for kind, ids in changes:
        if kind == "put":
            rows = [row(identifier) for identifier in ids]
            if not add(store, bundle, write(rows), replace=True).already_complete:
                kept = {key: value for key, value in kept.items() if key not in ids} | {row["id"]: row for row in rows}
        elif kind == "delete" and (present := [identifier for identifier in ids if identifier in kept]):
            delete_passages(store, present)
            kept = {key: value for key, value in kept.items() if key not in present}
        elif kind == "compact":
            compact_store(store)
    if not kept:
        assert open_contents(store, opened) == []
        return
    build_store(bundle, write(list(kept.values())), fresh, overwrite=True, passages_per_shard=2, batch_tokens=1)
    with MemoryStore.open(store, opened) as changed, MemoryStore.open(fresh, opened) as expected:
        assert contents(changed) == contents(expected)
        for question in ("w0", "w1 w2 t1", "w3 w4 w5 t0"):
            assert search_ids(changed, question) == search_ids(expected, question)
    compact_store(store)
    assert open_contents(store, opened) == open_contents(fresh, opened)
    compacted, expected = (read_store_manifest(path) for path in (store, fresh))
    assert (compacted.num_tokens, compacted.num_passages) == (expected.num_tokens, expected.num_passages)
    assert compact_store(store).copied == 0
