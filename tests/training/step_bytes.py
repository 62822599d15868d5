"""What one step of a training holds and computes, counted on fake tensors, which have shapes and no values.

    python -m tests.training.step_bytes --count training-base.json
    python -m tests.training.step_bytes --run training-base.json

The first counts every form; the second adds steps that are run, on real tensors, for what they take of a processor.

A storage counts once, from the operator that makes it to the last reference to it: what a GPU would hold, but for what
kernels take for themselves and what an allocator rounds up to.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
import weakref
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from glimmer_export.exporter.checkpoint import CheckpointConfig
from glimmer_export.exporter.checkpoint.options import ModelOptions, config_from_options
from glimmer_export.exporter.checkpoint.t5_shape import T5Shape, preset
from glimmer_export.exporter.checkpoint.weights import MEMORY_PREFIXES
from glimmer_export.exporter.report.origin import package_versions, utc_now
from glimmer_export.exporter.stages import GlimmerModel, Masked
from glimmer_export.exporter.training.batch import Batch
from glimmer_export.exporter.training.loss import LossSettings, training_loss
from glimmer_export.exporter.training.recipe import Recipe
from glimmer_export.exporter.training.trainable import train_mode

__all__ = ["FORMS", "PLAIN", "Form", "Step", "count_step", "counted_step", "form_model", "step_batch"]

ANSWER_TOKENS = 8
QUESTION_TOKENS, PASSAGE_TOKENS, NUM_RETRIEVED = 48, 304, 25


@dataclass(frozen=True)
class Form:
    """What is trained, and how."""

    architecture: str
    memory: str = "trained"
    question_encoder: str = "shared"
    gradient_checkpointing: bool = False
    precision: str = "float32"

    def config(self, shape: T5Shape, **changes: int) -> CheckpointConfig:
        """A checkpoint of a size, with the GLIMMER paper's proportions and lengths but for changes."""
        lengths = {
            "question_length": QUESTION_TOKENS, "passage_length": PASSAGE_TOKENS, "num_retrieved": NUM_RETRIEVED,
        }
        options = ModelOptions(
            self.architecture, separate_question_encoder=self.question_encoder == "separate", **(lengths | changes),
        )
        return config_from_options(options, shape, subject="a size")


GLIMMER, FROZEN = Form("glimmer"), Form("glimmer", memory="frozen")
SEPARATE = Form("glimmer", memory="frozen", question_encoder="separate")
LUMEN, LUMEN_PAPER = Form("lumen"), Form("lumen", memory="frozen", question_encoder="separate")
MEMORY_FID, FID = Form("memory_fid"), Form("fid")
PLAIN = (GLIMMER, FROZEN, SEPARATE, LUMEN, LUMEN_PAPER, MEMORY_FID, FID)


def in_bfloat16(form: Form) -> Form:
    return replace(form, precision="bfloat16")


def checkpointed(form: Form) -> Form:
    return replace(form, gradient_checkpointing=True)


FORMS = {
    "base": (*PLAIN, *map(in_bfloat16, PLAIN), *map(checkpointed, map(in_bfloat16, PLAIN))),
    "large": tuple(
        map(in_bfloat16, (checkpointed(GLIMMER), FROZEN, checkpointed(FROZEN), LUMEN_PAPER, checkpointed(FID)))
    ),
}
"""The forms that are counted at each size."""


@dataclass(frozen=True)
class Step:
    """Of a step: parameters, those of them that are trained, bytes, and multiply-adds.

    `kept` are the bytes that the forward pass keeps for the backward pass, and `peak` the most at any time of the two
    passes, gradients included, both beside the weights. `macs` has every matrix product, those that checkpointing
    repeats included.
    """

    parameters: int
    trained: int
    kept: int
    peak: int
    macs: int


def fused_dropout(values: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
    """Dropout that keeps a mask of bytes, as a GPU's kernel does; torch's for a CPU keeps one of floats."""
    return torch.native_dropout(values, p, training)[0]


class Counter(TorchDispatchMode):
    """Adds up the storages that are alive, but for those that were there before, and the multiply-adds."""

    def __init__(self, there: set[int]) -> None:
        super().__init__()
        self.held = self.peak = self.macs = 0
        self._known = there

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if flops := flop_registry.get(func._overloadpacket):
            self.macs += flops(*args, **(kwargs or {}), out_val=made) // 2
        for tensor in tree_iter(made):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.held += size
            self.peak = max(self.peak, self.held)
            weakref.finalize(storage, self._remove, key, size)

    def _remove(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.held -= size


class Asked(TorchDispatchMode):
    """What asks a fake tensor for its values is answered: a number is 1, and a mask keeps everything."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and isinstance(args[0], FakeTensor):
            if func is torch.ops.aten._local_scalar_dense.default:
                return 1
            if func is torch.ops.aten.index.Tensor and args[1][0].dtype == torch.bool:
                return args[0].clone()
        return func(*args, **(kwargs or {}))


def step_batch(config: CheckpointConfig, questions: int, *, from_store: bool) -> Batch:
    """Questions and passages of any tokens, as long as they may be, nothing masked."""
    n_q, n_p, k = config.question_length, config.passage_length, config.num_retrieved

    def tokens(*shape: int) -> Tensor:
        return torch.randint(2, config.vocab_size, shape)

    values = torch.randn(questions, k, n_p, config.d_model) if from_store else tokens(questions, k, n_p)
    return Batch(
        Masked(tokens(questions, n_q), torch.ones(questions, n_q, dtype=torch.int64)),
        Masked(values, torch.ones(questions, k, n_p, dtype=torch.int64)),
        tokens(questions, ANSWER_TOKENS), torch.zeros(questions, k, dtype=torch.bool),
    )


def counted_step(model: GlimmerModel, batch: Batch, form: Form) -> Step:
    """Forward and backward pass of one batch, counted."""
    parameters = [*model.parameters()]
    tensors = [*parameters, *batch.question, *batch.passages, batch.labels, batch.gold]
    counter = Counter({each.untyped_storage()._cdata for each in tensors})
    with patch("torch.nn.functional.dropout", fused_dropout), Asked(), counter:
        with torch.autocast("cpu", torch.bfloat16, enabled=form.precision == "bfloat16"):
            losses = training_loss(model, batch, LossSettings())
        loss = losses.total(LossSettings())
        del losses
        kept = counter.held
        loss.backward()
    return Step(
        sum(each.numel() for each in parameters), sum(each.numel() for each in parameters if each.requires_grad),
        kept, counter.peak, counter.macs,
    )


def count_step(size: str, form: Form, questions: int = 1, *, dropout: float = 0.1) -> Step:
    """A step of `questions` questions at one of the sizes."""
    with FakeTensorMode():
        model = form_model(form.config(preset(size)), form, dropout)
        return counted_step(model, step_batch(model.config, questions, from_store=form.memory == "frozen"), form)


def form_model(config: CheckpointConfig, form: Form, dropout: float) -> GlimmerModel:
    """The model as it is trained, its parameters not initialised."""
    recipe = Recipe(steps=1, memory=form.memory, gradient_checkpointing=form.gradient_checkpointing, dropout=dropout)
    model = GlimmerModel(config)
    model.set_dropout(recipe.dropout)
    model.set_gradient_checkpointing(recipe.gradient_checkpointing)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not (form.memory == "frozen" and name.startswith(MEMORY_PREFIXES)))
    return train_mode(model, recipe)


def counted_forms(size: str) -> list[dict[str, Any]]:
    """Each form's step of one question, what one question more adds, and what it keeps if nothing is dropped."""
    rows = []
    for form in FORMS[size]:
        one, two = count_step(size, form), count_step(size, form, 2)
        row = asdict(form) | asdict(one)
        row |= {"kept_by_a_question": two.kept - one.kept, "peak_by_a_question": two.peak - one.peak}
        if form in PLAIN:
            row["kept_without_dropout"] = count_step(size, form, dropout=0.0).kept
        rows.append(row)
    return rows


RUN = (FROZEN, checkpointed(FROZEN), GLIMMER, SEPARATE, LUMEN, LUMEN_PAPER, MEMORY_FID, FID)
"""What is run at base size: 14 GB of memory hold each."""


def run_step(form: Form) -> dict[str, Any]:
    """A step of one question at base size, run: seconds of a processor, and the growth of the process's memory."""
    torch.manual_seed(0)
    model = form_model(form.config(preset("base")), form, 0.1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    batch = step_batch(model.config, 1, from_store=form.memory == "frozen")
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    step = counted_step(model, batch, form)
    seconds = time.process_time() - started
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return asdict(form) | {"processor_seconds": round(seconds, 1), "resident": 1024 * grown, **asdict(step)}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("report", type=Path)
    way = arguments.add_mutually_exclusive_group(required=True)
    way.add_argument("--count", action="store_true")
    way.add_argument("--run", action="store_true")
    asked = arguments.parse_args()
    made = {
        "command": f"python -m tests.training.step_bytes {' '.join(sys.argv[1:])}", "date": utc_now(),
        "versions": package_versions(("glimmer-export", "torch")),
    }
    if asked.count:
        report = {
            "counted": made | {
                "question_tokens": QUESTION_TOKENS, "passage_tokens": PASSAGE_TOKENS, "num_retrieved": NUM_RETRIEVED,
                "answer_tokens": ANSWER_TOKENS, "sizes": {size: counted_forms(size) for size in FORMS},
            },
        }
        asked.report.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        return
    report = json.loads(asked.report.read_text(encoding="utf-8"))
    report["run"] = made | {"threads": torch.get_num_threads(), "steps": []}
    for form in RUN:  # each in a process of its own, whose largest memory is its own
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            report["run"]["steps"].append(pool.submit(run_step, form).result())
        asked.report.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
