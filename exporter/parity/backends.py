"""Backends by name: what may run a candidate's graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from glimmer_export.calibration.rounding import RoundingBackend
from glimmer_export.runtime import BACKEND_NAMES
from glimmer_export.runtime.backends import Backend, OnnxRuntimeBackend
from glimmer_export.runtime.backends.choice import open_backend
from glimmer_export.runtime.contract import OptionError

__all__ = ["PARITY_BACKENDS", "parity_backend"]

PARITY_BACKENDS = (RoundingBackend.name, *(name for name in BACKEND_NAMES if name != "auto"))
"""A session's backends, and FP16 rounded at every operator: a comparison is to say what was compared."""


@contextmanager
def parity_backend(name: str, bundle: Path, threads: int | None) -> Iterator[Backend]:
    """A backend for a bundle's graphs by its name, closed at the end.

    Raises OptionError for an unknown one, BackendError where it cannot run here, BundleError for damaged engines.
    """
    if name not in PARITY_BACKENDS:
        raise OptionError(
            f"backend {name!r}", expected=f"one of {', '.join(PARITY_BACKENDS)}", found="none of that name",
            fix="choose one of these",
        )
    if name == RoundingBackend.name:
        yield RoundingBackend(threads)
        return
    backend = open_backend(name, bundle, threads=threads)
    try:
        yield backend
    finally:
        if not isinstance(backend, OnnxRuntimeBackend):
            backend.close()
