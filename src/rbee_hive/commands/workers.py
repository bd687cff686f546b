"""`worker …`: the workers of the hive that runs here."""

from typing import Annotated

import typer

from rbee_hive.commands.options import Json
from rbee_hive.local.session import session, wire
from rbee_hive.local.worker_start import start_worker
from rbee_shared import hive_views as views
from rbee_shared.contracts.hives import FarewellList, WorkerFarewell
from rbee_shared.contracts.workers import SpawnRequest, WorkerList
from rbee_shared.errors import error_from_body
from rbee_shared.ids import new_correlation_id

app = typer.Typer(help="Workers of the hive that runs here.", no_args_is_help=True)


@app.command()
def spawn(
    backend: Annotated[str, typer.Argument(help="cpu, cuda, metal or vulkan.")],
    model: Annotated[str, typer.Option(help="A model of the catalog: its id, alias or reference.")],
    gpu: Annotated[int | None, typer.Option(min=0, help="Which of the backend's devices. Default: the first.")] = None,
    n_ctx: Annotated[int | None, typer.Option(help="Context in tokens. Default: the model's.")] = None,
    slots: Annotated[int | None, typer.Option(help="Answers at the same time.")] = None,
    json: Json = False,
) -> None:
    """Start a worker and wait until it serves."""
    with session(json=json) as here:
        order = wire(
            SpawnRequest, model=model, backend=backend, device=gpu, n_ctx=n_ctx, slots=slots,
            request_id=new_correlation_id(),
        )  # fmt: skip
        worker = here.on_hive(lambda hive: start_worker(hive, order, here.screen), waiting_for="the worker to be ready")
        here.screen.answer(worker, lambda _: f"{worker.worker_id} is {worker.state} at {worker.url}")


@app.command("list")
def list_(json: Json = False) -> None:
    """The workers of this node."""
    with session(json=json) as here:
        records = here.on_hive(lambda hive: hive.workers(), waiting_for="the hive")
        here.screen.answer(WorkerList(workers=records), lambda width: views.workers(records, width))


@app.command()
def stop(worker_id: Annotated[str, typer.Argument(metavar="ID")], json: Json = False) -> None:
    """Stop a worker; done when it is gone."""
    with session(json=json) as here:
        done = here.on_hive(lambda hive: hive.stop(worker_id), waiting_for=f"{worker_id} to stop")
        here.screen.answer(done, lambda _: views.farewells((done,)))
        _require_clean(done)


@app.command("stop-all")
def stop_all(json: Json = False) -> None:
    """Stop all workers side by side; done when they are gone."""
    with session(json=json) as here:
        done = here.on_hive(lambda hive: hive.stop_all(), waiting_for="the workers to stop")
        here.screen.answer(FarewellList(workers=done), lambda _: views.farewells(done))
        for worker in done:
            _require_clean(worker)


def _require_clean(worker: WorkerFarewell) -> None:
    """Raise what went wrong at its end: above all that its memory did not come back."""
    if worker.error is not None:
        raise error_from_body(worker.error)
