"""(c) Ours and Hugging Face's FiD in torch, BF16, in turn in one process: latency of one question, and throughput."""

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
DIFFERENT = 4
"""Batches that take turns."""


def steps(setting: Setting, size: str) -> list[Step]:
    """Few passages first: that is what the bars ask for."""
    few, many = setting.scale.fid_passages
    return [
        *preparation(setting, size),
        Step("t5", 90, partial(_t5, setting, size), needs=("model",)),
        Step(f"latency-k{few}", 240, partial(_latency, setting, size, few), needs=("engines", "t5")),
        Step(f"throughput-k{few}", 240, partial(_throughput, setting, size, few), needs=("engines", "t5")),
        Step(f"latency-k{many}", 240, partial(_latency, setting, size, many), needs=("engines", "t5")),
    ]


def _model(setting: Setting, size: str) -> Model:
    return random_model(setting.work, size, setting.scale, tiny=setting.rehearsal)[0]


def _t5(setting: Setting, size: str, _: Mapping[str, Any]) -> dict[str, Any]:
    folder = write_t5_of(_model(setting, size))
    return {"bytes": sum(path.stat().st_size for path in folder.iterdir())}


def _latency(setting: Setting, size: str, passages: int, _: Mapping[str, Any]) -> dict[str, Any]:
    """One question at a time."""
    return _side_by_side(setting, size, passages, {OURS: 1, **dict.fromkeys(MODES, 1)}, setting.scale.repeats)


def _throughput(setting: Setting, size: str, passages: int, _: Mapping[str, Any]) -> dict[str, Any]:
    """Several batches of each; a mode is stopped nowhere but at its own failure."""
    scale = setting.scale
    by_batch: dict[str, Any] = {}
    for ours, theirs in zip(scale.batches[1:], scale.fid_batches[1:], strict=True):
        sizes = {OURS: ours, **dict.fromkeys(MODES, theirs)}
        by_batch[f"{ours} and {theirs}"] = _side_by_side(setting, size, passages, sizes, max(2, scale.repeats // 3))
    best: dict[str, Any] = {}
    for found in by_batch.values():
        for who, facts in found["contenders"].items():
            if facts.get("questions_per_s", 0) > best.get(who, {}).get("questions_per_s", 0):
                best[who] = {key: facts[key] for key in ("batch", "questions_per_s")}
    return {"by_batch": by_batch, "best": best, "ratios": _ratios(best, lambda ours, other: ours / other)}


def _side_by_side(
    setting: Setting, size: str, passages: int, batches: Mapping[str, int], repeats: int
) -> dict[str, Any]:
    """Whoever fails in the warm-up is left out, with the error."""
    model = _model(setting, size)
    questions = random_questions_of(model, setting.scale, DIFFERENT * max(batches.values()), seed=4)
    found: dict[str, Any] = {}
    with ExitStack() as opened:
        ours = opened.enter_context(Ours.open(setting, model, PRECISION))
        loaded = load_t5(write_t5_of(model), setting.torch_device)
        work: dict[str, Work] = {}
        for who, batch in batches.items():
            groups = [questions[start : start + batch] for start in range(0, DIFFERENT * batch, batch)]
            found[who] = {"batch": batch}
            try:
                work[who] = _work(setting, who, groups, ours, loaded, passages)
                found[who]["kernels"] = _warm(work[who])
            except Exception as error:  # noqa: BLE001  (a mode that does not work here is a finding)
                traceback.print_exc()
                work.pop(who, None)
                found[who]["error"] = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        times = interleaved_ms(work, repeats=repeats, warmup=2)
    for who, values in times.items():
        found[who] |= {**spread(values), "questions_per_s": 1e3 * batches[who] / median(values)}
    ratios = _ratios({who: facts for who, facts in found.items() if "median_ms" in facts}, _slower)
    return {"precision": PRECISION, "passages": passages, "contenders": found, "ratios": ratios}


def _work(
    setting: Setting, who: str, groups: Sequence[Any], ours: Ours, loaded: Any, passages: int
) -> Work:
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


def _ratios(found: Mapping[str, Any], ratio: Any) -> dict[str, float]:
    """How many times better ours is than each other."""
    if OURS not in found:
        return {}
    key = "median_ms" if ratio is _slower else "questions_per_s"
    return {who: ratio(found[OURS][key], facts[key]) for who, facts in found.items() if who != OURS}


def _slower(ours: float, other: float) -> float:
    return other / ours
