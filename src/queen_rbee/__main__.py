"""`python -m queen_rbee`, and the console script `queen-rbee`. No PDEATHSIG here: the queen outlives her spawner."""

import gc


def main() -> None:
    """Import late: Ctrl+C while libraries load is no traceback of ours."""
    gc.disable()  # until `run_daemon`
    from queen_rbee.cli import main as run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    main()
