"""The command that answers over HTTP."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import (
    CompileCache,
    DraftTokens,
    Mass,
    RecordedPrecision,
    RequireParity,
    Retrieval,
    Store,
    Threads,
    check_cache,
)
from glimmer_export.exporter.cli.output import console, print_json
from glimmer_export.exporter.cli.ranges import MAX_COUNT, number
from glimmer_export.exporter.cli.stopping import handled_by
from glimmer_export.exporter.report.visible import visible

if TYPE_CHECKING:
    from glimmer_export.runtime.writes import Writer

__all__ = ["serve"]


def serve(
    ctx: typer.Context,
    bundle: Annotated[
        Path | None,
        typer.Argument(metavar="[BUNDLE]", help="Directory written by `glimmer-export export`, if --config has none."),
    ] = None,
    store: Store = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file with these options, such as `max_queue: 64`.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; others than this machine's need a token.")]
    = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8080,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", help="File with the token that clients must send.")
    ] = None,
    write_token_file: Annotated[
        Path | None,
        typer.Option(
            "--write-token-file", help="File with another token, of clients that may add, replace and delete passages."
        ),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen on any address without a token.")
    ] = False,
    backend: Annotated[str, typer.Option("--backend", help="What runs the graphs, as for `answer`.")] = "auto",
    compute_precision: RecordedPrecision = "auto",
    compile_cache: CompileCache = None,
    threads: Threads = None,
    retrieval: Retrieval = "bm25",
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Check the store's files against their digests first.")
    ] = True,
    passage_cache_bytes: Annotated[
        int,
        typer.Option("--passage-cache-bytes", min=0, max=1 << 50, help="Of the GPU's memory, for passages read last."),
    ] = 0,
    draft_tokens: DraftTokens = None,
    mass: Mass = None,
    require_parity: RequireParity = None,
    max_batch_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-batch-tokens", min=1, max=MAX_COUNT,
            help="Padded tokens of questions and passages of one batch. Default: of eight questions.",
        ),
    ] = None,
    window_ms: Annotated[
        float,
        typer.Option(
            "--window-ms", min=0, max=500, callback=number, help="To gather a batch for while the worker is busy."
        ),
    ] = 5.0,
    max_queue: Annotated[
        int, typer.Option("--max-queue", min=1, max=1_000_000, help="Questions that may wait; others get 429.")
    ] = 256,
    timeout_s: Annotated[
        float,
        typer.Option("--timeout-s", min=0.001, max=900, callback=number, help="For an answer; later is 504."),
    ] = 30.0,
    receive_timeout_s: Annotated[
        float,
        typer.Option(
            "--receive-timeout-s", min=0.001, max=900, callback=number, help="For a request to arrive whole."
        ),
    ] = 10.0,
    max_body_bytes: Annotated[
        int, typer.Option("--max-body-bytes", min=1024, max=1 << 30, help="Of a request.")
    ] = 1 << 20,
    cors_origins: Annotated[
        list[str] | None,
        typer.Option("--cors-origins", help="Site whose pages may ask, such as https://example.org. Repeatable."),
    ] = None,
    log_questions: Annotated[
        bool, typer.Option("--log-questions", help="Write questions to the log, which has none otherwise.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as JSON.")] = False,
) -> None:
    """Answer over HTTP: /v1/answer and others, with batches, limits and metrics; SIGTERM finishes what is in flight.

    Every option may stand in --config's file, or in the environment as GLIMMER_SERVE_ and its name: --max-queue is
    max_queue there, and GLIMMER_SERVE_MAX_QUEUE. What is on the command line goes first, then the environment.
    """
    require("pydantic", "starlette", "uvicorn", "prometheus_client")
    from glimmer_export.exporter.config.serving import environment_settings, file_settings
    from glimmer_export.runtime.serving import Settings, log_to, settings_from
    from glimmer_export.runtime.serving import serve as run

    given = {
        name: value for name, value in ctx.params.items()
        if name in Settings.model_fields and getattr(ctx.get_parameter_source(name), "name", None) == "COMMANDLINE"
    }
    from_file = {} if config is None else file_settings(config)
    settings = settings_from(given, environment_settings(os.environ), from_file)
    tokens = [settings.token_file, settings.write_token_file]
    check_cache(settings.compile_cache, settings.bundle, settings.store, config, *tokens)

    def began(url: str) -> None:
        if as_json:
            print_json({"bundle": str(settings.bundle), "url": url})
        else:
            console().print(f"Serving {visible(str(settings.bundle))} at {url}", soft_wrap=True)
        sys.stdout.flush()

    def open_writer() -> Writer:
        from glimmer_export.exporter.memory import StoreWriter

        assert settings.store is not None  # settings without one have no writes
        return StoreWriter.open(settings.store, settings.bundle, inputs=[config, *tokens], threads=settings.threads)

    log_to(sys.stderr)
    run(settings, began=began, stopping=handled_by, open_writer=open_writer)
