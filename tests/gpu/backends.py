"""The backend of a setting, open on a bundle, with engines for the GPU at hand where it needs them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.gpu.runner import Part
from tests.gpu.setting import ORT_CUDA, REHEARSAL, RTX, Setting

if TYPE_CHECKING:
    from runtime.backends import DeviceBackend

__all__ = ["CURRENT", "TARGET", "build_engines_here", "open_backend"]

CURRENT = "CURRENT"
TARGET = "h200"
CHOICE = ("engines", "choice")
"""The part and step that say which backend runs here, and for TensorRT-RTX what its engines are to be built for."""


@contextmanager
def open_backend(setting: Setting, bundle: Path, **switches: Any) -> Iterator[DeviceBackend]:
    """What runs a bundle here; `switches` are TensorRTBackend's. Raises BackendError where nothing does."""
    backend = _new(setting, bundle, switches)
    try:
        yield backend
    finally:
        backend.close()


def build_engines_here(setting: Setting, bundle: Path) -> dict[str, Any]:
    """Engines of a bundle for this GPU: by `glimmer-export build`, or of another capability that was seen to run."""
    choice = _choice(setting)
    if choice["backend"] != RTX:
        return {}
    from exporter.engines import build_engines

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        if choice["capability"] == CURRENT:
            built = build_engines(bundle, TARGET, RTX)
            engines = built.record.engines
        else:
            engines = _stand_ins(bundle, choice["capability"])
    return {
        name: {"build_seconds": engine.build_seconds, "bytes": engine.file.bytes} for name, engine in engines.items()
    }


def _choice(setting: Setting) -> dict[str, Any]:
    """What part `engines` found to run here; where it was not asked, an engine built for this very GPU."""
    part, step = CHOICE
    asked = Part.open(setting.out, part).results.get(step)
    return asked or {"backend": setting.backend, "capability": CURRENT}


def _new(setting: Setting, bundle: Path, switches: dict[str, Any]) -> DeviceBackend:
    from runtime.backends.onnxruntime_gpu import OnnxRuntimeDeviceBackend
    from runtime.backends.tensorrt import TensorRTBackend

    name = _choice(setting)["backend"]
    if name == REHEARSAL:
        return OnnxRuntimeDeviceBackend("CPUExecutionProvider", "cpu", threads=1)
    if switches and name == ORT_CUDA:
        raise ValueError(f"{name} has none of the switches {', '.join(switches)}")
    return OnnxRuntimeDeviceBackend() if name == ORT_CUDA else TensorRTBackend(bundle, "tensorrt_rtx", **switches)


def _stand_ins(bundle: Path, capability: str) -> dict[str, Any]:
    """Engines of another capability under this GPU's own key, so that the runtime takes them."""
    import tensorrt_rtx

    from exporter.engines.compiler import Compiler
    from exporter.engines.device import find_device
    from exporter.engines.profiles import graph_profiles
    from exporter.targets import read_target
    from runtime.contract import (
        ENGINE_RECORD,
        ENGINE_SCHEMA_VERSION,
        ENGINES,
        EngineEntry,
        EngineKey,
        EngineRecord,
        FileEntry,
        file_digest,
        graph_digest,
        read_engine_record,
        read_manifest,
        record_to_json,
    )

    device, target, manifest = find_device(), read_target(TARGET).tensorrt, read_manifest(bundle)
    assert device is not None
    assert target is not None
    here = EngineKey("tensorrt_rtx", tensorrt_rtx.__version__, device.compute_capability, device.name)
    directory = bundle / ENGINES / here.fingerprint
    if (directory / ENGINE_RECORD).is_file():
        return dict(read_engine_record(directory).engines)
    compiler = Compiler(
        tensorrt_rtx, EngineKey(here.library, here.version, capability, None), stand_in=False,
        capabilities=(f"SM{capability.replace('.', '')}",), workspace_bytes=target.workspace_mib << 20,
    )
    directory.mkdir(parents=True, exist_ok=True)
    engines = {}
    for name, graph in manifest.graphs.items():
        profiles = graph_profiles(manifest, name, target)
        path = directory / f"{name}.engine"
        path.write_bytes(compiler.compile(bundle / graph.files[0].path, profiles, directory / "timings"))
        file = FileEntry(path.name, path.stat().st_size, file_digest(path))
        engines[name] = EngineEntry(file, graph_digest(graph), profiles, 0.0)
    record = EngineRecord(ENGINE_SCHEMA_VERSION, here, TARGET, True, engines)
    (directory / ENGINE_RECORD).write_text(record_to_json(record), encoding="utf-8")
    return engines
