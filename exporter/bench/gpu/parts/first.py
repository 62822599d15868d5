"""The first look: does our CUDA layer run here, and which engines? Nothing is timed, and nothing waits for long.

FP32 and the demo's model alone, so that neither calibration nor anything that is carried is in the way of an answer.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np

from glimmer_export.exporter.bench.gpu.agreement import agreement, reference_runs
from glimmer_export.exporter.bench.gpu.backends import (
    CURRENT,
    PROBES,
    build_engines_here,
    build_graphs,
    described,
    import_onnxruntime,
    import_rtx,
    open_backend,
    torch_library,
)
from glimmer_export.exporter.bench.gpu.bundles import Model, demo_checked, threads
from glimmer_export.exporter.bench.gpu.ours import error_line
from glimmer_export.exporter.bench.gpu.runner import Step
from glimmer_export.exporter.bench.gpu.setting import ORT_CUDA, RTX, TORCH, Setting
from glimmer_export.runtime.contract import DECODER_STEP

__all__ = ["CAPABILITIES", "steps"]

PRECISION = "fp32"
GRAPH = DECODER_STEP
CAPABILITIES = (CURRENT, "8.0")
"""What TensorRT-RTX is asked to build for: this GPU, else the nearest older one that it lists. No third is tried."""
ANSWERS = 64
BATCH = 8
NUM_BYTES = 1 << 20


def steps(setting: Setting) -> list[Step]:
    """CUDA by itself, our stages on it, and each engine in a process of its own."""
    return [
        Step("cuda", 60, partial(_cuda, setting)),
        Step("demo", 240, lambda _: demo_checked(setting.work, setting.scale)[1]),
        Step(PROBES[TORCH], 90, partial(_every_graph, setting, TORCH), needs=("demo",)),
        Step("torch-stages-answers", 120, partial(_answers, setting), needs=("demo",)),
        Step(PROBES[RTX], 60, partial(_rtx, setting), needs=("demo",)),
        Step(PROBES[ORT_CUDA], 90, partial(_every_graph, setting, ORT_CUDA), needs=("demo",)),
    ]


def _cuda(setting: Setting, _: Mapping[str, Any]) -> dict[str, Any]:
    """Memory, copies on a stream, an event, and a CUDA graph, by the runtime's own calls and nothing else."""
    if setting.rehearsal:
        from glimmer_export.exporter.bench.gpu.rehearsal import fake_cuda

        fake_cuda()
    from glimmer_export.runtime.backends.cuda import Cuda

    cuda = Cuda()
    free, total = cuda.memory_info()
    stream, event = cuda.stream(), cuda.event()
    sent, back, memory = cuda.host_alloc(NUM_BYTES), cuda.host_alloc(NUM_BYTES), cuda.malloc(NUM_BYTES)
    pattern = np.random.default_rng(0).integers(0, 256, NUM_BYTES, dtype=np.uint8)
    half = NUM_BYTES // 2

    def queue() -> None:
        cuda.copy(memory, sent.address, NUM_BYTES, stream)
        cuda.clear(memory + half, half, stream)
        cuda.copy(back.address, memory, NUM_BYTES, stream)

    def seen() -> bool:
        cuda.record(event, stream)
        cuda.synchronize_event(event)
        return bool((back.host[:half] == pattern[:half]).all() and not back.host[half:].any())

    sent.host[:] = pattern
    queue()
    copied = seen()
    executable = cuda.capture(stream, queue)
    pattern = pattern[::-1].copy()
    sent.host[:] = pattern
    cuda.launch(executable, stream)
    captured = seen()
    cuda.synchronize(stream)
    cuda.destroy_executable(executable)
    cuda.free(memory)
    for pinned in (sent, back):
        cuda.host_free(pinned)
    cuda.destroy_event(event)
    cuda.destroy_stream(stream)
    if not copied or not captured:
        raise RuntimeError(f"what was copied came back: {copied}, by a CUDA graph: {captured}")
    return {
        "gpu": cuda.gpu.name, "compute_capability": cuda.gpu.compute_capability, "free_bytes": free,
        "total_bytes": total,
    }  # fmt: skip


def _every_graph(setting: Setting, engine: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """Every graph of the demo beside ONNX Runtime on the CPU, whatever some of them raise."""
    version = _version(setting, engine)
    model, _ = demo_checked(setting.work, setting.scale)
    bundle, references, inputs = reference_runs(model, PRECISION)
    found: dict[str, Any] = {}
    with open_backend(setting, engine, model, PRECISION) as backend:
        for name, rows in inputs.items():
            try:
                graph = backend.load(bundle.graph_path(name), bundle.manifest.io()[name])
                found[name] = agreement(bundle.manifest.io()[name], references[name], graph, rows)
            except Exception as error:  # noqa: BLE001  (what does not work is the finding)
                traceback.print_exc()
                found[name] = {"agrees": False, "error": error_line(error)}
    agrees = all(facts["agrees"] for facts in found.values())
    return {"engine": described(engine, PRECISION), "version": version, "agrees": agrees, "graphs": found}


def _answers(setting: Setting, _: Mapping[str, Any]) -> dict[str, Any]:
    """Answers by torch's stages, one at a time and in batches, with CUDA graphs and a passage cache, and the CPU's.

    `queued` counts by graph what torch was asked to run, `launched` the CUDA graphs that took its place.
    """
    from glimmer_export.calibration.questions import read_questions
    from glimmer_export.runtime import Session
    from glimmer_export.runtime.backends import OnnxRuntimeBackend
    from glimmer_export.runtime.backends.registry import load_graphs
    from glimmer_export.runtime.bundle import Bundle
    from glimmer_export.runtime.store import MemoryStore

    model, _ = demo_checked(setting.work, setting.scale)
    questions = [row.question for row in read_questions(model.questions, min(ANSWERS, setting.scale.questions))]
    bundle = Bundle.open(model.bundle(PRECISION))
    assert bundle.text is not None
    store = MemoryStore.open(model.store, bundle)
    with ExitStack() as opened:
        opened.callback(store.close)
        launched = opened.enter_context(_counted_launches())
        ours = opened.enter_context(open_backend(setting, TORCH, model, PRECISION, passage_cache_bytes=64 << 20))
        answers = {}
        for who, backend in {"ours": ours, "cpu": OnnxRuntimeBackend(threads())}.items():
            graphs = load_graphs(backend, bundle.directory, bundle.manifest, store.manifest.codec)
            session = Session(bundle, store, graphs, bundle.text, store.codec)
            alone = [session.answer(question).token_ids for question in questions[: 2 * BATCH]]
            batches = [questions[start : start + BATCH] for start in range(0, len(questions), BATCH)]
            together = [answer.token_ids for batch in batches for answer in session.answer_many(batch)]
            answers[who] = [list(tokens) for tokens in (*alone, *together)]
        queued = dict(torch_library(setting).queued)
    same = sum(mine == theirs for mine, theirs in zip(*answers.values(), strict=True))
    return {
        "engine": described(TORCH, PRECISION), "answers": len(answers["cpu"]), "same_answers": same,
        "agrees": same == len(answers["cpu"]), "queued": queued, "launched": launched[0],
    }  # fmt: skip


@contextmanager
def _counted_launches() -> Iterator[list[int]]:
    """Counts CUDA graphs as the runtime launches them."""
    from glimmer_export.runtime.backends.cuda import Cuda

    launch, count = Cuda.launch, [0]

    def counted(cuda: Cuda, executable: int, stream: int) -> None:
        count[0] += 1
        launch(cuda, executable, stream)

    Cuda.launch = counted  # type: ignore[method-assign, assignment]
    try:
        yield count
    finally:
        Cuda.launch = launch  # type: ignore[method-assign]


def _rtx(setting: Setting, _: Mapping[str, Any]) -> dict[str, Any]:
    """One engine of one graph: built for this GPU, else for an older one; nothing further if both are refused."""
    import_rtx(setting)  # if it was not carried yet, that is no finding, and a later run looks again
    model, _ = demo_checked(setting.work, setting.scale)
    bundle, references, inputs = reference_runs(model, PRECISION)
    tries: dict[str, Any] = {}
    for capability in CAPABILITIES:
        facts: dict[str, Any] = {"built": False, "loaded": False, "ran": False, "agrees": False}
        tries[capability] = facts
        try:
            _build_one(setting, model, capability)
            facts["built"] = True
            with open_backend(setting, RTX, model, PRECISION) as backend:
                graph = backend.load(bundle.graph_path(GRAPH), bundle.manifest.io()[GRAPH])
                facts["loaded"] = True
                facts.update(agreement(bundle.manifest.io()[GRAPH], references[GRAPH], graph, inputs[GRAPH]), ran=True)
        except Exception as error:  # noqa: BLE001  (what does not work is the finding)
            traceback.print_exc()
            facts["error"] = error_line(error)
        if facts["agrees"]:
            return {"engine": RTX, "agrees": True, "capability": capability, "tries": tries}
    return {"engine": RTX, "agrees": False, "capability": None, "tries": tries}


def _build_one(setting: Setting, model: Model, capability: str) -> None:
    if setting.rehearsal:
        build_engines_here(setting, RTX, model, PRECISION)
    else:
        build_graphs(setting, model, PRECISION, capability, (GRAPH,))


def _version(setting: Setting, engine: str) -> str:
    if engine == ORT_CUDA and not setting.rehearsal:
        return str(import_onnxruntime(setting).__version__)
    import torch

    return str(torch.__version__)
