"""The worker's command line: parse, call, exit with its status."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llm_worker_rbee.engine_path import use_engine
from llm_worker_rbee.probe import run_probe
from rbee_shared.daemon import Daemon, run_daemon
from rbee_shared.errors import InvalidRequestError, RbeeError
from rbee_shared.parent import Parent
from rbee_shared.settings import load_settings
from rbee_shared.version_option import VersionOption

if TYPE_CHECKING:
    from llm_worker_rbee.settings import WorkerSettings

PROGRAM = "llm-worker-rbee"


def worker(  # noqa: PLR0917 - typer calls it by name
    model: Annotated[str | None, typer.Option("--model", "--model-path", help="The GGUF file to serve.")] = None,
    model_ref: Annotated[str | None, typer.Option(help="What the cluster calls the model.")] = None,
    backend: Annotated[str | None, typer.Option(help="cpu, cuda, metal or vulkan.")] = None,
    device: Annotated[str | None, typer.Option(help="Number of the backend's device.")] = None,
    bind: Annotated[str | None, typer.Option(help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="First port to try; exactly this one with --local-mode.")] = None,
    hive_url: Annotated[str | None, typer.Option("--hive-url", "--callback-url", help="Where to report.")] = None,
    worker_id: Annotated[str | None, typer.Option(help="This worker's name in the cluster.")] = None,
    slots: Annotated[int | None, typer.Option(help="Answers that are generated at a time.")] = None,
    n_ctx: Annotated[int | None, typer.Option(help="Context in tokens, for all slots together.")] = None,
    kv: Annotated[str | None, typer.Option(help="unified: slots share one cache; split: each has a part.")] = None,
    kv_type: Annotated[str | None, typer.Option(help="Number format of the cache: f16, q8_0, q4_0, …")] = None,
    flash_attn: Annotated[str | None, typer.Option(help="auto, on or off.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads to compute with; default: physical cores.")] = None,
    prefill_chunk: Annotated[int | None, typer.Option(help="Prompt tokens of a step; default: adapts.")] = None,
    queue: Annotated[int | None, typer.Option(help="Requests that may wait for a slot, with --local-mode.")] = None,
    local_mode: Annotated[
        bool | None, typer.Option("--local-mode", help="Serve alone: loopback only, no hive, no key.")
    ] = None,
    engine_path: Annotated[
        Path | None, typer.Option(help="The worker build to run; default: what is installed.")
    ] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Say what the engine can do, as JSON, and exit.")] = False,
    parent: Annotated[str | None, typer.Option(help="`stdin`: a hive has started this worker.", hidden=True)] = None,
    version: VersionOption = False,
) -> None:
    """Serve one model. Started by a hive, or by hand with --local-mode."""
    if parent not in {None, Parent.STDIN}:
        raise typer.BadParameter("only `stdin` is known", param_hint="--parent")
    if probe:
        sys.exit(run_probe(engine_path))
    flags = {
        "model": model,
        "model_ref": model_ref,
        "backend": backend,
        "device": device,
        "bind": bind,
        "port": port,
        "hive_url": hive_url,
        "worker_id": worker_id,
        "slots": slots,
        "n_ctx": n_ctx,
        "kv": kv,
        "kv_type": kv_type,
        "flash_attn": flash_attn,
        "threads": threads,
        "prefill_chunk": prefill_chunk,
        "queue": queue,
        "local_mode": local_mode,
    }

    fault = _take_engine(engine_path)
    from llm_worker_rbee.life import serve_model  # noqa: PLC0415 - heavy, and only after the engine's path is set
    from llm_worker_rbee.settings import WorkerSettings  # noqa: PLC0415 - same

    async def body(daemon: Daemon) -> None:
        if fault is not None:
            raise fault
        settings = load_settings(WorkerSettings, flags=flags, config=daemon.home.config)
        _require_sense(settings, daemon)
        await serve_model(daemon, settings)

    sys.exit(run_daemon(PROGRAM, body, parent=Parent(parent) if parent else None, logs_to_stderr=parent is not None))


def run() -> None:
    """The console script."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(worker)
    app(prog_name=PROGRAM)


def _take_engine(directory: Path | None) -> RbeeError | None:
    """What is wrong with that worker build; told once there is a parent to tell it to."""
    try:
        if directory is not None:
            use_engine(directory)
    except RbeeError as error:
        return error
    return None


def _require_sense(settings: "WorkerSettings", daemon: Daemon) -> None:
    if settings.local_mode:
        return
    if daemon.handshake is None or not daemon.handshake.api_key:
        raise InvalidRequestError(
            "a worker is started by its hive, which gives it a key",
            hint="To serve a model by hand add --local-mode; for a cluster use rbee-keeper.",
        )
