"""Measures full-text search: `python -m tests.memory.measure_retrieval --help`."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from glimmer_export.exporter.memory.full_text import FTS5, TANTIVY, write_texts_and_index
from glimmer_export.runtime.passage_texts import PassageTexts
from glimmer_export.runtime.retrieval import Retriever
from glimmer_export.runtime.retrieval.folding import passage_words
from glimmer_export.runtime.retrieval.tantivy_bm25 import TantivyIndex
from glimmer_export.runtime.store import Passage
from tests.memory.generated_corpus import passages, questions, templated

TOP_K = 25
RECALL_AT, AND_AT = 20, 5


def say(line: str) -> None:
    """Print at once."""
    print(line, flush=True)  # noqa: T201 - it is what the command is for


def build(directory: Path, texts: Iterator[Passage], count: int, engine: str) -> tuple[Retriever, str]:
    """An index over the passages, and a line on what it took: CPU of all threads, less that of making the passages."""

    def ignore(_: int) -> None: ...

    def timed(passages: Iterator[Passage]) -> Iterator[Passage]:
        nonlocal reading
        while True:
            started = time.thread_time()
            passage = next(passages, None)
            reading += time.thread_time() - started
            if passage is None:
                return
            yield passage

    reading, started = 0.0, time.process_time()
    parts, segments = write_texts_and_index(directory, 0, enumerate(timed(texts)), count, engine, advance=ignore)
    seconds = time.process_time() - started - reading
    size = sum(part.file.bytes for part in parts) + sum(file.bytes for part in segments for file in part.files)
    nothing = np.zeros(0, np.int64)
    retriever: Retriever = PassageTexts(directory, parts, nothing)
    if engine == TANTIVY:
        retriever = TantivyIndex(directory, segments, nothing)
    what = f"{engine}, {count:,} passages: texts and index written in {seconds:.0f} s of CPU, {size / 1e6:,.0f} MB"
    return retriever, what


def latencies(retriever: Retriever, asked: Sequence[str]) -> str:
    """Milliseconds of a question, warm: each is asked twice, and the second time counts.

    By the clock, and of this thread's CPU, in which other programs of the machine do not show.
    """
    for question in asked:
        retriever.search(question, TOP_K)
    clock, processor = [], []
    for question in asked:
        started, used = time.perf_counter(), time.thread_time()
        retriever.search(question, TOP_K)
        clock.append((time.perf_counter() - started) * 1000)
        processor.append((time.thread_time() - used) * 1000)

    def shown(times: list[float]) -> str:
        return f"median {statistics.median(times):.2f}, p95 {sorted(times)[int(0.95 * len(times))]:.2f}"

    return f"{shown(clock)} ms by the clock; {shown(processor)} ms of CPU"


def generated(engine: str, count: int, asked: int) -> None:
    """The generated corpus; questions are on passages at equal distances in it."""
    step, sample = max(1, count // asked), []

    def corpus() -> Iterator[Passage]:
        for number, passage in enumerate(passages(count)):
            if number % step == 0:
                sample.append(passage)
            yield passage

    with tempfile.TemporaryDirectory() as folder:
        retriever, line = build(Path(folder), corpus(), count, engine)
        say(line)
        say(f"  {asked} questions, top {TOP_K}: {latencies(retriever, questions(sample[:asked]))}")


def alike(engine: str, count: int, asked: int) -> None:
    """Passages of one sentence with other names in it, most of which have equal scores; the least of five times."""
    sample = list(templated(asked))
    names = [passage.title for passage in sample]
    kinds = {
        "a name and a word of all": [f"What is the trade of {name}?" for name in names],
        "words of all alone": ["who was born", "trade"],
        "names alone": names,
    }
    with tempfile.TemporaryDirectory() as folder:
        retriever, line = build(Path(folder), templated(count), count, engine)
        say(f"alike: {line}")
        for kind, ask in kinds.items():
            times = []
            for question in ask:
                retriever.search(question, TOP_K)
                least = float("inf")
                for _ in range(5):
                    used = time.thread_time()
                    retriever.search(question, TOP_K)
                    least = min(least, time.thread_time() - used)
                times.append(least * 1000)
            say(f"  {kind}: median {statistics.median(times):.2f}, most {max(times):.2f} ms of CPU")


def folding(data: Path) -> None:
    """How long words take to fold; the least of five times."""
    rows = [json.loads(line) for line in (data / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    least = float("inf")
    for _ in range(5):
        used = time.thread_time()
        for row in rows:
            passage_words(row["title"], row["text"])
        least = min(least, time.thread_time() - used)
    say(f"folding: {least / len(rows) * 1e6:.1f} us of CPU a passage")


def recall(engine: str, data: Path) -> None:
    """Recall on real questions; of the gold passages, those that the engine finds itself."""
    rows = [json.loads(line) for line in (data / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [Passage(row["id"], row["title"], row["text"]) for row in rows]
    numbers = {row["id"]: number for number, row in enumerate(rows)}
    with tempfile.TemporaryDirectory() as folder:
        retriever, line = build(Path(folder), iter(found), len(found), engine)
        say(line)
        for name in ("nq.dev", "nq.train", "squad.dev"):
            lines = (data / f"{name}.k20.jsonl").read_text(encoding="utf-8").splitlines()
            asked = [json.loads(line) for line in lines]
            hits = early = 0
            for row in asked:
                gold = {numbers[gold] for gold in row["gold_ids"]}
                ranks = [hit.number in gold for hit in retriever.search(row["question"], RECALL_AT)]
                hits, early = hits + any(ranks), early + any(ranks[:AND_AT])
            timing = latencies(retriever, [row["question"] for row in asked[:500]])
            say(f"  {name}: of {len(asked)} @{RECALL_AT} {hits} ({hits / len(asked):.4f}), @{AND_AT} {early}; {timing}")


def main() -> None:
    """Parse and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=(FTS5, TANTIVY), default=TANTIVY)
    parser.add_argument("--passages", type=int, default=1_000_000, help="of a generated corpus")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--recall", type=Path, metavar="FOLDER", help="measure recall on the data of ../shared/data/qa")
    parser.add_argument("--alike", action="store_true", help="passages of one template, in place of a natural language")
    options = parser.parse_args()
    if options.alike:
        alike(options.engine, options.passages, options.questions)
    elif options.recall is not None:
        folding(options.recall)
        recall(options.engine, options.recall)
    else:
        generated(options.engine, options.passages, options.questions)


if __name__ == "__main__":
    main()
