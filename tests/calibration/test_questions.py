"""Question files of every layout, what is wrong with the others, and predictions."""

from __future__ import annotations

import json

import pytest

from calibration.questions import Question, given_passages, read_questions
from runtime.contract import QuestionFileError
from runtime.store import Passage


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


def test_a_file_that_is_not_text_is_named(tmp_path):
    with pytest.raises(QuestionFileError, match="UTF-8"):
        read_questions(write(tmp_path, b"\xff\xfe{"))


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(QuestionFileError, match="a readable file"):
            read_questions(path)


def test_a_question_without_passages_cannot_give_them():
    with pytest.raises(QuestionFileError, match="--passages retrieve"):
        given_passages(Question("q", "x", (), None, ()))
