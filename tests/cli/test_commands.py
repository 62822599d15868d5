"""What the commands print and write when all is well."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import pytest
import typer

from glimmer_export.exporter.cli.app import app
from glimmer_export.exporter.cli.options import CORPUS_FORMATS
from glimmer_export.exporter.demo.data import WORLDS
from glimmer_export.exporter.memory.corpus import FORMATS
from glimmer_export.exporter.tolerances import TOLERANCES
from glimmer_export.runtime.contract import LOG_PROBABILITY, OptionError, OutputError
from glimmer_export.runtime.store import Passage
from tests.bundle_factory import tree, write_rows
from tests.corpus_files import write_tsv
from tests.exported import CORPUS, QUESTIONS, copy_bundle
from tests.t5_factory import make_t5, save_t5

QUESTION = "w20 w31 w42 w53"
PARITY_KEYS = {
    "questions", "answers_equal", "top_m_overlap", "em_reference", "em_candidate", "f1_reference", "f1_candidate",
    "graphs", "log_probability",
}


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command with the words that name it."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_the_commands_are_those_of_the_readme():
    assert {" ".join(path) for path in COMMANDS} >= {
        "init", "export", "inspect", "memory build", "ask", "answer", "calibrate", "parity", "bench", "train",
        "demo-data",
    }


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_of_every_command(cli, path):
    for flag in ("--help", "-h"):
        done = cli(*path, flag)
        assert (done.code, done.err) == (0, "")
        assert "Usage: " in done.out
        for parameter in COMMANDS[path].params:
            for option in parameter.opts:
                assert not option.startswith("--") or option in done.out


def test_every_command_that_reports_takes_json():
    for path, command in COMMANDS.items():
        if path and not hasattr(command, "commands"):
            assert "--json" in {option for parameter in command.params for option in parameter.opts}, path


def test_shells_are_completed(cli):
    assert "--install-completion" in cli("--help").out
    assert "--show-completion" in cli("--help").out


def test_a_wrong_option_is_a_message_of_use(cli):
    for arguments in (["ask"], ["inspect"], ["export", "--strange"], ["strange"], ["ask", "b", "q", "-k", "0"]):
        done = cli(*arguments)
        assert done.code == 2
        assert "Usage: " in done.err
        assert "Traceback" not in done.err


def test_ask_prints_the_answer_the_passages_and_the_time(cli, glimmer):
    expected = glimmer.session.answer(QUESTION)
    done = cli("ask", glimmer.bundle, "--store", glimmer.store, QUESTION)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == expected.answer
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert len(rows) == len(expected.passages)
    for rank, (row, item) in enumerate(zip(rows, expected.passages, strict=True), start=1):
        read = "yes" if item.read else ""
        scores = [f"{item.retrieval_score:.3f}", f"{item.score:.3f}"]
        assert row == [str(rank), str(item.passage.id), *scores, read, item.passage.title]
    assert f"log-probability {expected.log_probability:.3f}, decoder runs {expected.decoder_runs}" in lines
    assert re.search(r"live_stage_a [\d.]+ ms.*decode [\d.]+ ms.*total [\d.]+ ms", lines[-1])


def test_ask_as_json(cli, glimmer):
    expected = glimmer.session.answer(QUESTION, 3, 1)
    found = cli("ask", glimmer.bundle, "--store", glimmer.store, "-k", "3", "-m", "1", QUESTION, "--json").json
    assert set(found) == {
        "question", "answer", "token_ids", "log_probability", "decoder_runs", "error", "passages", "milliseconds",
        "backend",
    }
    assert 1 <= found["decoder_runs"] <= len(expected.token_ids) + 1
    assert found["log_probability"] == pytest.approx(expected.log_probability)
    assert expected.log_probability < 0
    assert found["backend"]["name"] == "onnxruntime-cpu"
    assert "CUDAExecutionProvider" in found["backend"]["refused"]["onnxruntime-cuda"]
    assert (found["question"], found["answer"], found["error"]) == (QUESTION, expected.answer, None)
    assert found["token_ids"] == list(expected.token_ids)
    assert [item["id"] for item in found["passages"]] == [item.passage.id for item in expected.passages]
    assert [item["rank"] for item in found["passages"]] == [1, 2, 3]
    assert [item["read"] for item in found["passages"]].count(True) == 1


def test_ask_with_texts_and_where_nothing_is_found(cli, glimmer):
    texts = [option for row in CORPUS[:3] for option in ("--passage", row["text"])]
    found = cli("ask", glimmer.bundle, *texts, QUESTION, "--json").json
    assert [item["id"] for item in found["passages"]] == [None] * 3
    assert found["answer"] is not None
    done = cli("ask", glimmer.bundle, "--store", glimmer.store, "nowhere")
    assert (done.code, done.out.splitlines()[0]) == (0, "no passage found")
    assert cli("ask", glimmer.bundle, "--store", glimmer.store, "nowhere", "--json").json["answer"] is None
    assert "log-probability" not in done.out


def test_markup_in_a_title_is_text(cli, glimmer, tmp_path):
    corpus = write_rows(tmp_path / "corpus.jsonl", [{"id": "[red]", "title": "[bold]w1[/nothing]", "text": "w2 w3"}])
    assert cli("memory", "build", glimmer.bundle, "--corpus", corpus, "-o", tmp_path / "store").code == 0
    done = cli("ask", glimmer.bundle, "--store", tmp_path / "store", "w2")
    assert done.code == 0
    assert "[bold]w1[/nothing]" in done.out
    assert "[red]" in done.out


@pytest.mark.parametrize(
    "encoding", ["latin-1", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ascii", "utf-8"))]
)
def test_what_the_terminal_cannot_show_is_escaped(glimmer, tmp_path, monkeypatch, encoding):
    """A process of its own each: the encoding is chosen as Python starts."""
    corpus = write_rows(tmp_path / "corpus.jsonl", [{"id": 1, "title": "Caf\u00e9 \u6771", "text": "w2 w3"}])
    monkeypatch.setenv("PYTHONIOENCODING", encoding)
    monkeypatch.setenv("COLUMNS", "250")

    def run(*arguments: object) -> str:
        script = "from glimmer_export.exporter.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout.decode(encoding)

    run("memory", "build", glimmer.bundle, "--corpus", corpus, "-o", tmp_path / "store")
    asked = ("ask", glimmer.bundle, "--store", tmp_path / "store", "w2")
    shown = {"ascii": "Caf\\xe9 \\u6771", "latin-1": "Caf\u00e9 \\u6771", "utf-8": "Caf\u00e9 \u6771"}
    assert shown[encoding] in run(*asked)
    assert json.loads(run(*asked, "--json"))["passages"][0]["title"] == "Caf\u00e9 \u6771"


def test_inspect(cli, glimmer):
    done = cli("inspect", glimmer.bundle)
    assert (done.code, done.err) == (0, "")
    for word in ("glimmer", "fp32", "fp16", "verified", "log-probability", LOG_PROBABILITY, *glimmer.io):
        assert word in done.out
    manifest = json.loads((glimmer.bundle / "manifest.json").read_text(encoding="utf-8"))
    assert cli("inspect", glimmer.bundle, "--json").json == {**manifest, "engines": {}}


@pytest.mark.parametrize("variant", ["lumen", "memory_fid", "fid"])
def test_inspect_and_ask_of_the_other_architectures(cli, exported, variant):
    source = exported(variant)
    assert variant in cli("inspect", source.bundle).out
    found = cli("ask", source.bundle, "--store", source.store, QUESTION, "--json").json
    assert {(item["score"], item["read"]) for item in found["passages"]} == {(None, True)}
    assert found["token_ids"] == list(source.session.answer(QUESTION).token_ids)
    assert cli("ask", source.bundle, "--store", source.store, QUESTION).code == 0


def test_memory_build(cli, glimmer, tmp_path):
    corpus = write_rows(tmp_path / "corpus.jsonl", CORPUS[:9])
    arguments = ("memory", "build", glimmer.bundle, "--corpus", corpus, "-o", tmp_path / "store")
    report = cli(*arguments, "--passages-per-shard", "4", "--json").json
    assert (report["passages"], report["shards"], report["resumed_shards"]) == (9, 3, 0)
    assert report["already_complete"] is False
    manifest = json.loads((tmp_path / "store" / "manifest.json").read_text())
    files = [part["file"] for part in (*manifest["shards"], *manifest["texts"])]
    assert report["bytes"] == sum((tmp_path / "store" / file["path"]).stat().st_size for file in files)
    again = cli(*arguments, "--passages-per-shard", "4", "--json").json
    assert again["already_complete"] is True
    assert "9 passages" in cli(*arguments, "--passages-per-shard", "4").out


def test_memory_build_of_documents_in_another_format(cli, glimmer, tmp_path):
    corpus = write_tsv(tmp_path / "psgs_w100", [Passage("12", "w1", "w2 w3 w4 w5 w6"), Passage("13", "", "w7")])
    arguments = ("memory", "build", glimmer.bundle, "--corpus", corpus, "-o", tmp_path / "store")
    report = cli(*arguments, "--corpus-format", "tsv", "--chunk-words", "2", "--json").json
    assert report["passages"] == 4
    found = cli("ask", glimmer.bundle, "--store", tmp_path / "store", "w6", "--json").json
    assert [item["id"] for item in found["passages"]] == ["12#2"]


def test_every_format_of_a_corpus_can_be_named():
    assert tuple(FORMATS) == CORPUS_FORMATS


def test_outputs_are_refused_and_with_overwrite_replaced(cli, refused, glimmer, tmp_path, monkeypatch):
    """Of export, the same is tested with the bundle that is exported twice."""
    monkeypatch.setitem(WORLDS, "demo", replace(WORLDS["demo"], checkpoint=glimmer.checkpoint))
    corpus = write_rows(tmp_path / "corpus.jsonl", CORPUS[:3])
    source = save_t5(make_t5("v1.1"), tmp_path / "t5")
    written = {"store": "manifest.json", "checkpoint": "config.json", "demo": "corpus.jsonl"}
    for name, arguments in {
        "store": ("memory", "build", glimmer.bundle, "--corpus", corpus),
        "checkpoint": ("init", "--from-t5", source, "--live-proportion", "2/3", "--rerank-proportion", "1/2"),
        "demo": ("demo-data", "--questions", "3"),
        "bundle": ("export", glimmer.checkpoint),
    }.items():
        output = tmp_path / name
        output.mkdir()
        (output / "mine.txt").write_text("from before", encoding="utf-8")
        assert "--overwrite" in refused(OutputError, *arguments, "-o", output)
        assert "that glimmer-export wrote" in refused(OutputError, *arguments, "-o", output, "--overwrite")
        if name == "bundle":
            continue
        (output / "manifest.json").write_text("of something written before", encoding="utf-8")
        done = cli(*arguments, "-o", output, "--overwrite")
        assert done.code == 0, done.err
        assert not (output / "mine.txt").exists()
        assert (output / written[name]).is_file()
    assert {path.name for path in tmp_path.iterdir()} == {
        "corpus.jsonl", "t5", "store", "checkpoint", "demo", "bundle",
    }


def test_what_is_read_is_not_overwritten(refused, glimmer, tmp_path, monkeypatch):
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    checkpoint = Path(shutil.copytree(glimmer.checkpoint, tmp_path / "folder" / "checkpoint"))
    monkeypatch.setitem(WORLDS, "demo", replace(WORLDS["demo"], checkpoint=checkpoint))
    corpus = write_rows(tmp_path / "folder" / "corpus.jsonl", CORPUS[:3])
    source = save_t5(make_t5("v1.1"), tmp_path / "t5")
    tokenizer = shutil.copy(glimmer.checkpoint / "tokenizer.json", tmp_path / "folder")
    # So that --overwrite would replace it.
    for directory in (source, tmp_path / "folder"):
        (directory / "manifest.json").write_text("{}", encoding="utf-8")
    for output, *arguments in (
        (checkpoint, "export", checkpoint),
        (checkpoint / "bundle", "export", checkpoint),
        (source, "init", "--from-t5", source),
        (tmp_path / "folder", "init", "--random", "small", "--tokenizer", tokenizer),
        (bundle, "memory", "build", bundle, "--corpus", corpus),
        (tmp_path / "folder", "memory", "build", bundle, "--corpus", corpus),
        (checkpoint, "demo-data"),
    ):
        for option in ((), ("--overwrite",)):
            assert "apart from what is read" in refused(OutputError, *arguments, "-o", output, *option)


def test_an_empty_folder_is_no_output_to_protect(cli, glimmer, tmp_path, monkeypatch):
    monkeypatch.setitem(WORLDS, "demo", replace(WORLDS["demo"], checkpoint=glimmer.checkpoint))
    (tmp_path / "demo").mkdir()
    report = cli("demo-data", "--questions", "3", "-o", tmp_path / "demo", "--json").json
    assert report["questions"] == 3
    assert tree(tmp_path / "demo" / "checkpoint") == tree(glimmer.checkpoint)


def test_demo_data_has_so_many_questions_and_no_more(refused, tmp_path):
    said = refused(OptionError, "demo-data", "--questions", "48001", "-o", tmp_path / "demo")
    assert "48000 different questions" in said
    assert not (tmp_path / "demo").exists()


def test_init_reports(cli, tmp_path):
    source = save_t5(make_t5("v1.1"), tmp_path / "t5")
    arguments = ("init", "--from-t5", source, "--live-proportion", "2/3", "--rerank-proportion", "1/2", "-k", "4")
    report = cli(*arguments, "-m", "2", "-o", tmp_path / "one", "--json").json
    assert report["architecture"] == "glimmer"
    assert report["layers"] == {"memory": 1, "stage_a": 1, "stage_b": 1, "decoder": 2}
    assert (report["num_retrieved"], report["num_selected"], report["has_tokenizer"]) == (4, 2, False)
    done = cli(*arguments, "-o", tmp_path / "two")
    assert done.code == 0
    assert "can be exported but not asked" in done.out


@pytest.fixture
def questions(glimmer, tmp_path) -> Path:
    """Every question, those of the first half with the bundle's own answer among the right ones."""
    rows = [
        {"id": f"q{number}", "input": text, "output": [{"answer": "wrong"}, {"answer": answer}]}
        for number, text in enumerate(QUESTIONS)
        for answer in [glimmer.session.answer(text).answer if number < 4 else "wrong too"]
    ]
    return write_rows(tmp_path / "questions.jsonl", rows)


def test_answer_grades_and_writes_kilt_predictions(cli, glimmer, questions, tmp_path):
    output = tmp_path / "predictions.jsonl"
    arguments = ("answer", glimmer.bundle, "--store", glimmer.store, "--questions", questions, "--batch-size", "3")
    report = cli(*arguments, "--predictions", output, "--json").json
    answers = [glimmer.session.answer(text) for text in QUESTIONS]
    expected = [answer.answer for answer in answers]
    assert [answer["answer"] for answer in report["answers"]] == expected
    right = sum(answer.strip() != "" for answer in expected[:4])  # random weights may answer nothing: that is wrong
    assert 0 < right / len(QUESTIONS) == report["em"]
    assert (report["questions"], report["graded"], report["errors"]) == (len(QUESTIONS), len(QUESTIONS), {})
    assert report["milliseconds"]["total"] > 0
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    sure = [row["output"][0].pop("log_probability") for row in rows]
    assert sure == pytest.approx([answer.log_probability for answer in answers], abs=1e-4)
    assert rows == [
        {"id": f"q{number}", "input": text, "output": [{"answer": answer, "provenance": []}]}
        for number, (text, answer) in enumerate(zip(QUESTIONS, expected, strict=True))
    ]
    done = cli(*arguments, "--limit", "2")
    assert done.code == 0
    assert "exact match" in done.out
    assert "graded" not in done.out


def test_answer_says_what_found_nothing_and_how_many_rows_are_graded(cli, glimmer, tmp_path):
    rows = [{"question": QUESTION}, {"question": "nowhere", "answers": ["x"]}, {"question": "absent", "answers": ["x"]}]
    asked = ("answer", glimmer.bundle, "--store", glimmer.store, "--questions", write_rows(tmp_path / "q.jsonl", rows))
    report = cli(*asked, "--json").json
    assert (report["questions"], report["graded"], report["unretrieved"], report["errors"]) == (3, 2, 2, {})
    printed = cli(*asked).out
    assert re.search(r"no passage found\W+2\b", printed)
    assert re.search(r"graded, for having answers\W+2\b", printed)


def test_parity_as_json_and_as_tables(cli, glimmer, questions):
    arguments = ("parity", glimmer.bundle, "--checkpoint", glimmer.checkpoint, "--store", glimmer.store)
    report = cli(*arguments, "--questions", questions, "--json").json
    assert set(report) >= PARITY_KEYS
    assert (report["questions"], report["answers_equal"], report["top_m_overlap"]) == (len(QUESTIONS), 1.0, 1.0)
    assert report["em_reference"] == report["em_candidate"] > 0
    difference = report["log_probability"]
    assert difference["questions"] == len(QUESTIONS)
    limit = TOLERANCES["log_probability"].atol
    assert 0 < difference["mean_abs_difference"] <= difference["max_abs_difference"] <= limit
    assert report["f1_reference"] == report["f1_candidate"] > 0
    assert {name: list(entry) for name, entry in report["graphs"].items()} == {
        name: ["max_abs_err", "mean_abs_err", "snr_db", "cosine"] for name in glimmer.io
    }
    done = cli(*arguments, "--questions", questions, "--limit", "3", "--exact-memory")
    assert done.code == 0
    for word in ("3 questions", "exact match", "answers equal", "1.0000", "log-probability", "largest", *glimmer.io):
        assert word in done.out


def test_parity_where_nothing_is_selected(cli, exported, questions):
    source = exported("lumen")
    arguments = ("--checkpoint", source.checkpoint, "--store", source.store, "--questions", questions, "--limit", "2")
    report = cli("parity", source.bundle, *arguments, "--json").json
    assert report["top_m_overlap"] is None
    assert cli("parity", source.bundle, *arguments).code == 0
