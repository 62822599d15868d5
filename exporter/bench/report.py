"""What a bench found: JSON with stable keys, tables, and one page with a bar for each contender and stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.bench.ceilings import CeilingRates
from glimmer_export.exporter.bench.fetch import FetchTimes
from glimmer_export.exporter.bench.load import Load
from glimmer_export.exporter.bench.machine import cpu_label, threads_label
from glimmer_export.exporter.bench.roster import ENGINES
from glimmer_export.exporter.files.publish import Inputs, check_file
from glimmer_export.exporter.report.origin import Origin
from glimmer_export.exporter.report.page import Page, Section, html_from_page, write_page
from glimmer_export.exporter.report.tables import Bar, ReportTable, Verdict, print_table, times_faster
from glimmer_export.exporter.report.terminal import text
from glimmer_export.runtime.contract import MEMORY_ENCODER

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "BenchReport", "ContenderTimes", "StageTimes", "check_html_target", "engine_label", "html_from_report",
    "int8_gains", "write_html",
]  # fmt: skip


@dataclass(frozen=True)
class StageTimes:
    """One stage of one contender, a batch; `decoder_step` is all steps of the answer together.

    `kind` is `graph` or `host` (outside the graphs); `share` of the end-to-end median. Of a graph: its ceiling
    (`bound`: `arithmetic` or `memory`), its work, and `ceiling_share`, the time the ceiling allows over the median.
    `alone_ms` is the median of that graph alone and warm, `alone_to_copy` its multiple of copying the passages' memory.
    """

    kind: str
    median_ms: float
    p95_ms: float
    share: float
    bound: str | None = None
    macs: int | None = None
    bytes: int | None = None
    memory_bytes: int | None = None
    ceiling_share: float | None = None
    alone_ms: float | None = None
    alone_to_copy: float | None = None


@dataclass(frozen=True)
class ContenderTimes:
    """One contender from end to end, a batch.

    `form`, `engine` and `precision` say who: the engine is a package whose version is among the report's. `times_ms`
    are its counted runs in order, `block_sizes` of each block.

    `first_ms` are the first of each block, which do not count; `cold_ms`, the first of these, is the contender's first
    answer in this process. `peak_rss_bytes` is that of a process of its own, None if it was not measured;
    `tokens_equal` the share of answers that are ours, None if other answers are expected. Of our own graphs:
    `graph_bytes` on disk, and `memory_encoder_ms`, the median of one batch of passages through the memory encoder.
    `stored_bytes_per_token` are kept of a passage from before any question, None of whoever reads its text. `attention`
    is the implementation that transformers ran, None of all others.
    """

    form: str
    engine: str
    precision: str
    passages: int
    median_ms: float
    min_ms: float
    p95_ms: float
    cold_ms: float
    questions_per_second: float
    peak_rss_bytes: int | None
    times_ms: tuple[float, ...]
    block_sizes: tuple[int, ...]
    first_ms: tuple[float, ...]
    tokens_equal: float | None = None
    overhead_share: float | None = None
    graph_bytes: int | None = None
    memory_encoder_ms: float | None = None
    stages: dict[str, StageTimes] | None = None
    stored_bytes_per_token: float | None = None
    attention: str | None = None


@dataclass(frozen=True)
class BenchReport:
    """A bench: where, of what, ours, the peers, this machine's ceilings, and `load`: what else it did meanwhile.

    `ratios` are a peer's median over ours: above 1 we are faster. `overhead_share` is the median over runs of the share
    of the time from end to end that was spent outside the graphs. `fetch` are the times of reading k passages from a
    store, by its codec.
    """

    command: str
    date: str
    machine: dict[str, Any]
    versions: dict[str, str]
    model: dict[str, Any]
    settings: dict[str, Any]
    end_to_end: ContenderTimes
    peers: dict[str, ContenderTimes]
    ceilings: CeilingRates
    load: Load
    fetch: dict[str, FetchTimes]

    @property
    def ratios(self) -> dict[str, float]:
        """Every peer's median over ours."""
        return {name: peer.median_ms / self.end_to_end.median_ms for name, peer in self.peers.items()}

    @property
    def stages(self) -> dict[str, StageTimes]:
        """Our stages, graphs first."""
        return self.end_to_end.stages or {}

    def to_json(self) -> dict[str, Any]:
        """The report under the keys that `--json` promises."""
        values = asdict(self)
        ours = values["end_to_end"]
        values["overhead_share"] = ours.pop("overhead_share")
        del ours["tokens_equal"]
        values["load"] = self.load.to_json()
        return {**values, "stages": ours.pop("stages"), "ratios": self.ratios, "int8_gains": int8_gains(self)}

    def print(self, console: Console) -> None:
        """Tables: contenders, our stages, the store by codec; ceilings; and whether the times are worth anything."""
        print_table(_contender_table(self), console)
        print_table(_stage_table("Our stages", self.stages, _on(self)), console)
        for name, stage in self.stages.items():
            if stage.alone_ms is not None:
                times = stage.alone_to_copy
                copies = f", {times:.2f} times as long as copying its memory" if times else ""
                console.print(f"{name} alone and warm: {stage.alone_ms:.2f} ms{copies}.")
        rates = self.ceilings
        console.print(
            f"Ceilings with {self.settings['threads']} threads: FP32 product "
            f"{rates.fp32_macs_per_second / 1e9:.1f} G multiply-adds/s, INT8 {rates.int8_macs_per_second / 1e9:.1f}, "
            f"copy {rates.copy_bytes_per_second / 1e9:.1f} GB/s."
        )
        console.print(f"Outside the graphs: {_percent(self.end_to_end.overhead_share)} of end to end.")
        if self.fetch:
            print_table(_fetch_table(self), console)
        for line in _remarks(self):
            console.print(line)
        if self.load.sentence:
            console.print(text(self.load.sentence, "bold red"))


def int8_gains(report: BenchReport) -> dict[str, float]:
    """How many times faster INT8 is than FP32, by stage, for passages through the memory encoder, and end to end.

    `size` is its graphs' share of the FP32 graphs' bytes. Empty if INT8 was no peer.
    """
    ours, int8 = report.end_to_end, report.peers.get("int8")
    if int8 is None:
        return {}
    fast = int8.stages or {}
    stages = {name: stage.median_ms / fast[name].median_ms for name, stage in report.stages.items() if stage.macs}
    gains = {**stages, "end_to_end": ours.median_ms / int8.median_ms}
    if ours.memory_encoder_ms and int8.memory_encoder_ms:
        gains[MEMORY_ENCODER] = ours.memory_encoder_ms / int8.memory_encoder_ms
    if ours.graph_bytes and int8.graph_bytes:
        gains["size"] = int8.graph_bytes / ours.graph_bytes
    return gains


def check_html_target(path: Path | None, inputs: Inputs = ()) -> Path | None:
    """Where the page goes; raises OutputError, before anything is measured, as `check_file` does."""
    return None if path is None else check_file(path, inputs)


def write_html(report: BenchReport, path: Path) -> None:
    """Write the page; raises OutputError if the file cannot be written."""
    write_page(_page(report), path)


def html_from_report(report: BenchReport) -> str:
    """The page."""
    return html_from_page(_page(report))


def _page(report: BenchReport) -> Page:
    settings, machine, rates = report.settings, report.machine, report.ceilings
    average = machine["load_average"]
    facts = (
        f"{settings['k']} passages ranked, {settings['m']} read; {settings['question_tokens']} + "
        f"{settings['passage_tokens']} tokens, {settings['answer_tokens']}-token answers; batch of "
        f"{settings['batch_size']}; {settings['threads']} threads; {_blocks(report)}. {cpu_label(machine)}, "
        f"{machine['cpus']} CPUs, load {'unknown' if average is None else f'{average:.2f}'} at the start. "
        f"{report.load.sentence}"
    )
    note = (
        f"Orange is outside the graphs: {_percent(report.end_to_end.overhead_share)} of end to end. A stage bound by "
        "memory is held against the copy, the others against the FP32 product."
    )
    ceilings = [
        ("FP32 matrix product", f"{rates.fp32_macs_per_second / 1e9:.1f} G multiply-adds/s"),
        ("INT8 matrix product", f"{rates.int8_macs_per_second / 1e9:.1f} G multiply-adds/s"),
        ("copy", f"{rates.copy_bytes_per_second / 1e9:.1f} GB/s"),
    ]
    unsure = Verdict("worthless" if report.load.worthless else "not known to be worth anything", good=False)
    sections = [
        Section(
            "From end to end", tables=[_contender_table(report)], texts=_remarks(report),
            verdict=None if report.load.worthless is False else unsure,
        ),
        Section.of(_stage_table("Our stages", report.stages, f"{note} {_on(report)}")),
    ]
    sections += [
        Section.of(_stage_table(f"Stages of {name}", peer.stages, _on(report)))
        for name, peer in report.peers.items()
        if peer.stages
    ]
    if report.fetch:
        sections.append(Section.of(_fetch_table(report)))
    sections.append(
        Section.of(
            ReportTable("Ceilings of this machine, measured in the same run", ("", "rate"), ceilings, _on(report))
        )
    )
    origin = Origin(report.command, report.date, report.versions)
    return Page(f"glimmer-export bench: {report.model['source']}", facts, origin, sections)


def _contender_table(report: BenchReport) -> ReportTable:
    contenders: dict[str, ContenderTimes] = {"ours": report.end_to_end, **report.peers}
    slowest = max(times.median_ms for times in contenders.values())
    rows = [
        (
            name, engine_label(times.engine, report.versions), times.precision.upper(), str(times.passages),
            f"{times.median_ms:.1f}", f"{times.min_ms:.1f}", f"{times.p95_ms:.1f}",
            f"{times.cold_ms:.1f}", f"{times.questions_per_second:.2f}",
            times_faster(1 / report.ratios[name]) if name in report.ratios else "",
            _megabytes(times.peak_rss_bytes), Bar(times.median_ms / slowest, "ours" if name == "ours" else "peer"),
        )
        for name, times in contenders.items()
    ]  # fmt: skip
    return ReportTable(
        f"{_blocks(report)}, of {report.settings['batch_size']} question(s) a run",
        ("", "engine", "precision", "passages",
         "median ms", "min ms", "p95 ms", "cold ms", "per second", "beside ours", "peak MB", ""), rows,
        _on(report),
    )  # fmt: skip


def engine_label(engine: str, versions: Mapping[str, str]) -> str:
    """What a table calls an engine: its name and version."""
    return f"{ENGINES.get(engine, engine)} {versions.get(engine, '')}".strip()


def _stage_table(title: str, stages: Mapping[str, StageTimes], note: str = "") -> ReportTable:
    longest = max((stage.median_ms for stage in stages.values()), default=0.0) or 1.0
    rows = [
        (
            name, f"{stage.median_ms:.2f}", f"{stage.p95_ms:.2f}", _percent(stage.share), _ceiling_text(stage),
            Bar(stage.median_ms / longest, stage.kind),
        )
        for name, stage in stages.items()
    ]  # fmt: skip
    return ReportTable(title, ("stage", "median ms", "p95 ms", "share", "of its ceiling", ""), rows, note)


def _fetch_table(report: BenchReport) -> ReportTable:
    rows = [
        (
            name, f"{times.bytes_per_token:,.0f}", f"{times.fetch_ms:.3f}", f"{times.to_copy:.2f}x",
            f"{times.threads_ms:.2f}", f"{times.threads_to_copy:.2f}x", f"{times.cold_ms:.2f}",
            f"{times.encode_tokens_per_second:,.0f}",
        )
        for name, times in report.fetch.items()
    ]  # fmt: skip
    columns = ("bytes a token", "ms", "to a bare copy", "8 threads, ms", "to bare copies", "cold, ms", "encoded/s")
    title = f"Fetching {report.settings['k']} passages from the store"
    return ReportTable(title, ("codec", *columns), rows, _on(report))


def _blocks(report: BenchReport) -> str:
    """How contenders took turns."""
    number, seconds = len(report.end_to_end.block_sizes), report.settings["block_seconds"]
    return f"{number} interleaved blocks each, back to back for at least {seconds:g} s, the first of each not counted"


def _on(report: BenchReport) -> str:
    """Where the figures of a table are from."""
    return f"{threads_label(report.settings['threads'], report.machine)}."


def _remarks(report: BenchReport) -> list[str]:
    """What INT8 gains, and whose answers are ours."""
    gains = int8_gains(report)
    lines = []
    if gains:
        gained = ", ".join(f"{name} {times_faster(gain)}" for name, gain in gains.items() if name != "size")
        lines.append(f"INT8 against FP32: {gained}; graphs {_percent(gains.get('size'))} of the size.")
    lines += [
        f"Answers that are those of {name}: {_percent(peer.tokens_equal)}."
        for name, peer in report.peers.items()
        if peer.tokens_equal is not None
    ]
    return lines


def _percent(share: float | None) -> str:
    """A share for people: 12.3%."""
    return "" if share is None else f"{100 * share:.1f}%"


def _ceiling_text(stage: StageTimes) -> str:
    """How near a stage is to its ceiling, and which that is."""
    ceiling = {"arithmetic": "of the FP32 product", "memory": "of the copy"}.get(stage.bound or "")
    return "" if ceiling is None else f"{_percent(stage.ceiling_share)} {ceiling}"


def _megabytes(num_bytes: int | None) -> str:
    """A size for people, in MB."""
    return "" if num_bytes is None else f"{num_bytes / 1e6:,.0f}"
