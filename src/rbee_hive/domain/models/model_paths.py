"""Where fetched models lie below the model directory, and what a place there tells of its model. Paths are relative.

`hf/<owner>/<repo>/<commit>/<file>` and `url/<sha256>/<file>`: two revisions never share a file, and a catalog that was
lost can be made anew from the paths.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

_HUB_DEPTH = 5
_URL_DEPTH = 2


@dataclass(frozen=True)
class Origin:
    """Where a model comes from: together unique in the catalog. `reference`: owner/repo, a path, a URL, a name."""

    provider: str
    reference: str
    file: str = ""
    revision: str = ""


def hub_path(repo: str, commit: str, file: PurePosixPath) -> PurePosixPath:
    """`owner/repo`, `0123…`, `Q4/x.gguf`: `hf/owner/repo/0123…/Q4/x.gguf`."""
    return PurePosixPath("hf", repo, commit) / file


def url_path(sha256: str, name: str) -> PurePosixPath:
    return PurePosixPath("url", sha256, name)


def known_hashes(path: PurePosixPath, root: PurePosixPath) -> dict[str, str]:
    """SHA-256 by file name, where the place itself tells it."""
    kind, *more = path.relative_to(root).parts
    return {path.name: more[0]} if kind == "url" and len(more) == _URL_DEPTH else {}


def origin_of(path: PurePosixPath, root: PurePosixPath) -> Origin:
    """Where the file at `path` below the model directory `root` came from; what was put there by hand is a `file`."""
    parts = path.relative_to(root).parts
    if parts[0] == "hf" and len(parts) >= _HUB_DEPTH:
        _, owner, repo, commit, *file = parts
        return Origin("hf", f"{owner}/{repo}", "/".join(file), commit)
    return Origin("file", str(path))
