"""A bundle and questions -> the same bundle with its table of ranges, in its place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from glimmer_export.calibration.calibrate import Calibration, CalibrationOptions, calibrate
from glimmer_export.calibration.questions import Question
from glimmer_export.calibration.ranges_file import write_ranges
from glimmer_export.exporter.files.links import link_or_copy, require_no_link_below
from glimmer_export.exporter.files.publish import check_target, publish_directory
from glimmer_export.exporter.files.whole_file import UNFINISHED
from glimmer_export.runtime.contract import (
    MANIFEST,
    PARITY_RECORD,
    BundleError,
    BundleManifest,
    FileEntry,
    read_manifest,
    record_to_json,
)

__all__ = ["calibrate_bundle"]


def calibrate_bundle(
    bundle: Path,
    store: Path | None,
    questions: Sequence[Question],
    options: CalibrationOptions,
    *,
    inputs: Sequence[Path] = (),
    advance: Callable[[int], None] = lambda _: None,
) -> Calibration:
    """Calibrate a bundle and put it, with the table, in its own place; a table that it had is replaced.

    Whatever stops this, the bundle stays whole: the old one or the new. `inputs` are further paths that are read and
    must lie apart from it. Raises what `calibrate` does, and OutputError.
    """
    target = Path(os.path.realpath(bundle))
    manifest = read_manifest(target)
    read = [store, *inputs]
    check_target(target, overwrite=True, inputs=read)
    require_no_link_below(target, subject=f"bundle {bundle}")
    calibration = calibrate(target, store, questions, options, advance=advance)
    with publish_directory(target, overwrite=True, inputs=read) as work:
        if read_manifest(target) != manifest:
            raise BundleError(
                f"bundle {bundle}", expected="the bundle that was calibrated",
                found="another in its place, whose manifest differs", fix="run the command again",
            )
        _link_rest(target, work)
        files = write_ranges(work, calibration.table)
        entries = tuple(
            FileEntry.of(work, path) for path in files
        )
        _write_manifest(work, replace(manifest, calibration=entries))
    return calibration


def _link_rest(bundle: Path, work: Path) -> None:
    """Everything but manifest, table and what parity found of the old manifest: linked if that can be, else copied."""
    for path in sorted(bundle.iterdir()):
        if path.name in (MANIFEST, PARITY_RECORD, "calibration") or UNFINISHED.fullmatch(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, work / path.name, symlinks=True, copy_function=link_or_copy)
        else:
            link_or_copy(path, work / path.name)


def _write_manifest(work: Path, manifest: BundleManifest) -> None:
    (work / MANIFEST).write_text(record_to_json(manifest), encoding="utf-8")
