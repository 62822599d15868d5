"""Texts are checked by the passage, as each is read: what was not written is an error there, and opening reads none."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.exporter.memory import (
    append_passages,
    build_store,
    compact_store,
    convert_store,
    delete_passages,
    index_store,
    renew_index,
    repair_store,
    verify_store,
)
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import StoreError, read_store_manifest
from glimmer_export.runtime.contract.text_schema import text_checksum
from glimmer_export.runtime.store import MemoryStore, Passage
from tests.bundle_factory import rewrite, tree, write_rows
from tests.encoder_factory import make_encoder
from tests.test_golden import STORE_5

ROWS = [{"id": f"p{index}", "title": f"t{index}", "text": f"w{index} w1 w2", "wikipedia_id": "7"} for index in range(7)]
TEXTS = "texts/00000-00000.sqlite"
SMALL = {"passages_per_shard": 3, "batch_tokens": 1}
FIELDS = st.tuples(
    st.integers(0, 9) | st.text("1a\0", max_size=2), st.text("1a\0", max_size=2), st.text("1a\0", max_size=2),
    st.none() | st.text("1a\0", max_size=2),
)


@pytest.fixture(scope="module")
def opened(bundle):
    return Bundle.open(bundle)


@pytest.fixture(scope="module")
def built(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    build_store(bundle, write_rows(folder / "corpus.jsonl", ROWS), folder / "store", index="tantivy", **SMALL)
    return folder / "store"


@pytest.fixture
def store(built, tmp_path):
    return shutil.copytree(built, tmp_path / "store")


def flip(path, content, place=0):
    """One bit of the file changed, of the only place where it has these bytes."""
    data = bytearray(path.read_bytes())
    assert data.count(content) == 1
    data[data.index(content) + place] ^= 1
    path.write_bytes(data)


def change(path, statement):
    """A statement carried out on a file."""
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement).rowcount == 1


def test_a_flipped_bit_is_found_where_the_passage_is_read(store, opened):
    flip(store / TEXTS, b"w3 w1 w2")
    with MemoryStore.open(store, opened) as reader:
        assert [passage.id for passage in reader.passages([0, 2, 4])] == ["p0", "p2", "p4"]
        assert len(reader.search("w1", 7)) == 7
        for numbers in ([3], [4, 3]):
            with pytest.raises(StoreError, match=f"{TEXTS}: expected passage number 3 as it was written"):
                reader.passages(numbers)
        with pytest.raises(StoreError, match="passage number 3"):
            reader.numbers(["p3"])
    with MemoryStore.open(store, opened, verify=False) as reader:
        assert reader.passages([3])[0].text == "v3 w1 w2"
    (damage,) = verify_store(store).damaged
    assert damage.path == TEXTS
    assert "memory repair" in damage.fix


@pytest.mark.parametrize("statement", [
    "UPDATE passages SET checksum = checksum + 1 WHERE number = 3",
    "UPDATE passages SET checksum = -checksum WHERE number = 3",
    "UPDATE passages SET title = '' WHERE number = 3",
    "UPDATE passages SET id = 3 WHERE number = 3",
    "UPDATE passages SET wikipedia_id = '8' WHERE number = 3",
    "UPDATE passages SET wikipedia_id = NULL WHERE number = 3",
])
def test_any_field_that_is_not_as_it_was_written_is_found(store, opened, statement):
    change(store / TEXTS, statement)
    with MemoryStore.open(store, opened) as reader, pytest.raises(StoreError, match="passage number 3"):
        reader.passages([3])


def test_a_checksum_that_is_no_number_is_found(store, opened):
    change(store / TEXTS, "UPDATE passages SET checksum = 'x' WHERE number = 3")
    with MemoryStore.open(store, opened) as reader, pytest.raises(StoreError, match=r"found str in the place of int"):
        reader.passages([3])


def test_an_id_whose_index_leads_elsewhere_is_found(store, opened):
    """The index of ids is a tree of its own, which no passage's checksum is of."""
    path = store / TEXTS
    data = path.read_bytes()
    first, last = data.index(b"p3"), data.rindex(b"p3")
    assert data.count(b"p3") == 2
    index = min(first, last) if b"w3 w1" in data[last : last + 20] else max(first, last)
    path.write_bytes(data[: index + 1] + b"9" + data[index + 2 :])  # an entry p9, of passage number 3
    with MemoryStore.open(store, opened) as reader:
        assert reader.passages([3])[0].id == "p3"
        with pytest.raises(StoreError, match="expected 'p9'"):
            reader.numbers(["p9"])


@pytest.mark.parametrize("missing", [False, True], ids=["changed", "missing"])
@pytest.mark.parametrize("name", ["compact", "renew", "renew with fts5", "vectors", "convert"])
def test_no_change_copies_what_was_not_written(store, bundle, opened, tmp_path, missing, name):
    """What is copied is checked, and counted: a change would make its checksums anew."""
    delete_passages(store, ["p0"])
    statement = "DELETE FROM passages WHERE number = 3" if missing else "UPDATE passages SET text = '' WHERE number = 3"
    (store / TEXTS).chmod(0o644)
    change(store / TEXTS, statement)
    encoder = make_encoder(tmp_path / "encoder")
    changes = {
        "compact": lambda: compact_store(store), "renew": lambda: renew_index(store),
        "renew with fts5": lambda: renew_index(store, engine="fts5"),
        "vectors": lambda: index_store(store, encoder=encoder, threads=1),
        "convert": lambda: convert_store(store, tmp_path / "other", "int8"),
    }
    before = tree(store)
    with pytest.raises(StoreError):
        changes[name]()
    assert tree(store) == before


def test_an_append_that_merges_checks_what_it_copies(store, bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("glimmer_export.exporter.memory.merge_policy.PARTS", 1)
    flip(store / TEXTS, b"w3 w1 w2")
    before = tree(store)
    with pytest.raises(StoreError, match="checksum that does not fit passage number 3"):
        append_passages(store, bundle, write_rows(tmp_path / "new.jsonl", [{"id": 1, "text": "w1"}]), batch_tokens=1)
    assert tree(store) == before


def test_what_was_merged_goes_with_the_next_change_but_one(store, bundle, opened, tmp_path, monkeypatch):
    monkeypatch.setattr("glimmer_export.exporter.memory.merge_policy.PARTS", 1)
    monkeypatch.setattr("glimmer_export.exporter.memory.segments.SEGMENT_PARTS", 1)
    for place in range(3):
        row = {"id": place, "title": "", "text": f"w{place}"}
        append_passages(store, bundle, write_rows(tmp_path / "new.jsonl", [row]), batch_tokens=1)
        assert verify_store(store).unnamed == ()
    assert sorted(path.name for path in (store / "texts").iterdir()) == ["00002-00000.sqlite", "00003-00000.sqlite"]
    assert sorted(path.name for path in (store / "segments").iterdir()) == ["00002-00000", "00003-00000"]
    with MemoryStore.open(store, opened) as held:
        compact_store(store)
        compact_store(store)
        assert [passage.id for passage in held.passages([7, 8, 9])] == [0, 1, 2]


def test_texts_and_index_end_where_each_was_merged(store, bundle, opened, tmp_path, monkeypatch):
    monkeypatch.setattr("glimmer_export.exporter.memory.segments.SEGMENT_PARTS", 2)
    rows = [{"id": place, "title": "", "text": f"w{place} w40"} for place in range(6)]
    for row in rows:
        append_passages(store, bundle, write_rows(tmp_path / "new.jsonl", [row]), batch_tokens=1)
    manifest = read_store_manifest(store)
    assert [part.first for part in manifest.texts] == [0, 7, 8, 9, 10, 11, 12]
    assert [part.first for part in manifest.segments] == [0, 11]
    write_rows(tmp_path / "all.jsonl", [*ROWS, *rows])
    build_store(bundle, tmp_path / "all.jsonl", tmp_path / "whole", index="tantivy", **SMALL)
    with MemoryStore.open(store, opened) as grown, MemoryStore.open(tmp_path / "whole", opened) as whole:
        for question in ("w40", "w3 w1", "w5 w2 w40"):
            assert grown.search(question, 20) == whole.search(question, 20) != []
    index = max((file for part in manifest.segments for file in part.files), key=lambda file: file.bytes)
    (store / index.path).write_bytes(b"")
    assert index.path in repair_store(store).renewed
    compact_store(store)
    assert verify_store(store).damaged == ()
    manifest = read_store_manifest(store)
    assert [len(manifest.texts), len(manifest.segments)] == [1, 1]
    with MemoryStore.open(store, opened) as grown, MemoryStore.open(tmp_path / "whole", opened) as whole:
        assert grown.search("w5 w2 w40", 20) == whole.search("w5 w2 w40", 20)


def test_texts_are_repaired_as_they_were_cut(bundle, opened, tmp_path, monkeypatch):
    """Another version may have cut them otherwise than this one does."""
    corpus = write_rows(tmp_path / "corpus.jsonl", ROWS)
    with monkeypatch.context() as patched:
        for name in ("PART_PASSAGES", "SEGMENT_PASSAGES"):
            patched.setattr(f"glimmer_export.exporter.memory.full_text.{name}", 3)
        build_store(bundle, corpus, tmp_path / "store", index="tantivy", **SMALL)
    before = tree(tmp_path / "store")
    damaged = [f"texts/00000-{place:05d}.sqlite" for place in (0, 2)]
    for name in damaged:
        (tmp_path / "store" / name).write_bytes(b"")
    assert repair_store(tmp_path / "store", corpus_path=corpus).restored == tuple(damaged)
    assert tree(tmp_path / "store") == before


@pytest.mark.parametrize("where", ["texts", "files"])
def test_a_manifest_of_schema_5_has_no_field_of_schema_6(tmp_path, where):
    store = shutil.copytree(STORE_5, tmp_path / "store")
    data = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
    (data if where == "texts" else data["segments"][0])[where] = []
    rewrite(store / "manifest.json", **data)
    with pytest.raises(StoreError, match="manifest"):
        read_store_manifest(store)


def test_texts_of_schema_5_are_compared_whole_until_they_are_written_anew(bundle, tmp_path):
    store = shutil.copytree(STORE_5, tmp_path / "store")
    assert not any(part.checksums for part in read_store_manifest(store).texts)
    path = store / read_store_manifest(store).texts[0].file.path
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    golden = Bundle.open(STORE_5.parent.parent / "bundle")
    with pytest.raises(StoreError, match="SHA-256"):
        MemoryStore.open(store, golden)
    with pytest.raises(StoreError, match="SHA-256"):
        compact_store(store)
    path.write_bytes(content)
    compact_store(store)
    manifest = read_store_manifest(store)
    assert manifest.schema_version == 6
    assert [part.checksums for part in manifest.texts] == [True]
    assert verify_store(store).damaged == ()


@given(st.tuples(st.integers(0, 2), FIELDS), st.tuples(st.integers(0, 2), FIELDS))
def test_other_passages_have_other_checksums(one, other):
    """Of so few and short ones, CRC-32 tells all apart."""
    first, second = (text_checksum(number, *fields) for number, fields in (one, other))
    assert (first == second) == (one == other)


def test_the_checksum_is_that_of_the_page_in_the_file(built):
    with closing(sqlite3.connect(built / TEXTS)) as connection:
        rows = connection.execute("SELECT number, id, title, text, wikipedia_id, checksum FROM passages").fetchall()
    assert [row[-1] for row in rows] == [text_checksum(*row[:-1]) for row in rows]
    assert [Passage(*row[1:-1]) for row in rows] == [Passage(**row) for row in ROWS]
