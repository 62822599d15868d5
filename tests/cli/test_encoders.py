"""export-encoder, and memory index with a directory that is exported first."""

from __future__ import annotations

import json
import shutil

import pytest

from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.store import MemoryStore
from tests.encoders.sources import PROJECTED, write_gtr
from tests.exported import CORPUS


@pytest.fixture
def source(tmp_path):
    return write_gtr(tmp_path / "source")


def test_the_command_reports_and_overwrites_what_it_wrote(cli, source, tmp_path):
    out = tmp_path / "encoder"
    out.mkdir()
    (out / "encoder.json").write_text("{}", encoding="utf-8")
    done = cli("export-encoder", source, "-o", out, "--overwrite", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert (report["pooling"], report["dimension"], report["precision"]) == ("mean", PROJECTED, "fp32")
    assert 0 < report["parity"]["max_abs_err"] < report["parity"]["limit"] == 1e-5
    assert {path.name for path in out.iterdir()} == {"encoder.json", "model.onnx", "tokenizer.json"}


def test_memory_index_exports_what_is_not_yet(cli, glimmer, source, tmp_path):
    store = shutil.copytree(glimmer.store, tmp_path / "store")
    done = cli("memory", "index", store, "--encoder", source, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["vectors"] == len(CORPUS)
    with MemoryStore.open(store, Bundle.open(glimmer.bundle), retrieval="dense") as opened:
        assert len(opened.search("w1", 3)) == 3
    again = cli("memory", "index", store, "--encoder", source)
    assert again.code == 2
    assert "--overwrite" in again.err
