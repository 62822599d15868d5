"""Corpus -> memory store, and changes of a store: the build side of the memory. Runs on devices without torch."""

from glimmer_export.exporter.memory.append import AppendSummary, append_passages
from glimmer_export.exporter.memory.build import BuildSummary, build_store
from glimmer_export.exporter.memory.compact import CompactSummary, compact_store
from glimmer_export.exporter.memory.convert import ConvertSummary, convert_store
from glimmer_export.exporter.memory.corpus import CorpusSource
from glimmer_export.exporter.memory.delete import DeleteSummary, delete_passages, id_from_text, read_ids
from glimmer_export.exporter.memory.renew_index import RenewSummary, renew_index
from glimmer_export.exporter.memory.repair import RepairSummary, RollbackSummary, repair_store, roll_back
from glimmer_export.exporter.memory.stats import StoreStats, store_stats
from glimmer_export.exporter.memory.vectors import DenseSummary, index_store
from glimmer_export.exporter.memory.verify import Damage, VerifyReport, verify_store
from glimmer_export.exporter.memory.writer import StoreWriter

__all__ = [
    "AppendSummary",
    "BuildSummary",
    "CompactSummary",
    "ConvertSummary",
    "CorpusSource",
    "Damage",
    "DeleteSummary",
    "DenseSummary",
    "RenewSummary",
    "RepairSummary",
    "RollbackSummary",
    "StoreStats",
    "StoreWriter",
    "VerifyReport",
    "append_passages",
    "build_store",
    "compact_store",
    "convert_store",
    "delete_passages",
    "id_from_text",
    "index_store",
    "read_ids",
    "renew_index",
    "repair_store",
    "roll_back",
    "store_stats",
    "verify_store",
]
