"""The seeds' walk-throughs over three machines, with today's names for the commands."""

import json
from typing import Any

import pytest
from tests.support.cluster import frames_of
from tests.support.lab import Lab
from tests.support.lab_answers import infer, of_nodes
from tests.support.lab_cluster import PROGRAMS, keeper, standing_queen
from tests.support.lab_host import Host
from tests.support.models import storyteller

ON_PATH = 'PATH="$HOME/.rbee/current/bin:$PATH"\n'


def post(host: Host, task: dict[str, Any]) -> dict[str, Any]:
    """Submit a task as the seeds' applications do, and read its events: the one that says where it runs."""
    curl = ["curl", "--silent", "--show-error", "--fail-with-body", "--no-buffer"]
    submit = [*curl, "-X", "POST", "http://localhost:8080/v2/tasks", "-d", json.dumps(task)]
    taken = json.loads(host.run(submit).stdout)
    events = frames_of(host.run([*curl, f"http://localhost:8080{taken['events_url']}"]).stdout)
    assert [event["type"] for event in events].count("token") > 0, events
    assert events[-1]["type"] == "end", events
    (started,) = (event for event in events if event["type"] == "started")
    return started


# node, backend, model, which GPU, and what the cluster calls that device
EXAMPLE_2 = (
    ("mac", "metal", "qwen-0.5b", ("--gpu", "0"), "gpu0"),
    ("mac", "metal", "tinyllama", ("--gpu", "0"), "gpu0"),
    ("workstation", "cuda", "mistral", ("--gpu", "0"), "gpu0"),
    ("workstation", "cuda", "llama3-8b", ("--gpu", "1"), "gpu1"),
    ("blep", "cpu", "tinyllama", (), "cpu"),
)


def test_example_2_three_nodes_routed_by_the_model_alone(cluster: Lab) -> None:
    """Seed 002: each machine holds other models; a task names only the model."""
    blep = cluster.blep
    for model in {model for _, _, model, _, _ in EXAMPLE_2}:
        cluster.hub.add(f"seeds/{model}-GGUF", {f"{model}.Q4_K_M.gguf": storyteller()})
    with standing_queen(cluster):
        for far in (cluster.mac, cluster.workstation):
            keeper(blep, "node", "add", far.name, "--host", far.fqdn)
        workers = {}
        for node, backend, model, gpu, device in EXAMPLE_2:
            there = ("--host", cluster[node].fqdn)
            keeper(blep, "pool", "models", "download", f"hf:seeds/{model}-GGUF", "--id", model, *there)
            (spawned,) = of_nodes(blep, "worker", "spawn", backend, *there, "--model", model, *gpu).values()
            workers[spawned["worker_id"]] = (node, model, device)
        for host in cluster.hosts:
            (listed,) = of_nodes(blep, "worker", "list", "--host", host.fqdn).values()
            found = {each["id"]: (host.name, each["model_id"], each["device"]) for each in listed["workers"]}
            assert found == {worker: about for worker, about in workers.items() if about[0] == host.name}
            host.seen_alive("rbee-hive", "llm-worker-rbee")

        for _, _, model, _, _ in EXAMPLE_2:
            holders = {worker for worker, (_, held, _) in workers.items() if held == model}
            asked = infer(blep, "--model", model, "--max-tokens", "5", "Hello").started
            posted = post(blep, {"prompt": "Hello", "model": model})
            for started in (asked, posted):
                assert started["worker_id"] in holders
                assert started["node"] == workers[started["worker_id"]][0].replace("blep", "localhost")
    for host in cluster.hosts:
        host.all_gone(20, *PROGRAMS)


@pytest.mark.parametrize("terminal", ["stays", "closes"])
def test_mode_2_operators_start_the_hives(cluster: Lab, terminal: str) -> None:
    """Seed 003, word for word: `queen-rbee daemon &`, `ssh mac "rbee-hive daemon &"`, then tasks over HTTP.

    Such an `ssh` does not return while the hive runs, whose output is still its own; the operator may close it.
    """
    far = (cluster.mac, cluster.workstation)
    with standing_queen(cluster):
        for host in far:
            host.write("/root/.bashrc", ON_PATH)
        operators = {host.name: cluster.blep.popen(["ssh", host.name, "rbee-hive daemon &"]) for host in far}
        for host in far:
            operators[host.name].wait_for("HTTP server ready")
        if terminal == "closes":
            for operator in operators.values():
                operator.send_signal(15)  # not HUP, which `nohup` has every program below it ignore
                operator.wait(20)
        hives = {host.name: host.processes("rbee-hive daemon") for host in far}
        for host in far:
            task = {"prompt": "Hello", "max_tokens": 5, "node": host.name}
            first = post(cluster.blep, task)
            assert first["node"] == host.name
            assert post(cluster.blep, task)["worker_id"] == first["worker_id"], "workers stay alive, and are reused"
            (hive,) = hives[host.name]
            assert host.processes("rbee-hive daemon") == [hive], "the operator's own, adopted"
            host.seen_alive("rbee-hive", "llm-worker-rbee")
    for host in far:
        host.all_gone(20, *PROGRAMS)
        operators[host.name].wait(20)


def test_mode_2_over_http(cluster: Lab) -> None:
    token = cluster.blep.run(["rbee-keeper", "token"]).stdout.strip()
    cluster.mac.write("/root/token", f"{token}\n", mode=0o600)
    program = "/root/.rbee/current/bin/rbee-hive"
    hive = cluster.mac.popen([program, "daemon", "--bind", "10.77.0.13", "--token-file", "/root/token"])
    hive.wait_for("HTTP server ready")
    with standing_queen(cluster):
        keeper(cluster.blep, "node", "add", "mac", "--transport", "http", "--host", "10.77.0.13")
        answered = keeper(cluster.blep, "infer", "--node", "mac", "--max-tokens", "5", "hello")
        assert "adopting the hive that already runs" in answered.stderr
        assert answered.stdout.strip()
        cluster.mac.seen_alive("rbee-hive", "llm-worker-rbee")
        assert hive.process.poll() is None, "the operator's own"
        assert post(cluster.blep, {"prompt": "Hello", "max_tokens": 5, "node": "mac"})["node"] == "mac"
    cluster.mac.all_gone(20, *PROGRAMS)


def test_a_hive_of_another_cluster_is_refused_with_its_owner_named(cluster: Lab) -> None:
    cluster.mac.write("/root/token", "another-clusters-token-0123456789abcdef\n", mode=0o600)
    hive = cluster.mac.popen(["/root/.rbee/current/bin/rbee-hive", "daemon", "--token-file", "/root/token"])
    hive.wait_for("HTTP server ready")
    refused = keeper(cluster.blep, "infer", "--node", "mac", "hello", check=False)
    assert refused.status == 1
    assert "HIVE_OWNED" in refused.stderr
    assert "of root on mac" in refused.stderr
    hive.send_signal(15)
    assert hive.wait(20) == 0
