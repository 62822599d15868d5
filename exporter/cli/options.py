"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from glimmer_export.exporter.cli.choices import one_of
from glimmer_export.exporter.cli.ranges import MAX_COUNT, MAX_PASSAGES, MAX_THREADS, number
from glimmer_export.runtime.contract.store_layout import RETRIEVALS
from glimmer_export.runtime.drafts import MAX_DRAFT_TOKENS

__all__ = [
    "CORPUS_FORMATS",
    "GIVEN",
    "PASSAGE_SOURCES",
    "Backend",
    "BatchSize",
    "BatchTokens",
    "BundleArgument",
    "BundleOption",
    "ChunkWords",
    "CompileCache",
    "ComputePrecision",
    "CorpusFormat",
    "DraftTokens",
    "Json",
    "Limit",
    "Mass",
    "NumRetrieved",
    "NumSelected",
    "Output",
    "Overwrite",
    "Passages",
    "Questions",
    "RecordedPrecision",
    "RequireParity",
    "Retrieval",
    "Store",
    "StoreArgument",
    "Threads",
    "Verify",
    "check_cache",
    "required_parity",
]  # fmt: skip


GIVEN = "given"
COMPUTE_PRECISIONS = ("auto", "fp32", "bf16")
"""Those of the runtime's registry, which takes long to import."""
PASSAGE_SOURCES = ("retrieve", GIVEN)
REQUIRED_PARITY = ("witnessed", "device")
CORPUS_FORMATS = (*(f"{layout}{packed}" for layout in ("jsonl", "tsv") for packed in ("", ".gz", ".zst")), "parquet")
"""The keys of the corpora's FORMATS, whose package takes seconds to import."""

Backend = Annotated[
    str, typer.Option("--backend", help="What runs the graphs, such as tensorrt or onnxruntime-cpu; or the best here.")
]
BackendName = Annotated[
    str, typer.Option("--backend", help="What runs the graphs, such as onnxruntime-cuda; any of `answer` but auto.")
]
BatchSize = Annotated[
    int, typer.Option("--batch-size", min=1, max=MAX_COUNT, help="Questions of one run of the graphs.")
]
BatchTokens = Annotated[
    int, typer.Option("--batch-tokens", min=1, max=MAX_COUNT, help="Padded tokens of one graph run.")
]
BundleArgument = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="Directory written by `glimmer-export export`.")
]
BundleOption = Annotated[Path, typer.Option("--bundle", help="Directory written by `glimmer-export export`.")]
CompileCache = Annotated[
    Path | None,
    typer.Option(
        "--compile-cache", help="Directory of this user's alone where openvino keeps what it compiled. Default: none."
    ),
]
ComputePrecision = Annotated[
    str,
    one_of(
        "--compute-precision", COMPUTE_PRECISIONS[1:],
        "What the CPU computes float operators in: bf16 of openvino, or of onnxruntime-cpu on ARM.",
    ),
]
RecordedPrecision = Annotated[
    str,
    one_of(
        "--compute-precision", COMPUTE_PRECISIONS,
        "What the CPU computes float operators in: bf16 of openvino, or of onnxruntime-cpu on ARM; auto: bf16 where "
        "a passed parity record witnesses it, else fp32.",
    ),
]
ChunkWords = Annotated[
    int | None,
    typer.Option(
        "--chunk-words", min=1, max=MAX_COUNT, help="Cut texts into passages of N words, with ids such as `7#0`."
    ),
]
CorpusFormat = Annotated[
    str | None, one_of("--corpus-format", CORPUS_FORMATS, "Default: by the ending of the file's name.")
]
DraftTokens = Annotated[
    int | None,
    typer.Option(
        "--draft-tokens", min=0, max=MAX_DRAFT_TOKENS,
        help="Tokens that are guessed from the passages read and verified together, at most; 0 for none. Default: "
        "where it saves time.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout instead of tables.")]
Limit = Annotated[
    int | None,
    typer.Option("--limit", min=1, max=MAX_COUNT, help="Take N questions only, in even steps over the file."),
]
Mass = Annotated[
    float | None,
    typer.Option(
        "--mass", min=0.001, max=1, callback=number,
        help="Read no more of the m passages than hold this share of the scores' softmax. Default: all m.",
    ),
]
NumRetrieved = Annotated[
    int | None,
    typer.Option(
        "--top-k", "-k", min=1, max=MAX_PASSAGES, help="Passages to retrieve. Default: the manifest's k."
    ),
]
NumSelected = Annotated[
    int | None,
    typer.Option("--top-m", "-m", min=1, max=MAX_PASSAGES, help="Passages to read. Default: the manifest's m."),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Directory to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")]
Passages = Annotated[
    str, one_of("--passages", PASSAGE_SOURCES, "Retrieve, or take those given with the questions.")
]
Questions = Annotated[
    list[Path],
    typer.Option(
        "--questions",
        help="KILT, NQ-open or Atlas JSONL, FiD/DPR JSON, or JSONL with `question` and `answers`; plain, .gz or .zst. "
        "Repeatable; or a folder of such files.",
    ),
]
RequireParity = Annotated[
    str | None,
    one_of(
        "--require-parity", REQUIRED_PARITY,
        "Refuse a bundle without a passed parity record for what runs it; device: none rounded on the CPU either.",
    ),
]
Retrieval = Annotated[
    str, one_of("--retrieval", RETRIEVALS, "By words, by the vectors of `memory index`, or by both.")
]
Store = Annotated[Path | None, typer.Option("--store", help="Directory written by `glimmer-export memory build`.")]
StoreArgument = Annotated[
    Path, typer.Argument(metavar="STORE", help="Directory written by `glimmer-export memory build`.")
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", min=1, max=MAX_THREADS, help="CPU threads of one graph run. Default: by model and cores."
    ),
]
Verify = Annotated[
    bool,
    typer.Option(
        "--verify/--no-verify",
        help="Check the store's files against their digests first, a second a gigabyte; without, by their sizes and "
        "headers alone: what is damaged may then give wrong answers. The bundle is checked either way.",
    ),
]


def check_cache(directory: Path | None, *inputs: Path | None) -> None:
    """Raise OutputError if a compile cache would lie in what is read, or around it: it is written to."""
    from glimmer_export.exporter.files.links import check_apart

    if directory is not None:
        check_apart(directory, inputs)


def required_parity(option: str | None) -> bool | Literal["device"]:
    """The option as `Session.open` takes it."""
    return "device" if option == "device" else option is not None
