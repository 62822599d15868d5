"""After a loss of power there is the old or the new: what is renamed is on the disk before, and its name behind it."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from glimmer_export.exporter.files.publish import swap_directory
from glimmer_export.exporter.files.whole_file import sync_directory, sync_tree
from tests.bundle_factory import write_rows
from tests.exported import CORPUS, QUESTIONS
from tests.fid_factory import make_reader, save_fid
from tests.strace import traced_commands

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def files(tmp_path):
    """A folder with a bundle, a corpus, another, and questions."""
    shutil.copytree(GOLDEN / "bundle", tmp_path / "bundle")
    write_rows(tmp_path / "corpus.jsonl", CORPUS[:20])
    write_rows(tmp_path / "more.jsonl", [{"id": "new", "title": "w1", "text": "w0 w7 w7"}])
    write_rows(tmp_path / "questions.jsonl", [{"question": text, "answers": ["w1"]} for text in QUESTIONS[:3]])
    return tmp_path


def test_a_store_and_its_changes(files):
    """Also predictions, a file, and a calibrated bundle, a folder that is replaced."""
    bundle, store = files / "bundle", files / "store"
    asked = ("--questions", files / "questions.jsonl", "--threads", 1)
    build = ("memory", "build", bundle, "--corpus", files / "corpus.jsonl", "-o", store, "--passages-per-shard", 8)
    built, again, appended, deleted, compacted, converted, answered, calibrated = traced_commands(
        files, build, (*build, "--overwrite"),
        ("memory", "append", store, "--bundle", bundle, "--corpus", files / "more.jsonl"),
        ("memory", "delete", store, "--id", CORPUS[0]["id"], "--id", CORPUS[3]["id"]),
        ("memory", "compact", store),
        ("memory", "convert", store, "--codec", "int8", "-o", files / "int8"),
        ("answer", bundle, "--store", store, *asked, "--predictions", files / "predictions.jsonl"),
        ("calibrate", bundle, "--store", store, *asked),
    )
    manifest = str(store / "manifest.json")
    for state in (appended, deleted, compacted):
        assert manifest in state.renames
    assert str(store / "manifests" / "00001.json") in compacted.removals
    assert [state.renames[-1] for state in (built, converted)] == [str(store), str(files / "int8")]
    assert answered.renames == [str(files / "predictions.jsonl")]
    for state, target in ((again, store), (calibrated, bundle)):
        assert state.renames[-1] == str(target)
        assert any("glimmer-old" in path for path in state.removals)


@pytest.mark.slow
def test_bundles_checkpoints_engines_and_what_is_made_beside_them(files):
    checkpoint, bundle, exported = files / "checkpoint", files / "bundle", files / "exported"
    shutil.copytree(GOLDEN / "checkpoint", checkpoint)
    shutil.copytree(GOLDEN / "store-int8", files / "store")
    np.save(files / "vectors.npy", np.eye(40, 8, dtype=np.float32))
    save_fid(make_reader(), files / "fid")
    reader = ("convert", "--from", "fid", files / "fid", "-o", files / "reader")
    quantize = ("quantize", bundle, "--precision", "fp16", "--target", "tensorrt", "-o", files / "fp16")
    store, asked = ("--store", files / "store"), ("--questions", files / "questions.jsonl", "--threads", 1)
    parity = ("parity", bundle, "--checkpoint", checkpoint, *store, *asked, "--gate", "default")
    index = ("memory", "index", files / "store", "--embeddings", files / "vectors.npy")
    commands = {
        "export": ("export", checkpoint, "-o", exported),
        "export, over another": ("export", checkpoint, "-o", exported, "--overwrite"),
        "quantize": quantize,
        "quantize, over another": (*quantize, "--overwrite"),
        "build": ("build", files / "fp16", "--target", "t4", "--compiler", "tensorrt-rtx"),
        "parity": (*parity, "--html", files / "parity.html"),
        "convert": reader,
        "convert, over another": (*reader, "--overwrite"),
        "index": index,
        "index, over another": (*index, "--overwrite"),
    }
    found = dict(zip(commands, traced_commands(files, *commands.values()), strict=True))
    targets = {
        "export": exported, "quantize": files / "fp16", "convert": files / "reader",
    }
    for name, target in targets.items():
        assert found[name].renames[-1] == str(target)
        over = found[f"{name}, over another"]
        assert over.renames[-1] == str(target)
        assert any("glimmer-old" in path for path in over.removals)
    for name in ("index", "index, over another"):
        assert found[name].renames.count(str(files / "store" / "manifest.json")) == 1
    assert found["build"].renames[-1].startswith(str(files / "fp16" / "engines" / "tensorrt-rtx"))
    assert set(found["parity"].renames) == {str(bundle / "parity.json"), str(files / "parity.html")}


def test_a_folder_whose_file_system_syncs_none_is_left(tmp_path, monkeypatch):
    def refuse(_):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", refuse)
    sync_directory(tmp_path)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(OSError, match="Invalid argument"):  # of a file's content nobody can know that it is safe
        sync_tree(tmp_path)


def test_a_disk_that_fails_leaves_the_old_directory(tmp_path, monkeypatch):
    """Many systems tell of a full disk only when it is asked for what it took."""
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name, encoding="utf-8")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        swap_directory(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "file").read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "old"]
