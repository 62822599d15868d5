"""Calls of ONNX Runtime: the only module in which its sessions are made and run, and its exceptions become ours.

Its own classes share no base but Exception. What its code in C++ throws besides comes as Python's: std::exception as
RuntimeError, std::bad_alloc as MemoryError, and a message that is not UTF-8, as a damaged graph's names are not, as
UnicodeDecodeError.

A graph's files may lie elsewhere, where the user's system put them, with links beside the graph that lead there. ONNX
Runtime 1.23 reads external data through links. Later releases refuse a file that does not lie below the graph's folder;
they can be given its bytes instead, which stay mapped and are not copied.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from glimmer_export.runtime.backends.contract import Array
from glimmer_export.runtime.contract import BackendError, DeviceMemoryError, GlimmerError
from glimmer_export.runtime.contract.files import map_file
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line
from glimmer_export.runtime.external_data import external_data

__all__ = ["OrtSession", "from_device", "import_onnxruntime", "to_device"]

GIVE = "add_external_initializers_from_files_in_memory"
WITHOUT_COPY = "session.use_external_initializer_file_buffers_directly"
OWN = "onnxruntime.capi.onnxruntime_pybind11_state"
BUILTINS = (MemoryError, RuntimeError, UnicodeDecodeError)
CUDA_FAILURE = re.compile(r"CUDA failure \d+: [^;\n]*[^;\s]")
"""What matters of a message that begins with the types of a C++ template."""
NO_MEMORY = re.compile(r"bad[ _]alloc|fail\w* to allocate|BFCArena|out of memory|CUDA failure 2\b", re.IGNORECASE)


def map_linked_files(options: Any, graph: Path | bytes, folder: Path) -> list[mmap.mmap]:
    """Give session options the bytes of a graph's files that lead out of its folder, to be kept as long as the session.

    `graph` is its file, verified, or its content. Raises OSError.
    """
    if not hasattr(options, GIVE) or not any(path.is_symlink() for path in folder.rglob("*")):
        return []
    content = map_file(graph) if isinstance(graph, Path) else graph
    try:
        names = {data.location.decode() for data in external_data(memoryview(content or b""))}
    except ValueError:  # no graph, which ONNX Runtime has words for
        return []
    real = folder.resolve()
    linked = (name for name in sorted(names) if not (folder / name).resolve().is_relative_to(real))
    files = {name: file for name in linked if (file := map_file(folder / name)) is not None}
    if files:
        options.add_session_config_entry(WITHOUT_COPY, "1")
        getattr(options, GIVE)(list(files), list(files.values()), [len(file) for file in files.values()])
    return list(files.values())


def import_onnxruntime(subject: str = "backend onnxruntime-cpu") -> Any:
    """The package; raises BackendError about `subject` if it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        raise BackendError(
            subject, expected="the package onnxruntime", found="none",
            fix='install it: pip install "glimmer-export[cpu]"',
        ) from None
    return onnxruntime


class OrtSession:
    """A graph that ONNX Runtime has loaded. Safe from several threads.

    `inputs` and `outputs` have name, ONNX Runtime's type and rank of each.
    """

    def __init__(
        self, graph: Path | bytes, options: Any, providers: Sequence[str] = ("CPUExecutionProvider",), *,
        subject: str, refused: Callable[[str], GlimmerError], folder: Path | None = None,
    ) -> None:
        """Load a graph file, or its content, whose external data lie in `folder`; `options` are for it alone.

        `subject` is that of errors at run time.

        Raises what `refused` makes of ONNX Runtime's reason, DeviceMemoryError if there is no memory for the graph.
        """
        onnxruntime = import_onnxruntime()
        self._running = onnxruntime_errors(subject, partial(_failed, subject))
        folder = graph.parent if isinstance(graph, Path) else folder
        with onnxruntime_errors(subject, refused):
            try:
                self._linked = [] if folder is None else map_linked_files(options, graph, folder)
            except OSError as reason:
                raise refused(str(reason)) from None
            self.session: Any = onnxruntime.InferenceSession(
                str(graph) if isinstance(graph, Path) else graph, sess_options=options, providers=list(providers),
                # Its way out prints on standard output, where answers go, and turns to the CPU in silence.
                enable_fallback=0,
            )
            # A name that is not UTF-8 is found out here.
            self.inputs, self.outputs = (
                [(tensor.name, tensor.type, len(tensor.shape)) for tensor in side]
                for side in (self.session.get_inputs(), self.session.get_outputs())
            )

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> list[Array]:
        """Run once; raises BackendError if the graph fails, DeviceMemoryError for want of memory."""
        with self._running:
            found: list[Array] = self.session.run(outputs, inputs)
        return found

    def run_bound(self, binding: Any) -> list[Any]:
        """Run once on an I/O binding, and give its outputs, on their device; raises as `run`."""
        with self._running:
            self.session.run_with_iobinding(binding)
            found: list[Any] = binding.get_outputs()
        return found


def to_device(onnxruntime: Any, array: Array, device: str) -> Any:
    """An array's copy in a device's memory; raises BackendError, DeviceMemoryError for want of memory."""
    with onnxruntime_errors(device, partial(_failed, f"device {device}")):
        return onnxruntime.OrtValue.ortvalue_from_numpy(array, device, 0)


def from_device(value: Any) -> Array:
    """The host's copy of a device's value; raises as `to_device`."""
    with onnxruntime_errors("device", partial(_failed, "device")):
        array: Array = value.numpy()
    return array


def onnxruntime_errors(subject: str, refused: Callable[[str], GlimmerError]) -> LibraryErrors:
    """For a call of ONNX Runtime: its exceptions by `refused`, and want of memory as DeviceMemoryError."""

    def named(raised: BaseException) -> GlimmerError:
        failure = CUDA_FAILURE.search(str(raised))
        reason = first_line(raised) if failure is None else failure[0]
        if isinstance(raised, MemoryError) or NO_MEMORY.search(str(raised)):
            return DeviceMemoryError(
                subject, expected="memory to load and run it", found=reason,
                fix="ask fewer questions at once, lower top_k, or make room in memory",
            )
        return refused(reason)

    return LibraryErrors(_is_own, named)


def _failed(subject: str, reason: str) -> BackendError:
    return BackendError(
        subject, expected="a graph that runs", found=reason,
        fix="compare the bundle with its checkpoint: `glimmer-export parity`; or choose another backend",
    )


def _is_own(kind: type[BaseException]) -> bool:
    return kind.__module__ == OWN or kind in BUILTINS
