"""A search for people: tables on the terminal, and a page on which a point of the front shows its switches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export.exporter.report.origin import Origin, package_versions, utc_now
from glimmer_export.exporter.report.page import Page, Picture, Section, write_page
from glimmer_export.exporter.report.svg import Mark, marks_svg
from glimmer_export.exporter.report.tables import ReportTable, Verdict, print_table
from glimmer_export.exporter.report.visible import visible
from glimmer_export.exporter.tune.front import beats, lessons
from glimmer_export.exporter.tune.intervals import Estimate, share
from glimmer_export.exporter.tune.report import TuneReport
from glimmer_export.exporter.tune.space import SWITCHES
from glimmer_export.exporter.tune.trials import Trial

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_report", "write_html"]

LIBRARIES = ("glimmer-export", "numpy", "onnxruntime", "optuna", "torch")
LESSONS = 12
"""Values of switches that a terminal shows; the page and the JSON have all."""


def print_report(report: TuneReport, console: Console) -> None:
    """The front, what pays, the verdict, and the lines that make the chosen point again."""
    console.print(visible(_facts(report)))
    print_table(_front(report), console)
    print_table(_lessons(report, LESSONS), console)
    for sentence in report.sentences():
        console.print(visible(sentence))
    if report.chosen is not None:
        trial = report.trials.all[report.chosen]
        console.print(visible(f"Chosen is point {trial.number}: {trial.point.words(report.space.default)}"))
        console.print(visible(_held(report)))
        for line in report.lines(trial):
            console.print(visible(line), soft_wrap=True, highlight=False)
    if report.load.worthless:
        console.print(visible(report.load.sentence.replace("These times are worthless", "The machine was not quiet")))


def write_html(report: TuneReport, path: Path, *, command: str = "") -> None:
    """Write the page; raises OutputError if the file cannot be written."""
    origin = Origin(command, utc_now(), package_versions(LIBRARIES))
    title = f"glimmer-export tune: {report.request.target}"
    write_page(Page(title, _facts(report), origin, [*_sections(report)]), path)


def _sections(report: TuneReport) -> Iterator[Section]:
    verdict = Verdict("met" if report.met else "not met", report.met)
    texts = [*report.sentences(), *([_held(report)] if report.chosen is not None else [])]
    yield Section("Goals", texts=texts, verdict=verdict)
    marks = [
        Mark(
            report.trials.latency_ms(trial), 100 * trial.em.value, 100 * trial.em.low, 100 * trial.em.high,
            f"point-{trial.number}", f"{trial.number}: {_bytes(trial.sizes[0])}, {_bytes(trial.sizes[1])}",
            chosen=trial.number == report.chosen,
        )
        for trial in report.shown
    ]
    caption = ("A point that is picked shows its switches and its command lines below; filled is what was chosen.",)
    pictures = [Picture(marks_svg(marks, "ms an answer", "exact match, %"), caption)] if marks else []
    yield Section("The front", texts=report.space.notes, tables=[_front(report)], pictures=pictures)
    for trial in report.shown:
        rows = [(name, str(trial.point[name]).lower()) for name in SWITCHES]
        yield Section(
            f"Point {trial.number}", texts=[f"Beside the default: {trial.point.words(report.space.default)}"],
            tables=[ReportTable("", ("switch", "value"), rows)], is_text=True, anchor=f"point-{trial.number}",
            commands=report.lines(trial),
        )
    yield Section.of(_lessons(report, None))
    dropped = [
        (str(trial.number), trial.point.words(report.space.default), str(trial.dropped))
        for trial in report.trials.all if trial.dropped is not None
    ]
    yield Section("Dropped", tables=[ReportTable("", ("point", "beside the default", "why"), dropped)], is_text=True)


def _facts(report: TuneReport) -> str:
    search, held_out, ungraded = report.questions
    reference = _share(share(report.trials.reference))
    counts = f"{len(report.trials.all)} points tried, {len(report.trials.complete())} asked all"
    more = f"; {ungraded} without answers were left out" if ungraded else ""
    size = f"{report.space_size:,} points" if report.space_size is not None else "more points than can be counted"
    sampled = ", of which a sample was encoded" if report.sampled else ""
    return (
        f"{counts}, in {report.seconds:,.0f} s, ended by {report.ended} ({size} in the space). "
        f"{search:,} questions to search by, {held_out:,} held out{more}. {report.passages:,} passages{sampled}. "
        f"Latency is {report.source_of_latency}. The checkpoint's own exact match on the search's questions: "
        f"{reference} %."
    )


def _front(report: TuneReport) -> ReportTable:
    rows = []
    for trial in report.shown:
        marks = [*(["chosen"] if trial.number == report.chosen else []), *(["default"] if trial.number == 0 else [])]
        better = beats(trial, report.trials, report.goals)
        rows.append((
            str(trial.number), f"{report.trials.latency_ms(trial):.4g}", f"{trial.ratio:.2f}", _bytes(trial.sizes[0]),
            _bytes(trial.sizes[1]), _share(trial.em), _points(trial.less(report.trials.reference)),
            ", ".join([*marks, *(f"better in {name}" for name in better)]),
        ))  # fmt: skip
    note = (
        "ratio is of the default's time in blocks side by side, gained beside the checkpoint's answers; in brackets "
        "are 95% intervals."
    )
    columns = ("point", "ms", "ratio", "store", "bundle", "EM, %", "EM gained, points", "")
    return ReportTable(f"The front, {len(report.front)} points", columns, rows, note)


def _lessons(report: TuneReport, most: int | None) -> ReportTable:
    default = report.trials.default
    rows = [
        (
            f"{lesson.switch} {str(lesson.value).lower()}", f"{lesson.pays:.2f}", *_beside(lesson.trial, default),
            _points(lesson.trial.less(default.right)),
        )
        for lesson in lessons(report.trials)[:most]
    ]  # fmt: skip
    note = "One switch at a time beside the default; pays is how many times less ms x store x bundle is."
    return ReportTable(
        "What pays", ("switch", "pays", "ms", "store", "bundle", "EM, points"), rows, note
    )


def _beside(trial: Trial, default: Trial) -> tuple[str, str, str]:
    store, bundle = (own / other for own, other in zip(trial.sizes, default.sizes, strict=True))
    return f"{trial.ratio:.2f}x", f"{store:.2f}x", f"{bundle:.2f}x"


def _held(report: TuneReport) -> str:
    if (held := report.held) is None:
        return ""
    trial = report.trials.all[held.number]
    return (
        f"Exact match of point {trial.number}: {_share(trial.em)} % on the search's questions, {_share(held.em)} % on "
        f"those held out; beside the checkpoint {_points(trial.less(report.trials.reference))} and "
        f"{_points(held.less_reference)} points, beside the default {_points(trial.less(report.trials.default.right))} "
        f"and {_points(held.less_default)}."
    )


def _share(found: Estimate) -> str:
    return f"{100 * found.value:.2f} ({100 * found.low:.1f}-{100 * found.high:.1f})"


def _points(found: Estimate) -> str:
    return f"{100 * found.value + 0.0:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f})"


def _bytes(size: int) -> str:
    from rich.filesize import decimal

    return decimal(size)
