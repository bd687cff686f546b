"""`pool worker …`: the workers of nodes."""

from typing import Annotated

import typer

from rbee_keeper.commands.errands import Common, asked_of
from rbee_keeper.commands.options import Host, Json, QueenUrl, Quiet, TokenFile

app = typer.Typer(help="Workers: one process for each loaded model.", no_args_is_help=True)


@app.command()
def spawn(
    backend: Annotated[str, typer.Argument(help="cpu, cuda, metal or vulkan.")],
    *,
    model: Annotated[str, typer.Option(help="A model of the node's catalog: its id, alias or reference.")],
    gpu: Annotated[int | None, typer.Option(help="Which of the backend's devices, from 0 [the first].")] = None,
    n_ctx: Annotated[int | None, typer.Option(help="Context in tokens [the model's].")] = None,
    slots: Annotated[int | None, typer.Option(help="Answers at the same time.")] = None,
    host: Host = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Start a worker and wait until it serves. Its queen must be a standing one."""
    from rbee_keeper.pool import workers  # noqa: PLC0415
    from rbee_keeper.pool.hosts import STARTING  # noqa: PLC0415
    from rbee_keeper.wire_forms import order_of  # noqa: PLC0415
    from rbee_shared.contracts.provisions import WorkerProvisionRequest  # noqa: PLC0415
    from rbee_shared.contracts.workers import SpawnRequest  # noqa: PLC0415
    from rbee_shared.ids import new_correlation_id  # noqa: PLC0415

    with asked_of(host, Common(queen_url, token_file, json, quiet)) as ask:
        build = order_of(WorkerProvisionRequest, kind=backend)
        order = order_of(
            SpawnRequest, model=model, backend=build.bare_kind, device=gpu, n_ctx=n_ctx, slots=slots,
            request_id=new_correlation_id(),
        )  # fmt: skip
        ask(STARTING, "the worker to be ready", workers.spawn(order, build))


@app.command("list")
def list_(
    *,
    host: Host = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
) -> None:
    """The workers of a node."""
    from rbee_keeper.pool import workers  # noqa: PLC0415
    from rbee_keeper.pool.hosts import LOOKING  # noqa: PLC0415

    with asked_of(host, Common(queen_url, token_file, json)) as ask:
        ask(LOOKING, "the workers", workers.listed)


@app.command()
def stop(
    worker_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    host: Host = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Stop a worker; done when it is gone."""
    from rbee_keeper.pool import workers  # noqa: PLC0415
    from rbee_keeper.pool.hosts import STOPPING  # noqa: PLC0415

    with asked_of(host, Common(queen_url, token_file, json, quiet)) as ask:
        ask(STOPPING, f"{worker_id} to stop", workers.stop(worker_id))


@app.command("stop-all")
def stop_all(
    *,
    host: Host = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Stop all workers of a node side by side; done when they are gone."""
    from rbee_keeper.pool import workers  # noqa: PLC0415
    from rbee_keeper.pool.hosts import STOPPING  # noqa: PLC0415

    with asked_of(host, Common(queen_url, token_file, json, quiet)) as ask:
        ask(STOPPING, "the workers to stop", workers.stop_all)
