"""Ours and Hugging Face's FiD in torch, BF16, in turn in one process: latency of one question, and throughput.

Each mode of the peer has a step of its own, as compiling it may take longer than anything else here. The peer needs a
T5's weights and nothing of ours: where no engine runs, it is measured alone.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import Any

from glimmer_export.exporter.bench.gpu.backends import described
from glimmer_export.exporter.bench.gpu.bundles import Model, random_checkpoint, random_questions_of, write_t5_of
from glimmer_export.exporter.bench.gpu.fid import MODES, TorchFid, load_t5
from glimmer_export.exporter.bench.gpu.ours import Ours, error_line, open_each
from glimmer_export.exporter.bench.gpu.parts.speed import PRECISION, engine_steps, model_step
from glimmer_export.exporter.bench.gpu.runner import Step
from glimmer_export.exporter.bench.gpu.setting import SHIPPED, Setting
from glimmer_export.exporter.bench.gpu.timing import Work, interleaved_ms, spread
from glimmer_export.exporter.bench.inputs import BenchQuestion

__all__ = ["COMPILED_FIRST", "prepared_peer", "steps"]

COMPILED_FIRST = tuple(reversed(MODES))
"""The bars ask for these."""
DIFFERENT = 4
"""Batches that take turns."""


def steps(setting: Setting, size: str) -> list[Step]:
    """`latency-kN-MODE` and `throughput-kN-MODE`, few passages first: that is what the bars ask for."""
    few, many = setting.scale.fid_passages
    needs = ("t5",)
    return [
        Step("t5", 240, partial(_t5, setting, size)),
        model_step(setting, size),
        *engine_steps(setting, size),
        *(Step(f"latency-k{few}-{mode}", 240, partial(_latency, setting, size, few, mode), needs=needs)
          for mode in COMPILED_FIRST),
        *(Step(f"throughput-k{few}-{mode}", 300, partial(_throughput, setting, size, few, mode), needs=needs)
          for mode in COMPILED_FIRST),
        *(Step(f"latency-k{many}-{mode}", 240, partial(_latency, setting, size, many, mode), needs=needs)
          for mode in COMPILED_FIRST),
    ]  # fmt: skip


def prepared_peer(
    setting: Setting, model: Model, mode: str, passages: int, groups: Sequence[Sequence[Any]]
) -> Callable[[int], Any]:
    """Does answer number n of some batches, which take turns."""
    loaded = load_t5(write_t5_of(model), setting.torch_device)
    return _peer(setting, loaded, mode, passages, groups)


def _peer(
    setting: Setting, loaded: Any, mode: str, passages: int, groups: Sequence[Sequence[Any]]
) -> Callable[[int], Any]:
    fid = TorchFid(
        loaded, mode, passages=passages, answer_tokens=setting.scale.answer_tokens, compiler=setting.compiler
    )
    prepared = [fid.prepared(group) for group in groups]
    return lambda run: prepared[run % len(prepared)]()


def _checkpoint(setting: Setting, size: str) -> Model:
    return random_checkpoint(setting.work, size, setting.scale, tiny=setting.rehearsal)[0]


def _t5(setting: Setting, size: str, _: Mapping[str, Any]) -> dict[str, Any]:
    folder = write_t5_of(_checkpoint(setting, size))
    return {"bytes": sum(path.stat().st_size for path in folder.iterdir())}


def _latency(setting: Setting, size: str, passages: int, mode: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """One question at a time."""
    with ExitStack() as opened:
        model, ours, errors, loaded = _opened(setting, size, opened)
        sides = _side_by_side(setting, model, ours, loaded, passages, mode, (1, 1), setting.scale.repeats)
    times = {who: row["median_ms"] for who, row in sides.items() if "median_ms" in row}
    ratios = {who: times[mode] / times[who] for who in times if who != mode and mode in times}
    return {
        "precision": PRECISION, "mode": mode, "passages": passages, "contenders": sides, "not_opened": errors,
        **_best(ratios),
    }  # fmt: skip


def _throughput(setting: Setting, size: str, passages: int, mode: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """Several batches of each, and the best; a batch that fails, for want of memory say, is left out."""
    scale = setting.scale
    by_batch: dict[str, Any] = {}
    with ExitStack() as opened:
        model, ours, errors, loaded = _opened(setting, size, opened)
        for mine, theirs in zip(scale.batches[1:], scale.fid_batches[1:], strict=True):
            by_batch[f"{mine} and {theirs}"] = _side_by_side(
                setting, model, ours, loaded, passages, mode, (mine, theirs), max(2, scale.repeats // 3)
            )
    best = {
        who: max(sides[who].get("questions_per_s", 0.0) for sides in by_batch.values())
        for who in next(iter(by_batch.values()))
    }
    ratios = {who: best[who] / best[mode] for who in best if who != mode and best[who] and best[mode]}
    return {
        "precision": PRECISION, "mode": mode, "passages": passages, "by_batch": by_batch, "not_opened": errors,
        "best_questions_per_s": best, **_best(ratios),
    }  # fmt: skip


def _best(ratios: Mapping[str, float]) -> dict[str, Any]:
    """How many times better each engine is, and of those that users have the best: a bar is held against that."""
    shipped = {engine: ratio for engine, ratio in ratios.items() if engine in SHIPPED}
    engine = max(shipped, key=lambda engine: shipped[engine], default=None)
    return {"ratios": dict(ratios), "engine": engine, "ratio": None if engine is None else shipped[engine]}


def _opened(setting: Setting, size: str, opened: ExitStack) -> tuple[Model, dict[str, Ours], dict[str, str], Any]:
    model = _checkpoint(setting, size)
    ours, errors = open_each(setting, model, PRECISION, opened)
    return model, ours, errors, load_t5(write_t5_of(model), setting.torch_device)


def _answering(session: Ours, batches: Sequence[Sequence[BenchQuestion]]) -> Work:
    return lambda run: session.answer(batches[run % DIFFERENT])


def _side_by_side(
    setting: Setting, model: Model, ours: Mapping[str, Ours], loaded: Any, passages: int, mode: str,
    batches: tuple[int, int], repeats: int,
) -> dict[str, Any]:
    """By contender its times; `batches` are ours and theirs. Who fails in the warm-up is left out, with the error."""
    questions = random_questions_of(model, setting.scale, DIFFERENT * max(batches), seed=4)
    mine, theirs = (
        [questions[start : start + batch] for start in range(0, DIFFERENT * batch, batch)] for batch in batches
    )
    makers: dict[str, tuple[int, Callable[[], Work]]] = {
        described(engine, PRECISION): (batches[0], partial(_answering, session, mine))
        for engine, session in ours.items()
    }
    makers[mode] = (batches[1], lambda: _peer(setting, loaded, mode, passages, theirs))
    found: dict[str, Any] = {}
    work: dict[str, Work] = {}
    for who, (batch, make) in makers.items():
        found[who] = {"batch": batch}
        try:
            one = make()
            for run in range(DIFFERENT):
                one(run)
            work[who] = one
        except Exception as error:  # noqa: BLE001  (a mode that does not work here is a finding)
            traceback.print_exc()
            found[who]["error"] = error_line(error)
    for who, values in interleaved_ms(work, repeats=repeats, warmup=2).items():
        found[who] |= {**spread(values), "questions_per_s": 1e3 * makers[who][0] / median(values)}
    return found
