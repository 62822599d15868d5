"""(c) Ours and Hugging Face's FiD in torch, BF16, in turn in one process: latency of one question, and throughput.

Each mode of the peer has a step of its own, as compiling it may take longer than anything else here.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import Any

from tests.gpu.bundles import Model, random_model, random_questions_of, write_t5_of
from tests.gpu.fid import MODES, TorchFid, load_t5
from tests.gpu.kernels import count_kernels
from tests.gpu.ours import Ours
from tests.gpu.parts.speed import PRECISION, preparation
from tests.gpu.runner import Step
from tests.gpu.setting import Setting
from tests.gpu.timing import Work, interleaved_ms, spread

__all__ = ["OURS", "steps"]

OURS = "ours"
COMPILED_FIRST = tuple(reversed(MODES))
"""The bars ask for these."""
DIFFERENT = 4
"""Batches that take turns."""


def steps(setting: Setting, size: str) -> list[Step]:
    """`latency-kN-MODE` and `throughput-kN-MODE`, few passages first: that is what the bars ask for."""
    few, many = setting.scale.fid_passages
    needs = ("engines", "t5")
    return [
        *preparation(setting, size),
        Step("t5", 90, partial(_t5, setting, size), needs=("model",)),
        *(Step(f"latency-k{few}-{mode}", 240, partial(_latency, setting, size, few, mode), needs=needs)
          for mode in COMPILED_FIRST),
        *(Step(f"throughput-k{few}-{mode}", 300, partial(_throughput, setting, size, few, mode), needs=needs)
          for mode in COMPILED_FIRST),
        *(Step(f"latency-k{many}-{mode}", 240, partial(_latency, setting, size, many, mode), needs=needs)
          for mode in COMPILED_FIRST),
    ]  # fmt: skip


def _model(setting: Setting, size: str) -> Model:
    return random_model(setting.work, size, setting.scale, tiny=setting.rehearsal)[0]


def _t5(setting: Setting, size: str, _: Mapping[str, Any]) -> dict[str, Any]:
    folder = write_t5_of(_model(setting, size))
    return {"bytes": sum(path.stat().st_size for path in folder.iterdir())}


def _latency(setting: Setting, size: str, passages: int, mode: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """One question at a time."""
    with ExitStack() as opened:
        model, ours, loaded = _opened(setting, size, opened)
        sides = _side_by_side(setting, model, ours, loaded, passages, {OURS: 1, mode: 1}, setting.scale.repeats)
    times = {who: row["median_ms"] for who, row in sides.items() if "median_ms" in row}
    ratio = times[mode] / times[OURS] if len(times) == 2 else None
    return {"precision": PRECISION, "mode": mode, "passages": passages, "contenders": sides, "ratio": ratio}


def _throughput(setting: Setting, size: str, passages: int, mode: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """Several batches of each, and the best; a batch that fails, for want of memory say, is left out."""
    scale = setting.scale
    by_batch: dict[str, Any] = {}
    with ExitStack() as opened:
        model, ours, loaded = _opened(setting, size, opened)
        for mine, theirs in zip(scale.batches[1:], scale.fid_batches[1:], strict=True):
            by_batch[f"{mine} and {theirs}"] = _side_by_side(
                setting, model, ours, loaded, passages, {OURS: mine, mode: theirs}, max(2, scale.repeats // 3)
            )
    best = {
        who: max(sides[who].get("questions_per_s", 0.0) for sides in by_batch.values()) for who in (OURS, mode)
    }
    ratio = best[OURS] / best[mode] if all(best.values()) else None
    return {
        "precision": PRECISION, "mode": mode, "passages": passages, "by_batch": by_batch,
        "best_questions_per_s": best, "ratio": ratio,
    }  # fmt: skip


def _opened(setting: Setting, size: str, opened: ExitStack) -> tuple[Model, Ours, Any]:
    model = _model(setting, size)
    ours = opened.enter_context(Ours.open(setting, model, PRECISION))
    return model, ours, load_t5(write_t5_of(model), setting.torch_device)


def _side_by_side(
    setting: Setting, model: Model, ours: Ours, loaded: Any, passages: int, batches: Mapping[str, int], repeats: int
) -> dict[str, Any]:
    """By contender its times; whoever fails in the warm-up is left out, with the error."""
    questions = random_questions_of(model, setting.scale, DIFFERENT * max(batches.values()), seed=4)
    found: dict[str, Any] = {}
    work: dict[str, Work] = {}
    for who, batch in batches.items():
        groups = [questions[start : start + batch] for start in range(0, DIFFERENT * batch, batch)]
        found[who] = {"batch": batch}
        try:
            one = _work(setting, who, groups, ours, loaded, passages)
            found[who]["kernels"] = _warm(one)
            work[who] = one
        except Exception as error:  # noqa: BLE001  (a mode that does not work here is a finding)
            traceback.print_exc()
            found[who]["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    for who, values in interleaved_ms(work, repeats=repeats, warmup=2).items():
        found[who] |= {**spread(values), "questions_per_s": 1e3 * batches[who] / median(values)}
    return found


def _work(setting: Setting, who: str, groups: Sequence[Any], ours: Ours, loaded: Any, passages: int) -> Work:
    if who == OURS:
        return lambda run: ours.answer(groups[run % len(groups)])
    fid = TorchFid(
        loaded, who, passages=passages, answer_tokens=setting.scale.answer_tokens, compiler=setting.compiler
    )
    prepared = [fid.prepared(group) for group in groups]
    return lambda run: prepared[run % len(prepared)]()


def _warm(work: Work) -> dict[str, Any]:
    """Compile and capture, then count kernels once."""
    for run in range(3):
        work(run)
    return count_kernels(lambda: work(0))
