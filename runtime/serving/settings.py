"""How a server is to serve: every setting with its bounds, by one name in flags, file and environment."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from glimmer_export.runtime.contract import OptionError
from glimmer_export.runtime.drafts import MAX_DRAFT_TOKENS

__all__ = ["Settings", "settings_from"]



class Settings(BaseModel):
    """What `glimmer-export serve` goes by. `bundle` is the one without a default."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    bundle: Path
    store: Path | None = None
    host: str = Field("127.0.0.1", min_length=1, max_length=255)
    port: int = Field(8080, ge=0, le=65535)
    token_file: Path | None = None
    write_token_file: Path | None = None
    insecure: bool = False
    backend: str = "auto"
    compute_precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile_cache: Path | None = None
    threads: int | None = Field(None, ge=1, le=512)
    retrieval: str = "bm25"
    verify: bool = True
    passage_cache_bytes: int = Field(0, ge=0, le=1 << 50)
    draft_tokens: int | None = Field(None, ge=0, le=MAX_DRAFT_TOKENS)
    mass: float | None = Field(None, gt=0, le=1)
    require_parity: Literal["witnessed", "device"] | None = None
    max_batch_tokens: int | None = Field(None, ge=1, lt=1 << 31)
    window_ms: float = Field(5.0, ge=0, le=500)
    max_queue: int = Field(256, ge=1, le=1_000_000)
    timeout_s: float = Field(30.0, gt=0, le=900)
    receive_timeout_s: float = Field(10.0, gt=0, le=900)
    max_body_bytes: int = Field(1 << 20, ge=1024, le=1 << 30)
    cors_origins: tuple[str, ...] = ()
    log_questions: bool = False

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def settings_from(*sources: Mapping[str, Any]) -> Settings:
    """Settings of several mappings, of which an earlier one goes before a later one; None is as if it were not there.

    Raises OptionError for an unknown name, a value that is none, a mass where a parity record is required, writes
    where there is no store, and for a server that anybody may reach without a token.
    """
    merged: dict[str, Any] = {}
    for source in reversed(sources):
        merged |= {name: value for name, value in source.items() if value is not None}
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise OptionError(
            "serve", expected="settings as docs/guide/serving.md has them",
            found="; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()),
            fix="correct these",
        ) from None
    if settings.mass is not None and settings.require_parity is not None:
        raise OptionError(
            "mass", expected="none with require_parity, whose records are of all m passages", found=str(settings.mass),
            fix="judge it by `glimmer-export parity --mass`, and require no record",
        )
    if settings.write_token_file is not None and settings.store is None:
        raise OptionError(
            "write_token_file", expected="a store to write to", found="none", fix="name one, or serve without it"
        )
    if not (settings.is_loopback or settings.token_file or settings.insecure):
        raise OptionError(
            f"host {settings.host}", expected="a token for a server that other machines can reach", found="none",
            fix="name a file with --token-file, or say --insecure",
        )
    return settings
