"""Whether the machine was busy with something else while times were taken.

Linux counts what each CPU did (/proc/stat, proc_stat(5)). If those that this process may use were busy for longer than
its own threads ran, others had them; `steal` is the time that a hypervisor gave to other machines meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from glimmer_export.runtime.backends.threads import allowed_cpus

__all__ = ["CpuCounts", "Load", "LoadWatch", "Span", "counts_from_stat", "read_counts"]

FOREIGN_LIMIT = 0.05
"""Share of the CPUs' time; what a quiet system does for itself is below 1%."""
WANTED = 0.5
"""CPUs that others may have of those that the contenders want, however many there are: all threads of an operator wait
for the one that has to share."""
STEAL_LIMIT = 0.02
SLACK_SECONDS = 0.1
"""The counters go by ticks of 10 ms a CPU, so that nothing can be said of less."""
AVERAGE_LIMIT = 0.5
"""Of the load average by CPU, before anything of ours ran, where there are no counters."""
STAT = Path("/proc/stat")
BUSY = ("user", "nice", "system", "irq", "softirq")
FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


@dataclass(frozen=True)
class CpuCounts:
    """Seconds up to now: `clock` of a clock, `busy` and `stolen` of `cpus` CPUs together, `own` of this process."""

    clock: float
    cpus: int
    busy: float
    stolen: float
    own: float


@dataclass(frozen=True)
class Span:
    """What the CPUs did while something was timed, in seconds: `foreign` is what other processes had of them."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    busy_seconds: float = 0.0
    own_seconds: float = 0.0
    foreign_seconds: float = 0.0
    steal_seconds: float = 0.0

    @property
    def foreign_share(self) -> float:
        """Of all that the CPUs could have done."""
        return self.foreign_seconds / self.cpu_seconds if self.cpu_seconds else 0.0

    @property
    def steal_share(self) -> float:
        """Of all that the CPUs could have done."""
        return self.steal_seconds / self.cpu_seconds if self.cpu_seconds else 0.0

    @property
    def is_counted(self) -> bool:
        """Whether the counters saw this process at least: in some sandboxes they stand still."""
        return self.busy_seconds + self.steal_seconds + SLACK_SECONDS >= 0.5 * self.own_seconds

    def plus(self, begun: CpuCounts, ended: CpuCounts) -> Span:
        """Add what was between two readings."""
        seconds, own = ended.clock - begun.clock, ended.own - begun.own
        busy, stolen = ended.busy - begun.busy, ended.stolen - begun.stolen
        return Span(
            self.seconds + seconds, self.cpu_seconds + seconds * ended.cpus, self.busy_seconds + busy,
            self.own_seconds + own, self.foreign_seconds + max(0.0, busy - own), self.steal_seconds + stolen,
        )


@dataclass(frozen=True)
class Load:
    """What is to be thought of the times: `worthless` for `reasons`, or None if nobody can tell, for the same.

    `load_average` is that of the minute before anything was done. `spans` are by what was timed.
    """

    worthless: bool | None
    reasons: tuple[str, ...]
    load_average: float | None
    spans: Mapping[str, Span]

    @property
    def sentence(self) -> str:
        """For people; empty if the machine was quiet."""
        why = "; ".join(self.reasons)
        if self.worthless is None:
            return f"Nobody can tell whether this machine was quiet: {why}."
        return f"These times are worthless: {why}. Measure again on a quiet machine." if self.worthless else ""

    def to_json(self) -> dict[str, Any]:
        """Plain values, the shares with the seconds."""
        spans = {
            name: {**asdict(span), "foreign_share": span.foreign_share, "steal_share": span.steal_share}
            for name, span in self.spans.items()
        }
        return {
            "worthless": self.worthless, "reasons": list(self.reasons), "load_average": self.load_average,
            "foreign_share": self.most("foreign_share"), "steal_share": self.most("steal_share"), "spans": spans,
        }

    def most(self, share: str) -> float | None:
        """The greatest `foreign_share` or `steal_share` of any span; None without counters."""
        return max((getattr(span, share) for span in self.spans.values()), default=None)


class LoadWatch:
    """Reads the counters before and after what is timed, and adds up by its name."""

    def __init__(self, counts: Callable[[], CpuCounts | None] | None = None) -> None:
        self._counts = counts or read_counts
        self._spans: dict[str, Span] = {}
        self._is_blind = False

    @contextmanager
    def during(self, name: str) -> Iterator[None]:
        """Watch what is done inside; a name may come again."""
        begun = self._counts()
        yield
        ended = self._counts()
        if begun is None or ended is None:
            self._is_blind = True
        else:
            self._spans[name] = self._spans.get(name, Span()).plus(begun, ended)

    def load(self, load_average: float | None, *, cpus: int, threads: int) -> Load:
        """The verdict, over each name by itself: a block under load slanders one contender and flatters the others.

        `threads` of the `cpus` are what the contenders want; others may have more of the rest.
        """
        spans = {} if self._is_blind else dict(self._spans)
        if self._is_blind or not all(span.is_counted for span in spans.values()):
            return _by_average(load_average, cpus, spans)
        allowed = min(FOREIGN_LIMIT * cpus, max(cpus - threads, 0) + WANTED)
        reasons = [
            f"other processes had {span.foreign_share:.1%} of the CPUs during {name}"
            for name, span in spans.items()
            if span.foreign_seconds > allowed * span.seconds + SLACK_SECONDS
        ]
        reasons += [
            f"the hypervisor took {span.steal_share:.1%} of the CPUs during {name} (steal)"
            for name, span in spans.items()
            if span.steal_seconds > STEAL_LIMIT * span.cpu_seconds + SLACK_SECONDS
        ]
        return Load(bool(reasons), tuple(reasons), load_average, spans)


def _by_average(load_average: float | None, cpus: int, spans: Mapping[str, Span]) -> Load:
    missing = f"{STAT} does not count what the CPUs do here" if spans else f"there is no {STAT} here"
    if load_average is None:
        return Load(None, (f"{missing}, and no load average",), None, spans)
    average = f"the load average was {load_average:.2f} on {cpus} CPUs before anything was measured"
    if load_average > AVERAGE_LIMIT * cpus:
        return Load(True, (average,), load_average, spans)
    return Load(None, (missing, average), load_average, spans)


def read_counts(stat: Path = STAT) -> CpuCounts | None:
    """The counters as they stand now, of the CPUs that this process may use; None where there are none."""
    try:
        lines = stat.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    counted = counts_from_stat(lines, allowed_cpus(), ticks_per_second=os.sysconf("SC_CLK_TCK"))
    if counted is None:
        return None
    cpus, busy, stolen = counted
    return CpuCounts(time.perf_counter(), cpus, busy, stolen, time.process_time())


def counts_from_stat(stat: str, cpus: set[int], *, ticks_per_second: int) -> tuple[int, float, float] | None:
    """How many of `cpus` the text of /proc/stat has, and the seconds that these were busy and stolen.

    None if it has none of them, or is something else. A guest's time is part of `user`, so guests count as others do.
    """
    found, busy, stolen = 0, 0, 0
    for line in stat.splitlines():
        name, *values = line.split() or [""]
        number = name.removeprefix("cpu")
        if number == name or not number.isdecimal() or int(number) not in cpus:
            continue
        if not all(value.isdecimal() for value in values) or len(values) < FIELDS.index("iowait"):
            return None
        ticks = dict(zip(FIELDS, map(int, values), strict=False))
        found += 1
        busy += sum(ticks.get(field, 0) for field in BUSY)
        stolen += ticks.get("steal", 0)
    return (found, busy / ticks_per_second, stolen / ticks_per_second) if found else None
