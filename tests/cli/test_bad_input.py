"""Bundles, stores, corpora and questions that are wrong: a named error, exit code 2, and nothing half-written."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save

from glimmer_export.runtime.contract import (
    BUNDLE_SCHEMA_VERSION,
    MANIFEST,
    STORE_SCHEMA_VERSION,
    BundleError,
    CheckpointError,
    CorpusError,
    OptionError,
    OutputError,
    QuestionError,
    QuestionFileError,
    StoreError,
    TokenizerError,
)
from tests.bundle_factory import rewrite, write_rows
from tests.exported import CORPUS, Exported, copy_bundle

QUESTION = "w20 w31"
TOO_LONG = "w1 " * 20


@pytest.fixture
def bundle(glimmer: Exported, tmp_path: Path) -> Path:
    return copy_bundle(glimmer, tmp_path / "bundle")


@pytest.fixture
def store(glimmer: Exported, tmp_path: Path) -> Path:
    return Path(shutil.copytree(glimmer.store, tmp_path / "store"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "corpus.jsonl", CORPUS[:6])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def corrupt_graph(bundle: Path) -> None:
    flip(bundle / "graphs" / "live_stage_a.onnx")


def truncate_graph(bundle: Path) -> None:
    os.truncate(bundle / "graphs" / "live_stage_a.onnx", 50)


def drop_graph(bundle: Path) -> None:
    (bundle / "graphs" / "live_stage_a.onnx").unlink()


def change_digest(bundle: Path) -> None:
    text = (bundle / MANIFEST).read_text(encoding="utf-8")
    digest = json.loads(text)["graphs"]["live_stage_a"]["files"][0]["sha256"]
    (bundle / MANIFEST).write_text(text.replace(digest, "0" * 64), encoding="utf-8")


def climb_out(bundle: Path) -> None:
    text = (bundle / MANIFEST).read_text(encoding="utf-8")
    (bundle / MANIFEST).write_text(text.replace("graphs/live", "../bundle/graphs/live"), encoding="utf-8")


def take_newer_schema(bundle: Path) -> None:
    rewrite(bundle / MANIFEST, schema_version=BUNDLE_SCHEMA_VERSION + 1)


def drop_manifest(bundle: Path) -> None:
    (bundle / MANIFEST).unlink()


BUNDLE_CASES = [
    (corrupt_graph, "live_stage_a.onnx: expected SHA-256"),
    (truncate_graph, "50 bytes"),
    (drop_graph, "a file graphs/live_stage_a.onnx, found none"),
    (change_digest, "SHA-256 0000"),
    (climb_out, "stay inside"),
    (take_newer_schema, "install a newer glimmer-export"),
    (drop_manifest, "manifest.json"),
]


@pytest.mark.parametrize(("damage", "message"), BUNDLE_CASES)
class TestBundles:
    def test_ask(self, refused, glimmer, bundle, damage, message):
        damage(bundle)
        assert message in refused(BundleError, "ask", bundle, "--store", glimmer.store, QUESTION)

    def test_inspect(self, refused, bundle, damage, message):
        damage(bundle)
        assert message in refused(BundleError, "inspect", bundle)

    def test_memory_build(self, refused, bundle, corpus, tmp_path, damage, message):
        damage(bundle)
        assert message in refused(BundleError, "memory", "build", bundle, "--corpus", corpus, "-o", tmp_path / "out")


def test_no_bundle(refused, glimmer, tmp_path):
    refused(BundleError, "inspect", tmp_path / "nowhere")
    refused(BundleError, "ask", tmp_path / "nowhere", QUESTION)
    refused(BundleError, "inspect", glimmer.checkpoint)


def test_a_bundle_without_a_tokenizer(refused, glimmer, bundle, corpus, tmp_path):
    rewrite(bundle / MANIFEST, tokenizer=None, tokenizer_digest=None)
    assert "--tokenizer" in refused(TokenizerError, "ask", bundle, QUESTION, "--passage", "w1 w2")
    refused(TokenizerError, "memory", "build", bundle, "--corpus", corpus, "-o", tmp_path / "out")


def truncate_shard(store: Path) -> None:
    path = store / "shards" / "00001.safetensors"
    os.truncate(path, path.stat().st_size - 10)


def corrupt_shards(store: Path) -> None:
    """Every passage's token ids, of which some are read whatever is asked."""
    for path in (store / "shards").iterdir():
        tensors = load_file(path)
        path.write_bytes(save({**tensors, "input_ids": tensors["input_ids"] ^ 1}))


def drop_texts(store: Path) -> None:
    (store / "passages.sqlite").unlink()


def take_newer_store(store: Path) -> None:
    rewrite(store / MANIFEST, schema_version=STORE_SCHEMA_VERSION + 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate_shard, "00001.safetensors: expected"),
        (corrupt_shards, "expected the bytes that were written, found a checksum that does not fit"),
        (drop_texts, "passages.sqlite"),
        (take_newer_store, "install a newer"),
        (drop_manifest, "manifest.json"),
    ],
)
def test_a_damaged_store(refused, glimmer, store, damage, message):
    damage(store)
    assert message in refused(StoreError, "ask", glimmer.bundle, "--store", store, QUESTION)


def test_a_store_of_another_checkpoint(refused, glimmer, exported, tmp_path):
    other = exported("lumen")
    assert "memory encoder" in refused(StoreError, "ask", glimmer.bundle, "--store", other.store, QUESTION)
    questions = write_rows(tmp_path / "questions.jsonl", [{"question": "w1"}])
    arguments = ("--checkpoint", glimmer.checkpoint, "--store", other.store, "--questions", questions)
    refused(StoreError, "parity", glimmer.bundle, *arguments)
    refused(StoreError, "answer", glimmer.bundle, "--store", other.store, "--questions", questions)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "p0", "text": "w2"}', "line 7: expected an id of its own, found 'p0', the id of line 1"),
        ('{"id": 99, "text": "w2"', "line 7: expected a JSON object"),
        ('["w1"]', "line 7: expected a JSON object"),
        ('{"id": 99, "title": "w1", "text": " "}', 'line 7: expected a "text"'),
        ('{"id": 99, "title": "w1"}', 'line 7: expected a "text"'),
        ('{"id": 1.5, "text": "w2"}', 'line 7: expected an "id"'),
        ('{"text": "w2"}', 'line 7: expected an "id"'),
    ],
)  # fmt: skip
def test_a_corpus_with_a_bad_line(refused, glimmer, corpus, tmp_path, line, message):
    with corpus.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    found = refused(CorpusError, "memory", "build", glimmer.bundle, "--corpus", corpus, "-o", tmp_path / "store")
    assert message in found


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.jsonl.gz", gzip.compress(b'{"id": 1, "text": "w1"}', mtime=0)[:-3], "expected gzip that is whole"),
        ("c.tsv", b"1\tw1\tt\n", "line 1: expected the header id, text, title"),
        ("c.tsv.gz", gzip.compress(b"id\ttext\ttitle\n1\tw1\n", mtime=0), "line 2: expected 3 fields, found 2"),
        ("c.parquet", b"PAR1 and no more PAR1", "expected a Parquet file that is whole"),
        ("c.txt", b'{"id": 1, "text": "w1"}', "rename it, or pass --corpus-format"),
    ],
)
def test_a_corpus_of_another_format_that_is_wrong(refused, glimmer, tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    arguments = ("memory", "build", glimmer.bundle, "--corpus", tmp_path / name, "-o", tmp_path / "store")
    assert message in refused(CorpusError, *arguments)


def test_no_corpus(refused, glimmer, tmp_path):
    arguments = ("memory", "build", glimmer.bundle, "-o", tmp_path / "store", "--corpus")
    refused(CorpusError, *arguments, tmp_path / "nowhere.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    refused(CorpusError, *arguments, tmp_path / "empty.jsonl")


def test_passages_that_are_too_long_are_cut_and_counted_once(cli, glimmer, tmp_path):
    rows = [{"id": number, "text": "w1 " * length} for number, length in enumerate((3, 23, 24, 400, 30))]
    corpus = write_rows(tmp_path / "corpus.jsonl", rows)
    arguments = ("memory", "build", glimmer.bundle, "--corpus", corpus)
    done = cli(*arguments, "-o", tmp_path / "one")
    assert done.code == 0, done.err
    assert done.out.count("3 passages were longer than passage_length and were cut") == 1
    assert cli(*arguments, "-o", tmp_path / "two", "--json").json["truncated"] == 3


@pytest.mark.parametrize(("question", "message"), [("", "some text"), (" \n", "some text"), (TOO_LONG, "at most 12")])
def test_a_question_that_cannot_be_taken(refused, glimmer, question, message):
    assert message in refused(QuestionError, "ask", glimmer.bundle, "--store", glimmer.store, question)


def test_questions_and_passages_that_cannot_be_taken_are_counted_in_a_file(cli, glimmer, tmp_path):
    rows = [
        {"question": QUESTION, "ctx_ids": [1, "p2"], "answers": ["x"]},
        {"question": "", "ctx_ids": [1]},
        {"question": TOO_LONG, "ctx_ids": [1]},
        {"question": QUESTION, "ctx_ids": [1, "nowhere"]},
        {"question": QUESTION, "ctx_ids": ["1"]},
    ]
    questions = write_rows(tmp_path / "questions.jsonl", rows)
    arguments = ("--store", glimmer.store, "--questions", questions, "--passages", "given", "--json")
    report = cli("answer", glimmer.bundle, *arguments).json
    assert (report["questions"], report["errors"]) == (5, {"QuestionError": 2, "PassageError": 2})
    assert [answer["error"] is None for answer in report["answers"]] == [True, False, False, False, False]
    assert report["answers"][3]["error"]["type"] == "PassageError"
    assert report["answers"][3]["error"]["subject"] == "passage id 'nowhere'"
    report = cli("parity", glimmer.bundle, "--checkpoint", glimmer.checkpoint, *arguments).json
    assert (report["questions"], report["errors"], report["answers_equal"]) == (1, 4, 1.0)


def test_passages_without_text_and_passages_that_are_cut_are_counted(cli, glimmer, tmp_path):
    """Of two files, the second compressed."""
    ctxs = [{"title": "w3", "text": ""}, {"title": "w3", "text": "w5 w6"}, {"title": "w3", "text": "w5 " * 40}]
    questions = write_rows(tmp_path / "questions.jsonl", [{"question": QUESTION, "answer": ["x"], "ctxs": ctxs}])
    more = tmp_path / "more.jsonl.gz"
    more.write_bytes(gzip.compress(json.dumps({"question": QUESTION, "passages": [{"text": "w7"}]}).encode()))
    arguments = ("--questions", questions, "--questions", more, "--passages", "given")
    report = cli("answer", glimmer.bundle, *arguments, "--json").json
    assert (report["questions"], report["skipped_passages"], report["truncated_passages"]) == (2, 1, 1)
    assert [passage["truncated"] for passage in report["answers"][0]["passages"]] == [False, True]
    assert report["em"] is not None
    printed = cli("answer", glimmer.bundle, *arguments).out
    assert "passages skipped, without text" in printed
    assert "passages cut to passage_length" in printed
    report = cli("parity", glimmer.bundle, "--reference", glimmer.bundle, *arguments, "--json").json
    assert (report["questions"], report["skipped_passages"], report["truncated_passages"]) == (2, 1, 1)


def test_answers_that_are_nowhere_are_no_dash(cli, glimmer, tmp_path):
    questions = write_rows(tmp_path / "questions.jsonl", [{"question": QUESTION, "passages": [{"text": "w7"}]}])
    done = cli("answer", glimmer.bundle, "--questions", questions, "--passages", "given")
    assert done.out.count("not measured: no row has answers") == 2


def test_answers_in_a_field_that_is_not_read(refused, glimmer, tmp_path):
    questions = write_rows(tmp_path / "questions.jsonl", [{"question": "w1", "gold": ["x"]}])
    arguments = ("--store", glimmer.store, "--questions", questions)
    assert '"gold", which is not read' in refused(QuestionFileError, "answer", glimmer.bundle, *arguments)
    assert '"gold", which is not read' in refused(QuestionFileError, "calibrate", glimmer.bundle, *arguments)


@pytest.mark.parametrize("content", ["", "not json", '{"text": "w1"}', '{"question": 7}'])
def test_a_file_that_has_no_questions(refused, glimmer, tmp_path, content):
    (tmp_path / "questions.jsonl").write_text(content, encoding="utf-8")
    arguments = ("--store", glimmer.store, "--questions", tmp_path / "questions.jsonl")
    refused(QuestionFileError, "answer", glimmer.bundle, *arguments, "--predictions", tmp_path / "out.jsonl")
    refused(QuestionFileError, "parity", glimmer.bundle, "--checkpoint", glimmer.checkpoint, *arguments)


def test_predictions_that_cannot_be_written_are_refused_before_anything_is_answered(
    refused, glimmer, tmp_path, monkeypatch
):
    monkeypatch.setattr("runtime.Session.answer_many", lambda *_, **__: pytest.fail("answered"))
    questions = write_rows(tmp_path / "questions.jsonl", [{"question": "w1"}])
    (tmp_path / "folder").mkdir()
    arguments = ("--store", glimmer.store, "--questions", questions, "--predictions")
    for path, message in (("folder", "a directory"), ("absent/p.jsonl", "no directory"), ("/dev/null", "a device")):
        assert message in refused(OutputError, "answer", glimmer.bundle, *arguments, tmp_path / path)


def test_predictions_do_not_replace_what_is_read(refused, bundle, store, tmp_path):
    (tmp_path / "asked").mkdir()
    questions = write_rows(tmp_path / "asked" / "questions.jsonl", [{"question": "w1"}])
    for asked in (questions, questions.parent, questions.parent / "*.jsonl"):
        for path in (questions, store / MANIFEST, bundle / "parity.json"):
            arguments = ("--store", store, "--questions", asked, "--predictions", path)
            assert "apart from what is read" in refused(OutputError, "answer", bundle, *arguments)


def test_questions_that_give_no_passages(refused, glimmer, tmp_path):
    questions = write_rows(tmp_path / "questions.jsonl", [{"question": "w1"}])
    arguments = ("--store", glimmer.store, "--questions", questions, "--passages", "given")
    message = refused(QuestionFileError, "answer", glimmer.bundle, *arguments, "--predictions", tmp_path / "out.jsonl")
    assert "--passages retrieve" in message


def test_a_training_that_cannot_be_resumed(refused, tmp_path):
    (tmp_path / "out.training").mkdir()
    (tmp_path / "out.training" / "state.pt").write_bytes(b"PK\x03\x04 and no more")
    assert "remove" in refused(OutputError, "train", "--recipe", "demo", "-o", tmp_path / "out")


def test_options_that_do_not_fit(refused, glimmer, exported, tmp_path):
    assert "store" in refused(OptionError, "ask", glimmer.bundle, QUESTION)
    lumen = exported("lumen")
    assert "lumen" in refused(OptionError, "ask", lumen.bundle, "--store", lumen.store, "-m", "2", QUESTION)
    refused(OptionError, "init", "-o", tmp_path / "out")
    refused(OptionError, "init", "--random", "small", "--from-t5", tmp_path, "-o", tmp_path / "out")


def test_another_checkpoint_in_parity(refused, glimmer, exported, tmp_path):
    questions = write_rows(tmp_path / "questions.jsonl", [{"question": "w1"}])
    arguments = ("--store", glimmer.store, "--questions", questions)
    refused(CheckpointError, "parity", glimmer.bundle, "--checkpoint", exported("fid").checkpoint, *arguments)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["inspect", "nowhere"], "BundleError"),
        (["export", "nowhere", "-o", "out"], "CheckpointError"),
        (["init", "--random", "small", "--live-proportion", "1/1", "-o", "out"], None),
    ],
)
def test_as_a_process_of_its_own(tmp_path, arguments, error):
    command = [sys.executable, "-c", "from glimmer_export.exporter.cli import main; main()", *arguments]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.partition(":")[0] in ([error] if error else ["CheckpointError", "OptionError"])
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
