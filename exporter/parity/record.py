"""Write `parity.json` beside a bundle's manifest: a run's record replaces its own earlier one, and no other's."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.files.links import require_no_link
from glimmer_export.exporter.files.whole_file import replace_file
from glimmer_export.exporter.parity.report import ParityReport
from glimmer_export.exporter.report.origin import package_versions, utc_now
from glimmer_export.exporter.report.visible import finite
from glimmer_export.runtime.contract import (
    DEVICE,
    MANIFEST,
    PARITY_RECORD,
    ROUNDED,
    ROUNDING_BACKEND,
    UNROUNDED,
    BundleError,
    Computation,
    ParityRecord,
    file_digest,
    is_there,
    read_parity_records,
)
from glimmer_export.runtime.contract.parity_record import PARITY_FILE

__all__ = ["kept_records", "questions_digest", "record_parity", "report_versions"]

LIBRARIES = {"openvino": "openvino", "tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
"""What runs a backend's graphs, if it is not ONNX Runtime."""
TOO_NEW = "install a newer glimmer-export"


def kept_records(bundle: Path) -> list[ParityRecord]:
    """The records that a bundle has of its own manifest; none if the file is absent, damaged or of another manifest.

    Raises BundleError if the file is of a newer version, which a new one would lose.
    """
    if not is_there(bundle / PARITY_RECORD):
        return []
    try:
        found = read_parity_records(bundle)
    except BundleError as error:
        if error.fix == TOO_NEW:
            raise
        return []
    return list(found.records) if found.manifest_sha256 == file_digest(bundle / MANIFEST) else []


def record_parity(bundle: Path, report: ParityReport, questions: Sequence[Question]) -> None:
    """Record a report that has a gate's result; the bundle's own digests are not touched.

    Raises OutputError if the file cannot be written, BundleError as `kept_records`, ValueError without a gate.
    """
    if report.gate is None:
        raise ValueError("a report without a gate is not recorded")
    require_no_link(bundle, [PARITY_RECORD], subject=f"bundle {bundle}")
    data = report.to_json()
    made = {
        **asdict(report.computation),
        "witness": _witness(report),
        "date": utc_now(),
        "versions": report_versions(report),
        "questions_sha256": questions_digest(questions),
        "gate": data["gate"],
        "report": data,
    }
    others = [asdict(record) for record in kept_records(bundle) if not _is_replaced(record, report.computation)]
    record = {
        "format": PARITY_FILE.format, "schema_version": PARITY_FILE.version,
        "manifest_sha256": file_digest(bundle / MANIFEST), "records": [*others, made],
    }  # fmt: skip
    content = json.dumps(finite(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(bundle / PARITY_RECORD, content.encode())


def _is_replaced(record: ParityRecord, made: Computation) -> bool:
    """Whether a record is of the same computation; one of version 1 says no more than its backend."""
    if record.date is None:
        return record.backend == made.backend
    return record.key == (made.backend, made.precision, made.instruction_set, made.codec, made.cross_attention)


def questions_digest(questions: Sequence[Question]) -> str:
    """SHA-256 of the questions with their answers, passages and gold passages, whatever file they came from."""
    digest = hashlib.sha256()
    for row in questions:
        fields = [row.question, list(row.answers), _plain(row.passages), list(row.gold_ids)]
        digest.update(json.dumps(fields, ensure_ascii=True, default=_plain).encode() + b"\n")
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Passages as JSON: ids as they are, texts as their fields, numpy's numbers as their text."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _witness(report: ParityReport) -> str:
    if report.compared.fp16_in_fp32:
        return UNROUNDED
    return ROUNDED if report.computation.backend == ROUNDING_BACKEND else DEVICE


def report_versions(report: ParityReport) -> dict[str, str]:
    """Of Python, ours, numpy, and what ran either side's graphs."""
    backends = [side.backend for side in (report.candidate, report.reference) if side.backend != "torch"]
    names = [*(LIBRARIES.get(backend, "onnxruntime") for backend in backends), "numpy", "tokenizers"]
    if report.reference.backend == "torch":
        names.append("torch")
    # A library says its own version better than a distribution, whose name is not always the library's.
    loaded = {name: getattr(sys.modules.get(name), "__version__", None) for name in names}
    found = package_versions(["glimmer-export", *names]) | {name: str(own) for name, own in loaded.items() if own}
    return {name: found[name] for name in ("python", "glimmer-export", *dict.fromkeys(names)) if name in found}
