"""What a parity run found, and how it is printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["ParityReport"]


@dataclass(frozen=True)
class ParityReport:
    """Bundle (the candidate) against torch checkpoint (the reference) on the same questions and passages.

    `questions` were compared, `errors` could not be taken. Shares and metrics run from 0 to 1; None where there was
    nothing to measure: no selection in this architecture, no gold answers, no memory. `memory_max_abs_err` is the
    store's decoded memory against torch's own.
    """

    questions: int
    errors: int
    passages: str
    reference_memory: str
    answers_equal: float | None
    top_m_overlap: float | None
    em_reference: float | None
    em_candidate: float | None
    f1_reference: float | None
    f1_candidate: float | None
    memory_max_abs_err: float | None
    graphs: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """The report under the keys that `--json` promises."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["graphs"] = {name: {"max_abs_err": error} for name, error in self.graphs.items()}
        return values

    def print(self, console: Console) -> None:
        """Two tables: answers, and error by graph."""
        from rich.table import Table

        table = Table(title=f"Parity on {self.questions} questions ({self.passages} passages)")
        for column in ("", "torch checkpoint", "bundle"):
            table.add_column(column, justify="left" if not column else "right")
        table.add_row("exact match", _share(self.em_reference), _share(self.em_candidate))
        table.add_row("token F1", _share(self.f1_reference), _share(self.f1_candidate))
        table.add_row("answers equal", "", _share(self.answers_equal))
        table.add_row("top-m overlap", "", _share(self.top_m_overlap))
        if self.errors:
            table.add_row("questions not taken", "", str(self.errors))
        console.print(table)
        errors = Table(title="Largest absolute error against torch")
        errors.add_column("graph")
        errors.add_column("error", justify="right")
        for name, error in self.graphs.items():
            errors.add_row(name, f"{error:.2e}")
        if self.memory_max_abs_err is not None:
            errors.add_row("store (codec and encoder)", f"{self.memory_max_abs_err:.2e}")
        console.print(errors)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
