"""Gzip that cannot be read to its end is no corpus, however much of it is whole."""

from __future__ import annotations

import gzip
import os

import pytest

from glimmer_export.calibration.questions import read_questions
from glimmer_export.exporter.memory.corpus import Corpus
from glimmer_export.exporter.memory.corpus.records import MAX_RECORD_BYTES
from glimmer_export.runtime.contract import CorpusError, QuestionFileError

LINES = b"".join(b'{"id": %d, "text": "text %d"}\n' % (number, number) for number in range(50))
WHOLE = gzip.compress(LINES, mtime=0)


def damaged(position: int) -> bytes:
    content = bytearray(WHOLE)
    content[position] ^= 0xFF
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (WHOLE[:-9], "end-of-stream"),
        (WHOLE[: len(WHOLE) // 2], "end-of-stream"),
        (damaged(-6), "CRC check failed"),
        (damaged(-1), "Incorrect length"),
        (damaged(10), "decompressing"),
        (LINES, "Not a gzipped file"),
        (WHOLE + b"more", "Not a gzipped file"),
    ],
    ids=["cut in its end", "cut", "checksum", "length", "data", "plain", "something after it"],
)
def test_gzip_that_is_not_whole_is_named(tmp_path, content, found):
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=f"expected gzip that is whole, found .*{found}"):
        Corpus.scan(path, part_size=8)


def test_padding_is_passed_over_but_not_without_end(tmp_path):
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(WHOLE)
    os.truncate(path, len(WHOLE) + 4096)
    assert Corpus.scan(path, part_size=8).num_passages == 50
    os.truncate(path, 1 << 36)
    with pytest.raises(CorpusError, match="expected gzip that is whole, found more than 1048576 zeros in a row"):
        Corpus.scan(path, part_size=8)
    path.write_bytes(gzip.compress(b'{"question": "who?"}'))
    os.truncate(path, 1 << 36)
    with pytest.raises(QuestionFileError, match="zeros in a row"):
        read_questions(path)


def test_files_in_gzip_may_be_appended_to_each_other(tmp_path):
    path = tmp_path / "corpus.jsonl.gz"
    path.write_bytes(WHOLE + gzip.compress(b'{"id": 50, "text": "x"}\n'))
    assert Corpus.scan(path, part_size=8).num_passages == 51


def test_a_line_that_grows_out_of_a_small_file_is_not_held(tmp_path, monkeypatch):
    path = tmp_path / "corpus.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(b'{"id": 1, "text": "')
        for _ in range(2 * MAX_RECORD_BYTES >> 20):
            stream.write(b"x" * (1 << 20))
        stream.write(b'"}\n')
    assert path.stat().st_size < 1 << 20
    with pytest.raises(CorpusError, match=r"expected at most \d+ bytes, uncompressed, found more"):
        Corpus.scan(path, part_size=8)
    monkeypatch.setattr("glimmer_export.calibration.text_files.MAX_UNPACKED_RATIO", 10_000)
    with pytest.raises(CorpusError, match="line 1: expected at most 16777216 bytes"):
        Corpus.scan(path, part_size=8)
