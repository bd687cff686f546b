"""`python -m queen_rbee`."""


def main() -> None:
    """Entry point of the console script. The queen outlives her spawner: no PDEATHSIG here."""
    from queen_rbee.cli import app  # noqa: PLC0415 - keeps the module importable without its libraries

    app()


if __name__ == "__main__":
    main()
