"""The runs of docs/measurements/ablations-demo.md, one after another; what is there already is not run again.

    OMP_NUM_THREADS=1 python -m tests.demo.orders runs

An arm is a form of model made of the demo's T5 and trained by the recipe `demo-orders`. All of them see the same
questions of the demo's world, of one fact a passage, in the same order, and are asked the same 3,000 of its test split.
`orders.json` has the commands, the scores, and each order with its difference.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glimmer_export.exporter.demo.world import generate_split, write_world

T5 = Path("tests/demo/t5")
RECIPE = "demo-orders"
LENGTHS = "--question-length 16 --passage-length 40 --max-new-tokens 8 --top-k 10"
NUM_QUESTIONS, WORLD_SEED, FACTS_PER_PASSAGE = 3000, 0, 1
FIGURES = ("em", "gold_in_m", "gold_in_k")

GLIMMER = "--architecture glimmer --live-proportion 1/2 --rerank-proportion 1/3 --top-m 3"
LUMEN = "--architecture lumen --live-proportion 1/3"
RANKED = "--set score_head=1 --set phases.2.num_selected=4 --set phases.3.num_selected=4"
FROZEN = "--set memory=frozen"
ARMS = {
    "glimmer": (GLIMMER, ""),
    "glimmer-two": (GLIMMER.replace("--rerank-proportion 1/3", "--rerank-proportion 2/3"), ""),
    "frozen": (GLIMMER, FROZEN),
    "frozen-tuned": (f"{GLIMMER} --separate-question-encoder", FROZEN),
    "reranker-t5": (f"{GLIMMER} --separate-reranker t5", ""),
    "reranker-random": (f"{GLIMMER} --separate-reranker random", ""),
    "lumen": (LUMEN, RANKED),
    "lumen-plain": (LUMEN, ""),
    "memory_fid": ("--architecture memory_fid", ""),
    "fid": ("--architecture fid", "--set steps=250"),
}
"""Options of `init` and of `train` by an arm's name. A LUMEN that ranks while it is trained reads all k there too.
The FiD, whose T5 reads question and passage together already, has a quarter of the others' steps."""

EVALUATIONS = {
    "reranking": ("glimmer glimmer-two", 10, "--grid k=3,10 --grid m=3"),
    "memory": ("frozen glimmer frozen-tuned", 10, ""),
    "alpha": ("lumen lumen-plain memory_fid fid", 10, "--grid k=3,10"),
    "grid": ("glimmer-two", 25, "--grid k=5,10,25 --grid m=1,3,10"),
    "reranker": ("glimmer reranker-t5 reranker-random", 10, ""),
}
"""Arms, the first of which the others are compared with; passages a question has, in random order; options."""


Asked = tuple[str, int, int | None]
"""An arm's name, k, and m if it ranks."""


@dataclass(frozen=True)
class Order:
    """That `more` answers more questions right than `less`; or, `or_equal`, that it does not answer fewer."""

    claim: str
    evaluation: str
    less: Asked
    more: Asked
    or_equal: bool = False


ORDERS = (
    Order(
        "alpha 0 < 1/3, the latter with a score head in training", "alpha", ("memory_fid", 10, None),
        ("lumen", 10, None),
    ),
    Order("alpha 1/3 <= 1", "alpha", ("lumen", 10, None), ("fid", 10, None), or_equal=True),
    Order("the first 3 < the best 3 of 10, by one layer", "reranking", ("glimmer", 3, 3), ("glimmer", 10, 3)),
    Order("LUMEN on the first 3 < LUMEN on all 10", "alpha", ("lumen", 3, None), ("lumen", 10, None)),
    Order("one layer that ranks < two", "reranking", ("glimmer", 10, 3), ("glimmer-two", 10, 3)),
    Order("k 5 < 10, m 3", "grid", ("glimmer-two", 5, 3), ("glimmer-two", 10, 3)),
    Order("k 10 < 25, m 3", "grid", ("glimmer-two", 10, 3), ("glimmer-two", 25, 3)),
    Order("m 1 <= 3, k 10", "grid", ("glimmer-two", 10, 1), ("glimmer-two", 10, 3), or_equal=True),
    Order("m 3 <= 10, k 10", "grid", ("glimmer-two", 10, 3), ("glimmer-two", 10, 10), or_equal=True),
    Order("shared <= separate reranker from T5", "reranker", ("glimmer", 10, 3), ("reranker-t5", 10, 3), or_equal=True),
    Order("separate reranker from scratch < shared", "reranker", ("reranker-random", 10, 3), ("glimmer", 10, 3)),
    Order("memory frozen < trained", "memory", ("frozen", 10, 3), ("glimmer", 10, 3)),
    Order("frozen memory: question encoder frozen < tuned", "memory", ("frozen", 10, 3), ("frozen-tuned", 10, 3)),
)


def write_questions(folder: Path, num_contexts: int) -> None:
    """Write the world of the test questions, with so many passages each."""
    directory = folder / f"world-{num_contexts}"
    if not directory.exists():
        write_world(
            directory, generate_split("test", NUM_QUESTIONS, WORLD_SEED, FACTS_PER_PASSAGE, num_contexts=num_contexts)
        )


def command(text: str, output: Path | None = None) -> None:
    """Run `glimmer-export` with these arguments; standard output goes to `output`, which is written when it ends."""
    sys.stderr.write(f"$ glimmer-export {text}\n")
    program = Path(sys.executable).with_name("glimmer-export")
    done = subprocess.run([program, *shlex.split(text)], check=True, stdout=subprocess.PIPE)
    if output is not None:
        output.write_bytes(done.stdout)


def commands(folder: Path, arm: str) -> tuple[str, str]:
    """What makes the arm of the T5, and what trains it."""
    made, trained = ARMS[arm]
    start = folder / f"{arm}-start"
    return (
        f"init --from-t5 {T5} {made} {LENGTHS} -o {start}",
        " ".join(f"train {start} --recipe {RECIPE} {trained} -o {folder / arm}".split()),
    )


def train(folder: Path, arm: str) -> None:
    """Make the arm and train it."""
    made, trained = commands(folder, arm)
    if not (folder / f"{arm}-start").exists():
        command(made)
    if not (folder / arm).exists():
        command(trained)


def asking(folder: Path, name: str) -> str:
    """What asks the arms of an evaluation."""
    arms, num_contexts, options = EVALUATIONS[name]
    models = " ".join(str(folder / arm) for arm in arms.split())
    asked = folder / f"world-{num_contexts}"
    return " ".join(
        f"evaluate {models} --corpus {asked / 'corpus.jsonl'} --questions {asked / 'questions.jsonl'} "
        f"--passages given --batch-size 64 {options} --json".split()
    )


def evaluate(folder: Path, name: str) -> None:
    """Ask the arms of an evaluation."""
    output = folder / f"{name}.json"
    if not output.exists():
        write_questions(folder, EVALUATIONS[name][1])
        command(asking(folder, name), output)


def result(folder: Path) -> dict[str, Any]:
    """All that was trained and asked so far, as plain data; commands as from the repository's root."""
    named = Path("runs")
    arms = {}
    for arm in ARMS:
        if (record := folder / arm / "training" / "record.json").exists():
            trained = json.loads(record.read_text(encoding="utf-8"))
            same = {name: trained[name] for name in ("date", "versions", "seed", "steps", "seconds", "dev")}
            arms[arm] = {"commands": list(commands(named, arm)), **same}
    reports = {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name in EVALUATIONS if (path := folder / f"{name}.json").exists()
    }
    evaluations = {
        name: {
            "command": asking(named, name), "questions": report["questions"], "tasks": report["tasks"],
            "bootstrap": report["bootstrap"], "runs": [_short(run) for run in report["runs"]],
            "differences": [_short(each) for each in report["differences"]],
        }
        for name, report in reports.items()
    }  # fmt: skip
    orders = [held(order, reports[order.evaluation]) for order in ORDERS if order.evaluation in reports]
    return {"arms": arms, "orders": [order for order in orders if order is not None], "evaluations": evaluations}


def table(found: dict[str, Any]) -> str:
    """The orders of a result as the page's table."""
    lines = ["| order | exact match | difference | 95% | holds |", "| --- | ---: | ---: | ---: | --- |"]
    for order in found["orders"]:
        less, more = (f"{100 * order[name]:.1f}" for name in ("less", "more"))
        value, low, high = (f"{100 * order['difference'][end]:+.1f}" for end in ("value", "low", "high"))
        holds = "yes" if order["holds"] else "**no**"
        lines.append(f"| {order['claim']} | {less}, {more} | {value} | {low} to {high} | {holds} |")
    return "\n".join(lines) + "\n"


def _short(scores: dict[str, Any]) -> dict[str, Any]:
    """A run or a difference with the figures that the page has."""
    kept = {name: scores[name] for name in ("model", "k", "m", "to", "samples_per_tflop") if name in scores}

    def rounded(found: dict[str, Any]) -> dict[str, Any]:
        return {
            name: {end: round(found[name][end], 4) for end in ("value", "low", "high")} for name in FIGURES
            if name in found
        }  # fmt: skip

    tasks = {task: rounded(found) for task, found in scores["tasks"].items()}
    return {**kept, "average": rounded(scores["average"]), "tasks": tasks}


def held(order: Order, report: dict[str, Any]) -> dict[str, Any] | None:
    """An order with its difference in exact match, `more` less `less`; None if an arm was not asked."""
    ends = {_asked(run): run["average"]["em"]["value"] for run in report["runs"]}
    if order.less not in ends or order.more not in ends:
        return None
    for each in report["differences"]:
        pair, em = (_asked(each), _asked(each["to"])), each["average"]["em"]
        if pair == (order.more, order.less):
            value, low, high = em["value"], em["low"], em["high"]
        elif pair == (order.less, order.more):
            value, low, high = -em["value"], -em["high"], -em["low"]
        else:
            continue
        return {
            "claim": order.claim, "less": round(ends[order.less], 4), "more": round(ends[order.more], 4),
            "difference": {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4)},
            "holds": high >= 0 if order.or_equal else low > 0,
        }
    raise ValueError(f"{order.claim}: its two runs are not compared in the evaluation {order.evaluation}")


def _asked(run: dict[str, Any]) -> Asked:
    return run["model"], run["k"], run["m"]


def run(folder: Path) -> None:
    """Every evaluation, its arms before it; the result is written after each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (arms, _, _) in EVALUATIONS.items():
        for arm in arms.split():
            train(folder, arm)
        evaluate(folder, name)
        (folder / "orders.json").write_text(json.dumps(result(folder), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(Path(sys.argv[1]))
