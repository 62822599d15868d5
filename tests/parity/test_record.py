"""`parity.json`: a record for each computation, what a session takes as a witness, and every damage named."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import datetime

import pytest

from glimmer_export.calibration.questions import Question
from glimmer_export.calibration.rounding import RoundingBackend
from glimmer_export.exporter.parity import ParityOptions, ParityRequest, run_parity
from glimmer_export.exporter.parity.record import questions_digest, record_parity
from glimmer_export.runtime import Passage, Session
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.contract import (
    MANIFEST,
    PARITY_RECORD,
    PARITY_SCHEMA_VERSION,
    BundleError,
    OptionError,
    file_digest,
    read_parity_records,
)
from glimmer_export.runtime.serving.server import parity_fault
from tests.bundle_factory import rewrite
from tests.exported import copy_bundle
from tests.parity.asked import answered_rows, write_gate
from tests.parity.noise import noisy_bundle
from tests.serving.conftest import serving

OPTIONS = ParityOptions(threads=1)
CPU, ROUNDED = "onnxruntime-cpu", "onnxruntime-cpu-fp16-rounded"


@pytest.fixture(scope="module")
def rows(glimmer):
    return answered_rows(glimmer)


@pytest.fixture(scope="module")
def recorded(glimmer, rows, tmp_path_factory):
    """A bundle whose only record is the CPU's, and passed."""
    directory = tmp_path_factory.mktemp("recorded")
    bundle = noisy_bundle(glimmer, directory / "bundle", "live_stage_b", 1e-6)
    assert run(glimmer, bundle, rows, write_gate(directory)).gate.passed
    return bundle


@pytest.fixture
def bundle(recorded, tmp_path):
    return shutil.copytree(recorded, tmp_path / "bundle")


def run(source, bundle, rows, gate, **rest):
    request = ParityRequest(bundle, reference=source.bundle, store=source.store, options=OPTIONS, gate=gate, **rest)
    return run_parity(request, rows)


def change(path, record=None, **values):
    """Change fields of the file, and of its only record."""
    data = json.loads(path.read_text(encoding="utf-8"))
    records = [{**item, **(record or {})} for item in data["records"]]
    rewrite(path, **{**data, "records": records, **values})


def test_a_record_says_what_it_rests_on(recorded, glimmer, rows):
    found = read_parity_records(recorded)
    assert (found.schema_version, found.manifest_sha256) == (PARITY_SCHEMA_VERSION, file_digest(recorded / MANIFEST))
    (record,) = found.records
    assert record.key == (CPU, "fp32", None, "fp16", None)
    assert record.witness == "device"
    assert datetime.fromisoformat(record.date).utcoffset().total_seconds() == 0
    assert {"glimmer-export", "onnxruntime", "numpy", "python"} <= set(record.versions)
    assert record.questions_sha256 == questions_digest(rows)
    assert record.gate.verdict == "passed"
    assert record.report["coverage"]["answered"] == len(rows)
    Session.open(recorded, glimmer.store, threads=1, require_parity="device").close()


@pytest.mark.parametrize("required", ["witnessed", "device"])
def test_a_server_is_ready_where_a_record_witnesses_its_bundle(recorded, glimmer, required):
    for bundle, status in ((recorded, 200), (glimmer.bundle, 503)):
        with Session.open(bundle, glimmer.store, threads=1) as session, \
                serving(session, not_ready=parity_fault(session, required)) as (client, _):
            assert client.get("/readyz").status_code == status


def test_the_digest_is_of_what_was_asked_and_of_nothing_else():
    row = Question("a", "w1", ("x",), (Passage(None, "t", "w2"), 3), (4,))
    digest = questions_digest([row])
    assert digest == questions_digest([replace(row, qid="b")])
    for other in (
        replace(row, question="w2"), replace(row, answers=("y",)), replace(row, passages=None),
        replace(row, gold_ids=()),
    ):
        assert questions_digest([other]) != digest
    assert questions_digest([row, row]) != digest


def test_no_record_is_no_witness(glimmer, tmp_path):
    with pytest.raises(BundleError, match=PARITY_RECORD):
        Session.open(glimmer.bundle, require_parity=True)
    for wrong in ("yes", 2, None):
        with pytest.raises(OptionError, match="require_parity"):
            Session.open(glimmer.bundle, require_parity=wrong)


def test_a_gate_that_did_not_pass_is_refused_when_told_to(glimmer, rows, tmp_path):
    bad = noisy_bundle(glimmer, tmp_path / "bad", "live_stage_b", 1.0)
    run(glimmer, bad, rows, write_gate(tmp_path))
    with pytest.raises(BundleError, match=r"failed: .*max_em_loss_points"):
        Session.open(bad, threads=1, require_parity=True)
    Session.open(bad, threads=1).close()
    run(glimmer, bad, rows, "default")
    with pytest.raises(BundleError, match=r"not measured: .*min_answered"):
        Session.open(bad, threads=1, require_parity=True)


def test_a_record_of_another_manifest_is_stale(bundle, glimmer, rows, tmp_path):
    manifest = bundle / MANIFEST
    manifest.write_text(manifest.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    with pytest.raises(BundleError, match="a record of the manifest"):
        Session.open(bundle, require_parity=True)
    run(glimmer, bundle, rows, write_gate(tmp_path), backend=RoundingBackend(1))
    assert [record.backend for record in read_parity_records(bundle).records] == [ROUNDED]


def test_a_run_replaces_its_own_record_alone(bundle, glimmer, rows, tmp_path):
    gate = write_gate(tmp_path)
    (first,) = read_parity_records(bundle).records
    run(glimmer, bundle, rows, gate, backend=RoundingBackend(1))
    found = {record.backend: record for record in read_parity_records(bundle).records}
    assert list(found) == [CPU, ROUNDED]
    assert found[CPU] == first
    assert found[ROUNDED].witness == "rounded, not the device"
    run(glimmer, bundle, rows[:4], gate)
    again = {record.backend: record for record in read_parity_records(bundle).records}
    assert (again[CPU].gate.verdict, again[ROUNDED]) == ("not measured", found[ROUNDED])


def test_what_a_newer_version_recorded_is_not_lost(bundle, glimmer, rows, monkeypatch):
    rewrite(bundle / PARITY_RECORD, schema_version=PARITY_SCHEMA_VERSION + 1)
    before = (bundle / PARITY_RECORD).read_bytes()
    compare = "glimmer_export.exporter.parity.run.compare_with_bundle"
    monkeypatch.setattr(compare, lambda *_, **__: pytest.fail("compared"))
    with pytest.raises(BundleError, match="newer"):
        run(glimmer, bundle, rows, "default")
    assert (bundle / PARITY_RECORD).read_bytes() == before


def fp16(bundle):
    """Say that a graph is FP16; nothing here computes by what the manifest says."""
    manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    manifest["graphs"]["live_stage_b"]["precision"] = "fp16"
    rewrite(bundle / MANIFEST, **manifest)
    change(bundle / PARITY_RECORD, manifest_sha256=file_digest(bundle / MANIFEST))
    return bundle


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx", "onnxruntime-tensorrt", "onnxruntime-cuda"])
def test_the_cpus_record_witnesses_no_device(bundle, backend):
    with pytest.raises(BundleError, match=rf"witnesses {backend} .*glimmer-export parity .* --backend {backend} "):
        Session.open(bundle, backend=backend, require_parity=True)


class _Named:
    """A backend of another name that computes on the CPU."""

    def __init__(self, name):
        self.name, self._backend = name, OnnxRuntimeBackend(1)

    def load(self, path, io):
        return self._backend.load(path, io)


@pytest.mark.parametrize(
    ("backend", "witnessed"),
    [
        ("tensorrt", True), ("tensorrt-rtx", True), ("onnxruntime-tensorrt", True), ("onnxruntime-cuda", False),
        (CPU, False), ("mine", False), (ROUNDED, True),
    ],
)  # fmt: skip
def test_the_rounding_backends_record_stands_for_tensorrt_alone(bundle, backend, witnessed):
    record = {"backend": ROUNDED, "precision": "fp16", "witness": "rounded, not the device"}
    change(fp16(bundle) / PARITY_RECORD, record)
    if witnessed:
        Session.open(bundle, backend=_Named(backend), require_parity=True).close()
    else:
        with pytest.raises(BundleError, match=f"witnesses {backend} in "):
            Session.open(bundle, backend=_Named(backend), require_parity=True)
    with pytest.raises(BundleError, match=f"{backend} in .*rounded, not the device"):
        Session.open(bundle, backend=_Named(backend), require_parity="device")


def test_a_record_of_the_device_is_enough_for_either(bundle):
    change(bundle / PARITY_RECORD, {"backend": "tensorrt"})
    for required in (True, "device"):
        Session.open(bundle, backend=_Named("tensorrt"), require_parity=required).close()
        with pytest.raises(BundleError, match="witnesses tensorrt-rtx in fp32"):
            Session.open(bundle, backend=_Named("tensorrt-rtx"), require_parity=required)


def test_nothing_witnesses_fp16_on_the_cpu_provider(bundle):
    """Not even a record that claims it: the CPU provider computes FP16 in FP32."""
    fp16(bundle)
    for record in ({}, {"precision": "fp16"}, {"backend": ROUNDED, "witness": "rounded, not the device"}):
        change(bundle / PARITY_RECORD, record)
        for backend in (CPU, "auto"):
            with pytest.raises(BundleError, match="computes FP16 in FP32"):
                Session.open(bundle, threads=1, backend=backend, require_parity=True)


def test_an_unrounded_record_that_did_not_pass_is_answered_with_the_command_that_rounds(bundle):
    """More questions would not help."""
    fp16(bundle)
    record = json.loads((bundle / PARITY_RECORD).read_text(encoding="utf-8"))["records"][0]
    check = {"name": "max_fp16_graphs_in_fp32", "limit": 0, "found": 4, "passed": False, "questions": None}
    gate = {**record["gate"], "passed": False, "verdict": "not measured", "checks": [check]}
    change(bundle / PARITY_RECORD, {"precision": "fp32", "witness": "FP16 in FP32", "gate": gate})
    with pytest.raises(BundleError, match=rf"not measured: max_fp16_graphs_in_fp32; .*--backend {ROUNDED} "):
        Session.open(bundle, threads=1, require_parity=True)


def test_a_record_holds_for_the_codec_that_was_read(bundle):
    change(bundle / PARITY_RECORD, {"codec": "int8"})
    with pytest.raises(BundleError, match="witnesses onnxruntime-cpu in fp32 with memory in fp16"):
        Session.open(bundle, threads=1, require_parity=True)


def test_bf16_and_saturating_int8_hang_on_the_cpu(bundle, monkeypatch):
    manifest = json.loads((bundle / MANIFEST).read_text(encoding="utf-8"))
    manifest["graphs"]["live_stage_b"]["precision"] = "int8"
    quantization = {
        "target": "cpu", "cpu_kind": "x86-vnni", "method": "max", "policy": "int8", "residual_scales": {}, "keep": [],
    }  # fmt: skip
    rewrite(bundle / MANIFEST, **{**manifest, "quantization": quantization})
    change(bundle / PARITY_RECORD, {"precision": "int8"}, manifest_sha256=file_digest(bundle / MANIFEST))
    monkeypatch.setattr("glimmer_export.runtime.opening.cpu_kind", lambda: "x86-vnni")
    Session.open(bundle, threads=1, require_parity="device").close()
    monkeypatch.setattr("glimmer_export.runtime.opening.cpu_kind", lambda: "x86")
    with pytest.warns(UserWarning, match="saturate"), pytest.raises(BundleError, match="int8, x86, saturating"):
        Session.open(bundle, threads=1, require_parity=True)


def version_1(bundle, backend=CPU):
    """The record as version 1 wrote it."""
    data = json.loads((bundle / PARITY_RECORD).read_text(encoding="utf-8"))
    gate = data["records"][0]["gate"]
    checks = [{name: item[name] for name in ("name", "limit", "found", "passed")} for item in gate["checks"]]
    old = {
        "schema_version": 1, "manifest_sha256": data["manifest_sha256"],
        "gate": {"name": "default", "passed": True, "checks": checks},
        "report": {"candidate": {"backend": backend}, "questions": 1},
    }  # fmt: skip
    (bundle / PARITY_RECORD).write_text(json.dumps(old), encoding="utf-8")


def test_a_record_of_version_1_holds_for_its_own_backend(bundle, glimmer, rows, tmp_path):
    version_1(bundle)
    Session.open(bundle, threads=1, require_parity=True).close()
    with pytest.raises(BundleError, match="--backend tensorrt "):
        Session.open(bundle, backend="tensorrt", require_parity=True)
    with pytest.raises(BundleError, match="the device itself"):
        Session.open(bundle, threads=1, require_parity="device")
    run(glimmer, bundle, rows, write_gate(tmp_path), backend=RoundingBackend(1))
    old, new = read_parity_records(bundle).records
    assert (old.backend, old.date, old.gate.verdict, new.backend) == (CPU, None, "passed", ROUNDED)
    Session.open(bundle, threads=1, require_parity=True).close()
    run(glimmer, bundle, rows[:1], write_gate(tmp_path))
    assert [record.backend for record in read_parity_records(bundle).records] == [ROUNDED, CPU]
    with pytest.raises(BundleError, match="not measured"):
        Session.open(bundle, threads=1, require_parity=True)


def test_a_record_of_version_1_witnesses_no_fp16_on_the_cpu(bundle):
    fp16(bundle)
    version_1(bundle)
    with pytest.raises(BundleError, match="computes FP16 in FP32"):
        Session.open(bundle, threads=1, require_parity=True)
    version_1_rounded = json.loads((bundle / PARITY_RECORD).read_text(encoding="utf-8"))
    version_1_rounded["report"]["candidate"]["backend"] = ROUNDED
    rewrite(bundle / PARITY_RECORD, **version_1_rounded)
    Session.open(bundle, backend=_Named("tensorrt"), require_parity=True).close()


def in_file(**values):
    return lambda path: change(path, **values)


def in_record(**values):
    return lambda path: change(path, values)


def in_gate(**values):
    def damage(path):
        data = json.loads(path.read_text(encoding="utf-8"))
        change(path, {"gate": {**data["records"][0]["gate"], **values}})

    return damage


def drop(name, *, record=False):
    def damage(path):
        data = json.loads(path.read_text(encoding="utf-8"))
        del (data["records"][0] if record else data)[name]
        path.write_text(json.dumps(data), encoding="utf-8")

    return damage


def twice(path):
    data = json.loads(path.read_text(encoding="utf-8"))
    rewrite(path, records=data["records"] * 2)


CORRUPTIONS = [
    (lambda path: path.unlink(), "a file parity.json"),
    (lambda path: path.write_bytes(path.read_bytes()[:200]), "a JSON object"),
    (lambda path: path.write_text("[]", encoding="utf-8"), "a JSON object"),
    (lambda path: path.write_bytes(b"\xff\xfe"), "a JSON object"),
    (in_file(schema_version=PARITY_SCHEMA_VERSION + 1), "install a newer"),
    (in_file(schema_version="1"), "schema_version 1 to 3"),
    (in_file(schema_version=True), "schema_version 1 to 3"),
    (in_file(schema_version=1), "only the fields schema_version, manifest_sha256, gate, report, found 'records'"),
    (drop("schema_version"), "schema_version 1 to 3"),
    (drop("manifest_sha256"), "a field manifest_sha256"),
    (drop("records"), "a field records"),
    (in_file(records=[]), "one for each computation, found none"),
    (in_file(records=[1]), r"records\[0\]: expected an object"),
    (twice, "one for each computation, found two"),
    (drop("gate", record=True), "a field gate"),
    (drop("report", record=True), "a field report"),
    (drop("backend", record=True), "a field backend"),
    (in_record(report=[]), "report: expected an object"),
    (in_record(backend=1), "backend"),
    (in_record(witness="trust me"), "witness"),
    (in_record(versions=["1"]), "versions"),
    (in_record(questions_sha256="abc"), "a SHA-256"),
    (in_record(extra=1), "only the fields"),
    (in_file(extra=1), "only the fields"),
    (in_file(manifest_sha256="abc"), "a SHA-256"),
    (in_file(manifest_sha256=1), "manifest_sha256"),
    (in_file(manifest_sha256="0" * 64), "a record of the manifest"),
    (in_record(gate=None), "gate: expected an object"),
    (in_gate(passed="yes"), "passed"),
    (in_gate(passed=False), "the result of its checks"),
    (in_gate(verdict="not measured"), "the result of its checks"),
    (in_gate(verdict="surely"), "the result of its checks"),
    (in_gate(checks={}), "a list"),
    (in_gate(checks=[{"name": "x", "limit": 1, "found": 2, "passed": False}]), "the result of its checks"),
    (in_gate(checks=[{"name": "x", "limit": None, "found": 2, "passed": True}]), "limit"),
    (in_gate(surprise=1), "only the fields"),
]


@pytest.mark.parametrize(("damage", "message"), CORRUPTIONS)
def test_each_damage_to_the_record_is_named(recorded, damage, message):
    path = recorded / PARITY_RECORD
    content = path.read_bytes()
    try:
        damage(path)
        with pytest.raises(BundleError, match=message):
            Session.open(recorded, threads=1, require_parity=True)
    finally:
        path.write_bytes(content)


def test_a_report_without_a_gate_is_not_recorded(glimmer, rows, tmp_path):
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    with pytest.raises(ValueError, match="gate"):
        record_parity(bundle, run(glimmer, bundle, rows, None), rows)
    assert not (bundle / PARITY_RECORD).exists()
