"""One parity run as the command line asks for it: compare, hold against a gate, record, write the page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from glimmer_export.calibration.questions import Question
from glimmer_export.calibration.ranges import RangeTable
from glimmer_export.calibration.ranges_file import read_ranges
from glimmer_export.exporter.config.read import config_file
from glimmer_export.exporter.files.links import require_no_link
from glimmer_export.exporter.files.publish import check_file
from glimmer_export.exporter.parity.compare import compare_with_bundle, compare_with_checkpoint
from glimmer_export.exporter.parity.gate import judge, read_gate
from glimmer_export.exporter.parity.options import ParityOptions, Progress, no_progress
from glimmer_export.exporter.parity.record import kept_records, record_parity
from glimmer_export.exporter.parity.report import ParityReport
from glimmer_export.exporter.parity.show import write_html
from glimmer_export.exporter.report.page import check_page
from glimmer_export.runtime.backends import Backend
from glimmer_export.runtime.contract import PARITY_RECORD, OptionError, read_manifest

__all__ = ["ParityRequest", "run_parity"]


@dataclass(frozen=True)
class ParityRequest:
    """What to compare, and what to make of it.

    Of `checkpoint` and `reference`, a bundle, one is given. `gate` is a name or the path of a YAML file; `html` a file
    to write. Backends are None for ONNX Runtime on the CPU; a checkpoint runs in torch. `question_files` are what the
    questions were read from; `command` is what asks for all of this, which the page says.
    """

    bundle: Path
    checkpoint: Path | None = None
    reference: Path | None = None
    store: Path | None = None
    options: ParityOptions = field(default_factory=ParityOptions)
    gate: str | None = None
    html: Path | None = None
    backend: Backend | None = None
    reference_backend: Backend | None = None
    question_files: tuple[Path, ...] = ()
    command: str = ""

    @property
    def inputs(self) -> list[Path | None]:
        """What is read, beside the bundle."""
        gate = None if self.gate is None else config_file("gate", self.gate)
        return [
            self.reference, self.checkpoint, self.store, self.options.reference_store, gate, *self.question_files,
        ]  # fmt: skip


def run_parity(
    request: ParityRequest, questions: Sequence[Question], progress: Progress = no_progress
) -> ParityReport:
    """Compare; with a gate, also judge the candidate and record the result in its directory.

    With a `mass`, drafts or an exact ranking nothing is recorded: what a record witnesses is a bundle that reads m
    passages and runs each step on one token, beside a reference of the same shortlist.
    Raises OptionError for a request that says nothing or too much and for a bad gate, OutputError where something
    cannot be written, BundleError where a newer version's records stand there, each before anything is compared; and
    what comparing raises.
    """
    if (request.checkpoint is None) == (request.reference is None):
        raise OptionError(
            "parity", expected="--checkpoint or --reference", found="neither" if request.reference is None else "both",
            fix="name one thing to compare the bundle with",
        )
    named_gate = None if request.gate is None else read_gate(request.gate)
    html = None if request.html is None else check_page(request.html, [request.bundle, *request.inputs])
    ranges = None if html is None else _ranges(request)
    recorded = named_gate is not None and request.options.reads_alike
    if recorded and request.bundle.is_dir():
        _check_record(request)
    if request.checkpoint is not None:
        report = compare_with_checkpoint(
            request.bundle, request.checkpoint, request.store, questions, request.options, backend=request.backend,
            progress=progress,
        )
    else:
        assert request.reference is not None
        report = compare_with_bundle(
            request.bundle, request.reference, request.store, questions, request.options, backend=request.backend,
            reference_backend=request.reference_backend, progress=progress,
        )
    if named_gate is not None:
        report = replace(report, gate=judge(*named_gate, report))
        if recorded:
            record_parity(request.bundle, report, questions)
    if html is not None:
        write_html(report, html, ranges, command=request.command)
    return report


def _check_record(request: ParityRequest) -> None:
    """The record is no input under another name, and no link: what one leads to is not the bundle's."""
    bundle = request.bundle
    require_no_link(bundle, [PARITY_RECORD], subject=f"bundle {bundle}")
    same = request.reference is not None and os.path.realpath(request.reference) == os.path.realpath(bundle)
    check_file(bundle / PARITY_RECORD, [path for path in request.inputs if not (same and path == request.reference)])
    kept_records(bundle)


def _ranges(request: ParityRequest) -> RangeTable | None:
    """What the graphs were calibrated on: the bundle's own table, or that of the FP32 bundle it is compared with."""
    for bundle in (request.bundle, request.reference):
        if bundle is not None and (manifest := read_manifest(bundle)).calibration:
            return read_ranges(bundle, manifest)
    return None
