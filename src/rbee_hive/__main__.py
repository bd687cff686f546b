"""`python -m rbee_hive`, and the console script `rbee-hive`."""

import gc
import signal

from rbee_shared.parent_death import die_with_parent


def main() -> None:
    """Ask for the parent's death first: everything else is imported after that."""
    die_with_parent(signal.SIGTERM)
    gc.disable()  # until `run_daemon`
    from rbee_hive.cli import main as run  # noqa: PLC0415

    run()


if __name__ == "__main__":
    main()
