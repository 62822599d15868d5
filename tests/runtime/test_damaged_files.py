"""Files that a library reads, damaged where nothing has looked (`verify=False`): named, or read all the same.

What is damaged keeps its size, or the manifest is told the new one: digests alone would find it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from glimmer_export.exporter.memory import delete_passages, renew_index
from glimmer_export.exporter.memory.full_text import write_segment
from glimmer_export.exporter.memory.texts import read_texts
from glimmer_export.runtime import Session
from glimmer_export.runtime.contract import StoreError, TokenizerError, read_manifest, read_store_manifest
from glimmer_export.runtime.passage_texts import PassageTexts
from glimmer_export.runtime.retrieval.tantivy_bm25 import TantivyIndex
from glimmer_export.runtime.sqlite_file import SqliteFile
from glimmer_export.runtime.text import TextEncoder
from tests.bundle_factory import rewrite
from tests.text_search import NONE_DELETED

GOLDEN = Path(__file__).parents[1] / "golden"
BUNDLE = GOLDEN / "bundle"
QUESTIONS = ["w1 w2 w3", "w59 w58", "w10 w11 w12 w13"]


def restate(directory: Path, name: str) -> None:
    """Have the manifest say what the file is now."""
    path, content = directory / "manifest.json", (directory / name).read_bytes()

    def restated(value):
        if isinstance(value, list):
            return [restated(item) for item in value]
        if not isinstance(value, dict):
            return value
        if value.get("path") == name:
            return {**value, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return {key: restated(item) for key, item in value.items()}

    path.write_text(json.dumps(restated(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")


def answered(store: Path) -> list[list[object]]:
    """The ids of the passages that each question's answer was read from; all texts are read besides."""
    with Session.open(BUNDLE, store, threads=1, verify=False) as session:
        for number in session.store._texts.all_numbers():
            session.store.passage(number)
        return [[item.passage.id for item in answer.passages] for answer in session.answer_many(QUESTIONS)]


@pytest.fixture(params=["store-fp16", "store-tantivy"])
def store(request, tmp_path) -> Path:
    return Path(shutil.copytree(GOLDEN / request.param, tmp_path / "store"))


@pytest.fixture
def fts5(tmp_path) -> Path:
    return Path(shutil.copytree(GOLDEN / "store-fp16", tmp_path / "store"))


@pytest.fixture
def tantivy(tmp_path) -> Path:
    return Path(shutil.copytree(GOLDEN / "store-tantivy", tmp_path / "store"))


def damaged(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """The content with bytes changed at one place, or in a row, or cut off."""
    generator = random.Random(seed)
    for number in range(count):
        changed, place = bytearray(content), generator.randrange(len(content))
        if number % 4 == 3:
            yield bytes(changed[:place])
            continue
        length = (1, 1, 8)[number % 4]
        changed[place : place + length] = generator.randbytes(len(changed[place : place + length]))
        yield bytes(changed)


@pytest.mark.parametrize("renewed", [False, True], ids=["of an earlier version", "of now"])
def test_any_byte_of_an_index(tantivy, renewed):
    """A panic of tantivy's is named; what is found has a number, and no number comes twice."""
    if renewed:
        renew_index(tantivy)
    segments, outcomes = read_store_manifest(tantivy).segments, set()
    for file in segments[0].files:
        path = tantivy / file.path
        content = path.read_bytes()
        for changed in damaged(content, 24):
            path.write_bytes(changed)
            try:
                index = TantivyIndex(tantivy, segments, NONE_DELETED, folding=0)
                hits = [index.search(question, 5) for question in QUESTIONS]
                assert all(len({hit.number for hit in found}) == len(found) for found in hits)
                outcomes.add("read")
            except StoreError as error:
                outcomes.add(error.expected)
        path.write_bytes(content)
    assert {"read", "an index of tantivy"} <= outcomes


def test_any_byte_of_the_texts(fts5):
    path, parts, outcomes = fts5 / "passages.sqlite", read_store_manifest(fts5).texts, set()
    for changed in damaged(path.read_bytes(), 200, seed=1):
        path.write_bytes(changed)
        try:
            with closing(PassageTexts(fts5, parts, NONE_DELETED, folding=0)) as texts:
                texts.passages(texts.all_numbers())
                for question in QUESTIONS:
                    texts.search(question, 5)
            outcomes.add("read")
        except StoreError as error:
            outcomes.add(error.expected)
    assert {"read", "a store's SQLite file"} <= outcomes


@pytest.mark.parametrize(("statement", "message"), [
    ("DELETE FROM passages WHERE number = 3", "expected a passage of the number 3, found none"),
    ("UPDATE passages SET text = x'ff00' WHERE number = 3", "found bytes in the place of str"),
    ("UPDATE passages SET title = CAST(x'ff' AS TEXT) WHERE number = 3", "expected a store's SQLite file"),
    ("UPDATE passages SET id = x'31' WHERE number = 3", "found bytes in the place of int"),
    ("UPDATE passages SET id = 1.5 WHERE number = 3", "found float in the place of int"),
    ("UPDATE passages SET number = 100000 WHERE number = 3", "below 40, found numbers from 0 to 100000"),
])
def test_rows_that_no_store_has(fts5, statement, message):
    with closing(sqlite3.connect(fts5 / "passages.sqlite", isolation_level=None)) as connection:
        connection.execute(statement)
    restate(fts5, "passages.sqlite")
    with (
        pytest.raises(StoreError, match=message),
        Session.open(BUNDLE, fts5, threads=1, verify=False) as session,
    ):
        session.store.passages([3])


@pytest.mark.parametrize(("statement", "found"), [
    ("CREATE VIEW odd AS SELECT 1", "a view odd"),
    ("CREATE TRIGGER odd AFTER INSERT ON passages BEGIN SELECT 1; END", "a trigger odd"),
    ("CREATE VIRTUAL TABLE odd USING fts5(words)", "a virtual table odd"),
    ("CREATE TABLE odd (number)", "a table odd"),
    ("CREATE TABLE passages_index_odd (number)", "a table passages_index_odd"),
    ("CREATE INDEX odd ON passages (title)", "an index odd"),
    ("ALTER TABLE passages ADD COLUMN odd AS (title || text)", "a computed column odd"),
])
def test_a_schema_that_no_store_has(store, statement, found):
    """What it could make SQLite do is not found out."""
    path = next(store.glob("passages.00002.sqlite"), store / "passages.sqlite")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)
    restate(store, path.name)
    with pytest.raises(StoreError, match=f"expected a store's SQLite file, found {found}"):
        answered(store)


def test_a_view_in_the_place_of_the_passages(fts5):
    with closing(sqlite3.connect(fts5 / "passages.sqlite", isolation_level=None)) as connection:
        connection.execute("ALTER TABLE passages RENAME TO kept")
        connection.execute("CREATE VIEW passages AS SELECT * FROM kept")
    restate(fts5, "passages.sqlite")
    with pytest.raises(StoreError, match=r"expected a store's SQLite file, found a (table kept|view passages)"):
        answered(fts5)


def test_a_schema_that_calls_a_function(fts5):
    with closing(sqlite3.connect(fts5 / "passages.sqlite", isolation_level=None)) as connection:
        connection.create_function("odd", 1, lambda value: value, deterministic=True)
        connection.execute("CREATE INDEX odd_index ON passages (odd(number))")
    restate(fts5, "passages.sqlite")
    with pytest.raises(StoreError, match="expected a store's SQLite file, found an index odd_index"):
        answered(fts5)


def test_how_a_file_is_opened(fts5):
    """No function of a schema is trusted, cells are checked, and what reads cannot write."""
    file = SqliteFile.reading(fts5 / "passages.sqlite", RuntimeError)
    settings = {name: file.row(f"PRAGMA {name}") for name in ("trusted_schema", "cell_size_check", "query_only")}
    assert settings == {"trusted_schema": (0,), "cell_size_check": (1,), "query_only": (1,)}
    with pytest.raises(RuntimeError, match="readonly"):
        file.execute("DELETE FROM passages")
    file.close()
    written = SqliteFile.writing(fts5 / "passages.sqlite", RuntimeError)
    assert written.row("PRAGMA trusted_schema") == (0,)
    written.close()


def test_a_trigger_does_not_run_where_a_store_is_changed(fts5, tmp_path):
    """A change copies the file, whoever wrote it."""
    with closing(sqlite3.connect(fts5 / "passages.sqlite", isolation_level=None)) as connection:
        connection.execute("CREATE TRIGGER odd AFTER DELETE ON passages BEGIN DELETE FROM passages; END")
    restate(fts5, "passages.sqlite")
    with pytest.raises(StoreError, match="a trigger odd"):
        delete_passages(fts5, [1])


def test_a_message_that_quotes_what_is_no_text(fts5):
    path = fts5 / "passages.sqlite"
    content = path.read_bytes()
    assert b"CREATE TABLE passages (" in content
    path.write_bytes(content.replace(b"CREATE TABLE passages (", b"CREATE TABLE pass\xfages ("))
    with pytest.raises(StoreError, match=r"expected a store's SQLite file"):
        answered(fts5)


@pytest.mark.parametrize("first", [41, 1 << 40, (1 << 63) - 60])
def test_an_index_of_numbers_that_no_passage_has(tantivy, first):
    renew_index(tantivy)
    manifest = read_store_manifest(tantivy)
    (segment,), (texts,) = manifest.segments, manifest.texts
    other = write_segment(
        tantivy, "segments/00003-00001",
        [(first + number, passage) for number, passage in read_texts(tantivy / texts.file.path)],
        first=0, num_numbers=segment.num_numbers, folding=1, advance=lambda _: None,
    )
    segments = [other]
    rewrite(tantivy / "manifest.json", segments=[dataclasses.asdict(part) for part in segments])
    hits = TantivyIndex(tantivy, segments, NONE_DELETED).search(QUESTIONS[0], 41)
    assert min(hit.number for hit in hits) >= first
    with (
        pytest.raises(StoreError, match=r"numbers of its passages, found \d+ in its index"),
        Session.open(BUNDLE, tantivy, threads=1, verify=False) as session,
    ):
        session.store.search(QUESTIONS[0], 41)


@pytest.mark.parametrize("numbers", [[35], [0], [39]])
def test_an_index_that_names_passages_that_were_deleted_before_it_was_written(tantivy, numbers):
    """By whatever list of the deleted: as many as the index lacks are there, but other ones."""
    name = "tombstones/00002.safetensors"
    (tantivy / name).write_bytes(save({"numbers": np.array(numbers, np.int64)}))
    restate(tantivy, name)
    with (
        pytest.raises(StoreError, match=f"numbers of its passages, found {numbers[0]} in its index"),
        Session.open(BUNDLE, tantivy, threads=1, verify=False) as session,
    ):
        session.store.search(" ".join(f"w{number}" for number in range(60)), 41)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "BF16", "F4"])
def test_a_dtype_that_numpy_has_not(tantivy, dtype):
    name = "tombstones/00002.safetensors"
    header = json.dumps({"numbers": {"dtype": dtype, "shape": [4], "data_offsets": [0, 2 if dtype == "F4" else 8]}})
    (tantivy / name).write_bytes(len(header).to_bytes(8, "little") + header.encode() + bytes(8))
    restate(tantivy, name)
    with pytest.raises(StoreError, match="expected"):
        answered(tantivy)


@pytest.mark.parametrize("model", [
    {"type": "WordLevel", "vocab": {"w1": 3}, "unk_token": "<absent>"},
    {"type": "Unigram", "unk_id": None, "vocab": [["w1", 0.0]]},
    {"type": "BPE", "vocab": {"w": 3}, "merges": [], "unk_token": "<absent>"},
], ids=lambda model: model["type"])
def test_a_tokenizer_without_an_unknown_token(tmp_path, model):
    bundle = Path(shutil.copytree(BUNDLE, tmp_path / "bundle"))
    path = bundle / "tokenizer.json"
    content = {**json.loads(path.read_text(encoding="utf-8")), "model": model}
    path.write_text(json.dumps(content), encoding="utf-8")
    restate(bundle, path.name)
    with (
        Session.open(bundle, threads=1) as session,
        pytest.raises(TokenizerError, match=r"tokenizer\.json: expected a tokenizer that takes any text, found"),
    ):
        session.answer("another", passages=["w1 another"])


def test_any_field_of_a_tokenizer(tmp_path):
    """What it cannot be opened with, or cannot encode, is a TokenizerError."""
    shape = read_manifest(BUNDLE).model
    original = json.loads((BUNDLE / "tokenizer.json").read_text(encoding="utf-8"))
    path, generator, outcomes = tmp_path / "tokenizer.json", random.Random(2), set()
    odd = [None, True, -1, 2**31, 2**63, 1e308, "", "▁", [], {}, [["a", 0.0]], "<unk>", {"type": "Sequence"}]
    for _ in range(300):
        content = json.loads(json.dumps(original))
        place = generator.choice([content, content["model"], content["model"]["vocab"], content["pre_tokenizer"]])
        place[generator.choice(list(place))] = generator.choice(odd)
        path.write_text(json.dumps(content), encoding="utf-8")
        try:
            text = TextEncoder.open(path, shape)
            text.decode(text.question("w1 another"))
            outcomes.add("read")
        except TokenizerError as error:
            outcomes.add(error.expected)
    assert {"read", "a tokenizer.json", "a tokenizer that takes any text"} <= outcomes
