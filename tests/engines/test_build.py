"""Which graphs are compiled, which engines are kept, and that no failure loses an engine; the compiler is scripted."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest

from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.bundle.calibrate import calibrate_bundle
from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from glimmer_export.exporter.config.targets import read_target
from glimmer_export.exporter.engines import EngineBuild, build_engines, bundle_engines, stale
from glimmer_export.exporter.engines import build as builds
from glimmer_export.exporter.engines.compiler import Compiler
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    ENGINE_RECORD,
    BundleError,
    EngineError,
    EngineRecord,
    OptionError,
    OutputError,
    file_digest,
    graph_digest,
    read_engine_record,
    read_manifest,
)
from tests.bundle_factory import rewrite, tree
from tests.exported import QUESTIONS, copy_bundle, update_manifest

AGX = "jetson-orin-agx"
FIRST = "memory_encoder"


class Script:
    """In the place of `Compiler.compile`: notes the graphs, and fails where it is told to."""

    def __init__(self) -> None:
        self.compiled: list[str] = []
        self.fails: dict[str, BaseException] = {}
        self.timings: list[bytes | None] = []
        self.edition = 0

    def __call__(self, path: Path, profiles: object, timings: Path) -> bytes:
        if path.stem in self.fails:
            raise self.fails[path.stem]
        self.compiled.append(path.stem)
        self.timings.append(timings.read_bytes() if timings.exists() else None)
        timings.write_bytes(f"timings of {path.stem}".encode())
        return f"{path.stem}, edition {self.edition}, of {file_digest(path)}".encode()

    def take(self) -> list[str]:
        """The graphs compiled since the last call."""
        done, self.compiled = self.compiled, []
        return done


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    scripted = Script()
    monkeypatch.setattr(Compiler, "compile", scripted)
    return scripted


@pytest.fixture
def bundle(glimmer, tmp_path: Path) -> Path:
    return copy_bundle(glimmer, tmp_path / "bundle")


@pytest.fixture
def built(bundle: Path, script: Script) -> Iterator[EngineBuild]:
    """Engines of every graph for the AGX Orin; what comes after is another edition."""
    done = build(bundle)
    assert script.take() == names(bundle)
    script.edition = 1
    return done


def build(bundle: Path, target: str = AGX, **options: object) -> EngineBuild:
    return build_engines(bundle, target, "tensorrt-rtx", **options)


def names(bundle: Path) -> list[str]:
    return list(read_manifest(bundle).graphs)


def change(bundle: Path, graph: str) -> None:
    """Another graph of the same I/O, which the manifest vouches for."""
    path = bundle / "graphs" / f"{graph}.onnx"
    model = onnx.load(path)
    model.graph.doc_string = "another"
    onnx.save(model, path)
    update_manifest(bundle, graph)


def test_engines_are_written_with_their_record(bundle, built):
    assert built.directory == bundle / "engines" / built.record.key.fingerprint
    assert read_engine_record(built.directory) == built.record
    assert (built.record.target, built.record.stand_in) == (AGX, True)
    for name, graph in read_manifest(bundle).graphs.items():
        engine = built.record.engines[name]
        assert engine.graph_sha256 == graph_digest(graph)
        assert (built.directory / engine.file.path).read_bytes().startswith(f"{name}, edition 0".encode())
        assert [list(profile) for profile in engine.profiles] == [[tensor.name for tensor in graph.inputs]] * 2
    assert sorted(path.name for path in (bundle / "engines").iterdir()) == [built.directory.name]


def test_what_is_there_is_not_built_again(bundle, built, script):
    before = {path: path.stat().st_mtime_ns for path in built.directory.glob("*.engine")}
    again = build(bundle)
    assert script.take() == []
    assert again.plan.compile == ()
    assert again.plan.peak_bytes == 0
    assert again.record == built.record
    assert {path: path.stat().st_mtime_ns for path in built.directory.glob("*.engine")} == before


def test_force_builds_all_anew(bundle, built, script):
    build(bundle, force=True)
    assert script.take() == names(bundle)
    assert b"edition 1" in (built.directory / f"{FIRST}.engine").read_bytes()


def test_a_graph_that_changed_is_built_again_and_no_other(bundle, built, script):
    change(bundle, "decoder_step")
    assert stale(built.record, read_manifest(bundle)) == ["decoder_step"]
    again = build(bundle)
    assert script.take() == ["decoder_step"]
    assert again.plan.because == {"decoder_step": "its graph has changed"}
    assert stale(again.record, read_manifest(bundle)) == []
    assert again.record.engines[FIRST] == built.record.engines[FIRST]
    assert read_engine_record(built.directory) == again.record
    Bundle.open(bundle)


def test_other_profiles_are_built_anew_in_the_same_place(bundle, built, script):
    again = build(bundle, "jetson-orin-nano")
    assert again.directory == built.directory
    assert script.take() == names(bundle)
    assert set(again.plan.because.values()) == {f"its optimization profiles were others (built for {AGX})"}
    assert read_engine_record(built.directory).target == "jetson-orin-nano"


def test_a_model_of_which_no_batch_fits_is_refused_before_anything_is_written(bundle, script, monkeypatch):
    target = read_target(AGX)
    small = target.tensorrt.model_copy(update={"memory_gb": 1e-6})
    monkeypatch.setattr(builds, "read_target", lambda _: target.model_copy(update={"tensorrt": small}))
    with pytest.raises(EngineError, match=r"which memory_gb allows, found .* for the smallest batch"):
        build(bundle)
    assert script.take() == []
    assert not (bundle / "engines").exists()


def test_equal_engines_for_another_machine_are_stated_to_be_for_this_one(bundle, built, script):
    rewrite(built.directory / ENGINE_RECORD, target="another")
    assert build(bundle).record.target == AGX
    assert script.take() == []
    assert read_engine_record(built.directory) == built.record


def test_a_damaged_engine_is_built_again(bundle, built, script):
    path = built.directory / "live_stage_b.engine"
    path.write_bytes(bytes(reversed(path.read_bytes())))
    (built.directory / "live_stage_a.engine").unlink()
    again = build(bundle)
    assert script.take() == ["live_stage_a", "live_stage_b"]
    assert "it is damaged: expected SHA-256" in again.plan.because["live_stage_b"]
    assert "expected a file live_stage_a.engine, found none" in again.plan.because["live_stage_a"]
    assert build(bundle).plan.compile == ()


@pytest.mark.parametrize("content", ["", "[]", '{"schema_version": 9}'])
def test_a_damaged_record_is_a_reason_to_build_not_to_fail(bundle, built, script, content):
    (built.directory / ENGINE_RECORD).write_text(content)
    again = build(bundle)
    assert script.take() == names(bundle)
    assert set(again.plan.because) == set(names(bundle))
    assert read_engine_record(built.directory) == again.record


def test_engines_of_another_version_stay_and_are_named(bundle, built, script):
    older = built.directory.with_name("tensorrt-rtx-1.6.0.1-sm86")
    built.directory.rename(older)
    record = json.loads((older / ENGINE_RECORD).read_text(encoding="utf-8"))
    rewrite(older / ENGINE_RECORD, key={**record["key"], "version": "1.6.0.1"})
    before = tree(older)
    again = build(bundle)
    assert again.plan.others == (older.name,)
    assert script.take() == names(bundle)
    assert tree(older) == before
    assert build(bundle, "h200").plan.others == ()


@pytest.mark.parametrize("stop", [EngineError("g", expected="a", found="b", fix="c"), KeyboardInterrupt()])
def test_a_build_that_stops_leaves_the_engines_and_goes_on_later(bundle, built, script, stop):
    before = tree(built.directory)
    script.fails["live_stage_b"] = stop
    with pytest.raises(type(stop)):
        build(bundle, "jetson-orin-nano")
    assert tree(built.directory) == before
    done = script.take()
    assert done == names(bundle)[: names(bundle).index("live_stage_b")]
    assert list(bundle_engines(bundle)) == [built.directory.name]
    script.fails.clear()
    again = build(bundle, "jetson-orin-nano")
    assert script.take() == [name for name in names(bundle) if name not in done]
    assert list(again.record.engines) == names(bundle)
    assert not (bundle / "engines" / ".partial").exists()


def test_what_an_unfinished_build_left_of_another_graph_is_not_taken(bundle, script):
    script.fails["decoder_step"] = EngineError("g", expected="a", found="b", fix="c")
    with pytest.raises(EngineError):
        build(bundle)
    assert bundle_engines(bundle) == {}
    change(bundle, FIRST)
    script.fails.clear()
    script.take()
    done = build(bundle)
    assert script.take() == [FIRST, "decoder_step"]
    for name, engine in done.record.engines.items():
        assert file_digest(done.directory / engine.file.path) == engine.file.sha256, name


def test_a_full_disk(bundle, built, script):
    before = tree(built.directory)
    script.fails["live_stage_a"] = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OutputError, match="full disk"):
        build(bundle, "jetson-orin-nano")
    assert tree(built.directory) == before


def test_two_builds_do_not_meet(bundle, built, script):
    lock = os.open(bundle / "engines", os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with pytest.raises(OutputError, match="no other build of its engines under way"):
            build(bundle, force=True)
    finally:
        os.close(lock)
    assert script.take() == []
    build(bundle, force=True)


def test_the_timing_cache_goes_with_the_engines(bundle, built, script):
    last = names(bundle)[-1]
    assert (built.directory / "timing.cache").read_bytes() == f"timings of {last}".encode()
    assert script.timings[0] is None
    build(bundle, force=True)
    assert script.timings[len(names(bundle))] == f"timings of {last}".encode()


def test_a_graph_that_breaks_a_rule_is_refused_before_anything_is_compiled(bundle, script):
    with pytest.raises(EngineError, match=r"memory_encoder/.*FP32 GEMM.*\(and \d+ more\); see .*lint .* --target t4"):
        build(bundle, "t4")
    assert script.take() == []
    assert not (bundle / "engines").exists()


@pytest.mark.parametrize(("target", "found"), [("cpu", "a machine with a GPU, found cpu"), ("t5", "none of that name")])
def test_a_target_that_has_no_engines(bundle, script, target, found):
    with pytest.raises(OptionError, match=found):
        build(bundle, target)
    assert not (bundle / "engines").exists()


def test_what_is_about_to_be_done_is_said_first(bundle, script):
    said: list[object] = []
    build(bundle, on_plan=said.append, on_graph=said.append)
    plan, *graphs = said
    assert graphs == list(plan.compile) == names(bundle)
    largest = max(graph.files[0].bytes for graph in read_manifest(bundle).graphs.values())
    assert plan.peak_bytes > largest


def test_calibrating_keeps_the_engines(bundle, built, script, glimmer):
    questions = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS[:2])]
    before = tree(bundle / "engines")
    calibrate_bundle(bundle, glimmer.store, questions, CalibrationOptions(threads=1))
    assert tree(bundle / "engines") == before
    assert build(bundle).plan.compile == ()
    Bundle.open(bundle)


def test_a_quantised_bundle_begins_without_engines(bundle, built, script, glimmer, tmp_path):
    questions = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS[:2])]
    calibrate_bundle(bundle, glimmer.store, questions, CalibrationOptions(threads=1))
    quantize_bundle(bundle, tmp_path / "int8", QuantizeOptions("int8", "tensorrt"))
    assert bundle_engines(tmp_path / "int8") == {}
    assert not (tmp_path / "int8" / "engines").exists()


def test_engines_change_nothing_that_the_manifest_vouches_for(bundle, script):
    before = tree(bundle)
    build(bundle)
    after = {path: digest for path, digest in tree(bundle).items() if not path.startswith("engines/")}
    assert after == before


def test_the_inventory_says_what_is_wrong(bundle, built):
    (bundle / "engines" / "notes").mkdir()
    (bundle / "engines" / "file").write_text("no directory")
    found = bundle_engines(bundle)
    assert list(found) == ["notes", built.directory.name]
    assert isinstance(found["notes"], BundleError)
    assert isinstance(found[built.directory.name], EngineRecord)
