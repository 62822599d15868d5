"""(a) Does an engine that TensorRT-RTX built ahead of time for a capability run on this GPU, and one built on it?"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from tests.gpu.agreement import agreement, reference_runs
from tests.gpu.backends import CURRENT, TARGET, open_backend
from tests.gpu.bundles import PRECISIONS, demo_model
from tests.gpu.runner import Step
from tests.gpu.setting import ORT_CUDA, REHEARSAL, RTX, Setting

__all__ = ["CAPABILITIES", "steps"]

CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0")
PREFERRED = (CURRENT, "8.9", "8.6", "8.0", "7.5", "12.0")
"""For the other parts: what was built here, else the nearest older capability."""


def steps(setting: Setting) -> list[Step]:
    """The demo's model, each capability in a process of its own, and what follows for the other parts."""
    tried = (CURRENT, *CAPABILITIES)
    return [
        Step("model", 240, lambda _: demo_model(setting.work, setting.scale)[1]),
        *(Step(name, 60, partial(_try, setting, name), needs=("model",)) for name in tried),
        Step("choice", 30, partial(_choose, setting), needs=("model",)),
    ]


def _try(setting: Setting, capability: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """Every graph in every precision: built, deserialised, run, compared with ONNX Runtime on the CPU."""
    model, _ = demo_model(setting.work, setting.scale)
    found: dict[str, Any] = {}
    for precision in PRECISIONS:
        bundle, references, inputs = reference_runs(model, precision)
        for name, rows in inputs.items():
            facts: dict[str, Any] = {"built": False, "deserialised": False, "ran": False, "agrees": False}
            found[f"{precision}/{name}"] = facts
            try:
                with ExitStack() as opened:
                    graph = _graph(setting, capability, bundle, name, facts, opened)
                    facts.update(agreement(name, precision, bundle, references[name], graph, rows), ran=True)
            except Exception as error:  # noqa: BLE001  (what does not work is the finding)
                traceback.print_exc()
                facts["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    verdicts = ("built", "deserialised", "ran", "agrees")
    return {**{key: all(facts[key] for facts in found.values()) for key in verdicts}, "graphs": found}


def _graph(
    setting: Setting, capability: str, bundle: Any, name: str, facts: dict[str, Any], opened: ExitStack
) -> Any:
    """A graph's engine for a capability, loaded; `facts` are filled in as far as it comes."""
    io = bundle.manifest.io()[name]
    if setting.backend == REHEARSAL:
        backend = opened.enter_context(open_backend(setting, bundle.directory))
        facts.update(built=True, deserialised=True)
        return backend.load(bundle.graph_path(name), io)
    from runtime.backends.cuda import Cuda
    from runtime.backends.tensorrt.device import CudaDevice
    from runtime.backends.tensorrt.engine_graph import EngineGraph
    from runtime.backends.tensorrt.library import Library

    library, cuda = Library("tensorrt_rtx"), Cuda()
    started = time.perf_counter()
    content = bytes(_compiled(library, cuda.gpu, capability, bundle, name, setting))
    facts.update(built=True, build_seconds=round(time.perf_counter() - started, 3), bytes=len(content))
    engine = library.engine(content, f"engine of {name} for {capability}", None)
    facts["deserialised"] = True
    device = CudaDevice(cuda)
    opened.callback(device.close)
    graph = EngineGraph(engine, io, device, captures=False)
    opened.callback(graph.close)
    opened.callback(device.synchronize)
    return graph


def _compiled(library: Any, gpu: Any, capability: str, bundle: Any, name: str, setting: Setting) -> Any:
    from exporter.engines.compiler import Compiler
    from exporter.engines.profiles import graph_profiles
    from exporter.targets import read_target
    from runtime.contract import EngineKey

    target = read_target(TARGET).tensorrt
    assert target is not None
    here = capability == CURRENT
    key = EngineKey(
        library.name, library.version, gpu.compute_capability if here else capability, gpu.name if here else None
    )
    serves = CURRENT if here else f"SM{capability.replace('.', '')}"
    compiler = Compiler(
        library.trt, key, stand_in=False, capabilities=(serves,), workspace_bytes=target.workspace_mib << 20
    )
    profiles = graph_profiles(bundle.manifest, name, target)
    return compiler.compile(bundle.graph_path(name), profiles, setting.work / "timings")


def _choose(setting: Setting, results: Mapping[str, Any]) -> dict[str, Any]:
    """The first that runs and agrees; else ONNX Runtime's CUDA provider; raises where there is neither."""
    if setting.backend == REHEARSAL:
        return {"backend": REHEARSAL, "capability": CURRENT}
    for capability in PREFERRED:
        if results.get(capability, {}).get("agrees"):
            return {"backend": RTX, "capability": capability}
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" in available:
        return {"backend": ORT_CUDA, "capability": None}
    raise RuntimeError(
        f"no TensorRT-RTX engine ran here, and ONNX Runtime has no CUDA provider ({', '.join(available)}): "
        "onnxruntime-gpu is 256 MB, which a transfer of 64 MiB does not hold"
    )
