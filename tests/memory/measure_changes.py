"""What changes of a store cost: CPU seconds of this process, bytes that it wrote, files of the store.

    python -m tests.memory.measure_changes FOLDER [--passages 20000 204800] [--day 1440] [--deleted N] [--short]

Stores are generated (generated_store.py), at width 8; what is appended is encoded by a tiny model, whose time is left
out. CPU time is that of all threads of the process, bytes written those of its write calls
(/proc/self/io, wchar), with the journal, the manifests and their replicas, and what is merged.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from glimmer_export.exporter.memory import append_passages, compact_store, delete_passages
from glimmer_export.exporter.memory.runners import LocalRunner
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import read_shards, read_store_manifest
from glimmer_export.runtime.store import MemoryStore
from tests.bundle_factory import make_bundle
from tests.memory.generated_corpus import passages, questions, templated
from tests.memory.generated_store import generated_store

AT_ONCE, REPEATED, FETCHED = 10, 5, 2000


def cpu() -> float:
    """CPU seconds of this process so far."""
    return time.process_time()


def written() -> int:
    """Bytes that this process has given to write calls so far."""
    lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


class LeftOut(LocalRunner):
    """Encodes in this process, and notes what that took."""

    seconds = 0.0
    bytes = 0

    def run(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        """As LocalRunner; the bytes are those of the passages' shards."""
        start, before = cpu(), written()
        yield from super().run(*arguments, **options)
        LeftOut.seconds += cpu() - start
        LeftOut.bytes += written() - before


def measured(change: Callable[[], object]) -> dict[str, float]:
    """CPU seconds, seconds, and bytes written of a change, with encoding left out of the first."""
    LeftOut.seconds, LeftOut.bytes = 0.0, 0
    start, clock, before = cpu(), time.monotonic(), written()
    change()
    return {
        "cpu_seconds": cpu() - start - LeftOut.seconds, "seconds": time.monotonic() - clock,
        "bytes": written() - before, "shard_bytes": LeftOut.bytes,
    }


def corpus_of(folder: Path, start: int, count: int) -> tuple[Path, int]:
    """A file of further passages, and the bytes of their texts."""
    path, size = folder / "more.jsonl", 0
    with path.open("w", encoding="utf-8") as stream:
        for passage in passages(count, seed=start + 1):
            row = {"id": start + int(passage.id or 0), "title": passage.title, "text": passage.text}
            size += len(passage.title.encode()) + len(passage.text.encode())
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    return path, size


def median_of(runs: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def single_changes(store: Path, bundle: Bundle, count: int) -> dict[str, Any]:
    """Appends of 10 and deletions of 1 at once; the store is open meanwhile."""
    appends, deletions = [], []
    with MemoryStore.open(store, bundle, verify=False):
        for place in range(REPEATED):
            corpus, size = corpus_of(store.parent, 10**7 + place * AT_ONCE, AT_ONCE)
            run = measured(lambda: append_passages(store, bundle, corpus, runner=LeftOut()))  # noqa: B023
            appends.append({**run, "text_bytes": size})
            deletions.append(measured(lambda: delete_passages(store, [place * 7 + 1])))  # noqa: B023
    return {"append_10": median_of(appends), "delete_1": median_of(deletions), "passages": count}


def a_day(store: Path, bundle: Bundle, steps: int) -> dict[str, Any]:
    """Appends of 10 in a row, and what they leave."""
    first, runs, most, size = read_store_manifest(store).num_numbers, [], [0, 0, 0], 0
    for step in range(steps):
        corpus, text_bytes = corpus_of(store.parent, 2 * 10**7 + step * AT_ONCE, AT_ONCE)
        runs.append(measured(lambda: append_passages(store, bundle, corpus, runner=LeftOut())))  # noqa: B023
        manifest = read_store_manifest(store)
        counts = manifest.num_shards, len(manifest.segments), len(manifest.texts)
        most = [max(earlier, now) for earlier, now in zip(most, counts, strict=True)]
        size += text_bytes
    shards = sum(run["shard_bytes"] for run in runs)
    total = sum(run["bytes"] for run in runs)
    quarter = max(1, steps // 4)
    return {
        "steps": steps, "before": first, "most_shards": most[0], "most_segments": most[1], "most_texts": most[2],
        "shards": manifest.num_shards, "segments": len(manifest.segments), "texts": len(manifest.texts),
        "cpu_seconds": sum(run["cpu_seconds"] for run in runs),
        "first_quarter_median_cpu_seconds": statistics.median(run["cpu_seconds"] for run in runs[:quarter]),
        "last_quarter_median_cpu_seconds": statistics.median(run["cpu_seconds"] for run in runs[-quarter:]),
        "longest_cpu_seconds": max(run["cpu_seconds"] for run in runs),
        "bytes": total, "passages_bytes": size + shards, "ratio": total / (size + shards),
    }


def reading(store: Path, bundle: Bundle) -> dict[str, Any]:
    """Opening, and CPU microseconds a passage to fetch and a question to search, in a process that did before."""
    start = cpu()
    with MemoryStore.open(store, bundle) as opened:
        opening = cpu() - start
        numbers = opened.first_numbers(opened.num_passages)
        chosen = numbers[:: max(1, len(numbers) // FETCHED)][:FETCHED]
        asked = questions(opened.passages(chosen[:50]))
        rounds: dict[str, list[float]] = {"fetch": [], "search": []}
        for _ in range(REPEATED):
            start = cpu()
            for number in chosen:
                opened.memory(number)
            rounds["fetch"].append(1e6 * (cpu() - start) / len(chosen))
            start = cpu()
            for question in asked:
                opened.search(question, 20)
            rounds["search"].append(1e6 * (cpu() - start) / len(asked))
        shards = len(read_shards(store, opened.manifest))
    return {
        "opening_cpu_seconds": opening, "shards": shards, "segments": len(opened.manifest.segments),
        "fetch_us": min(rounds["fetch"]), "search_us": min(rounds["search"]),
    }


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--passages", type=int, nargs="+", default=[20_000, 204_800])
    parser.add_argument("--engine", default="tantivy")
    parser.add_argument("--per-shard", type=int, default=4096)
    parser.add_argument("--short", action="store_true", help="texts of a sentence in the store")
    parser.add_argument("--day", type=int, default=0)
    parser.add_argument("--deleted", type=int, default=0, help="so many are deleted before the rest is measured")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    bundle = Bundle.open(make_bundle(options.folder / "bundle"))
    report: list[dict[str, Any]] = []
    for count in options.passages:
        store = options.folder / f"store-{count}"
        shutil.rmtree(store, ignore_errors=True)
        texts = templated if options.short else passages
        generated_store(
            store, bundle, lambda: texts(count), count, engine=options.engine,  # noqa: B023
            passages_per_shard=options.per_shard,
        )
        found: dict[str, Any] = {"engine": options.engine, "built": reading(store, bundle)}
        if options.deleted:
            gone = range(count - 1, count - 1 - options.deleted, -1)
            found["deleted"] = {"count": options.deleted, **measured(lambda: delete_passages(store, gone))}  # noqa: B023
        found |= single_changes(store, bundle, count)
        if options.day:
            found["day"] = a_day(store, bundle, options.day)
            found["after_day"] = reading(store, bundle)
        delete_passages(store, [0])  # of the first shard
        found["compact_after_deleting_id_0"] = measured(lambda: compact_store(store))  # noqa: B023
        found["after_compact"] = reading(store, bundle)
        report.append(found)
        sys.stderr.write(json.dumps(found) + "\n")
    text = json.dumps(report, indent=2)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main()
