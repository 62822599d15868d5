"""A bundle with both forms of cross-attention: each answers alike, the faster is chosen where it can be timed."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from glimmer_export.calibration.ranges_file import read_ranges
from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from glimmer_export.exporter.config.targets import read_target
from glimmer_export.exporter.engines import build as builds
from glimmer_export.exporter.engines import build_engines, choose_form_here
from glimmer_export.exporter.engines.compiler import Compiler
from glimmer_export.exporter.engines.cross_attention import drafted_runs, form_on_engines
from glimmer_export.exporter.lint import limits_of, lint_bundle
from glimmer_export.exporter.parity import ParityOptions, ParityRequest, run_parity
from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    CROSS_ATTENTION_FORMS,
    ENGINE_RECORD,
    MANIFEST,
    MEASURED,
    RECKONED,
    BackendError,
    BundleError,
    EngineRecord,
    FormChoice,
    OptionError,
    read_engine_record,
    read_manifest,
    record_to_json,
)
from glimmer_export.runtime.decode import SingleSteps
from tests.bundle_factory import rewrite, write_rows
from tests.calibrated import calibrated, quantized
from tests.cli.conftest import cli  # noqa: F401  (a fixture)
from tests.exported import QUESTIONS, copy_bundle
from tests.parity.asked import answered_rows, write_gate
from tests.runtime.backends.conftest import gpu  # noqa: F401  (a fixture)
from tests.runtime.backends.fake_tensorrt import write_engines

AGX = "jetson-orin-agx"
DECODER = {"absorbed": {"decoder_step"}, "cached": {"cross_kv", "decoder_step"}}
OTHER = dict(zip(CROSS_ATTENTION_FORMS, reversed(CROSS_ATTENTION_FORMS), strict=True))


@pytest.fixture(scope="module")
def both(exported):
    return exported("glimmer, both forms")


@pytest.fixture
def bundle(both, tmp_path) -> Path:
    return copy_bundle(both, tmp_path / "bundle")


def choose(bundle: Path, form: str) -> Path:
    """Write a choice, as a measurement would."""
    manifest = read_manifest(bundle)
    choice = replace(manifest.cross_attention_choice, form=form, by=MEASURED, ratio=1.5)
    (bundle / MANIFEST).write_text(record_to_json(manifest.chosen(choice)), encoding="utf-8")
    return bundle


def decoder_of(session: Session) -> set[str]:
    return {name for name in session.graphs if name.startswith(("cross", "decoder_s"))}


def slow(monkeypatch: pytest.MonkeyPatch, graph: str) -> None:
    """Let every run of a graph take ten milliseconds more."""
    load = OnnxRuntimeBackend.load

    class Slow:
        def __init__(self, loaded) -> None:
            self._loaded = loaded

        def run(self, inputs):
            time.sleep(0.01)
            return self._loaded.run(inputs)

    def loaded(self, path, io):
        found = load(self, path, io)
        return Slow(found) if path.stem == graph else found

    monkeypatch.setattr(OnnxRuntimeBackend, "load", loaded)


def test_an_export_has_both_and_the_reckoned_one_answers(both):
    manifest = read_manifest(both.bundle)
    decoder = [name for name in manifest.graphs if name.startswith(("cross", "decoder"))]
    assert decoder == ["decoder_step.absorbed", "cross_kv", "decoder_step.cached"]
    choice = manifest.cross_attention_choice
    assert choice == FormChoice(manifest.cross_attention, RECKONED, "cpu", manifest.model.max_new_tokens, None)
    assert len(both.graphs) == len(manifest.graphs)
    assert all(graph.max_abs_err is not None for graph in both.graphs)


@pytest.mark.parametrize("variant", ["glimmer", pytest.param("memory_fid", marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", CROSS_ATTENTION_FORMS)
def test_either_form_answers_as_a_bundle_of_one_form(exported, tmp_path, variant, form):
    source = exported(f"{variant}, both forms")
    bundle = choose(copy_bundle(source, tmp_path / "bundle"), form)
    expected = exported(variant).session.answer_many(QUESTIONS)
    with Session.open(bundle, source.store, threads=1, backend="onnxruntime-cpu") as session:
        assert ("cross_kv" in session.graphs) == (form == "cached")
        assert len(session.graphs) == len(set(session.graphs))
        answers = session.answer_many(QUESTIONS)
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in expected]


@pytest.mark.parametrize("form", CROSS_ATTENTION_FORMS)
def test_build_for_a_cpu_times_both_and_chooses_the_faster(cli, bundle, monkeypatch, form):  # noqa: F811
    slow(monkeypatch, f"decoder_step.{OTHER[form]}")
    report = cli("build", bundle, "--target", "cpu", "--json").json
    choice = read_manifest(bundle).cross_attention_choice
    assert report["cross_attention"] == vars(choice)
    assert (choice.form, choice.by, choice.target) == (form, MEASURED, "cpu")
    assert choice.ratio > 1
    Bundle.open(bundle)
    shown = cli("inspect", bundle)
    assert f"{form} of both, measured for cpu" in " ".join(shown.out.split())


def test_what_is_timed_runs_the_positions_of_drafts(bundle, monkeypatch):
    verified = []
    run = SingleSteps.verify

    def verify(steps, ids, positions):
        verified.append(ids.shape[1])
        return run(steps, ids, positions)

    monkeypatch.setattr(SingleSteps, "verify", verify)
    choice = choose_form_here(bundle, "cpu")
    an_answer = drafted_runs(choice.answer_tokens)[1:]
    assert len(an_answer) > 0
    assert verified[: len(an_answer)] == an_answer
    assert len(verified) % (2 * len(an_answer)) == 0


def test_a_bundle_of_one_form_has_nothing_to_choose(glimmer):
    with pytest.raises(OptionError, match="--cross-attention both"):
        choose_form_here(glimmer.bundle, "cpu")


def test_both_are_calibrated_and_quantised(both):
    bundle = calibrated(both)
    table = read_ranges(bundle, read_manifest(bundle))
    assert set(table.graphs) == set(read_manifest(bundle).graphs)
    alone = table.graphs["decoder_step.absorbed"], table.graphs["decoder_step.cached"]
    assert alone[0]["logits"].count == alone[1]["logits"].count > 0
    assert alone[0]["logits"].amax == pytest.approx(alone[1]["logits"].amax, rel=1e-3)
    for precision in ("fp16", "int8-fp16"):
        made = read_manifest(quantized(both, precision))
        assert list(made.graphs) == list(read_manifest(bundle).graphs)
        assert made.graphs["decoder_step.absorbed"].precision == made.graphs["decoder_step.cached"].precision
        assert made.cross_attention_choice.by == RECKONED
        limits = limits_of(read_target("t4").tensorrt, "tensorrt")
        assert lint_bundle(Bundle.open(quantized(both, precision)), limits) == []


def test_what_precedes_the_decoder_is_calibrated_once(both, exported):
    alone = calibrated(exported("glimmer"))
    one = read_ranges(alone, read_manifest(alone)).graphs["live_stage_b"]["encoder_hidden_states"]
    bundle = calibrated(both)
    two = read_ranges(bundle, read_manifest(bundle)).graphs["live_stage_b"]["encoder_hidden_states"]
    assert two.count == one.count


def test_a_choice_that_was_measured_in_fp32_is_none_of_quantised_graphs(both, tmp_path):
    bundle = choose(Path(shutil.copytree(calibrated(both), tmp_path / "bundle")), "cached")
    done = quantize_bundle(bundle, tmp_path / "fp16", QuantizeOptions("fp16", "tensorrt"))
    assert {"decoder_step.absorbed", "decoder_step.cached"} <= set(done)
    choice = read_manifest(tmp_path / "fp16").cross_attention_choice
    assert (choice.by, choice.ratio) == (RECKONED, None)


def test_sensitivity_and_parity_take_the_form_that_answers(cli, both, tmp_path):  # noqa: F811
    bundle = Path(shutil.copytree(calibrated(both), tmp_path / "bundle"))
    questions = write_rows(tmp_path / "questions.jsonl", [{"question": text} for text in QUESTIONS])
    report = cli(
        "sensitivity", bundle, "--store", both.store, "--questions", questions, "--samples", 2, "--threads", 1,
        "--graphs", "decoder_step", "--json",
    ).json
    assert {row["graph"] for row in report["groups"]} == {"decoder_step"}
    gate = write_gate(tmp_path)
    rows = answered_rows(both)
    for form in CROSS_ATTENTION_FORMS:
        choose(bundle, form)
        request = ParityRequest(
            bundle, checkpoint=both.checkpoint, store=both.store, options=ParityOptions(threads=1), gate=gate
        )
        found = run_parity(request, rows)
        assert found.gate.passed
        assert set(found.graphs) >= DECODER[form]
        with Session.open(bundle, both.store, backend="onnxruntime-cpu", require_parity=True) as session:
            assert decoder_of(session) == DECODER[form]
    with pytest.raises(BundleError, match="a record of the manifest"):
        Session.open(choose(bundle, "absorbed"), both.store, backend="onnxruntime-cpu", require_parity=True)


DAMAGE = [
    ({"form": "sideways"}, "a form of cross-attention"), ({"form": "cached"}, "as it was chosen"),
    ({"by": "guessed"}, "reckoned or measured"), ({"answer_tokens": 0}, "at least 1"),
    ({"ratio": 2.0}, "of a measured choice"), ({"by": "measured"}, "of a measured choice"),
    ({"by": "measured", "ratio": 0.5}, "of a measured choice"), ({"target": 3}, "str"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "message"), DAMAGE)
def test_a_damaged_choice_is_refused_by_name(both, bundle, fields, message):
    path = bundle / MANIFEST
    data = json.loads(path.read_text(encoding="utf-8"))
    data["cross_attention"] = "absorbed"
    data["cross_attention_choice"] = {**data["cross_attention_choice"], "form": "absorbed"} | fields
    rewrite(path, **data)
    with pytest.raises(BundleError, match=message):
        read_manifest(bundle)


def test_a_choice_without_the_other_forms_graphs_is_refused(glimmer, tmp_path):
    bundle = copy_bundle(glimmer, tmp_path / "bundle")
    choice = {"form": "cached", "by": "reckoned", "target": "cpu", "answer_tokens": 8}
    rewrite(bundle / MANIFEST, cross_attention_choice=choice)
    with pytest.raises(BundleError, match=r"decoder_step\.absorbed"):
        read_manifest(bundle)


@pytest.fixture
def scripted(monkeypatch) -> None:
    def compile_graph(_self, path, _profiles, _timings):
        return path.stem.encode()

    monkeypatch.setattr(Compiler, "compile", compile_graph)


def test_engines_that_cannot_be_timed_keep_the_reckoned_form(cli, bundle, scripted):  # noqa: F811
    built = build_engines(bundle, AGX, "tensorrt-rtx")
    assert {"decoder_step.absorbed", "decoder_step.cached", "cross_kv"} <= set(built.record.engines)
    choice = built.record.cross_attention
    assert (choice.by, choice.target, choice.ratio) == (RECKONED, AGX, None)
    assert built.not_measured
    assert read_engine_record(built.directory) == built.record
    assert "reckoned for jetson-orin-agx" in cli("build", bundle, "--target", AGX, "--compiler", "tensorrt-rtx").out


def test_what_was_measured_stays_until_engines_are_built_anew(bundle, scripted, monkeypatch):
    measured: list[str] = []

    def measure(_bundle: Bundle, record: EngineRecord) -> FormChoice:
        measured.append(record.target)
        return replace(record.cross_attention, form="cached", by=MEASURED, ratio=1.25)

    monkeypatch.setattr(builds, "form_on_engines", measure)
    for _ in range(2):
        built = build_engines(bundle, AGX, "tensorrt-rtx")
        assert built.record.cross_attention == read_engine_record(built.directory).cross_attention
        assert (built.record.cross_attention.ratio, built.not_measured) == (1.25, None)
    assert measured == [AGX]
    build_engines(bundle, AGX, "tensorrt-rtx", force=True)
    assert measured == [AGX] * 2


@pytest.fixture
def engined(bundle, gpu) -> Path:  # noqa: F811
    """A bundle with engines for the fake GPU, reckoned absorbed; returns their directory."""
    manifest = read_manifest(bundle)
    directory = write_engines(bundle, gpu(order=1).key)
    record = read_engine_record(directory)
    choice = FormChoice("absorbed", RECKONED, "t4", manifest.model.max_new_tokens)
    (directory / ENGINE_RECORD).write_text(record_to_json(replace(record, cross_attention=choice)), encoding="utf-8")
    return directory


def test_engines_are_timed_on_the_device(bundle, engined):
    record = read_engine_record(engined)
    choice = form_on_engines(Bundle.open(bundle), record)
    assert (choice.by, choice.target, choice.answer_tokens) == (MEASURED, "t4", record.cross_attention.answer_tokens)
    assert choice.ratio >= 1
    with pytest.raises(BackendError, match="the engines that this GPU would run"):
        form_on_engines(Bundle.open(bundle), replace(record, target="jetson-orin-agx"))


@pytest.mark.parametrize("form", CROSS_ATTENTION_FORMS)
def test_a_session_opens_the_engines_that_were_chosen_and_no_other(both, bundle, engined, form):
    choose(bundle, OTHER[form])  # of the CPU
    record = read_engine_record(engined)
    choice = replace(record.cross_attention, form=form)
    (engined / ENGINE_RECORD).write_text(record_to_json(replace(record, cross_attention=choice)), encoding="utf-8")
    (engined / f"decoder_step.{OTHER[form]}.engine").unlink()
    expected = both.session.answer_many(QUESTIONS)
    with Session.open(bundle, both.store, backend="tensorrt", verify=False) as session:
        assert decoder_of(session) == DECODER[form]
        assert session.bundle.manifest.cross_attention == form
        answers = session.answer_many(QUESTIONS)
    assert [answer.token_ids for answer in answers] == [answer.token_ids for answer in expected]
    with Session.open(bundle, both.store, backend="onnxruntime-cpu", verify=False) as session:
        assert decoder_of(session) == DECODER[OTHER[form]]
