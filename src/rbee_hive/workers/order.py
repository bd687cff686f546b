"""What a worker is started with. Its key is not in the command line: that goes by pipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rbee_shared.programs import program_argv


@dataclass(frozen=True)
class WorkerOrder:
    """What somebody asked for.

    `backend`, `device`: what the cluster calls it. `runs_on`: the worker's own `--backend` and `--device`; they differ
    where a device has another number there, or is declared and served by another build.
    `ordered_by`: whose the hive was then (`Ownership.orders_as`). `pinned`: it stays however long it is idle.
    `engine_path`: the directory of the worker build; None is the hive's own environment.
    """

    worker_id: str
    api_key: str = field(repr=False)
    model_ref: str
    model_path: str
    backend: str
    device: str
    runs_on: tuple[str, str]
    port: int
    bind: str = "127.0.0.1"
    n_ctx: int | None = None
    slots: int | None = None
    ordered_by: str | None = None
    correlation_id: str | None = None
    model_id: str | None = None
    pinned: bool = False
    engine_path: str | None = None
    extra_env: Mapping[str, str] = field(default_factory=dict)

    def argv(self, hive_url: str | None) -> list[str]:
        """The command line that starts it. `hive_url` None: it reports to nobody."""
        argv = [*program_argv("llm-worker-rbee"), "--parent", "stdin", "--worker-id", self.worker_id]
        argv += ["--model", self.model_path, "--model-ref", self.model_ref]
        argv += ["--backend", self.runs_on[0], "--device", self.runs_on[1]]
        argv += ["--bind", self.bind, "--port", str(self.port)]
        if hive_url is not None:
            argv += ["--hive-url", hive_url]
        if self.n_ctx is not None:
            argv += ["--n-ctx", str(self.n_ctx)]
        if self.slots is not None:
            argv += ["--slots", str(self.slots)]
        if self.engine_path is not None:
            argv += ["--engine-path", self.engine_path]
        return argv
