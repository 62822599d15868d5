"""NVIDIA's compilers behind one class: TensorRT 10.3 to 11 for the GPU at hand, TensorRT-RTX for any capability.

Their Python modules have nearly the same API. Networks are strongly typed: types are those of the graph, which is all
that TensorRT 11 knows.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glimmer_export.exporter.config.targets import TensorRTTarget
from glimmer_export.exporter.files.whole_file import replace_file
from glimmer_export.runtime.backends.cuda import Cuda, Gpu
from glimmer_export.runtime.backends.cuda_libraries import INSTALL_GPU
from glimmer_export.runtime.contract import BackendError, EngineError, EngineKey, MissingExtraError, ShapeRange
from glimmer_export.runtime.contract.files import read_file

__all__ = ["Compiler", "open_compiler"]

MODULES = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
INSTALL = {
    "tensorrt": f"install it: {INSTALL_GPU}; on a Jetson it comes with JetPack: apt install python3-libnvinfer",
    "tensorrt-rtx": 'install it: pip install "glimmer-export[rtx]"',
}
MAX_TIMINGS_BYTES = 1 << 30
"""A bundle's take some megabytes; what is larger is not ours."""


def find_device() -> Gpu | None:
    """The first GPU; None if there is none, or neither a driver nor the package cuda-python to ask."""
    try:
        return Cuda().gpu
    except BackendError:
        return None


def open_compiler(compiler: str, target_name: str, target: TensorRTTarget) -> Compiler:
    """The compiler, bound to what it builds for.

    TensorRT builds for the GPU found, which must be of the target's capability. TensorRT-RTX builds ahead of time, for
    every GPU of a capability that it knows; for the GPU found if it does not know the target's and this is one.
    Raises MissingExtraError if the compiler is not installed, BackendError if TensorRT finds no such GPU.
    """
    try:
        module = importlib.import_module(MODULES[compiler])
    except (ImportError, OSError) as error:
        raise MissingExtraError(
            f"compiler {compiler}", expected=f"the package {MODULES[compiler]}", found=str(error) or "none",
            fix=INSTALL[compiler],
        ) from None
    device = find_device()
    here = device is not None and device.compute_capability == target.compute_capability
    if compiler == "tensorrt" and not here:
        raise BackendError(
            f"compiler tensorrt, target {target_name}",
            expected=f"a GPU of compute capability {target.compute_capability}, to build and time on",
            found="none" if device is None else f"{device.name} of {device.compute_capability}",
            fix="run this on the device, or build ahead of time with --compiler tensorrt-rtx",
        )
    itself = compiler == "tensorrt" or (target.stand_in and here)
    key = EngineKey(
        MODULES[compiler], str(module.__version__),
        target.compute_capability if itself else target.rtx_capability,
        device.name if itself and device is not None else None,
    )
    capability = "CURRENT" if key.device is not None else f"SM{key.compute_capability.replace('.', '')}"
    return Compiler(module, key, target.stand_in and not itself, (capability,), target.workspace_mib << 20)


@dataclass(frozen=True)
class Compiler:
    """`key` says what its engines are bound to, `stand_in` that this is not the target's own capability.

    `capabilities` are TensorRT-RTX's names of what one engine is to serve, such as SM75 or CURRENT.
    """

    module: Any
    key: EngineKey
    stand_in: bool
    capabilities: tuple[str, ...]
    workspace_bytes: int

    @property
    def keeps_timings(self) -> bool:
        """Whether a timing cache makes a later build faster; in TensorRT-RTX its operations do nothing (since 1.2)."""
        return self.key.library == "tensorrt"

    def compile(self, path: Path, profiles: Sequence[Mapping[str, ShapeRange]], timings: Path) -> Any:
        """The engine of a graph file, as a buffer of bytes.

        The timing cache at `timings` is read if there is one, and written back. Raises EngineError with the
        compiler's own messages, BackendError for a compute capability that it does not offer.
        """
        log = _log(self.module)
        builder = self.module.Builder(log)
        network = builder.create_network(_network_flags(self.module))
        self._parse(path, network, log)
        config = builder.create_builder_config()
        config.set_memory_pool_limit(self.module.MemoryPoolType.WORKSPACE, self.workspace_bytes)
        if self.key.library == "tensorrt_rtx":
            self._set_capabilities(config)
            # Memory that a run takes for itself is what a CUDA graph cannot have; RTX before 1.2 has no such flag.
            if (flag := getattr(self.module.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)) is not None:
                config.set_flag(flag)
        for shapes in profiles:
            profile = builder.create_optimization_profile()
            for name, dims in shapes.items():
                profile.set_shape(name, dims.min, dims.opt, dims.max)
            if config.add_optimization_profile(profile) < 0:
                raise _refused(path, log, "optimization profiles that fit the graph")
        if self.keeps_timings:
            cache = config.create_timing_cache(_read(timings))
            # A cache of another device or version: TensorRT says so in its log, and times anew.
            if not config.set_timing_cache(cache, ignore_mismatch=False):
                config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise _refused(path, log, f"a graph that {self.key.library} {self.key.version} compiles")
        if self.keeps_timings:
            replace_file(timings, config.get_timing_cache().serialize())
        return engine

    def _set_capabilities(self, config: Any) -> None:
        """What the engine is to serve; raises BackendError for what the library does not offer."""
        config.num_compute_capabilities = len(self.capabilities)
        known = self.module.ComputeCapability.__members__
        for place, name in enumerate(self.capabilities):
            if name not in known or not config.set_compute_capability(known[name], place):
                raise BackendError(
                    f"compiler tensorrt-rtx, compute capability {name}",
                    expected=f"one that {self.key.library} {self.key.version} offers: "
                    f"{', '.join(sorted(set(known) - {'NONE'}))}",
                    found="none of these" if name not in known else "one that it refuses here",
                    fix="name another target, whose engines this GPU runs, or build with --compiler tensorrt on it",
                )

    def _parse(self, path: Path, network: Any, log: Any) -> None:
        parser = self.module.OnnxParser(network, log)
        if not parser.parse_from_file(str(path)):
            for index in range(parser.num_errors):
                error = parser.get_error(index)
                log.errors.append(f"{error.node_operator()} {error.node_name()}: {error.desc()}")
            raise _refused(path, log, f"a graph that the parser of {self.key.library} {self.key.version} reads")


def _read(timings: Path) -> bytes:
    """The timing cache; nothing if there is none, or none that is ours: TensorRT times anew then."""
    try:
        return read_file(timings, MAX_TIMINGS_BYTES)
    except OSError:
        return b""


def _network_flags(module: Any) -> int:
    """Strong typing is asked for up to TensorRT 10, and is all there is from 11 on."""
    flag = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _log(module: Any) -> Any:
    """A logger that keeps what is said of errors, for the message, and is silent otherwise."""

    class Log(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.ERROR, module.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

    return Log()


def _refused(path: Path, log: Any, expected: str) -> EngineError:
    said = "; ".join(dict.fromkeys(" ".join(str(error).split()) for error in log.errors))
    return EngineError(
        f"graph {path.stem}", expected=expected, found=said or "no reason given",
        fix="see `glimmer-export lint`; if that finds nothing, report this as a bug",
    )
