"""What is looked at before a session opens: its options, the bundle's tokenizer, parity and CPU."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from glimmer_export.runtime.arguments import described, flag, one_of, path_of, threads_of, whole_number
from glimmer_export.runtime.backends import Backend
from glimmer_export.runtime.backends.registry import AUTO, COMPUTE_PRECISIONS, backend_names
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.codec_file import open_codec
from glimmer_export.runtime.codecs import Codec
from glimmer_export.runtime.contract import (
    FP32,
    Computation,
    OptionError,
    TokenizerError,
    check_parity,
    computation_of,
    is_witnessed,
)
from glimmer_export.runtime.contract.store_layout import RETRIEVALS
from glimmer_export.runtime.cpu_kind import bf16_instructions, cpu_kind
from glimmer_export.runtime.drafts import MAX_DRAFT_TOKENS
from glimmer_export.runtime.text import TextEncoder

__all__ = [
    "OpenOptions",
    "check_witness",
    "codec_without_store",
    "computation_here",
    "compute_precision_in",
    "text_of",
    "warn_of_other_cpu",
    "witnessed_here",
]  # fmt: skip

FITTED_TO_NOTHING = "fp16"


@dataclass(frozen=True)
class OpenOptions:
    """The arguments of `Session.open`, checked."""

    bundle: Path
    store: Path | None
    threads: int | None
    verify: bool
    retrieval: str
    backend: Backend | str
    passage_cache_bytes: int
    draft_tokens: int | None
    require_parity: bool | Literal["device"]
    compute_precision: str
    compile_cache: Path | None

    @classmethod
    def of(  # noqa: PLR0913 - those of `Session.open`
        cls, bundle: str | os.PathLike[str], store: str | os.PathLike[str] | None, *, threads: int | None,
        verify: bool, retrieval: str, backend: Any, passage_cache_bytes: int, require_parity: bool | str,
        compute_precision: str = AUTO, compile_cache: str | os.PathLike[str] | None = None,
        draft_tokens: int | None = None,
    ) -> OpenOptions:
        """Raises OptionError for one of another type, out of its range, or that does not fit the others."""
        options = cls(
            bundle=path_of("bundle", bundle),
            store=None if store is None else path_of("store", store),
            threads=threads_of(threads),
            verify=flag("verify", verify),
            retrieval=one_of("retrieval", retrieval, RETRIEVALS),
            backend=_backend(backend),
            passage_cache_bytes=whole_number("passage_cache_bytes", passage_cache_bytes, least=0),
            draft_tokens=None if draft_tokens is None
            else whole_number("draft_tokens", draft_tokens, least=0, most=MAX_DRAFT_TOKENS),
            require_parity=_required(require_parity),
            compute_precision=one_of("compute_precision", compute_precision, COMPUTE_PRECISIONS),
            compile_cache=None if compile_cache is None else path_of("compile_cache", compile_cache),
        )
        if not isinstance(options.backend, str) and (options.compute_precision != AUTO or options.compile_cache):
            raise OptionError(
                "compute_precision and compile_cache", expected="none with a backend that is open",
                found=options.compute_precision if options.compile_cache is None else str(options.compile_cache),
                fix="give them to that backend, or name one here",
            )
        if options.compile_cache is not None:
            _check_beside(options.compile_cache, [options.bundle, options.store])
        if options.passage_cache_bytes and not isinstance(options.backend, str):
            raise OptionError(
                "passage_cache_bytes", expected="0 with a backend that is open", found=str(options.passage_cache_bytes),
                fix="give it to that backend, or name one here",
            )
        return options


def computation_here(bundle: Bundle, backend: str, precision: str, codec: str | None) -> Computation:
    """What a backend makes of a bundle's graphs on this CPU, in this compute precision."""
    return computation_of(
        bundle.manifest, backend, codec, cpu_kind=cpu_kind(), bf16_instructions=bf16_instructions(),
        compute_precision=precision,
    )


def check_witness(
    bundle: Bundle, backend: str, precision: str = FP32, *, codec: str | None, required: bool | str
) -> None:
    """Raise BundleError if parity is required and no record witnesses these graphs on this backend, here."""
    if required:
        wanted = computation_here(bundle, backend, precision, codec)
        check_parity(bundle.directory, bundle.manifest, wanted, device=required == "device")


def witnessed_here(bundle: Bundle, codec: str | None, backend: str, precision: str) -> bool:
    """Whether a passed record witnesses these graphs on this backend, here, in this compute precision."""
    return is_witnessed(bundle.directory, bundle.manifest, computation_here(bundle, backend, precision, codec))


def compute_precision_in(backend: Backend) -> str:
    """What an open backend computes float operators in; FP32 if it does not say."""
    return str(getattr(backend, "compute_precision", FP32))


def codec_without_store(bundle: Bundle) -> Codec | None:
    """The codec for texts alone: the one that is fitted to nothing. None if there is no memory."""
    manifest = bundle.manifest
    if not manifest.model.traits.has_memory:
        return None
    if FITTED_TO_NOTHING not in manifest.codecs:
        raise OptionError(
            "session", expected=f"a store, whose arrays the codecs of {bundle} need, {', '.join(manifest.codecs)}",
            found="none", fix=f"open it with store=..., or export it with `--codecs {FITTED_TO_NOTHING}` too",
        )
    return open_codec(FITTED_TO_NOTHING, manifest.model.d_model, {}, subject=str(bundle))


def text_of(bundle: Bundle) -> TextEncoder:
    """The bundle's tokenizer; raises TokenizerError if it has none."""
    if bundle.text is None:
        raise TokenizerError(
            str(bundle), expected="a tokenizer", found="none",
            fix="make its checkpoint with `glimmer-export init --tokenizer FILE` and export it again",
        )
    return bundle.text


def warn_of_other_cpu(bundle: Bundle) -> None:
    """INT8 graphs give right answers on any CPU but one: where products saturate, codes of 8 bits lose some."""
    made_for = bundle.manifest.quantization
    int8 = any("int8" in graph.precision for graph in bundle.manifest.graphs.values())
    if not int8 or made_for is None or made_for.target != "cpu" or made_for.cpu_kind == (here := cpu_kind()):
        return
    loss = "some products saturate, so that answers may be wrong" if here == "x86" else "it runs slower than it could"
    warnings.warn(
        f"{bundle}: made for a CPU of the kind {made_for.cpu_kind}, this is {here}: {loss}; quantise its "
        f"FP32 bundle again with `glimmer-export quantize BUNDLE --target cpu --cpu {here}`",
        stacklevel=3,
    )


def _check_beside(cache: Path, read: Sequence[Path | None]) -> None:
    """A bundle with a file that its manifest does not vouch for is refused, and a store is read-only here."""
    place = Path(os.path.realpath(cache))  # unlike `resolve`, of a link to itself too
    for directory in read:
        if directory is not None and (place == (other := Path(os.path.realpath(directory))) or other in place.parents):
            raise OptionError(
                "compile_cache", expected="a directory apart from bundle and store", found=str(cache),
                fix="name another",
            )


def _backend(value: object) -> Any:
    """A name, or what has the methods of a backend."""
    if isinstance(value, str):
        return one_of("backend", value, backend_names())
    if isinstance(value, type) or not callable(getattr(value, "load", None)) or not isinstance(
        getattr(value, "name", None), str
    ):
        raise OptionError(
            "backend", expected=f"one of {', '.join(backend_names())}, or a backend that is open",
            found=described(value), fix="name one of these",
        )
    return value


def _required(value: object) -> bool | Literal["device"]:
    if isinstance(value, str) and value == "device":
        return "device"
    try:
        return flag("require_parity", value)
    except OptionError:
        raise OptionError(
            "require_parity", expected='False, True or "device"', found=described(value), fix="choose one of these"
        ) from None
