"""What writer and reader share: errors, model shape, graph I/O, manifest and store layout. Standard library and numpy."""

from runtime.contract.architecture import ARCHITECTURES, ArchitectureTraits, ModelShape
from runtime.contract.errors import (
    BackendError,
    BundleError,
    CheckpointError,
    CorpusError,
    ExportError,
    GlimmerError,
    MissingExtraError,
    OutputError,
    PassageError,
    QuestionError,
    QuestionFileError,
    StoreError,
    TokenizerError,
)
from runtime.contract.paths import inside

__all__ = [
    "ARCHITECTURES",
    "ArchitectureTraits",
    "BackendError",
    "BundleError",
    "CheckpointError",
    "CorpusError",
    "ExportError",
    "GlimmerError",
    "MissingExtraError",
    "ModelShape",
    "OutputError",
    "PassageError",
    "QuestionError",
    "QuestionFileError",
    "StoreError",
    "TokenizerError",
    "inside",
]
