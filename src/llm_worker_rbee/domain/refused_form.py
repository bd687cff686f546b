"""Why the form asked of an answer (a grammar or a schema) is refused."""


class RefusedFormError(ValueError):
    """The form cannot be enforced; `keys` are the keywords or rules at fault."""

    def __init__(self, message: str, keys: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.keys = keys
