"""What the queen makes of a hive's devices: facts for the scheduler, and one line for people."""

from queen_rbee.hive_registry import HiveEntry, describe, device_facts
from queen_rbee.reach import Callback, DirectReach
from rbee_shared.contracts.nodes import CpuDevice, Devices, GpuDevice

GB = 10**9


def gpu(index: int, name: str = "NVIDIA H100 80GB HBM3", vram: int = 85 * GB, **more: object) -> GpuDevice:
    facts = {"id": f"gpu{index}", "backend": "cuda", "index": index, "name": name, "vram_bytes": vram}
    return GpuDevice.model_validate({**facts, "free_bytes": vram, "vram_gb": vram / GB, **more})


def node(*gpus: GpuDevice, problems: tuple[str, ...] = (), **cpu: object) -> Devices:
    facts = {"name": "EPYC", "cores": 128, "ram_bytes": 512 * GB, "free_bytes": 500 * GB, "ram_gb": 512.0}
    return Devices(cpu=CpuDevice.model_validate({**facts, **cpu}), gpus=gpus, models=0, workers=0, problems=problems)


def test_two_different_cards_are_named_one_by_one() -> None:
    line = describe(node(gpu(0, "RTX 3060", 12 * GB), gpu(1, "RTX 3090", 24 * GB)))
    assert line == "CPU 128 cores 512 GB, GPU0 RTX 3060 (12 GB), GPU1 RTX 3090 (24 GB); models 0, workers 0"


def test_eight_equal_cards_are_one_phrase() -> None:
    line = describe(node(gpu(0, "RTX 3060", 12 * GB), *(gpu(index) for index in range(1, 9))))
    assert line == (
        "CPU 128 cores 512 GB, GPU0 RTX 3060 (12 GB), GPU1-GPU8 8 x NVIDIA H100 80GB HBM3 (85 GB); models 0, workers 0"
    )


def test_declared_devices_and_problems_are_said() -> None:
    declared = gpu(0, "M3 Max", 36 * GB, backend="metal", declared=True, build="cpu")
    line = describe(node(declared, problems=("GPU 1: GPU is lost",), offered=False))

    assert "CPU 128 cores 512 GB (not offered)" in line
    assert "GPU0 M3 Max (36 GB, declared metal, computed on cpu)" in line
    assert line.endswith("; problem: GPU 1: GPU is lost")


def test_a_processor_that_is_not_offered_is_no_candidate() -> None:
    entry = HiveEntry(
        "blep",
        "http://x",
        DirectReach(Callback("http://y")),
        1,
        devices=node(gpu(0), offered=False),
        free_bytes={"gpu0": 7},
    )

    assert [(facts.id, facts.free_bytes) for facts in device_facts(entry)] == [("gpu0", 7)]
    entry.devices = node(gpu(0))
    assert [facts.id for facts in device_facts(entry)] == ["cpu", "gpu0"]
    entry.devices = None
    assert device_facts(entry) == []
