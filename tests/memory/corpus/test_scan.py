"""What holds for a corpus of every format: the same passages, parts by themselves, and nothing kept of them."""

from __future__ import annotations

import gc
import pickle
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glimmer_export.exporter.memory.corpus import FORMATS, Corpus, CorpusSource
from glimmer_export.exporter.memory.corpus import scan as scan_module
from glimmer_export.runtime.contract import CorpusError
from glimmer_export.runtime.store import Passage
from tests.bundle_factory import write_rows
from tests.corpus_files import WRITERS, ZSTD, write_jsonl, write_parquet, write_tsv

TEXT = st.text(st.characters(codec="utf-8"), max_size=6)
PASSAGES = [Passage(f"p{number}", f"title {number}", f"text {number}") for number in range(20)]


@pytest.fixture(params=WRITERS)
def path(request, tmp_path) -> Path:
    """A corpus of PASSAGES in each format."""
    return WRITERS[request.param](tmp_path / f"corpus.{request.param}", PASSAGES)


def test_every_format_has_a_writer_here():
    assert {*WRITERS, *ZSTD} == set(FORMATS)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(TEXT, st.tuples(TEXT, TEXT), min_size=1, max_size=6))
def test_the_same_passages_come_from_every_format(tmp_path, fields):
    passages = [Passage(identifier, title, f"{text}x") for identifier, (title, text) in fields.items()]
    found = [Corpus.scan(write(tmp_path / f"c.{name}", passages), part_size=4) for name, write in WRITERS.items()]
    assert [list(corpus.passages()) for corpus in found] == [passages] * len(found)
    assert len({corpus.part_sha256 for corpus in found}) == 1


def test_a_digest_is_of_the_content_without_its_compression(tmp_path):
    digests = {name: Corpus.scan(write(tmp_path / f"c.{name}", PASSAGES), part_size=4).sha256
               for name, write in WRITERS.items()}
    assert digests["jsonl"] == digests["jsonl.gz"]
    assert digests["tsv"] == digests["tsv.gz"]
    assert len(set(digests.values())) == 3


def test_a_part_is_read_by_itself(path):
    corpus = pickle.loads(pickle.dumps(Corpus.scan(path, part_size=6)))
    assert [corpus.part(index) for index in (3, 0, 2, 1)] == [PASSAGES[18:], PASSAGES[:6], PASSAGES[12:18],
                                                             PASSAGES[6:12]]
    assert list(corpus.parts()) == [PASSAGES[start : start + 6] for start in range(0, 20, 6)]


def test_a_row_over_and_over_is_named_at_once(tmp_path, monkeypatch):
    """Packed it takes no room: all rows were looked at before their ids were compared."""
    looked_at = []
    content = scan_module._content
    monkeypatch.setattr(scan_module, "_content", lambda passage: looked_at.append(passage) or content(passage))
    for name, write in WRITERS.items():
        looked_at.clear()
        path = write(tmp_path / f"c.{name}", [PASSAGES[0], *[PASSAGES[1]] * 500])
        with pytest.raises(CorpusError, match="expected an id of its own, found 'p1', the id of"):
            Corpus.scan(path, part_size=4)
        assert len(looked_at) == 3, name


def test_a_part_of_a_plain_file_is_read_without_those_before_it(tmp_path):
    path = write_jsonl(tmp_path / "corpus.jsonl", PASSAGES)
    corpus = Corpus.scan(path, part_size=10)
    content = path.read_bytes()
    begin = corpus.part_starts[1].document.position
    path.write_bytes(b"\xff" * begin + content[begin:])
    assert corpus.part(1) == PASSAGES[10:]
    with pytest.raises(CorpusError, match="its content when the build began"):
        corpus.part(0)


@pytest.mark.parametrize("change", ["other", "fewer", "more", "damaged", "gone"])
def test_a_corpus_that_changes_after_the_scan_gives_no_passage_that_was_not_checked(path, change):
    corpus = Corpus.scan(path, part_size=5)
    write = WRITERS[path.name.partition(".")[2]]
    if change == "gone":
        path.unlink()
    elif change == "damaged":
        path.write_bytes(path.read_bytes()[:40])
    else:
        changed = {"other": [*PASSAGES[:7], Passage("p7", "title 7", "text 8"), *PASSAGES[8:]],
                   "fewer": PASSAGES[:-1], "more": [*PASSAGES, Passage("new", "", "x")]}
        write(path, changed[change])
    given_out = []
    with pytest.raises(CorpusError, match="its content when the build began"):
        given_out.extend(corpus.passages())
    assert given_out == PASSAGES[: len(given_out)]


@pytest.mark.parametrize("name", ["corpus", "corpus.xml", "corpus.gz", "corpus.csv"])
def test_a_name_that_tells_no_format_is_named(tmp_path, name):
    path = write_jsonl(tmp_path / name, PASSAGES)
    with pytest.raises(CorpusError, match=r"ends in \.jsonl, \.jsonl\.gz, .*--corpus-format"):
        Corpus.scan(path, part_size=5)
    corpus = Corpus.scan(CorpusSource(path, "jsonl.gz" if path.suffix == ".gz" else "jsonl"), part_size=5)
    assert corpus.num_passages == 20


@pytest.mark.parametrize("name", ["c.ndjson", "c.json", "c.ndjson.gz", "c.JSON.GZ"])
def test_other_endings_of_files_of_lines(tmp_path, name):
    assert list(Corpus.scan(write_jsonl(tmp_path / name.lower(), PASSAGES), part_size=5).passages()) == PASSAGES


def test_a_plain_name_does_not_keep_compressed_content_from_being_read(tmp_path):
    path = write_jsonl(tmp_path / "c.jsonl.gz", PASSAGES).rename(tmp_path / "c.jsonl")
    assert list(Corpus.scan(path, part_size=5).passages()) == PASSAGES


def test_zstd_that_is_not_whole_is_named(tmp_path):
    pytest.importorskip("backports.zstd", reason="zstd comes with the extra `tools`", exc_type=ImportError)
    path = write_jsonl(tmp_path / "c.jsonl.zst", PASSAGES)
    whole = path.read_bytes()
    for content in (whole[:-3], whole[:9] + b"xxx" + whole[12:], b"{}"):
        path.write_bytes(content)
        with pytest.raises(CorpusError, match="expected zstd that is whole"):
            Corpus.scan(path, part_size=5)


def several(tmp_path):
    """Three files of three formats, which hold PASSAGES together, and one that is none of theirs."""
    folder = tmp_path / "parts"
    folder.mkdir()
    (folder / "README").write_text("-", encoding="utf-8")
    return [
        write_jsonl(folder / "part-0.jsonl", PASSAGES[:7]), write_tsv(folder / "part-1.tsv.gz", PASSAGES[7:9]),
        write_parquet(folder / "part-2.parquet", PASSAGES[9:]),
    ]


def test_several_files_a_folder_and_a_pattern_are_one_corpus(tmp_path):
    paths = several(tmp_path)
    corpora = [Corpus.scan(named, part_size=6) for named in (paths, paths[0].parent, paths[0].parent / "part-*")]
    for corpus in map(pickle.loads, map(pickle.dumps, corpora)):
        assert list(corpus.passages()) == PASSAGES
        assert [corpus.part(index) for index in (3, 1, 0, 2)] == [
            PASSAGES[18:], PASSAGES[6:12], PASSAGES[:6], PASSAGES[12:18],
        ]
    assert len({corpus.sha256 for corpus in corpora}) == 1
    assert Corpus.scan(paths[:1], part_size=6).sha256 == Corpus.scan(paths[0], part_size=6).sha256
    assert Corpus.scan(paths[1::-1], part_size=6).sha256 != Corpus.scan(paths[:2], part_size=6).sha256


def test_errors_name_the_file_of_several(tmp_path):
    paths = several(tmp_path)
    write_jsonl(paths[0].parent / "part-3.jsonl", [Passage("new", "", "x"), PASSAGES[8]])
    with pytest.raises(
        CorpusError, match=r"part-3\.jsonl, line 2: .* found 'p8', the id of line 3 of .*part-1\.tsv\.gz"
    ):
        Corpus.scan(paths[0].parent, part_size=6)
    with pytest.raises(CorpusError, match="each file once"):
        Corpus.scan([paths[0], paths[0].parent], part_size=6)


def test_a_file_more_in_the_folder_after_the_scan_is_found(tmp_path):
    paths = several(tmp_path)
    corpus = Corpus.scan(paths[0].parent, part_size=6)
    write_jsonl(paths[0].parent / "part-3.jsonl", [Passage("new", "", "x")])
    with pytest.raises(CorpusError, match="its content when the build began"):
        list(corpus.passages())


def test_capitals_in_a_name_do_not_matter(tmp_path):
    assert Corpus.scan(write_jsonl(tmp_path / "CORPUS.JSONL", PASSAGES), part_size=5).num_passages == 20


def test_a_source_is_checked_when_it_is_made(tmp_path):
    with pytest.raises(ValueError, match="format"):
        CorpusSource(tmp_path / "corpus.csv", "csv")
    with pytest.raises(ValueError, match="positive"):
        CorpusSource(tmp_path / "corpus.jsonl", chunk_words=0)


def test_ids_with_one_hash_are_two_ids(tmp_path):
    assert hash(-1) == hash(-2)
    corpus = write_rows(tmp_path / "c.jsonl", [{"id": number, "text": "x"} for number in (-2, -1, 0, 2**61 - 1)])
    assert Corpus.scan(corpus, part_size=5).num_passages == 4


def test_a_corpus_that_was_appended_to_itself_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(scan_module, "AT_ONCE", 1)
    ids = [-2, -1, *range(5, 9), *range(5, 9)]
    path = write_rows(tmp_path / "c.jsonl", [{"id": number, "text": "x"} for number in ids])
    with pytest.raises(CorpusError, match="line 7: expected an id of its own, found 5, the id of line 3"):
        Corpus.scan(path, part_size=5)


def test_a_passage_that_is_too_long_is_named(tmp_path):
    path = write_jsonl(tmp_path / "c.jsonl", [Passage(1, "", "x"), Passage(2, "", "word " * (1 << 18))])
    with pytest.raises(CorpusError, match=r"line 2: expected a passage of at most 1048576 bytes.*--chunk-words"):
        Corpus.scan(path, part_size=5)
    assert Corpus.scan(CorpusSource(path, chunk_words=200), part_size=5).num_passages == 1312


def test_parts_that_are_too_large_to_hold_are_named(path, monkeypatch):
    monkeypatch.setattr(scan_module, "MAX_PART_BYTES", 200)
    with pytest.raises(CorpusError, match=r"at most 200 bytes in 10 passages.*--passages-per-shard"):
        Corpus.scan(path, part_size=10)
    assert Corpus.scan(path, part_size=2).num_passages == 20


def test_a_scan_keeps_no_ids(tmp_path):
    """Eight bytes a passage, and as much again while they are sorted."""

    def peak(num_passages: int) -> int:
        path = write_rows(tmp_path / "c.jsonl", [{"id": f"passage {n}", "text": "x"} for n in range(num_passages)])
        gc.collect()
        tracemalloc.start()
        try:
            Corpus.scan(path, part_size=100)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = 1_000, 6_000
    assert (peak(many) - peak(few)) / (many - few) < 40
