"""What a worker is started with. Its key is not in the command line: that goes by pipe."""

from dataclasses import dataclass, field

from rbee_shared.programs import program_argv


@dataclass(frozen=True)
class WorkerOrder:
    """What somebody asked for. `ordered_by`: the queen's URL, None for whoever else has the token."""

    worker_id: str
    api_key: str = field(repr=False)
    model_ref: str
    model_path: str
    backend: str
    device: str
    port: int
    n_ctx: int | None = None
    slots: int | None = None
    ordered_by: str | None = None
    correlation_id: str | None = None

    def argv(self, hive_url: str) -> list[str]:
        """The command line that starts it."""
        argv = [*program_argv("llm-worker-rbee"), "--parent", "stdin", "--worker-id", self.worker_id]
        argv += ["--model", self.model_path, "--model-ref", self.model_ref, "--backend", self.backend]
        argv += ["--device", self.device, "--port", str(self.port), "--hive-url", hive_url]
        if self.n_ctx is not None:
            argv += ["--n-ctx", str(self.n_ctx)]
        if self.slots is not None:
            argv += ["--slots", str(self.slots)]
        return argv
