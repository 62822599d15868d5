"""Commands that make checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from glimmer_export.exporter.cli.choices import one_of
from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import Json, Output, Overwrite
from glimmer_export.exporter.cli.output import bold, console, print_json, tensor_progress
from glimmer_export.exporter.cli.ranges import MAX_PASSAGES, MAX_QUESTIONS, MAX_SEED
from glimmer_export.exporter.cli.run import may_download
from glimmer_export.exporter.config.read import NAME_OR_FILE, known
from glimmer_export.exporter.report.visible import visible
from glimmer_export.runtime.contract import ARCHITECTURES, OptionError
from glimmer_export.runtime.contract.architecture import ScorePooling

__all__ = ["demo_data", "init", "print_checkpoint"]

POOLINGS: tuple[ScorePooling, ...] = get_args(ScorePooling)
RERANKERS = ("t5", "random")
DIR_OR_ID = "DIR|OWNER/NAME"
WORLD_NAMES = ("demo", "hard")
MIN_CONTEXTS, MAX_CONTEXTS = 10, 50


def init(
    output: Output,
    from_t5: Annotated[
        Path | None,
        typer.Option(
            "--from-t5", metavar=DIR_OR_ID,
            help="T5 to partition (v1.0, v1.1 or flan), in Hugging Face's layout; or its id on the hub.",
        ),
    ] = None,
    from_fid: Annotated[
        Path | None,
        typer.Option(
            "--from-fid", metavar=DIR_OR_ID,
            help="Trained FiD to partition: as `convert --from fid` reads it, or a fid checkpoint.",
        ),
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
    separate_reranker: Annotated[
        str | None,
        one_of("--separate-reranker", RERANKERS, "Own layers for stage A: copies of the first live ones, or new."),
    ] = None,
    score_pooling: Annotated[
        str, one_of("--score-pooling", POOLINGS, "What the score reads: the first token, or the mean of all.")
    ] = POOLINGS[0],
    memory_final_norm: Annotated[
        bool, typer.Option("--memory-final-norm", help="Put T5's final layer norm behind the memory encoder.")
    ] = False,
    question_length: Annotated[
        int | None, typer.Option("--question-length", help="Tokens, EOS included. Default: 48.")
    ] = None,
    passage_length: Annotated[
        int | None,
        typer.Option("--passage-length", help="Tokens, EOS included. Default: the FiD's; 304, or 208 as in LUMEN."),
    ] = None,
    num_retrieved: Annotated[int, typer.Option("--top-k", "-k", help="Passages retrieved.")] = 25,
    num_shortlisted: Annotated[
        int | None,
        typer.Option("--shortlist", min=1, max=MAX_PASSAGES, help="Passages that stage A ranks. Default: all."),
    ] = None,
    num_selected: Annotated[
        int | None, typer.Option("--top-m", "-m", help="Passages read, in glimmer. Default: 5.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option("--max-new-tokens", help="Longest answer. Default: the FiD's, or 32.")
    ] = None,
    question_template: Annotated[
        str | None, typer.Option("--question-template", help="Default: the FiD's part, or {question}.")
    ] = None,
    passage_template: Annotated[
        str | None, typer.Option("--passage-template", help="Default: the FiD's part, or {title} {text}.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option("--tokenizer", help="tokenizer.json or spiece.model. Default: that of the T5 or FiD."),
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=MAX_SEED, help="Of random weights and of the new score head.")
    ] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a checkpoint: partition a T5 or a trained FiD as the papers do, or draw random weights at a known size."""
    require("torch")
    from glimmer_export.exporter.checkpoint.hub import download_model, is_hub_id
    from glimmer_export.exporter.checkpoint.init import init_from_fid, init_from_t5, init_random
    from glimmer_export.exporter.checkpoint.options import ModelOptions, parse_proportion

    sources = {"--from-t5": from_t5, "--from-fid": from_fid, "--random": random}
    given = [option for option, value in sources.items() if value is not None]
    if len(given) != 1:
        raise OptionError(
            "init", expected="one of --from-t5 DIR, --from-fid DIR and --random SIZE",
            found=" and ".join(given) or "none of them", fix="say what to make the checkpoint from",
        )
    options = ModelOptions(
        architecture=architecture,
        live_proportion=parse_proportion(live_proportion, option="--live-proportion"),
        rerank_proportion=parse_proportion(rerank_proportion, option="--rerank-proportion"),
        memory_layers=memory_layers,
        separate_question_encoder=separate_question_encoder,
        separate_reranker=separate_reranker,
        score_pooling=score_pooling,
        memory_final_norm=memory_final_norm,
        question_length=question_length,
        passage_length=passage_length,
        question_template=question_template,
        passage_template=passage_template,
        num_retrieved=num_retrieved,
        num_shortlisted=num_shortlisted,
        num_selected=num_selected,
        max_new_tokens=max_new_tokens,
    )
    make: Callable[..., dict[str, Any]] = partial(init_random, str(random))
    if (source := from_t5 or from_fid) is not None:
        directory = source
        if is_hub_id(source):
            may_download()
            shown = console(stderr=True).is_terminal
            directory = download_model(str(source), output=output, overwrite=overwrite, progress=shown)
        make = partial(init_from_t5 if from_t5 else init_from_fid, directory, name=str(source))
    with tensor_progress() as on_tensor:
        summary = make(output, options, tokenizer=tokenizer, seed=seed, overwrite=overwrite, on_tensor=on_tensor)
    if as_json:
        print_json(summary)
        return
    print_checkpoint(output, summary)


def print_checkpoint(output: Path, summary: dict[str, Any]) -> None:
    """What was made, in a line, and what is to be known of it, each in another."""
    layers = ", ".join(f"{part} {count}" for part, count in summary["layers"].items())
    reranker = ", stage_a beside the live encoder" if summary["separate_reranker"] else ""
    console().print(
        bold(f"{output}:"),
        f"{summary['architecture']} from {visible(summary['source'])}, "
        f"{summary['parameters']:,} parameters; layers: {layers}{reranker}; "
        f"tokenizer: {'yes' if summary['has_tokenizer'] else 'none, so it can be exported but not asked'}",
        soft_wrap=True,
    )
    for note in summary.get("notes", ()):
        console().print(f"note: {visible(note)}", soft_wrap=True)


def demo_data(
    output: Output,
    world: Annotated[
        str, one_of("--world", WORLD_NAMES, "hard: near misses, paraphrases, longer answers, many of them wrong.")
    ] = WORLD_NAMES[0],
    questions: Annotated[
        int, typer.Option("--questions", min=1, max=MAX_QUESTIONS, help="How many test questions.")
    ] = 200,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Of the generated world.")] = 0,
    contexts: Annotated[
        int | None,
        typer.Option(
            "--contexts", min=MIN_CONTEXTS, max=MAX_CONTEXTS,
            help="Passages of a question, near misses but for one. Default: as the checkpoint was trained with.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write the demo, or the hard world: a trained checkpoint, and a generated corpus with questions new to it."""
    from glimmer_export.exporter.demo.data import write_demo

    summary = write_demo(
        output, world=world, num_questions=questions, seed=seed, num_contexts=contexts, overwrite=overwrite
    )
    if as_json:
        print_json(summary)
    else:
        console().print(
            bold(f"{output}:"),
            f"checkpoint/, corpus.jsonl ({summary['passages']} passages), "
            f"questions.jsonl ({summary['questions']} questions)"
        )
