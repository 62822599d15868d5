"""What a bench found: JSON with stable keys, and tables."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.bench.ceilings import CeilingRates
from glimmer_export.exporter.bench.fetch import FetchTimes
from glimmer_export.runtime.contract import MEMORY_ENCODER

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["BenchReport", "ContenderTimes", "StageTimes", "int8_gains"]


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
    """One contender from end to end, a batch; `times_ms` are its counted runs in order.

    `peak_rss_bytes` is that of a process of its own, None where it was not measured; `tokens_equal` the share of
    answers that are ours, None where other answers are expected. Of our own graphs: `graph_bytes` on disk, and
    `memory_encoder_ms`, the median of one batch of passages through the memory encoder.
    """

    passages: int
    median_ms: float
    p95_ms: float
    questions_per_second: float
    peak_rss_bytes: int | None
    times_ms: tuple[float, ...]
    tokens_equal: float | None = None
    overhead_share: float | None = None
    graph_bytes: int | None = None
    memory_encoder_ms: float | None = None
    stages: dict[str, StageTimes] | None = None


@dataclass(frozen=True)
class BenchReport:
    """A bench: where, of what, ours, the peers, and this machine's ceilings.

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
        return {**values, "stages": ours.pop("stages"), "ratios": self.ratios, "int8_gains": int8_gains(self)}

    def print(self, console: Console) -> None:
        """Tables: contenders, our stages, the store by codec; and the ceilings."""
        _print_contenders(self, console)
        _print_stages(self, console)
        rates = self.ceilings
        console.print(
            f"Ceilings with {self.settings['threads']} threads: FP32 product "
            f"{rates.fp32_macs_per_second / 1e9:.1f} G multiply-adds/s, INT8 {rates.int8_macs_per_second / 1e9:.1f}, "
            f"copy {rates.copy_bytes_per_second / 1e9:.1f} GB/s."
        )
        console.print(f"Outside the graphs: {percent(self.end_to_end.overhead_share)} of end to end.")
        _print_fetch(self, console)
        _print_int8(self, console)
        for name, peer in self.peers.items():
            if peer.tokens_equal is not None:
                console.print(f"Answers that are those of {name}: {percent(peer.tokens_equal)}.")


def int8_gains(report: BenchReport) -> dict[str, float]:
    """How many times faster INT8 is than FP32, by stage, for passages through the memory encoder, and end to end.

    `size` is its graphs' share of the FP32 graphs' bytes. Empty where INT8 was no peer.
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


def percent(share: float | None) -> str:
    """A share for people: 12.3%."""
    return "" if share is None else f"{100 * share:.1f}%"


def ceiling_text(stage: StageTimes) -> str:
    """How near a stage is to its ceiling, and which that is."""
    ceiling = {"arithmetic": "of the FP32 product", "memory": "of the copy"}.get(stage.bound or "")
    return "" if ceiling is None else f"{percent(stage.ceiling_share)} {ceiling}"


def megabytes(num_bytes: int | None) -> str:
    """A size for people, in MB."""
    return "" if num_bytes is None else f"{num_bytes / 1e6:,.0f}"


def _print_int8(report: BenchReport, console: Console) -> None:
    gains = int8_gains(report)
    if gains:
        faster = ", ".join(f"{name} {gain:.2f}x" for name, gain in gains.items() if name != "size")
        console.print(f"INT8 against FP32: {faster}; graphs {percent(gains.get('size'))} of the size.")


def _print_fetch(report: BenchReport, console: Console) -> None:
    from rich.table import Table

    table = Table(title=f"Fetching {report.settings['k']} passages from the store")
    table.add_column("codec", no_wrap=True)
    columns = ("bytes a token", "ms", "to a bare copy", "8 threads, ms", "to bare copies", "cold, ms", "encoded/s")
    for column in columns:
        table.add_column(column, justify="right")
    for name, times in report.fetch.items():
        table.add_row(
            name, f"{times.bytes_per_token:,.0f}", f"{times.fetch_ms:.3f}", f"{times.to_copy:.2f}x",
            f"{times.threads_ms:.2f}", f"{times.threads_to_copy:.2f}x", f"{times.cold_ms:.2f}",
            f"{times.encode_tokens_per_second:,.0f}",
        )
    console.print(table)


def _print_contenders(report: BenchReport, console: Console) -> None:
    from rich.table import Table

    table = Table(title=f"{report.settings['repeats']} interleaved runs of {report.settings['batch_size']} question(s)")
    table.add_column("", no_wrap=True)
    for column in ("passages", "median ms", "p95 ms", "per second", "to ours", "peak MB"):
        table.add_column(column, justify="right")
    for name, times in {"ours": report.end_to_end, **report.peers}.items():
        ratio = f"{report.ratios[name]:.2f}x" if name in report.ratios else ""
        table.add_row(
            name, str(times.passages), f"{times.median_ms:.1f}", f"{times.p95_ms:.1f}",
            f"{times.questions_per_second:.2f}", ratio, megabytes(times.peak_rss_bytes),
        )
    console.print(table)


def _print_stages(report: BenchReport, console: Console) -> None:
    from rich.table import Table

    table = Table(title="Our stages")
    table.add_column("stage", no_wrap=True)
    for column in ("median ms", "p95 ms", "share", "of its ceiling"):
        table.add_column(column, justify="right")
    for name, stage in report.stages.items():
        table.add_row(
            name, f"{stage.median_ms:.2f}", f"{stage.p95_ms:.2f}", percent(stage.share), ceiling_text(stage)
        )
    console.print(table)
    for name, stage in report.stages.items():
        if stage.alone_ms is not None:
            copies = f", {stage.alone_to_copy:.2f} times as long as copying its memory" if stage.alone_to_copy else ""
            console.print(f"{name} alone and warm: {stage.alone_ms:.2f} ms{copies}.")
