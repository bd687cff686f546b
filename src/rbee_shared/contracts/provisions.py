"""Provisioning: a hive fetches a model or makes a worker build, and tells how far it is.

The events of a provision are `progress`, `narration`, and exactly one of `end` (`ProvisionEnd`) and `error`; then
`data: [DONE]`. Whoever reads them waits for it: when the last reader leaves, the work is cancelled. Work that nobody
ever read is finished.
"""

from typing import Literal

from pydantic import Field

from rbee_shared.contracts.base import Wire
from rbee_shared.contracts.models import ModelRow

BuildSource = Literal["environment", "wheel", "compiled"]
BuildKind = Literal["cpu", "cuda", "metal", "vulkan"]
_SUFFIX = "-llm-worker-rbee"


class BuildRow(Wire):
    """One row of `workers.db`: llama-cpp-python compiled for a kind of device.

    `path`: the directory that goes first on `sys.path`; None for the hive's own environment. `backends`: what the
    library itself says it can compute on. `platform`, `python`: what it was made for (`linux-x86_64`, `cp311`).
    """

    id: str = Field(description="`<kind>-<version>`, or `<kind>-builtin` for the hive's own environment.")
    kind: BuildKind
    version: str = Field(description="Of llama-cpp-python.")
    path: str | None = None
    backends: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    python: str
    platform: str
    made_at_unix: int
    size_bytes: int = 0
    source: BuildSource


class BuildList(Wire):
    """`GET /v1/builds`."""

    builds: tuple[BuildRow, ...]


class WorkerProvisionRequest(Wire):
    """`POST /v1/workers/provision`: have a worker build of that kind."""

    kind: str = Field(min_length=1, max_length=64, description="cpu, cuda, metal, vulkan, or cuda-llm-worker-rbee.")
    rebuild: bool = Field(default=False, description="Make it anew although there is one.")

    @property
    def bare_kind(self) -> str:
        return self.kind.lower().removesuffix(_SUFFIX)


class ProvisionAnswer(Wire):
    """202: it is under way, or done already; `events_url` tells either."""

    provision_id: str
    events_url: str
    done: bool = False


class ProvisionEnd(Wire):
    """The data of the `end` event: what is there now."""

    type: Literal["end"] = "end"
    model: ModelRow | None = None
    build: BuildRow | None = None
    bytes_fetched: int = Field(default=0, description="Over the network, for this; 0 when nothing had to be fetched.")
    elapsed_s: float = 0.0
