"""Which record of a parity run witnesses what a session computes.

A session's computation is its backend, the precision that it computes in, the CPU's instructions where the answers hang
on them, the codec of the memory that its graphs read and, if the bundle has both, the form of cross-attention. A record
witnesses it if both are the same, and besides:

| record of | witnesses |
| --- | --- |
| a device's backend (`tensorrt`, `tensorrt-rtx`, `onnxruntime-cuda`, `onnxruntime-tensorrt`) | that backend |
| `onnxruntime-cpu-fp16-rounded` | TensorRT's backends, in their place: "rounded, not the device" |
| `onnxruntime-cpu`, `openvino` | that backend, unless a graph has FP16: on the CPU it is computed in FP32 |

Nothing witnesses a session that runs FP16 graphs on the CPU. A session that runs its graphs on both backends of the CPU
is witnessed where a record of each is: every graph of it took part in one of the two. A backend that computes the float
operators in BF16 (`--compute-precision`) has another precision than in FP32, and a record of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from glimmer_export.runtime.contract.digest import file_digest
from glimmer_export.runtime.contract.errors import BundleError
from glimmer_export.runtime.contract.files import file_errors, is_there
from glimmer_export.runtime.contract.manifest import MANIFEST, BundleManifest
from glimmer_export.runtime.contract.parity_record import (
    DEVICE,
    PARITY_RECORD,
    ROUNDED,
    ParityRecord,
    read_parity_records,
)

__all__ = [
    "BF16", "CPU_BACKEND", "CPU_BACKENDS", "FP32", "OPENVINO_BACKEND", "ROUNDING_BACKEND", "Computation",
    "check_parity", "computation_of", "computed_in_bf16", "computes_fp16_in_fp32", "is_witnessed",
]  # fmt: skip

CPU_BACKEND = "onnxruntime-cpu"
OPENVINO_BACKEND = "openvino"
CPU_BACKENDS = frozenset({CPU_BACKEND, OPENVINO_BACKEND})
FP32, BF16 = "fp32", "bf16"
"""What a backend may compute the float operators in, whatever type a graph's tensors have."""
ROUNDING_BACKEND = "onnxruntime-cpu-fp16-rounded"
STANDS_FOR = {ROUNDING_BACKEND: frozenset({"tensorrt", "tensorrt-rtx", "onnxruntime-tensorrt"})}
"""Backends that a record of another may stand for."""
SATURATING = "x86"
"""The kind of CPU whose 16-bit sums of 8-bit products saturate, for graphs that were not made for it."""


@dataclass(frozen=True)
class Computation:
    """What runs a bundle's graphs, and how.

    `precision` is the arithmetic: `fp32`, `fp16`, `int8` or `int8-fp16`, which the CPU provider computes as `int8`,
    and `bf16` or `int8-bf16` where the backend rounds to that, and `w4` or `w8` where weights have so few bits;
    `instruction_set` the CPU's where the answers hang on it, else None; `codec` that of the memory which is read, None
    if there is none; `cross_attention` the form that answers, None if the bundle has one alone.
    """

    backend: str
    precision: str
    instruction_set: str | None
    codec: str | None
    cross_attention: str | None = None


def computation_of(
    manifest: BundleManifest, backend: str, codec: str | None, *, cpu_kind: str, bf16_instructions: str,
    compute_precision: str = FP32,
) -> Computation:
    """What a backend makes of a bundle's graphs for memory in a codec, on a CPU of this kind and with these.

    `compute_precision` is what the backend computes float operators in.
    """
    parts = _parts(manifest, codec)
    if backend in CPU_BACKENDS:
        parts -= {"fp16"}
        parts |= {BF16} if compute_precision == BF16 else set()
    on_cpu = backend in (*CPU_BACKENDS, ROUNDING_BACKEND)
    needed = []
    if on_cpu and "bf16" in parts:
        needed.append(bf16_instructions)
    made_for = manifest.quantization.cpu_kind if manifest.quantization is not None else None
    if on_cpu and parts & {"w4", "w8"}:
        needed.append(cpu_kind)
    if on_cpu and "int8" in parts and cpu_kind == SATURATING != made_for:
        needed.append(f"{cpu_kind}, saturating")
    precision = "-".join(sorted(parts - {"fp32"}, key=lambda part: (part != "int8", part))) or "fp32"
    form = None if manifest.cross_attention_choice is None else manifest.cross_attention
    return Computation(backend, precision, " and ".join(needed) or None, codec, form)


def computed_in_bf16(precision: str) -> str:
    """What a graph of a precision is computed in by a backend of the CPU whose float operators round to BF16."""
    return f"int8-{BF16}" if "int8" in precision else BF16


def computes_fp16_in_fp32(manifest: BundleManifest, backend: str, codec: str | None) -> bool:
    """Whether FP16's overflows and roundings do not show."""
    return backend in CPU_BACKENDS and "fp16" in _parts(manifest, codec)


def check_parity(
    directory: Path, manifest: BundleManifest, wanted: Computation | None = None, *, device: bool = False
) -> None:
    """Raise BundleError unless a parity run of this very bundle passed its gate, and witnesses what is `wanted`.

    `wanted` None: of whatever computation. `device`: no other backend stands for it, and the record says on what it
    rests, which those of version 1 do not.
    """
    fix = _command(directory, manifest, wanted)
    if not is_there(directory / PARITY_RECORD):
        raise BundleError(f"bundle {directory}", expected=f"a file {PARITY_RECORD}", found="none", fix=fix)
    found = read_parity_records(directory)
    subject = f"bundle {directory}, {PARITY_RECORD}"
    with file_errors(error=BundleError, subject=f"bundle {directory}, {MANIFEST}", fix=fix):
        digest = file_digest(directory / MANIFEST)
    if found.manifest_sha256 != digest:
        raise BundleError(
            subject, expected=f"a record of the manifest {digest}", found=f"one of {found.manifest_sha256}", fix=fix
        )
    records = [record for record in found.records if wanted is None or _witness(record, wanted, manifest) is not None]
    if not records:
        assert wanted is not None
        raise BundleError(
            subject, expected=f"a record that witnesses {_describe(wanted)}", found=_names(found.records), fix=fix
        )
    passed = [record for record in records if record.gate.passed]
    if not passed:
        record, failed = records[0], records[0].gate
        of = Computation(*record.key)
        unrounded = computes_fp16_in_fp32(manifest, of.backend, of.codec)
        names = ", ".join(check.name for check in failed.checks if not check.passed)
        raise BundleError(
            subject, expected=f"the gate {failed.name} passed", found=f"{failed.verdict}: {names}",
            fix=_command(directory, manifest, of) if unrounded
            else "quantise it otherwise or ask more questions, or open it without require_parity",
        )
    if device and wanted is not None:
        strict = [record for record in passed if record.date and _witness(record, wanted, manifest) == DEVICE]
        if not strict:
            raise BundleError(
                subject, expected=f"a record of the device itself, {_describe(wanted)}", found=_names(passed), fix=fix
            )


def is_witnessed(directory: Path, manifest: BundleManifest, wanted: Computation) -> bool:
    """Whether a parity run of this very bundle passed its gate and witnesses what is `wanted`; None is no error."""
    try:
        check_parity(directory, manifest, wanted)
    except BundleError:
        return False
    return True


def _witness(record: ParityRecord, wanted: Computation, manifest: BundleManifest) -> str | None:
    """How a record witnesses a computation: DEVICE, ROUNDED, or None if it does not.

    A record of version 1 says neither codec nor instructions: it holds for the bundle on its backend, as it did.
    """
    old = record.date is None
    read_alike = record.cross_attention == wanted.cross_attention and (old or record.codec == wanted.codec)
    if computes_fp16_in_fp32(manifest, wanted.backend, wanted.codec) or not read_alike:
        return None
    if record.backend == wanted.backend:
        same = (record.precision, record.instruction_set) == (wanted.precision, wanted.instruction_set)
        return (ROUNDED if record.backend == ROUNDING_BACKEND else DEVICE) if old or same else None
    return ROUNDED if wanted.backend in STANDS_FOR.get(record.backend, ()) else None


def _parts(manifest: BundleManifest, codec: str | None) -> set[str]:
    """What the graphs for a codec compute in: `int8` and float types."""
    graphs = manifest.stages(codec).values()
    return {part for name in graphs for part in manifest.graphs[name].precision.split("-")}


def _rounds(wanted: Computation) -> bool:
    """Whether the backend rounds to BF16, which no graph's own types say on the CPU."""
    return BF16 in wanted.precision.split("-")


def _describe(wanted: Computation) -> str:
    details = [wanted.precision, *([wanted.instruction_set] if wanted.instruction_set else [])]
    memory = "" if wanted.codec is None else f" with memory in {wanted.codec}"
    form = "" if wanted.cross_attention is None else f", cross-attention {wanted.cross_attention}"
    return f"{wanted.backend} in {', '.join(details)}{memory}{form}"


def _names(records: tuple[ParityRecord, ...] | list[ParityRecord]) -> str:
    return "; ".join(
        f"{record.backend} in {record.precision}" + (f" with memory in {record.codec}" if record.codec else "")
        + (f", cross-attention {record.cross_attention}" if record.cross_attention else "") + f" ({record.witness})"
        for record in records
    )


def _command(directory: Path, manifest: BundleManifest, wanted: Computation | None) -> str:
    """The parity run that would witness it; a bundle beside a bundle needs no torch."""
    if wanted is not None and computes_fp16_in_fp32(manifest, wanted.backend, wanted.codec):
        return (
            f"open it on the device that its FP16 is for: the CPU computes FP16 in FP32, which no record "
            f"witnesses (for TensorRT run `glimmer-export parity {directory} --reference FP32_BUNDLE --store STORE "
            f"--questions FILE --backend {ROUNDING_BACKEND} --gate default`, or with `--backend tensorrt` there)"
        )
    backend = CPU_BACKEND if wanted is None else wanted.backend
    plain = all(graph.precision == "fp32" for graph in manifest.graphs.values())
    reference = "--reference FP32_BUNDLE"
    if plain:
        on_cpu = backend in (*CPU_BACKENDS, ROUNDING_BACKEND)
        reference = "--checkpoint CHECKPOINT" if on_cpu else f"--reference {directory}"
    return (
        f"run `glimmer-export parity {directory} {reference} --store STORE --questions FILE --backend {backend} "
        f"{'--compute-precision bf16 ' if backend in CPU_BACKENDS and wanted and _rounds(wanted) else ''}"
        "--gate default` here"
    )
