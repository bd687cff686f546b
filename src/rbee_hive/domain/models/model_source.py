"""Which files of a Hub repository make up the model that was asked for, and which names may become paths on this disk.

What a repository lists is a stranger's word: every name that is chosen has passed `safe_relative_path`.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from rbee_hive.domain.models.quant_names import is_companion, is_gguf, is_projector, normal_quant, quant_of, split_part
from rbee_shared.errors import ModelInvalidError, NoGgufInRepoError

# how near to the usual choice: what most people would take where Q4_K_M is missing, smallest loss of quality first
_BY_CUSTOM = (
    "Q4_K_M", "UD-Q4_K_XL", "Q4_K_XL", "Q4_K_L", "Q4_K_S", "IQ4_NL", "IQ4_XS", "Q4_1", "Q4_0", "MXFP4_MOE", "MXFP4",
    "Q5_K_M", "UD-Q5_K_XL", "Q5_K_S", "Q5_1", "Q5_0", "Q6_K", "Q8_0", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "Q2_K",
    "F16", "BF16", "F32",
)  # fmt: skip
_SAFE_NAME = re.compile(r"[\x20-\x7e]+")
_MAX_PATH = 1000
_MAX_COMPONENT = 200  # a file name has 255 bytes, and a partial download is called a little longer
_SHOWN = 20


@dataclass(frozen=True)
class HubFile:
    """A file of a repository. `sha256` is known of files in LFS, `git_oid` (SHA-1 of git's blob) of every file."""

    path: str
    size_bytes: int
    sha256: str | None = None
    git_oid: str | None = None


@dataclass(frozen=True)
class RepoListing:
    """What a repository holds at one commit. `gated`: who must have been granted access, and how."""

    repo: str
    commit: str
    files: tuple[HubFile, ...]
    gated: Literal["auto", "manual", False] = False


@dataclass(frozen=True)
class Chosen:
    """The files of one model, parts in order, and why these. `mmproj`: projectors that lie beside it, not fetched."""

    files: tuple[HubFile, ...]
    quant: str | None
    mmproj: tuple[str, ...]
    reason: str

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


@dataclass(frozen=True)
class _Model:
    """A GGUF file, or the parts of a split one that are there. `name`: of the file, or what its parts share."""

    name: str
    files: tuple[HubFile, ...]
    part_count: int
    quant: str | None


def choose_files(listing: RepoListing, wish: str = "") -> Chosen:
    """The model that `wish` names: the path of a file, a quantization, or (empty) the usual one.

    A quantization matches whole, in any case: `q4_k_m` is Q4_K_M and not Q4_K.

    Raises:
        NoGgufInRepoError: there is no such file, or a part of it is missing; the message says what is there.
        ModelInvalidError: the repository gives one of its files a name that must not become a path.
    """
    projectors = tuple(file.path for file in listing.files if is_gguf(file.path) and is_projector(file.path))
    if is_gguf(wish) or "/" in wish:
        model, reason = _by_path(listing, wish), "the file that was asked for"
    else:
        model, reason = _by_quant(listing, wish)
    _require_all_parts(listing.repo, model)
    _require_safe(listing, model)
    return Chosen(model.files, model.quant, projectors, reason)


def safe_relative_path(name: str) -> PurePosixPath:
    """`name` as a path below a directory of ours: printable ASCII, no way up, nothing hidden, short enough for a disk.

    Raises:
        ModelInvalidError: it is not that.
    """
    parts = name.split("/")
    bad = (
        not _SAFE_NAME.fullmatch(name)
        or "\\" in name
        or len(name) > _MAX_PATH
        or any(not part.strip() or part[0] in ".~-" or part != part.strip() for part in parts)
        or any(len(part) > _MAX_COMPONENT for part in parts)
    )
    if bad:
        shown = name if len(name) <= _MAX_COMPONENT else f"{name[:_MAX_COMPONENT]}…"
        raise ModelInvalidError(
            f"{shown!a} is no name for a file that rbee would write",
            hint="Choose another repository, and tell the owner of this one.",
        )
    return PurePosixPath(name)


def _models(listing: RepoListing) -> list[_Model]:
    """Every model of the repository, in an order that does not depend on the listing's: those at the top first."""
    groups: dict[tuple[str, int], list[HubFile]] = {}
    for file in {file.path: file for file in listing.files}.values():
        if is_gguf(file.path) and not is_companion(file.path, listing.repo):
            part = split_part(file.path)
            groups.setdefault((part.stem, part.count) if part else (file.path, 1), []).append(file)
    models = [
        _Model(name, tuple(sorted(files, key=lambda file: file.path)), count, quant_of(files[0].path))
        for (name, count), files in groups.items()
    ]
    return sorted(models, key=lambda model: (model.name.count("/"), model.name))


def _by_path(listing: RepoListing, wish: str) -> _Model:
    wanted = next((file for file in listing.files if file.path == wish and is_gguf(wish)), None)
    if wanted is None:
        raise _not_there(listing, f"{listing.repo} has no GGUF file {wish!r}")
    for model in _models(listing):
        if wanted in model.files:
            return model
    return _Model(wish, (wanted,), 1, quant_of(wish))  # a companion, named by somebody who means it


def _by_quant(listing: RepoListing, wish: str) -> tuple[_Model, str]:
    models = _models(listing)
    if not models:
        raise _not_there(listing, f"{listing.repo} has no GGUF file")
    if not wish:
        return _usual(models)
    quant = normal_quant(wish)
    fitting = [m for m in models if m.quant == quant] or [m for m in models if m.quant == f"UD-{quant}"]
    if not fitting:
        raise _no_quant(listing.repo, wish, models)
    return fitting[0], f"{fitting[0].quant} as asked for{_first_of(fitting)}"


def _usual(models: Sequence[_Model]) -> tuple[_Model, str]:
    if len(models) == 1:
        return models[0], "the only model there"
    best = min(models, key=_custom)
    alike = [model for model in models if _custom(model) == _custom(best)]
    if best.quant == _BY_CUSTOM[0]:
        return alike[0], f"{best.quant}, the usual choice{_first_of(alike)}"
    if best.quant in _BY_CUSTOM:
        return alike[0], f"{best.quant}, the nearest to Q4_K_M that is there{_first_of(alike)}"
    return alike[0], "the first of those there"


def _custom(model: _Model) -> int:
    return _BY_CUSTOM.index(model.quant) if model.quant in _BY_CUSTOM else len(_BY_CUSTOM)


def _first_of(alike: Sequence[_Model]) -> str:
    return f" (the first of {len(alike)} models with it)" if len(alike) > 1 else ""


def _require_all_parts(repo: str, model: _Model) -> None:
    """Raise `NoGgufInRepoError` naming the first part of a split model that is missing."""
    there = [part.number for file in model.files if (part := split_part(file.path))]
    if not there or there == list(range(1, model.part_count + 1)):
        return
    missing = next((number for number in range(1, model.part_count + 1) if number not in there), None)
    what = f"part {missing} of {model.part_count} is missing" if missing else f"it has parts beyond {model.part_count}"
    raise NoGgufInRepoError(
        f"{repo} holds a split model {model.name!r} that is not whole: {what}",
        hint="Choose another quantization or repository, or tell the owner of this one.",
        details={"parts": there[:_SHOWN], "part_count": model.part_count},
    )


def _require_safe(listing: RepoListing, model: _Model) -> None:
    """Raise `ModelInvalidError` for names that cannot be paths, or that some disks take for the same."""
    chosen = {file.path for file in model.files}
    for path in chosen:
        safe_relative_path(path)
    lowered = {path.lower() for path in chosen}
    if any(file.path.lower() in lowered and file.path not in chosen for file in listing.files):
        raise ModelInvalidError(
            f"{listing.repo} has another file whose name differs only in capitals from {_listed(sorted(chosen))}",
            hint="Choose another file or repository, and tell the owner of this one.",
        )


def _not_there(listing: RepoListing, what: str) -> NoGgufInRepoError:
    """With what there is: models first, and no more of it than a person reads."""
    ggufs = [file.path for file in listing.files if is_gguf(file.path)]
    others = [file.path for file in listing.files if not is_gguf(file.path)]
    return NoGgufInRepoError(
        f"{what}; there is: {_listed(ggufs or others) or 'nothing'}",
        details={
            "files": [path[:_MAX_COMPONENT] for path in (ggufs + others)[:_SHOWN]],
            "file_count": len(listing.files),
        },
    )


def _no_quant(repo: str, wish: str, models: Iterable[_Model]) -> NoGgufInRepoError:
    quants = sorted({model.quant for model in models if model.quant})
    there = f"quantizations: {_listed(quants)}" if quants else f"models: {_listed([model.name for model in models])}"
    return NoGgufInRepoError(
        f"{repo} has no {wish}; there are {there}",
        hint=f"Write hf:{repo}:{quants[0]}, or another of them." if quants else None,
        details={"quants": quants[:_SHOWN]},
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name if len(name) <= _MAX_COMPONENT else f"{name[:_MAX_COMPONENT]}…" for name in names[:_SHOWN])
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
