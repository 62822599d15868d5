"""`optimum-cli export glimmer`: the command `glimmer-export export` under optimum's, with the same options.

optimum imports this whenever any of its commands starts, so nothing heavy is imported before the command runs.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction
from pathlib import Path
from typing import Any

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo

from glimmer_export.exporter.cli.boundary import input_errors_reported
from glimmer_export.exporter.cli.stopping import Stopping
from glimmer_export.exporter.config.read import NAME_OR_FILE, known
from glimmer_export.runtime.contract import CROSS_ATTENTION_FORMS, STAGE_A_FORMS
from glimmer_export.runtime.contract.manifest import EXPORT_PRECISIONS

__all__ = ["GlimmerExportCommand"]


class GlimmerExportCommand(BaseOptimumCLICommand):  # type: ignore[misc]  # optimum has no types
    """A checkpoint's graphs in one bundle; errors of input are a line on stderr and exit code 2."""

    COMMAND = CommandInfo(name="glimmer", help="Export a GLIMMER, LUMEN or FiD checkpoint to a bundle of ONNX graphs.")

    def __init__(self, subparsers: Any, *arguments: Any, **options: Any) -> None:
        """Add the command, once: optimum finds it again in every further source tree and install on the path."""
        known = {} if subparsers is None else subparsers.choices
        if self.COMMAND.name in known:
            self.parser = known[self.COMMAND.name]
        else:
            super().__init__(subparsers, *arguments, **options)

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the options of `glimmer-export export`."""
        parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="Checkpoint directory.")
        parser.add_argument("-o", "--output", type=Path, required=True, help="Directory to write.")
        parser.add_argument(
            "--stage-a", choices=STAGE_A_FORMS,
            help="lazy computes one token of stage A's last layer; default unless mean-pooled.",
        )
        parser.add_argument(
            "--cross-attention", choices=(*CROSS_ATTENTION_FORMS, "auto", "both"), default="auto",
            help="Attend to the encoder's states themselves, or to keys projected once.",
        )
        parser.add_argument(
            "--codecs", help="Store codecs that the graphs are to decode, by commas. Default: fp16,int8."
        )
        parser.add_argument(
            "--answer-tokens", type=_positive, default=16,
            help="Expected length of an answer, for --cross-attention auto. Default: 16.",
        )
        parser.add_argument(
            "--target", default="cpu",
            metavar=NAME_OR_FILE,
            help=f"Machine that will answer, for --cross-attention auto: {known('target')}. Default: cpu.",
        )
        parser.add_argument(
            "--precision", choices=EXPORT_PRECISIONS, default="fp32",
            help="fp16: for TensorRT, not calibrated, so that overflow is not ruled out. Default: fp32.",
        )
        parser.add_argument(
            "--check", action=BooleanOptionalAction, default=True,
            help="Compare each graph with torch; that takes the most memory.",
        )
        parser.add_argument("--overwrite", action="store_true", help="Replace the output if it exists.")
        parser.add_argument("--json", action="store_true", help="Print JSON on stdout instead of tables.")

    def run(self) -> None:
        """Export, and print what was written."""
        with Stopping(), input_errors_reported():
            from glimmer_export.exporter.cli.bundles import export

            options = self.args
            export(
                options.checkpoint, options.output, options.stage_a,
                options.cross_attention, options.codecs, options.answer_tokens, options.target,
                options.precision, options.check, options.overwrite, options.json,
            )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{text} is less than 1")
    return number
