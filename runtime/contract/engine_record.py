"""`engines/<fingerprint>/engines.json`: the engines that a bundle holds for one kind of device, and how to tell.

Engines are bound to the library that built them and to the GPU, so they stand outside the bundle's manifest: a device
may build its own. Each names the digest of the graph that it was built from.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

from glimmer_export.runtime.contract.errors import BundleError
from glimmer_export.runtime.contract.files import inside
from glimmer_export.runtime.contract.form_choice import FormChoice, check_form_choice
from glimmer_export.runtime.contract.manifest import FileEntry, GraphEntry
from glimmer_export.runtime.contract.records import FileKind, read_record

__all__ = [
    "ENGINES",
    "ENGINE_LIBRARIES",
    "ENGINE_RECORD",
    "ENGINE_SCHEMA_VERSION",
    "EngineEntry",
    "EngineKey",
    "EngineRecord",
    "ShapeRange",
    "graph_digest",
    "read_engine_record",
]

ENGINE_SCHEMA_VERSION = 2
ENGINE_FILE = FileKind("glimmer-engines", ENGINE_SCHEMA_VERSION, oldest=1)
ENGINES = "engines"
ENGINE_RECORD = "engines.json"
ENGINE_LIBRARIES = ("tensorrt", "tensorrt_rtx")
FIX = "build the engines again with `glimmer-export build`"
VERSION = re.compile(r"\d+(\.\d+){1,3}")
CAPABILITY = re.compile(r"\d{1,2}\.\d")
MAX_DEVICE_NAME = 100


@dataclass(frozen=True)
class EngineKey:
    """What an engine is bound to.

    `library` is `tensorrt` or `tensorrt_rtx` and `version` its own, such as "10.3.0.26"; `compute_capability` is such
    as "7.5". `device` is the GPU's name, or None if the engine serves every device of its capability, as those that
    TensorRT-RTX builds ahead of time do.
    """

    library: str
    version: str
    compute_capability: str
    device: str | None

    @property
    def fingerprint(self) -> str:
        """The name of its directory below engines/: "tensorrt-10.3.0.26-sm75-tesla-t4"."""
        device = "" if self.device is None else "-" + re.sub(r"[^a-z0-9]+", "-", self.device.lower()).strip("-")
        return f"{self.library.replace('_', '-')}-{self.version}-sm{self.compute_capability.replace('.', '')}{device}"


@dataclass(frozen=True)
class ShapeRange:
    """Dimensions of one input in an optimization profile: the least, the ones tuned for, and the greatest."""

    min: tuple[int, ...]
    opt: tuple[int, ...]
    max: tuple[int, ...]


@dataclass(frozen=True)
class EngineEntry:
    """One engine: its file, the digest of its graph, its optimization profiles by input, and seconds of building.

    `file.path` is below the record's own directory.
    """

    file: FileEntry
    graph_sha256: str
    profiles: tuple[dict[str, ShapeRange], ...]
    build_seconds: float


@dataclass(frozen=True)
class EngineRecord:
    """The engines of one directory, by graph.

    `target` is what they were built for, a name in configs/targets or that of a user's own file; `stand_in` says that
    the library cannot build for that target's own capability and `key` names the nearest. `cross_attention` is the
    choice for these engines, of a bundle that has both forms of it.
    """

    format: str = field(default=ENGINE_FILE.format, kw_only=True)
    schema_version: int
    key: EngineKey
    target: str
    stand_in: bool
    engines: dict[str, EngineEntry]
    cross_attention: FormChoice | None = None


def graph_digest(graph: GraphEntry) -> str:
    """SHA-256 that stands for a graph: over those of its files, the model first."""
    return hashlib.sha256("\n".join(file.sha256 for file in graph.files).encode()).hexdigest()


def read_engine_record(directory: Path) -> EngineRecord:
    """Parse and check `engines.json` of one directory below engines/; the engines themselves are not looked at.

    Raises BundleError: absent, not JSON, newer schema, a missing, unknown or mistyped field, a directory whose name is
    not its key's fingerprint, profiles whose dimensions are out of order, seconds that are none, a choice that is none,
    or paths that leave the directory.
    """
    subject = f"engines {directory}, {ENGINE_RECORD}"
    record = read_record(
        directory / ENGINE_RECORD, ENGINE_FILE, EngineRecord, error=BundleError, subject=subject, fix=FIX
    )
    _check_key(record.key, directory, subject)
    if record.cross_attention is not None:
        check_form_choice(record.cross_attention, subject=f"{subject}, cross_attention", fix=FIX)
    for name, engine in record.engines.items():
        inside(directory, engine.file.path, error=BundleError, subject=f"{subject}, {name}")
        if not 0 <= engine.build_seconds < math.inf:
            raise BundleError(
                f"{subject}, {name}", expected="seconds of building", found=str(engine.build_seconds), fix=FIX
            )
        for profile in engine.profiles:
            for tensor, dims in profile.items():
                _check_range(dims, f"{subject}, {name}, {tensor}")
    return record


def _check_key(key: EngineKey, directory: Path, subject: str) -> None:
    plain = (
        key.library in ENGINE_LIBRARIES
        and VERSION.fullmatch(key.version)
        and CAPABILITY.fullmatch(key.compute_capability)
        and (key.device is None or 0 < len(key.device) <= MAX_DEVICE_NAME)
    )
    if not plain:
        raise BundleError(
            f"{subject}, key", expected="a library, its version, a compute capability and a device", found=str(key),
            fix=FIX,
        )
    if key.fingerprint != directory.name:
        raise BundleError(subject, expected=f"a directory named {key.fingerprint}", found=directory.name, fix=FIX)


def _check_range(dims: ShapeRange, subject: str) -> None:
    ordered = len(dims.min) == len(dims.opt) == len(dims.max) and all(
        0 < low <= middle <= high for low, middle, high in zip(dims.min, dims.opt, dims.max, strict=True)
    )
    if not ordered:
        raise BundleError(subject, expected="0 < min <= opt <= max, dimension by dimension", found=str(dims), fix=FIX)
