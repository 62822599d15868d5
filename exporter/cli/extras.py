"""Which extra brings each optional package, and the error for a command that lacks one."""

from __future__ import annotations

from importlib.util import find_spec

from glimmer_export.runtime.contract import MissingExtraError

__all__ = ["EXTRAS", "missing_extra", "require"]

EXTRAS = {
    "backports": "tools",
    "typer": "tools",
    "rich": "tools",
    "pydantic": "tools",
    "yaml": "tools",
    "onnx": "tools",
    "polygraphy": "tools",
    "typing_extensions": "tools",
    "onnxruntime": "cpu",
    "openvino": "openvino",
    "torch": "export",
    "transformers": "export",
    "onnxscript": "export",
    "onnx_ir": "tools",
    "optimum": "optimum",
    "sentencepiece": "export",
    "matplotlib": "export",
    "msgpack": "t5x",
    "tensorstore": "t5x",
    "pyarrow": "parquet",
    "accelerate": "train",
    "ray": "ray",
    "pandas": "ray",
    "starlette": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
    "tantivy": "retrieval",
    "faiss": "dense",
    "rouge": "kilt",
    "optuna": "tune",
    "ctranslate2": "peers",
}
"""The extra that brings each optional package."""

NAMESPACES = {"optimum": "optimum.version"}
"""A module of each package that is a namespace, which a package that extends it can make without it."""


def missing_extra(package: str) -> MissingExtraError:
    """The error for an optional package that is not installed."""
    return MissingExtraError(
        f"package {package}", expected="it installed for this command", found="none",
        fix=f'install its extra: pip install "glimmer-export[{EXTRAS[package]}]"',
    )


def require(*packages: str) -> None:
    """Raise MissingExtraError if one is not installed: before any work, and before a library words it otherwise."""
    for package in packages:
        if not _is_installed(package):
            raise missing_extra(package)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(NAMESPACES.get(package, package)) is not None
    except ModuleNotFoundError:  # the namespace itself
        return False
