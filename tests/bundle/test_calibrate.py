"""A bundle calibrated in its place: whole before, whole after, and nothing else touched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.calibration.questions import Question
from glimmer_export.calibration.ranges_file import read_ranges
from glimmer_export.exporter.bundle import calibrate as subject
from glimmer_export.exporter.bundle.calibrate import calibrate_bundle
from glimmer_export.runtime import Session
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import MANIFEST, BundleError, OutputError, StoreError
from tests.bundle_factory import rewrite, tree
from tests.exported import QUESTIONS, copy_bundle

ROOT = Path(__file__).resolve().parents[2]
ROWS = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS[:3])]
OPTIONS = CalibrationOptions(threads=1)


@pytest.fixture
def bundle(glimmer, tmp_path):
    return copy_bundle(glimmer, tmp_path / "bundle")


def test_the_bundle_has_its_table_and_else_what_it_had(glimmer, bundle):
    (bundle / "parity.json").write_text("{}", encoding="utf-8")
    (bundle / "engines" / "here").mkdir(parents=True)
    (bundle / "engines" / "here" / "plan").write_bytes(b"engine")
    before = tree(bundle)
    inode = (bundle / "graphs" / "decoder_step.onnx").stat().st_ino
    done = calibrate_bundle(bundle, glimmer.store, ROWS, OPTIONS)
    after = tree(bundle)
    assert set(after) - set(before) == {"calibration/ranges.json", "calibration/ranges.safetensors"}
    assert set(before) - set(after) == {"parity.json"}  # which was of the manifest before
    assert {name for name in after if name in before and before[name] != after[name]} == {MANIFEST}
    assert (bundle / "graphs" / "decoder_step.onnx").stat().st_ino == inode
    assert oct((bundle / "calibration" / "ranges.safetensors").stat().st_mode)[-3:] == "644"
    found = read_ranges(bundle, Bundle.open(bundle).manifest)
    assert found.warnings == done.table.warnings
    assert list(found.graphs) == list(glimmer.io)
    with Session.open(bundle, glimmer.store, threads=1) as session:
        assert session.answer(QUESTIONS[0]).token_ids == glimmer.session.answer(QUESTIONS[0]).token_ids
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_a_table_is_replaced_and_equal_questions_give_equal_bytes(glimmer, bundle):
    calibrate_bundle(bundle, glimmer.store, ROWS, OPTIONS)
    first = tree(bundle)
    calibrate_bundle(bundle, glimmer.store, ROWS[:1], OPTIONS)
    assert tree(bundle) != first
    calibrate_bundle(bundle, glimmer.store, ROWS, OPTIONS)
    assert tree(bundle) == first


def test_where_files_can_have_one_name_only_they_are_copied(glimmer, bundle, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError

    monkeypatch.setattr(os, "link", refuse)
    before = tree(bundle)
    calibrate_bundle(bundle, glimmer.store, ROWS, OPTIONS)
    assert before.items() - tree(bundle).items() == {(MANIFEST, before[MANIFEST])}


def test_a_link_to_the_bundle_stays_one(glimmer, bundle, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(bundle)
    calibrate_bundle(link, glimmer.store, ROWS, OPTIONS)
    assert link.is_symlink()
    assert Bundle.open(bundle).manifest.calibration


@pytest.mark.parametrize("step", ["calibrate", "write_ranges", "_write_manifest"])
def test_whatever_fails_the_old_bundle_stays(glimmer, bundle, monkeypatch, step):
    def fail(*arguments, **options):
        raise RuntimeError("stopped")

    monkeypatch.setattr(subject, step, fail)
    before = tree(bundle.parent)
    with pytest.raises(RuntimeError, match="stopped"):
        calibrate_bundle(bundle, glimmer.store, ROWS, OPTIONS)
    assert tree(bundle.parent) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.bundle import calibrate
def kill(*arguments): os.kill(os.getpid(), signal.SIGKILL)
calibrate._write_manifest = kill
rows = [Question("0", sys.argv[3], (), None, ())]
calibrate.calibrate_bundle(Path(sys.argv[1]), Path(sys.argv[2]), rows, CalibrationOptions(threads=1))
"""


def test_killed_it_leaves_the_old_bundle_and_the_next_run_clears_up(glimmer, bundle):
    before = tree(bundle)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, bundle, glimmer.store, QUESTIONS[0]], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert tree(bundle) == before
    assert len(list(bundle.parent.iterdir())) == 2
    calibrate_bundle(bundle, glimmer.store, ROWS, OPTIONS)
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_a_bundle_that_was_replaced_meanwhile_is_left_alone(glimmer, bundle, monkeypatch):
    real = subject.calibrate

    def exchange(*arguments, **options):
        found = real(*arguments, **options)
        data = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
        rewrite(bundle / MANIFEST, checkpoint_digest="0" * len(data["checkpoint_digest"]))
        return found

    monkeypatch.setattr(subject, "calibrate", exchange)
    with pytest.raises(BundleError, match="another in its place"):
        calibrate_bundle(bundle, glimmer.store, ROWS, OPTIONS)
    assert not (bundle / "calibration").exists()


def test_what_is_read_must_lie_apart(glimmer, bundle, exported, tmp_path):
    store = shutil.copytree(glimmer.store, bundle / "store")
    with pytest.raises(OutputError, match="apart from what is read"):
        calibrate_bundle(bundle, store, ROWS, OPTIONS)
    shutil.rmtree(store)
    with pytest.raises(OutputError, match="apart from what is read"):
        calibrate_bundle(bundle, glimmer.store, ROWS, OPTIONS, inputs=[bundle / "questions.jsonl"])
    before = tree(tmp_path)
    with pytest.raises(StoreError):
        calibrate_bundle(bundle, exported("lumen").store, ROWS, OPTIONS)
    assert tree(tmp_path) == before
