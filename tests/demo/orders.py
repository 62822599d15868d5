"""The runs of docs/measurements/ablations-demo.md, one after another; what is there already is not run again.

    OMP_NUM_THREADS=1 python -m tests.demo.orders runs

An arm is a form of model made of the demo's T5 and trained by the recipe `demo-orders`. All of them see the same
questions of the demo's world, of one fact a passage, in the same order, and are asked the same 3,000 of its test split.
`orders.json` has what the commands printed, and each order with its difference.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from glimmer_export.exporter.demo.world import generate_split, write_world

T5 = Path(__file__).parent / "t5"
RECIPE = "demo-orders"
LENGTHS = "--question-length 16 --passage-length 40 --max-new-tokens 8 --top-k 10"
NUM_QUESTIONS, WORLD_SEED, FACTS_PER_PASSAGE = 3000, 0, 1
CONTEXTS = (10, 25)

GLIMMER = "--architecture glimmer --live-proportion 1/2 --rerank-proportion 1/3 --top-m 3"
FROZEN = "--set memory=frozen"
ARMS = {
    "memory_fid": ("--architecture memory_fid", ""),
    "lumen-third": ("--architecture lumen --live-proportion 1/3", ""),
    "lumen-half": ("--architecture lumen --live-proportion 1/2", ""),
    "fid": ("--architecture fid", ""),
    "glimmer": (GLIMMER, ""),
    "glimmer-two": (GLIMMER.replace("--rerank-proportion 1/3", "--rerank-proportion 2/3"), ""),
    "reranker-t5": (f"{GLIMMER} --separate-reranker t5", ""),
    "reranker-random": (f"{GLIMMER} --separate-reranker random", ""),
    "frozen": (GLIMMER, FROZEN),
    "frozen-tuned": (f"{GLIMMER} --separate-question-encoder", FROZEN),
}
"""Options of `init` and of `train` by an arm's name, the most telling first."""

EVALUATIONS = {
    "reranking": ("glimmer glimmer-two", 10, "--grid k=3,10 --grid m=3"),
    "memory": ("frozen glimmer frozen-tuned", 10, ""),
    "reranker": ("glimmer reranker-t5 reranker-random", 10, ""),
    "grid": ("glimmer", 25, "--grid k=5,10,25 --grid m=1,3,5,10"),
    "alpha": ("lumen-third memory_fid lumen-half fid", 10, ""),
}
"""Arms, the first of which the others are compared with; passages a question has, in random order; options."""


def world(folder: Path, num_contexts: int) -> Path:
    """The folder of the test questions with so many passages each."""
    directory = folder / f"world-{num_contexts}"
    if not directory.exists():
        write_world(
            directory, generate_split("test", NUM_QUESTIONS, WORLD_SEED, FACTS_PER_PASSAGE, num_contexts=num_contexts)
        )
    return directory


def command(text: str, output: Path | None = None) -> None:
    """Run `glimmer-export` with these arguments; standard output goes to `output`, which is written when it ends."""
    sys.stderr.write(f"$ glimmer-export {text}\n")
    program = Path(sys.executable).with_name("glimmer-export")
    done = subprocess.run([program, *shlex.split(text)], check=True, stdout=subprocess.PIPE)
    if output is not None:
        output.write_bytes(done.stdout)


def train(folder: Path, arm: str) -> None:
    """Make the arm of the T5, and train it."""
    made, trained = ARMS[arm]
    start, output = folder / f"{arm}-start", folder / arm
    if not start.exists():
        command(f"init --from-t5 {T5} {made} {LENGTHS} -o {start}")
    if not output.exists():
        command(f"train {start} --recipe {RECIPE} {trained} -o {output}")


def evaluate(folder: Path, name: str) -> None:
    """Ask the arms of an evaluation."""
    arms, num_contexts, options = EVALUATIONS[name]
    output = folder / f"{name}.json"
    if not output.exists():
        asked = world(folder, num_contexts)
        models = " ".join(str(folder / arm) for arm in arms.split())
        command(
            f"evaluate {models} --corpus {asked / 'corpus.jsonl'} --questions {asked / 'questions.jsonl'} "
            f"--passages given --batch-size 64 {options} --json", output
        )


def run(folder: Path) -> None:
    """Every evaluation, its arms before it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (arms, _, _) in EVALUATIONS.items():
        for arm in arms.split():
            train(folder, arm)
        evaluate(folder, name)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
