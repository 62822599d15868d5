"""A bundle and a machine -> engines of its graphs, each built once, in the bundle."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from glimmer_export.exporter.config.read import config_label
from glimmer_export.exporter.config.targets import TensorRTTarget, read_target
from glimmer_export.exporter.engines.compiler import Compiler, open_compiler
from glimmer_export.exporter.engines.cross_attention import form_on_engines, reckoned_form
from glimmer_export.exporter.engines.folder import Wanted, Work, other_versions, usable_engines, work_on_engines
from glimmer_export.exporter.engines.profiles import BatchBound, batch_bounds, graph_profiles
from glimmer_export.exporter.files.whole_file import replace_file, write_errors
from glimmer_export.exporter.lint import limits_of, lint_bundle
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import (
    ENGINE_SCHEMA_VERSION,
    MEASURED,
    RECKONED,
    BackendError,
    BundleError,
    EngineEntry,
    EngineError,
    EngineKey,
    EngineRecord,
    FileEntry,
    FormChoice,
    GraphEntry,
    OptionError,
    graph_digest,
    read_engine_record,
)

__all__ = ["EngineBuild", "EnginePlan", "build_engines"]

logger = logging.getLogger(__name__)

BASE_BYTES = 400_000_000
PER_BYTE = 8
"""Measured with TensorRT-RTX at base size (docs/measurements/tensorrt-rtx-base.md): up to 8 times the size of a graph's
files, beside Python and the libraries. Not measured of TensorRT itself, which takes memory of the GPU too."""


def peak_bytes(graph: GraphEntry) -> int:
    """An estimate from above, in bytes of this machine's memory, from the size of a graph with its weights."""
    return BASE_BYTES + PER_BYTE * graph.num_bytes


@dataclass(frozen=True)
class EnginePlan:
    """What a build is about to do.

    `compile` are the graphs that have no engine yet, `because` says why one that was there is not used, `others` are
    the directories of engines of another version of the same library, and `peak_bytes` is the most memory of this
    machine that the build is expected to take. `bounds` are those of every profile's batches.
    """

    key: EngineKey
    stand_in: bool
    compile: tuple[str, ...]
    because: dict[str, str]
    others: tuple[str, ...]
    peak_bytes: int
    bounds: tuple[BatchBound, ...]


@dataclass(frozen=True)
class EngineBuild:
    """The engines of a bundle for one key: if they are, their record, and the graphs that were compiled now.

    `not_measured` says why the record's choice of a form of cross-attention is a estimated one; None if it is not.
    """

    directory: Path
    record: EngineRecord
    plan: EnginePlan
    not_measured: str | None = None


def build_engines(
    bundle_dir: Path,
    target_name: str,
    compiler_name: str,
    *,
    force: bool = False,
    on_plan: Callable[[EnginePlan], None] = lambda _: None,
    on_graph: Callable[[str], None] = lambda _: None,
) -> EngineBuild:
    """Compile what has no engine yet into `BUNDLE/engines/<fingerprint>`, which is replaced in one step at the end.

    A build that stops leaves the engines that were there before, and the next one takes up those that it finished;
    `force` takes up none. Of a bundle of both forms of cross-attention the engines are timed, if they run here, and
    the faster form is recorded. `on_plan` is called once, `on_graph(name)` before each graph that is compiled. Raises
    OptionError for a target without a GPU, EngineError for a graph that breaks a rule, that the compiler refuses or
    whose smallest batch does not fit, MissingExtraError, BackendError (no such GPU here), BundleError and OutputError
    (a full disk, another build).
    """
    target = read_target(target_name).tensorrt
    if target is None:
        raise OptionError(
            "--target", expected="a machine with a GPU", found=target_name,
            fix="build nothing: ONNX Runtime runs the bundle's graphs as they are",
        )
    bundle = Bundle.open(bundle_dir)
    compiler = open_compiler(compiler_name, target_name, target)
    _check_rules(bundle, target_name, target, compiler_name)
    wanted = _wanted(bundle, target)
    with write_errors(bundle_dir), work_on_engines(bundle_dir, compiler.key.fingerprint) as work:
        present, because = ({}, {}) if force else usable_engines(work.published, wanted)
        finished, _ = ({}, {}) if force else usable_engines(work.unfinished, wanted)
        missing = tuple(name for name in wanted if name not in {**present, **finished})
        plan = EnginePlan(
            compiler.key, compiler.stand_in, missing, because, tuple(other_versions(bundle_dir, compiler.key)),
            max((peak_bytes(bundle.manifest.graphs[name]) for name in missing), default=0), _bounds(bundle, target),
        )
        on_plan(plan)
        choice = _choice(bundle, target_name, None if missing else work.published)
        engines = dict(finished)
        if missing:
            work.begin(finished)
        for name in missing:
            logger.info("compiling the engine of %s", name)
            on_graph(name)
            engines[name] = _compile(bundle, name, compiler, wanted, work)
            work.record(_record(compiler, target_name, engines, choice))
        kept = {name: entry for name, entry in present.items() if name not in engines}
        record = _record(compiler, target_name, {name: {**kept, **engines}[name] for name in wanted}, choice)
        if engines:
            work.publish(record, kept)
        else:
            work.restate(record)
        not_measured = None
        if choice is not None and choice.by != MEASURED:
            try:
                record = replace(record, cross_attention=form_on_engines(bundle, record))
            except BackendError as reason:
                not_measured = str(reason)
            else:
                work.restate(record)
    return EngineBuild(work.published, record, plan, not_measured)


def _choice(bundle: Bundle, target_name: str, published: Path | None) -> FormChoice | None:
    """What was measured of engines that all stay, else what is estimated for the target; None: one form."""
    exported = bundle.manifest.cross_attention_choice
    if exported is None:
        return None
    label = config_label("target", target_name)
    if published is not None:
        with suppress(BundleError):
            found = read_engine_record(published).cross_attention
            if found is not None and (found.by, found.target) == (MEASURED, label):
                return found
    form = reckoned_form(bundle.manifest.model, exported.answer_tokens, read_target(target_name))
    return FormChoice(form, RECKONED, label, exported.answer_tokens)


def _check_rules(bundle: Bundle, target_name: str, target: TensorRTTarget, compiler_name: str) -> None:
    """Refuse before anything is compiled what would fail, or what another version would refuse."""
    findings = lint_bundle(bundle, limits_of(target, compiler_name))
    if findings:
        more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
        raise EngineError(
            f"bundle {bundle.directory}, target {target_name}", expected="graphs that keep its rules",
            found=f"{findings[0].text}{more}",
            fix=f"see `glimmer-export lint {bundle.directory} --target {target_name} --compiler {compiler_name}`",
        )


def _wanted(bundle: Bundle, target: TensorRTTarget) -> Wanted:
    return {
        name: (graph_digest(graph), graph_profiles(bundle.manifest, name, target))
        for name, graph in bundle.manifest.graphs.items()
    }


def _bounds(bundle: Bundle, target: TensorRTTarget) -> tuple[BatchBound, ...]:
    """Of texts and of questions, each once."""
    bounds = (bound for name in bundle.manifest.graphs for bound in batch_bounds(bundle.manifest, target, name))
    return tuple(dict.fromkeys(bounds))


def _compile(bundle: Bundle, name: str, compiler: Compiler, wanted: Wanted, work: Work) -> EngineEntry:
    digest, profiles = wanted[name]
    started = time.perf_counter()
    engine = compiler.compile(bundle.graph_path(name), profiles, work.timings)
    path = work.unfinished / f"{name}.engine"
    replace_file(path, engine)
    seconds = round(time.perf_counter() - started, 3)
    return EngineEntry(FileEntry.named(path.name, path), digest, profiles, seconds)


def _record(
    compiler: Compiler, target_name: str, engines: dict[str, EngineEntry], choice: FormChoice | None
) -> EngineRecord:
    label = config_label("target", target_name)
    return EngineRecord(ENGINE_SCHEMA_VERSION, compiler.key, label, compiler.stand_in, engines, choice)
