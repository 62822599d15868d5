"""Packages that an engine needs and a device may lack."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from glimmer_export.runtime.contract import MissingExtraError

__all__ = ["import_extra"]


def import_extra(package: str, extra: str) -> Any:
    """Import a package; raises MissingExtraError where it is not installed."""
    try:
        return import_module(package)
    except ImportError:
        raise MissingExtraError(
            f"package {package}", expected="it installed for this kind of retrieval", found="none",
            fix=f'install its extra: pip install "glimmer-export[{extra}]"',
        ) from None
