"""One shard after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from glimmer_export.exporter.memory.runners.job import Finished, ShardEncoder, ShardJob

__all__ = ["LocalRunner"]


@dataclass(frozen=True)
class LocalRunner:
    """Encodes in this process, with as many threads as the job says, or as suit model and machine."""

    def run(self, job: ShardJob, missing: Sequence[int], *, advance: Callable[[int], None]) -> Finished:
        """Encode in the corpus's order; raises what `encode_shard` and `Corpus.parts` do."""
        encoder = ShardEncoder(job.store or job.work.store, job.plan, job.bundle, threads=job.threads)
        wanted = set(missing)
        for index, passages in enumerate(job.corpus.parts()):
            if index in wanted:
                yield index, encoder.encode(job.work.store, index, passages, advance=advance)
