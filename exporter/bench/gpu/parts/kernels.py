"""How many kernels each graph and answer launches: last of all, as whoever watches every kernel slows what is timed."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from glimmer_export.exporter.bench.gpu.backends import build_engines_here, described, required
from glimmer_export.exporter.bench.gpu.bundles import random_checkpoint, random_model, random_questions_of
from glimmer_export.exporter.bench.gpu.kernels import count_kernels, engine_layers
from glimmer_export.exporter.bench.gpu.ours import Ours
from glimmer_export.exporter.bench.gpu.parts import decoder_steps, peers, switches
from glimmer_export.exporter.bench.gpu.parts.speed import PRECISION
from glimmer_export.exporter.bench.gpu.runner import Step
from glimmer_export.exporter.bench.gpu.setting import ENGINES, Setting
from glimmer_export.runtime.contract import CROSS_ATTENTION_FORMS

__all__ = ["steps"]

WARM = 3


def steps(setting: Setting) -> list[Step]:
    """Of what was timed: large by each engine and each mode of the peer, the decoder's steps, base by the switches."""
    found = [Step(f"large {engine}", 120, partial(_large, setting, engine)) for engine in ENGINES]
    found += [Step(f"large FiD {mode}", 240, partial(_peer, setting, mode)) for mode in peers.COMPILED_FIRST]
    found += [
        Step(f"{size}-{form} {engine}", 120, partial(_decoder_step, setting, engine, size, layers, form))
        for size, layers in setting.scale.step_layers
        for form in CROSS_ATTENTION_FORMS
        for engine in ENGINES
    ]
    return [*found, Step("base switches", 120, partial(_switches, setting))]


def _large(setting: Setting, engine: str, _: Mapping[str, Any]) -> dict[str, Any]:
    required(setting, engine)
    model, _ = random_model(setting.work, "large", setting.scale, tiny=setting.rehearsal)
    build_engines_here(setting, engine, model, PRECISION)
    questions = random_questions_of(model, setting.scale, 2, seed=2)
    with Ours.open(setting, engine, model, PRECISION) as ours:
        graphs = {
            name: count_kernels(ours.once(name, inputs), engine_layers(ours.graphs[name]))
            for name, inputs in ours.record(questions).items()
        }
        answer = count_kernels(lambda: ours.answer(questions[:1]))
    return {"engine": described(engine, PRECISION), "counts": {**graphs, "an answer": answer}}


def _peer(setting: Setting, mode: str, _: Mapping[str, Any]) -> dict[str, Any]:
    model, _ = random_checkpoint(setting.work, "large", setting.scale, tiny=setting.rehearsal)
    passages = setting.scale.fid_passages[0]
    groups = [[question] for question in random_questions_of(model, setting.scale, 2, seed=4)]
    work = peers.prepared_peer(setting, model, mode, passages, groups)
    for run in range(WARM):
        work(run)
    return {"engine": f"FiD k={passages}, {mode}", "counts": {"an answer": count_kernels(lambda: work(0))}}


def _decoder_step(
    setting: Setting, engine: str, size: str, layers: int, form: str, _: Mapping[str, Any]
) -> dict[str, Any]:
    required(setting, engine)
    model = decoder_steps.thin_model(setting, size, layers, form)
    build_engines_here(setting, engine, model, PRECISION)
    graph = decoder_steps.GRAPH
    with Ours.open(setting, engine, model, PRECISION) as ours:
        inputs = ours.record(random_questions_of(model, setting.scale, 2, seed=6))[graph]
        counted = count_kernels(ours.once(graph, inputs), engine_layers(ours.graphs[graph]))
    return {"engine": described(engine, PRECISION), "layers": layers, "form": form, "counts": {graph: counted}}


def _switches(setting: Setting, _: Mapping[str, Any]) -> dict[str, Any]:
    engine = switches.engine_of(setting)
    model, _ = random_model(setting.work, "base", setting.scale, tiny=setting.rehearsal)
    build_engines_here(setting, engine, model, PRECISION)
    questions = random_questions_of(model, setting.scale, 1, seed=5)
    counts: dict[str, Any] = {}
    for name, options in switches.VARIANTS.items():
        with ExitStack() as opened:
            ours = opened.enter_context(Ours.open(setting, engine, model, PRECISION, **options))
            for _run in range(WARM):
                ours.answer(questions)
            counts[f"an answer, {name}"] = count_kernels(partial(ours.answer, questions))
    return {"engine": described(engine, PRECISION), "counts": counts}
