"""Questions to a Hub, asked by an unmodified huggingface_hub of a local one that speaks the real protocol."""

import logging
import subprocess
import sys
import time
import traceback
from collections.abc import Generator
from pathlib import Path

import anyio
import anyio.to_thread
import httpx2
import pytest
from huggingface_hub import HfApi, close_session, hf_hub_download
from huggingface_hub.errors import GatedRepoError, RemoteEntryNotFoundError, RevisionNotFoundError
from tests.support import hub as local
from tests.support.hub import Mode

from rbee_hive.domain.models.model_source import RepoListing
from rbee_hive.domain.models.transfer import Limits
from rbee_hive.models.hub import Hub, Patience
from rbee_shared.errors import DownloadFailedError, ForbiddenError, ModelNotFoundError

REPO = "acme/tiny-GGUF"
TOKEN = "hf_secretsecretsecret"
QUICK = Limits(first_pause_s=0.01)


@pytest.fixture
def real(tmp_path: Path) -> Generator[local.Hub]:
    with local.running_hub(tmp_path) as hub:
        hub.add(REPO, {"tiny-Q4_K_M.gguf": b"GGUF" * 1000, "README.md": b"hello"})
        yield hub
    close_session()


@pytest.fixture(autouse=True)
def _nobody_is_logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


def _hub(real: local.Hub, *, limits: Limits = QUICK, patience: Patience | None = None) -> Hub:
    return Hub(real.url, limits=limits, patience=patience)


async def test_a_repository_is_listed_with_sizes_hashes_and_its_commit(real: local.Hub) -> None:
    blob = real.repos[REPO].files["tiny-Q4_K_M.gguf"]

    for revision in (None, "main", real.repos[REPO].commit):
        listing = await _hub(real).repo_files(REPO, revision)

        assert (listing.repo, listing.commit, listing.gated) == (REPO, real.repos[REPO].commit, False)
        file = next(file for file in listing.files if file.path == "tiny-Q4_K_M.gguf")
        assert (file.size_bytes, file.sha256, file.git_oid) == (4000, blob.sha256, blob.git_oid)


async def test_a_source_names_the_commit_and_carries_the_token(
    real: local.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    real.tokens.add(TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub = _hub(real)
    listing = await hub.repo_files(REPO)
    source = hub.source(REPO, listing.commit, listing.files[0])

    assert source.url == real.file_url(REPO, "tiny-Q4_K_M.gguf")
    assert source.headers == {"Authorization": f"Bearer {TOKEN}"}
    assert {seen.authorization for seen in real.requests("api")} == {f"Bearer {TOKEN}"}


async def test_without_a_token_none_is_sent(real: local.Hub) -> None:
    hub = _hub(real)
    listing = await hub.repo_files(REPO)

    assert not hub.source(REPO, listing.commit, listing.files[0]).headers
    assert {seen.authorization for seen in real.requests("api")} == {None}


async def test_what_is_not_there_is_said_with_the_way_out(real: local.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFoundError, match="no repository acme/none") as refusal:
        await _hub(real).repo_files("acme/none")
    assert "HF_TOKEN" in refusal.value.hint
    with pytest.raises(ModelNotFoundError, match="no revision 'v9'"):
        await _hub(real).repo_files(REPO, "v9")
    for hostile in ("acme/../etc", "acme/a--b", f"acme/{'x' * 200}"):
        with pytest.raises(ModelNotFoundError):
            await _hub(real).repo_files(hostile)

    real.tokens.add(TOKEN)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ModelNotFoundError):
        await _hub(real).repo_files("acme/none")


async def test_private_repositories_open_to_their_readers(real: local.Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    real.add("acme/own-GGUF", {"a.gguf": b"GGUF"}, private=True, readers=frozenset({TOKEN}))
    with pytest.raises(ModelNotFoundError):
        await _hub(real).repo_files("acme/own-GGUF")

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert (await _hub(real).repo_files("acme/own-GGUF")).files[0].path == "a.gguf"


async def test_a_gated_listing_says_so_and_names_the_licence(real: local.Hub) -> None:
    real.add("acme/gated-GGUF", {"a.gguf": b"GGUF"}, gated="manual")
    hub = _hub(real)
    listing = await hub.repo_files("acme/gated-GGUF")

    assert listing.gated == "manual"
    hint = hub.source(listing.repo, listing.commit, listing.files[0]).refused_hint or ""
    assert f"{real.url}/acme/gated-GGUF" in hint
    assert "HF_TOKEN" in hint

    real.script.add("acme/gated-GGUF", Mode(at="api", status=403, error_code="GatedRepo"))
    with pytest.raises(ForbiddenError, match="gated"):
        await _hub(real).repo_files("acme/gated-GGUF")


async def test_a_wrong_token_is_refused_and_never_repeated(
    real: local.Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(ForbiddenError) as refusal:
        await _hub(real).repo_files(REPO)

    assert "HF_TOKEN" in refusal.value.hint
    assert TOKEN not in f"{refusal.value.body()}{refusal.value!r}{caplog.text}"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 408])
async def test_a_hub_that_is_busy_for_a_while_is_asked_again(real: local.Hub, status: int) -> None:
    real.script.add(REPO, Mode(at="api", status=status, times=3))
    told: list[str] = []
    listing = await _hub(real).repo_files(REPO, tell=told.append)

    assert listing.files
    assert len(real.requests("api", REPO)) == 4
    assert all(str(status) in line for line in told)
    assert len(told) == 3


@pytest.mark.parametrize("as_date", [False, True])
async def test_retry_after_is_honoured_in_both_forms(real: local.Hub, as_date: bool) -> None:
    until = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 3))
    real.script.add(REPO, Mode(at="api", status=429, times=1, retry_after=until if as_date else "2"))
    began_s = time.monotonic()
    await _hub(real).repo_files(REPO)

    assert time.monotonic() - began_s > 1.5


async def test_a_hub_that_stays_broken_is_given_up(real: local.Hub) -> None:
    real.script.add(REPO, Mode(at="api", status=503))
    with pytest.raises(DownloadFailedError, match="503"):
        await _hub(real).repo_files(REPO)
    assert len(real.requests("api", REPO)) == QUICK.tries


async def test_nonsense_from_a_hub_is_an_error_for_people(real: local.Hub) -> None:
    for body in (b"<html>log in to the hotel</html>", b"[]", b"{}", b'{"id": 7, "siblings": 9}', b"\xff\xfe", b"null"):
        real.script.add(REPO, Mode(at="api", plain_body=body))
        with pytest.raises(DownloadFailedError):
            await _hub(real).repo_files(REPO)
        real.script.clear()


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "nonsense", "ftp://x", "http://user:topsecret@127.0.0.1:1"])
async def test_a_hub_that_is_nowhere_is_said_without_secrets(endpoint: str) -> None:
    with pytest.raises(DownloadFailedError) as refusal:
        await Hub(endpoint, limits=QUICK).repo_files(REPO)
    assert "HF_ENDPOINT" in refusal.value.hint
    assert "topsecret" not in f"{refusal.value.body()}"


async def test_a_silent_hub_does_not_hang_us_and_leaves_no_thread(real: local.Hub) -> None:
    await _hub(real).repo_files(REPO)
    real.script.add(REPO, Mode(at="api", headers_after_s=60))
    hub = _hub(real, limits=Limits(tries=2, first_pause_s=0.01), patience=Patience(silence_s=1, question_s=0.3))
    with anyio.fail_after(20), pytest.raises(DownloadFailedError, match="did not answer"):
        await hub.repo_files(REPO)
    with anyio.move_on_after(0.2):
        await hub.repo_files(REPO)  # cancelled from outside

    with anyio.fail_after(20):
        while _asking():  # noqa: ASYNC110
            await anyio.sleep(0.05)
        while hub._threads.borrowed_tokens:  # noqa: ASYNC110
            await anyio.sleep(0.05)


async def test_who_gives_up_one_question_costs_no_other_one_a_try(real: local.Hub) -> None:
    real.add("acme/slow-GGUF", {"a.gguf": b"GGUF"})
    real.script.add("acme/slow-GGUF", Mode(at="api", headers_after_s=60, times=1))
    hub = _hub(real, limits=Limits(tries=1), patience=Patience(silence_s=3, question_s=20))
    listings: list[RepoListing] = []

    async def ask() -> None:
        listings.append(await hub.repo_files("acme/slow-GGUF"))

    real.script.add(REPO, Mode(at="api", headers_after_s=60, times=1))
    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        with anyio.fail_after(20):
            while not real.requests("api", "acme/slow-GGUF"):  # noqa: ASYNC110
                await anyio.sleep(0.01)
        with anyio.move_on_after(0.3) as given_up:
            await hub.repo_files(REPO)
        assert given_up.cancelled_caught

    assert listings[0].repo == "acme/slow-GGUF", "with the only try that it had"


async def test_what_nobody_foresaw_is_logged_where_somebody_looks(
    real: local.Hub, caplog: pytest.LogCaptureFixture
) -> None:
    real.script.add(REPO, Mode(at="api", plain_body=b'{"id": 7, "siblings": 9}', times=1))
    await _hub(real).repo_files(REPO)

    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "Traceback" in warnings[0]
    caplog.clear()
    with pytest.raises(DownloadFailedError):
        await Hub("http://127.0.0.1:1", limits=QUICK).repo_files(REPO)
    assert not [record for record in caplog.records if record.name.startswith("rbee") and record.levelname == "WARNING"]


def _asking() -> int:
    """How many threads wait for a Hub."""
    stacks = [traceback.extract_stack(frame) for frame in sys._current_frames().values()]
    return sum(any(Path(call.filename).name == "hub.py" and call.name == "put" for call in stack) for stack in stacks)


async def test_offline_means_offline(real: local.Hub) -> None:
    hub = Hub.from_environment({"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": real.url})
    with pytest.raises(DownloadFailedError, match="HF_HUB_OFFLINE") as refusal:
        await hub.repo_files(REPO)
    assert "import" in refusal.value.hint
    assert not real.seen


async def test_the_environment_names_the_hub(real: local.Hub) -> None:
    assert Hub.from_environment({}).endpoint == "https://huggingface.co"
    assert (await Hub.from_environment({"HF_ENDPOINT": f"{real.url}/"}).repo_files(REPO)).files


async def test_a_gguf_repository_is_suggested(real: local.Hub) -> None:
    for name in ("other/Big-GGUF", "acme/Big-gguf", "acme/Big-GGUF-old", "acme/Big"):
        real.add(name, {"a.gguf": b"GGUF"})
    hub = _hub(real)

    assert await hub.suggest_gguf_repo("acme/Big") == "acme/Big-gguf"
    assert await hub.suggest_gguf_repo("third/big") == "other/Big-GGUF"
    assert await hub.suggest_gguf_repo("acme/unknown") is None
    real.script.add("search", Mode(at="api", status=500))
    assert await hub.suggest_gguf_repo("acme/Big") is None


async def test_questions_do_not_block_each_other_or_the_event_loop(real: local.Hub) -> None:
    hub = _hub(real)
    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(hub.repo_files, REPO)
    assert len(real.requests("api", REPO)) == 20


async def test_the_local_hub_satisfies_the_librarys_own_downloader(real: local.Hub, tmp_path: Path) -> None:
    """What rbee does not use: it shows that the fake is a Hub, and not only what rbee makes of one."""

    def download() -> bytes:
        path = hf_hub_download(REPO, "tiny-Q4_K_M.gguf", endpoint=real.url, cache_dir=tmp_path / "cache", token=False)
        return Path(path).read_bytes()

    assert await anyio.to_thread.run_sync(download) == b"GGUF" * 1000
    real.add("acme/gated-GGUF", {"a.gguf": b"GGUF"}, gated="auto")
    api = HfApi(real.url, token=False)
    for error, call in (
        (RevisionNotFoundError, lambda: api.model_info(REPO, revision="v9")),
        (RemoteEntryNotFoundError, lambda: api.get_hf_file_metadata(url=f"{real.url}/{REPO}/resolve/main/none.gguf")),
        (GatedRepoError, lambda: api.get_hf_file_metadata(url=f"{real.url}/acme/gated-GGUF/resolve/main/a.gguf")),
    ):
        with pytest.raises(error):
            await anyio.to_thread.run_sync(call)


async def test_the_local_hub_runs_as_a_program(tmp_path: Path) -> None:
    await anyio.Path(tmp_path / "acme" / "x-GGUF").mkdir(parents=True)
    await anyio.Path(tmp_path / "acme" / "x-GGUF" / "x.gguf").write_bytes(b"GGUF")
    argv = [sys.executable, "-m", "tests.support.hub", "--root", str(tmp_path), "--mode", "busy"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:  # noqa: ASYNC220 - a test may
        try:
            assert process.stdout is not None
            url = (await anyio.to_thread.run_sync(process.stdout.readline)).strip()
            assert (await Hub(url).repo_files("acme/x-GGUF")).files[0].path == "x.gguf"
            async with httpx2.AsyncClient(trust_env=False) as client:
                assert (await client.get(f"{url}/acme/x-GGUF/resolve/main/x.gguf")).status_code == 429
        finally:
            process.kill()
