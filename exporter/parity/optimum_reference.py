"""A plain FiD on ONNX Runtime by optimum's export: a reference that shares no line with our graphs or our runtime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export.exporter.checkpoint.t5_shape import read_t5_shape
from glimmer_export.exporter.publish import publish_directory
from glimmer_export.runtime.contract import MissingExtraError

if TYPE_CHECKING:
    from optimum.onnxruntime import ORTModelForSeq2SeqLM
    from torch import Tensor

__all__ = ["export_with_optimum", "fid_tokens", "open_ort_model", "ort_model_from_t5"]

TASK = "text2text-generation-with-past"


def ort_model_from_t5(t5_dir: Path, out_dir: Path) -> ORTModelForSeq2SeqLM:
    """Export the Hugging Face T5 in `t5_dir` into the new directory `out_dir` with optimum; open it on the CPU.

    A T5 alone is FiD with one passage. Raises what `export_with_optimum` raises.
    """
    export_with_optimum(t5_dir, out_dir)
    return open_ort_model(out_dir)


def export_with_optimum(t5_dir: Path, out_dir: Path) -> None:
    """Export the Hugging Face T5 in `t5_dir` into the new directory `out_dir` with optimum. Nothing is downloaded.

    Raises MissingExtraError without optimum, CheckpointError where `t5_dir` holds no T5 that we read, OutputError where
    `out_dir` exists or cannot be written.
    """
    read_t5_shape(t5_dir)
    with _quiet():
        try:
            from optimum.exporters.onnx import main_export
        except ImportError as error:
            raise _missing(error) from None
        with publish_directory(out_dir, inputs=[t5_dir]) as work:
            # optimum would compare with torch within an absolute 1e-3; tokens are compared by whoever asks for them.
            main_export(
                str(t5_dir), output=work, task=TASK, device="cpu", library_name="transformers", do_validation=False,
                local_files_only=True,
            )


def open_ort_model(directory: Path, *, threads: int | None = None) -> ORTModelForSeq2SeqLM:
    """Open what `export_with_optimum` wrote, on the CPU; `threads` of one graph run, None for ONNX Runtime's choice."""
    with _quiet():
        try:
            from onnxruntime import SessionOptions
            from optimum.onnxruntime import ORTModelForSeq2SeqLM
        except ImportError as error:
            raise _missing(error) from None
        options = SessionOptions()
        # As our own backend has it, so that a comparison of times is of the graphs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
        return ORTModelForSeq2SeqLM.from_pretrained(directory, session_options=options, local_files_only=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what optimum warns of and logs.

    Its export is the TorchScript one, which torch deprecates and which warns of every branch it freezes. optimum knows
    those branches: it exports the decoder once for each.
    """
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _missing(error: ImportError) -> MissingExtraError:
    return MissingExtraError(
        "the optimum reference", expected="optimum and optimum-onnx", found=str(error),
        fix="install glimmer-export[optimum,cpu]",
    )


def fid_tokens(
    model: ORTModelForSeq2SeqLM, input_ids: Tensor, attention_mask: Tensor, *, max_new_tokens: int
) -> list[int]:
    """Answer one question by FiD (Izacard and Grave 2021): ids and mask (k, n) -> tokens without start token and EOS.

    Each row is the question with one passage; the rows are encoded one by one and read as one sequence.
    """
    from transformers.modeling_outputs import BaseModelOutput

    states = model.encoder(input_ids=input_ids.long(), attention_mask=attention_mask.long()).last_hidden_state
    generated = model.generate(
        encoder_outputs=BaseModelOutput(states.flatten(0, 1).unsqueeze(0)),
        attention_mask=attention_mask.long().flatten().unsqueeze(0),
        max_new_tokens=max_new_tokens, do_sample=False, num_beams=1,
    )  # fmt: skip
    tokens: list[int] = generated[0, 1:].tolist()
    eos = model.config.eos_token_id
    return tokens[: tokens.index(eos)] if eos in tokens else tokens
