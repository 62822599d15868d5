"""Which of a bundle's engines are for this device, and their bytes, verified."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.runtime.contract import (
    ENGINE_RECORD,
    ENGINES,
    BackendError,
    BundleError,
    EngineKey,
    EngineRecord,
    graph_digest,
    inside,
    is_there,
    read_engine_record,
    read_limited,
    read_manifest,
)

__all__ = ["DeviceEngines"]

BUILD = "build engines here: `glimmer-export build`"
MAX_ENGINE_BYTES = 32 << 30
"""A decoder of 11 billion parameters has 22 GiB in FP16; what is larger is no engine, and would be read into memory."""


@dataclass(frozen=True)
class DeviceEngines:
    """The record of one directory below engines/, whose engines are of the bundle's graphs as they are now."""

    directory: Path
    record: EngineRecord

    @classmethod
    def find(cls, bundle: Path, here: EngineKey) -> DeviceEngines:
        """The engines built for this very device, else those for any of its compute capability.

        Those of another capability are not for it, stand-ins among them: that they would run there is not promised.
        Raises BackendError where there are none, or where one is of another graph than the bundle's; BundleError for a
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
        """The bytes of a graph's engine; raises BackendError where none was built, BundleError where they changed."""
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
