"""`status` with many devices: a line each, as wide as a screen, whatever a node sends."""

from typing import Any

from rbee_keeper.tables import node_table

GB = 10**9
CPU = {"name": "EPYC", "cores": 128, "ram_bytes": 512 * GB, "free_bytes": 480 * GB}


def node(gpus: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    devices = {"cpu": CPU, "gpus": gpus, **more}
    return {"name": "workstation", "state": "online", "devices": devices, "workers": 3}


def gpu(index: int, **more: Any) -> dict[str, Any]:
    name = "NVIDIA H100 80GB HBM3"
    return {"id": f"gpu{index}", "name": name, "vram_bytes": 85 * GB, "free_bytes": 84 * GB, **more}


def test_eight_gpus_and_128_cores_fit_a_screen() -> None:
    lines = node_table([node([gpu(index) for index in range(8)]), {"name": "mac", "state": "offline"}]).splitlines()

    assert len(lines) == 1 + 9 + 1
    assert max(map(len, lines)) <= 100
    assert lines[1].startswith("workstation  online  cpu: 128 cores, 480 GB of 512 GB free")
    assert lines[1].endswith("  3")
    assert lines[2] == " " * 21 + "gpu0: NVIDIA H100 80GB HBM3, 84 GB of 85 GB free"
    assert [line.index("gpu") for line in lines[2:10]] == [lines[1].index("cpu")] * 8  # one below the other
    assert lines[10].split() == ["mac", "asleep", "-", "0"]


def test_what_is_declared_hidden_or_broken_is_said_below() -> None:
    declared = gpu(0, declared=True, build="cpu")
    table = node_table([node([declared], cpu={**CPU, "offered": False}, problems=["GPU 1: GPU is lost\x1b[2J\n"])])

    assert "480 GB of 512 GB free, not offered" in table
    assert "84 GB of 85 GB free, declared, computed on cpu" in table
    assert table.splitlines()[-1] == "problem on workstation: GPU 1: GPU is lost[2J"


def test_no_nodes() -> None:
    assert node_table([]) == "no nodes yet"


def test_nonsense_from_a_node_is_no_crash() -> None:
    nonsense: list[Any] = [None, [], "x", {"cpu": 1, "gpus": None, "problems": None}]
    for devices in nonsense:
        assert node_table([{"name": "x", "state": "online", "devices": devices}]).splitlines()[1].split() == [
            "x", "online", "-", "0"
        ]  # fmt: skip
