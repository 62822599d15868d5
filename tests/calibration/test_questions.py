"""Question files of every layout, what is wrong with the others, and predictions."""

from __future__ import annotations

import gzip
import json
import os
import threading
from pathlib import Path

import pytest

from glimmer_export.calibration import questions as questions_module
from glimmer_export.calibration.questions import Question, given_passages, read_questions
from glimmer_export.runtime.contract import QuestionFileError
from glimmer_export.runtime.store import Passage


def write(tmp_path, content: str | bytes):
    path = tmp_path / "questions"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_kilt(tmp_path):
    rows = [
        {"id": "5f", "input": "who?", "meta": {}, "output": [
            {"answer": "Ada", "provenance": [{"wikipedia_id": "1"}]}, {"provenance": []}, {"answer": "Lovelace"},
        ]},
        {"id": 7, "input": "Ada [SEP] born"},
    ]
    path = write(tmp_path, "\n".join(map(json.dumps, rows)))
    assert read_questions(path) == [
        Question("5f", "who?", ("Ada", "Lovelace"), None, (), (frozenset({"1"}), frozenset())),
        Question("7", "Ada [SEP] born", (), None, ()),
    ]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ((None, None), ("1", "2")),
        (("2", None), ("2", "2-2")),
        ((None, "1"), ("1-2", "1")),
        ((None, 1, "1-2"), ("1-3", "1", "1-2")),
        ((" 2 ", None, "", "3"), (" 2 ", "2-2", "3-2", "3")),
        ((33078, None), ("33078", "2")),
    ],
)
def test_a_row_without_an_id_gets_one_that_no_row_has(tmp_path, ids, expected):
    rows = [{"input": "?", "id": one} if one is not None else {"input": "?"} for one in ids]
    path = write(tmp_path, "\n".join(map(json.dumps, rows)))
    assert tuple(question.qid for question in read_questions(path)) == expected
    assert tuple(question.qid for question in read_questions(path, limit=1)) == expected[:1]
    nulls = [{"input": "?", "id": one} for one in ids]
    assert tuple(question.qid for question in read_questions(write(tmp_path, json.dumps(nulls)))) == expected


def test_ids_are_given_over_all_files(tmp_path):
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for file, ids in zip(files, ((None, "3"), (None, "1", None)), strict=True):
        file.write_text("".join(json.dumps({"input": "?", "id": one}) + "\n" for one in ids))
    assert [question.qid for question in read_questions(files)] == ["1-2", "3", "3-2", "1", "5"]


def test_kilts_evidence(tmp_path):
    outputs = [
        {"answer": "a", "provenance": [{"wikipedia_id": "7"}, {"wikipedia_id": 7, "title": "x"}, {"title": "y"}]},
        {"answer": "b"}, {"answer": "c", "provenance": []},
        {"provenance": [{"wikipedia_id": None}, {"wikipedia_id": " 8 "}]},
    ]
    rows = [{"input": "?", "output": outputs, "task": "nq"}, {"input": "?", "output": []}, {"question": "?", "task": 5}]
    first, blind, other = read_questions(write(tmp_path, "\n".join(map(json.dumps, rows))))
    assert first.evidence == (frozenset({"7", None}), frozenset(), frozenset({"None", "8"}))
    assert (first.answers, first.task) == (("a", "b", "c"), "nq")
    assert (blind.evidence, blind.task, other.evidence, other.task) == (None, None, None, "5")


@pytest.mark.parametrize(
    ("provenances", "score"),
    [
        ([[{"bleu_score": 0.25}], [{"bleu_score": 0.75}, {"title": "x"}]], 1.0),
        ([[{"bleu_score": 0.25}, {"bleu_score": 0.5}], None], 0.5),
        ([[{"bleu_score": 0}]], 0.0), ([[{"bleu_score": None}]], 1.0), ([[], None], None), ([], None),
    ],
)
def test_kilts_score_of_its_evidence(tmp_path, provenances, score):
    row = {"input": "?", "output": [{"answer": "a", "provenance": one} for one in provenances]}
    (question,) = read_questions(write(tmp_path, json.dumps(row)))
    assert question.evidence_score == score


@pytest.mark.parametrize("score", ["0.5", True, [], float("nan")])
def test_a_score_of_evidence_that_is_no_number(tmp_path, score):
    row = {"input": "?", "output": [{"answer": "a", "provenance": [{"bleu_score": score}]}]}
    with pytest.raises(QuestionFileError, match=r'expected .*"bleu_score" that is a number|expected JSON'):
        read_questions(write(tmp_path, json.dumps(row)))


def test_fid(tmp_path):
    rows = [
        {"question": "who?", "answers": ["Ada"], "target": "Ada", "ctxs": [
            {"id": "9", "title": "T", "text": "x", "score": 1.5}, {"text": "y"},
        ]},
        {"id": "q2", "question": "what?", "answers": [], "ctxs": []},
    ]
    path = write(tmp_path, "\ufeff\n " + json.dumps(rows, indent=1))
    assert read_questions(path) == [
        Question("1", "who?", ("Ada",), (Passage("9", "T", "x"), Passage(None, "", "y")), ()),
        Question("q2", "what?", (), (), ()),
    ]


def test_rows(tmp_path):
    rows = [
        {"qid": "q", "question": "who?", "answers": ["Ada"], "ctx_ids": [3, "3"], "gold_ids": [3], "scores": [1]},
        {"question": "é\u2028?", "answers": ["x"]},
    ]
    path = write(tmp_path, "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n")
    assert read_questions(path) == [
        Question("q", "who?", ("Ada",), (3, "3"), (3,)), Question("2", "é\u2028?", ("x",), None, ()),
    ]
    assert len(read_questions(path, limit=1)) == 1


@pytest.mark.parametrize(
    ("row", "answers"),
    [
        ({"answer": ["Ada", "Lovelace"]}, ("Ada", "Lovelace")),
        ({"answer": "Ada"}, ("Ada",)),
        ({"target": "Ada"}, ("Ada",)),
        ({"answers": ["Ada", "Lovelace"], "target": "Ada"}, ("Ada", "Lovelace")),
        ({"answers": [], "answer": ["Ada"]}, ("Ada",)),
        ({"answers": None, "target": "Ada"}, ("Ada",)),
        ({"answers": [" ", ""], "answer": ["Ada"]}, ("Ada",)),
        ({"answers": [" ", ""]}, (" ", "")),
        ({"output": [{"answer": "Ada"}, {"answer": None, "provenance": []}]}, ("Ada",)),
        ({"answers": None, "answer": [], "output": []}, ()),
        ({"answers": [], "has_answer": [False], "gold_forced": True}, ()),
    ],
)
def test_answers_under_each_name(tmp_path, row, answers):
    for asked in ("question", "input"):
        (question,) = read_questions(write(tmp_path, json.dumps({asked: "who?", "id": None, **row})))
        assert (question.qid, question.question, question.answers) == ("1", "who?", answers)


@pytest.mark.parametrize(
    "row",
    [
        {"gold": "A"}, {"answers": [], "short_answers": ["A"]}, {"answers": [""], "gold": "A"}, {"label": "A"},
        {"answer_text": {"x": ["A"]}},
    ],
)
def test_answers_under_another_name_are_named(tmp_path, row):
    """Passed over, exact match would be of nothing."""
    with pytest.raises(QuestionFileError, match=f'found "{list(row)[-1]}", which is not read; rename it'):
        read_questions(write(tmp_path, json.dumps({"question": "who?", **row})))


def test_passages_of_atlas_and_under_other_names(tmp_path):
    items = [
        {"id": "1", "title": "T", "section": "S", "text": "x"}, {"title": "T: S", "section": "S", "text": "y"},
        {"_id": "2", "title": None, "contents": "z"}, {"id": 3, "wikipedia_title": "W", "text": ["p\n", "q\n"]},
        {"id": 4, "wikipedia_title": "W", "text": "part"}, {"id": 5, "wikipedia_id": 7, "text": "part"},
    ]
    row = {"question": "who?", "answers": ["Ada"], "passages": items}
    (question,) = read_questions(write(tmp_path, json.dumps(row)))
    assert question.passages == (
        Passage("1", "T: S", "x"), Passage(None, "T: S", "y"), Passage("2", "", "z"), Passage(3, "W", "p\nq", "3"),
        Passage(4, "W", "part"), Passage(5, "", "part", "7"),
    )
    items[0]["wikipedia_id"] = 1.5
    with pytest.raises(QuestionFileError, match='"passages" that have a "wikipedia_id" that is a string or an integer'):
        read_questions(write(tmp_path, json.dumps(row)))


def test_passages_come_by_their_scores_and_the_earlier_of_equals_first(tmp_path):
    """As FiD's own reader has them; retrievers write scores as strings too."""
    scores = [1, "2.5", 2.5, None, -1e3, "1e3"]
    items = [{"text": str(place), "score": score} for place, score in enumerate(scores)]
    (question,) = read_questions(write(tmp_path, json.dumps({"question": "who?", "ctxs": items})))
    assert [passage.text for passage in question.passages] == ["5", "1", "2", "0", "4", "3"]
    for score in ("best", [1], True, float("nan"), "nan"):
        items[0]["score"] = score
        with pytest.raises(QuestionFileError, match='expected a "score" of each of "ctxs" that is a number'):
            read_questions(write(tmp_path, json.dumps({"question": "who?", "ctxs": items})))


def test_a_passage_without_text_is_skipped_and_counted(tmp_path):
    items = [{"title": "B", "text": ""}, {"text": "x"}, {"title": "C", "text": None}, {"title": "D", "text": " \n"}]
    (question,) = read_questions(write(tmp_path, json.dumps({"question": "who?", "ctxs": items})))
    assert (question.passages, question.skipped) == ((Passage(None, "", "x"),), 3)
    (question,) = read_questions(write(tmp_path, json.dumps({"question": "who?", "ctxs": items[:1]})))
    assert (question.passages, question.skipped) == ((), 1)


def test_a_field_that_might_have_the_passages_is_named(tmp_path):
    row = {"question": "who?", "answers": ["Ada"], "contexts": ["x"]}
    (question,) = read_questions(write(tmp_path, json.dumps(row)))
    with pytest.raises(QuestionFileError, match=r'expected "ctxs", "passages" or "ctx_ids".*"contexts" of the row'):
        given_passages(question)


ROWS = b'\xef\xbb\xbf{"question": "a"}\n{"question": "b"}\n'


@pytest.mark.parametrize("name", ["q.jsonl", "q.ndjson", "q.json", "q", "q.jsonl.gz", "q.gz", "packed"])
def test_a_file_may_be_compressed_and_begin_with_a_mark(tmp_path, name):
    packed = name.endswith(".gz") or name == "packed"
    (tmp_path / name).write_bytes(gzip.compress(ROWS) if packed else ROWS)
    assert [question.question for question in read_questions(tmp_path / name)] == ["a", "b"]


def test_zstd(tmp_path):
    zstd = pytest.importorskip("backports.zstd", reason="zstd comes with the extra `tools`", exc_type=ImportError)
    path = tmp_path / "q.jsonl.zst"
    path.write_bytes(zstd.compress(ROWS) + zstd.compress(b'{"question": "c"}'))
    assert [question.question for question in read_questions(path)] == ["a", "b", "c"]
    path.write_bytes(zstd.compress(ROWS)[:-3])
    with pytest.raises(QuestionFileError, match="expected zstd that is whole"):
        read_questions(path)
    path.write_bytes(zstd.compress(ROWS)[:-3] + b"xyz")
    with pytest.raises(QuestionFileError, match="expected zstd that is whole"):
        read_questions(path)


@pytest.mark.parametrize("content", [b" " * 5000, b'[{"question": "a"}' + b" " * 5000 + b"]", ROWS * 200])
def test_a_small_file_that_unpacks_to_a_huge_one_is_named(tmp_path, monkeypatch, content):
    monkeypatch.setattr(questions_module, "MAX_UNPACKED_BYTES", 4096)
    (tmp_path / "q.gz").write_bytes(gzip.compress(content))
    with pytest.raises(QuestionFileError, match="at most 4096 bytes, uncompressed"):
        read_questions(tmp_path / "q.gz")


def test_gzip_that_is_cut_short_is_named(tmp_path):
    (tmp_path / "q.gz").write_bytes(gzip.compress(ROWS)[:-9])
    with pytest.raises(QuestionFileError, match="expected gzip that is whole"):
        read_questions(tmp_path / "q.gz")


def test_several_files_a_folder_and_a_pattern(tmp_path):
    for name, row in {"b.jsonl": '{"question": "b"}', "a.json": '[{"question": "a"}]', "notes.txt": "-"}.items():
        (tmp_path / name).write_text(row, encoding="utf-8")
    for paths in ([tmp_path / "a.json", tmp_path / "b.jsonl"], tmp_path, tmp_path / "*.js*"):
        assert [(question.qid, question.question) for question in read_questions(paths)] == [("1", "a"), ("2", "b")]
    with pytest.raises(QuestionFileError, match="each file once"):
        read_questions([tmp_path, tmp_path / "a.json"])
    (tmp_path / "none").mkdir()
    for path in (tmp_path / "none", tmp_path / "*.csv"):
        with pytest.raises(QuestionFileError, match=r"expected files that end in \.jsonl"):
            read_questions(path)


def test_parquet_is_named(tmp_path):
    with pytest.raises(QuestionFileError, match=r"found a Parquet file; write its rows as JSON lines"):
        read_questions(write(tmp_path, b"PAR1\x15\x04\x15\x10"))


def test_a_limit_takes_questions_from_the_whole_file(tmp_path):
    """Files lie sorted by task."""
    path = write(tmp_path, "".join(f'{{"qid": "{number}", "question": "?"}}\n' for number in range(11)))
    assert [row.qid for row in read_questions(path, limit=3)] == ["0", "5", "10"]
    assert len(read_questions(path, limit=50)) == 11


def test_natural_questions(shared_data):
    questions = read_questions(shared_data / "qa" / "nq.dev.k20.jsonl")
    assert len(questions) == 428
    assert all(question.answers and question.gold_ids and len(given_passages(question)) == 20 for question in questions)


@pytest.mark.parametrize("content", ["", "\n\n", "[]"])
def test_a_file_without_questions_is_named(tmp_path, content):
    with pytest.raises(QuestionFileError, match="at least one question"):
        read_questions(write(tmp_path, content))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"question": ', "JSON"),
        ("5", "a JSON object, found int"),
        ('{"query": "x"}', 'a "question" that is a string, found no "question"'),
        ('{"question": 5}', "found 5"),
        ('{"input": ["x"]}', 'a "input" that is a string'),
        ('{"question": "x", "answers": "x"}', "a list"),
        ('{"question": "x", "answers": [1]}', "strings"),
        ('{"input": "x", "output": [{"answer": 1}]}', '"output"'),
        ('{"input": "x", "output": ["y"]}', '"output"'),
        ('{"input": "x", "output": [{"answer": false}]}', '"output"'),
        ('{"input": "x", "output": [{"provenance": {}}]}', '"provenance" is a list of objects'),
        ('{"input": "x", "output": [{"provenance": ["7"]}]}', '"provenance" is a list of objects'),
        ('{"input": "x", "output": [{"provenance": [{"wikipedia_id": 1.5}]}]}', '"wikipedia_id" that is a string'),
        ('{"input": "x", "task": ["y"]}', '"task"'),
        ('{"input": "x", "id": 1.5}', '"id"'),
        ('{"question": "x", "qid": true}', '"qid"'),
        ('{"question": "x", "ctx_ids": [1.0]}', '"ctx_ids"'),
        ('{"question": "x", "ctx_ids": [true]}', '"ctx_ids"'),
        ('{"question": "x", "gold_ids": 1}', '"gold_ids"'),
        ('{"question": "x", "ctxs": ["y"]}', '"ctxs"'),
        ('{"question": "x", "ctxs": [{"title": "y"}]}', '"ctxs"'),
        ('{"question": "x", "ctxs": [{"text": "y", "id": 1.5}]}', '"ctxs"'),
    ],
)
@pytest.mark.parametrize("array", [False, True])
def test_a_row_in_no_known_layout_is_named(tmp_path, line, expected, array):
    good = '{"question": "x", "answers": []}'
    path = write(tmp_path, f"[{good},\n{line}]" if array else f"{good}\n\n{line}\n")
    with pytest.raises(QuestionFileError) as caught:
        read_questions(path)
    assert expected in str(caught.value)
    assert "KILT JSONL" in str(caught.value)
    if expected != "JSON" or not array:
        assert ("row 2" if array else "line 3") in str(caught.value)


@pytest.mark.parametrize("asked", ["", '"input": null, ', '"input": "", '])
def test_kilts_rows_of_triviaqa_are_to_be_joined_with_their_questions(tmp_path, asked):
    row = '{"id": "tc_3", ' + asked + '"output": [{"answer": "Sinclair Lewis"}]}'
    with pytest.raises(QuestionFileError, match=r"join them by id, as docs/guide/training\.md does"):
        read_questions(write(tmp_path, f"{row}\n{row}\n"))


def test_a_row_of_kilt_may_lack_its_question_if_others_have_theirs(tmp_path):
    rows = ['{"input": "", "output": [{"answer": "x"}]}', '{"input": "y?", "output": [{"answer": "x"}]}']
    assert [question.question for question in read_questions(write(tmp_path, "\n".join(rows)))] == ["", "y?"]


def test_a_file_that_is_not_text_is_named(tmp_path):
    with pytest.raises(QuestionFileError, match="UTF-8"):
        read_questions(write(tmp_path, b"\xff\xfe{"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(QuestionFileError, match="a readable file"):
        read_questions(tmp_path / "absent")


def test_a_question_without_passages_cannot_give_them():
    with pytest.raises(QuestionFileError, match="--passages retrieve"):
        given_passages(Question("q", "x", (), None, ()))


class TestPipes:
    """What a shell's `<(...)` gives, or standard input: content that can be read once."""

    ROW = b'{"question": "who?", "answers": ["she"]}\n'

    def piped(self, content: bytes) -> tuple[int, threading.Thread]:
        read, write = os.pipe()

        def fill() -> None:
            with os.fdopen(write, "wb") as stream:
                stream.write(content)

        thread = threading.Thread(target=fill)
        thread.start()
        return read, thread

    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_a_process_substitution(self, pack):
        """Longer than a pipe holds."""
        read, thread = self.piped(pack(self.ROW * 10_000))
        try:
            assert len(read_questions(f"/dev/fd/{read}")) == 10_000
        finally:
            thread.join()
            os.close(read)

    def test_standard_input(self, monkeypatch):
        read, thread = self.piped(self.ROW)
        monkeypatch.setattr("glimmer_export.calibration.questions.STDIN", Path(f"/dev/fd/{read}"))
        assert [question.question for question in read_questions("-")] == ["who?"]
        thread.join()
        os.close(read)

    def test_a_fifo_to_which_nothing_writes(self, tmp_path):
        os.mkfifo(tmp_path / "questions.jsonl")
        with pytest.raises(QuestionFileError, match="at least one question, found none"):
            read_questions(tmp_path / "questions.jsonl")

    def test_a_device(self):
        with pytest.raises(QuestionFileError, match="expected a regular file, found a device"):
            read_questions("/dev/zero")

    @pytest.mark.parametrize(
        ("name", "found"), [("n" * 300, "name too long"), ("a\0b", "null byte"), ("\ud800", "surrogates not allowed")]
    )
    def test_a_name_that_no_file_can_have(self, name, found):
        with pytest.raises(QuestionFileError, match=f"(?i){found}"):
            read_questions(name)
