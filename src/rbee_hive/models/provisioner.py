"""Has a model on this node: found in the catalog, or fetched from the Hub or a URL, checked, and catalogued.

Guarantees: a row is written only when every file lies whole at its place; what is at hand is not fetched again, and
what was begun is gone on with.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from types import ModuleType
from urllib.parse import unquote, urlsplit

import anyio
import anyio.to_thread

from rbee_hive.domain.models.model_paths import Origin, hub_path, url_path
from rbee_hive.domain.models.model_source import Chosen, RepoListing, choose_files, safe_relative_path
from rbee_hive.domain.models.transfer import Limits, Source
from rbee_hive.models import files as model_files
from rbee_hive.models.hub import Hub
from rbee_hive.models.library import ModelLibrary
from rbee_hive.models.transfer_progress import TransferProgress
from rbee_hive.provisions import Provision
from rbee_hive.tally import Tally
from rbee_shared.contracts.models import ImportRequest, ModelProvisionRequest, ModelRow
from rbee_shared.contracts.provisions import ProvisionEnd
from rbee_shared.errors import (
    ChecksumMismatchError,
    InvalidRequestError,
    ModelInvalidError,
    ModelNotFoundError,
    NoGgufInRepoError,
)
from rbee_shared.model_ref import ModelRef, parse_model_ref
from rbee_shared.units import format_bytes, format_seconds

_LOG = logging.getLogger("rbee.hive.provisioner")
_REMEMBERED_S = 60.0


@dataclass(frozen=True)
class Wanted:
    """What a reference means at the Hub now."""

    listing: RepoListing
    chosen: Chosen

    @property
    def origin(self) -> Origin:
        return Origin("hf", self.listing.repo, self.chosen.files[0].path, self.listing.commit)


@dataclass
class ModelProvisioner:
    """Fetches for one hive. What the Hub said is remembered for a minute: each download is asked about before."""

    library: ModelLibrary
    hub: Hub
    limits: Limits
    tally: Tally
    _known: dict[str, tuple[float, Wanted]] = field(default_factory=dict)

    async def provide(self, order: ModelProvisionRequest, job: Provision) -> ProvisionEnd:
        """Have the model that is asked for.

        Raises:
            RbeeError: it is not known, cannot be fetched, or there is no room for it.
        """
        order = with_hash(order)
        row = await self.library.look_up(order.chosen_model)
        if row is not None and row.is_downloaded:
            if await self.library.at_hand(row.id) is None:
                job.narrator.tell("check", f"the files of {row.id} were touched: checking them", cute="🔎")
            try:
                return ProvisionEnd(model=await self.library.ready(row.id, may_hash=True))
            except ChecksumMismatchError as error:
                job.narrator.tell("model_changed", f"{error.message}: fetching it again", cute="🩹", level="warning")
        ref = parse_model_ref(row.canonical_ref if row is not None else order.chosen_model)
        model_id = row.id if row is not None else order.id
        if ref.provider == "hf":
            return await self._from_hub(ref, model_id, job)
        if ref.provider == "url":
            return await self._from_url(ref, model_id, job)
        if ref.provider == "file":
            return ProvisionEnd(model=await self.library.take_in(ImportRequest(path=ref.reference, id=order.id)))
        raise ModelNotFoundError(f"{order.chosen_model} is not on this node, and not known to be elsewhere")

    async def wanted(self, ref: ModelRef, tell: Callable[[str], None] = _LOG.info) -> Wanted:
        """The files that `ref` means at the Hub; `tell` hears why an answer takes long.

        Raises:
            RbeeError: see `Hub.repo_files` and `choose_files`.
        """
        now_s = time.monotonic()
        self._known = {key: known for key, known in self._known.items() if now_s - known[0] < _REMEMBERED_S}
        if (known := self._known.get(str(ref))) is not None:
            return known[1]
        listing = await self.hub.repo_files(ref.source, ref.revision or None, tell=tell)
        try:
            wanted = Wanted(listing, choose_files(listing, ref.wish))
        except NoGgufInRepoError as error:
            raise await self._with_suggestion(error, ref) from None
        self._known[str(ref)] = (now_s, wanted)
        return wanted

    async def _with_suggestion(self, error: NoGgufInRepoError, ref: ModelRef) -> NoGgufInRepoError:
        """A repository without any GGUF often has a twin with them."""
        if error.details.get("quants") or (suggestion := await self.hub.suggest_gguf_repo(ref.source)) is None:
            return error
        hint = f"The same model as GGUF: hf:{suggestion}"
        return NoGgufInRepoError(error.message, hint=hint, details={**error.details, "suggestion": suggestion})

    async def _from_hub(self, ref: ModelRef, model_id: str | None, job: Provision) -> ProvisionEnd:
        job.narrator.tell("ask_hub", f"asking the Hub what {ref.source} has", cute="🤗")
        wanted = await self.wanted(ref, partial(job.narrator.tell, "hub_waits", cute="⏳", level="warning"))
        origin, chosen = wanted.origin, wanted.chosen
        exact = ModelRow(
            id="wanted", provider="hf", reference=origin.reference, file=origin.file, revision=origin.revision
        )
        if (row := await self.library.at_hand(exact.canonical_ref)) is not None:
            facts = await model_files.inspect(row.local_path or "", roots=None, hashes=_hashes(row))
            return ProvisionEnd(
                model=await self.library.catalog.put(origin, facts, model_id=model_id, asked_revision=ref.revision)
            )
        if model_id is not None:
            await self.library.catalog.require_usable(model_id, origin)
        job.narrator.tell(
            "download",
            f"model size {format_bytes(chosen.size_bytes)} ({origin.file}: {chosen.reason}); downloading from the Hub",
            cute="📥",
            size_bytes=chosen.size_bytes,
        )
        if chosen.mmproj:
            job.narrator.tell("mmproj", f"left there: {', '.join(chosen.mmproj)} (rbee reads no images yet)", cute="🖼️")
        sources = {}
        for file in chosen.files:
            place = hub_path(origin.reference, origin.revision, safe_relative_path(file.path))
            sources[self.library.directory / place] = self.hub.source(origin.reference, origin.revision, file)
        return await self._fetch(sources, origin, _Naming(model_id, ref.revision), job)

    async def _from_url(self, ref: ModelRef, model_id: str | None, job: Provision) -> ProvisionEnd:
        if (sha256 := ref.sha256) is None:
            raise InvalidRequestError(
                f"{ref.source} cannot be checked: its SHA-256 is not known", hint="Write it behind the URL: #sha256=…"
            )
        name = PurePosixPath(unquote(urlsplit(ref.source).path)).name
        target = self.library.directory / url_path(sha256, str(safe_relative_path(name or "model.gguf")))
        job.narrator.tell("download", f"downloading {name} from {urlsplit(ref.source).netloc}", cute="📥")
        return await self._fetch(
            {target: Source(ref.source, sha256)}, Origin("url", ref.source), _Naming(model_id), job
        )

    async def _fetch(
        self, sources: Mapping[Path, Source], origin: Origin, naming: "_Naming", job: Provision
    ) -> ProvisionEnd:
        """Fetch the files one after the other, read their headers, catalog them."""
        began_s = time.monotonic()
        fetching = await anyio.to_thread.run_sync(_fetching)
        progress = TransferProgress(job, self.tally, [source.size_bytes for source in sources.values()])
        fetched = await fetching.fetch_files(sources, self.limits, progress)
        first = next(iter(sources))
        row = await self._catalog(tuple(sources), fetched.hashes, origin, naming)
        took = format_seconds(time.monotonic() - began_s)
        job.narrator.tell("downloaded", f"downloaded to {first} in {took}", cute="✅", path=str(first))
        return ProvisionEnd(model=row, bytes_fetched=fetched.bytes_fetched)

    async def _catalog(
        self, paths: tuple[Path, ...], hashes: Mapping[str, str], origin: Origin, naming: "_Naming"
    ) -> ModelRow:
        try:
            facts = await model_files.inspect(str(paths[0]), roots=None, hashes=hashes)
        except ModelInvalidError:
            for path in paths:  # it is what the source has, and no use to anybody: it only takes room
                await anyio.Path(path).unlink(missing_ok=True)
            raise
        return await self.library.catalog.put(
            origin, facts, model_id=naming.model_id, asked_revision=naming.asked_revision
        )


@dataclass(frozen=True)
class _Naming:
    """How a fetched model is to be known. `asked_revision`: a branch or tag that somebody asked for by name."""

    model_id: str | None
    asked_revision: str = ""


def with_hash(order: ModelProvisionRequest) -> ModelProvisionRequest:
    """The order with the hash that stands beside a URL written behind it: a URL with another hash is another file."""
    ref = parse_model_ref(order.chosen_model)
    if ref.provider != "url" or order.sha256 is None:
        return order
    return ModelProvisionRequest(model=f"{ref.source}#sha256={order.sha256}", id=order.id)


def _hashes(row: ModelRow) -> dict[str, str]:
    return {PurePosixPath(part.path).name: part.sha256 for part in row.files if part.sha256}


def _fetching() -> ModuleType:
    """What speaks HTTP, imported in a thread at the first download."""
    from rbee_hive.models import fetching  # noqa: PLC0415

    return fetching
