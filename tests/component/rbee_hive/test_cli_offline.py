"""The hive's command line where no hive runs: it works on the files, and says so where it cannot."""

import json
import os
import socket
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from tests.support.hive_cli import HiveCli
from tests.support.models import storyteller

QWEN = ("--id", "qwen-0.5b", "--name", "Qwen2.5 0.5B Instruct", "--repo", "Qwen/Qwen2.5-0.5B-Instruct")


@pytest.fixture
def cli(tmp_path: Path) -> HiveCli:
    return HiveCli(tmp_path)


def own_file(cli: HiveCli, name: str = "mine.gguf") -> Path:
    """A model that lies in the model directory."""
    cli.home.models.mkdir(parents=True, exist_ok=True)
    path = cli.home.models / name
    path.write_bytes(storyteller())
    return path


def ids(cli: HiveCli, *command: str) -> list[str]:
    return [row["id"] for row in cli.run("models", *(command or ("list",)), "--json").json["models"]]


def test_a_fresh_home_has_the_model_that_ships(cli: HiveCli) -> None:
    assert [row["id"] for row in cli.process("models", "list", "--json").json["models"]] == ["storyteller"]
    assert (cli.home.root.stat().st_mode & 0o777, cli.home.models_db.stat().st_mode & 0o777) == (0o700, 0o600)


def test_the_catalog_is_printed_as_a_person_knows_it(cli: HiveCli) -> None:
    assert cli.run("models", "register", *QWEN, "--architecture", "qwen", "--alias", "q").status == 0

    printed = cli.run("models", "catalog")

    assert printed.err == ""
    assert printed.out.splitlines() == [
        f"Model Catalog for {socket.gethostname()}",
        "=" * 80,
        "ID           Name                   Downloaded  Size",
        "-" * 80,
        "qwen-0.5b    Qwen2.5 0.5B Instruct  ❌          0 B",
        "storyteller  rbee storyteller       ✅          4.2 MB",
        "=" * 80,
        "Total models: 2",
    ]
    assert ids(cli) == ["storyteller"], "`list` has the downloaded ones only"


def test_a_model_may_be_named_by_id_alias_or_reference(cli: HiveCli) -> None:
    cli.run("models", "register", *QWEN, "--alias", "q")

    shown = [cli.run("models", "show", name, "--json").json for name in ("qwen-0.5b", "q", f"hf:{QWEN[5]}", QWEN[5])]

    assert shown == [shown[0]] * 4
    assert cli.run("models", "show", "q").out.startswith("id          qwen-0.5b\nname        Qwen2.5 0.5B Instruct\n")


def test_aliases_and_pins_are_changed(cli: HiveCli) -> None:
    assert cli.run("models", "alias", "storyteller", "st", "tales").out == "storyteller is also called st, tales\n"
    assert cli.run("models", "pin", "tales").out == "storyteller is pinned\n"
    row = cli.run("models", "show", "st", "--json").json
    assert (row["aliases"], row["pinned"]) == (["st", "tales"], True)

    assert cli.run("models", "unpin", "st").out == "storyteller is not pinned\n"
    assert cli.run("models", "alias", "st").out == "storyteller has no other name\n"
    assert cli.run("models", "show", "st").status == 1


def test_a_taken_alias_changes_nothing(cli: HiveCli) -> None:
    cli.run("models", "register", *QWEN, "--alias", "q")

    refused = cli.run("models", "alias", "storyteller", "new", "q")

    assert (refused.status, refused.out) == (1, "")
    assert "(ALREADY_EXISTS)" in refused.err
    assert "  next: " in refused.err
    assert cli.run("models", "show", "storyteller", "--json").json["aliases"] == []


def test_a_file_anywhere_is_imported_by_a_relative_path_and_never_deleted(cli: HiveCli, tmp_path: Path) -> None:
    path = tmp_path / "some where.gguf"
    path.write_bytes(storyteller())

    row = cli.process("models", "import", "some where.gguf", "--id", "tale", "--alias", "t", "--json", cwd=tmp_path)
    assert (row.status, row.json["local_path"], row.json["aliases"]) == (0, str(path), ["t"])

    refused = cli.run("models", "remove", "t", "--yes")
    assert (refused.status, path.exists()) == (4, True)
    assert "rbee does not delete it (FORBIDDEN)" in refused.err
    assert "rbee-hive models unregister tale" in refused.err

    assert cli.run("models", "unregister", "tale").out == "tale is no longer in the catalog\n"
    assert (path.exists(), ids(cli)) == (True, ["storyteller"])


@pytest.mark.parametrize(
    ("content", "code"), [(b"", "MODEL_INVALID"), (b"MZ not a model", "MODEL_INVALID"), (None, "MODEL_NOT_FOUND")]
)
def test_what_is_no_model_is_not_imported(cli: HiveCli, tmp_path: Path, content: bytes | None, code: str) -> None:
    path = tmp_path / "x.gguf"
    if content is not None:
        path.write_bytes(content)

    refused = cli.run("models", "import", str(path), "--json")

    assert (refused.status, refused.json["error"]["code"]) == (1, code)
    assert f"({code})" in refused.err


def test_files_are_removed_with_their_row(cli: HiveCli) -> None:
    path = own_file(cli)
    cli.run("models", "import", str(path))

    done = cli.run("models", "remove", "mine", "--yes", "--json").json

    assert (done["files_removed"], done["freed_bytes"]) == ([str(path)], len(storyteller()))
    assert not path.exists()


def test_nobody_to_ask_means_nothing_is_deleted(cli: HiveCli) -> None:
    path = own_file(cli)
    cli.run("models", "import", str(path))

    refused = cli.run("models", "remove", "mine")

    assert (refused.status, path.exists(), ids(cli)) == (2, True, ["mine", "storyteller"])
    assert "--yes" in refused.err


@pytest.mark.parametrize(("keys", "status"), [("n\n", 1), ("\n", 1), ("\x03", 130), ("\x04", 130)])
def test_only_a_yes_deletes(cli: HiveCli, keys: str, status: int) -> None:
    path = own_file(cli)
    cli.run("models", "import", str(path))

    with cli.terminal("models", "remove", "mine", columns=200) as terminal:
        terminal.until(f"Remove mine (4.2 MB: {path})? [y/N]:")
        terminal.type(keys)
        assert terminal.wait() == status

    assert (path.exists(), "Traceback" in terminal.read()) == (True, False)


def test_a_yes_on_a_terminal_deletes(cli: HiveCli) -> None:
    path = own_file(cli)
    cli.run("models", "import", str(path))

    with cli.terminal("models", "remove", "mine") as terminal:
        terminal.until("[y/N]:")
        terminal.type("y\n")
        assert terminal.wait() == 0

    assert not path.exists()


def test_a_pinned_model_keeps_its_files(cli: HiveCli) -> None:
    path = own_file(cli)
    cli.run("models", "import", str(path))
    cli.run("models", "pin", "mine")

    refused = cli.run("models", "remove", "mine", "--yes")

    assert (refused.status, path.exists()) == (4, True)
    assert "rbee-hive models unpin mine" in refused.err


def test_a_file_that_changed_is_found_by_verify(cli: HiveCli) -> None:
    path = own_file(cli)
    cli.run("models", "import", str(path))
    assert cli.run("models", "verify", "mine").out == f"ok  {path}\nmine is what it was\n"
    path.write_bytes(storyteller()[:-1] + bytes([storyteller()[-1] ^ 1]))

    found = cli.run("models", "verify", "mine")
    document = cli.run("models", "verify", "mine", "--json")

    assert found.status == document.status == 1
    assert found.out.startswith(f"FAILED  {path}: its SHA-256 is ")
    assert found.out.endswith("mine is not what it was\n")
    assert (document.json["ok"], document.json["files"][0]["ok"]) == (False, False)


def test_a_file_that_is_gone_is_told(cli: HiveCli) -> None:
    path = own_file(cli)
    cli.run("models", "import", str(path))
    path.unlink()

    shown = cli.run("models", "show", "mine")

    assert (shown.status, ["downloaded", "no"] in [line.split() for line in shown.out.splitlines()]) == (0, True)
    path.write_bytes(storyteller())
    assert ["downloaded", "no"] not in [line.split() for line in cli.run("models", "show", "mine").out.splitlines()]


def test_what_others_named_cannot_steer_a_terminal(cli: HiveCli) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07evil\nname\u202e[bold red]\x9b1m"
    assert cli.run("models", "register", "--id", "e", "--repo", "o/r", "--name", evil).status == 0

    with cli.terminal("models", "catalog", columns=200) as terminal:
        assert terminal.wait() == 0
    plain = cli.run("models", "catalog").out

    for printed in (terminal.raw, plain):
        assert not set("\x1b\x07\x9b\u202e") & set(printed)
        assert "evil name[bold red]" in printed, "and markup is text like any other"
    assert cli.run("models", "show", "e", "--json").json["name"] == evil, "a program gets it as it is"


@pytest.mark.parametrize(
    "env", [{"COLUMNS": "20"}, {"FORCE_COLOR": "1"}, {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1"}]
)
def test_a_pipe_gets_plain_whole_lines_whatever_the_environment_says(cli: HiveCli, env: dict[str, str]) -> None:
    name = "n" * 256
    cli.run("models", "register", "--id", "x" * 128, "--repo", "o/r", "--name", name)

    printed = cli.process("models", "catalog", env=env).out

    assert f"{'x' * 128}  {name}  ❌          0 B\n" in printed
    assert "\x1b" not in printed


def test_a_narrow_terminal_folds_and_cuts_nothing(cli: HiveCli) -> None:
    name, model_id = "n" * 100, "i" * 60
    cli.run("models", "register", "--id", model_id, "--repo", "o/r", "--name", name)

    with cli.terminal("models", "catalog", columns=44) as terminal:
        assert terminal.wait() == 0

    lines = terminal.read().splitlines()
    assert max(map(len, lines)) <= 44
    assert (terminal.read().count("n"), terminal.read().count("i")) >= (100, 60)
    assert "…" not in terminal.read()


def test_a_reader_that_leaves_ends_it_quietly(cli: HiveCli) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = cli.start("models", "catalog", stdout=writing)
    os.close(writing)

    _, err = process.communicate(timeout=60)

    assert (process.returncode, err) == (141, b"")


def test_nobody_reading_the_errors_changes_no_status(cli: HiveCli) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = cli.start("worker", "list", stderr=writing)
    os.close(writing)

    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (3, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_a_full_disk_is_an_error(cli: HiveCli) -> None:
    with Path("/dev/full").open("wb") as full:
        process = cli.start("models", "catalog", stdout=full)
        _, err = process.communicate(timeout=60)

    assert process.returncode == 5
    assert err.startswith(b"error: standard output cannot be written: No space left on device (DISK_FULL)\n  next: ")


@pytest.mark.parametrize(
    "command", [("list",), ("spawn", "cpu", "--model", "storyteller"), ("stop", "w"), ("stop-all",)]
)
def test_workers_need_a_hive(cli: HiveCli, command: tuple[str, ...]) -> None:
    refused = cli.run("worker", *command, "--json")

    assert refused.status == 3
    assert refused.err.startswith("error: no hive runs here")
    assert "  next: Start one: `rbee-hive daemon`.\n" in refused.err
    assert refused.json["error"]["code"] == "NODE_UNREACHABLE"


def test_status_says_that_none_runs(cli: HiveCli) -> None:
    assert cli.run("status").status == 3
    assert not cli.home.root.exists(), "asking makes nothing"


@pytest.mark.parametrize(
    "stale",
    [
        pytest.param(lambda _: {"pid": 2**22 + 1, "create_time": 1.0}, id="a process that is gone"),
        pytest.param(lambda _: {"pid": os.getpid(), "create_time": 1.0}, id="its pid is another's now"),
        pytest.param(lambda _: {"pid": "x"}, id="garbage"),
    ],
)
def test_the_run_file_of_a_killed_hive_is_not_believed(
    cli: HiveCli, stale: Callable[[None], dict[str, object]]
) -> None:
    path = cli.home.ensure().run_file("rbee-hive")
    path.write_text(json.dumps({"url": "http://127.0.0.1:1", "instance": "dead", **stale(None)}))

    assert ids(cli) == ["storyteller"]
    assert cli.run("worker", "list").status == 3


def test_a_damaged_catalog_is_moved_aside_and_made_again_from_the_files(cli: HiveCli) -> None:
    own_file(cli)
    cli.home.models_db.write_bytes(b"no database" * 1000)

    printed = cli.run("models", "list", "--json")

    assert [row["id"] for row in printed.json["models"]] == ["mine", "storyteller"]
    assert f"{cli.home.models_db} was damaged" in printed.err
    assert "found 1 models again in" in printed.err
    assert len(list(cli.home.root.glob("models.db*"))) >= 2


def test_many_at_once_lose_nothing(cli: HiveCli) -> None:
    def register(number: int) -> int:
        return cli.process("models", "register", "--id", f"m{number}", "--repo", f"o/r{number}").status

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(register, range(6))) == [0] * 6

    assert set(ids(cli, "catalog")) == {"storyteller", *(f"m{number}" for number in range(6))}


@pytest.mark.parametrize(
    "args",
    [
        ("models", "register", "--id", "../x", "--repo", "o/r"),
        ("models", "register", "--id", "x", "--repo", "file:/etc/passwd"),
        ("models", "register", "--id", "x", "--repo", "o/../r"),
        ("models", "register", "--id", "x", "--repo", "o/r", "--alias", "a/b"),
        ("models", "show", "../../etc"),
        ("models", "show", "a\nb"),
        ("models", "show", ""),
        ("models", "download", "x", "--sha256", "zz"),
        ("models", "download", ""),
        ("models", "import", "x.gguf", "--id", "-"),
        ("builds", "make", "abacus"),
        ("builds", "remove", "cpu-builtin"),
        ("nonsense",),
        ("models", "nonsense"),
        ("worker", "spawn", "cpu"),
    ],
)
def test_wrong_usage_is_exit_2_and_changes_nothing(cli: HiveCli, args: tuple[str, ...]) -> None:
    refused = cli.run(*args)

    assert (refused.status, refused.out) == (2, ""), refused.err
    assert "Traceback" not in refused.err
    assert ids(cli, "catalog") == ["storyteller"]


def test_an_unusable_home_is_told(cli: HiveCli, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    refused = cli.run("models", "list", env={"RBEE_HOME": str(tmp_path / "file" / "home")})

    assert (refused.status, "(DISK_FULL)" in refused.err) == (5, True)


def test_a_wrong_configuration_is_told(cli: HiveCli) -> None:
    cli.home.ensure().config.write_text("[hive]\nmodel_rotos = []\n")

    refused = cli.run("models", "list")

    assert (refused.status, "model_rotos" in refused.err) == (2, True)


def test_eight_gpus_are_shown(cli: HiveCli) -> None:
    entries = ", ".join(
        f'{{backend = "cuda", index = {n}, name = "NVIDIA H100 80GB HBM3", vram_bytes = 85899345920, build = "cpu"}}'
        for n in range(8)
    )
    cli.home.ensure().config.write_text(f"[hive]\ndevices = [{entries}]\n")

    printed, document = cli.run("detect"), cli.run("detect", "--json").json

    assert [gpu["id"] for gpu in document["gpus"]] == [f"gpu{n}" for n in range(8)]
    assert printed.out.count("NVIDIA H100 80GB HBM3 (declared)") == 8
    assert printed.out.splitlines()[-1] == "Total devices: 9"
    assert "cuda" in printed.out


def test_builds_are_listed_from_the_files(cli: HiveCli) -> None:
    document, printed = cli.run("builds", "list", "--json"), cli.run("builds", "list")

    assert (document.status, printed.status) == (0, 0)
    assert {row["kind"] for row in document.json["builds"]} <= {"cpu", "cuda", "metal", "vulkan"}
    assert printed.out.splitlines()[-1] == f"Total builds: {len(document.json['builds'])}"
    assert cli.run("builds", "remove", "cpu-0.0.0").status == 1


@pytest.mark.parametrize("command", [(), ("models",), ("worker",), ("builds",)])
def test_every_command_explains_itself(cli: HiveCli, command: tuple[str, ...]) -> None:
    listed = cli.run(*command, "--help")
    assert listed.status == 0
    names = [line.split()[0] for line in listed.out.partition("Commands:\n")[2].splitlines() if line[2:3].strip()]

    assert names
    for name in names:
        assert cli.run(*command, name, "--help").status == 0, name


def test_term_ends_a_command_with_143(cli: HiveCli) -> None:
    """A lock that somebody holds keeps it waiting, audibly."""
    cli.run("models", "list")
    locker = subprocess.Popen(
        ["python3", "-c", _HOLD, str(cli.home.models_db)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert locker.stdout is not None
    assert locker.stdout.readline() == b"held\n"
    cli.environment["RBEE_CLOCK_SILENCE_S"] = "0.3"
    process = cli.start("models", "pin", "storyteller")
    assert process.stderr is not None
    assert b"still waiting for the model catalog" in process.stderr.readline()

    process.terminate()

    assert process.wait(60) == 143
    process.communicate()
    locker.communicate(timeout=60)
    assert not psutil.pid_exists(process.pid)


_HOLD = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
db.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""
