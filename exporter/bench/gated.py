"""Which contenders' precision passed the gate on trained models, by the rows of docs/measurements/fidelity.json.

A bench runs random weights, which show nothing of what a precision costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glimmer_export.exporter.bench.roster import OURS
from glimmer_export.runtime.contract import OutputError
from glimmer_export.runtime.contract.records import read_json

__all__ = ["ROWS", "gated_contenders"]

ROWS = {
    "int8": ("int8 cpu",),
    "openvino": ("fp32 openvino",),
    "openvino_bf16": ("bf16 openvino",),
    "openvino_int8": ("int8 openvino",),
    "auto_int8": ("int8 cpu", "int8 openvino"),
}
"""A contender -> the rows of fidelity.json whose gates witness for it: of each engine that its graphs may run on."""
WORLDS = ("demo", "hard")


def gated_contenders(path: Path) -> tuple[str, ...]:
    """Our contenders whose rows all passed the gate on both worlds, ours in FP32 first, which is the reference.

    Raises OutputError for a file that is not what tests/demo/fidelity.py writes.
    """
    found = read_json(path, error=OutputError, fix="write it with `python -m tests.demo.fidelity`")
    if not all(isinstance(found.get(world), dict) for world in WORLDS):
        raise OutputError(
            f"{path}", expected=f"rows of the worlds {' and '.join(WORLDS)}", found=", ".join(found),
            fix="write it with `python -m tests.demo.fidelity`",
        )
    return (OURS, *(key for key, rows in ROWS.items() if all(_passed(found, row) for row in rows)))


def _passed(found: Mapping[str, Any], row: str) -> bool:
    gates = [found[world].get(row, {}).get("gate") for world in WORLDS]
    return all(gate is not None and gate["passed"] is True for gate in gates)
