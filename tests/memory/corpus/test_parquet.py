"""Parquet: which columns are taken, and how each file and row that cannot be stored is named."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from glimmer_export.calibration import text_files
from glimmer_export.exporter.memory.corpus import Corpus
from glimmer_export.exporter.memory.corpus import parquet as parquet_module
from glimmer_export.exporter.memory.corpus.records import FIRST
from glimmer_export.exporter.memory.corpus.scan import LEAST_BYTES
from glimmer_export.runtime.contract import CorpusError
from glimmer_export.runtime.store import Passage
from tests.corpus_files import write_parquet

PASSAGES = [Passage(f"p{number}", f"title {number}", f"text {number}") for number in range(20)]


def table(path: Path, **columns: object) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


def rows(path: Path) -> list[Passage]:
    return list(Corpus.scan(path, part_size=3).passages())


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint8(), pa.string(), pa.large_string(), pa.string_view()])
def test_ids_keep_their_type(tmp_path, kind):
    ids = pa.array([3, 1, 2]).cast(pa.string() if kind == pa.string_view() else kind).cast(kind)
    expected = ["3", "1", "2"] if "string" in str(kind) else [3, 1, 2]
    assert [passage.id for passage in rows(table(tmp_path / "c.parquet", id=ids, text=["a", "b", "c"]))] == expected


def test_a_column_of_categories_and_a_column_more_are_read(tmp_path):
    path = table(
        tmp_path / "c.parquet", url=["u"] * 3, id=pa.array(["a", "b", "c"]).dictionary_encode(),
        title=pa.array(["t", None, "t"]).dictionary_encode(), text=pa.array(["x", "x", "y"]).dictionary_encode(),
    )
    assert rows(path) == [Passage("a", "t", "x"), Passage("b", "", "x"), Passage("c", "t", "y")]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"id": [1]}, 'column "text": expected one, found none'),
        ({"text": ["x"]}, 'column "id": expected one, found none'),
        ({"id": [1.0], "text": ["x"]}, 'column "id": expected integers or strings, found double'),
        ({"id": [True], "text": ["x"]}, 'column "id": expected integers or strings, found bool'),
        ({"id": [1], "text": [2]}, 'column "text": expected strings, found int64'),
        ({"id": [1], "text": [b"x"]}, 'column "text": expected strings, found binary'),
        ({"id": [1], "text": [[1]]}, 'column "text": expected strings, found list'),
        ({"id": [1], "title": [["x"]], "text": ["x"]}, 'column "title": expected strings, found list'),
        ({"id": [1], "body": ["x"]}, 'column "text": expected one, found none, among "id", "body"'),
        ({"id": [1], "text": [None]}, 'row 1: expected a "text" that is not empty'),
        ({"id": [1], "text": ["x"], "title": [2]}, 'column "title": expected strings, found int64'),
        ({"id": [1, None], "text": ["x", "y"]}, 'row 2: expected an "id"'),
        ({"id": [1, 2], "text": ["x", None]}, 'row 2: expected a "text" that is not empty, found no "text"'),
        ({"id": [1, 2], "text": ["x", " "]}, 'row 2: expected a "text" that is not empty'),
        ({"id": [1, 2, 1], "text": ["x"] * 3}, "row 3: expected an id of its own, found 1, the id of row 1"),
        ({"id": pa.array([1, 2**63], pa.uint64()), "text": ["x"] * 2}, 'row 2: expected an "id"'),
        ({"id": pa.array([], pa.int64()), "text": pa.array([], pa.string())}, "expected at least one passage"),
    ],
)
def test_what_cannot_be_stored_is_named(tmp_path, columns, expected):
    with pytest.raises(CorpusError) as caught:
        rows(table(tmp_path / "c.parquet", **columns))
    assert expected in str(caught.value)


def test_two_columns_of_one_name_are_named(tmp_path):
    parquet.write_table(pa.table([[1], ["x"], ["y"]], names=["id", "text", "text"]), tmp_path / "c.parquet")
    with pytest.raises(CorpusError, match='column "text": expected one, found 2'):
        rows(tmp_path / "c.parquet")


def test_a_string_that_is_not_utf_8_is_named(tmp_path):
    text = pa.array([b"x", b"\xe9"]).view(pa.string())
    with pytest.raises(CorpusError, match='row 2: expected a "text" in UTF-8'):
        rows(table(tmp_path / "c.parquet", id=[1, 2], text=text))


@pytest.mark.parametrize("damage", ["footer cut", "cut", "magic", "footer length", "page", "empty", "text"])
def test_a_damaged_file_is_named(tmp_path, damage):
    path = write_parquet(
        tmp_path / "c.parquet", PASSAGES, compression="NONE", use_dictionary=False, write_page_checksum=True
    )
    content = bytearray(path.read_bytes())
    if damage == "footer cut":
        del content[-3:]
    elif damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "magic":
        content[-4:] = b"XXXX"
    elif damage == "footer length":
        content[-8:-4] = (1 << 30).to_bytes(4, "little")
    elif damage == "page":
        content[content.index(b"text 7")] ^= 1
    else:
        content = bytearray(b"" if damage == "empty" else b'{"id": 1, "text": "x"}\n')
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=r"c\.parquet: expected a Parquet file that is whole"):
        rows(path)


def test_gigabytes_that_are_no_parquet_are_refused_before_they_are_read(tmp_path):
    class Unread:
        def update(self, content):
            raise AssertionError("read")

    path = tmp_path / "corpus.parquet"
    with path.open("wb") as stream:
        stream.write(b"PAR1")
        stream.truncate(1 << 36)
    with pytest.raises(CorpusError, match="expected a Parquet file that is whole"):
        next(parquet_module.read_parquet(path, FIRST, Unread()))


def test_no_other_error_comes_of_a_changed_footer(tmp_path):
    """Some changes cannot be seen: of statistics, and of what names the writer."""
    path = write_parquet(tmp_path / "c.parquet", PASSAGES, store_schema=False)
    whole, named = path.read_bytes(), 0
    begin = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for position in range(begin, len(whole), 5):
        content = bytearray(whole)
        content[position] ^= 0xD8
        path.write_bytes(content)
        try:
            rows(path)
        except CorpusError:
            named += 1
    assert named > 40


def test_a_row_of_huge_size_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_module, "MAX_RECORD_BYTES", 1000)
    path = table(tmp_path / "c.parquet", id=[1, 2], text=["x", "y" * 1001])
    with pytest.raises(CorpusError, match='row 2: expected a "text" of at most 1000 bytes, found 1001'):
        rows(path)


def test_a_row_group_of_huge_size_is_named_before_it_is_read(tmp_path, monkeypatch):
    path = table(tmp_path / "c.parquet", id=[1], text=["x" * 2000])
    monkeypatch.setattr(parquet_module, "MAX_GROUP_BYTES", 1000)
    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(CorpusError, match="row group 0: expected at most 1000 bytes"):
        rows(path)


def test_a_dictionary_is_not_written_out_for_many_rows_at_once(tmp_path, monkeypatch):
    taken = []
    read = parquet.ParquetFile.iter_batches

    def watched(*arguments, **options):
        for batch in read(*arguments, **options):
            taken.append(batch.nbytes)
            yield batch

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", watched)
    monkeypatch.setattr(parquet_module, "MAX_BATCH_BYTES", 100_000)
    path = table(tmp_path / "c.parquet", id=range(100), text=["x" * 30_000] * 100)
    assert path.stat().st_size < 10_000
    assert len(rows(path)) == 100
    assert max(taken) < 100_000


def test_fields_of_other_collections_and_nulls(tmp_path):
    """KILT's list of paragraphs, BEIR's `_id`, Pyserini's `contents`; a column of nulls has a type of its own."""
    path = table(tmp_path / "c.parquet", _id=["7"], wikipedia_title=["T"], text=[["a\n", "b"]])
    assert rows(path) == [Passage("7", "T", "a\nb", "7")]
    path = table(tmp_path / "c.parquet", id=["7", "8"], title=[None, None], contents=["x", "y"])
    assert rows(path) == [Passage("7", "", "x"), Passage("8", "", "y")]
    path = table(tmp_path / "c.parquet", id=["7"], title=["T"], section=["S"], text=["x"])
    assert rows(path) == [Passage("7", "T: S", "x")]


def test_paragraphs_of_huge_size_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_module, "MAX_RECORD_BYTES", 1000)
    with pytest.raises(CorpusError, match='row 1: expected a "text" of at most 1000 bytes'):
        rows(table(tmp_path / "c.parquet", id=[1], text=[["x" * 600, "y" * 600]]))


LONG = "x" * (1 << 20)


@pytest.mark.parametrize("encoding", ["dictionary", "delta"])
def test_a_few_kilobytes_that_unpack_to_gigabytes_take_no_more_memory_than_a_batch(tmp_path, monkeypatch, encoding):
    """A value that a dictionary holds once, or that repeats the one before it, in rows without end."""
    options = {"use_dictionary": ["text"], "dictionary_pagesize_limit": 4 << 20}
    if encoding == "delta":
        options = {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}}
    path = tmp_path / "c.parquet"
    columns = {"id": list(range(16)), "text": [LONG[: 1 << 19]] * 16}
    parquet.write_table(pa.table(columns), path, compression="zstd", **options)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(parquet_module, "MAX_BATCH_BYTES", 2 << 20)
    taken = []
    read = parquet.ParquetFile.iter_batches

    def watched(*arguments, **options):
        for batch in read(*arguments, **options):
            taken.append(batch.nbytes)
            yield batch

    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", watched)
    with pytest.raises(CorpusError, match="at most 4194304 bytes in a file of its size"):
        Corpus.scan(path, part_size=1)
    assert taken
    assert max(taken) <= 3 << 20


def test_a_page_that_unpacks_to_gigabytes_is_named_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "c.parquet"
    parquet.write_table(
        pa.table({"id": [1, 2, 3], "text": [LONG] * 3}), path, compression="zstd", use_dictionary=False,
    )
    monkeypatch.setattr(parquet_module, "MAX_PAGE_BYTES", 1 << 20)
    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(CorpusError, match="row group 0: expected pages of at most 1048576 bytes"):
        rows(path)


def test_a_paragraph_that_a_list_has_thousands_of_times_is_named(tmp_path):
    path = tmp_path / "c.parquet"
    parquet.write_table(
        pa.table({"id": [1], "text": [[LONG[:100_000]] * 300]}), path, compression="zstd",
        dictionary_pagesize_limit=4 << 20,
    )
    assert path.stat().st_size < 10_000
    with pytest.raises(CorpusError, match='row 1: expected a "text" of at most 16777216 bytes'):
        rows(path)
    short = tmp_path / "short.parquet"
    parquet.write_table(pa.table({"id": [1, 2], "text": [["a", "b", "a"], None]}), short)
    assert next(iter(parquet_module.read_parquet(short, FIRST, None))).document.text == "a\nb\na"


def test_rows_without_end_are_named(tmp_path):
    """Numbers that rise by one and one text: bytes for each million of rows."""
    number = 4000
    path = tmp_path / "c.parquet"
    text = pa.DictionaryArray.from_arrays(pa.array([0] * number, pa.int32()), ["x" * 2000])
    parquet.write_table(
        pa.table({"id": range(number), "text": text}), path, compression="zstd", use_dictionary=["text"],
        column_encoding={"id": "DELTA_BINARY_PACKED"},
    )
    assert path.stat().st_size < 30_000
    with pytest.raises(CorpusError, match="at most 4194304 bytes in a file of its size"):
        rows(path)


def test_short_rows_without_end_are_named_before_many_were_read(tmp_path):
    """A row takes its time, however short it is: by its bytes alone some 350,000 would be looked at."""
    number = 2 * text_files.MIN_UNPACKED_BYTES // LEAST_BYTES
    path = tmp_path / "c.parquet"
    text = pa.DictionaryArray.from_arrays(pa.array([0] * number, pa.int32()), ["x"])
    parquet.write_table(
        pa.table({"id": range(number), "text": text}), path, compression="zstd", use_dictionary=["text"],
        column_encoding={"id": "DELTA_BINARY_PACKED"},
    )
    with pytest.raises(CorpusError, match="at most 4194304 bytes in a file of its size") as raised:
        rows(path)
    assert f"row {number // 2 + 1}:" in str(raised.value)
