"""A bench from its options to its report."""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from statistics import median

from glimmer_export.exporter.bench.ceilings import CeilingRates, Ceilings, StageWork, stage_work
from glimmer_export.exporter.bench.contenders import SessionContender, measure_peak_rss, open_contenders
from glimmer_export.exporter.bench.fetch import fetch_times
from glimmer_export.exporter.bench.language_model import state_bytes_per_token
from glimmer_export.exporter.bench.load import Load, LoadWatch
from glimmer_export.exporter.bench.machine import describe_machine
from glimmer_export.exporter.bench.measure import (
    BlockPlan,
    Contender,
    ContenderSpec,
    Samples,
    interleaved,
    measure,
    percentile_95,
)
from glimmer_export.exporter.bench.options import BenchOptions
from glimmer_export.exporter.bench.peers import attention_of_t5
from glimmer_export.exporter.bench.report import BenchReport, ContenderTimes, StageTimes
from glimmer_export.exporter.bench.roster import ENGINES, HF_FID, OURS, STORED_STATES
from glimmer_export.exporter.bench.workplace import CODEC, Prepared, prepare
from glimmer_export.exporter.cost.model import Workload
from glimmer_export.exporter.report.origin import package_versions, utc_now
from glimmer_export.runtime.contract import LIVE_STAGE_A, OptionError, codec_layout, read_manifest

__all__ = ["prepare_bench", "run_bench"]

SETTINGS = (
    "k", "m", "question_tokens", "passage_tokens", "answer_tokens", "batch_size", "repeats", "warmup", "block_seconds",
    "seconds", "seed",
)  # fmt: skip
MODEL_FIELDS = (
    "d_model", "d_kv", "d_ff", "num_heads", "vocab_size", "num_memory_layers", "num_stage_a_layers",
    "num_stage_b_layers", "num_decoder_layers",
)  # fmt: skip
PACKAGES = ("glimmer-export", "numpy", *ENGINES, "optimum", "optimum-onnx", "transformers")
PASSAGES_AT_ONCE = 8
ENCODER_REPEATS = 5
ALONE = LIVE_STAGE_A
ALONE_REPEATS = 20


def run_bench(
    options: BenchOptions,
    notify: Callable[[str, int, int], None] = lambda *_: None,
    *,
    ceilings: Ceilings | None = None,
    watch: LoadWatch | None = None,
) -> BenchReport:
    """Prepare the contenders, measure them in turn, and report, with what else the machine did meanwhile.

    `notify(what, done, of)` is told how far it is. Raises OptionError for options that do not fit, OutputError if
    the working directory holds something else, MissingExtraError where a peer's package is not installed.
    """
    options.check()
    machine, date, watch = describe_machine(), utc_now(), watch or LoadWatch()
    place: AbstractContextManager[str] = (
        tempfile.TemporaryDirectory(prefix="glimmer-bench-") if options.work is None else nullcontext(str(options.work))
    )
    with place as directory, warnings.catch_warnings():
        # optimum reads, while it generates, a class that transformers is about to drop.
        warnings.filterwarnings("ignore", category=FutureWarning, module="optimum")
        prepared = prepare(options, Path(directory), notify)
        ours = prepared.specs[0]
        assert ours.store is not None
        fetch = {}
        if options.store:
            with watch.during("fetching"):
                fetch = fetch_times(ours.model, ours.store, Path(directory), options.k, lambda what: notify(what, 0, 1))
        peaks = _peaks(prepared, options, notify)
        contenders = open_contenders(prepared.specs, prepared.batches)
        try:
            report = _measured(
                options, prepared, contenders, peaks, notify, ceilings or Ceilings(options.num_threads), watch
            )
        finally:
            for contender in contenders.values():
                if isinstance(contender, SessionContender):
                    contender.close()
    load = watch.load(machine["load_average"], cpus=machine["cpus"], threads=options.num_threads)
    return replace(report, machine=machine, date=date, load=load, fetch=fetch)


def prepare_bench(options: BenchOptions, notify: Callable[[str, int, int], None] = lambda *_: None) -> Path:
    """Export what the bench of these options needs and its `work` has not yet; returns that folder.

    Raises OptionError without one, and what `run_bench` raises before it measures.
    """
    options.check()
    if options.work is None:
        raise OptionError(
            "--prepare", expected="--work DIR, which keeps what is exported", found="none", fix="name a folder"
        )
    prepare(options, options.work, notify)
    return options.work


def _peaks(
    prepared: Prepared, options: BenchOptions, notify: Callable[[str, int, int], None]
) -> dict[str, int]:
    peaks = {}
    for place, spec in enumerate(prepared.specs if options.peak_rss else ()):
        notify(f"Peak memory of {spec.key}", place, len(prepared.specs))
        peaks[spec.key] = measure_peak_rss(spec, prepared.batches)
    return peaks


def _measured(
    options: BenchOptions,
    prepared: Prepared,
    contenders: Mapping[str, Contender],
    peaks: Mapping[str, int],
    notify: Callable[[str, int, int], None],
    ceilings: Ceilings,
    watch: LoadWatch,
) -> BenchReport:
    turns = len(contenders) * options.repeats

    def sample_ceilings() -> None:
        with watch.during("the ceilings"):
            ceilings.sample()

    samples = measure(
        contenders, prepared.batches,
        BlockPlan(options.repeats, options.block_seconds, options.warmup, options.seconds),
        answer_tokens=options.answer_tokens, watch=watch.during, between_rounds=sample_ceilings,
        advance=lambda name, done: notify(f"Measuring {name}", done, turns),
    )
    encoders = {}
    if options.store:
        notify("Measuring the memory encoder", turns, turns)
        with watch.during("the memory encoder"):
            encoders = _encoder_times(contenders, prepared.passages[:PASSAGES_AT_ONCE])
    notify(f"Measuring {ALONE} alone", turns, turns)
    rates = ceilings.rates()
    ours = contenders[OURS]
    assert isinstance(ours, SessionContender)
    with watch.during(f"{ALONE} alone"):
        alone_ms = ours.alone_ms(ALONE, prepared.batches[-1], ALONE_REPEATS)
    times = {
        spec.key: _contender_times(spec, samples[spec.key], samples[OURS], peaks, options, rates)
        for spec in prepared.specs
    }
    for name, contender in contenders.items():
        if isinstance(contender, SessionContender):
            graph_bytes = contender.graph_bytes
            times[name] = replace(times[name], memory_encoder_ms=encoders.get(name), graph_bytes=graph_bytes)
    end_to_end = times.pop(OURS)
    stages = dict(end_to_end.stages or {})
    stages[ALONE] = _with_alone(stages[ALONE], alone_ms, rates)
    config = prepared.config
    return BenchReport(
        command=options.command,
        date="",
        machine={},
        versions=package_versions(PACKAGES),
        model={
            "source": f"random {options.random}" if options.random else str(options.checkpoint),
            "stage_a": prepared.forms.stage_a,
            "cross_attention": prepared.forms.cross_attention,
            "precision": "fp32",
            **{name: getattr(config, name) for name in MODEL_FIELDS},
        },
        settings={"threads": options.num_threads, **{name: getattr(options, name) for name in SETTINGS}},
        end_to_end=replace(end_to_end, stages=stages),
        peers=times,
        ceilings=rates,
        load=Load(None, (), None, {}),
        fetch={},
    )


def _encoder_times(contenders: Mapping[str, Contender], passages: Sequence[Sequence[int]]) -> dict[str, float]:
    """Median milliseconds of one batch of passages through each bundle's memory encoder, in turn, after a warm-up."""
    sessions = {name: item for name, item in contenders.items() if isinstance(item, SessionContender)}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for run, name in interleaved(list(sessions), 1 + ENCODER_REPEATS):
        started = time.perf_counter()
        sessions[name].encode_passages(passages)
        if run:
            times[name].append(1e3 * (time.perf_counter() - started))
    return {name: median(values) for name, values in times.items()}


def _contender_times(
    spec: ContenderSpec,
    samples: Samples,
    ours: Samples,
    peaks: Mapping[str, int],
    options: BenchOptions,
    rates: CeilingRates,
) -> ContenderTimes:
    times = ContenderTimes(
        form=spec.form,
        engine=spec.engine,
        attention=attention_of_t5() if spec.form == HF_FID else None,
        precision=spec.precision,
        passages=spec.num_passages,
        stored_bytes_per_token=_stored_bytes(spec),
        median_ms=samples.median_ms,
        min_ms=samples.min_ms,
        cold_ms=samples.cold_ms,
        p95_ms=percentile_95(samples.milliseconds),
        questions_per_second=1e3 * options.batch_size / samples.median_ms,
        peak_rss_bytes=peaks.get(spec.key),
        times_ms=tuple(samples.milliseconds),
        block_sizes=tuple(samples.block_sizes),
        first_ms=tuple(samples.first_ms),
    )
    if spec.store is None:
        return times
    workload = Workload(
        options.k, options.m, options.question_tokens, options.passage_tokens, options.answer_tokens, corpus_passages=1
    )
    work = stage_work(read_manifest(spec.model), workload, options.batch_size)
    outside = samples.outside_graphs()
    ours_by_place = {place: answered.tokens for place, answered in zip(ours.places, ours.answered, strict=True)}
    pairs = [
        (mine == theirs)
        for place, answered in zip(samples.places, samples.answered, strict=True)
        if place in ours_by_place
        for mine, theirs in zip(answered.tokens, ours_by_place[place], strict=True)
    ]
    return replace(
        times,
        tokens_equal=sum(pairs) / len(pairs),
        overhead_share=median(part / total for part, total in zip(outside, samples.milliseconds, strict=True)),
        stages=_stages(samples, work, rates),
    )


def _stored_bytes(spec: ContenderSpec) -> float | None:
    """Bytes that are kept of a token of a passage from before the question; None of whoever reads the text."""
    if spec.store is not None:
        manifest = read_manifest(spec.model)
        return float(codec_layout(CODEC, manifest.model.d_model).bytes_per_token)
    if spec.form == STORED_STATES:
        return float(state_bytes_per_token(spec.model))
    return None


def _stages(samples: Samples, work: Mapping[str, StageWork], rates: CeilingRates) -> dict[str, StageTimes]:
    stages = {name: _graph_times(samples, name, work[name], rates) for name in work}
    host = list(samples.answered[0].host)
    values = {name: samples.stage(name) for name in host}
    rest = zip(samples.outside_graphs(), *values.values(), strict=True)
    values["other"] = [outside - sum(named) for outside, *named in rest]
    return stages | {name: _times("host", times, samples.median_ms) for name, times in values.items()}


def _graph_times(samples: Samples, name: str, work: StageWork, rates: CeilingRates) -> StageTimes:
    times = _times("graph", samples.stage(name), samples.median_ms)
    if work.bound == "memory":
        allowed_ms = 1e3 * (work.bytes or 0) / rates.copy_bytes_per_second
    else:
        allowed_ms = 1e3 * work.macs / rates.fp32_macs_per_second
    return replace(
        times, bound=work.bound, macs=work.macs, bytes=work.bytes, memory_bytes=work.memory_bytes,
        ceiling_share=allowed_ms / times.median_ms,
    )


def _times(kind: str, values: list[float], end_to_end_ms: float) -> StageTimes:
    middle = median(values)
    return StageTimes(kind, middle, percentile_95(values), middle / end_to_end_ms)


def _with_alone(stage: StageTimes, alone_ms: float, rates: CeilingRates) -> StageTimes:
    if stage.memory_bytes is None:
        return replace(stage, alone_ms=alone_ms)
    copy_ms = 1e3 * stage.memory_bytes / rates.copy_bytes_per_second
    return replace(stage, alone_ms=alone_ms, alone_to_copy=alone_ms / copy_ms)
