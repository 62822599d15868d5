"""Corpus -> memory store, and changes of a store: the build side of the memory. Runs on devices without torch."""

from exporter.memory.append import AppendSummary, append_passages
from exporter.memory.build import BuildSummary, build_store
from exporter.memory.compact import CompactSummary, compact_store
from exporter.memory.convert import ConvertSummary, convert_store
from exporter.memory.corpus import CorpusSource
from exporter.memory.delete import DeleteSummary, delete_passages, id_from_text, read_ids
from exporter.memory.dense import DenseSummary, index_store
from exporter.memory.renew_index import RenewSummary, renew_index
from exporter.memory.repair import RepairSummary, repair_store
from exporter.memory.rollback import RollbackSummary, roll_back
from exporter.memory.verify import Damage, VerifyReport, verify_store

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
    "verify_store",
]
