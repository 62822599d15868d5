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
from glimmer_export.runtime.backends import onnxruntime_cpu, onnxruntime_gpu, openvino, tensorrt
from glimmer_export.runtime.backends.contract import (
    Backend,
    BackendKind,
    BackendOptions,
    ChoosingBackend,
    Graph,
    NotingBackend,
)
from glimmer_export.runtime.backends.faster import FasterGraph
from glimmer_export.runtime.backends.threads import ONE_THREAD_BYTES
from glimmer_export.runtime.contract import (
    BF16,
    BLOCK_DOMAIN,
    BLOCK_OPERATOR,
    FP32,
    BackendError,
    BundleError,
    BundleManifest,
    OptionError,
    weight_bits_of,
)

__all__ = [
    "AUTO",
    "COMPUTE_PRECISIONS",
    "BackendChoice",
    "LoadedBackend",
    "as_run_by",
    "backend_kind",
    "backend_kinds",
    "backend_names",
    "compute_precision_of",
    "load_backend",
    "load_graphs",
    "open_backend",
    "register_backend",
    "require_weights",
]

AUTO = "auto"
COMPUTE_PRECISIONS = (AUTO, FP32, BF16)
"""What float operators may be asked to be computed in; `auto` is BF16 where a parity record witnesses it, else FP32."""
_kinds = [*tensorrt.KINDS, *onnxruntime_gpu.KINDS, *openvino.KINDS, *onnxruntime_cpu.KINDS]
"""Best first: `auto` takes the first that works, or, of those for the CPU, the one that is faster, graph by graph.

The last runs anything anywhere, and is taken if no other works.
"""
Witnessed = Callable[[str, str], bool]
"""(backend, compute precision) -> whether a passed parity record of the bundle witnesses it here."""


@dataclass(frozen=True)
class BackendChoice:
    """The backend that was taken, and for each better one of `auto` why it was not.

    `notes` say what does not run as fast as it might, and why; they are of what has run so far. Where `auto` runs the
    graphs on two backends of the CPU, `name` has both with a plus, and the notes say which runs which.
    `compute_precision` is that of the float operators: `bf16` where a backend rounds to that.
    """

    name: str
    refused: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    compute_precision: str = FP32


@dataclass(frozen=True)
class LoadedBackend:
    """A bundle's graphs on a backend; `close` gives back what it holds, `notes` are the choice's as of now.

    `manifest` is the bundle's, as the backend runs it; `computes` has the compute precision of each backend that may
    run a graph of it.
    """

    choice: BackendChoice
    manifest: BundleManifest
    graphs: dict[str, Graph]
    close: Callable[[], None]
    notes: Callable[[], tuple[str, ...]] = lambda: ()
    computes: Mapping[str, str] = field(default_factory=dict)


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
    _kinds.insert(next(place for place, other in enumerate(_kinds) if other.cpu), kind)


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
    name: str, bundle: Path, *, threads: int | None = None, passage_cache_bytes: int = 0, lean: bool = False,
    compute_precision: str = FP32, compile_cache: Path | None = None,
) -> Backend:
    """The backend of one of `backend_names` but `auto`, for a bundle's graphs, to be closed by the caller.

    Raises OptionError for an unknown name, and for a compute precision or a compile cache that it does not have;
    BackendError if it does not work here, or the CPU only emulates that precision; BundleError for damaged engines.
    """
    kind = backend_kind(name)
    _check_takes(kind, compute_precision, compile_cache)
    options = BackendOptions(
        bundle, threads, passage_cache_bytes, lean=lean, compute_precision=compute_precision,
        compile_cache=compile_cache,
    )
    try:
        return kind.open(options)
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


def compute_precision_of(kind: BackendKind, asked: str, witnessed: Witnessed) -> str:
    """`fp32` or `bf16`: what was asked for, or of `auto` BF16 where it is witnessed and this CPU computes it."""
    if asked != AUTO:
        return asked
    if kind.check_bf16 is None or not witnessed(kind.name, BF16):
        return FP32
    try:
        kind.check_bf16()
    except BackendError:
        return FP32
    return BF16


def load_backend(
    name: str, bundle: Path, manifest: BundleManifest, codec: str | None, *, threads: int | None = None,
    passage_cache_bytes: int = 0, compute_precision: str = FP32, compile_cache: Path | None = None,
    witnessed: Witnessed = lambda _backend, _precision: False, required: bool = False,
) -> LoadedBackend:
    """A bundle's graphs for memory in a codec, on the backend of this name, or on the best that works for `auto`.

    `threads` is for what runs on the CPU, `passage_cache_bytes` for TensorRT. `compute_precision` is one of
    COMPUTE_PRECISIONS. Where `auto` comes to the CPU, it takes of its backends those that work and, if that is
    `required`, are `witnessed`; of several each graph has the one that runs it faster. Raises OptionError for an
    unknown name, or a passage cache, compute precision or compile cache on a backend that has none, BackendError if the
    named backend does not work here, BundleError for a damaged graph or engine.
    """
    refused: dict[str, str] = {}

    def load(kind: BackendKind) -> LoadedBackend:
        require_weights(kind.name, manifest, manifest.stages(codec).values())
        precision = compute_precision_of(kind, compute_precision, witnessed)
        backend = open_backend(
            kind.name, bundle, threads=threads, passage_cache_bytes=passage_cache_bytes, compute_precision=precision,
            compile_cache=compile_cache if kind.has_compile_cache or name != AUTO else None,
        )
        with ExitStack() as failed:
            failed.callback(backend.close)
            chosen = as_run_by(backend, manifest)
            graphs = load_graphs(backend, bundle, chosen, codec)
            failed.pop_all()
        notes = backend.notes if isinstance(backend, NotingBackend) else lambda: ()
        choice = BackendChoice(kind.name, refused, compute_precision=precision)
        return LoadedBackend(choice, chosen, graphs, backend.close, notes, {kind.name: precision})

    if name != AUTO:
        kind = backend_kind(name)
        if passage_cache_bytes and not kind.has_passage_cache:
            cached = [kind.name for kind in backend_kinds() if kind.has_passage_cache]
            raise OptionError(
                "passage_cache_bytes", expected=f"0 with the backend {name}", found=str(passage_cache_bytes),
                fix=f"leave it out, or choose one of {', '.join(cached)}",
            )
        return load(kind)
    asked = [kind for kind in backend_kinds() if kind.in_auto]
    for kind in asked:
        if kind.cpu:
            continue
        try:
            _check_not_for_cpu(manifest, kind)
            return load(kind)
        except (BackendError, BundleError, OptionError) as reason:
            refused[kind.name] = str(reason)
    here = [kind for kind in asked if kind.cpu]
    if required:
        # That none is witnessed is said of the last, which stands for what a CPU computes.
        precisions = {kind.name: compute_precision_of(kind, compute_precision, witnessed) for kind in here}
        known = [kind for kind in here if witnessed(kind.name, precisions[kind.name])]
        refused.update({kind.name: "no parity record witnesses it" for kind in here if kind not in known})
        here = known or here[-1:]
    return _on_the_cpu(here, load, refused, bundle, manifest, asked_for=compute_precision)


def _on_the_cpu(
    kinds: list[BackendKind], load: Callable[[BackendKind], LoadedBackend], refused: dict[str, str], bundle: Path,
    manifest: BundleManifest, *, asked_for: str,
) -> LoadedBackend:
    """The graphs on what works of these backends for the CPU; raises what the last of them does if none does."""
    loaded: dict[str, LoadedBackend] = {}
    *others, last = kinds
    failure: BackendError | BundleError | None = None
    try:
        loaded[last.name] = load(last)
    except (BackendError, BundleError) as reason:
        refused[last.name], failure = str(reason), reason
    with ExitStack() as failed:
        for one in loaded.values():
            failed.callback(one.close)
        for kind in others:
            try:
                if loaded and asked_for != BF16:
                    _check_worth_it(bundle, manifest, kind)
                loaded[kind.name] = load(kind)
                failed.callback(loaded[kind.name].close)
            except (BackendError, BundleError) as reason:
                refused[kind.name] = str(reason)
        if not loaded:
            assert failure is not None
            raise failure
        failed.pop_all()
    parts = [loaded[kind.name] for kind in kinds if kind.name in loaded]
    return parts[0] if len(parts) == 1 else _faster_of(parts, refused)


def _faster_of(parts: list[LoadedBackend], refused: Mapping[str, str]) -> LoadedBackend:
    """Each graph on the faster of several backends; the last where none is clearly faster."""
    graphs = {
        stage: FasterGraph(stage, {part.choice.name: part.graphs[stage] for part in parts}) for stage in parts[0].graphs
    }
    computes = {name: precision for part in parts for name, precision in part.computes.items()}
    choice = BackendChoice(
        "+".join(computes), refused, compute_precision=BF16 if BF16 in computes.values() else FP32
    )

    def close() -> None:
        for part in parts:
            part.close()

    def notes() -> tuple[str, ...]:
        return (*(note for part in parts for note in part.notes()), *(graph.note for graph in graphs.values()))

    return LoadedBackend(choice, parts[0].manifest, dict(graphs), close, notes, computes)


def _check_takes(kind: BackendKind, compute_precision: str, compile_cache: Path | None) -> None:
    if compute_precision == BF16:
        if kind.check_bf16 is None:
            able = [one.name for one in backend_kinds() if one.check_bf16 is not None]
            raise OptionError(
                "compute precision", expected=f"{FP32} with the backend {kind.name}", found=compute_precision,
                fix=f"leave it out, or choose one of {', '.join(able)}",
            )
        kind.check_bf16()
    if compile_cache is not None and not kind.has_compile_cache:
        able = [one.name for one in backend_kinds() if one.has_compile_cache]
        raise OptionError(
            "compile cache", expected=f"none with the backend {kind.name}", found=str(compile_cache),
            fix=f"leave it out, or choose one of {', '.join(able)}",
        )


def _check_worth_it(bundle: Path, manifest: BundleManifest, kind: BackendKind) -> None:
    num_bytes = sum(entry.bytes for entry in manifest.graph_files())
    if num_bytes <= ONE_THREAD_BYTES:
        raise BackendError(
            f"backend {kind.name}, {bundle}", expected=f"a model of more than {ONE_THREAD_BYTES >> 20} MiB",
            found=f"{num_bytes / (1 << 20):.1f} MiB, whose runs take about as long to begin as to compute",
            fix="name the backend to run it there all the same",
        )


def _check_not_for_cpu(manifest: BundleManifest, kind: BackendKind) -> None:
    if kind.slow_on_cpu_codes and manifest.quantization is not None and manifest.quantization.target == "cpu":
        raise BackendError(
            f"backend {kind.name}", expected="graphs that were not quantised for a CPU", found="graphs that were",
            fix="name the backend to run them there all the same",
        )
