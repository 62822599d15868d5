"""Measures what a codec costs where the corpus is sorted by topic: `python -m tests.memory.measure_codecs --help`.

The demo's corpus lies kind by kind. For each size, a world is cut to so many passages in their order, and each codec
is had in two ways: by `memory build`, and by `memory convert` of the fp16 store. Both answer the same questions from
the same passages. Whatever is in the work folder already is not made again.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from exporter.bundle import FormOptions, export_bundle
from exporter.demo.data import CHECKPOINT
from exporter.demo.world import Question, World, generate_split, write_world
from exporter.memory import build_store, convert_store
from runtime import Session
from runtime.candidates import PassageId
from runtime.contract import CODECS, read_store_manifest

SIZES = (1500, 2047, 10_240)
MORE = 1.03
"""Questions asked for of a world, for each passage it is to have: it has about one a question."""
BATCH = 64


def sorted_world(num_passages: int, seed: int) -> World:
    """A world of exactly so many passages, kind by kind, and the questions whose gold passage is there."""
    world = generate_split("test", int(num_passages * MORE), seed)
    kept = sorted(random.Random(seed).sample(range(len(world.corpus)), num_passages))
    there = set(kept)
    questions = [
        Question({**row, "ctx_ids": [number for number in row["ctx_ids"] if number in there]})
        for row in world.questions if set(row["gold_ids"]) <= there
    ]
    return World([world.corpus[number] for number in kept], questions)


def right_answers(bundle: Path, store: Path, questions: list[Question], threads: int) -> list[bool]:
    """Whether each question is answered word for word, from its own passages."""
    right = []
    with Session.open(bundle, store, threads=threads, verify=False) as session:
        for start in range(0, len(questions), BATCH):
            batch = questions[start : start + BATCH]
            given = [[PassageId(number) for number in row["ctx_ids"]] for row in batch]
            answers = session.answer_many([row["question"] for row in batch], passages=given)
            right += [answer.answer in row["answers"] for row, answer in zip(batch, answers, strict=True)]
    return right


def measure(work: Path, bundle: Path, num_passages: int, seed: int, threads: int) -> None:
    """Fill the folder of one world: its stores, and for each a file of which questions were answered right."""
    folder = work / f"{num_passages}-{seed}"
    world = sorted_world(num_passages, seed)
    write_world(folder, world)
    base = folder / "fp16"
    if not base.exists():
        build_store(bundle, folder / "corpus.jsonl", base, threads=threads)
    for codec in CODECS:
        for way in ("build",) if codec == "fp16" else ("build", "convert"):
            store, found = folder / f"{codec}-{way}", folder / f"{codec}-{way}.json"
            if found.exists():
                continue
            if codec == "fp16":
                store = base
            elif way == "build":
                build_store(bundle, folder / "corpus.jsonl", store, codec=codec, threads=threads)
            else:
                convert_store(base, store, codec)
            right = right_answers(bundle, store, world.questions, threads)
            snr = getattr(read_store_manifest(store), "codec_snr", None)
            figures = None if snr is None else [snr.fitted_db, snr.outside_db]
            found.write_text(json.dumps({"snr_db": figures, "right": right}), encoding="utf-8")


def report(work: Path, sizes: list[int]) -> str:
    """A line a size and codec: exact match of both ways over all worlds of the size, and SNR of the first world."""
    lines = ["passages  codec  questions  fp16    build   convert  build - convert  SNR fitted, outside (dB)"]
    for size in sizes:
        folders = [folder for folder in sorted(work.glob(f"{size}-*")) if (folder / "pq16x-convert.json").exists()]
        if not folders:
            continue
        exact = _right(folders, "fp16-build")
        for codec in CODECS[1:]:
            built, converted = _right(folders, f"{codec}-build"), _right(folders, f"{codec}-convert")
            snr = json.loads((folders[0] / f"{codec}-build.json").read_text(encoding="utf-8"))["snr_db"]
            figures = [100 * sum(right) / len(right) for right in (exact, built, converted)]
            lines.append(
                f"{size:8d}  {codec:5s}  {len(built):9d}  {figures[0]:6.2f}  {figures[1]:6.2f}  {figures[2]:6.2f}  "
                f"{figures[1] - figures[2]:+14.2f}  {snr}"
            )
    return "\n".join(lines)


def _right(folders: list[Path], name: str) -> list[bool]:
    return [
        right for folder in folders
        for right in json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["right"]
    ]


def main() -> None:
    """Measure, then print what there is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of stores and results, kept")
    parser.add_argument("--passages", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--worlds", type=int, default=1, help="worlds of each size, for more questions")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    bundle = options.work / "bundle"
    if not bundle.exists():
        options.work.mkdir(parents=True, exist_ok=True)
        export_bundle(CHECKPOINT, bundle, FormOptions(codecs=CODECS))
    for size in options.passages:
        for seed in range(options.worlds):
            measure(options.work, bundle, size, seed, options.threads)
        print(report(options.work, [size]), flush=True)  # noqa: T201 - it is what the command is for


if __name__ == "__main__":
    main()
