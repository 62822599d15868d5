"""The command line. `main` turns errors of input into exit code 2; a bug keeps its traceback."""

from __future__ import annotations

import sys

from runtime.contract import GlimmerError, MissingExtraError

__all__ = ["main"]

EXTRAS = {
    "typer": "tools",
    "rich": "tools",
    "pydantic": "tools",
    "yaml": "tools",
    "onnx": "tools",
    "polygraphy": "tools",
    "typing_extensions": "tools",
    "onnxruntime": "cpu",
    "torch": "export",
    "transformers": "export",
    "onnxscript": "export",
    "onnx_ir": "export",
    "optimum": "export",
    "sentencepiece": "export",
}
"""The extra that brings each optional package."""


def main() -> None:
    """Entry point of `glimmer-export`."""
    try:
        from exporter.cli.app import app

        app()
    except GlimmerError as error:
        _fail(error)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        _fail(
            MissingExtraError(
                f"package {package}", expected="it installed for this command", found="none",
                fix=f'install its extra: pip install "glimmer-export[{EXTRAS[package]}]"',
            )
        )


def _fail(error: GlimmerError) -> None:
    sys.stderr.write(f"{type(error).__name__}: {error}\n")
    sys.exit(2)
