"""What this machine's owner has said about all its workers, as far as it decides how much memory they take.

It is the part of `[worker]` and `RBEE_WORKER_*` about the context. The worker reads it itself, and refuses what is
wrong there; here that counts as not said.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rbee_hive.domain.fit.context_plan import ContextPlan
from rbee_hive.domain.models.ggml_types import TYPES_BY_NAME
from rbee_shared.config_file import read_config

_PREFIX = "RBEE_WORKER_"


@dataclass(frozen=True)
class WorkerDefaults:
    """None: not said."""

    n_ctx: int | None = None
    slots: int | None = None
    kv: str | None = None
    kv_type: str | None = None
    flash_attn: str | None = None

    @classmethod
    def load(cls, config: Path, environment: Mapping[str, str] = os.environ) -> "WorkerDefaults":
        """Read them; environment over file. Blocking."""
        table = read_config(config).get("worker", {})

        def said(name: str) -> Any:
            return environment.get(f"{_PREFIX}{name.upper()}") or table.get(name)

        kv_type = said("kv_type")
        return cls(
            n_ctx=_count(said("n_ctx")),
            slots=_count(said("slots")),
            kv=said("kv"),
            kv_type=kv_type if str(kv_type).upper() in TYPES_BY_NAME else None,
            flash_attn=said("flash_attn"),
        )

    def applied(self, plan: ContextPlan) -> ContextPlan:
        """`plan` as a worker would make it."""
        if self.kv == "split":
            plan = replace(plan, is_unified=False)
        if self.kv_type is not None:
            plan = replace(plan, kv_type=self.kv_type)
        if self.flash_attn == "off":
            plan = replace(plan, flash_attention="off")
        elif self.flash_attn == "on":
            plan = replace(plan, flash_attention="on")
        return plan


def _count(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else None
