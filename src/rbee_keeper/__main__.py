"""`rbee-keeper` (alias `rbee`): the user's hand. Only what its command needs is imported."""

import gc
import sys


def main() -> None:
    """Entry point of the console scripts."""
    try:
        gc.disable()  # what is imported stays: looking for garbage in it is a tenth of the start
        from rbee_keeper.cli import run  # noqa: PLC0415 - Ctrl+C while libraries load is no traceback

        sys.exit(run())
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
