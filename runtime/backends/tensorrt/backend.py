"""A bundle's engines on this machine's GPU."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from glimmer_export.runtime.backends.cuda import Cuda
from glimmer_export.runtime.backends.tensorrt.device import CudaDevice
from glimmer_export.runtime.backends.tensorrt.engine_graph import EngineGraph
from glimmer_export.runtime.backends.tensorrt.engines import DeviceEngines
from glimmer_export.runtime.backends.tensorrt.library import Library, check_installed
from glimmer_export.runtime.backends.tensorrt.runtime_cache import runtime_cache_path
from glimmer_export.runtime.contract import DeviceLostError, EngineKey, EngineRecord, FormChoice, GraphIO, stage_of

__all__ = ["TensorRTBackend"]

REPEATED = "decoder_step"
"""The stage that runs once a token, and so is captured, the runs between two looks at the tokens together."""


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
        """Raises BackendError where library, GPU or engines are missing, BundleError for a damaged record of them."""
        check_installed(library)
        self.name = library.replace("_", "-")
        # The library is large: it is loaded where there is a GPU for it.
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
        """Load the engine of a graph file; raises BundleError where it is damaged or of another I/O."""
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
