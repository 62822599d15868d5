"""What writer and reader share: errors, model shape, graph I/O, manifest, store layout. Standard library and numpy."""

from runtime.contract.architecture import ARCHITECTURES, ArchitectureTraits, ModelShape
from runtime.contract.digest import file_digest
from runtime.contract.errors import (
    BackendError,
    BundleError,
    CheckpointError,
    CorpusError,
    ExportError,
    GlimmerError,
    MissingExtraError,
    OptionError,
    OutputError,
    PassageError,
    QuestionError,
    QuestionFileError,
    StoreError,
    TokenizerError,
)
from runtime.contract.graph_io import GraphIO, IOTensor, codec_inputs, graph_io
from runtime.contract.manifest import (
    BUNDLE_SCHEMA_VERSION,
    MANIFEST,
    BundleManifest,
    FileEntry,
    GraphEntry,
    TensorEntry,
    read_manifest,
    tensor_entries,
)
from runtime.contract.paths import inside
from runtime.contract.records import record_to_json
from runtime.contract.store_layout import (
    STORE_SCHEMA_VERSION,
    TEXTS,
    ShardEntry,
    StoreManifest,
    read_store_manifest,
    shard_name,
)

__all__ = [
    "ARCHITECTURES",
    "BUNDLE_SCHEMA_VERSION",
    "MANIFEST",
    "STORE_SCHEMA_VERSION",
    "TEXTS",
    "ArchitectureTraits",
    "BackendError",
    "BundleError",
    "BundleManifest",
    "CheckpointError",
    "CorpusError",
    "ExportError",
    "FileEntry",
    "GlimmerError",
    "GraphEntry",
    "GraphIO",
    "IOTensor",
    "MissingExtraError",
    "ModelShape",
    "OptionError",
    "OutputError",
    "PassageError",
    "QuestionError",
    "QuestionFileError",
    "ShardEntry",
    "StoreError",
    "StoreManifest",
    "TensorEntry",
    "TokenizerError",
    "codec_inputs",
    "file_digest",
    "graph_io",
    "inside",
    "read_manifest",
    "read_store_manifest",
    "record_to_json",
    "shard_name",
    "tensor_entries",
]
