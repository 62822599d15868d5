"""The backend of an engine, open on a model's bundle, with what it needs put in place for this process alone."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.bench.gpu.bundles import TARGET, Model
from glimmer_export.exporter.bench.gpu.runner import DONE, LEFT, Part
from glimmer_export.exporter.bench.gpu.setting import ENGINES, ORT_CUDA, RTX, TORCH, Setting

if TYPE_CHECKING:
    from glimmer_export.runtime.backends import Backend

__all__ = [
    "CURRENT", "FIRST", "PROBES", "build_engines_here", "build_graphs", "described", "import_onnxruntime",
    "import_rtx", "open_backend", "refusal", "required", "torch_library", "working",
]  # fmt: skip

CURRENT = "CURRENT"
FIRST = "first"
PROBES = {RTX: "tensorrt-rtx", ORT_CUDA: "onnxruntime-cuda", TORCH: "torch-stages-graphs"}
"""The steps of part `first` that say whether an engine runs here."""
TORCH_DTYPES = {"fp32": "float32"}
HALF = "bfloat16"
"""What torch's stages compute a half-precision bundle in: T5's residual stream overflows FP16, and our graphs' remedies
for that are none of the stages'."""


def working(setting: Setting, engines: tuple[str, ...] = ENGINES) -> list[str]:
    """Those that part `first` saw run and agree, or did not get to look at."""
    return [engine for engine in engines if refusal(setting, engine) is None]


def required(setting: Setting, engine: str) -> dict[str, Any]:
    """Raises RuntimeError with what part `first` found, if that was that an engine does not run here."""
    because = refusal(setting, engine)
    if because is not None:
        raise RuntimeError(f"{engine} does not run here: {because}")
    return {"engine": engine}


def refusal(setting: Setting, engine: str) -> str | None:
    """Why an engine does not run here; None if it does, or part `first` did not get to look."""
    probe = Part.open(setting.out, FIRST).steps.get(PROBES[engine])
    if probe is None or probe["status"] == LEFT:
        return None
    if probe["status"] != DONE:
        return str(probe["error"])
    found = probe["result"]
    facts = found.get("tries") or found["graphs"]
    errors = [f"{name}: {fact.get('error', 'does not agree')}" for name, fact in facts.items() if not fact["agrees"]]
    return None if found["agrees"] else "; ".join(errors)


def described(engine: str, precision: str) -> str:
    """An engine as it is written beside a figure."""
    return f"{engine} ({TORCH_DTYPES.get(precision, HALF)})" if engine == TORCH else engine


@contextmanager
def open_backend(
    setting: Setting, engine: str, model: Model, precision: str, **switches: Any
) -> Iterator[Backend]:
    """What runs a bundle's graphs here; `switches` are TensorRTBackend's. Raises BackendError if it does not."""
    backend = _new(setting, engine, model, precision, switches)
    try:
        yield backend
    finally:
        backend.close()
    if setting.rehearsal and engine != ORT_CUDA:
        from glimmer_export.exporter.bench.gpu.rehearsal import fake_cuda

        if faults := fake_cuda().faults:
            raise faults[0]


def import_onnxruntime(setting: Setting) -> Any:
    """ONNX Runtime with the CUDA provider; torch first, as it brings CUDA's libraries into the process."""
    _look_into(setting, "onnxruntime", "onnxruntime")
    import torch  # noqa: F401
    import onnxruntime  # isort: skip

    return onnxruntime


def import_rtx(setting: Setting) -> Any:
    """TensorRT-RTX."""
    if setting.rehearsal:
        from glimmer_export.exporter.bench.gpu.rehearsal import fake_rtx

        fake_rtx()
    else:
        _look_into(setting, "rtx", "tensorrt_rtx")
    import tensorrt_rtx  # type: ignore[import-untyped]

    return tensorrt_rtx


def torch_library(setting: Setting) -> Any:
    """Torch's stages in the place of TensorRT, once in a process."""
    from glimmer_export.exporter.bench.gpu.torch_library import TorchGpu, TorchLibrary

    found = TorchLibrary.installed()
    if found is not None:
        return found
    if setting.rehearsal:
        from glimmer_export.exporter.bench.gpu.rehearsal import FakeGpu, fake_cuda

        return TorchLibrary(FakeGpu(fake_cuda())).install()
    return TorchLibrary(TorchGpu()).install()


def build_engines_here(setting: Setting, engine: str, model: Model, precision: str) -> dict[str, Any]:
    """Engines of a bundle for this GPU, if the engine needs any built beforehand: TensorRT-RTX alone."""
    if engine != RTX:
        return {}
    bundle = model.bundle(precision)
    if setting.rehearsal:
        from glimmer_export.exporter.bench.gpu.rehearsal import fake_rtx
        from tests.runtime.backends.fake_tensorrt import write_engines

        key = fake_rtx().key
        if not (bundle / "engines" / key.fingerprint).exists():
            write_engines(bundle, key, batches=(1, 64))
        return {"capability": CURRENT}
    capability = _capability(setting)
    import_rtx(setting)
    if capability == CURRENT:
        from glimmer_export.exporter.engines import build_engines

        with warnings.catch_warnings():
            warnings.simplefilter("default")
            engines: Mapping[str, Any] = build_engines(bundle, TARGET, RTX).record.engines
    else:
        engines = build_graphs(setting, model, precision, capability)
    facts = {name: {"build_seconds": entry.build_seconds, "bytes": entry.file.bytes} for name, entry in engines.items()}
    return {"capability": capability, "engines": facts}


def build_graphs(
    setting: Setting, model: Model, precision: str, capability: str, graphs: tuple[str, ...] | None = None
) -> dict[str, Any]:
    """TensorRT-RTX's engines of some graphs, None for all, for a capability such as "8.0" or CURRENT.

    They stand under this GPU's own key, so that the runtime takes them, and replace what stands there.
    """
    from glimmer_export.exporter.config.targets import read_target
    from glimmer_export.exporter.engines.compiler import Compiler, find_device
    from glimmer_export.exporter.engines.profiles import graph_profiles
    from glimmer_export.runtime.contract import EngineKey, read_manifest

    library, bundle = import_rtx(setting), model.bundle(precision)
    device, target, manifest = find_device(), read_target(TARGET).tensorrt, read_manifest(bundle)
    assert device is not None
    assert target is not None
    here = EngineKey("tensorrt_rtx", library.__version__, device.compute_capability, device.name)
    key, serves = here, CURRENT
    if capability != CURRENT:
        key, serves = EngineKey(here.library, here.version, capability, None), f"SM{capability.replace('.', '')}"
    compiler = Compiler(
        library, key, stand_in=False, capabilities=(serves,), workspace_bytes=target.workspace_mib << 20
    )
    contents = {}
    for name in graphs or tuple(manifest.graphs):
        profiles = graph_profiles(manifest, name, target)
        started = time.perf_counter()
        content = bytes(compiler.compile(bundle / manifest.graphs[name].files[0].path, profiles, bundle / "timings"))
        contents[name] = (content, profiles, round(time.perf_counter() - started, 3))
    return _written(model, precision, here, contents)


def _look_into(setting: Setting, folder: str, package: str) -> None:
    """Have a package come from what was carried, if that has it."""
    path = None if setting.carried is None else setting.carried / folder
    if path is None or not path.is_dir() or str(path) in sys.path:
        return
    if package in sys.modules:
        raise RuntimeError(f"another {package} is in this process already")
    sys.path.insert(0, str(path))


def _capability(setting: Setting) -> str:
    """What part `first` saw TensorRT-RTX's engine run for."""
    probe = Part.open(setting.out, FIRST).results.get(PROBES[RTX], {})
    return probe.get("capability") or CURRENT


def _new(setting: Setting, engine: str, model: Model, precision: str, switches: dict[str, Any]) -> Backend:
    if engine == ORT_CUDA:
        from glimmer_export.runtime.backends.onnxruntime_gpu import OnnxRuntimeDeviceBackend

        if switches:
            raise ValueError(f"{engine} has none of the switches {', '.join(switches)}")
        if setting.rehearsal:
            return OnnxRuntimeDeviceBackend("CPUExecutionProvider", "cpu", threads=1)
        import_onnxruntime(setting)
        return OnnxRuntimeDeviceBackend()
    from glimmer_export.runtime.backends.tensorrt import TensorRTBackend

    bundle = model.bundle(precision)
    if engine == RTX:
        import_rtx(setting)
        return TensorRTBackend(bundle, "tensorrt_rtx", **switches)
    torch_library(setting)
    _torch_engines(model, precision)
    return TensorRTBackend(bundle, "tensorrt", **switches)


def _torch_engines(model: Model, precision: str) -> None:
    """What stands for engines where torch runs the stages, for the shapes that real engines would take."""
    from glimmer_export.exporter.bench.gpu.torch_library import LIBRARY, VERSION, engine_content
    from glimmer_export.exporter.config.targets import read_target
    from glimmer_export.exporter.engines.compiler import find_device
    from glimmer_export.exporter.engines.profiles import graph_profiles
    from glimmer_export.runtime.contract import ENGINES as FOLDER
    from glimmer_export.runtime.contract import BackendError, EngineKey, read_manifest

    device, target = find_device(), read_target(TARGET).tensorrt
    if device is None:
        raise BackendError("torch stages", expected="an NVIDIA GPU", found="none", fix="run this where there is one")
    assert target is not None
    bundle = model.bundle(precision)
    here = EngineKey(LIBRARY, VERSION, device.compute_capability, device.name)
    if (bundle / FOLDER / here.fingerprint).exists():
        return
    manifest, contents = read_manifest(bundle), {}
    for name in manifest.graphs:
        profiles = graph_profiles(manifest, name, target)
        dtype = TORCH_DTYPES.get(precision, HALF)
        contents[name] = (engine_content(bundle, model.checkpoint, name, dtype, profiles), profiles, 0.0)
    _written(model, precision, here, contents)


def _written(
    model: Model, precision: str, key: Any, contents: Mapping[str, tuple[bytes, Any, float]]
) -> dict[str, Any]:
    """Engines with their record, in the place where the runtime looks; returns the entries."""
    import shutil

    from glimmer_export.exporter.files.publish import publish_directory
    from glimmer_export.runtime.contract import (
        ENGINE_RECORD,
        ENGINE_SCHEMA_VERSION,
        ENGINES,
        EngineEntry,
        EngineRecord,
        FileEntry,
        file_digest,
        graph_digest,
        read_manifest,
        record_to_json,
    )

    bundle = model.bundle(precision)
    manifest, directory = read_manifest(bundle), bundle / ENGINES / key.fingerprint
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(exist_ok=True)
    engines = {}
    with publish_directory(directory) as work:
        for name, (content, profiles, seconds) in contents.items():
            path = work / f"{name}.engine"
            path.write_bytes(content)
            file = FileEntry(path.name, len(content), file_digest(path))
            engines[name] = EngineEntry(file, graph_digest(manifest.graphs[name]), profiles, seconds)
        record = EngineRecord(ENGINE_SCHEMA_VERSION, key, TARGET, True, engines)
        (work / ENGINE_RECORD).write_text(record_to_json(record), encoding="utf-8")
    return engines
