"""Every part from end to end at tiny sizes: by ONNX Runtime's device backend on the CPU, and on the fakes of a GPU.

No time is looked at: that the figures are there, fit together and make a page is what a GPU's minutes depend on. Those
that export models of their own are slow: run them before a GPU's minutes are spent.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from exporter.parity.gate import read_gate
from tests.gpu import backends
from tests.gpu.bundles import PRECISIONS, random_model
from tests.gpu.fid import MODES
from tests.gpu.measure import PARTS
from tests.gpu.parts import decoder_steps, engines, parity, peers, speed, switches
from tests.gpu.report import page
from tests.gpu.setting import RTX, Scale
from tests.runtime.backends.fake_cuda import FakeCuda
from tests.runtime.backends.fake_tensorrt import FakeTensorRT, write_engines

GRAPHS = {"memory_encoder", "live_stage_a", "live_stage_b", "decoder_step"}


@pytest.fixture
def fake_gpu(monkeypatch, tmp_path) -> FakeTensorRT:
    """TensorRT-RTX on a fake H200; engines are the fake's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cuda = FakeCuda(name="NVIDIA H200", capability=(9, 0)).install(monkeypatch)
    library = FakeTensorRT(cuda, "tensorrt_rtx", "1.7.1.116").install(monkeypatch)

    def build(setting, bundle):
        if not (bundle / "engines" / library.key.fingerprint).exists():
            write_engines(bundle, library.key, batches=(1, 64))
        return {}

    for module in (backends, decoder_steps, parity, speed):
        monkeypatch.setattr(module, "build_engines_here", build)
    yield library
    cuda.check_clean()


@pytest.fixture
def on_fakes(rehearsal, fake_gpu, tmp_path):
    """The rehearsal's models, through the TensorRT backend; the torch peers stay on the CPU."""
    return replace(rehearsal, backend=RTX, out=tmp_path)


def positive(*values) -> bool:
    return all(math.isfinite(value) and value > 0 for value in values)


@pytest.mark.slow
def test_engines(rehearsal, run_steps):
    found = run_steps(rehearsal, "engines", engines.steps(rehearsal)).results
    assert found["choice"] == {"backend": rehearsal.backend, "capability": "CURRENT"}
    for name in ("CURRENT", *engines.CAPABILITIES):
        assert found[name]["agrees"], found[name]
        assert found[name]["graphs"].keys() == {f"{precision}/{graph}" for precision in PRECISIONS for graph in GRAPHS}


@pytest.mark.slow
def test_parity(rehearsal, run_steps):
    found = run_steps(rehearsal, "parity", parity.steps(rehearsal)).results
    for precision in PRECISIONS:
        assert found[f"{precision}-same-graphs"]["graphs"].keys() == GRAPHS
        assert found[f"{precision}-same-graphs"]["answers_equal"] == 1
        assert found[f"{precision}-answers"]["questions"] == rehearsal.scale.questions
        assert found[f"{precision}-answers"]["gate"]["name"] == "default"


def test_the_default_gate_has_questions_to_spare():
    """Else one that is refused, repeated or answered without a word leaves the gate without a verdict."""
    assert Scale().questions >= 1.2 * read_gate("default")[1].min_answered


def test_speed(rehearsal, run_steps):
    found = run_steps(rehearsal, "speed-large", speed.steps(rehearsal, "large")).results
    assert found["stages"]["stages"].keys() == GRAPHS
    for stage in found["stages"]["stages"].values():
        assert positive(stage["ours"]["median_ms"], stage["floor_ms"], stage["of_floor"])
        assert stage["ratios"].keys() == {f"torch {dtype}" for dtype in speed.TORCH_DTYPES}
        assert stage["kernels"]["how"] == "not seen"
    assert found["stages"]["stages"]["decoder_step"]["runs"] == rehearsal.scale.answer_tokens
    assert found["answers"]["batches"].keys() == {str(batch) for batch in rehearsal.scale.batches}
    assert positive(*found["ceilings"].values())


def test_peers(rehearsal, run_steps):
    found = run_steps(rehearsal, "peers-large", peers.steps(rehearsal, "large")).results
    few, many = rehearsal.scale.fid_passages
    for mode in MODES:
        for passages in (few, many):
            latency = found[f"latency-k{passages}-{mode}"]
            assert not [row["error"] for row in latency["contenders"].values() if "error" in row]
            assert positive(latency["ratio"])
        assert positive(found[f"throughput-k{few}-{mode}"]["ratio"])


def test_switches(rehearsal, run_steps):
    found = run_steps(rehearsal, "switches-base", switches.steps(rehearsal, "large")).results
    for batch in switches.BATCHES:
        assert found[f"batch-{batch}"]["same_answers"] == dict.fromkeys(switches.VARIANTS, True)


@pytest.mark.slow
def test_decoder_steps(rehearsal, run_steps):
    found = run_steps(rehearsal, "decoder-steps", decoder_steps.steps(rehearsal)).results
    for size, layers in rehearsal.scale.step_layers:
        assert found[f"{size}-step"]["layers"] == layers
        assert positive(found[f"{size}-step"]["median_ms"], found[f"{size}-step"]["of_bandwidth_floor"])


@pytest.mark.slow
def test_the_page_of_a_rehearsal_says_that_it_is_one(rehearsal, run_steps):
    run_steps(rehearsal, "decoder-steps", decoder_steps.steps(rehearsal))
    assert page(rehearsal.out).startswith("# Measured on cpu (rehearsal)\n")


def test_every_part_has_steps_of_different_names(rehearsal):
    for make in PARTS.values():
        names = [step.name for step in make(rehearsal)]
        assert len(names) == len(set(names)) > 0


@pytest.mark.slow
def test_engines_on_fakes(on_fakes, fake_gpu, run_steps, monkeypatch):
    """Each capability's engine is compiled, loaded and run by the code that a GPU sees; two of them refuse."""
    written = {}

    def compile_graph(compiler, path, profiles, timings):
        bundle = path.parent.parent
        if bundle not in written:
            written[bundle] = write_engines(bundle, replace(fake_gpu.key, version="0.0.1"))
        capability = compiler.key.compute_capability
        if capability == "12.0":
            raise ValueError("no kernel for sm_120")
        return b"{" if capability == "7.5" else (written[bundle] / f"{path.stem}.engine").read_bytes()

    monkeypatch.setattr("exporter.engines.compiler.Compiler.compile", compile_graph)
    found = run_steps(on_fakes, "engines", engines.steps(on_fakes)).results
    verdicts = {name: (found[name]["built"], found[name]["deserialised"], found[name]["agrees"]) for name in found
                if "graphs" in found[name]}  # fmt: skip
    assert verdicts == {
        "CURRENT": (True, True, True), "7.5": (True, False, False), "8.0": (True, True, True),
        "8.6": (True, True, True), "8.9": (True, True, True), "12.0": (False, False, False),
    }  # fmt: skip
    assert found["choice"] == {"backend": RTX, "capability": "CURRENT"}


def test_switches_on_fakes(on_fakes, fake_gpu, run_steps):
    found = run_steps(on_fakes, "switches-base", switches.steps(on_fakes, "large")).results
    assert found["batch-1"]["same_answers"] == dict.fromkeys(switches.VARIANTS, True)
    assert fake_gpu.cuda.calls["cudaGraphLaunch"]


def test_speed_and_steps_on_fakes(on_fakes, fake_gpu, run_steps):
    model, _ = random_model(on_fakes.work, "large", on_fakes.scale, tiny=True)
    steps = [step for step in speed.steps(on_fakes, "large") if step.name in ("model", "engines", "stages")]
    found = run_steps(on_fakes, "speed-large", steps).results
    assert found["stages"]["stages"].keys() == GRAPHS
    assert positive(found["stages"]["sum_ms"])
    assert (model.bundle(speed.PRECISION) / "engines").is_dir()


@pytest.mark.slow
def test_parity_on_fakes(on_fakes, run_steps):
    found = run_steps(on_fakes, "parity", parity.steps(on_fakes)).results
    for precision in PRECISIONS:
        assert found[f"{precision}-same-graphs"]["answers_equal"] == 1
