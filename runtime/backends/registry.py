"""Backends by their names: what each module here registers, what is registered from outside, and `auto` among them.

A backend is one module that has a class with `load` and `close`, and a `BackendKind` that says what it is called, what
package it needs, how it is opened and whether `auto` tries it. The list below is all else that knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from glimmer_export.runtime.arguments import described
from glimmer_export.runtime.backends import onnxruntime_cpu, onnxruntime_gpu, tensorrt
from glimmer_export.runtime.backends.contract import (
    Backend,
    BackendKind,
    BackendOptions,
    ChoosingBackend,
    Graph,
    NotingBackend,
)
from glimmer_export.runtime.contract import (
    BLOCK_DOMAIN,
    BLOCK_OPERATOR,
    BackendError,
    BundleError,
    BundleManifest,
    OptionError,
    weight_bits_of,
)

__all__ = [
    "AUTO",
    "BackendChoice",
    "LoadedBackend",
    "as_run_by",
    "backend_kind",
    "backend_kinds",
    "backend_names",
    "load_backend",
    "load_graphs",
    "open_backend",
    "register_backend",
    "require_weights",
]

AUTO = "auto"
_kinds = [*tensorrt.KINDS, *onnxruntime_gpu.KINDS, *onnxruntime_cpu.KINDS]
"""Best first: `auto` takes the first that works. The last runs anything anywhere, and is taken if no other works."""


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


def register_backend(kind: BackendKind) -> None:
    """Let `backend=` and `--backend` take a backend of this name, in this process.

    If it is `in_auto`, `auto` tries it after those for NVIDIA's GPUs and before the CPU. Raises OptionError for a name
    that is taken, and for what is no BackendKind.
    """
    if not isinstance(kind, BackendKind):
        raise OptionError("backend", expected="a BackendKind", found=described(kind), fix="make one of your backend")
    if kind.name in backend_names():
        raise OptionError(
            f"backend {kind.name!r}", expected="a name that no backend has", found="one that is taken",
            fix="give it another name",
        )
    _kinds.insert(-1, kind)


def backend_kinds() -> tuple[BackendKind, ...]:
    """Every backend that is registered now, best first."""
    return tuple(_kinds)


def backend_names() -> tuple[str, ...]:
    """What `backend=` and `--backend` take now: `auto`, then every backend that is registered, best first."""
    return (AUTO, *(kind.name for kind in backend_kinds()))


def backend_kind(name: str) -> BackendKind:
    """The backend of a name that is not `auto`; raises OptionError for an unknown one."""
    kinds = {kind.name: kind for kind in backend_kinds()}
    if name not in kinds:
        raise OptionError(
            f"backend {name!r}", expected=f"one of {', '.join(kinds)}", found="none of that name",
            fix="choose one of these",
        )
    return kinds[name]


def open_backend(
    name: str, bundle: Path, *, threads: int | None = None, passage_cache_bytes: int = 0, lean: bool = False
) -> Backend:
    """The backend of one of `backend_names` but `auto`, for a bundle's graphs, to be closed by the caller.

    Raises OptionError for an unknown name, BackendError if it does not work here, BundleError for damaged engines.
    """
    kind = backend_kind(name)
    try:
        return kind.open(BackendOptions(bundle, threads, passage_cache_bytes, lean=lean))
    except ImportError as reason:
        raise BackendError(
            f"backend {name}", expected=f"the package {kind.library}", found=str(reason), fix=f"install {kind.library}"
        ) from None


def as_run_by(backend: Backend, manifest: BundleManifest) -> BundleManifest:
    """The manifest in the form of cross-attention that was chosen for a backend's engines, which may be another."""
    choice = backend.form_choice if isinstance(backend, ChoosingBackend) else None
    if choice is None or manifest.cross_attention_choice is None:
        return manifest
    return manifest.chosen(choice)


def require_weights(backend: str, manifest: BundleManifest, graphs: Iterable[str]) -> None:
    """Raise BackendError if one of these graphs has weights of few bits, and the backend of this name runs none.

    A name that no backend here has is left to what loads the graphs.
    """
    kind = next((kind for kind in backend_kinds() if kind.name == backend), None)
    if kind is None or kind.few_bit_weights:
        return
    for name in graphs:
        if (bits := weight_bits_of(manifest.graphs[name].precision)) is not None:
            able = ", ".join(kind.name for kind in backend_kinds() if kind.few_bit_weights)
            raise BackendError(
                f"backend {backend}", expected="graphs whose weights are not of few bits",
                found=f"{name} with weights of {bits} bits, of {BLOCK_DOMAIN}'s {BLOCK_OPERATOR}",
                fix=f"choose {able}, or quantise the FP32 bundle without --weight-only",
            )


def load_graphs(backend: Backend, bundle: Path, manifest: BundleManifest, codec: str | None) -> dict[str, Graph]:
    """A bundle's graphs for memory in a codec, by their stages, on a backend; raises BundleError or BackendError."""
    require_weights(backend.name, manifest, manifest.stages(codec).values())
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
    passage cache on a backend that has none, BackendError if the named backend does not work here, BundleError for a
    damaged graph or engine.
    """
    refused: dict[str, str] = {}

    def load(name: str) -> LoadedBackend:
        require_weights(name, manifest, manifest.stages(codec).values())
        backend = open_backend(name, bundle, threads=threads, passage_cache_bytes=passage_cache_bytes)
        with ExitStack() as failed:
            failed.callback(backend.close)
            chosen = as_run_by(backend, manifest)
            graphs = load_graphs(backend, bundle, chosen, codec)
            failed.pop_all()
        notes = backend.notes if isinstance(backend, NotingBackend) else lambda: ()
        return LoadedBackend(BackendChoice(name, refused), chosen, graphs, backend.close, notes)

    if name != AUTO:
        if passage_cache_bytes and not backend_kind(name).has_passage_cache:
            cached = [kind.name for kind in backend_kinds() if kind.has_passage_cache]
            raise OptionError(
                "passage_cache_bytes", expected=f"0 with the backend {name}", found=str(passage_cache_bytes),
                fix=f"leave it out, or choose one of {', '.join(cached)}",
            )
        return load(name)
    *better, last = [kind for kind in backend_kinds() if kind.in_auto]
    for kind in better:
        try:
            _check_not_for_cpu(manifest, kind)
            return load(kind.name)
        except (BackendError, BundleError) as reason:
            refused[kind.name] = str(reason)
    return load(last.name)


def _check_not_for_cpu(manifest: BundleManifest, kind: BackendKind) -> None:
    if kind.slow_on_cpu_codes and manifest.quantization is not None and manifest.quantization.target == "cpu":
        raise BackendError(
            f"backend {kind.name}", expected="graphs that were not quantised for a CPU", found="graphs that were",
            fix="name the backend to run them there all the same",
        )
