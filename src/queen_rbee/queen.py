"""The queen's life, as blocks: bind, open the catalog, build her parts, serve until told to stop, stop the cluster."""

from pathlib import Path

import anyio

from queen_rbee.app import create_app, create_callback_app
from queen_rbee.assembly import assembled
from queen_rbee.services import Services
from queen_rbee.settings import QueenSettings
from rbee_shared.auth import read_or_make_token, read_token
from rbee_shared.daemon import Daemon
from rbee_shared.narration import correlation_id
from rbee_shared.run_file import run_file
from rbee_shared.server import bind, serving, url_of

_LAST_WORDS_S = 2.0


async def live(daemon: Daemon, settings: QueenSettings, token_file: Path | None) -> None:
    """Serve until `daemon.stopping`; every hive she woke is gone when this returns."""
    listener = bind(settings.bind, settings.port)
    url = url_of(listener)
    token = read_token(token_file) if token_file else read_or_make_token(daemon.home.token)
    async with (
        assembled(daemon, settings, token, url) as services,
        serving(create_app(services), listener, header_s=daemon.clocks.header_s, drain_s=_LAST_WORDS_S),
    ):
        services.callbacks.serve_with(create_callback_app(services))
        with run_file(daemon.home.run_file("queen-rbee"), url=url, instance=daemon.instance):
            daemon.hub.announce("listening", url=url, instance=daemon.instance)
            services.narrator.tell("listening", f"queen is awake on {url}", cute="👑")
            await daemon.stopping.requested.wait()
        await shut_down(services)


async def shut_down(services: Services) -> None:
    """Take nothing new, stop the hives in parallel, say goodbye. Bounded; streams are told before they are cut."""
    daemon, narrator = services.daemon, services.narrator
    correlation_id.set(daemon.stopping.correlation_id)
    services.holds.leave()
    with anyio.move_on_after(daemon.clocks.queen_drain_s):
        services.dispatcher.abandon_waiting()
        services.errands.close()
        if services.hives.all():
            narrator.tell("stop_hives", "shutting down hives", cute="🌙")
        await services.lifecycle.ending.stop_all(cascade=daemon.stopping.cascade)
    narrator.tell("goodbye", "goodbye", cute="👋")
    for task in list(services.tasks.unfinished()):
        services.dispatcher.give_up(task)
    services.holds.farewell()
    daemon.hub.events.close()
