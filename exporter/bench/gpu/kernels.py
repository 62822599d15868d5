"""How many kernels some work launches: as CUPTI sees them through torch's profiler, else as an engine lists its layers.

CUPTI sees every kernel of the process, also TensorRT's and those inside a CUDA graph.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

__all__ = ["count_kernels", "engine_layers"]

COPIES = ("Memcpy", "Memset")


def count_kernels(work: Callable[[], Any], layers: int | None = None) -> dict[str, Any]:
    """Kernels of one run that ends with a wait: their number, the time they took together, and `how` it is known."""
    try:
        found = _by_profiler(work)
    except Exception as error:  # noqa: BLE001  (whatever the profiler lacks here, the measurement goes on)
        found = {"kernels": 0, "error": str(error).splitlines()[0] if str(error) else type(error).__name__}
    if found["kernels"]:
        return {**found, "how": "torch.profiler (CUPTI)"}
    return {**found, "kernels": layers, "how": "layers of the engine" if layers is not None else "not seen"}


def engine_layers(graph: Any) -> int | None:
    """Layers that a TensorRT engine says it has; None of any other graph."""
    engine = getattr(getattr(graph, "_engine", None), "_engine", None)
    inspector = getattr(engine, "create_engine_inspector", lambda: None)()
    if inspector is None:
        return None
    module = graph._engine._trt
    described = inspector.get_engine_information(module.LayerInformationFormat.JSON)
    layers = json.loads(described).get("Layers")
    return None if layers is None else len(layers)


def _by_profiler(work: Callable[[], Any]) -> dict[str, Any]:
    import torch
    from torch.profiler import ProfilerActivity, profile

    if not torch.cuda.is_available():
        return {"kernels": 0, "error": "torch sees no GPU"}
    torch.cuda.init()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        work()
        torch.cuda.synchronize()
    cuda = torch.autograd.DeviceType.CUDA  # type: ignore[attr-defined]  # documented, and not exported
    events = [event for event in profiled.events() if event.device_type == cuda]
    kernels = [event for event in events if not event.name.startswith(COPIES)]
    return {
        "kernels": len(kernels), "copies": len(events) - len(kernels),
        "kernel_ms": sum(event.device_time_total for event in kernels) / 1e3,
    }
