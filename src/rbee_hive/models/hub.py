"""Asks a Hugging Face Hub what a repository holds and where its files are. The only module with huggingface_hub.

The library knows the API, the token and what the Hub's errors mean; it never moves a model's bytes. It is imported
at the first question (0.6 s), works in threads, and is given up when it waits too long. `HF_ENDPOINT`, `HF_TOKEN` (or
the token of `hf auth login`) and `HF_HUB_OFFLINE` mean what they mean everywhere.
"""

import logging
import os
import re
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import anyio
import anyio.to_thread

from rbee_hive.domain.models.model_source import HubFile, RepoListing
from rbee_hive.domain.models.transfer import Limits, Source, Tries
from rbee_hive.domain.models.transfer_answer import retry_after_s
from rbee_shared.errors import DownloadFailedError, ForbiddenError, ModelNotFoundError, RbeeError
from rbee_shared.redaction import printable_line, redact
from rbee_shared.units import format_seconds
from rbee_shared.version import __version__

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi, ModelInfo
    from huggingface_hub.errors import HfHubHTTPError

_LOG = logging.getLogger("rbee.hive.hub")
_ENDPOINT = "https://huggingface.co"
_YES = frozenset({"1", "ON", "YES", "TRUE"})
_GGUF_SUFFIX = "-GGUF"
_SUGGESTIONS_READ = 20
_MAX_SAID = 200
_OPEN_QUESTIONS = 4
_BUSY = frozenset({408, 425, 429})
_WHO_ARE_YOU, _NOT_YOU, _BROKEN = 401, 403, 500
_CREDENTIALS = re.compile(r"//[^/@]*@")

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Patience:
    """How long a question may take. `silence_s`: between two bytes; `question_s`: one try in all."""

    silence_s: float = 10.0
    question_s: float = 30.0


@dataclass(frozen=True)
class _NotNow:
    """A question that may be asked again. `is_ours`: it failed because we hung up on another one; it was no try."""

    reason: str
    after_s: float | None = None
    is_ours: bool = False


class Hub:
    """One Hub. `tell` of its methods hears, in words for people, why an answer takes long."""

    def __init__(
        self, endpoint: str, *, offline: bool = False, patience: Patience | None = None, limits: Limits | None = None
    ) -> None:
        self.endpoint = endpoint.rstrip("/")
        self._shown = _CREDENTIALS.sub("//", self.endpoint)
        self._offline = offline
        self._token: str | None = None
        self._patience = patience or Patience()
        self._limits = limits or Limits()
        self._threads = anyio.CapacityLimiter(_OPEN_QUESTIONS)  # its own: a silent Hub must not use up everybody's

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, **more: Limits | Patience) -> "Hub":
        offline = environment.get("HF_HUB_OFFLINE") or environment.get("TRANSFORMERS_OFFLINE") or ""
        return cls(environment.get("HF_ENDPOINT") or _ENDPOINT, offline=offline.upper() in _YES, **more)  # type: ignore[arg-type]

    async def repo_files(
        self, repo: str, revision: str | None = None, *, tell: Callable[[str], None] = _LOG.info
    ) -> RepoListing:
        """What `owner/repo` holds at a branch, tag or commit; None: at its main branch, now.

        Raises:
            ModelNotFoundError: there is no such repository or revision, or it is private.
            ForbiddenError: the Hub does not accept the token.
            DownloadFailedError: the Hub cannot be reached, or answers with errors; or we are told to be offline.
        """
        silence_s = self._patience.silence_s
        info = await self._ask(lambda api: _model_info(api, repo, revision, silence_s), repo, revision, tell)
        files = tuple(
            HubFile(file.rfilename, file.size or 0, file.lfs.sha256 if file.lfs else None, file.blob_id)
            for file in info.siblings or ()
        )
        return RepoListing(repo, info.sha or revision or "main", files, info.gated or False)

    def source(self, repo: str, commit: str, file: HubFile) -> Source:
        """How to fetch that file, with the token that `repo_files` found, if any, for the Hub itself."""
        token = self._token
        return Source(
            url=f"{self.endpoint}/{repo}/resolve/{quote(commit, safe='')}/{quote(file.path)}",
            sha256=file.sha256,
            size_bytes=file.size_bytes or None,  # a mirror may not say
            headers={"Authorization": f"Bearer {token}"} if token else {},
            git_oid=file.git_oid,
            refused_hint=_access_hint(f"{self._shown}/{repo}", has_token=token is not None),
        )

    async def suggest_gguf_repo(self, repo: str) -> str | None:
        """A repository with the same model as GGUF: the same owner's if there is one, else the most downloaded."""
        wanted = f"{repo.partition('/')[2]}{_GGUF_SUFFIX}".lower()
        try:
            found = await self._ask(lambda api: _search(api, wanted), repo, None, _LOG.info)
        except RbeeError as error:
            _LOG.info("no suggestion for %s: %s", repo, error)  # the caller has an error to tell already
            return None
        named_so = [name for name in found if name.partition("/")[2].lower() == wanted]
        owner = repo.partition("/")[0].lower()
        return next((name for name in named_so if name.lower().startswith(f"{owner}/")), next(iter(named_so), None))

    async def _ask(
        self, question: Callable[["HfApi"], Answer], repo: str, revision: str | None, tell: Callable[[str], None]
    ) -> Answer:
        """Put it as often as it may help."""
        if self._offline:
            raise DownloadFailedError(
                f"{repo} is not on this node, and HF_HUB_OFFLINE forbids to ask the Hub for it",
                hint="Unset HF_HUB_OFFLINE, or import a file: `rbee-hive models import /path/model.gguf`.",
            )
        tries = Tries()
        while isinstance(answer := await self._ask_once(question, repo, revision), _NotNow):
            if answer.is_ours:
                continue
            tries = tries.after_failure(0, self._limits)
            if (pause_s := tries.pause_s(self._limits, answer.after_s)) is None:
                raise DownloadFailedError(
                    f"{self._shown} does not answer for {repo}: {answer.reason}",
                    hint="Check the network, HF_ENDPOINT and the proxy variables, then run the command again.",
                )
            tell(f"{answer.reason}; asking again in {format_seconds(pause_s)}")
            await anyio.sleep(pause_s)
        return answer

    async def _ask_once(
        self, question: Callable[["HfApi"], Answer], repo: str, revision: str | None
    ) -> Answer | _NotNow:
        def put() -> Answer | _NotNow:
            session = None
            try:
                session = _session(self._patience.silence_s)
                api, self._token = _api(self.endpoint)
                return question(api)
            except Exception as error:  # noqa: BLE001 - a dozen unrelated types, and whatever bad JSON leads to
                if session is not None and session.is_closed:
                    return _NotNow("another question was given up", is_ours=True)
                return _Meaning(self._shown, repo, revision, has_token=self._token is not None).of(error)

        try:
            with anyio.fail_after(self._patience.question_s):
                return await self._in_thread(put)
        except TimeoutError:
            return _NotNow(f"{self._shown} did not answer within {self._patience.question_s:g} s")

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        """Cancellable: the library is made to give up behind our back."""
        try:
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._threads)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_hang_up)
            raise


def _session(silence_s: float) -> "httpx2.Client":
    """The library's connections: one set for all questions, until `_hang_up`."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # or it asks the Hub which program may be using it
    from huggingface_hub import get_session  # noqa: PLC0415 - 0.6 s that most starts of a hive save

    session = get_session()
    session.timeout = silence_s  # by default it waits for ever
    return session


def _api(endpoint: str) -> tuple["HfApi", str | None]:
    """The library, and the token that it uses."""
    from huggingface_hub import HfApi, get_token  # noqa: PLC0415 - as above

    token = get_token()
    return HfApi(endpoint, token=token or False, library_name="rbee", library_version=__version__), token


def _hang_up() -> None:
    """Close the library's connections: a thread that nobody waits for any more fails at its next read.

    So do those that are waited for, and ask again: the library has one session for all.
    """
    from huggingface_hub import close_session  # noqa: PLC0415 - as above

    close_session()


def _model_info(api: "HfApi", repo: str, revision: str | None, silence_s: float) -> "ModelInfo":
    # left out, `timeout` would mean for ever, whatever the session says
    return api.model_info(repo, revision=revision, files_metadata=True, timeout=silence_s)


def _search(api: "HfApi", text: str) -> list[str]:
    """Not `list_models`: it tries for half a minute by itself, and waits for ever at each try."""
    from huggingface_hub import get_session, utils  # noqa: PLC0415 - as above

    params = {"search": text, "sort": "downloads", "limit": str(_SUGGESTIONS_READ)}
    headers = utils.build_hf_headers(token=api.token)  # type: ignore[attr-defined]  # documented, and not re-exported
    response = get_session().get(f"{api.endpoint}/api/models", params=params, headers=headers)
    utils.hf_raise_for_status(response)  # type: ignore[attr-defined]  # same
    return [str(model["id"]) for model in response.json()]


@dataclass(frozen=True)
class _Meaning:
    """What the library's errors mean for a question about `repo`."""

    endpoint: str
    repo: str
    revision: str | None
    has_token: bool

    def of(self, error: Exception) -> _NotNow:
        """That it may be asked again; or raises what it means for the user."""
        import httpx2  # noqa: PLC0415 - as above
        from huggingface_hub import errors  # noqa: PLC0415

        page = f"{self.endpoint}/{self.repo}"
        if isinstance(error, errors.GatedRepoError):
            raise ForbiddenError(f"{self.repo} is gated", hint=_access_hint(page, has_token=self.has_token)) from None
        if isinstance(error, errors.RevisionNotFoundError):
            raise ModelNotFoundError(
                f"{self.repo} has no revision {self.revision!r}", hint=f"{page} lists its branches and tags."
            ) from None
        if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
            raise self._no_repo() from None
        if isinstance(error, errors.HfHubHTTPError):
            return self._of_status(error)
        if not isinstance(error, OSError | httpx2.TransportError):  # a defect here or there is not the network's fault
            trace = _CREDENTIALS.sub("//", "".join(traceback.format_exception(error)))
            _LOG.warning("the question about %s failed in a way that nobody foresaw:\n%s", self.repo, trace)
        return _NotNow(f"{self.endpoint}: {_said(error)}")

    def _of_status(self, error: "HfHubHTTPError") -> _NotNow:
        status = error.response.status_code
        if status in _BUSY or status >= _BROKEN:
            after_s = retry_after_s(error.response.headers.get("Retry-After"), now_unix=time.time())
            return _NotNow(f"{self.endpoint} answered {status}", after_s)
        if status == _WHO_ARE_YOU and not self.has_token:  # what the Hub says of a repository that is not there, too
            raise self._no_repo() from None
        if status in {_WHO_ARE_YOU, _NOT_YOU}:
            raise ForbiddenError(
                f"{self.endpoint} does not let us see {self.repo}: {_said(error)}",
                hint="Check HF_TOKEN where the hive runs, or unset it for public models.",
            ) from None
        raise DownloadFailedError(f"{self.endpoint} answered {status} for {self.repo}: {_said(error)}") from None

    def _no_repo(self) -> ModelNotFoundError:
        return ModelNotFoundError(
            f"{self.endpoint} has no repository {self.repo}, or it is private",
            hint="Check its spelling. For a private one set HF_TOKEN where the hive runs.",
        )


def _access_hint(page: str, *, has_token: bool) -> str:
    if has_token:
        return f"Accept the licence at {page} with the account that HF_TOKEN belongs to."
    return f"Accept the licence at {page}, and set HF_TOKEN where the hive runs."


def _said(error: Exception) -> str:
    return printable_line(redact(_CREDENTIALS.sub("//", str(error))))[:_MAX_SAID] or type(error).__name__
