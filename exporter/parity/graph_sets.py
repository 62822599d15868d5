"""The graphs of either side, each loaded once and when it is first asked for, and which of them differ.

A bundle beside itself, or beside one of the same graphs, shows nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from glimmer_export.exporter.graphs.write import WEIGHTS_DIGEST
from glimmer_export.runtime.backends import Backend, Graph
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    CPU_BACKEND,
    ROUNDING_BACKEND,
    BundleManifest,
    Computation,
    OptionError,
    computes_fp16_in_fp32,
)

__all__ = ["BundleGraphs", "Compared", "GraphSet", "Shared", "TorchGraphs", "compared_graphs"]


class GraphSet(Protocol):
    """Graphs by the stages that they compute, for memory in a codec; None: there is no memory."""

    def of(self, codec: str | None) -> dict[str, Graph]:
        """Raises OptionError if there are none for the codec."""
        ...


class BundleGraphs:
    """Those of a bundle, on a backend; `loaded` are graphs that are there already, for memory in `codec`."""

    def __init__(
        self, bundle: Bundle, backend: Backend, loaded: Mapping[str, Graph] | None = None, codec: str | None = None
    ) -> None:
        self._bundle, self._backend = bundle, backend
        stages = bundle.manifest.stages(codec)
        self._graphs = {stages[stage]: graph for stage, graph in (loaded or {}).items()}

    def of(self, codec: str | None) -> dict[str, Graph]:
        """As GraphSet; raises BundleError or BackendError too, if a graph cannot be loaded."""
        manifest = self._bundle.manifest
        if codec is not None and codec not in manifest.codecs:
            raise OptionError(
                str(self._bundle), expected=f"graphs for the codec {codec} of a store that is compared",
                found=", ".join(manifest.codecs), fix=f"export it with `--codecs {codec}` too",
            )
        return {stage: self.graph(name) for stage, name in manifest.stages(codec).items()}

    def graph(self, name: str) -> Graph:
        """One graph by its own name."""
        if name not in self._graphs:
            self._graphs[name] = self._backend.load(self._bundle.graph_path(name), self._bundle.manifest.io()[name])
        return self._graphs[name]


class TorchGraphs:
    """Those that `make` gives for a codec."""

    def __init__(self, make: Callable[[str | None], dict[str, Graph]]) -> None:
        self._make = make
        self._made: dict[str | None, dict[str, Graph]] = {}

    def of(self, codec: str | None) -> dict[str, Graph]:
        """As GraphSet."""
        if codec not in self._made:
            self._made[codec] = self._make(codec)
        return self._made[codec]


@dataclass(frozen=True)
class Compared:
    """What the candidate computed, its `graphs` for the codec that was read, and how many of them witness nothing.

    `same`: the reference has the same and computes it alike; `rounded_reference`: the reference's is not FP32 itself;
    `fp16_in_fp32`: FP16 that the backend computed in FP32.
    """

    computation: Computation
    graphs: int
    same: int
    rounded_reference: int
    fp16_in_fp32: int


@dataclass(frozen=True)
class Shared:
    """The stages whose graphs both sides have the same and compute alike: what one errs there, so does the other."""

    stages: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, candidate: Bundle, backend: str, reference: Bundle, reference_backend: str, codecs: tuple[str | None, ...]
    ) -> Shared:
        """Those of two bundles on their backends, for memory in each side's codec, the candidate's first."""
        ours = candidate.manifest.stages(codecs[0])
        theirs = reference.manifest.stages(codecs[1])
        alike = (
            stage
            for stage, name in ours.items()
            if stage in theirs
            and _computed_alike(candidate.manifest.graphs[name].precision, backend, reference_backend)
            and graph_identity(candidate, name) == graph_identity(reference, theirs[stage])
        )
        return cls(frozenset(alike))

    def all_of(self, stages: Iterable[str]) -> bool:
        """Whether both share every one of these."""
        return self.stages.issuperset(stages)


def compared_graphs(manifest: BundleManifest, made: Computation, reference: dict[str, str], shared: Shared) -> Compared:
    """Count; `made` is what the candidate computed, `reference` the precision of the reference's graphs, by name."""
    stages = manifest.stages(made.codec)
    fp16 = [name for name in stages.values() if "fp16" in manifest.graphs[name].precision]
    rounded = [name for name, precision in reference.items() if precision != "fp32"]
    return Compared(
        made, len(stages), len(shared.stages), len(rounded),
        len(fp16) if computes_fp16_in_fp32(manifest, made.backend, made.codec) else 0,
    )


def graph_identity(bundle: Bundle, name: str) -> str:
    """A digest that equal graphs have in common, wherever in their bundles' files their weights lie."""
    import onnx

    path = bundle.graph_path(name)
    model = onnx.load(path, load_external_data=False)
    if any(entry.key == WEIGHTS_DIGEST for entry in model.metadata_props):
        for tensor in model.graph.initializer:
            del tensor.external_data[:]
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def _computed_alike(precision: str, backend: str, other: str) -> bool:
    """Whether two backends make the same of a graph; FP32 and INT8 are not rounded by the one that rounds FP16."""
    on_cpu = {CPU_BACKEND, ROUNDING_BACKEND}
    return backend == other or ("fp16" not in precision and {backend, other} <= on_cpu)
