"""Backends by name: what may run a candidate's graphs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from glimmer_export.calibration.rounding import RoundingBackend
from glimmer_export.runtime.backends import Backend
from glimmer_export.runtime.backends.registry import AUTO, backend_names, open_backend
from glimmer_export.runtime.contract import OptionError

__all__ = ["parity_backend", "parity_backends"]


def parity_backends() -> tuple[str, ...]:
    """A session's backends, and FP16 rounded at every operator: a comparison is to say what was compared."""
    return (RoundingBackend.name, *(name for name in backend_names() if name != AUTO))


@contextmanager
def parity_backend(name: str, bundle: Path, threads: int | None) -> Iterator[Backend]:
    """A backend for a bundle's graphs by its name, closed at the end.

    Raises OptionError for an unknown one, BackendError where it cannot run here, BundleError for damaged engines.
    """
    if name not in parity_backends():
        raise OptionError(
            f"backend {name!r}", expected=f"one of {', '.join(parity_backends())}", found="none of that name",
            fix="choose one of these",
        )
    rounding = name == RoundingBackend.name
    with closing(RoundingBackend(threads) if rounding else open_backend(name, bundle, threads=threads)) as backend:
        yield backend
