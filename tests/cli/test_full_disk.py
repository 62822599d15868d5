"""A disk that is full while something is written: a named error, and the output is whole, as before, or absent."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from glimmer_export.exporter.bundle import write as bundle_write
from glimmer_export.exporter.memory import shards
from glimmer_export.runtime.contract import OutputError
from tests.bundle_factory import write_rows
from tests.cli.conftest import snapshot
from tests.exported import CORPUS, copy_bundle
from tests.small_files import small_files

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
QUESTION = "w20 w31"


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_while_exporting(refused, glimmer, tmp_path, monkeypatch):
    def export(self, name, *_):
        self._weights.path.with_name(f"{name}.onnx").write_bytes(b"half")
        full_disk()

    checkpoint = glimmer.checkpoint  # exported when it is first asked for
    monkeypatch.setattr(bundle_write.GraphExporter, "export", export)
    assert "full disk" in refused(OutputError, "export", checkpoint, "-o", tmp_path / "bundle")
    copy_bundle(glimmer, tmp_path / "bundle")
    refused(OutputError, "export", checkpoint, "-o", tmp_path / "bundle", "--overwrite")


def test_a_full_disk_while_building_a_store(cli, glimmer, tmp_path, monkeypatch):
    """Shards that were finished stay, apart from the output; with room again, the same command goes on."""
    corpus = write_rows(tmp_path / "corpus.jsonl", CORPUS[:6])
    arguments = ("memory", "build", glimmer.bundle, "--corpus", corpus, "-o", tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr(shards.os, "pwrite", full_disk)
        done = cli(*arguments)
    assert done.code == 2
    assert done.err.startswith("OutputError: ")
    assert "full disk" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "store").exists()
    assert cli(*arguments).code == 0
    assert cli("ask", glimmer.bundle, "--store", tmp_path / "store", QUESTION).code == 0


def test_a_full_disk_while_writing_predictions(refused, glimmer, tmp_path, monkeypatch):
    questions = write_rows(tmp_path / "questions.jsonl", [{"question": "w1"}])
    (tmp_path / "out.jsonl").write_text("from before", encoding="utf-8")
    # The store, which is built when first asked for, before the disk is full.
    arguments = ("--store", glimmer.store, "--questions", questions, "--predictions", tmp_path / "out.jsonl")
    monkeypatch.setattr(os, "fsync", full_disk)
    refused(OutputError, "answer", glimmer.bundle, *arguments)


def test_a_full_disk_while_calibrating(refused, tmp_path):
    """safetensors tells of it by an error of its own."""
    bundle = shutil.copytree(GOLDEN / "bundle", tmp_path / "bundle")
    questions = write_rows(tmp_path / "questions.jsonl", [{"question": QUESTION}])
    arguments = ("--store", GOLDEN / "store-int8", "--questions", questions, "--threads", 1)
    with small_files(20_000):
        assert "full disk" in refused(OutputError, "calibrate", bundle, *arguments)


@pytest.mark.parametrize("num_bytes", [100, 3_000, 20_000])
@pytest.mark.parametrize("engine", ["fts5", "tantivy"])
def test_a_full_disk_under_sqlite_and_tantivy(cli, tmp_path, engine, num_bytes):
    """What is in the store's own folder stays apart from the output; a change of a store leaves it as it was."""
    corpus = write_rows(tmp_path / "corpus.jsonl", CORPUS)
    build = ("memory", "build", GOLDEN / "bundle", "--corpus", corpus, "-o", tmp_path / "store", "--index", engine)
    with small_files(num_bytes):
        done = cli(*build)
    if done.code:  # else all of its files are smaller than that
        assert (done.code, "Traceback" in done.err) == (2, False)
        assert "disk" in done.err
        assert not (tmp_path / "store").exists()
        assert cli(*build).code == 0
    before = snapshot(tmp_path)
    with small_files(num_bytes):
        done = cli("memory", "delete", tmp_path / "store", "--id", "1")
    if done.code:
        assert (done.code, "Traceback" in done.err) == (2, False)
        assert "disk" in done.err
        assert snapshot(tmp_path) == before
    assert cli("memory", "verify", tmp_path / "store").code == 0


def test_a_full_disk_while_building_engines(cli, tmp_path):
    """The bundle is as it was."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed here: there is none for this platform")
    bundle = shutil.copytree(GOLDEN / "bundle", tmp_path / "bundle")
    build = ("build", bundle, "--target", "jetson-orin-nano", "--compiler", "tensorrt-rtx")
    with small_files(20_000):
        done = cli(*build)
    assert (done.code, "Traceback" in done.err) == (2, False)
    assert "\nOutputError: " in done.err
    assert "full disk" in done.err
    assert cli("inspect", bundle).code == 0


@pytest.mark.parametrize("arguments", [
    ("parity", GOLDEN / "bundle", "--reference", GOLDEN / "bundle", "--html", "page.html"),
    ("cost", "--model", "small", "--plot", "plot.svg"),
], ids=lambda arguments: arguments[0])  # fmt: skip
def test_a_full_disk_while_writing_a_page_or_a_picture(refused, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    questions = write_rows(tmp_path / "questions.jsonl", [{"question": QUESTION, "answers": ["w1"]}])
    asked = () if arguments[0] == "cost" else ("--store", GOLDEN / "store-int8", "--questions", questions)
    with small_files(1000):
        assert "full disk" in refused(OutputError, *arguments, *asked)
