"""How two sides are compared, and what may run a candidate's graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.calibration.rounding import RoundingBackend
from glimmer_export.runtime.backends import Backend
from glimmer_export.runtime.backends.registry import AUTO, backend_names, open_backend
from glimmer_export.runtime.contract import FP32, OptionError

__all__ = ["ParityOptions", "Progress", "no_progress", "parity_backend"]

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Called with what a phase does and of how many questions; yields what to call with the number that came to be done."""


@dataclass(frozen=True)
class ParityOptions:
    """How to compare.

    `given_passages`: those of the question file, instead of retrieval; `top_k` and `top_m`: None for the manifest's;
    `mass`: the candidate reads no more of the m than hold that share of the scores' softmax, None for all;
    `draft_tokens`: the candidate looks drafts of so many tokens up in what it reads, 0 for none, as the reference has;
    `exact_ranking`: stage A of the reference ranks all k, whatever a cascade's shortlist keeps; `batch_size`: questions
    of one run; `observed_runs`: runs of each graph that both sides repeat on the same inputs, of questions in even
    steps through all; `exact_memory`: a torch reference encodes its own memory in FP32 instead of reading a store's;
    `reference_store`: what the reference reads, None for the candidate's store; `attribution`: swap one part at a time;
    `threads` of one graph run, if no backend is given; `retrieval`: what finds the passages of both.
    """

    given_passages: bool = False
    top_k: int | None = None
    top_m: int | None = None
    mass: float | None = None
    draft_tokens: int = 0
    exact_ranking: bool = False
    batch_size: int = 8
    observed_runs: int = 8
    exact_memory: bool = False
    reference_store: Path | None = None
    attribution: bool = False
    threads: int | None = None
    retrieval: str = "bm25"

    @property
    def reads_alike(self) -> bool:
        """Whether both sides are to read the same passages, token by token, but for what their graphs compute."""
        return self.mass is None and not self.draft_tokens and not self.exact_ranking


@contextmanager
def no_progress(_description: str, _total: int) -> Iterator[Callable[[int], None]]:
    """Tells nobody."""
    yield lambda _: None


def parity_backends() -> tuple[str, ...]:
    """A session's backends, and FP16 rounded at every operator: a comparison is to say what was compared."""
    return (RoundingBackend.name, *(name for name in backend_names() if name != AUTO))


@contextmanager
def parity_backend(
    name: str, bundle: Path, threads: int | None, *, compute_precision: str = FP32, compile_cache: Path | None = None
) -> Iterator[Backend]:
    """A backend for a bundle's graphs by its name, closed at the end.

    Raises OptionError for an unknown one, or one without that compute precision or a compile cache, BackendError if it
    cannot run here, BundleError for damaged engines.
    """
    if name not in parity_backends():
        raise OptionError(
            f"backend {name!r}", expected=f"one of {', '.join(parity_backends())}", found="none of that name",
            fix="choose one of these",
        )
    if name == RoundingBackend.name:
        if compute_precision != FP32 or compile_cache is not None:
            raise OptionError(
                f"backend {name}", expected="neither a compute precision nor a compile cache",
                found=compute_precision if compile_cache is None else str(compile_cache), fix="leave it out",
            )
        backend: Backend = RoundingBackend(threads)
    else:
        backend = open_backend(
            name, bundle, threads=threads, compute_precision=compute_precision, compile_cache=compile_cache
        )
    with closing(backend):
        yield backend
