"""`parity.json`: what a parity run with a gate found, beside the manifest of the bundle that it concerns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.contract.digest import file_digest
from runtime.contract.errors import BundleError
from runtime.contract.manifest import MANIFEST
from runtime.contract.records import check_schema_version, read_json, record_from_json

__all__ = [
    "PARITY_RECORD",
    "PARITY_SCHEMA_VERSION",
    "GateCheck",
    "GateResult",
    "ParityRecord",
    "check_parity",
    "read_parity_record",
]

PARITY_SCHEMA_VERSION = 2
OLDEST_PARITY_SCHEMA = 1
"""The oldest that is read: what it lacks has a default."""
PARITY_RECORD = "parity.json"
FIX = "run `glimmer-export parity BUNDLE --gate ...` again"
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class GateCheck:
    """One limit, what was found (None: not measured, or without bound), and whether it is within."""

    name: str
    limit: float
    found: float | None
    passed: bool


@dataclass(frozen=True)
class GateResult:
    """A gate passes where each of its checks does."""

    name: str
    passed: bool
    checks: tuple[GateCheck, ...]


@dataclass(frozen=True)
class ParityRecord:
    """The gate's result, the report it was held against, and the SHA-256 of the manifest that they concern."""

    schema_version: int
    manifest_sha256: str
    gate: GateResult
    report: dict[str, Any]


def read_parity_record(directory: Path) -> ParityRecord:
    """Parse and check `directory/parity.json`.

    Raises BundleError: absent, not JSON, newer schema, a missing, unknown or mistyped field, no digest, or a gate whose
    result contradicts its checks.
    """
    data = read_json(directory / PARITY_RECORD, error=BundleError, fix=FIX)
    subject = f"bundle {directory}, {PARITY_RECORD}"
    check_schema_version(
        data, PARITY_SCHEMA_VERSION, oldest=OLDEST_PARITY_SCHEMA, error=BundleError, subject=subject, fix=FIX
    )
    report = data.get("report")
    if not isinstance(report, dict):
        raise BundleError(f"{subject}.report", expected="an object", found=repr(report)[:80], fix=FIX)
    # The report is for people and grows; only what the runtime decides by is held to a layout.
    rest = record_from_json(ParityRecord, {**data, "report": {}}, error=BundleError, subject=subject, fix=FIX)
    if not SHA256.fullmatch(rest.manifest_sha256):
        raise BundleError(f"{subject}.manifest_sha256", expected="a SHA-256", found=rest.manifest_sha256[:80], fix=FIX)
    checks = rest.gate.checks
    if rest.gate.passed != (bool(checks) and all(check.passed for check in checks)):
        raise BundleError(
            f"{subject}.gate", expected="the result of its checks", found=f"passed: {rest.gate.passed}", fix=FIX
        )
    return ParityRecord(rest.schema_version, rest.manifest_sha256, rest.gate, report)


def check_parity(directory: Path) -> None:
    """Raise BundleError unless a parity run of this very bundle passed its gate."""
    record = read_parity_record(directory)
    subject = f"bundle {directory}, {PARITY_RECORD}"
    if record.manifest_sha256 != (digest := file_digest(directory / MANIFEST)):
        raise BundleError(
            subject, expected=f"a record of the manifest {digest}", found=f"one of {record.manifest_sha256}", fix=FIX
        )
    if not record.gate.passed:
        failed = ", ".join(check.name for check in record.gate.checks if not check.passed)
        raise BundleError(
            subject, expected=f"the gate {record.gate.name} passed", found=f"failed: {failed}",
            fix="quantise it otherwise, or open it without require_parity",
        )
