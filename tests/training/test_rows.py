"""Rows of files and of worlds: their passages, tasks, answers and gold, and what is left out."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass

import numpy as np
import pytest

from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.demo.world import CHECKPOINT, generate_split, withhold_gold, write_world
from glimmer_export.exporter.memory import CorpusSource
from glimmer_export.exporter.training.frozen_memory import open_store
from glimmer_export.exporter.training.passages import PassageTable, open_corpus
from glimmer_export.exporter.training.rows import RowOptions, TaskFile, rows_from_files, rows_from_world, task_file
from glimmer_export.exporter.training.texts import RowText
from glimmer_export.runtime.contract import OptionError, QuestionFileError, TrainingError
from tests.exported import CORPUS, QUESTIONS

GIVEN = RowOptions(3, given=True)
ROW = {"question": "w1 w2", "answers": ["w3"], "ctxs": [{"title": "w4", "text": "w5"}]}


@dataclass(frozen=True)
class Read:
    """Rows in words, for comparison."""

    question: str
    answers: tuple[str, ...]
    task: str
    candidates: list[object]
    gold: list[object]

    @staticmethod
    def all(rows, name=lambda rows, place: place):
        return [
            Read(
                rows.questions[row], rows.answers[row], rows.tasks[rows.task[row]],
                [name(rows, place) for place in rows.candidates[row].tolist()],
                [name(rows, place) for place in rows.gold[row].tolist()],
            )
            for row in range(len(rows))
        ]


@pytest.fixture
def given(text, write):
    """Rows of one file with its passages given."""
    return lambda *rows, **options: rows_from_files(
        [TaskFile(write("rows.jsonl", *rows))], PassageTable(text), RowOptions(3, given=True, **options)
    )


class TestFiles:
    def test_passages_are_given_as_texts(self, given, text):
        passages = [{"title": "w4", "text": f"w{number} w3"} for number in range(5)]
        rows = given({**ROW, "ctxs": passages}, {**ROW, "question": "w9", "ctxs": passages[2:3]})
        assert Read.all(rows) == [
            Read("w1 w2", ("w3",), "rows", [0, 1, 2], [0, 1, 2]), Read("w9", ("w3",), "rows", [2], [2]),
        ]
        assert rows.question_ids[0].tolist() == text.question("w1 w2")
        assert rows.answer_ids(0, 0).tolist() == text.answer("w3")
        assert rows.passages.ids(1).tolist() == text.passage("w4", "w1 w3")[0]
        assert rows.counts.to_json() == {
            "read": 2, "kept": 2, "left_out": {}, "answers_left_out": 0, "skipped_passages": 0,
        }

    def test_passages_are_given_as_ids(self, write, text, corpus):
        ids = [row["id"] for row in CORPUS]
        file = TaskFile(write("a.jsonl", {**ROW, "ctxs": None, "ctx_ids": ids[7:12], "gold_ids": [ids[8], ids[0]]}))
        with open_corpus(CorpusSource.of(corpus), searched=False) as source:
            table = PassageTable(text, source)
            rows = rows_from_files([file], table, GIVEN)
        (found,) = Read.all(rows, lambda rows, place: rows.passages.number(place))
        assert (found.candidates, found.gold) == ([7, 8, 9], [8, 0])

    @pytest.mark.parametrize("kind", ["corpus", "store"])
    def test_passages_are_found_as_a_session_finds_them(self, glimmer, checkpoint, text, corpus, write, kind):
        file = TaskFile(write("a.jsonl", *({"question": one, "answers": ["w1"]} for one in QUESTIONS)))
        if kind == "store":
            source, _ = open_store(glimmer.store, checkpoint, own=False)
        else:
            source = open_corpus(CorpusSource.of(corpus))
        with source as found:
            rows = rows_from_files([file], PassageTable(text, found), RowOptions(4))
        assert rows.questions == QUESTIONS
        answers = glimmer.session.answer_many(QUESTIONS, top_k=4)
        numbers = {row["id"]: number for number, row in enumerate(CORPUS)}
        for row, answer in enumerate(answers):
            places = [rows.passages.number(place) for place in rows.candidates[row].tolist()]
            assert places == [numbers[item.passage.id] for item in answer.passages]

    def test_files_are_plain_packed_or_in_a_folder(self, text, tmp_path):
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / "b.json").write_text(json.dumps([ROW, {**ROW, "task": "own"}]))
        (folder / "a.x.jsonl.gz").write_bytes(gzip.compress(json.dumps(ROW).encode()))
        rows = rows_from_files([TaskFile(folder)], PassageTable(text), GIVEN)
        assert [one.task for one in Read.all(rows)] == ["a.x", "b", "own"]
        assert rows.tasks == ["a.x", "b", "own"]
        other = (folder / "b.json").rename(tmp_path / "c.json")
        named = rows_from_files([TaskFile(folder, "all"), TaskFile(other)], PassageTable(text), GIVEN)
        assert [one.task for one in Read.all(named)] == ["all", "c", "own"]
        assert named.task.tolist() == [0, 1, 2]

    def test_what_cannot_be_read_is_left_out_and_counted(self, given):
        rows = given(
            ROW, {**ROW, "question": " "}, {**ROW, "question": "w1 " * 40}, {**ROW, "answers": []},
            {**ROW, "answers": [" "]}, {**ROW, "ctxs": []}, {**ROW, "ctxs": [{"text": " "}, {"text": "w1"}]},
            {**ROW, "ctxs": [{"text": "w" * (1 << 21)}]}, {**ROW, "ctxs": None, "ctx_ids": [1]},
            {**ROW, "answers": ["w1", "w1 ", "w" * (1 << 21), "w2"]},
        )
        assert rows.counts.to_json() == {
            "read": 10, "kept": 3, "answers_left_out": 1, "skipped_passages": 1,
            "left_out": {"QuestionError": 3, "no answer": 2, "no passage": 1, "PassageError": 1},
        }
        assert rows.answers == [("w3",), ("w3",), ("w1", "w2")]
        assert rows.num_answers(2) == 2

    def test_rows_without_passages_in_the_layout_are_an_error(self, given):
        with pytest.raises(QuestionFileError, match="--passages retrieve"):
            given({"question": "w1", "answers": ["w2"]})

    def test_a_file_of_which_no_row_is_left_is_an_error(self, text, write):
        good, bad = write("good.jsonl", ROW), write("bad.jsonl", {**ROW, "answers": []}, {**ROW, "question": ""})
        with pytest.raises(TrainingError, match=r"bad.jsonl: .* found 0 of 2 questions, 1 left out: no answer, 1 left"):
            rows_from_files([TaskFile(good), TaskFile(bad)], PassageTable(text), GIVEN)

    def test_a_file_that_is_named_twice_is_an_error(self, text, write):
        file = write("a.jsonl", ROW)
        with pytest.raises(QuestionFileError, match="each file once"):
            rows_from_files([TaskFile(file, "a"), TaskFile(file.parent, "b")], PassageTable(text), GIVEN)

    def test_nothing_to_find_passages_in_is_an_error(self, text, write):
        with pytest.raises(OptionError, match="a corpus or a store"):
            rows_from_files([TaskFile(write("a.jsonl", ROW))], PassageTable(text), RowOptions(2))


KILT = {"id": 1, "input": "w1", "ctxs": [{"text": "w5", "wikipedia_id": "7"}, {"text": "w3 w4"}]}


class TestRelevance:
    def row(self, *scores, answer="w9", page="7"):
        provenance = [{"wikipedia_id": page, **({} if score is None else {"bleu_score": score})} for score in scores]
        return {**KILT, "output": [{"answer": answer, "provenance": provenance}]}

    @pytest.mark.parametrize(("threshold", "kept"), [(0.5, 3), (0.95, 2), (1.0, 1)])
    def test_provenance_leaves_out_what_kilt_found_badly(self, given, threshold, kept):
        rows = [self.row(0.2, 0.9), self.row(), self.row(0.3), self.row(None), self.row(0.95)]
        found = given(*rows, relevance="provenance", threshold=threshold)
        assert found.counts.left_out == {"no relevant passage": 5 - kept}
        assert len(found) == kept

    def test_gold_or_answer_looks_at_what_was_retrieved(self, given):
        rows = given(
            self.row(1.0), self.row(1.0, page="8"), self.row(1.0, page="8", answer="W4!"), self.row(0.0),
            relevance="gold_or_answer",
        )
        assert rows.counts.left_out == {"no relevant passage": 1}
        assert [one.gold for one in Read.all(rows)] == [[0], [1], [0]]

    def test_nothing_is_left_out_by_default(self, given):
        rows = given(self.row(0.0, page="8"), self.row(1.0, answer="w3"))
        assert [one.gold for one in Read.all(rows)] == [[], [0]]


class TestTaskFile:
    @pytest.fixture(autouse=True)
    def _files(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("a.jsonl", "a=b.jsonl", "c.jsonl=NQ"):
            (tmp_path / name).touch()
        (tmp_path / "folder").mkdir()

    @pytest.mark.parametrize(
        ("argument", "path", "task"),
        [
            ("a.jsonl", "a.jsonl", None), ("a.jsonl=NQ", "a.jsonl", "NQ"), ("a=b.jsonl", "a=b.jsonl", None),
            ("a=b.jsonl=x y", "a=b.jsonl", "x y"), ("c.jsonl=NQ", "c.jsonl=NQ", None), ("folder=f", "folder", "f"),
            ("c.jsonl=NQ=T", "c.jsonl=NQ", "T"), ("-", "-", None), ("-=T", "-", "T"),
            ("a*.jsonl=T", "a*.jsonl", "T"), ("a*.jsonl", "a*.jsonl", None), ("c.jsonl*", "c.jsonl*", None),
            ("none.jsonl", "none.jsonl", None),
        ],
    )
    def test_the_task_stands_behind_the_last_equals_sign(self, argument, path, task):
        found = task_file(argument)
        assert (str(found.path), found.task) == (path, task)

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ("b*.jsonl=T", "neither"), ("none.jsonl=T", "neither none.jsonl=T nor none.jsonl"),
            ("a.jsonl=", "no task"), ("a.jsonl= ", "no task"), ("=T", "neither"), ("=", "neither"),
        ],
    )
    def test_what_names_nothing_is_an_error(self, argument, message):
        with pytest.raises(OptionError, match=message):
            task_file(argument)


@pytest.fixture(scope="module")
def demo_text():
    return RowText.of(read_checkpoint(CHECKPOINT))


class TestWorlds:
    @pytest.mark.parametrize("withheld", [False, True])
    def test_a_world_is_what_its_files_are(self, demo_text, tmp_path, withheld):
        world = generate_split("train", 60, seed=3)
        world = withhold_gold(world, 0) if withheld else world
        write_world(tmp_path, world)
        rows = rows_from_world(world, demo_text)
        with open_corpus(CorpusSource.of(tmp_path / "corpus.jsonl"), searched=False) as source:
            read = rows_from_files(
                [TaskFile(tmp_path / "questions.jsonl")], PassageTable(demo_text, source), RowOptions(10, given=True)
            )
        numbers = Read.all(read, lambda rows, place: rows.passages.number(place))
        made = Read.all(rows)
        if withheld:  # a world says that no passage is gold, where a file leaves it open
            assert {len(one.gold) for one in made} == {0}
            assert [one.candidates for one in numbers] == [one.candidates for one in made]
        else:
            assert numbers == made
        for row in range(len(rows)):
            assert rows.question_ids[row].tolist() == read.question_ids[row].tolist()
            assert rows.answer_ids(row, 0).tolist() == read.answer_ids(row, 0).tolist()
            for ours, theirs in zip(rows.candidates[row].tolist(), read.candidates[row].tolist(), strict=True):
                assert rows.passages.ids(ours).tolist() == read.passages.ids(theirs).tolist()

    def test_a_world_can_be_one_task(self, demo_text):
        world = generate_split("train", 30, seed=3)
        assert set(rows_from_world(world, demo_text).tasks) == {"question", "slot", "claim"}
        rows = rows_from_world(world, demo_text, task="demo")
        assert rows.tasks == ["demo"]
        assert np.array_equal(rows.task, np.zeros(30))
