"""DPR's layout: what Python's csv writes comes back, and how each row that cannot be stored is named."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glimmer_export.exporter.memory.corpus import Corpus
from glimmer_export.exporter.memory.corpus import records as records_module
from glimmer_export.runtime.contract import CorpusError
from glimmer_export.runtime.store import Passage
from tests.corpus_files import write_tsv

HEADER = b"id\ttext\ttitle\n"
AWKWARD = st.text(st.sampled_from('ab"\t\n\r \u2028é'), max_size=8)


def scan(tmp_path, content: bytes) -> Corpus:
    path = tmp_path / "corpus.tsv"
    path.write_bytes(content)
    return Corpus.scan(path, part_size=2)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.lists(st.tuples(AWKWARD, AWKWARD), min_size=1, max_size=5))
def test_what_csv_writes_comes_back(tmp_path, fields):
    passages = [Passage(str(number), title, f"{text}x") for number, (title, text) in enumerate(fields)]
    corpus = Corpus.scan(write_tsv(tmp_path / "corpus.tsv", passages), part_size=2)
    assert list(corpus.passages()) == passages


def test_a_row_as_dpr_has_it(tmp_path):
    text = b'"Aaron ( or ; ""Ah\xc3\xa4r\xc3\xb4n"") is a prophet"'
    (passage,) = scan(tmp_path, HEADER + b"1\t" + text + b"\tAaron\n").passages()
    assert passage == Passage("1", "Aaron", 'Aaron ( or ; "Ahärôn") is a prophet')


def test_a_quote_inside_a_field_and_a_missing_last_line_end_are_text(tmp_path):
    assert list(scan(tmp_path, HEADER + b'\r\n1\tsix 6" nails\t\r\n\n2\tb\tt').passages()) == [
        Passage("1", "", 'six 6" nails'), Passage("2", "t", "b"),
    ]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (b"2\tx\n", "expected 3 fields, found 2"),
        (b"2\tx\tt\tmore\n", "expected 3 fields, found 4"),
        (b"2 x t\n", "expected 3 fields, found 1"),
        (b"2\t\tt\n", 'expected a "text" that is not empty'),
        (b'2\t" "\tt\n', 'expected a "text" that is not empty'),
        (b'2\t"x\tt\n', "expected a quote that ends the field"),
        (b'2\t"x\n\n3\ty\tt\n', "expected a quote that ends the field"),
        (b'2\t"x" y\tt\n', "expected a tab after a field in quotes"),
        (b"1\ty\tt\n", "expected an id of its own, found '1', the id of line 2"),
        (b"2\t\xe9\tt\n", "expected UTF-8"),
    ],
)
def test_names_the_row_that_cannot_be_stored(tmp_path, row, expected):
    with pytest.raises(CorpusError) as caught:
        scan(tmp_path, HEADER + b"1\tx\tt\n" + row)
    assert f"line 3: {expected}" in str(caught.value)


def test_a_row_of_several_lines_counts_by_its_first(tmp_path):
    with pytest.raises(CorpusError, match="line 4: expected 3 fields"):
        scan(tmp_path, HEADER + b'1\t"a\nb"\tt\n2\n')


@pytest.mark.parametrize("content", [b"1\tx\tt\n", b"id,text,title\n", b"title\ttext\tid\n"])
def test_a_file_without_the_header_is_named(tmp_path, content):
    with pytest.raises(CorpusError, match="line 1: expected the header id, text, title"):
        scan(tmp_path, content)


def test_a_header_alone_is_an_empty_corpus(tmp_path):
    with pytest.raises(CorpusError, match="at least one passage"):
        scan(tmp_path, HEADER)


def test_a_quote_that_never_ends_does_not_take_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(records_module, "MAX_RECORD_BYTES", 40)
    with pytest.raises(CorpusError, match="line 2: expected a quote that ends the field"):
        scan(tmp_path, HEADER + b'1\t"x\n' + b"y\n" * 40 + b'"\tt\n')


def test_a_byte_order_mark_before_the_header(tmp_path):
    assert list(scan(tmp_path, b"\xef\xbb\xbf" + HEADER + b"1\tx\tt\n").passages()) == [Passage("1", "t", "x")]
