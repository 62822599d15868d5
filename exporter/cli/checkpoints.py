"""Commands that make checkpoints."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from glimmer_export.exporter.cli.choices import one_of
from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import Json, Output, Overwrite
from glimmer_export.exporter.cli.output import bold, console, print_json, tensor_progress
from glimmer_export.exporter.cli.ranges import MAX_QUESTIONS, MAX_SEED
from glimmer_export.exporter.config.read import NAME_OR_FILE, known
from glimmer_export.exporter.report.visible import visible
from glimmer_export.runtime.contract import ARCHITECTURES, OptionError
from glimmer_export.runtime.contract.architecture import ScorePooling

__all__ = ["demo_data", "init", "print_checkpoint"]

POOLINGS: tuple[ScorePooling, ...] = get_args(ScorePooling)
MIN_CONTEXTS, MAX_CONTEXTS = 10, 50


def init(
    output: Output,
    from_t5: Annotated[
        Path | None, typer.Option("--from-t5", help="Hugging Face T5 checkpoint to partition: v1.0, v1.1 or flan.")
    ] = None,
    random: Annotated[
        str | None, typer.Option("--random", metavar=NAME_OR_FILE, help=f"Random weights of a size: {known('size')}.")
    ] = None,
    architecture: Annotated[str, one_of("--architecture", ARCHITECTURES)] = "glimmer",
    live_proportion: Annotated[
        str, typer.Option("--live-proportion", help="Share of the encoder that runs live (alpha).")
    ] = "1/3",
    rerank_proportion: Annotated[
        str, typer.Option("--rerank-proportion", help="Share of the live encoder that ranks (beta).")
    ] = "1/4",
    memory_layers: Annotated[
        int | None, typer.Option("--memory-layers", min=1, help="A memory encoder of this depth, with --random.")
    ] = None,
    separate_question_encoder: Annotated[
        bool, typer.Option("--separate-question-encoder", help="Weights of its own for the question encoder.")
    ] = False,
    score_pooling: Annotated[
        str, one_of("--score-pooling", POOLINGS, "What the score reads: the first token, or the mean of all.")
    ] = POOLINGS[0],
    memory_final_norm: Annotated[
        bool, typer.Option("--memory-final-norm", help="Put T5's final layer norm behind the memory encoder.")
    ] = False,
    question_length: Annotated[int, typer.Option("--question-length", help="Tokens, EOS included.")] = 48,
    passage_length: Annotated[
        int | None, typer.Option("--passage-length", help="Tokens, EOS included. Default: 304, or 208 as in LUMEN.")
    ] = None,
    num_retrieved: Annotated[int, typer.Option("--top-k", "-k", help="Passages retrieved.")] = 25,
    num_selected: Annotated[
        int | None, typer.Option("--top-m", "-m", help="Passages read, in glimmer. Default: 5.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", help="Longest answer.")] = 32,
    question_template: Annotated[str, typer.Option("--question-template")] = "{question}",
    passage_template: Annotated[str, typer.Option("--passage-template")] = "{title} {text}",
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="tokenizer.json or spiece.model. Default: the T5's own.")
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=MAX_SEED, help="Of random weights and of the new score head.")
    ] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a checkpoint: partition a Hugging Face T5 as the papers do, or draw random weights at a known size."""
    require("torch")
    from glimmer_export.exporter.checkpoint.init import init_from_t5, init_random
    from glimmer_export.exporter.checkpoint.options import ModelOptions, parse_proportion

    if (from_t5 is None) == (random is None):
        raise OptionError(
            "init", expected="one of --from-t5 DIR and --random SIZE", found="both" if from_t5 else "neither",
            fix="say what to make the checkpoint from",
        )
    options = ModelOptions(
        architecture=architecture,
        live_proportion=parse_proportion(live_proportion, option="--live-proportion"),
        rerank_proportion=parse_proportion(rerank_proportion, option="--rerank-proportion"),
        memory_layers=memory_layers,
        separate_question_encoder=separate_question_encoder,
        score_pooling=score_pooling,
        memory_final_norm=memory_final_norm,
        question_length=question_length,
        passage_length=passage_length,
        question_template=question_template,
        passage_template=passage_template,
        num_retrieved=num_retrieved,
        num_selected=num_selected,
        max_new_tokens=max_new_tokens,
    )
    with tensor_progress() as on_tensor:
        init = partial(init_random, str(random)) if from_t5 is None else partial(init_from_t5, from_t5)
        summary = init(output, options, tokenizer=tokenizer, seed=seed, overwrite=overwrite, on_tensor=on_tensor)
    if as_json:
        print_json(summary)
        return
    print_checkpoint(output, summary)


def print_checkpoint(output: Path, summary: dict[str, Any]) -> None:
    """What was made, in a line, and what is to be known of it, each in another."""
    layers = ", ".join(f"{part} {count}" for part, count in summary["layers"].items())
    console().print(
        bold(f"{output}:"),
        f"{summary['architecture']} from {visible(summary['source'])}, "
        f"{summary['parameters']:,} parameters; layers: {layers}; "
        f"tokenizer: {'yes' if summary['has_tokenizer'] else 'none, so it can be exported but not asked'}",
        soft_wrap=True,
    )
    for note in summary.get("notes", ()):
        console().print(f"note: {visible(note)}", soft_wrap=True)


def demo_data(
    output: Output,
    questions: Annotated[
        int, typer.Option("--questions", min=1, max=MAX_QUESTIONS, help="How many test questions.")
    ] = 200,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Of the generated world.")] = 0,
    contexts: Annotated[
        int | None,
        typer.Option(
            "--contexts", min=MIN_CONTEXTS, max=MAX_CONTEXTS,
            help="Passages of a question, near misses but for one; the checkpoint was trained with 10.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the demo: its trained checkpoint, and a generated corpus with test questions it has never seen."""
    from glimmer_export.exporter.demo.data import write_demo

    summary = write_demo(output, num_questions=questions, seed=seed, num_contexts=contexts, overwrite=overwrite)
    if as_json:
        print_json(summary)
    else:
        console().print(
            bold(f"{output}:"),
            f"checkpoint/, corpus.jsonl ({summary['passages']} passages), "
            f"questions.jsonl ({summary['questions']} questions)"
        )
