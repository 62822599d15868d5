"""What questions of mixed lengths cost OpenVINO: time a token beside one length, and memory over many from 8 threads.

    python -m tests.runtime.measure_mixed lengths BUNDLE --precision bf16 --threads 2
    python -m tests.runtime.measure_mixed memory BUNDLE --store STORE --questions QUESTIONS --count 20000

`lengths` takes those of questions and their best 20 passages of ../shared/data/qa, and runs question encoder, stage A
on 20 and stage B on 5 passages of random numbers, each at its own length and all at their mean, in turn by halves.
`memory` answers questions and random words of theirs, with 2 to 10 passages each.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from glimmer_export.runtime import Session
from glimmer_export.runtime.backends.openvino import OpenVinoBackend
from glimmer_export.runtime.bundle import Bundle

QA = Path("../shared/data/qa")
CALLERS = 8
PARTS = 10


def rows_of(path):
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.open(encoding="utf-8")]


def resident_mb():
    """Memory of this process, in MB."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / 1e6


def real_lengths(bundle, count):
    """(question, longest of 20 passages, longest of 5) tokens of so many questions."""
    corpus = {row["id"]: row for row in rows_of(QA / "corpus.jsonl")}
    rows = [row for name in ("nq", "squad") for row in rows_of(QA / f"{name}.dev.k20.jsonl")]
    chosen = np.random.default_rng(0).permutation(len(rows))[:count]
    shape, found = bundle.manifest.model, []
    for row in (rows[place] for place in chosen):
        passages = [corpus[number] for number in row["ctx_ids"]]
        tokens = [len(bundle.text.passage(item["title"], item["text"])[0]) for item in passages]
        question = len(bundle.text.passage("", row["question"])[0])
        found.append((min(question, shape.question_length), max(tokens), max(tokens[:5])))
    return found


def lengths(options):
    """Microseconds a token of stage B at mixed lengths and at one."""
    bundle = Bundle.open(options.bundle)
    io, shape = bundle.manifest.io(), bundle.manifest.model
    backend = OpenVinoBackend(options.threads, compute_precision=options.precision)
    names = bundle.manifest.stages("fp16")
    graphs = {
        stage: backend.load(bundle.graph_path(name), io[name]) for stage, name in names.items() if stage in (
            "memory_encoder", "live_stage_a", "live_stage_b"
        )
    }
    rng = np.random.default_rng(0)
    memory = rng.standard_normal((1, 20, shape.passage_length, shape.d_model)).astype(np.float16)

    def run(question, of_20, of_5):
        mask = np.ones((1, question), np.int32)
        ids = rng.integers(3, shape.vocab_size, (1, question)).astype(np.int32)
        states = graphs["memory_encoder"].run({"input_ids": ids, "attention_mask": mask})["hidden_states"]
        for stage, passages, tokens in (("live_stage_a", 20, of_20), ("live_stage_b", 5, of_5)):
            graphs[stage].run({
                "question_states": states, "question_mask": mask, "memory": memory[:, :passages, :tokens],
                "memory_scale": np.ones((1, passages), np.float32),
                "memory_mask": np.ones((1, passages, tokens), np.int32),
                "selected": np.arange(5, dtype=np.int32)[None],
            })

    mixed = real_lengths(bundle, options.count)
    mean = tuple(int(np.ceil(np.mean(column))) for column in zip(*mixed, strict=True))
    runs = {"one length": [mean] * len(mixed), "mixed": mixed}
    seconds = dict.fromkeys(runs, 0.0)
    for _ in range(5):
        run(*mean)
    for half in (slice(0, len(mixed) // 2), slice(len(mixed) // 2, None)):
        for name, shapes in runs.items():
            began = time.perf_counter()
            for sizes in shapes[half]:
                run(*sizes)
            seconds[name] += time.perf_counter() - began
    a_token = {
        name: 1e6 * seconds[name] / sum(5 * (question + passage) for question, _, passage in shapes)
        for name, shapes in runs.items()
    }
    said = ", ".join(f"{name} {value:.1f}" for name, value in a_token.items())
    sys.stdout.write(
        f"{options.precision}, {len(mixed)} questions of {len(set(mixed))} shapes, microseconds a token: {said}, "
        f"ratio {a_token['mixed'] / a_token['one length']:.3f}\n"
    )


def memory(options):
    """Resident memory after each tenth of the questions."""
    asked = [row["question"] for row in rows_of(options.questions)]
    words = sorted({word for question in asked for word in question.split()})

    def question(number):
        chosen = random.Random(number)
        if chosen.random() < 0.5:
            return chosen.choice(asked)
        return " ".join(chosen.choice(words) for _ in range(chosen.randint(1, 5)))

    with (
        Session.open(
            options.bundle, options.store, backend="openvino", threads=1, compute_precision=options.precision
        ) as session,
        ThreadPoolExecutor(CALLERS) as pool,
    ):
        def ask(number):
            session.answer_many([question(number)], random.Random(number).randint(2, 10))

        part = options.count // PARTS
        for start in range(0, options.count, part):
            list(pool.map(ask, range(start, start + part)))
            sys.stdout.write(f"{start + part} questions: {resident_mb():.0f} MB\n")
            sys.stdout.flush()


def main():
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("lengths", "memory"))
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--questions", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    (lengths if options.what == "lengths" else memory)(options)


if __name__ == "__main__":
    main()
