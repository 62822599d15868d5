"""Every part from end to end at tiny sizes: by ONNX Runtime's device backend on the CPU, and on the fakes of a GPU.

No time is looked at: that the figures are there, fit together and make a page is what a GPU's minutes depend on. What
is quick goes through one model and one mode of the peer; the whole is slow: run it before a GPU's minutes are spent.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from glimmer_export.exporter.bench.gpu.backends import FIRST, PROBES, described, required, working
from glimmer_export.exporter.bench.gpu.bundles import PRECISIONS, random_checkpoint
from glimmer_export.exporter.bench.gpu.fid import MODES
from glimmer_export.exporter.bench.gpu.kernels import count_kernels
from glimmer_export.exporter.bench.gpu.measure import PARTS
from glimmer_export.exporter.bench.gpu.parts import decoder_steps, first, kernels, parity, peers, speed, switches
from glimmer_export.exporter.bench.gpu.report import page
from glimmer_export.exporter.bench.gpu.results import write_results
from glimmer_export.exporter.bench.gpu.runner import FAILED, LEFT, Part, run_part
from glimmer_export.exporter.bench.gpu.setting import ENGINES, ORT_CUDA, RTX, TINY, TORCH, Scale
from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.parity.gate import read_gate

GRAPHS = {"memory_encoder", "live_stage_a", "live_stage_b", "decoder_step"}
CROSS_KV = "cross_kv"
"""Of a model whose decoder is exported in the cached form."""
BESIDE = {described(engine, "fp16") for engine in ENGINES}
"""All engines, as they stand beside figures."""


def positive(*values) -> bool:
    return all(math.isfinite(value) and value > 0 for value in values)


def some(steps, *names):
    """Of a part's steps those named."""
    assert set(names) <= {step.name for step in steps}
    return [step for step in steps if step.name in names]


@pytest.fixture
def own_results(rehearsal, tmp_path):
    """The rehearsal's models, with results of one test's own."""
    return replace(rehearsal, out=tmp_path)


@pytest.fixture
def quick_results(quick, tmp_path):
    """The same of the quick rehearsal."""
    return replace(quick, out=tmp_path)


@pytest.fixture
def nothing_runs(own_results):
    """Part `first` found that TensorRT-RTX refuses the GPU, nothing was carried, and our own CUDA layer fails."""
    part = Part.open(own_results.out, FIRST)
    part.steps = {PROBES[engine]: {"status": FAILED, "error": f"no {engine}"} for engine in ENGINES}
    part.write()
    return own_results


def check_stages(found, engine, scale=TINY):
    assert found["engine"] == engine
    assert GRAPHS <= found["stages"].keys() <= GRAPHS | {CROSS_KV}
    for stage in found["stages"].values():
        one = stage["contenders"][stage["first"]]["median_ms"]
        assert positive(one, stage["floor_ms"], stage["of_floor"])
        names = [f"torch {dtype}" for dtype in speed.TORCH_DTYPES]
        assert list(stage["contenders"]) == (names if engine == "torch" else [engine, *names])
    assert found["stages"]["decoder_step"]["runs"] == scale.answer_tokens
    assert positive(found["sum_ms"])


def check_latency(found, mode, engines=BESIDE):
    assert found["contenders"].keys() == {*engines, mode}
    assert not [row["error"] for row in found["contenders"].values() if "error" in row]
    assert found["ratios"].keys() == engines
    assert positive(*found["ratios"].values(), *(row["median_ms"] for row in found["contenders"].values()))
    assert found["engine"] in ((RTX, ORT_CUDA) if engines else (None,))


def test_the_default_gate_has_questions_to_spare():
    """Else one that is refused, repeated or answered without a word leaves the gate without a verdict."""
    assert Scale().questions >= 1.2 * read_gate("default")[1].min_answered


def test_every_part_has_steps_of_different_names(rehearsal):
    for make in PARTS.values():
        names = [step.name for step in make(rehearsal)]
        assert len(names) == len(set(names)) > 0


@pytest.mark.parametrize(("size", "stage_a"), [("base", 1), ("large", 2)])
def test_a_rehearsal_s_models_are_cut_as_the_real_ones(rehearsal, tmp_path, size, stage_a):
    """One layer of stage A is another graph than several are, and a length beyond a bucket is padded another way."""
    config = read_checkpoint(random_checkpoint(tmp_path, size, TINY, tiny=True)[0].checkpoint).config
    assert config.num_stage_a_layers == stage_a
    assert min(config.num_memory_layers, config.num_stage_b_layers, config.num_decoder_layers) >= 2
    assert TINY.question_tokens + TINY.passage_tokens > 32
    assert len(TINY.batches) == len(Scale().batches)


def test_the_peer_is_measured_where_nothing_of_ours_runs(nothing_runs, run_steps):
    """Nothing is exported for it either: no model of ours is in the folder."""
    fresh = replace(nothing_runs, work=nothing_runs.out / "work")
    few, _ = TINY.fid_passages
    steps = some(peers.steps(fresh, "large"), "t5", f"latency-k{few}-eager", f"throughput-k{few}-eager")
    found = run_steps(fresh, "peers-large", steps).results
    check_latency(found[f"latency-k{few}-eager"], "eager", engines=set())
    assert found[f"latency-k{few}-eager"]["ratio"] is None
    assert positive(found[f"throughput-k{few}-eager"]["best_questions_per_s"]["eager"])
    assert {path.name for path in (fresh.work / "large").iterdir()} == {"checkpoint", "t5"}


def test_torch_is_measured_where_nothing_of_ours_runs(nothing_runs, run_steps):
    """Nor is anything exported for that."""
    fresh = replace(nothing_runs, work=nothing_runs.out / "work")
    found = run_steps(fresh, "large-torch", speed.torch_steps(fresh, "large")).results
    check_stages(found["stages"], "torch")
    assert positive(*found["ceilings"].values())
    assert {path.name for path in (fresh.work / "large").iterdir()} == {"checkpoint"}


def test_an_engine_that_does_not_open_is_left_out_with_its_error(own_results, run_steps):
    """No bundle is there to be opened, as where export failed."""
    fresh = replace(own_results, work=own_results.out / "work")
    few, _ = TINY.fid_passages
    name = f"latency-k{few}-eager"
    found = run_steps(fresh, "peers-large", some(peers.steps(fresh, "large"), "t5", name)).results[name]
    assert found["not_opened"].keys() == set(ENGINES)
    check_latency(found, "eager", engines=set())


def test_a_part_of_an_engine_that_does_not_run_says_why(nothing_runs):
    part = run_part(nothing_runs.out, "parity", parity.steps(nothing_runs, RTX), {"device": "x"}, seconds=60)
    assert part.steps["runs"]["error"].startswith("RuntimeError: tensorrt-rtx does not run here: no tensorrt-rtx")
    assert {step["status"] for name, step in part.steps.items() if name != "runs"} == {LEFT}


def test_speed_by_torch_s_stages(quick_results, run_steps, fakes):
    found = run_steps(quick_results, "large-torch-stages", speed.steps(quick_results, "large", TORCH)).results
    check_stages(found["stages"], "torch stages (bfloat16)", quick_results.scale)
    assert found["answers"]["batches"].keys() == {str(batch) for batch in TINY.batches}
    assert fakes.calls["cudaGraphLaunch"]


def test_the_peer_beside_every_engine(quick_results, run_steps):
    few, _ = TINY.fid_passages
    names = ("t5", "model", *(f"{engine} engines" for engine in ENGINES), f"latency-k{few}-default")
    found = run_steps(quick_results, "peers-large", some(peers.steps(quick_results, "large"), *names)).results
    check_latency(found[f"latency-k{few}-default"], "default")


def test_switches(quick_results, run_steps, fakes):
    found = run_steps(quick_results, "switches-base", switches.steps(quick_results, "large")[:3]).results
    assert found["batch-1"]["engine"] == RTX
    assert found["batch-1"]["same_answers"] == dict.fromkeys(switches.VARIANTS, True)
    assert fakes.calls["cudaGraphLaunch"]


@pytest.mark.slow
def test_first(own_results, run_steps):
    found = run_steps(own_results, FIRST, first.steps(own_results)).results
    assert all(found[probe]["agrees"] for probe in PROBES.values())
    assert found["torch-stages-answers"]["agrees"]
    assert working(own_results) == list(ENGINES)
    assert required(own_results, RTX) == {"engine": RTX}


@pytest.mark.slow
@pytest.mark.parametrize("engine", [RTX, ORT_CUDA])
def test_parity(own_results, run_steps, engine):
    found = run_steps(own_results, f"parity-{engine}", parity.steps(own_results, engine)).results
    for precision in PRECISIONS:
        assert found[f"{precision}-same-graphs"]["engine"] == engine
        assert GRAPHS <= found[f"{precision}-same-graphs"]["graphs"].keys() <= GRAPHS | {CROSS_KV}
        assert found[f"{precision}-same-graphs"]["answers_equal"] == 1
        assert found[f"{precision}-answers"]["questions"] == TINY.questions
        assert found[f"{precision}-answers"]["gate"]["name"] == "default"


@pytest.mark.slow
@pytest.mark.parametrize("size", ["large", "base"])
@pytest.mark.parametrize("engine", [RTX, ORT_CUDA])
def test_speed(own_results, run_steps, engine, size):
    found = run_steps(own_results, f"{size}-{engine}", speed.steps(own_results, size, engine)).results
    check_stages(found["stages"], engine)
    assert found["answers"]["batches"].keys() == {str(batch) for batch in TINY.batches}


@pytest.mark.slow
def test_peers(own_results, run_steps):
    found = run_steps(own_results, "peers-large", peers.steps(own_results, "large")).results
    few, many = TINY.fid_passages
    for mode in MODES:
        for passages in (few, many):
            check_latency(found[f"latency-k{passages}-{mode}"], mode)
        throughput = found[f"throughput-k{few}-{mode}"]
        assert len(throughput["by_batch"]) == len(TINY.batches) - 1
        assert positive(throughput["ratio"], *throughput["ratios"].values())


@pytest.mark.slow
def test_switches_by_torch_s_stages(own_results, run_steps):
    part = Part.open(own_results.out, FIRST)
    part.steps = {PROBES[RTX]: {"status": FAILED, "error": "refused"}}
    part.write()
    found = run_steps(own_results, "switches-base", switches.steps(own_results, "base")).results
    for batch in switches.BATCHES:
        assert found[f"batch-{batch}"]["engine"] == "torch stages (bfloat16)"
        assert found[f"batch-{batch}"]["same_answers"] == dict.fromkeys(switches.VARIANTS, True)


@pytest.mark.slow
def test_decoder_steps_in_both_forms_then_kernels_and_the_page(own_results, run_steps):
    found = run_steps(own_results, "decoder-steps", decoder_steps.steps(own_results)).results
    for size, layers in TINY.step_layers:
        for form in ("absorbed", "cached"):
            step = found[f"{size}-{form}-step"]
            assert (step["layers"], step["form"]) == (layers, form)
            assert step["engines"].keys() == BESIDE
            assert not [row for row in step["engines"].values() if "error" in row]
            assert step["engine"] in (RTX, ORT_CUDA)
            assert positive(step["of_bandwidth_floor"])
    found = run_steps(own_results, "kernels", kernels.steps(own_results)).results
    counts = [count for step in found.values() for count in step["counts"].values()]
    assert {count["how"] for count in counts} == {"not seen"}
    assert list(PARTS)[-1] == "kernels"
    write_results(own_results.out, PARTS, own_results.out / "r.tar.xz")
    text = page(own_results.out / "r.tar.xz")
    assert text.startswith("# Measured on cpu (rehearsal)\n")
    assert "### xl-cached-step: 2 layers, floor " in text


def test_kernels_are_counted_in_the_last_part_alone():
    """Whoever counts them slows what is timed."""
    for module in (decoder_steps, first, parity, peers, speed, switches):
        assert not hasattr(module, count_kernels.__name__)
