"""Calls that may hang, and the programs of an Apple machine as scripts that answer, lie, hang or are missing."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from rbee_hive.devices.metal import AppleMachine, Programs
from rbee_hive.devices.shared_call import PATIENCE_S, SharedCall
from rbee_shared.machine_limits import Memory

RAM = Memory(36 * 1024**3, 30 * 1024**3)
_SYSCTL = """printf 'machdep.cpu.brand_string: Apple M3 Max\\nhw.memsize: 38654705664\\nhw.optional.arm64: 1\\n'
echo "sysctl: unknown oid 'iogpu.wired_limit_mb'" >&2; exit 1"""
_PROFILER = """echo '{"SPDisplaysDataType": [{"spdisplays_vendor": "sppci_vendor_Apple",
"sppci_model": "Apple M3 Max GPU", "sppci_cores": "30"}]}'"""


def in_s(seconds: float) -> float:
    return anyio.current_time() + seconds


async def test_callers_at_once_share_one_run() -> None:
    runs, gate = [], threading.Event()

    def slow() -> int:
        runs.append(threading.get_ident())
        gate.wait(10)
        return len(runs)

    call, answers = SharedCall(slow, "slow"), []

    async def ask() -> None:
        answers.append(await call.start().result(in_s(1.5)))

    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(ask)
        await anyio.sleep(0.05)
        gate.set()

    assert (answers, len(runs)) == ([1] * 5, 1)
    assert await call.start().result(in_s(1.5)) == 2  # an answer is not kept: the next look is a new one


async def test_what_it_raises_everybody_gets() -> None:
    def fail() -> None:
        raise OSError("no such thing")

    call, told = SharedCall(fail, "fail", lambda _: pytest.fail("that was no answer")), []

    async def ask() -> None:
        with pytest.raises(OSError, match="no such thing"):
            await call.start().result(in_s(1.5))
        told.append(True)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask)
    assert told == [True] * 3


async def test_a_run_that_hangs_is_one_thread_and_costs_later_callers_nothing() -> None:
    gate, late = threading.Event(), list[int]()

    def hang() -> int:
        gate.wait(60)
        return 7

    call = SharedCall(hang, "hang", late.append)
    try:
        with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"):
            await call.start().result(in_s(0.1))
        await anyio.sleep(PATIENCE_S)
        began_s = anyio.current_time()
        for _ in range(100):
            with pytest.raises(TimeoutError):
                await call.start().result(in_s(10))
        assert anyio.current_time() - began_s < 5
        assert [thread.name for thread in threading.enumerate()].count("hang") == 1
        assert call.is_running
    finally:
        gate.set()
    await call.start().landed()
    assert (late, call.is_running) == ([7], False)  # told to the one who must know, though nobody waited


async def test_a_caller_that_is_cancelled_leaves_the_run_to_the_others() -> None:
    gate = threading.Event()

    def slow() -> str:
        gate.wait(10)
        return "answer"

    call = SharedCall(slow, "slow")
    with anyio.move_on_after(0.05):
        await call.start().result(in_s(60))
    gate.set()
    assert await call.start().result(in_s(1.5)) == "answer"


def test_a_run_that_outlives_its_event_loop_harms_nobody() -> None:
    gate, ran = threading.Event(), threading.Event()

    def slow() -> None:
        gate.wait(10)
        ran.set()

    async def leave() -> None:
        SharedCall(slow, "left-behind").start()

    anyio.run(leave)
    gate.set()
    assert ran.wait(10)
    deadline_s = time.monotonic() + 10
    while any(thread.name == "left-behind" for thread in threading.enumerate()):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


@pytest.fixture
def programs(tmp_path: Path) -> Callable[[str, str], Programs]:
    def made(sysctl: str, profiler: str) -> Programs:
        for name, body in (("sysctl", sysctl), ("system_profiler", profiler)):
            path = tmp_path / name
            path.write_text(f"#!/bin/sh\n{body}\n")
            path.chmod(0o755)
        return Programs(tmp_path / "sysctl", tmp_path / "system_profiler")

    return made


async def test_an_apple_machine_is_read_from_its_programs(programs: Callable[[str, str], Programs]) -> None:
    mac = AppleMachine(programs(_SYSCTL, _PROFILER))
    found = await mac.read(RAM, in_s(1.8))

    (gpu,) = found.gpus
    assert (gpu.name, gpu.cores, gpu.vram_bytes) == ("Apple M3 Max GPU", 30, 24 * 1024**3)
    assert found.problems == ()
    assert mac.last(Memory(36 * 1024**3, 5)).gpus[0].free_bytes == 5

    programs(_SYSCTL, "exit 9")
    assert (await mac.read(RAM, in_s(1.8))).gpus == found.gpus  # what never changes is asked once


async def test_a_profiler_that_hangs_leaves_the_gpu_without_its_name(programs: Callable[[str, str], Programs]) -> None:
    mac = AppleMachine(programs(_SYSCTL, "exec sleep 5"))
    began_s = anyio.current_time()
    found = await mac.read(RAM, in_s(0.5))

    assert anyio.current_time() - began_s < 2
    assert [gpu.name for gpu in found.gpus] == ["Apple M3 Max"]
    assert "system_profiler: no answer within" in found.problems[0]


@pytest.mark.parametrize("sysctl", ["exit 1", "echo nonsense", "exec head -c 100000 /dev/urandom", "kill -9 $$"])
async def test_a_machine_that_tells_nothing_is_a_problem(programs: Callable[[str, str], Programs], sysctl: str) -> None:
    found = await AppleMachine(programs(sysctl, _PROFILER)).read(RAM, in_s(1.8))

    assert (found.names, found.gpus) == ((), ())
    assert "sysctl" in found.problems[0]


async def test_programs_that_are_missing_are_a_problem(tmp_path: Path) -> None:
    found = await AppleMachine(Programs(tmp_path / "a", tmp_path / "b")).read(RAM, in_s(1.8))

    assert found.gpus == ()
    assert ["sysctl" in problem for problem in found.problems] == [True, False, True]


async def test_facts_once_known_survive_a_program_that_fails_later(programs: Callable[[str, str], Programs]) -> None:
    mac = AppleMachine(programs(_SYSCTL, _PROFILER))
    before = await mac.read(RAM, in_s(1.8))
    mac_gone = programs("exec sleep 5", _PROFILER)
    assert mac_gone.sysctl.exists()
    after = await mac.read(RAM, in_s(0.3))

    assert after.gpus == before.gpus
    assert "sysctl: no answer within" in after.problems[0]
