"""The catalog and the files together: taken in, looked at before use, verified, removed, found again.

Guarantees: a file that went away or changed behind the catalog's back is noticed before it is used; only files below
the model directory are ever deleted.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import anyio
import anyio.to_thread

from rbee_hive.domain.models.file_rules import FileState, combined_sha256, compare
from rbee_hive.domain.models.model_paths import Origin, known_hashes, origin_of
from rbee_hive.models import files as model_files
from rbee_hive.models.catalog import EMBEDDED_ID, ModelCatalog
from rbee_shared.contracts.models import (
    FileCheck,
    ImportRequest,
    ModelFileRow,
    ModelRow,
    RegisterRequest,
    Removal,
    Verification,
)
from rbee_shared.errors import (
    ChecksumMismatchError,
    ForbiddenError,
    InvalidRequestError,
    ModelNotFoundError,
    RbeeError,
)
from rbee_shared.model_ref import parse_model_ref
from rbee_shared.narration import Narrator

_FETCHED = frozenset({"hf", "url"})


@dataclass(frozen=True)
class ModelLibrary:
    """`directory`: where fetched models lie. `roots`: other directories that models may be read from."""

    catalog: ModelCatalog
    directory: Path
    roots: tuple[Path, ...]
    narrator: Narrator

    async def register(self, order: RegisterRequest) -> ModelRow:
        """A row for a repository of the Hub, without a file: fetched when somebody asks for it.

        Raises:
            InvalidRequestError: that is no repository.
            AlreadyExistsError: the id, or the repository under another id, is there already.
        """
        ref = parse_model_ref(order.repo)
        if ref.provider != "hf":
            raise InvalidRequestError(f"repo: {order.repo!r} is no repository of the Hub", hint="Write owner/repo.")
        return await self.catalog.register(order, ref)

    async def take_in(self, order: ImportRequest) -> ModelRow:
        """Catalog a file that lies on this node; the same path again is the same row, with its facts of now.

        Raises:
            ForbiddenError, ModelNotFoundError, ModelInvalidError, InvalidRequestError: as `model_files.inspect`.
            AlreadyExistsError: the id or an alias is taken.
        """
        roots = None if order.anywhere else (self.directory, *self.roots)
        facts = await model_files.inspect(order.path, roots=roots)
        row = await self.catalog.put(Origin("file", str(facts.path)), facts, model_id=order.id, name=order.name)
        return await self.catalog.change(row.id, aliases=order.aliases) if order.aliases else row

    async def take_in_embedded(self) -> None:
        """Catalog the model that ships with the package; its place may have moved since the last start."""
        try:
            facts = await model_files.inspect(str(model_files.embedded_model()), roots=None)
            await self.catalog.put(Origin("builtin", EMBEDDED_ID), facts, model_id=EMBEDDED_ID)
        except RbeeError as error:  # a hive without it still serves every other model
            self.narrator.tell("embedded_model", f"the embedded model cannot be used: {error.message}", level="warning")

    async def look_up(self, text: str) -> ModelRow | None:
        """The row that `text` means; one whose files are gone looks like one that was not fetched. None without one."""
        try:
            row = await self.catalog.find(text)
        except ModelNotFoundError:
            return None
        if row.is_downloaded and FileState.GONE in await self._states(row):
            return row.model_copy(update={"local_path": None})
        return row

    async def at_hand(self, text: str) -> ModelRow | None:
        """The row that `text` means if its files are there and look untouched."""
        row = await self.look_up(text)
        if row is None or not row.is_downloaded or set(await self._states(row)) != {FileState.SAME}:
            return None
        return row

    async def ready(self, text: str, *, may_hash: bool = False) -> ModelRow:
        """The model that `text` means, its files looked at: what was fetched must be what it was then.

        `may_hash`: there is time to read files anew that somebody has touched.

        Raises:
            ModelNotFoundError: this node does not have it, or not any more.
            ChecksumMismatchError: a fetched file has changed, or may have.
            ModelInvalidError: a file that was named by its path has become none.
        """
        row = await self.catalog.find(text)
        if not row.is_downloaded:
            raise ModelNotFoundError(f"{row.id} is in the catalog and not on this node", hint=_fetch_hint(row))
        states = await self._states(row)
        if FileState.GONE in states:
            raise ModelNotFoundError(f"{_path_at(row, states.index(FileState.GONE))} is gone", hint=_fetch_hint(row))
        if set(states) == {FileState.SAME}:
            return row
        if row.provider not in _FETCHED:
            facts = await model_files.inspect(row.local_path or "", roots=None)
            return await self.catalog.put(Origin(row.provider, row.reference, row.file, row.revision), facts)
        if FileState.CHANGED in states:
            path = _path_at(row, states.index(FileState.CHANGED))
            raise ChecksumMismatchError(f"{path} has changed: it has another size", hint=_fetch_hint(row))
        if not may_hash:
            raise ChecksumMismatchError(
                f"the files of {row.id} were touched: they must be checked", hint=_fetch_hint(row)
            )
        return await self._still_the_same(row)

    async def verify(self, model_id: str) -> Verification:
        """Hash every file anew. Not `ok`: one differs or is gone, and the model is not used until it is fetched again.

        A hash that nobody knew yet is noted.

        Raises:
            ModelNotFoundError: there is no such row, or it has no files.
        """
        row = await self.catalog.get(model_id)
        if not row.is_downloaded:
            raise ModelNotFoundError(f"{row.id} has no file on this node", hint=_fetch_hint(row))
        checks = tuple([await _check(part) for part in row.files])
        ok = all(check.ok for check in checks)
        if ok:
            await self._note(row, [check.sha256 for check in checks])
        else:  # without their times nobody believes them
            doubted = [part.model_copy(update={"modified_ns": None}) for part in row.files]
            await self.catalog.note_files(row.id, doubted, row.sha256)
        return Verification(id=row.id, ok=ok, files=checks)

    async def remove(self, model_id: str, *, files: bool, in_use: Callable[[], Collection[str]]) -> Removal:
        """Forget a row, with its files if wanted. `in_use` tells the paths that workers have loaded.

        Raises:
            ModelNotFoundError: there is no such row.
            ForbiddenError: it ships with the package; or its files are pinned, in use, or not ours to delete.
        """
        row = await self.catalog.get(model_id)
        if row.provider == "builtin":
            raise ForbiddenError(f"{row.id} ships with rbee", hint="It takes no room beyond the package; leave it.")
        if not files:
            await self.catalog.remove(row.id)
            return Removal(id=row.id)
        elsewhere = {part.path for other in await self.catalog.rows() if other.id != row.id for part in other.files}
        paths = [Path(part.path) for part in row.files if part.path not in elsewhere]
        self._require_removable(row, in_use())
        try:
            freed_bytes = await anyio.to_thread.run_sync(_delete, paths, self.directory)
        except OSError as error:
            raise ForbiddenError(
                f"{error.filename} cannot be deleted: {error.strerror}",
                hint="Give this user the right to, or do it yourself.",
            ) from None
        await self.catalog.remove(row.id)  # last: files without a row would be seen by no command
        return Removal(id=row.id, files_removed=tuple(map(str, paths)), freed_bytes=freed_bytes)

    async def rebuild(self) -> int:
        """Catalog again what lies in the model directory, after the catalog was lost; how many models that are."""
        found = 0
        for path in await model_files.scan(self.directory):
            try:
                hashes = known_hashes(PurePosixPath(path), PurePosixPath(self.directory))
                facts = await model_files.inspect(str(path), roots=(self.directory,), hashes=hashes)
            except RbeeError as error:
                self.narrator.tell("rebuild", f"{path} is left out: {error.message}", level="warning")
                continue
            await self.catalog.put(origin_of(PurePosixPath(path), PurePosixPath(self.directory)), facts)
            found += 1
        return found

    async def _states(self, row: ModelRow) -> list[FileState]:
        return [compare(part.size_bytes, part.modified_ns, await model_files.stat_of(part.path)) for part in row.files]

    async def _still_the_same(self, row: ModelRow) -> ModelRow:
        """A fetched model whose files have another time, or size: only their hashes can tell."""
        for part in row.files:
            check = await _check(part)
            if not check.ok:
                raise ChecksumMismatchError(f"{part.path} has changed: {check.problem}", hint=_fetch_hint(row))
        await self._note(row, [part.sha256 for part in row.files])
        return await self.catalog.get(row.id)

    async def _note(self, row: ModelRow, hashes: list[str | None]) -> None:
        parts = []
        for part, sha256 in zip(row.files, hashes, strict=True):
            found = await model_files.stat_of(part.path)
            parts.append(part.model_copy(update={"sha256": sha256, "modified_ns": found[1] if found else None}))
        await self.catalog.note_files(row.id, parts, combined_sha256(hashes))

    def _require_removable(self, row: ModelRow, in_use: Collection[str]) -> None:
        if row.pinned:
            raise ForbiddenError(f"{row.id} is pinned", hint=f"Unpin it first: rbee-hive models unpin {row.id}")
        for part in row.files:
            if part.path in in_use:
                raise ForbiddenError(f"a worker uses {part.path}", hint="Stop it first: rbee-hive worker list")
            if not Path(part.path).is_relative_to(self.directory):
                raise ForbiddenError(
                    f"{part.path} is not in the model directory {self.directory}: rbee does not delete it",
                    hint=f"Delete it yourself, or only forget it: rbee-hive models unregister {row.id}",
                )


async def _check(part: ModelFileRow) -> FileCheck:
    try:
        sha256 = await model_files.sha256_of(Path(part.path))
    except OSError as error:
        return FileCheck(path=part.path, ok=False, expected_sha256=part.sha256, problem=error.strerror or str(error))
    ok = part.sha256 in {None, sha256}
    problem = None if ok else f"its SHA-256 is {sha256}, not {part.sha256}"
    return FileCheck(path=part.path, ok=ok, sha256=sha256, expected_sha256=part.sha256, problem=problem)


def _delete(paths: Collection[Path], root: Path) -> int:
    """Delete files below `root`, and the directories that they leave empty; the bytes that came free."""
    freed_bytes = 0
    for path in paths:
        if path.exists():
            freed_bytes += path.stat().st_size
            path.unlink()
        for directory in path.parents:
            if directory == root or not directory.is_relative_to(root) or any(directory.iterdir()):
                break
            directory.rmdir()
    return freed_bytes


def _path_at(row: ModelRow, part: int) -> str:
    return row.files[part].path if row.files else row.local_path or ""


def _fetch_hint(row: ModelRow) -> str:
    if row.provider in _FETCHED:
        return f"Fetch it again: rbee-hive models download {row.id}"
    return "Put the file back, or name another one."
