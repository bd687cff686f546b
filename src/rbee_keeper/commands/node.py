"""`node …`: the machines of the cluster. The queen reaches them over SSH; nothing but sshd and Python need be there."""

from typing import Annotated

import typer

from rbee_keeper.commands.consent import Yes, require_consent
from rbee_keeper.commands.errands import Common, errand
from rbee_keeper.commands.options import Check, Drain, Json, NodeName, QueenUrl, Quiet, TokenFile

app = typer.Typer(help="Nodes: the machines of the cluster, reached over SSH.", no_args_is_help=True)

_MEANT = "Say that you mean it: --yes; or leave them there: --keep-models."

Fingerprint = Annotated[
    str | None, typer.Option(metavar="SHA256:…", help="Of its host key, for scripts; else it is shown and asked.")
]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What it is called here.")],
    *,
    host: Annotated[str | None, typer.Option(help="Its address, or a Host of ~/.ssh/config [NAME].")] = None,
    port: Annotated[str | None, typer.Option(metavar="N", help="Of its SSH server [as ssh finds it].")] = None,
    user: Annotated[str | None, typer.Option(help="Whose account there [as ssh finds it].")] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A file of the queen's machine, whose '~' is her home [agent, usual keys]."),
    ] = None,
    transport: Annotated[str | None, typer.Option(help="ssh, or http beside it [ssh].")] = None,
    hive_port: Annotated[str | None, typer.Option(metavar="N", help="Where its hive listens [9200].")] = None,
    home: Annotated[str | None, typer.Option(help="Where rbee keeps its files there [~/.rbee].")] = None,
    install: Annotated[
        bool | None,
        typer.Option("--install/--no-install", help="Install and update rbee there when needed [--install]."),
    ] = None,
    fingerprint: Fingerprint = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take a machine into the cluster, or change what is known of it.

    Of a node that is known only what is named changes. An empty value takes an option back to its default: --port ''.
    """
    from rbee_keeper.errand import Need  # noqa: PLC0415
    from rbee_keeper.nodes.actions import Adding  # noqa: PLC0415
    from rbee_keeper.nodes.key_files import key_for_queen  # noqa: PLC0415
    from rbee_keeper.settings import load_settings  # noqa: PLC0415
    from rbee_keeper.wire_forms import order_of  # noqa: PLC0415
    from rbee_shared.contracts.nodes import NodeOrder  # noqa: PLC0415

    with errand(Common(queen_url, token_file, json, quiet)) as go:
        is_elsewhere = load_settings(queen_url=queen_url).queen_url is not None
        order = order_of(
            NodeOrder, name=name, host=host, port=port, user=user, transport=transport, hive_port=hive_port, home=home,
            key=key_for_queen(key, is_elsewhere=is_elsewhere), install=install, fingerprint=fingerprint,
        )  # fmt: skip
        go(Need.CHANGES, Adding(order))


@app.command("list")
def list_(*, queen_url: QueenUrl = None, token_file: TokenFile = None, json: Json = False) -> None:
    """Every node of the catalog. Exit 3 when the queen is asleep."""
    from rbee_keeper.errand import Need  # noqa: PLC0415
    from rbee_keeper.nodes.actions import list_nodes  # noqa: PLC0415

    with errand(Common(queen_url, token_file, json)) as go:
        go(Need.READS, list_nodes)


@app.command()
def show(name: NodeName, *, queen_url: QueenUrl = None, token_file: TokenFile = None, json: Json = False) -> None:
    """All that the queen knows of one. Exit 3 when she is asleep."""
    from rbee_keeper.errand import Need  # noqa: PLC0415
    from rbee_keeper.nodes.actions import Showing  # noqa: PLC0415

    with errand(Common(queen_url, token_file, json)) as go:
        go(Need.READS, Showing(name))


@app.command()
def remove(
    name: NodeName,
    *,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Forget a machine; its hive is stopped, what is installed there stays."""
    from rbee_keeper.errand import Need  # noqa: PLC0415
    from rbee_keeper.nodes.actions import Removing  # noqa: PLC0415

    with errand(Common(queen_url, token_file, json, quiet)) as go:
        go(Need.CHANGES, Removing(name))


@app.command()
def trust(
    name: NodeName,
    *,
    fingerprint: Fingerprint = None,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Accept a host key that has changed, after both were shown."""
    from rbee_keeper.errand import Need  # noqa: PLC0415
    from rbee_keeper.nodes.actions import Trusting  # noqa: PLC0415
    from rbee_keeper.wire_forms import order_of  # noqa: PLC0415
    from rbee_shared.contracts.nodes import TrustOrder  # noqa: PLC0415

    with errand(Common(queen_url, token_file, json, quiet)) as go:
        go(Need.CHANGES, Trusting(name, order_of(TrustOrder, fingerprint=fingerprint)))


@app.command("test")
def try_out(
    name: NodeName,
    *,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try a machine from reaching it to its version; changes nothing there."""
    from rbee_keeper.errand import Need  # noqa: PLC0415
    from rbee_keeper.nodes.actions import Action  # noqa: PLC0415

    with errand(Common(queen_url, token_file, json, quiet)) as go:
        go(Need.CHANGES, Action(name, "test"))


@app.command()
def start(
    name: NodeName,
    *,
    no_install: Annotated[bool, typer.Option("--no-install", help="Do not install or update rbee there.")] = False,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Wake the hive of a node; it goes with the queen, who must be a standing one."""
    from rbee_keeper.errand import Need  # noqa: PLC0415
    from rbee_keeper.nodes.actions import Action  # noqa: PLC0415
    from rbee_shared.contracts.nodes import NodeAction  # noqa: PLC0415

    with errand(Common(queen_url, token_file, json, quiet)) as go:
        go(Need.LEAVES_RUNNING, Action(name, "start", NodeAction(install=not no_install)))


@app.command()
def stop(
    name: NodeName,
    *,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Stop the hive of a node with its workers."""
    from rbee_keeper.errand import Need  # noqa: PLC0415
    from rbee_keeper.nodes.actions import Action  # noqa: PLC0415

    with errand(Common(queen_url, token_file, json, quiet)) as go:
        go(Need.STOPS, Action(name, "stop"))


@app.command()
def drain(
    name: NodeName,
    *,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give a node no new work; what runs there goes on."""
    from rbee_keeper.errand import Need  # noqa: PLC0415
    from rbee_keeper.nodes.actions import Action  # noqa: PLC0415

    with errand(Common(queen_url, token_file, json, quiet)) as go:
        go(Need.CHANGES, Action(name, "drain"))


@app.command()
def resume(
    name: NodeName,
    *,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Give a drained node work again."""
    from rbee_keeper.errand import Need  # noqa: PLC0415
    from rbee_keeper.nodes.actions import Action  # noqa: PLC0415

    with errand(Common(queen_url, token_file, json, quiet)) as go:
        go(Need.CHANGES, Action(name, "resume"))


@app.command()
def install(
    name: NodeName,
    *,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Install rbee on a node, in its home there."""
    from rbee_keeper.errand import Need  # noqa: PLC0415
    from rbee_keeper.nodes.actions import Action  # noqa: PLC0415

    with errand(Common(queen_url, token_file, json, quiet)) as go:
        go(Need.CHANGES, Action(name, "install"))


@app.command()
def update(
    name: NodeName,
    *,
    check: Check = False,
    drain: Drain = False,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bring a node to the queen's own version."""
    from rbee_keeper.errand import Need  # noqa: PLC0415
    from rbee_keeper.nodes.actions import Action  # noqa: PLC0415
    from rbee_shared.contracts.nodes import NodeAction  # noqa: PLC0415

    with errand(Common(queen_url, token_file, json, quiet)) as go:
        go(Need.CHANGES, Action(name, "update", NodeAction(check=check, drain=drain)))


@app.command()
def uninstall(
    name: NodeName,
    *,
    keep_models: Annotated[bool, typer.Option("--keep-models", help="Leave the models there.")] = False,
    yes: Yes = False,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Leave the account on a node as it was before: models that were fetched there are deleted too."""
    from rbee_keeper.errand import Need  # noqa: PLC0415
    from rbee_keeper.nodes.actions import Action  # noqa: PLC0415
    from rbee_shared.contracts.nodes import NodeAction  # noqa: PLC0415

    with errand(Common(queen_url, token_file, json, quiet)) as go:
        if not yes and not keep_models:
            require_consent(
                f"Remove rbee and all its models from {name}?", f"{name} would lose its models", hint=_MEANT
            )
        go(Need.CHANGES, Action(name, "uninstall", NodeAction(keep_models=keep_models)))


@app.command()
def wheelhouse(
    name: NodeName,
    *,
    queen_url: QueenUrl = None,
    token_file: TokenFile = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Collect here what a node without a package index needs to install."""
    from rbee_keeper.errand import Need  # noqa: PLC0415
    from rbee_keeper.nodes.actions import Action  # noqa: PLC0415

    with errand(Common(queen_url, token_file, json, quiet)) as go:
        go(Need.CHANGES, Action(name, "wheelhouse"))
