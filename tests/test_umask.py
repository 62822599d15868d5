"""What commands write has the modes that plain `open` and `mkdir` give under the umask, whichever library wrote it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.bundle import export_bundle
from glimmer_export.exporter.bundle.calibrate import calibrate_bundle
from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from glimmer_export.exporter.demo.data import write_demo
from glimmer_export.exporter.engines.folder import work_on_engines
from glimmer_export.exporter.files.publish import replace_file
from glimmer_export.exporter.memory import (
    append_passages,
    build_store,
    compact_store,
    convert_store,
    delete_passages,
    index_store,
    renew_index,
)
from tests.bundle_factory import make_bundle, write_corpus, write_rows
from tests.exported import PAPER_FORM, QUESTIONS, make_checkpoint

SMALL = {"passages_per_shard": 4, "batch_tokens": 60}


@pytest.fixture(params=[0o002, 0o022, 0o077], ids=oct)
def umask(request) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A bundle that encodes, and a corpus."""
    folder = tmp_path_factory.mktemp("small")
    make_bundle(folder / "bundle")
    write_corpus(folder / "corpus.jsonl", 10)
    return folder


def others(directory: Path, umask: int) -> dict[str, str]:
    """What below a directory has another mode, the directory with it."""
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (directory, *directory.rglob("*"))}
    wanted = {path: (0o777 if path.is_dir() else 0o666) & ~umask for path in modes}
    return {str(path): oct(mode) for path, mode in modes.items() if mode != wanted[path]}


@pytest.mark.parametrize("index", ["fts5", "tantivy"])
def test_a_store_through_its_changes(small, tmp_path, umask, index):
    store, more = tmp_path / "store", write_rows(tmp_path / "more.jsonl", [{"id": "new", "text": "w1"}])
    build_store(small / "bundle", small / "corpus.jsonl", store, index=index, **SMALL)
    assert others(store, umask) == {}
    append_passages(store, small / "bundle", more, batch_tokens=60)
    delete_passages(store, ["p0"])
    renew_index(store)
    np.save(tmp_path / "vectors.npy", np.ones((10, 4), np.float32))
    index_store(store, embeddings=tmp_path / "vectors.npy")
    convert_store(store, tmp_path / "converted", "int8")
    assert others(store, umask) | others(tmp_path / "converted", umask) == {}
    compact_store(store)
    assert others(store, umask) == {}


def test_a_conversion_does_not_take_the_modes_of_its_source(small, tmp_path, umask):
    build_store(small / "bundle", small / "corpus.jsonl", tmp_path / "store", **SMALL)
    os.umask(0o027)
    convert_store(tmp_path / "store", tmp_path / "converted", "int8")
    assert others(tmp_path / "converted", 0o027) == {}
    assert others(tmp_path / "store", umask) == {}


def test_a_demo_and_a_checkpoint(tmp_path, umask):
    write_demo(tmp_path / "demo", num_questions=3, seed=0)
    make_checkpoint(tmp_path / "checkpoint", "glimmer")
    assert others(tmp_path / "demo", umask) == {}
    assert others(tmp_path / "checkpoint", umask) == {}


def test_engines_and_a_file(tmp_path, umask):
    with work_on_engines(tmp_path, "tensorrt-10.3.0.26-sm75-tesla-t4") as work:
        work.begin({})
        replace_file(work.timings, b"timings")
    assert others(tmp_path / "engines", umask) == {}


@pytest.mark.slow
def test_a_bundle_through_calibration_and_quantisation(glimmer, tmp_path, umask):
    bundle = tmp_path / "bundle"
    export_bundle(glimmer.checkpoint, bundle, PAPER_FORM)
    assert others(bundle, umask) == {}
    rows = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS)]
    calibrate_bundle(bundle, glimmer.store, rows, CalibrationOptions(threads=1))
    quantize_bundle(bundle, tmp_path / "quantised", QuantizeOptions("int8", "cpu"))
    assert others(bundle, umask) == {}
    assert others(tmp_path / "quantised", umask) == {}


def test_a_table_of_ranges(glimmer, tmp_path, umask):
    """Of a bundle that somebody keeps to themselves, whose other files have the modes that they had."""
    bundle = Path(shutil.copytree(glimmer.bundle, tmp_path / "bundle"))
    bundle.chmod(0o700)
    rows = [Question("0", QUESTIONS[0], (), None, ())]
    calibrate_bundle(bundle, glimmer.store, rows, CalibrationOptions(threads=1))
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o700
    assert others(bundle / "calibration", umask) == {}
    assert stat.S_IMODE((bundle / "manifest.json").stat().st_mode) == 0o666 & ~umask
