"""`parity.json`: what parity runs with a gate found, beside the manifest of the bundle that they concern.

Version 3 is an object of

- `format`: "glimmer-parity"; `schema_version`: 3;
- `manifest_sha256`: SHA-256 of the manifest that all of its records concern; with another manifest none of them counts;
- `records`: one for each computation, that is each backend, precision, instruction set, codec and form of
  cross-attention. A run replaces its own alone.

A record has

- `backend`: what ran the graphs, as `parity --backend` names it; `precision`: the arithmetic that it computed in, which
  for FP16 on ONNX Runtime's CPU provider is FP32; `instruction_set`: the CPU's where the answers hang on it (BF16, and
  INT8 where products saturate), else null; `codec`: that of the memory, null if there is none; `cross_attention`:
  the form that answered, null or absent if the bundle has one alone;
- `witness`: "device"; "rounded, not the device" if FP16 was rounded on the CPU in the place of a GPU; or "FP16 in
  FP32" if it was not rounded at all, which witnesses nothing (`witness.py` has the table);
- `date`: when, ISO 8601 in UTC; `versions`: of the libraries that took part, by name; `questions_sha256`: digest of the
  questions that were asked, with their answers and passages;
- `gate`: its name, `verdict` ("passed", "failed", or "not measured": too little was answered to tell), `passed`, and
  its checks, those of the coverage first;
- `report`: what `parity --json` prints; it is for people, grows, and is not held to a layout.

Version 2 has no `format`. Version 1 is one such record without a list: `schema_version`, `manifest_sha256`, `gate` (no
`verdict`, and checks without `questions`) and `report`. It is read as a record of the backend that its report names for
the candidate, with `date`, `questions_sha256`, `codec` and `instruction_set` null and no versions, and means what it
meant: its gate passed, with no least number of questions. It holds for its own backend, by the same table;
`require_parity="device"` refuses it. A run that writes keeps it beside its own record, with these nulls.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glimmer_export.runtime.contract.errors import BundleError
from glimmer_export.runtime.contract.records import FileKind, read_record, record_from_json

__all__ = [
    "DEVICE",
    "FAILED",
    "NOT_MEASURED",
    "PARITY_RECORD",
    "PARITY_SCHEMA_VERSION",
    "PASSED",
    "ROUNDED",
    "UNROUNDED",
    "GateCheck",
    "GateResult",
    "ParityRecord",
    "ParityRecords",
    "read_parity_records",
]

PARITY_SCHEMA_VERSION = 3
PARITY_FILE = FileKind("glimmer-parity", PARITY_SCHEMA_VERSION, oldest=1)
PARITY_RECORD = "parity.json"
FIX = "run `glimmer-export parity BUNDLE --gate ...` again"
SHA256 = re.compile(r"[0-9a-f]{64}")
PASSED, FAILED, NOT_MEASURED = VERDICTS = ("passed", "failed", "not measured")
DEVICE, ROUNDED, UNROUNDED = WITNESSES = ("device", "rounded, not the device", "FP16 in FP32")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class GateCheck:
    """One limit, what was found (None: not measured, or without bound), and whether it is within.

    `questions` is the number of questions that the figure rests on, None if it is of no questions.
    """

    name: str
    limit: float
    found: float | None
    passed: bool
    questions: int | None = None


@dataclass(frozen=True)
class GateResult:
    """A gate passes where each of its checks does; `verdict` tells what was lost from what was not measured."""

    name: str
    passed: bool
    checks: tuple[GateCheck, ...]
    verdict: str = ""


@dataclass(frozen=True)
class ParityRecord:
    """One record, as the format has it; `date` None: of version 1."""

    backend: str
    precision: str
    instruction_set: str | None
    codec: str | None
    witness: str
    date: str | None
    versions: dict[str, str]
    questions_sha256: str | None
    gate: GateResult
    report: dict[str, Any]
    cross_attention: str | None = None

    @property
    def key(self) -> tuple[str, str, str | None, str | None, str | None]:
        """What a run replaces if it is the same."""
        return self.backend, self.precision, self.instruction_set, self.codec, self.cross_attention


@dataclass(frozen=True)
class ParityRecords:
    """The records of one manifest."""

    format: str = field(default=PARITY_FILE.format, kw_only=True)
    schema_version: int
    manifest_sha256: str
    records: tuple[ParityRecord, ...]


@dataclass(frozen=True)
class _Version1:
    schema_version: int
    manifest_sha256: str
    gate: GateResult
    report: dict[str, Any]


def read_parity_records(directory: Path) -> ParityRecords:
    """Parse and check `directory/parity.json`, of this version or an older one.

    Raises BundleError: absent, not JSON, newer schema, a missing, unknown or mistyped field, no digest, two records of
    one computation, or a gate whose result contradicts its checks.
    """
    subject = f"bundle {directory}, {PARITY_RECORD}"
    found = read_record(
        directory / PARITY_RECORD, PARITY_FILE, ParityRecords, error=BundleError, subject=subject, fix=FIX,
        upgrade=lambda data: _from_version_1(data, subject) if data["schema_version"] == 1 else data,
    )
    if not SHA256.fullmatch(found.manifest_sha256):
        raise BundleError(f"{subject}.manifest_sha256", expected="a SHA-256", found=found.manifest_sha256[:80], fix=FIX)
    for record in found.records:
        _check(record, subject)
    if len({record.key for record in found.records}) != len(found.records) or not found.records:
        raise BundleError(
            f"{subject}.records", expected="one for each computation", found="none" if not found.records else "two",
            fix=FIX,
        )
    return found


def _from_version_1(data: dict[str, Any], subject: str) -> dict[str, Any]:
    """What today's version has of the one record that a file of version 1 is."""
    data = {name: value for name, value in data.items() if name != "format"}
    old = record_from_json(_Version1, data, error=BundleError, subject=subject, fix=FIX)
    side = old.report.get("candidate")
    backend = side.get("backend") if isinstance(side, dict) else None
    if not isinstance(backend, str):
        raise BundleError(f"{subject}.report.candidate", expected="its backend", found=repr(backend)[:80], fix=FIX)
    record = {
        "backend": backend, "precision": UNKNOWN, "instruction_set": None, "codec": None,
        "witness": ROUNDED if backend.endswith("-rounded") else DEVICE, "date": None, "versions": {},
        "questions_sha256": None, "report": data["report"],
        "gate": {**data["gate"], "verdict": PASSED if old.gate.passed else FAILED},
    }
    return {"manifest_sha256": old.manifest_sha256, "records": [record]}


def _check(record: ParityRecord, subject: str) -> None:
    """Refuse a record that contradicts itself."""
    gate = record.gate
    held = bool(gate.checks) and all(check.passed for check in gate.checks)
    if gate.passed != held or gate.verdict not in VERDICTS or gate.passed != (gate.verdict == PASSED):
        raise BundleError(
            f"{subject}.gate", expected="the result of its checks", found=f"passed: {gate.passed}, {gate.verdict!r}",
            fix=FIX,
        )
    if record.witness not in WITNESSES:
        raise BundleError(
            f"{subject}.witness", expected=f"one of {', '.join(WITNESSES)}", found=record.witness[:80], fix=FIX
        )
    if record.questions_sha256 is not None and not SHA256.fullmatch(record.questions_sha256):
        raise BundleError(
            f"{subject}.questions_sha256", expected="a SHA-256", found=record.questions_sha256[:80], fix=FIX
        )
