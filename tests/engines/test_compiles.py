"""Every graph, in FP16 and INT8, keeps TensorRT's rules and compiles with TensorRT-RTX for sm_75, sm_80 and sm_86.

Engines are not run here: that needs a GPU.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest

from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.bundle import FormOptions, export_bundle
from glimmer_export.exporter.bundle.calibrate import calibrate_bundle
from glimmer_export.exporter.bundle.quantize import ANY_SPEED, QuantizeOptions, quantize_bundle
from glimmer_export.exporter.config.targets import TensorRTTarget, read_target
from glimmer_export.exporter.demo.world import World, generate_split
from glimmer_export.exporter.engines.profiles import graph_profiles
from glimmer_export.exporter.lint import limits_of, lint_bundle
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import ARCHITECTURES, read_manifest
from glimmer_export.runtime.store import Passage
from tests.calibrated import calibrated
from tests.engines.ahead_of_time import CAPABILITIES, compiler
from tests.engines.base_size import FORMS, PRECISIONS, measure
from tests.engines.kernels import input_dims, kernels_of, row_of, sizes_of
from tests.exported import EXACT_ALGEBRA, FAST, PAPER_FORM, QUESTIONS, SLOW

T4, JETSON = (read_target(name).tensorrt for name in ("t4", "jetson-orin-agx"))
BATCHES = T4.model_copy(update={"profiles": T4.profiles[1:]})
QUICK = ("glimmer, every option", "glimmer, exact algebra, two layers", "lumen", "memory_fid", "fid")
"""Between them every graph there is, in one form or the other; other tests have them exported too."""


def variants(quick: Sequence[str]) -> list:
    return [pytest.param(name, marks=[] if name in quick else pytest.mark.slow) for name in FAST | SLOW]


def check(bundle_dir: Path, precision: str, directory: Path, target: TensorRTTarget = T4) -> None:
    """Quantise, hold against the rules of T4 and Jetson, and compile each graph for all capabilities."""
    quantize_bundle(bundle_dir, directory, QuantizeOptions(precision, "tensorrt", gpu=ANY_SPEED))
    bundle = Bundle.open(directory)
    limits = [limits_of(T4, "tensorrt"), limits_of(JETSON, "tensorrt"), limits_of(T4, "tensorrt-rtx")]
    capabilities = CAPABILITIES
    if "fp16" not in precision:  # INT8 beside FP32 is not for TensorRT-RTX on sm_75
        limits, capabilities = limits[:2], CAPABILITIES[1:]
    for one in limits:
        assert [finding.text for finding in lint_bundle(bundle, one)] == []
    for graph in bundle.manifest.graphs:
        shapes = graph_profiles(bundle.manifest, graph, target)
        engine = compiler(*capabilities).compile(bundle.graph_path(graph), shapes, directory / "timing.cache")
        assert engine.nbytes > bundle.graph_path(graph).stat().st_size // 2


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("variant", variants(QUICK))
def test_every_graph_compiles(exported, tmp_path, variant, precision):
    check(calibrated(exported(variant)), precision, tmp_path / precision, BATCHES)


@pytest.mark.parametrize("variant", variants([]))
def test_every_graph_compiles_in_its_other_form(exported, tmp_path, variant):
    source = exported(variant)
    selects = source.shape.traits.selects
    other = EXACT_ALGEBRA
    if source.forms.cross_attention == "absorbed":
        other = PAPER_FORM if selects else FormOptions(None, "cached")
    export_bundle(source.checkpoint, tmp_path / "bundle", other)
    forms = read_manifest(tmp_path / "bundle").forms
    assert forms.cross_attention != source.forms.cross_attention
    mean = source.model.config.score_pooling == "mean"
    assert (forms.stage_a != source.forms.stage_a) == (selects and not mean)
    questions = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS)]
    calibrate_bundle(tmp_path / "bundle", source.store, questions, CalibrationOptions(threads=1))
    for precision in PRECISIONS:
        check(tmp_path / "bundle", precision, tmp_path / precision, BATCHES)


@pytest.mark.parametrize("variant", variants([]))
def test_int8_beside_fp32_compiles_for_newer_gpus(exported, tmp_path, variant):
    check(calibrated(exported(variant)), "int8", tmp_path / "int8")


@pytest.fixture(scope="module")
def calibrated_demo(demo_bundles, tmp_path_factory) -> Callable[[str], Path]:
    """Gives the demo's bundle of a form with ranges of a few questions, which bring the texts of their passages."""
    world = generate_split("test", 4, seed=3)
    questions = [
        Question(str(row["qid"]), row["question"], (), tuple(texts(world, row["ctx_ids"])), ())
        for row in world.questions
    ]

    @cache
    def get(form: str) -> Path:
        bundle = Path(shutil.copytree(demo_bundles[form], tmp_path_factory.mktemp("demo") / "bundle"))
        calibrate_bundle(bundle, None, questions, CalibrationOptions(given=True, threads=1))
        return bundle

    return get


def texts(world: World, ids: list[int]) -> list[Passage]:
    return [Passage(place, world.corpus[place]["title"], world.corpus[place]["text"]) for place in ids]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("form", ["exact algebra", pytest.param("paper's form", marks=pytest.mark.slow)])
def test_the_demo_compiles(calibrated_demo, tmp_path, form, precision):
    """The tiny models have the graphs of the paper's form, too."""
    check(calibrated_demo(form), precision, tmp_path / precision)


def test_no_weight_is_copied_for_the_rows_of_a_batch(calibrated_demo, tmp_path):
    """Nor for the positions of a draft."""
    quantize_bundle(calibrated_demo("exact algebra"), tmp_path / "fp16", QuantizeOptions("fp16", "tensorrt"))
    bundle = Bundle.open(tmp_path / "fp16")
    for name, positions in (("live_stage_a", 1), ("decoder_step", 1), ("decoder_step", 5)):
        sizes = {**sizes_of(bundle.manifest.model, 4), "positions": positions}
        dims = input_dims(bundle.manifest.io()[name], sizes)
        compiled = row_of(kernels_of(bundle.graph_path(name), dims))
        assert compiled["constant_bytes"] <= 1.05 * bundle.manifest.graphs[name].weight_bytes, sizes


@pytest.mark.slow
def test_base_size_compiles(tmp_path):
    output = tmp_path / "report.json"
    report = measure("base", output)
    assert report == json.loads(output.read_text(encoding="utf-8"))
    assert set(report["models"]) == {f"{architecture}, {form}" for architecture in ARCHITECTURES for form in FORMS}
    rows = [row for model in report["models"].values() for graphs in model.values() for row in graphs.values()]
    assert all(row["engine_bytes"] > row["graph_bytes"] // 2 for row in rows)
