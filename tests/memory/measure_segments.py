"""Measures a tantivy index that grew by segments beside one made at once: `python -m tests.memory.measure_segments -h`.

With --data, of real passages: half are there from the start, the others are appended ten at a time, and in between them
passages that are deleted again, made of one's title and another's text. Else of generated ones; none is deleted.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from glimmer_export.exporter.memory.full_text import SEGMENT_PASSAGES, TANTIVY, write_segment, write_texts_and_index
from glimmer_export.exporter.memory.merge_policy import SEGMENT_PARTS, merged_from
from glimmer_export.exporter.memory.texts import PART_PASSAGES, Numbered, read_live, write_texts_part
from glimmer_export.runtime.contract.store_layout import FOLDING, SegmentEntry, TextsEntry
from glimmer_export.runtime.retrieval import Hit
from glimmer_export.runtime.retrieval.tantivy_bm25 import TantivyIndex
from glimmer_export.runtime.store import Passage
from tests.memory.generated_corpus import passages as generated
from tests.memory.generated_corpus import questions

TOP_K, STEP, DEAD_OF_TEN = 20, 10, 1
ASKED_AT = 12
QUESTIONS = ("nq.dev", "squad.dev")


def ignore(_: int) -> None: ...


Parts = tuple[tuple[TextsEntry, ...], tuple[SegmentEntry, ...]]


def size_of(parts: Parts) -> int:
    """Bytes of their files."""
    texts, segments = parts
    return sum(part.file.bytes for part in texts) + sum(file.bytes for part in segments for file in part.files)


def stored(folder: Path, texts: Sequence[TextsEntry], dead: np.ndarray, start: int, stop: int) -> Numbered:
    """The passages of these numbers that are there."""
    return read_live(lambda file: folder / file.path, texts, dead, start, stop)


class Grown:
    """Texts and segments that passages are appended to, as a store's."""

    def __init__(self, folder: Path, first: Sequence[Passage]) -> None:
        self.folder, self.generation = folder, 0
        self.texts, self.segments = write_texts_and_index(
            folder, 0, enumerate(first), len(first), TANTIVY, advance=ignore
        )
        self.written, self.counts = 0, [1]

    @property
    def end(self) -> int:
        """The number after the last."""
        return self.texts[-1].end

    def append(self, passages: Sequence[Passage], dead: np.ndarray) -> None:
        """Write what a change of a store writes; what it does not name any more is removed."""
        self.generation += 1
        end, count = self.end, len(passages)
        start = merged_from([*(part.num_numbers for part in self.texts), count], PART_PASSAGES)
        gone = self.texts[start:]
        first = gone[0].first if gone else end
        new = write_texts_part(
            self.folder, f"texts/{self.generation:05d}-00000.sqlite",
            [*stored(self.folder, gone, dead, first, end), *enumerate(passages, end)], first=first,
            num_numbers=end + count - first,
        )
        self.texts = (*self.texts[:start], new)
        start = merged_from([*(part.num_numbers for part in self.segments), count], SEGMENT_PASSAGES, SEGMENT_PARTS)
        merged, stop = self.segments[start:], end + count
        first = merged[0].first if merged else end
        segment = write_segment(
            self.folder, f"segments/{self.generation:05d}-00000", stored(self.folder, self.texts, dead, first, stop),
            first=first, num_numbers=stop - first, folding=FOLDING, advance=ignore,
        )
        for path in [part.file.path for part in gone] + [file.path for part in merged for file in part.files]:
            (self.folder / path).unlink()
        self.segments = (*self.segments[:start], segment)
        self.written += size_of(((new,), (segment,)))
        self.counts.append(len(self.segments))


def measure(data: Path) -> dict[str, object]:
    """All figures."""
    rows = [json.loads(line) for line in (data / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [Passage(row["id"], row["title"], row["text"]) for row in rows]
    half, report = len(found) // 2, dict[str, object]()
    with tempfile.TemporaryDirectory() as folder:
        grown = Grown(Path(folder) / "grown", found[:half])
        place, dead, live = half, list[int](), [*range(half)]
        appended = appends = 0
        used = time.process_time()
        while place < len(found):
            end = grown.end
            added = found[place : place + STEP - DEAD_OF_TEN]
            gone = [
                Passage(f"gone{end + extra}", added[0].title, found[(7 * place + extra) % len(found)].text)
                for extra in range(DEAD_OF_TEN)
            ]
            grown.append([*gone, *added], np.array(dead, np.int64))
            dead += range(end, end + len(gone))
            live += range(end + len(gone), end + len(gone) + len(added))
            appended += sum(len(passage.title.encode()) + len(passage.text.encode()) for passage in [*gone, *added])
            place, appends = place + len(added), appends + 1
        report["appends"], report["cpu_ms_an_append"] = appends, (time.process_time() - used) / appends * 1000
        report["segments"], report["segments_at_most"] = len(grown.segments), max(grown.counts)
        report["appended_text_bytes"], report["written_bytes"] = appended, grown.written
        tombstones = np.array(dead, np.int64)
        passages = stored(grown.folder, grown.texts, tombstones, 0, grown.end)
        compact = write_texts_and_index(
            Path(folder) / "compact", 0, passages, grown.end, TANTIVY, advance=ignore
        )
        whole = write_texts_and_index(Path(folder) / "whole", 0, enumerate(found), len(found), TANTIVY, advance=ignore)
        grown_parts = grown.texts, grown.segments
        report["bytes"] = {"grown": size_of(grown_parts), "compact": size_of(compact), "whole": size_of(whole)}
        nothing = np.zeros(0, np.int64)
        indexes = {
            "grown": TantivyIndex(grown.folder, grown.segments, tombstones),
            "compact": TantivyIndex(Path(folder) / "compact", compact[1], tombstones),
            "whole": TantivyIndex(Path(folder) / "whole", whole[1], nothing),
        }
        order = {number: place for place, number in enumerate(live)}
        for name in QUESTIONS:
            lines = (data / f"{name}.k20.jsonl").read_text(encoding="utf-8").splitlines()
            report[name] = asked_of(indexes, order, {p.id: n for n, p in enumerate(found)}, map(json.loads, lines))
    return report


def asked_of(indexes, order, numbers, asked) -> dict[str, object]:
    """Of each index: questions with a gold passage among its hits, and milliseconds of CPU, by turns."""
    hits, times = dict.fromkeys(indexes, 0), {name: list[float]() for name in indexes}
    count = equal = same = 0
    for row in asked:
        gold = {numbers[one] for one in row["gold_ids"]}
        ranks: dict[str, list[Hit]] = {}
        for name, index in indexes.items():
            index.search(row["question"], TOP_K)
            used = time.thread_time()
            ranking = index.search(row["question"], TOP_K)
            times[name].append((time.thread_time() - used) * 1000)
            ranks[name] = ranking if name == "whole" else [Hit(order[hit.number], hit.score) for hit in ranking]
            hits[name] += any(hit.number in gold for hit in ranks[name])
        count += 1
        equal += ranks["compact"] == ranks["whole"]
        same += {hit.number for hit in ranks["grown"]} == {hit.number for hit in ranks["whole"]}
    return {
        "questions": count, "found": hits, "compact_equals_whole": equal, "grown_finds_what_whole_finds": same,
        "cpu_ms_median": {name: round(statistics.median(values), 3) for name, values in times.items()},
    }


def day(count: int, appends: int) -> dict[str, object]:
    """A day of appends to generated passages, none deleted: size, and CPU of a question beside an index at once.

    Questions are asked ASKED_AT times in the day, evenly.
    """
    nothing, used = np.zeros(0, np.int64), time.process_time
    found = list(generated(count + appends * STEP))
    moments, ratios, seconds = [], list[float](), 0.0
    with tempfile.TemporaryDirectory() as folder:
        grown = Grown(Path(folder) / "grown", found[:count])
        for number in range(1, appends + 1):
            place = count + (number - 1) * STEP
            started = used()
            grown.append(found[place : place + STEP], nothing)
            seconds += used() - started
            if number % (appends // ASKED_AT) == 0 or number == appends:
                moments.append(beside_one_at_once(grown, found[: place + STEP], Path(folder) / "whole"))
                ratios.append(moments[-1]["ratio"])
    return {
        "passages": count, "appends": appends, "cpu_ms_an_append": seconds / appends * 1000,
        "segments_at_most": max(grown.counts), "segments_mean": statistics.mean(grown.counts),
        "texts": len(grown.texts),
        "appended_text_bytes": sum(len(p.title.encode()) + len(p.text.encode()) for p in found[count:]),
        "written_bytes": grown.written, "moments": moments, "ratio_median": statistics.median(ratios),
        "ratio_most": max(ratios),
    }


def beside_one_at_once(grown: Grown, found: Sequence[Passage], folder: Path) -> dict[str, float]:
    """CPU of a question, the median of many by turns, in the index as it has grown and in one of the same at once."""
    nothing = np.zeros(0, np.int64)
    _, whole = write_texts_and_index(folder, 0, enumerate(found), len(found), TANTIVY, advance=ignore)
    one, other = TantivyIndex(grown.folder, grown.segments, nothing), TantivyIndex(folder, whole, nothing)
    times = {"grown": list[float](), "whole": list[float]()}
    asked = questions(found[:: max(1, len(found) // 200)])
    for _ in range(3):
        for question in asked:
            assert one.search(question, TOP_K) == other.search(question, TOP_K)
            for name, index in (("grown", one), ("whole", other)):
                begun = time.thread_time()
                index.search(question, TOP_K)
                times[name].append((time.thread_time() - begun) * 1000)
    shutil.rmtree(folder)
    medians = {name: round(statistics.median(values), 4) for name, values in times.items()}
    return {"segments": len(grown.segments), **medians, "ratio": round(medians["grown"] / medians["whole"], 3)}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="../shared/data/qa")
    parser.add_argument("--passages", type=int, default=204_800, help="generated ones that are there, without --data")
    parser.add_argument("--appends", type=int, default=1440)
    options = parser.parse_args()
    report = measure(options.data) if options.data else day(options.passages, options.appends)
    print(json.dumps(report, indent=2))  # noqa: T201 - it is what the command is for


if __name__ == "__main__":
    main()
