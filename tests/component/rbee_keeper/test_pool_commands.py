"""`pool …` from command line to exit status: one node, several, all; hives that sleep, fail and talk nonsense."""

import json
import shlex
import signal
from typing import Any

import pytest
from tests.support.fake_nodes import API_KEY
from tests.support.keeper_lab import KeeperLab
from tests.support.keeper_terminal import Terminal


def orders(lab: KeeperLab) -> list[tuple[str, str, str]]:
    return [(note["node"], note["method"], note["path"]) for note in lab.notes("pool")]


def last_order(lab: KeeperLab, path: str) -> dict[str, Any]:
    return next(note for note in reversed(lab.notes("pool")) if note["path"] == path)


# one node


def test_status_shows_everything_about_a_node(cluster: KeeperLab) -> None:
    shown = cluster.keeper("pool", "status", "--host", "mac.home.arpa")

    assert (shown.status, shown.err) == (0, "")
    text = shown.out.decode()
    for fact in [
        "last heartbeat  ", "version         0.1.0", "100 GB free in /m", "2 known, 1 downloaded",
        "gpu0  metal    Apple M2        24 GB   20 GB  7 %", "w1  metal    tinyllama  8001  12345  idle",
        "metal-0.3.36",
    ]:  # fmt: skip
        assert fact in text
    document = json.loads(cluster.keeper("pool", "status", "--host", "mac", "--json").out)
    assert document["nodes"]["mac"]["devices"]["gpus"][0]["utilisation_pct"] == 7


@pytest.mark.parametrize("form", [(), ("--json",)])
@pytest.mark.parametrize("command", [("pool", "status"), ("pool", "worker", "list")])
def test_nobody_sees_a_worker_s_key(cluster: KeeperLab, command: tuple[str, ...], form: tuple[str, ...]) -> None:
    done = cluster.keeper(*command, "--host", "mac", *form)

    assert b"w1" in done.out
    assert API_KEY.encode() not in done.out
    assert b"api_key" not in done.out


def test_the_catalog_is_the_table_of_the_seed(cluster: KeeperLab) -> None:
    shown = cluster.keeper("pool", "models", "catalog", "--host", "mac")

    lines = shown.out.decode().splitlines()
    assert lines[:4] == [
        "Model Catalog for mac",
        "=" * 80,
        "ID         Name                 Downloaded  Size",
        "-" * 80,
    ]
    assert lines[4].split() == ["tinyllama", "TinyLlama", "1.1B", "Chat", "✅", "2.2", "GB"]
    assert lines[-2:] == ["=" * 80, f"Total models: {len(lines) - 6}"]


@pytest.mark.parametrize(
    ("command", "method", "path", "body", "query"),
    [
        ("models list", "GET", "v1/models", {}, {}),
        ("models catalog", "GET", "v1/models", {}, {}),
        ("models show tinyllama", "GET", "v1/models", {}, {"model": "tinyllama"}),
        ("models register --id a --repo o/r --name N --architecture q --alias b", "POST", "v1/models/register",
         {"id": "a", "repo": "o/r", "name": "N", "architecture": "q", "aliases": ["b"]}, {}),
        ("models download o/r --id a", "POST", "v1/models/provision", {"model": "o/r", "id": "a"}, {}),
        (f"models download https://h/x.gguf --sha256 {'A' * 64}", "POST", "v1/models/provision",
         {"model": "https://h/x.gguf", "sha256": "a" * 64}, {}),
        ("models unregister phi3", "DELETE", "v1/models/phi3", {}, {"files": "false"}),
        ("models remove tinyllama --yes", "DELETE", "v1/models/tinyllama", {}, {"files": "true"}),
        ("builds list", "GET", "v1/builds", {}, {}),
        ("builds make CUDA-llm-worker-rbee --rebuild", "POST", "v1/workers/provision",
         {"kind": "CUDA-llm-worker-rbee", "rebuild": True}, {}),
        ("builds remove cuda-0.3", "DELETE", "v1/builds/cuda-0.3", {}, {}),
        ("worker list", "GET", "v1/workers/list", {}, {}),
        ("worker stop-all", "POST", "v1/workers/stop-all", {}, {}),
        ("test", "POST", "v1/selftest", {}, {}),
    ],
)  # fmt: skip
def test_each_command_asks_the_local_hive_where_no_node_is_named(
    cluster: KeeperLab, command: str, method: str, path: str, body: dict[str, Any], query: dict[str, str]
) -> None:
    done = cluster.keeper("pool", *shlex.split(command))

    assert done.status == 0, done.err
    assert done.out
    asked = last_order(cluster, path)
    assert (asked["node"], asked["method"], asked["body"], asked["query"]) == ("localhost", method, body, query)


def test_spawning_has_the_build_first_and_waits_until_the_worker_serves(cluster: KeeperLab) -> None:
    line = "pool worker spawn metal-llm-worker-rbee --host mac --model qwen-0.5b --gpu 0 --n-ctx 512 --slots 2"
    done = cluster.keeper(*line.split())

    assert (done.status, done.out) == (0, b"worker-metal-1 is idle on mac\n")
    assert "building the worker [##########] 100 %" in done.err
    assert "queen: loading model for worker-metal-1" in done.err
    *_, provision, _, spawned, waited = [note for note in cluster.notes("pool") if note["node"] == "mac"]
    assert (provision["path"], provision["body"]["kind"]) == ("v1/workers/provision", "metal-llm-worker-rbee")
    assert waited["query"] == {"wait": "ready"}
    assert spawned["body"] == waited["body"]
    assert spawned["body"].pop("request_id")
    assert spawned["body"] == {"model": "qwen-0.5b", "backend": "metal", "device": 0, "n_ctx": 512, "slots": 2}


def test_update_is_node_update(cluster: KeeperLab) -> None:
    done = cluster.keeper("pool", "update", "--host", "mac", "--check", "--drain")

    assert done.status == 0
    assert done.out.startswith(b"what an update of mac would do\n")
    action = cluster.notes("action")[-1]
    assert (action["action"], action["node"]) == ("update", "mac")
    assert (action["body"]["check"], action["body"]["drain"]) == (True, True)
    assert done.err.count("queen: update mac") == 1  # it came by the action's stream and by the cluster's


def test_integration_is_a_whole_task_on_that_node(cluster: KeeperLab) -> None:
    done = cluster.keeper("pool", "test", "integration", "--host", "mac")

    assert done.status == 0
    assert done.out.startswith(b"mac answered\n")
    assert b"Once upon a time" in done.out
    task = cluster.notes("task")[-1]["body"]
    assert (task["node"], task["model"]) == ("mac", "builtin:storyteller")


def test_a_self_test_that_finds_something_is_a_failure(lab: KeeperLab) -> None:
    lab.start_queen("--sick")

    done = lab.keeper("pool", "test")

    assert done.status == 1
    assert "cpu: scripted [31mred second (BACKEND_UNAVAILABLE)\n  next: do something else" in done.out.decode()
    assert done.out.endswith(b"localhost has failed its test\n")


def test_an_answer_without_a_token_is_a_failure(lab: KeeperLab) -> None:
    lab.start_queen("--answer", "[]")

    done = lab.keeper("pool", "test", "integration")

    assert done.status == 1
    assert done.out.startswith(b"localhost answered without a token\n")


def test_memory_that_did_not_come_back_is_an_error_all_the_same(lab: KeeperLab) -> None:
    lab.start_queen("--cluster", "--stop-all-error", "MEMORY_NOT_RELEASED")

    done = lab.keeper("pool", "worker", "stop-all", "--host", "mac")

    assert (done.status, done.out) == (1, b"worker w1 is stopped\n")
    assert "(MEMORY_NOT_RELEASED)" in done.err


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("models register --repo o/r", "Missing option '--id'"),
        ("models register --id a/b --repo o/r", "id"),
        ("models download x --sha256 nonsense", "sha256"),
        ("models remove tinyllama", "Say that you mean it: --yes"),
        ("worker spawn tpu --model x", "backend"),
        ("worker spawn cpu --model x --gpu -1", "device"),
        ("worker spawn cpu", "Missing option '--model'"),
        ("test everything", "Invalid value"),
        ("status --host ''", "is not the name of a node"),
        ("status --host a/b", "is not the name of a node"),
        ("status --host '\x1b[2J'", "is not the name of a node"),
        (f"status --host {'x' * 256}", "is not the name of a node"),
    ],
)
def test_wrong_usage_is_2_and_wakes_nobody(cluster: KeeperLab, line: str, said: str) -> None:
    asked = len(cluster.notes("pool"))

    done = cluster.keeper("pool", *shlex.split(line))

    assert (done.status, done.out) == (2, b"")
    assert said in done.err
    assert "\x1b" not in done.err
    assert len(cluster.notes("pool")) == asked


# the queen


@pytest.mark.parametrize("line", ["status", "models catalog", "worker list", "builds list", "models show x"])
def test_reading_wakes_nobody(lab: KeeperLab, line: str) -> None:
    done = lab.keeper("pool", *line.split(), "--host", "mac")

    assert done.status == 3
    assert done.out.startswith(b"queen is asleep")
    assert not lab.notes("listening")


@pytest.mark.parametrize("line", ["worker stop-all", "worker stop w1"])
def test_stopping_where_the_queen_sleeps_is_done_already(lab: KeeperLab, line: str) -> None:
    done = lab.keeper("pool", *line.split(), "--host", "mac")

    assert done.status == 0
    assert done.out == (
        b"queen is asleep: no hive and no worker of hers runs; if she was killed, hers end by themselves "
        b"within 25 s (70 s where she had adopted them)\n"
    )


def test_a_worker_wants_a_standing_queen(lab: KeeperLab) -> None:
    done = lab.keeper("pool", "worker", "spawn", "cpu", "--model", "x")

    assert (done.status, done.out) == (3, b"")
    assert "rbee-keeper queen start" in done.err
    assert not lab.notes("listening")


def test_what_stays_on_the_disk_wakes_a_queen_who_goes_again(lab: KeeperLab) -> None:
    lab.script_queen("--cluster")

    done = lab.keeper("pool", "models", "download", "tinyllama", "--host", "pc")

    assert (done.status, done.out) == (0, b"tinyllama is on pc (2.2 GB, 1.0 GB fetched): /m/t.gguf\n")
    for fact in ["waking the hive at pc over SSH", "downloading [####------] 40 % (400 MB / 1.0 GB) 45 MB/s\n"]:
        assert fact in done.err
    lab.assert_nothing_left()


# hives that sleep


def test_asleep_is_an_answer_where_it_answers(lab: KeeperLab) -> None:
    lab.start_queen("--cluster")

    status = lab.keeper("pool", "status", "--host", "pc")
    assert (status.status, status.err) == (0, "")
    assert b"pc is asleep" in status.out
    assert b"rbee-keeper node start pc" in status.out
    stopped = lab.keeper("pool", "worker", "stop-all", "--host", "pc", "--json")
    assert (stopped.status, json.loads(stopped.out)["nodes"]["pc"]["asleep"]) == (0, True)
    catalog = lab.keeper("pool", "models", "catalog", "--host", "pc")
    assert (catalog.status, catalog.err) == (3, "")
    assert b"pc is asleep" in catalog.out
    assert not lab.notes("pool")


def test_removing_wakes_the_hive_before_it_looks_for_the_model(lab: KeeperLab) -> None:
    lab.start_queen("--cluster")

    done = lab.keeper("pool", "models", "unregister", "tinyllama", "--host", "pc")

    assert (done.status, done.out) == (0, b"tinyllama is no longer in the catalog\n")
    assert [note["action"] for note in lab.notes("action")] == ["start"]


# several nodes


def test_one_node_that_fails_does_not_hide_the_others(cluster: KeeperLab) -> None:
    args = [
        "pool",
        "models",
        "download",
        "phi3",
        "--host",
        "mac",
        "--host",
        "gone",
        "--host",
        "nowhere",
        "--host",
        "mac",
    ]

    done = cluster.keeper(*args)

    assert done.status == 3
    assert done.out.decode().startswith("mac:     tinyllama is on mac (")
    assert "error: gone: gone.home.arpa: no route to host (NODE_UNREACHABLE)\n  next: switch it on" in done.err
    assert "error: nowhere: there is no node nowhere (NODE_NOT_FOUND)" in done.err
    assert "mac: downloading [" in done.err
    document = json.loads(cluster.keeper(*args, "--json", "--quiet").out)
    assert list(document["nodes"]) == ["mac", "gone", "nowhere"]
    assert document["nodes"]["mac"]["bytes_fetched"] == 1_000_000_000
    assert document["nodes"]["gone"]["error"]["code"] == "NODE_UNREACHABLE"


def test_all_is_every_node_of_the_catalog(lab: KeeperLab) -> None:
    lab.start_queen("--cluster")

    done = lab.keeper("pool", "status", "--host", "all")

    assert done.status == 3  # of `gone` nobody knows what runs there
    lines = done.out.decode().splitlines()
    assert {line.split(":")[0] for line in lines} == {"mac", "pc", "gone"}
    assert "pc:   pc is asleep" in done.out.decode()
    assert "gone: gone: no route [31mred second (SSH_UNREACHABLE" in done.out.decode()


def test_only_a_queen_who_fails_is_told_once(lab: KeeperLab) -> None:
    lab.start_queen("--cluster", "--break-provision", "die")

    done = lab.keeper("pool", "models", "download", "x", "--host", "mac", "--host", "pc")

    assert (done.status, done.out) == (3, b"")
    assert done.err.count("error:") == 1
    assert "(QUEEN_LOST)" in done.err


@pytest.mark.parametrize(
    ("flags", "code", "status"),
    [
        (["--break-provision", "truncate"], "STREAM_TRUNCATED", 3),
        (["--nonsense"], "BAD_PEER", 3),
        (["--stop-hive-orders"], "SHUTTING_DOWN", 3),
    ],
)
def test_what_hives_do_wrong_is_told_of_them(lab: KeeperLab, flags: list[str], code: str, status: int) -> None:
    lab.start_queen("--cluster", *flags)

    done = lab.keeper("pool", "models", "download", "x", "--host", "mac", "--host", "pc")

    assert (done.status, done.out) == (status, b"")
    assert [line.split(":")[1].strip() for line in done.err.splitlines() if line.startswith("error:")] == ["mac", "pc"]
    assert f"({code})" in done.err
    assert "Traceback" not in done.err


def test_two_bars_on_a_terminal_stand_one_below_the_other(lab: KeeperLab, terminals: list[Terminal]) -> None:
    lab.start_queen("--cluster", "--provision-s", "1")
    terminal = Terminal(lab, "pool", "models", "download", "x", "--host", "mac", "--host", "pc")
    terminals.append(terminal)

    assert terminal.wait() == 0

    both = "mac: downloading [####------] 40 % (400 MB / 1.0 GB) 45 MB/s\r\npc: downloading [####------] 40 %"
    assert both in terminal.raw
    assert "\r\x1b[K\x1b[A\x1b[K" in terminal.raw
    assert terminal.read().endswith("/m/t.gguf\n")


# cut short


def test_ctrl_c_while_a_worker_loads_stops_it(lab: KeeperLab) -> None:
    lab.start_queen("--cluster", "--load-s", "30")
    keeper = lab.start_keeper("pool", "worker", "spawn", "metal", "--host", "mac", "--model", "x")
    lab.until(lambda: any(note["query"].get("wait") for note in lab.notes("pool")))

    keeper.send_signal(signal.SIGINT)

    assert keeper.wait(30) == 130
    assert keeper.stderr is not None
    assert b"stopping worker-metal-1" in keeper.stderr.read()
    assert orders(lab)[-1] == ("mac", "POST", "v1/workers/worker-metal-1/stop")


def test_ctrl_c_while_a_model_is_fetched_hangs_up(lab: KeeperLab) -> None:
    lab.script_queen("--cluster", "--provision-s", "60")
    keeper = lab.start_keeper("pool", "models", "download", "x", "--host", "mac")
    lab.until(lambda: any(note["path"].endswith("/events") for note in lab.notes("pool")))

    keeper.send_signal(signal.SIGINT)

    assert keeper.wait(30) == 130
    lab.until(lambda: lab.notes("provision_hung_up"))
    lab.assert_nothing_left()


def test_a_long_order_is_never_silent(lab: KeeperLab) -> None:
    lab.start_queen("--load-s", "2.5")

    done = lab.keeper("pool", "worker", "spawn", "cpu", "--model", "x")

    assert done.status == 0
    assert "still waiting for the worker to be ready" in done.err


# removing files


@pytest.mark.parametrize(("answer", "status"), [(b"y\n", 0), (b"n\n", 1), (b"\x04", 130), (b"\x03", 130)])
def test_removing_files_is_asked_about(lab: KeeperLab, terminals: list[Terminal], answer: bytes, status: int) -> None:
    lab.start_queen("--cluster")
    terminal = Terminal(lab, "pool", "models", "remove", "tinyllama", "--host", "mac")
    terminals.append(terminal)
    lab.until(lambda: "Remove tinyllama and its files from mac?" in terminal.read())

    terminal.type(answer)

    assert terminal.wait() == status
    assert any(method == "DELETE" for _, method, _ in orders(lab)) == (status == 0)
    assert "Traceback" not in terminal.read()
