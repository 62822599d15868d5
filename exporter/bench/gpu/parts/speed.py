"""One size of random weights: each graph alone against its floor and against torch, and whole answers by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

from glimmer_export.exporter.bench.gpu.backends import build_engines_here, described, refusal, required
from glimmer_export.exporter.bench.gpu.bundles import (
    TARGET,
    Model,
    random_checkpoint,
    random_model,
    random_questions_of,
)
from glimmer_export.exporter.bench.gpu.floors import run_floors
from glimmer_export.exporter.bench.gpu.ours import AT_ONCE, Ours, host_inputs
from glimmer_export.exporter.bench.gpu.runner import Step
from glimmer_export.exporter.bench.gpu.setting import ENGINES, Setting
from glimmer_export.exporter.bench.gpu.timing import interleaved_ms, spread
from glimmer_export.exporter.bench.gpu.torch_stages import Described, ModelGraphs, TorchStages
from glimmer_export.runtime.contract import read_manifest

__all__ = ["PRECISION", "engine_steps", "model_step", "steps", "torch_steps"]

PRECISION = "fp16"
TORCH_DTYPES = ("float16", "bfloat16")
INPUT_SETS = 6
"""Different inputs that a graph's runs take in turn, so that none finds the last one's in the cache."""


def steps(setting: Setting, size: str, engine: str) -> list[Step]:
    """What is measured of one engine alone; `peers` puts it beside others."""
    return [
        Step("runs", 5, lambda _: required(setting, engine)),
        model_step(setting, size, needs=("runs",)),
        Step("engines", 120, partial(_engines, setting, size, engine), needs=("model",)),
        Step("stages", 120, partial(_stages, setting, size, engine), needs=("engines",)),
        Step("answers", 90, partial(_answers, setting, size, engine), needs=("engines",)),
    ]


def torch_steps(setting: Setting, size: str) -> list[Step]:
    """What needs torch alone: this GPU's ceilings, and our stages as torch runs them, on random inputs."""
    return [
        Step("ceilings", 30, partial(_ceilings, setting)),
        Step("stages", 240, partial(_torch_stages, setting, size)),
    ]


def model_step(setting: Setting, size: str, *, needs: tuple[str, ...] = ()) -> Step:
    """Export, calibrate and convert; whatever is in the work folder already is not made again."""
    make = lambda _: random_model(setting.work, size, setting.scale, tiny=setting.rehearsal)[1]  # noqa: E731
    return Step("model", 420, make, needs=needs)


def engine_steps(setting: Setting, size: str) -> list[Step]:
    """Engines of whatever may work here and needs some."""
    return [
        Step(f"{engine} engines", 120, partial(_engines_of_any, setting, size, engine), needs=("model",))
        for engine in ENGINES
    ]


def _model(setting: Setting, size: str) -> Model:
    return random_model(setting.work, size, setting.scale, tiny=setting.rehearsal)[0]


def _checkpoint(setting: Setting, size: str) -> Model:
    return random_checkpoint(setting.work, size, setting.scale, tiny=setting.rehearsal)[0]


def _engines(setting: Setting, size: str, engine: str, _: Mapping[str, Any]) -> dict[str, Any]:
    return {"engine": engine, **build_engines_here(setting, engine, _model(setting, size), PRECISION)}


def _engines_of_any(setting: Setting, size: str, engine: str, results: Mapping[str, Any]) -> dict[str, Any]:
    because = refusal(setting, engine)
    if because is not None:
        return {"engine": engine, "runs": False, "because": because}
    return _engines(setting, size, engine, results)


def _ceilings(setting: Setting, _: Mapping[str, Any]) -> dict[str, Any]:
    """What this GPU does at best through torch: a copy, bytes read and written counted, and a square FP16 product."""
    import torch

    scale, device = setting.scale, setting.torch_device
    source = torch.randint(0, 1 << 30, (scale.copy_bytes // 4,), dtype=torch.int32, device=device)
    target = torch.empty_like(source)
    first, second = (torch.randn(scale.matrix_size, scale.matrix_size, device=device).half() for _ in range(2))
    wait: Callable[[], Any] = torch.cuda.synchronize if device == "cuda" else (lambda: None)

    def copy(_: int) -> None:
        target.copy_(source)
        wait()

    def product(_: int) -> None:
        first @ second
        wait()

    times = interleaved_ms({"copy": copy, "product": product}, repeats=setting.scale.repeats)
    return {
        "copy_gb_per_s": 2 * scale.copy_bytes / median(times["copy"]) / 1e6,
        "fp16_tflops": 2 * scale.matrix_size**3 / median(times["product"]) / 1e9,
    }


def _stages(setting: Setting, size: str, engine: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """Each graph alone on real inputs, ours and torch's in turn, with its floor."""
    model = _model(setting, size)
    questions = random_questions_of(model, setting.scale, INPUT_SETS, seed=2)
    with Ours.open(setting, engine, model, PRECISION) as ours:
        recorded = ours.record(questions)
        alone = {name: ours.alone(name, inputs) for name, inputs in recorded.items()}
        inputs = {name: host_inputs(rows) for name, rows in recorded.items()}
        contenders = {described(engine, PRECISION): alone}
        found = _timed(setting, model, read_manifest(model.bundle(PRECISION)), inputs, contenders)
    return {"engine": described(engine, PRECISION), "precision": PRECISION, **found}


def _torch_stages(setting: Setting, size: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """Torch's own runs of our stages, without our CUDA layer or any engine; nothing is exported for them."""
    from glimmer_export.exporter.graphs.samples import Sizes, sample_inputs

    model, scale = _checkpoint(setting, size), setting.scale
    graphs = ModelGraphs.of(model.checkpoint, TARGET)
    tokens = scale.question_tokens + scale.passage_tokens
    sizes = Sizes(
        1, passages=scale.k, selected=scale.m, question=scale.question_tokens, passage=scale.passage_tokens,
        encoder_tokens=scale.m * tokens, prefix=1, cache_length=graphs.model.cache_length,
    )
    inputs = {
        name: [sample_inputs(io, graphs.model, sizes, seed=seed) for seed in range(INPUT_SETS)]
        for name, io in graphs.io().items()
    }
    return {"engine": "torch", "precision": PRECISION, **_timed(setting, model, graphs, inputs, {})}


def _timed(
    setting: Setting, model: Model, manifest: Described, inputs: Mapping[str, Sequence[Mapping[str, Any]]],
    contenders: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """By graph: the contenders and torch in each dtype, in turn; ratios are to the first of them.

    `manifest` describes the graphs that take the inputs.
    """
    floors = run_floors(manifest, setting.scale)
    torch = {f"torch {dtype}": TorchStages(model.checkpoint, setting.torch_device, dtype) for dtype in TORCH_DTYPES}
    stages: dict[str, Any] = {}
    for name, rows in inputs.items():
        work = {who: works[name] for who, works in contenders.items()}
        work |= {who: stages_.work(manifest, name, rows, AT_ONCE) for who, stages_ in torch.items()}
        times = interleaved_ms(work, repeats=setting.scale.stage_repeats)
        per_run = {who: [value / AT_ONCE for value in values] for who, values in times.items()}
        first = next(iter(per_run))
        one = median(per_run[first])
        stages[name] = {
            **floors[name], "of_floor": floors[name]["floor_ms"] / one, "first": first,
            "contenders": {who: spread(values) for who, values in per_run.items()},
            "ratios": {who: median(values) / one for who, values in per_run.items() if who != first},
        }
    in_all = sum(stage["runs"] * stage["contenders"][stage["first"]]["median_ms"] for stage in stages.values())
    floor = sum(stage["runs"] * stage["floor_ms"] for stage in stages.values())
    return {"stages": stages, "sum_ms": in_all, "floor_ms": floor}


def _answers(setting: Setting, size: str, engine: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """Whole answers, text to tokens, by batch."""
    model, scale = _model(setting, size), setting.scale
    questions = random_questions_of(model, scale, 2 * max(scale.batches), seed=3)
    with Ours.open(setting, engine, model, PRECISION) as ours:
        batches = {}
        for batch in scale.batches:
            groups = [questions[start : start + batch] for start in range(0, len(questions), batch)]
            work = {"ours": lambda run, groups=groups: ours.answer(groups[run % len(groups)])}
            times = interleaved_ms(work, repeats=scale.repeats)["ours"]
            batches[str(batch)] = {**spread(times), "questions_per_s": 1e3 * batch / median(times)}
    return {"engine": described(engine, PRECISION), "precision": PRECISION, "batches": batches}
