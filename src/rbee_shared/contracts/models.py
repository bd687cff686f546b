"""Models in a hive's catalog."""

from pydantic import Field

from rbee_shared.contracts.base import Wire


class ModelRow(Wire):
    """One row of `models.db`. `downloaded_at_unix` is in seconds."""

    id: str
    provider: str
    reference: str
    local_path: str
    size_bytes: int
    downloaded_at_unix: int


class ModelList(Wire):
    """`GET /v1/models`."""

    models: tuple[ModelRow, ...]


class ImportRequest(Wire):
    """`POST /v1/models/import`: catalog a GGUF file that lies on this node."""

    path: str = Field(min_length=1, max_length=4096)
    anywhere: bool = Field(default=False, description="The user at this machine named it: any readable file will do.")
