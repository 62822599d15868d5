"""A bundle's engines on this machine's GPU: which of them are for it, their bytes, verified, and graphs of them."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.runtime.backends.contract import BackendKind, BackendOptions
from glimmer_export.runtime.backends.cuda import Cuda
from glimmer_export.runtime.backends.tensorrt.device import CudaDevice
from glimmer_export.runtime.backends.tensorrt.engine_graph import EngineGraph
from glimmer_export.runtime.backends.tensorrt.library import Library, check_installed, runtime_cache_path
from glimmer_export.runtime.contract import (
    DECODER_STEP,
    ENGINE_RECORD,
    ENGINES,
    BackendError,
    BundleError,
    DeviceLostError,
    EngineKey,
    EngineRecord,
    FormChoice,
    GraphIO,
    graph_digest,
    inside,
    is_there,
    read_engine_record,
    read_limited,
    read_manifest,
    stage_of,
)

__all__ = ["KINDS", "TensorRTBackend"]

BUILD = "build engines here: `glimmer-export build`"
MAX_ENGINE_BYTES = 32 << 30
"""A decoder of 11 billion parameters has 22 GiB in FP16; what is larger is no engine, and would be read into memory."""
REPEATED = DECODER_STEP
"""The stage that runs once a token, and so is captured, the runs between two looks at the tokens together."""


@dataclass(frozen=True)
class DeviceEngines:
    """The record of one directory below engines/, whose engines are of the bundle's graphs as they are now."""

    directory: Path
    record: EngineRecord

    @classmethod
    def find(cls, bundle: Path, here: EngineKey) -> DeviceEngines:
        """The engines built for this very device, else those for any of its compute capability.

        Those of another capability are not for it, stand-ins among them: that they would run there is not promised.
        Raises BackendError if there are none, or if one is of another graph than the bundle's; BundleError for a
        damaged record or manifest.
        """
        anywhere = EngineKey(here.library, here.version, here.compute_capability, None)
        for key in (here, anywhere):
            directory = bundle / ENGINES / key.fingerprint
            if is_there(directory / ENGINE_RECORD):
                found = cls(directory, read_engine_record(directory))
                found._check_graphs(bundle)
                return found
        others = sorted(path.parent.name for path in (bundle / ENGINES).glob(f"*/{ENGINE_RECORD}"))
        raise BackendError(
            f"bundle {bundle}, {ENGINES}", expected=f"engines {anywhere.fingerprint} for this {here.device}",
            found=", ".join(others) or "none", fix=BUILD,
        )

    def read(self, graph: str) -> bytes:
        """The bytes of a graph's engine; raises BackendError if none was built, BundleError if they changed."""
        if graph not in self.record.engines:
            raise BackendError(
                f"engines {self.directory}", expected=f"one of the bundle's graph {graph}", found="none", fix=BUILD
            )
        entry = self.record.engines[graph].file
        subject = f"engine {self.directory / entry.path}"
        path = inside(self.directory, entry.path, error=BundleError, subject=subject)
        fix = "copy the bundle again, or " + BUILD
        limit = min(entry.bytes, MAX_ENGINE_BYTES)
        content = read_limited(path, limit_bytes=limit, error=BundleError, subject=subject, fix=fix)
        if len(content) != entry.bytes:
            raise BundleError(subject, expected=f"{entry.bytes} bytes", found=f"{len(content)} bytes", fix=fix)
        if (digest := hashlib.sha256(content).hexdigest()) != entry.sha256:
            raise BundleError(subject, expected=f"SHA-256 {entry.sha256}", found=digest, fix=fix)
        return content

    def _check_graphs(self, bundle: Path) -> None:
        for name, graph in read_manifest(bundle).graphs.items():
            engine = self.record.engines.get(name)
            if engine is not None and engine.graph_sha256 != graph_digest(graph):
                raise BackendError(
                    f"engines {self.directory}", expected=f"one of the bundle's graph {name}",
                    found="one of another graph", fix=BUILD,
                )


class TensorRTBackend:
    """Runs the engines that `glimmer-export build` made for this GPU, by `tensorrt` or `tensorrt_rtx`.

    `passage_cache_bytes` of the GPU's memory keep the passages that were read last. Without `cuda_graphs` every decoder
    step is queued kernel by kernel, without `overlap` passages are copied after the question is encoded: what either
    gains can be measured so.
    """

    def __init__(
        self, bundle: Path, library: str = "tensorrt", *, passage_cache_bytes: int = 0, cuda_graphs: bool = True,
        overlap: bool = True,
    ) -> None:
        """Raises BackendError if library, GPU or engines are missing, BundleError for a damaged record of them."""
        check_installed(library)
        self.name = library.replace("_", "-")
        # The library is large: it is loaded if there is a GPU for it.
        cuda = Cuda()
        self._library = Library(library)
        self._key = EngineKey(library, self._library.version, cuda.gpu.compute_capability, cuda.gpu.name)
        self._engines = DeviceEngines.find(bundle, self._key)
        self._captures = frozenset({REPEATED}) if cuda_graphs else frozenset()
        self._device = CudaDevice(cuda, passage_cache_bytes, overlap=overlap)
        self._graphs: list[EngineGraph] = []
        self._notes: dict[str, None] = {}

    @property
    def record(self) -> EngineRecord:
        """Of the engines that it runs."""
        return self._engines.record

    @property
    def form_choice(self) -> FormChoice | None:
        """The form of cross-attention that was chosen for them, of a bundle that has both."""
        return self._engines.record.cross_attention

    def load(self, path: Path, io: GraphIO) -> EngineGraph:
        """Load the engine of a graph file; raises BundleError if it is damaged or of another I/O."""
        name = path.stem
        content = self._engines.read(name)
        entry = self._engines.record.engines[name]
        kernels = runtime_cache_path(entry.file.sha256, self._key.fingerprint)
        engine = self._library.engine(content, f"engine of {name}, {self._engines.directory}", kernels)
        graph = EngineGraph(engine, io, self._device, captures=stage_of(name) in self._captures)
        self._graphs.append(graph)
        return graph

    def notes(self) -> tuple[str, ...]:
        """What does not run as fast as it might, and why, as far as anything ran; also once it was closed."""
        self._notes |= dict.fromkeys(note for graph in self._graphs for note in graph.notes)
        return tuple(self._notes)

    def close(self) -> None:
        """Wait for queued work and give the GPU's memory back; a GPU that failed holds nothing to be given."""
        self.notes()
        with self._device.lock, suppress(DeviceLostError):
            if self._graphs:
                self._device.synchronize()
            while self._graphs:
                self._graphs.pop().close()
            self._device.close()


def _kind(library: str) -> BackendKind:
    def opened(options: BackendOptions) -> TensorRTBackend:
        return TensorRTBackend(options.bundle, library, passage_cache_bytes=options.passage_cache_bytes)

    def check() -> str:
        check_installed(library)
        Cuda()
        return f"{library} {Library(library).version}; a bundle needs engines, see `glimmer-export build`"

    return BackendKind(library.replace("_", "-"), library, opened, in_auto=True, has_passage_cache=True, check=check)


KINDS = (_kind("tensorrt"), _kind("tensorrt_rtx"))
"""Backends that run a bundle's engines."""
