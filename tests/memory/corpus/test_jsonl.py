"""What a line of JSON may hold, and how each that may not is named."""

from __future__ import annotations

import json

import pytest

from glimmer_export.exporter.memory.corpus import Corpus
from glimmer_export.exporter.memory.corpus.records import MAX_RECORD_BYTES
from glimmer_export.runtime.contract import CorpusError
from glimmer_export.runtime.store import Passage

GOOD = b'{"id": 1, "title": "t", "text": "x"}'


def scan(tmp_path, content: bytes) -> Corpus:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(content)
    return Corpus.scan(path, part_size=2)


def test_reads_passages_in_order_and_skips_blank_lines(tmp_path):
    rows = [
        {"id": 1, "title": "One", "text": "first", "source": "ignored"}, {"id": "1", "text": "a\u2028b"},
        {"id": -(2**63), "title": "", "text": "é"}, {"id": 2**63 - 1, "title": "t\x00t", "text": " x "},
    ]
    lines = [json.dumps(row, ensure_ascii=False).encode() for row in rows]
    corpus = scan(tmp_path, b"\n  \n" + b"\r\n".join(lines) + b"\n\n")
    assert corpus.num_passages == 4
    expected = [Passage(row["id"], row.get("title", ""), row["text"]) for row in rows]
    assert list(corpus.passages()) == expected
    assert list(corpus.parts()) == [expected[:2], expected[2:]]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'{"id": 2, "text": "x"', "a JSON object"),
        (b'[{"id": 2}]', "a JSON object"),
        (b'"id"', "a JSON object"),
        (b"[" * 100_000, "a JSON object"),
        (b'{"text": "x"}', 'no "id"'),
        (b'{"id": true, "text": "x"}', "found True"),
        (b'{"id": 2.0, "text": "x"}', "found 2.0"),
        (b'{"id": null, "text": "x"}', 'no "id" among "text"'),
        (b'{"id": [2], "text": "x"}', "found [2]"),
        (b'{"id": 9223372036854775808, "text": "x"}', "found 9223372036854775808"),
        (b'{"id": -9223372036854775809, "text": "x"}', "found -9223372036854775809"),
        (b'{"id": 1, "text": "x"}', "the id of line 1"),
        (b'{"id": 2}', 'no "text"'),
        (b'{"id": 2, "text": ""}', "not empty"),
        (b'{"id": 2, "text": " \\n\\t"}', "not empty"),
        (b'{"id": 2, "text": 5}', "not empty"),
        (b'{"id": 2, "title": 3, "text": "x"}', '"title"'),
        (b'{"id": 2, "body": "x"}', 'no "text" among "id", "body"'),
        (b'{"id": 2, "text": []}', "not empty"),
        (b'{"id": 2, "text": ["x", 3]}', "not empty"),
        (b'{"id": 2, "text": "\\ud800"}', "lone surrogate"),
        (b'{"id": "\\udfff", "text": "x"}', "lone surrogate"),
        (b'{"id": 2, "title": "\\ud800", "text": "x"}', "lone surrogate"),
        ('{"id": 2, "text": "é"}'.encode("latin-1"), "UTF-8"),
    ],
)
def test_names_the_line_that_cannot_be_stored(tmp_path, line, expected):
    with pytest.raises(CorpusError) as caught:
        scan(tmp_path, GOOD + b"\n\n" + line + b"\n")
    assert "line 3" in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_corpus_is_named(tmp_path, content):
    with pytest.raises(CorpusError, match="at least one passage"):
        scan(tmp_path, content)


def test_a_corpus_that_is_not_a_file_is_named(tmp_path):
    with pytest.raises(CorpusError, match=r"expected files that end in \.jsonl"):
        Corpus.scan(tmp_path, part_size=2)
    for name in ("absent", "absent-*.jsonl"):
        with pytest.raises(CorpusError, match="found none"):
            Corpus.scan(tmp_path / name, part_size=2)


def test_a_line_that_is_too_long_is_named_before_it_is_parsed(tmp_path):
    with pytest.raises(CorpusError, match="line 2: expected at most 16777216 bytes"):
        scan(tmp_path, GOOD + b"\n" + b"[" * (MAX_RECORD_BYTES + 1))


def test_an_integer_id_and_its_digits_are_two_ids(tmp_path):
    assert scan(tmp_path, GOOD + b'\n{"id": "1", "text": "x"}').num_passages == 2


@pytest.mark.parametrize(
    ("row", "passage"),
    [
        ({"id": 1, "title": None, "text": "body"}, Passage(1, "", "body")),
        ({"_id": "1", "title": "T", "text": "body", "metadata": {}}, Passage("1", "T", "body")),
        ({"id": None, "_id": "1", "text": None, "contents": "body"}, Passage("1", "", "body")),
        ({"id": "1", "contents": "body"}, Passage("1", "", "body")),
        (
            {"id": "290", "wikipedia_title": "A", "text": ["A\n", "A is the first letter.\n"]},
            Passage("290", "A", "A\nA is the first letter.", "290"),
        ),
        (
            {"_id": "290", "wikipedia_id": "290", "wikipedia_title": "A", "text": ["A"], "anchors": []},
            Passage("290", "A", "A", "290"),
        ),
        ({"id": "1", "title": "T", "section": "S", "text": "body"}, Passage("1", "T: S", "body")),
        ({"id": "1", "title": "T", "section": "", "text": "body"}, Passage("1", "T", "body")),
    ],
    ids=["null title", "BEIR", "nulls", "Pyserini", "KILT", "KILT's own", "Atlas", "Atlas without a section"],
)
def test_fields_of_other_collections(tmp_path, row, passage):
    assert list(scan(tmp_path, json.dumps(row).encode()).passages()) == [passage]


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\n"])
def test_a_byte_order_mark_is_no_part_of_the_first_line(tmp_path, mark):
    assert list(scan(tmp_path, mark + GOOD).passages()) == [Passage(1, "t", "x")]


@pytest.mark.parametrize("content", [b"[" + GOOD + b"]", b"[\n" + GOOD + b"\n]"])
def test_an_array_is_named_with_the_command_that_makes_lines_of_it(tmp_path, content):
    with pytest.raises(CorpusError, match=r"line 1: expected a JSON object.*jq -c '\.\[\]' FILE"):
        scan(tmp_path, content)
