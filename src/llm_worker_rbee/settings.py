"""Every knob of a worker, once, typed, with its unit."""

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from llm_worker_rbee.engine.request import FlashAttention, KvType, LoadRequest
from rbee_shared.contracts.tasks import Backend
from rbee_shared.settings import DaemonSettings


class WorkerSettings(DaemonSettings):
    """Flags win over `RBEE_WORKER_…`, that over `[worker]` in config.toml, that over the defaults."""

    table: ClassVar[str] = "worker"
    model_config = SettingsConfigDict(
        env_prefix="RBEE_WORKER_", frozen=True, extra="forbid", protected_namespaces=(), env_ignore_empty=True
    )

    model: Path = Field(description="The GGUF file.")
    model_ref: str | None = Field(default=None, description="What the cluster calls it; default: file:PATH.")
    backend: Backend = "cpu"
    device: str = Field(default="0", max_length=64, description="Number of the backend's device.")
    bind: str = Field(default="127.0.0.1", description="The address to listen on; its hive chooses it.")
    port: int = Field(default=8001, ge=0, le=65_535, description="First port to try; 0 lets the system choose.")
    hive_url: str | None = None
    worker_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._:-]{1,128}$")
    slots: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Answers that are generated at a time; default: 4 on a processor, else 16.",
    )
    n_ctx: int | None = Field(
        default=None, ge=1, le=16_777_216, description="Context in tokens, for all slots; default: by model and memory."
    )
    kv: Literal["unified", "split"] = Field(
        default="unified", description="One cache that all slots share, or an equal part for each."
    )
    kv_type: KvType = Field(default="f16", description="Number format of the cache; smaller than f16 loses a little.")
    flash_attn: FlashAttention = Field(default="auto", description="auto: where the backend can.")
    threads: int | None = Field(default=None, ge=1, le=1024, description="Default: physical cores that are ours.")
    prefill_chunk: int | None = Field(
        default=None, ge=1, le=512, description="Prompt tokens of a step, always; default: adapts to the speed."
    )
    queue: int = Field(default=0, ge=0, le=100_000, description="Requests that may wait for a slot; local mode only.")
    local_mode: bool = Field(default=False, description="Serve alone: loopback only, no hive, no key.")

    @model_validator(mode="after")
    def _no_hive_when_local(self) -> Self:
        if self.local_mode and self.hive_url is not None:
            raise ValueError("local_mode has no hive: leave --hive-url out")
        return self

    @model_validator(mode="after")
    def _loopback_when_local(self) -> Self:
        if self.local_mode and self.bind != "127.0.0.1":
            raise ValueError("local_mode has no key: it listens on 127.0.0.1 only")
        return self

    @model_validator(mode="after")
    def _no_line_in_a_cluster(self) -> Self:
        if self.queue and not self.local_mode:
            raise ValueError("queue goes with local_mode: in a cluster the queen has the line")
        return self

    @model_validator(mode="after")
    def _small_numbers_need_flash_attention(self) -> Self:
        if self.flash_attn == "off" and self.kv_type not in {"f32", "f16"}:
            raise ValueError(f"a cache of {self.kv_type} needs flash attention: leave flash_attn out, or kv_type")
        return self

    @model_validator(mode="after")
    def _room_for_every_slot(self) -> Self:
        if self.slots is not None and self.n_ctx is not None and self.n_ctx < self.slots:
            raise ValueError(f"n_ctx is the context of all slots: {self.n_ctx} tokens are too few for {self.slots}")
        return self

    @property
    def reference(self) -> str:
        return self.model_ref or f"file:{self.model.absolute()}"

    @property
    def load_request(self) -> LoadRequest:
        return LoadRequest(
            path=self.model,
            n_ctx=self.n_ctx,
            slots=self.slots,
            is_unified=self.kv == "unified",
            kv_type=self.kv_type,
            flash_attention=self.flash_attn,
            threads=self.threads,
            prefill_chunk=self.prefill_chunk,
        )
