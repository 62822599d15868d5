"""The backend of a session: by its name, or the best that works, with the reason why each better one does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from glimmer_export.runtime.backends.contract import Backend, DeviceBackend, Graph
from glimmer_export.runtime.backends.onnxruntime_cpu import OnnxRuntimeBackend
from glimmer_export.runtime.backends.onnxruntime_gpu import OnnxRuntimeDeviceBackend
from glimmer_export.runtime.backends.tensorrt import TensorRTBackend
from glimmer_export.runtime.contract import BackendError, BundleError, BundleManifest, OptionError

__all__ = [
    "BACKEND_NAMES", "BackendChoice", "LoadedBackend", "as_run_by", "load_backend", "load_graphs", "open_backend"
]

TENSORRT = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""Backends that run a bundle's engines, with the library of each."""
PROVIDERS = {"onnxruntime-cuda": "CUDAExecutionProvider", "onnxruntime-tensorrt": "TensorrtExecutionProvider"}
LAST = OnnxRuntimeBackend.name
BEST_FIRST = (*TENSORRT, "onnxruntime-cuda", LAST)
"""What `auto` tries: not ONNX Runtime's TensorRT provider, which builds engines for minutes when a graph first runs."""
BACKEND_NAMES = ("auto", *TENSORRT, *PROVIDERS, LAST)


@dataclass(frozen=True)
class BackendChoice:
    """The backend that was taken, and for each better one of `auto` why it was not.

    `notes` say what does not run as fast as it might, and why; they are of what has run so far.
    """

    name: str
    refused: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadedBackend:
    """A bundle's graphs on a backend; `close` gives back what it holds, `notes` are the choice's as of now.

    `manifest` is the bundle's, as the backend runs it.
    """

    choice: BackendChoice
    manifest: BundleManifest
    graphs: dict[str, Graph]
    close: Callable[[], None]
    notes: Callable[[], tuple[str, ...]] = lambda: ()


def as_run_by(backend: Backend | DeviceBackend, manifest: BundleManifest) -> BundleManifest:
    """The manifest in the form of cross-attention that was chosen for a backend's engines, which may be another."""
    choice = backend.form_choice if isinstance(backend, TensorRTBackend) else None
    if choice is None or manifest.cross_attention_choice is None:
        return manifest
    return manifest.chosen(choice)


def load_graphs(
    backend: Backend | DeviceBackend, bundle: Path, manifest: BundleManifest, codec: str | None
) -> dict[str, Graph]:
    """A bundle's graphs for memory in a codec, by their stages, on a backend; raises BundleError or BackendError."""
    io = manifest.io()
    return {
        stage: backend.load(bundle / manifest.graphs[name].files[0].path, io[name])
        for stage, name in manifest.stages(codec).items()
    }


def load_backend(
    name: str, bundle: Path, manifest: BundleManifest, codec: str | None, *, threads: int | None = None,
    passage_cache_bytes: int = 0,
) -> LoadedBackend:
    """A bundle's graphs for memory in a codec, on the backend of this name, or on the best that works for `auto`.

    `threads` is for ONNX Runtime, `passage_cache_bytes` for TensorRT. Raises OptionError for an unknown name or a
    passage cache on a backend that has none, BackendError where the named backend does not work here, BundleError for
    a damaged graph or engine.
    """
    if name not in BACKEND_NAMES:
        raise OptionError(
            f"backend {name!r}", expected=f"one of {', '.join(BACKEND_NAMES)}", found="none of that name",
            fix="choose one of these",
        )
    if passage_cache_bytes and name not in ("auto", *TENSORRT):
        raise OptionError(
            "passage_cache_bytes", expected=f"0 with the backend {name}", found=str(passage_cache_bytes),
            fix=f"leave it out, or choose one of {', '.join(TENSORRT)}",
        )
    load = partial(
        _load, bundle=bundle, manifest=manifest, codec=codec, threads=threads, passage_cache_bytes=passage_cache_bytes
    )
    if name != "auto":
        return load(name, {})
    refused: dict[str, str] = {}
    for candidate in BEST_FIRST[:-1]:
        try:
            if candidate in PROVIDERS:
                _check_not_for_cpu(manifest, candidate)
            return load(candidate, refused)
        except (BackendError, BundleError) as reason:
            refused[candidate] = str(reason)
    return load(LAST, refused)


def open_backend(
    name: str, bundle: Path, *, threads: int | None = None, passage_cache_bytes: int = 0
) -> OnnxRuntimeBackend | DeviceBackend:
    """The backend of one of BACKEND_NAMES but `auto`, for a bundle's graphs; raises as `load_backend`."""
    if name in TENSORRT:
        return TensorRTBackend(bundle, TENSORRT[name], passage_cache_bytes=passage_cache_bytes)
    if name in PROVIDERS:
        return OnnxRuntimeDeviceBackend(PROVIDERS[name], threads=threads)
    return OnnxRuntimeBackend(threads)


def _load(
    name: str, refused: Mapping[str, str], *, bundle: Path, manifest: BundleManifest, codec: str | None,
    threads: int | None, passage_cache_bytes: int,
) -> LoadedBackend:
    backend = open_backend(name, bundle, threads=threads, passage_cache_bytes=passage_cache_bytes)
    close = (lambda: None) if isinstance(backend, OnnxRuntimeBackend) else backend.close
    with ExitStack() as failed:
        failed.callback(close)
        manifest = as_run_by(backend, manifest)
        graphs = load_graphs(backend, bundle, manifest, codec)
        failed.pop_all()
    notes = backend.notes if isinstance(backend, TensorRTBackend) else lambda: ()
    return LoadedBackend(BackendChoice(name, refused), manifest, graphs, close, notes)


def _check_not_for_cpu(manifest: BundleManifest, name: str) -> None:
    if manifest.quantization is not None and manifest.quantization.target == "cpu":
        raise BackendError(
            f"backend {name}", expected="graphs that were not quantised for a CPU", found="graphs that were",
            fix="name the backend to run them there all the same",
        )
