"""Models in a hive's catalog."""

from typing import Annotated

from pydantic import Field

from rbee_shared.contracts.base import Wire
from rbee_shared.contracts.model_name import NamesModel

MODEL_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
"""What a model's id or alias looks like: it stands in URLs and command lines as it is."""

Alias = Annotated[str, Field(pattern=MODEL_ID)]


class ModelFileRow(Wire):
    """One file of a model: the only one, or one part of a split GGUF. `modified_ns`: its mtime when it was taken in."""

    path: str
    size_bytes: int
    sha256: str | None = None
    modified_ns: int | None = None


class ModelRow(Wire):
    """One row of `models.db`. Times are in UNIX seconds. A registered model that was not fetched has no `local_path`.

    `sha256`: of the file; of a split model, of its parts' hashes in order. None until somebody has computed it.
    """

    id: str
    name: str = ""
    provider: str
    reference: str
    file: str = ""
    revision: str = ""
    local_path: str | None = None
    size_bytes: int = 0
    downloaded_at_unix: int | None = None
    architecture: str | None = None
    quant: str | None = None
    sha256: str | None = None
    last_used_unix: int | None = None
    use_count: int = 0
    pinned: bool = Field(default=False, description="Never idle-stopped, and its files are not removed.")
    asked_revision: str = Field(default="", description="The branch or tag that was asked for; `revision`: its commit.")
    aliases: tuple[str, ...] = ()
    files: tuple[ModelFileRow, ...] = ()

    @property
    def is_downloaded(self) -> bool:
        return self.local_path is not None

    @property
    def canonical_ref(self) -> str:
        """The reference that means this row and no other: `hf:owner/repo:file@revision` for one from the Hub."""
        if self.provider == "url":
            return self.reference + (f"#sha256={self.sha256}" if self.sha256 else "")
        file = f":{self.file}" if self.provider == "hf" and self.file else ""
        revision = f"@{self.revision}" if self.provider == "hf" and self.revision else ""
        return f"{self.provider}:{self.reference}{file}{revision}"


class ModelList(Wire):
    """`GET /v1/models`."""

    models: tuple[ModelRow, ...]


class RegisterRequest(Wire):
    """`POST /v1/models/register`: a row without a file, for a repository of the Hub."""

    id: str = Field(pattern=MODEL_ID)
    name: str = Field(default="", max_length=256)
    repo: str = Field(min_length=1, max_length=512, description="owner/repo, or any hf: reference.")
    architecture: str | None = Field(default=None, max_length=64)
    aliases: tuple[Alias, ...] = Field(default=(), max_length=16)


class ImportRequest(Wire):
    """`POST /v1/models/import`: catalog a GGUF file that lies on this node; of a split model, its first part."""

    path: str = Field(min_length=1, max_length=4096)
    anywhere: bool = Field(default=False, description="The user at this machine named it: any readable file will do.")
    id: str | None = Field(default=None, pattern=MODEL_ID, description="Default: the file's stem, made unique.")
    name: str = Field(default="", max_length=256)
    aliases: tuple[Alias, ...] = Field(default=(), max_length=16)


class ModelChange(Wire):
    """`PATCH /v1/models/{id}`: what is given is changed. `aliases` replaces them all."""

    name: str | None = Field(default=None, max_length=256)
    pinned: bool | None = None
    aliases: tuple[Alias, ...] | None = Field(default=None, max_length=16)


class ModelProvisionRequest(NamesModel):
    """`POST /v1/models/provision`: have a model on this node. `model`: a reference, or the id of a registered row."""

    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$", description="Wanted with an https URL.")
    id: str | None = Field(default=None, pattern=MODEL_ID, description="Default: the file's stem, made unique.")


class FileCheck(Wire):
    """What became of one file at a verification. `expected_sha256` None: none was known, so it was noted."""

    path: str
    ok: bool
    sha256: str | None = None
    expected_sha256: str | None = None
    problem: str | None = None


class Verification(Wire):
    """`POST /v1/models/{id}/verify`."""

    id: str
    ok: bool
    files: tuple[FileCheck, ...]


class Removal(Wire):
    """`DELETE /v1/models/{id}`. `files_removed`: paths that are gone with the row."""

    id: str
    files_removed: tuple[str, ...] = ()
    freed_bytes: int = 0
