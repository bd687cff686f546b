"""What a look at a machine printed, with everything that a shell may print around it."""

import json
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queen_rbee.domain.nodes.platform_tag import PlatformTag
from queen_rbee.domain.nodes.probe_report import Probe, Python, cpu_features, read_probe
from rbee_shared.errors import ShellUnusableError

NONCE = "5f1d" * 8
PYTHON = {
    "path": "/usr/bin/python3.11", "version": [3, 11, 2], "implementation": "cpython", "bits": 64,
    "free_threaded": False, "venv": True, "system": "Linux", "machine": "x86_64", "libc": "glibc",
    "libc_version": "2.36", "macos_version": "",
}  # fmt: skip
INSTALLED = {
    "id": "0.1.0-abc-1", "version": "0.1.0", "wheel_sha256": "ab" * 32, "python": "3.11.2", "installed_at_unix": 5,
}  # fmt: skip
HIVE = {"url": "http://127.0.0.1:9200", "pid": 7, "instance": "i"}
FACTS = {
    "system": "Linux", "machine": "x86_64", "host": "mac", "user": "vince", "home": "/home/v x/.rbee",
    "writable": "yes",
    "disk": "/dev/my disk 1000 400 600 40% /home", "compiler": "/usr/bin/c++", "cmake": "/usr/bin/cmake",
    "cpu": "flags\t\t: fpu avx2", "installed": json.dumps(INSTALLED), "runs": "0.1.0", "hive": json.dumps(HIVE),
    "alive": "7", "python": json.dumps(PYTHON), "end": "",
}  # fmt: skip


def printed(**changed: str | None) -> str:
    facts = {**FACTS, **changed}
    return "".join(f"\n{NONCE} {key} {value}\n" for key, value in facts.items() if value is not None)


def python(**changed: Any) -> Python:
    return Python.model_validate({**PYTHON, **changed})


def test_every_fact_is_read() -> None:
    probe = read_probe(printed(), NONCE)
    assert (probe.system, probe.machine, probe.host, probe.user) == ("Linux", "x86_64", "mac", "vince")
    assert (probe.home, probe.writable, probe.disk_free_bytes) == ("/home/v x/.rbee", True, 600 * 1024)
    assert (probe.compiler, probe.cmake, probe.cpu) == ("/usr/bin/c++", "/usr/bin/cmake", frozenset({"fpu", "avx2"}))
    assert probe.installed is not None
    assert (probe.installed.id, probe.runs) == ("0.1.0-abc-1", "0.1.0")
    assert probe.hive is not None
    assert (probe.hive.url, probe.hive.pid, probe.hive.alive) == ("http://127.0.0.1:9200", 7, True)
    assert [found.path for found in probe.pythons] == ["/usr/bin/python3.11"]


@pytest.mark.parametrize("spelled", ["/home/v x/.rbee/", "//home//v x/./.rbee", "/home/v x/y/../.rbee"])
def test_a_home_has_one_spelling(spelled: str) -> None:
    assert read_probe(printed(home=spelled), NONCE).home == "/home/v x/.rbee"


def test_noise_without_line_breaks_carriage_returns_and_a_banner_do_no_harm() -> None:
    text = printed().replace("\n", "\r\n")
    noisy = f"*** WELCOME ***\nlast login: never {text.lstrip()}goodbye"
    assert read_probe(noisy, NONCE) == read_probe(printed(), NONCE)


def test_a_bare_machine_has_nothing() -> None:
    bare = dict.fromkeys(
        ("writable", "disk", "compiler", "cmake", "cpu", "installed", "runs", "hive", "alive", "python"), None
    )
    probe = read_probe(printed(**bare), NONCE)
    assert (probe.writable, probe.disk_free_bytes, probe.pythons) == (False, None, ())
    assert (probe.compiler, probe.cmake, probe.cpu, probe.installed, probe.runs, probe.hive) == (
        None, None, frozenset(), None, None, None,
    )  # fmt: skip


def test_a_hive_whose_process_is_gone_is_not_alive() -> None:
    hive = read_probe(printed(alive=None), NONCE).hive
    assert hive is not None
    assert not hive.alive


@pytest.mark.parametrize(
    "damaged", ["", "{", "null", '{"id": "../../etc"}', '{"pid": -1}', "[" * 100_000, '{"pid": 1e400}']
)
def test_damaged_notes_count_as_none(damaged: str) -> None:
    probe = read_probe(printed(installed=damaged, hive=damaged, python=damaged), NONCE)
    assert (probe.installed, probe.hive, probe.pythons) == (None, None, ())
    assert probe.hive_damaged


def test_where_no_hive_was_nothing_of_it_is_damaged() -> None:
    assert not read_probe(printed(), NONCE).hive_damaged
    assert not read_probe(printed(hive=None), NONCE).hive_damaged


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:99999", "http://127.0.0.1:0", "http://127.0.0.1", "http://127.0.0.1:", "http://:9200",
        "http://[::1:1", "http://[::1]", "http://[::1::2]:9200", "http://[vi.x]:9200", "http://::1:9200",
        "https://127.0.0.1:9200", "unix:/tmp/x", "", "http://me:pass@127.0.0.1:9200", "http://127.0.0.1:9200/x",
        "http://127.0.0.1:9200\n", "http://127.0.0.1:\u0661\u0662", "http://\u2100.example:9200",
    ],
)  # fmt: skip
def test_a_hive_that_names_no_url_of_a_program_counts_as_damaged(url: str) -> None:
    probe = read_probe(printed(hive=json.dumps({**HIVE, "url": url})), NONCE)
    assert (probe.hive, probe.hive_damaged) == (None, True)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://mac.home.arpa:65535", "http://[::1]:9200", "http://[fe80::1%eth0]:9200"]
)
def test_a_hive_may_listen_on_any_address(url: str) -> None:
    hive = read_probe(printed(hive=json.dumps({**HIVE, "url": url})), NONCE).hive
    assert hive is not None
    assert hive.url == url


@given(st.from_regex(r"http://[\[\]:.%0-9a-v@/]{0,20}:[0-9]{0,6}", fullmatch=True))
def test_whatever_url_is_taken_can_be_read_by_who_calls_it(url: str) -> None:
    hive = read_probe(printed(hive=json.dumps({**HIVE, "url": url})), NONCE).hive
    if hive is not None:
        assert urlsplit(hive.url).port
        assert urlsplit(hive.url).hostname


def test_an_installed_version_cannot_lead_out_of_its_directory() -> None:
    hostile = json.dumps({**INSTALLED, "id": "../../../bin"})
    assert read_probe(printed(installed=hostile), NONCE).installed is None


@pytest.mark.parametrize(
    ("said", "complaints", "shown"),
    [
        ("This account is not available.\n", "", "This account is not available."),
        ("", "fish: unknown command\n", "fish: unknown command"),
        ("", "", "it said nothing"),
        ("\x1b[2Jhello", "", "[2Jhello"),
    ],
)
def test_a_shell_that_runs_nothing_is_told_with_what_it_said(said: str, complaints: str, shown: str) -> None:
    with pytest.raises(ShellUnusableError) as caught:
        read_probe(said, NONCE, complaints)
    assert shown in caught.value.message
    assert "\x1b" not in caught.value.message


def test_a_look_that_broke_off_names_the_python_that_hung() -> None:
    text = f"{NONCE} system Linux\n{NONCE} trying /opt/bin/python3\n"
    with pytest.raises(ShellUnusableError, match="while asking /opt/bin/python3; it said 'nothing more'"):
        read_probe(text, NONCE, "nothing more")
    with pytest.raises(ShellUnusableError, match="broke off, and it said nothing"):
        read_probe(printed(end=None), NONCE)


@given(st.text())
def test_garbage_never_gets_further_than_an_error_for_people(text: str) -> None:
    with pytest.raises(ShellUnusableError):
        read_probe(text, NONCE)


@given(st.dictionaries(st.sampled_from(sorted(FACTS)), st.text(st.characters(exclude_characters="\n"))))
def test_garbage_behind_the_nonce_is_survived(changed: dict[str, str]) -> None:
    assert isinstance(read_probe(printed(**changed), NONCE), Probe)


def test_the_same_python_under_two_names_is_one() -> None:
    text = printed().replace(f"{NONCE} end", f"{NONCE} python {json.dumps(PYTHON)}\n{NONCE} end")
    assert len(read_probe(text, NONCE).pythons) == 1


@pytest.mark.parametrize(
    ("changed", "fit"),
    [
        ({}, True),
        ({"version": [3, 10, 9]}, False),
        ({"venv": False}, False),
        ({"bits": 32}, False),
        ({"implementation": "pypy"}, False),
        ({"free_threaded": True}, False),
        ({"system": "FreeBSD", "libc": ""}, False),
        ({"system": "Darwin", "libc": "", "libc_version": "", "macos_version": "14.5", "machine": "arm64"}, True),
    ],
)
def test_which_pythons_are_fit(changed: dict[str, Any], fit: bool) -> None:
    assert python(**changed).is_fit is fit


def test_tags_of_pythons() -> None:
    assert python().tag == PlatformTag("linux-x86_64", "cp311", "glibc", (2, 36))
    assert python(libc="musl", libc_version="").tag == PlatformTag("linux-x86_64", "cp311", "musl", (1, 0))
    mac = python(system="Darwin", libc="", libc_version="", macos_version="14.5.1", machine="arm64", version=[3, 13, 0])
    assert mac.tag == PlatformTag("darwin-arm64", "cp313", "macos", (14, 5))
    assert python(system="SunOS", libc="").tag is None
    assert python().said == "Python 3.11.2 (/usr/bin/python3.11)"


def test_what_a_processor_can_do() -> None:
    assert cpu_features("Features\t: fp asimd") == {"fp", "asimd"}
    assert cpu_features("Apple M2 Pro") == {"Apple M2 Pro"}
    assert cpu_features("Weird: name") == {"Weird: name"}
    assert cpu_features("") == frozenset()
