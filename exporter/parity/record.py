"""Write `parity.json` beside a bundle's manifest: the gate's result, and the report it was held against."""

from __future__ import annotations

import json
from pathlib import Path

from exporter.finite_json import finite
from exporter.parity.report import ParityReport
from exporter.publish import replace_file
from runtime.contract import MANIFEST, PARITY_RECORD, PARITY_SCHEMA_VERSION, file_digest

__all__ = ["record_parity"]


def record_parity(bundle: Path, report: ParityReport) -> None:
    """Record a report that has a gate's result; the bundle's own digests are not touched.

    Raises OutputError where the file cannot be written, ValueError without a gate.
    """
    if report.gate is None:
        raise ValueError("a report without a gate is not recorded")
    data = report.to_json()
    record = {
        "schema_version": PARITY_SCHEMA_VERSION, "manifest_sha256": file_digest(bundle / MANIFEST),
        "gate": data["gate"], "report": data,
    }  # fmt: skip
    content = json.dumps(finite(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(bundle / PARITY_RECORD, content.encode())
