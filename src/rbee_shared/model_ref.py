"""Model references: `builtin:NAME`, `file:/absolute/path.gguf`, `hf:owner/repo[:quant|file][@rev]`, or a catalog id."""

import re
from dataclasses import dataclass
from typing import Literal

from typing_extensions import override

from rbee_shared.errors import InvalidRequestError

Provider = Literal["builtin", "file", "hf", "id"]

_HUB_REPO = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"  # owner/repo
    r"(:[A-Za-z0-9][A-Za-z0-9._+/ -]*)?"  # a quantization, or a file, maybe in a folder
    r"(@[A-Za-z0-9][A-Za-z0-9._/-]*)?"  # a revision
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ModelRef:
    """A parsed reference. `reference` is what stands behind the colon."""

    provider: Provider
    reference: str

    @override
    def __str__(self) -> str:
        return self.reference if self.provider == "id" else f"{self.provider}:{self.reference}"


def parse_model_ref(text: str) -> ModelRef:
    """Read a reference; the form alone is checked, not whether the model exists.

    Raises:
        InvalidRequestError: it has none of the forms.
    """
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if colon and scheme == "file":
        return _file(rest)
    if ".." in text:
        raise _no_reference(text)
    if colon and scheme == "builtin" and _NAME.fullmatch(rest):
        return ModelRef("builtin", rest)
    if colon and scheme == "hf" and _HUB_REPO.fullmatch(rest):
        return ModelRef("hf", rest)
    if _HUB_REPO.fullmatch(text):
        return ModelRef("hf", text)
    if not colon and _NAME.fullmatch(text):
        return ModelRef("id", text)
    raise _no_reference(text)


def _no_reference(text: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{text!r} is not a model reference",
        hint="Write builtin:storyteller, file:/absolute/path.gguf, hf:owner/repo or the id of a model in the catalog.",
    )


def _file(path: str) -> ModelRef:
    if not path.startswith("/") or _CONTROL.search(path) or ".." in path.split("/"):
        raise InvalidRequestError(
            f"file:{path!r} must name an absolute path without `..`", hint="Write file:/absolute/path.gguf."
        )
    return ModelRef("file", path)
