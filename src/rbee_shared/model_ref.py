"""Model references: `builtin:NAME`, `file:/path.gguf`, `hf:owner/repo[:quant|file][@rev]`, a URL, or an id.

A URL names a GGUF file and carries its hash: `https://host/path.gguf#sha256=<64 hex digits>`.
"""

import re
from dataclasses import dataclass
from typing import Literal

from typing_extensions import override

from rbee_shared.errors import InvalidRequestError

Provider = Literal["builtin", "file", "hf", "url", "id"]

_HUB_REPO = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"  # owner/repo
    r"(:[A-Za-z0-9][A-Za-z0-9._+/ -]*)?"  # a quantization, or a file, maybe in a folder
    r"(@[A-Za-z0-9][A-Za-z0-9._/-]*)?"  # a revision
)
_URL = re.compile(r"https?://[!-~]+")
_HASH = re.compile(r"sha256=[0-9a-fA-F]{64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ModelRef:
    """A parsed reference. `reference` is what stands behind the colon; of a URL or an id, all of it."""

    provider: Provider
    reference: str

    @override
    def __str__(self) -> str:
        return self.reference if self.provider in {"id", "url"} else f"{self.provider}:{self.reference}"

    @property
    def source(self) -> str:
        """Where the model comes from, without a choice among what is there: `owner/repo`, a path, a URL, a name."""
        if self.provider == "url":
            return self.reference.partition("#")[0]
        return self._hub_parts[0] if self.provider == "hf" else self.reference

    @property
    def wish(self) -> str:
        """The quantization or file of a Hub repository; empty if it was left open."""
        return self._hub_parts[1] if self.provider == "hf" else ""

    @property
    def revision(self) -> str:
        """The commit, branch or tag of a Hub repository; empty if it was left open."""
        return self._hub_parts[2] if self.provider == "hf" else ""

    @property
    def sha256(self) -> str | None:
        """The hash that a URL carries."""
        fragment = self.reference.partition("#")[2] if self.provider == "url" else ""
        return fragment.removeprefix("sha256=").lower() if fragment.startswith("sha256=") else None

    @property
    def _hub_parts(self) -> tuple[str, str, str]:
        chosen, _, revision = self.reference.partition("@")
        repo, _, wish = chosen.partition(":")
        return repo, wish, revision


def parse_model_ref(text: str) -> ModelRef:
    """Read a reference; the form alone is checked, not whether the model exists.

    Raises:
        InvalidRequestError: it has none of the forms.
    """
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if colon and scheme == "file":
        return _file(rest)
    if colon and scheme in {"http", "https"}:
        return _url(text)
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


def _url(text: str) -> ModelRef:
    address, _, fragment = text.partition("#")
    well_formed = _URL.fullmatch(text) and "@" not in address and (not fragment or _HASH.fullmatch(fragment))
    if not well_formed:
        raise InvalidRequestError(
            f"{text!r} is not the URL of a model", hint="Write https://HOST/PATH.gguf#sha256=<64 hex digits>."
        )
    return ModelRef("url", text)


def _file(path: str) -> ModelRef:
    if not path.startswith("/") or _CONTROL.search(path) or ".." in path.split("/"):
        raise InvalidRequestError(
            f"file:{path!r} must name an absolute path without `..`", hint="Write file:/absolute/path.gguf."
        )
    return ModelRef("file", path)
