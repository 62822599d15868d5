"""Contenders from what was prepared."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glimmer_export.exporter.bench.contender import Contender, ContenderSpec
from glimmer_export.exporter.bench.session_contender import SessionContender

__all__ = ["open_contenders"]


def open_contenders(specs: Sequence[ContenderSpec]) -> dict[str, Contender]:
    """Open each by its key; FiDs that differ only in their number of passages share one model."""
    models: dict[Path, Any] = {}
    opened: dict[str, Contender] = {}
    for spec in specs:
        if spec.library == "session":
            opened[spec.key] = SessionContender(spec)
            continue
        from glimmer_export.exporter.bench.peers import FidContender, fid_model

        if spec.model not in models:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                models[spec.model] = fid_model(spec.library, spec.model, spec.threads)
        opened[spec.key] = FidContender(spec, models[spec.model])
    return opened
