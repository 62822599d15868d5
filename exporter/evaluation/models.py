"""What is evaluated: checkpoints, which answer in torch, and bundles, which answer as they do on a device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from glimmer_export.exporter.evaluation.grid import Cell
from glimmer_export.exporter.evaluation.passages import Asked, Found
from glimmer_export.runtime import Answer
from glimmer_export.runtime.contract import Forms, ModelShape, OptionError
from glimmer_export.runtime.contract.kinds import BUNDLE, CHECKPOINT, kind_of
from glimmer_export.runtime.store import MemoryStore

__all__ = ["Answering", "Model", "ModelOptions", "labels_of", "open_models"]


@dataclass(frozen=True)
class ModelOptions:
    """How models answer.

    `store`: what memory is read from, None: each model computes that of the passages found. `batch_size`: questions of
    one run; `threads` of it, None: as suits model and machine; `backend`: what runs a bundle's graphs, in
    `compute_precision` where that is float; `verify`: the store's digests.
    """

    store: Path | None = None
    batch_size: int = 8
    threads: int | None = None
    backend: str = "auto"
    verify: bool = True
    compute_precision: str = "auto"


class Answering(Protocol):
    """A model that is loaded."""

    def answer(self, batch: Sequence[Asked], cells: Sequence[Cell]) -> list[list[Answer]]:
        """The answers of a batch by cell, each with its passages as they were ranked; raises what answering raises."""
        ...

    def forget(self) -> None:
        """Have what is answered next depend, to the last bit, on nothing that was answered before."""
        ...


class Model(Protocol):
    """A checkpoint or a bundle, read and found sound. `forms` are those of its graphs, `kind` says what it is."""

    @property
    def path(self) -> Path:
        """Where it lies."""
        ...

    @property
    def kind(self) -> str:
        """What it is."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 over all that its answers depend on, but for a store."""
        ...

    @property
    def shape(self) -> ModelShape:
        """Its architecture, lengths and counts."""
        ...

    @property
    def forms(self) -> Forms:
        """The forms of its graphs; of a checkpoint those that `export` would choose."""
        ...

    def open_store(self, store: Path, *, verify: bool, retrieval: str = "bm25") -> MemoryStore:
        """A store of its memory; raises StoreError for another's."""
        ...

    def opened(self, found: Found, options: ModelOptions) -> AbstractContextManager[Answering]:
        """Load it to answer these questions, and let it go at the end."""
        ...


def open_models(paths: Sequence[Path]) -> list[Model]:
    """What the paths name, told apart by what lies there.

    Raises OptionError for what is neither a checkpoint nor a bundle, and what reading them raises: CheckpointError,
    BundleError, TokenizerError.
    """
    models: list[Model] = []
    for path in paths:
        found = kind_of(path)
        if found == BUNDLE:
            from glimmer_export.exporter.evaluation.bundle import BundleModel

            models.append(BundleModel(path))
        elif found == CHECKPOINT:
            from glimmer_export.exporter.evaluation.checkpoint import CheckpointModel

            models.append(CheckpointModel(path))
        else:
            raise OptionError(
                str(path), expected="a checkpoint or a bundle", found=found or "what cannot be told",
                fix="name a directory that `glimmer-export train`, `init` or `convert` wrote, or one that `export` or "
                "`quantize` did",
            )
    return models


def labels_of(paths: Sequence[Path]) -> list[str]:
    """The directories' names, as short as tells them apart: with the folders above them where two have one name.

    A directory that is named twice is numbered.
    """
    parts = [Path(os.path.abspath(path)).parts for path in paths]  # noqa: PTH100 - a link keeps its own name
    labels = []
    for own in parts:
        others = [other for other in parts if other != own]
        depth = next(
            (depth for depth in range(1, len(own)) if all(other[-depth:] != own[-depth:] for other in others)), len(own)
        )
        labels.append("/".join(own[-depth:]))
    return [
        label if not (before := labels[:place].count(label)) else f"{label} ({before + 1})"
        for place, label in enumerate(labels)
    ]
