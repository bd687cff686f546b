"""The seeds' walk-throughs over three machines, with today's names for the commands."""

import json

from tests.support.lab import Lab
from tests.support.lab_cluster import PROGRAMS, keeper, standing_queen
from tests.support.models import storyteller


def test_example_2_three_nodes_routed_by_the_model_alone(cluster: Lab) -> None:
    """Seed 002: each machine holds another model; a task names only the model."""
    models = {"localhost": "tinyllama", "workstation": "mistral", "mac": "qwen-0.5b"}
    for name in models.values():
        cluster.hub.add(f"seeds/{name}-GGUF", {f"{name}.Q4_K_M.gguf": storyteller()})
    with standing_queen(cluster):
        for node, name in models.items():
            keeper(cluster.blep, "pool", "models", "download", f"hf:seeds/{name}-GGUF", "--id", name, "--host", node)
        keeper(cluster.blep, "pool", "worker", "spawn", "metal", "--host", "mac", "--model", "qwen-0.5b", "--gpu", "0")
        keeper(
            cluster.blep, "pool", "worker", "spawn", "cuda", "--host", "workstation", "--model", "mistral", "--gpu", "1"
        )
        for node, name in models.items():
            answered = keeper(cluster.blep, "infer", "--model", name, "--max-tokens", "5", "hello")
            assert answered.stdout.strip()
            tasks = keeper(cluster.blep, "status", "--json")
            workers = json.loads(tasks.stdout)["workers"]
            assert any(worker["node_name"] == node for worker in workers), (node, workers)
        status = keeper(cluster.blep, "pool", "status", "--host", "all")
        assert "RTX 3090" in status.stdout
        assert "M3 Max" in status.stdout
    for host in (cluster.blep, cluster.mac, cluster.workstation):
        host.all_gone(20, *PROGRAMS)


def test_mode_2_operators_start_the_hives(cluster: Lab) -> None:
    """Seed 003: `queen-rbee daemon &`, `ssh mac "rbee-hive daemon &"`, then tasks over HTTP."""
    for host in (cluster.mac, cluster.workstation):
        host.write("/root/.bashrc", 'PATH="$HOME/.rbee/current/bin:$PATH"\n')
        cluster.blep.run(["ssh", host.name, "rbee-hive daemon > /dev/null 2>&1 < /dev/null &"])
        host.seen_alive("rbee-hive")
    hives = {host.name: host.processes("rbee-hive")[0] for host in (cluster.mac, cluster.workstation)}
    with standing_queen(cluster):
        for node in ("mac", "workstation"):
            answered = keeper(cluster.blep, "infer", "--node", node, "--max-tokens", "5", "hello")
            assert "adopting the hive that already runs" in answered.stderr
            assert answered.stdout.strip()
            assert hives[node].is_running()
    for host in (cluster.mac, cluster.workstation):
        host.all_gone(20, *PROGRAMS)


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


def test_uninstalling_leaves_the_account_as_it_was(lab: Lab) -> None:
    lab.introduce(lab.blep, lab.mac)
    before = lab.mac.files("/root")
    keeper(lab.blep, "node", "add", "mac")
    keeper(lab.blep, "node", "wheelhouse", "mac", within_s=300)
    answered = keeper(lab.blep, "infer", "--node", "mac", "--max-tokens", "3", "hello", within_s=600)
    assert answered.stdout.strip()
    prefixes = lab.mac.run(
        ["/root/.rbee/current/bin/python", "-c", "import os, sys; print(os.path.realpath(sys.prefix))"]
    ).stdout
    assert prefixes.startswith("/root/.rbee/versions/")
    keeper(lab.blep, "node", "uninstall", "mac")
    assert lab.mac.files("/root") == before


def test_example_3_update_stop_all_respawn(cluster: Lab) -> None:
    """Seed 002: a node with another version of the code is brought to the queen's; its workers start anew on it."""
    home = "/root/.rbee"
    (installed,) = cluster.mac.path(f"{home}/versions").iterdir()
    module = next(cluster.mac.path(str(installed.relative_to(cluster.mac.path("/")))).rglob("rbee_hive/settings.py"))
    module.write_text(module.read_text() + "\n# another version\n")
    note = json.loads((installed / "installed.json").read_text())
    (installed / "installed.json").write_text(json.dumps({**note, "wheel_sha256": "0" * 64}))
    keeper(cluster.blep, "node", "wheelhouse", "mac", within_s=300)
    with standing_queen(cluster):
        checked = json.loads(keeper(cluster.blep, "node", "update", "mac", "--check", "--json").stdout)
        assert checked["facts"]["needed"] is True
        refused = keeper(cluster.blep, "node", "start", "mac", "--no-install", check=False)
        assert "VERSION_MISMATCH" in refused.stderr
        updated = keeper(cluster.blep, "pool", "update", "--host", "mac", within_s=400)
        assert "installed" in updated.stderr
        new = json.loads(cluster.mac.path(f"{home}/current/installed.json").read_text())
        assert new["wheel_sha256"] != "0" * 64
        assert cluster.mac.run(["readlink", f"{home}/previous"]).stdout.strip().endswith(installed.name)
        keeper(cluster.blep, "pool", "worker", "stop-all", "--host", "mac")
        keeper(
            cluster.blep, "pool", "worker", "spawn", "metal", "--host", "mac", "--model", "storyteller", "--gpu", "0"
        )
        listed = keeper(cluster.blep, "pool", "worker", "list", "--host", "mac")
        assert "metal" in listed.stdout
        (hive,) = cluster.mac.processes("rbee-hive")
        assert new["id"] in " ".join(hive.cmdline())
        tested = keeper(cluster.blep, "pool", "test", "--host", "mac", within_s=200)
        assert tested.status == 0
        again = json.loads(keeper(cluster.blep, "node", "update", "mac", "--check", "--json").stdout)
        assert again["facts"]["needed"] is False
    cluster.mac.all_gone(20, *PROGRAMS)


def test_a_user_without_rights_will_do(lab: Lab) -> None:
    """No root on the node: an account, sshd and Python."""
    lab.introduce(lab.blep, lab.workstation, user="rita", by="root")
    keeper(lab.blep, "node", "add", "workstation", "--user", "rita")
    keeper(lab.blep, "node", "wheelhouse", "workstation", within_s=300)
    answered = keeper(lab.blep, "infer", "--node", "workstation", "--max-tokens", "5", "hello", within_s=600)
    assert answered.stdout.strip()
    assert lab.workstation.path("/home/rita/.rbee/current").is_symlink()
    lab.workstation.all_gone(20, *PROGRAMS)


def test_twenty_starts_and_stops_leave_nothing(cluster: Lab) -> None:
    keeper(cluster.blep, "infer", "--node", "mac", "--max-tokens", "1", "hello")
    before = cluster.mac.snapshot(), cluster.blep.snapshot()
    with standing_queen(cluster):
        during = cluster.mac.snapshot()
        for _ in range(20):
            keeper(cluster.blep, "node", "start", "mac")
            cluster.mac.seen_alive("rbee-hive")
            keeper(cluster.blep, "node", "stop", "mac")
            cluster.mac.all_gone(10, *PROGRAMS)
        assert cluster.mac.snapshot() == during
    cluster.blep.all_gone(20, *PROGRAMS)
    assert (cluster.mac.snapshot(), cluster.blep.snapshot()) == before
