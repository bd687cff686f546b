"""Ids, units, model references, clocks, settings, leases, tokens, hosts: each with what tries to break it."""

import string
from pathlib import Path
from typing import ClassVar

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field
from pydantic_settings import SettingsConfigDict
from starlette.datastructures import Headers

from rbee_shared import ids
from rbee_shared.auth import require_bearer
from rbee_shared.clocks import Clocks, boot_time_s
from rbee_shared.config_file import read_config
from rbee_shared.errors import (
    BadPeerError,
    HostNotAllowedError,
    InvalidApiKeyError,
    InvalidRequestError,
    MissingApiKeyError,
)
from rbee_shared.http_app import require_local_host
from rbee_shared.http_wire import bearer, read_answer
from rbee_shared.lease import Lease
from rbee_shared.model_ref import parse_model_ref
from rbee_shared.narration import correlation_id
from rbee_shared.programs import Program, program_argv
from rbee_shared.settings import DaemonSettings, load_settings
from rbee_shared.units import format_bytes, format_seconds

# ids


def test_ids_are_safe_and_differ() -> None:
    makers = [
        ids.new_task_id,
        ids.new_correlation_id,
        lambda: ids.new_worker_id("cpu"),
        ids.new_instance_id,
        ids.new_secret,
    ]
    for make in makers:
        made = {make() for _ in range(1000)}
        assert len(made) == 1000
        assert all(ids.is_safe_id(each.replace("_", "-")) for each in made)


@given(st.text())
def test_only_plain_characters_make_an_id(text: str) -> None:
    plain = set(string.ascii_letters + string.digits + "._:-")
    assert ids.is_safe_id(text) == (1 <= len(text) <= ids.MAX_ID_LENGTH and set(text) <= plain)


@pytest.mark.parametrize("text", ["", "a\n", "\na", "a b", "é", "a/b", "x" * 129])
def test_unsafe_ids(text: str) -> None:
    assert not ids.is_safe_id(text)


# units


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_999, "1.0 MB"), (669_000_000, "669 MB"),
        (1_100_000_000, "1.1 GB"), (24_000_000_000, "24 GB"), (5 * 10**15, "5000 TB"),
    ],
)  # fmt: skip
def test_bytes_for_people(count: int, text: str) -> None:
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 ms"), (0.15, "150 ms"), (1.2, "1.2 s"), (75, "75 s"), (240, "4 min")]
)
def test_seconds_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


# model references


@pytest.mark.parametrize(
    ("text", "provider", "reference"),
    [
        ("builtin:storyteller", "builtin", "storyteller"),
        ("file:/models/my model.gguf", "file", "/models/my model.gguf"),
        ("FILE:/a..b/c.gguf", "file", "/a..b/c.gguf"),
        ("hf:TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF", "hf", "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF"),
        ("HF:a/b:Q4_K_M@main", "hf", "a/b:Q4_K_M@main"),
        ("a/b:folder/x-00001-of-00002.gguf@refs/pr/1", "hf", "a/b:folder/x-00001-of-00002.gguf@refs/pr/1"),
        ("tinyllama-1.1b-q4", "id", "tinyllama-1.1b-q4"),
    ],
)
def test_a_reference_is_read_and_written(text: str, provider: str, reference: str) -> None:
    ref = parse_model_ref(text)
    assert (ref.provider, ref.reference) == (provider, reference)
    assert parse_model_ref(str(ref)) == ref


@given(st.text(alphabet=st.sampled_from("abAB01:/.@-_ \n\r\0\t~$\\'\"…"), max_size=30) | st.text())
@example("hf:a/b/../../etc/passwd")
@example("hf:a/b\n")
@example("a/b\0")
@example("hf:a/b:../x")
@example("file:/a/../b")
@example("file:relative")
@example("a/b\r\nX: y")
def test_nothing_dangerous_is_a_reference(text: str) -> None:
    for candidate in (text, f"hf:{text}", f"file:/{text}", f"builtin:{text}", f"a/b{text}", f"hf:a/b:{text}"):
        try:
            ref = parse_model_ref(candidate)
        except InvalidRequestError:
            continue
        assert not set(ref.reference) & set("\n\r\0\t")
        assert ".." not in ref.reference.split("/")
        if ref.provider != "file":
            assert ".." not in ref.reference
            assert ref.reference.isascii()


# clocks


def test_the_environment_wins_over_the_file_and_one_factor_scales_all() -> None:
    clocks = Clocks.load(
        {"heartbeat_s": 4, "hive_lease_s": 8}, {"RBEE_CLOCK_HEARTBEAT_S": "1.5", "RBEE_TIME_SCALE": "0.5"}
    )
    assert (clocks.heartbeat_s, clocks.hive_lease_s, clocks.worker_lease_s) == (0.75, 4.0, 5.0)
    assert Clocks.load({}, {}) == Clocks()


@pytest.mark.parametrize(
    ("table", "environment"),
    [
        ({"heart_beat_s": 1}, {}),
        ({"heartbeat_s": "soon"}, {}),
        ({"heartbeat_s": -1}, {}),
        ({"heartbeat_s": 0}, {}),
        ({"heartbeat_s": float("nan")}, {}),
        ({"heartbeat_s": True}, {}),
        ({}, {"RBEE_CLOCK_HEARTBEAT_S": "inf"}),
        ({}, {"RBEE_CLOCK_HEARTBEAT": "1"}),
        ({}, {"RBEE_TIME_SCALE": "0"}),
        ({}, {"RBEE_TIME_SCALE": ""}),
    ],
)
def test_a_clock_that_is_none_is_refused(table: dict[str, object], environment: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError):
        Clocks.load(table, environment)


def test_an_idle_limit_of_nothing_is_meant() -> None:
    assert Clocks.load({"idle_worker_s": 0}, {}).idle_worker_s == 0


def test_the_boot_clock_runs_forward() -> None:
    first = boot_time_s()
    assert boot_time_s() >= first > 0


# settings


class ExampleSettings(DaemonSettings):
    table: ClassVar[str] = "queen"
    model_config = SettingsConfigDict(env_prefix="RBEE_EXAMPLE_", frozen=True, extra="forbid")

    port: int = Field(default=1, ge=0, le=65_535)
    hosts: tuple[str, ...] = ()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_flag_over_environment_over_file_over_default(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def port(flag: int | None = None) -> int:
        return load_settings(ExampleSettings, flags={"port": flag}, config=config).port

    assert port() == 1
    config.write_text("[queen]\nport = 2\n[hive]\nport = 9\n")
    assert port() == 2
    monkeypatch.setenv("RBEE_EXAMPLE_PORT", "3")
    assert port() == 3
    assert port(4) == 4
    assert port(0) == 0


@pytest.mark.parametrize(
    "text",
    [
        "[queen]\nprot = 2", "[queen]\nport = 70000", "[queen]\nport = 'x'", "[quen]\nport = 1", "port = 1", "[queen",
        "\0", "queen = 1", "x = " + "[" * 5000,
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(InvalidRequestError):
        load_settings(ExampleSettings, flags={}, config=config)


def test_a_file_that_cannot_be_read_is_refused(config: Path) -> None:
    config.write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidRequestError):
        read_config(config)
    config.unlink()
    config.mkdir()
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        read_config(config)


@pytest.mark.parametrize(("name", "value"), [("PORT", "x"), ("PORT", "-1"), ("HOSTS", "bee.example")])
def test_a_wrong_variable_is_refused(config: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"RBEE_EXAMPLE_{name}", value)
    with pytest.raises(InvalidRequestError, match="queen settings") as raised:
        load_settings(ExampleSettings, flags={}, config=config)
    assert "RBEE_EXAMPLE_" in raised.value.hint


def test_every_fault_is_named(config: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"port: .*hosts: "):
        load_settings(ExampleSettings, flags={"port": -1, "hosts": 3}, config=config)


# leases


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_lease_runs_out_on_its_own_clock() -> None:
    clock = Clock()
    lease = Lease(10, clock)
    clock.now += 9
    assert lease.remaining_s() == 1
    lease.renew()
    assert lease.remaining_s() == 10
    lease.renew(3)
    clock.now += 3600  # the machine slept
    assert lease.remaining_s() < 0
    assert Lease(None, clock).remaining_s() == float("inf")


async def test_expiry_is_noticed_on_the_injected_clock_and_a_term_may_come_later() -> None:
    clock = Clock()
    lease = Lease(None, clock)
    over = anyio.Event()

    async def watch() -> None:
        await lease.expired()
        over.set()

    async with anyio.create_task_group() as group:
        group.start_soon(watch)
        await anyio.wait_all_tasks_blocked()
        lease.renew(0.2)
        clock.now += 1
        with anyio.fail_after(10):
            await over.wait()


# tokens and hosts


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic right", "right", "Bearer\tright"])
def test_no_bearer_no_entry(header: str | None) -> None:
    with pytest.raises(MissingApiKeyError):
        require_bearer(header, "right")


@pytest.mark.parametrize("sent", ["wrong", "righ", "rightx", "RIGHT", "r\u00efght", "right right"])
def test_the_wrong_bearer_is_told_so(sent: str) -> None:
    with pytest.raises(InvalidApiKeyError) as raised:
        require_bearer(f"Bearer {sent}", "right")
    assert "right" not in raised.value.message


@pytest.mark.parametrize("header", ["Bearer right", "bearer right", "BEARER  right "])
def test_the_right_bearer_enters(header: str) -> None:
    require_bearer(header, "right")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "LOCALHOST", "127.0.0.1:1", "[::1]", "[::1]:8080", "bee.lan"]
)
def test_our_own_names_are_answered(host: str) -> None:
    require_local_host(Headers({"host": host}), ["Bee.LAN"])
    require_local_host(Headers({"host": host, "origin": f"http://{host}"}), ["Bee.LAN"])


@pytest.mark.parametrize(
    "host",
    [
        "", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8080", "localhost@evil.example", "[::1",
        "::1", "[::2]", "0.0.0.0", "127.0.0.2", "localhost evil.example", "bee.lan.", "null", "http://localhost",
        "evil@localhost", "localhost/evil", "localhost?x", "localhost#x",
    ],
)  # fmt: skip
def test_other_names_are_not(host: str) -> None:
    with pytest.raises(HostNotAllowedError) as raised:
        require_local_host(Headers({"host": host}), ["bee.lan"])
    assert "allowed_hosts" in raised.value.hint


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "file://", "https://localhost.evil.example", "x"])
def test_a_foreign_page_is_refused_although_the_host_is_ours(origin: str) -> None:
    with pytest.raises(HostNotAllowedError):
        require_local_host(Headers({"host": "localhost", "origin": origin}), [])


# the client's side


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a":' * 50_000])
@pytest.mark.parametrize("status", [200, 500])
def test_a_stranger_is_not_a_peer(status: int, content: bytes) -> None:
    with pytest.raises(BadPeerError, match="answered"):
        read_answer(status, content, what="GET /health")


@pytest.mark.parametrize("content", [b"{}", b'{"error": "text"}', b'{"error": []}', b'{"detail": "Not Found"}'])
def test_an_error_without_our_shape_is_a_strangers(content: bytes) -> None:
    with pytest.raises(BadPeerError):
        read_answer(404, content, what="GET /x")


def test_no_content_is_an_empty_object_and_the_request_is_passed_on() -> None:
    assert read_answer(204, b"", what="x") == {}
    assert bearer(None) == {}
    current = correlation_id.set("req-1")
    try:
        assert bearer("t") == {"Authorization": "Bearer t", "X-Correlation-Id": "req-1"}
    finally:
        correlation_id.reset(current)


# programs


@pytest.mark.parametrize("program", ["queen-rbee", "rbee-hive", "llm-worker-rbee"])
def test_a_program_shows_its_name(program: Program) -> None:
    argv = program_argv(program)
    assert any(program in argument.replace("_", "-") for argument in argv)
