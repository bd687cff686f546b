"""A child is a block: whatever the program does, leaving the block leaves nothing behind."""

import gc
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import psutil
import pytest
from tests.support.processes import alive, children_of, open_fds, wait_gone

from rbee_shared.child import Child, Command, describe_exit, running
from rbee_shared.errors import NoCapacityError, PortInUseError, RequestTimeoutError
from rbee_shared.handshake import Handshake
from rbee_shared.narration import Narration

_PROGRAM = Path(__file__).parents[2] / "support" / "programs" / "odd_child.py"
_PATIENCE_S = 20.0  # a loaded machine starts an interpreter slowly


class Heard(list[Narration]):
    @property
    def texts(self) -> list[str]:
        return [each.human for each in self]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def command(tmp_path: Path) -> Callable[[str], Command]:
    return lambda behaviour: Command(
        [sys.executable, "-S", "-E", str(_PROGRAM), behaviour], stderr=tmp_path / "child.stderr"
    )


def _handshake() -> Handshake:
    return Handshake.from_here(token="secret")


async def test_a_good_child_announces_itself_speaks_and_is_gone(
    command: Callable[[str], Command], heard: Heard, tmp_path: Path
) -> None:
    async with running(command("well_behaved"), _handshake(), heard.append, stop_grace_s=_PATIENCE_S) as child:
        listening = await child.wait_listening(_PATIENCE_S)
        assert listening.url == "http://127.0.0.1:1"
        assert listening.instance == '{"paren', "the handshake is a line of JSON"
        assert heard.texts == ["up"], "what was said before the announcement was heard before it"
        assert child.returncode is None

    assert child.returncode == 0
    assert heard.texts == ["up", "goodbye"]
    assert not alive(child.pid)
    assert (tmp_path / "child.stderr").stat().st_mode & 0o077 == 0


async def test_a_flood_is_read_to_its_end_in_order(command: Callable[[str], Command]) -> None:
    numbers = 0

    def hear(_: Narration) -> None:
        nonlocal numbers
        numbers += 1

    async with running(command("flood"), _handshake(), hear, stop_grace_s=_PATIENCE_S) as child:
        await child.wait_heard(20_000, _PATIENCE_S)
        assert numbers == 20_000
        assert child.lines_lost == 0


async def test_garbage_is_counted_and_what_follows_is_understood(command: Callable[[str], Command]) -> None:
    heard: list[Narration] = []
    async with running(command("garbage"), _handshake(), heard.append, stop_grace_s=_PATIENCE_S) as child:
        await child.wait_listening(_PATIENCE_S)
        assert child.lines_lost == 11
        assert [each.actor for each in heard] == ["queen"], "an unknown actor is not believed"
        assert child.failure is not None, "an error that is no object is an error all the same"
        await child.wait_heard(7, _PATIENCE_S)


async def test_a_megabyte_without_a_newline_stops_nobody(command: Callable[[str], Command], heard: Heard) -> None:
    async with running(command("endless_line"), _handshake(), heard.append, stop_grace_s=_PATIENCE_S) as child:
        await child.wait_listening(_PATIENCE_S)
    assert child.returncode == 0
    assert child.lines_lost == 1


async def test_who_ignores_everything_is_killed(command: Callable[[str], Command], heard: Heard) -> None:
    async with running(command("deaf"), _handshake(), heard.append, stop_grace_s=0.1) as child:
        await child.wait_listening(_PATIENCE_S)
    assert child.returncode == -signal.SIGKILL
    assert describe_exit(child.returncode) == "killed by SIGKILL"


async def test_terminate_insists(command: Callable[[str], Command], heard: Heard) -> None:
    async with running(command("deaf"), _handshake(), heard.append, stop_grace_s=_PATIENCE_S) as child:
        await child.wait_listening(_PATIENCE_S)
        await child.terminate(0.1)
        assert await child.wait_exit() == -signal.SIGKILL
        await child.terminate(0.1)
        child.kill()
        await child.stop(0.1)


async def test_a_grandchild_neither_delays_the_end_nor_survives_it(command: Callable[[str], Command]) -> None:
    heard: list[Narration] = []
    async with running(command("grandchild"), _handshake(), heard.append, stop_grace_s=_PATIENCE_S) as child:
        with anyio.fail_after(_PATIENCE_S):
            assert await child.wait_exit() == 0
        await anyio.to_thread.run_sync(wait_gone, [heard[0].details["pid"]], _PATIENCE_S)
        assert child.listening is not None, "what it said last was heard"


async def test_a_stray_that_never_stops_writing_does_not_hold_us(command: Callable[[str], Command]) -> None:
    heard: list[Narration] = []
    async with running(command("stray_grandchild"), _handshake(), heard.append, stop_grace_s=_PATIENCE_S) as child:
        with anyio.fail_after(_PATIENCE_S):
            assert await child.wait_exit() == 0
    stray = heard[0].details["pid"]
    # it left the group on purpose: what ends it is that nobody reads its pipe any more
    await anyio.to_thread.run_sync(wait_gone, [stray], _PATIENCE_S)


async def test_dying_before_the_handshake_is_told_with_its_exit(
    command: Callable[[str], Command], heard: Heard, tmp_path: Path
) -> None:
    async with running(command("dies_at_once"), _handshake(), heard.append, stop_grace_s=1) as child:
        with pytest.raises(NoCapacityError, match="exit 7") as raised:
            await child.wait_listening(_PATIENCE_S)
        assert raised.value.details["log"] == str(tmp_path / "child.stderr")
        await child.wait_heard(1000, _PATIENCE_S)  # does not wait for who is dead


async def test_its_own_error_is_what_is_raised(command: Callable[[str], Command], heard: Heard) -> None:
    async with running(command("fails"), _handshake(), heard.append, stop_grace_s=1) as child:
        with pytest.raises(PortInUseError, match="held by init") as raised:
            await child.wait_listening(_PATIENCE_S)
        assert raised.value.details == {"port": 1}
        assert await child.wait_exit() == 1
        (line,) = child.last_words()
        assert "\x1b" not in line
        assert "abcdefghij" not in line


@pytest.mark.parametrize(("behaviour", "text"), [("exits_well", "exit 0"), ("crashes", "killed by SIGSEGV")])
async def test_death_is_described(command: Callable[[str], Command], heard: Heard, behaviour: str, text: str) -> None:
    async with running(command(behaviour), _handshake(), heard.append, stop_grace_s=1) as child:
        with pytest.raises(NoCapacityError, match=text):
            await child.wait_listening(_PATIENCE_S)


async def test_closing_stdout_is_not_dying(command: Callable[[str], Command], heard: Heard) -> None:
    async with running(command("closes_stdout"), _handshake(), heard.append, stop_grace_s=_PATIENCE_S) as child:
        with pytest.raises(RequestTimeoutError, match="did not start within"):
            await child.wait_listening(0.5)
        assert child.returncode is None
    assert child.returncode == 0


async def test_what_cannot_be_started_is_an_error_with_a_reason(tmp_path: Path, heard: Heard) -> None:
    command = Command([str(tmp_path / "no-such-program")], stderr=tmp_path / "e")
    with pytest.raises(NoCapacityError, match="no-such-program"):
        async with running(command, _handshake(), heard.append, stop_grace_s=1):
            pytest.fail("it cannot have started")
    with pytest.raises(NoCapacityError, match="cannot start"):
        async with running(Command(["true"], stderr=tmp_path / "no" / "e"), _handshake(), heard.append, stop_grace_s=1):
            pytest.fail("it has no log")


async def _stopped_before_it_spoke(_: Child) -> None:
    return


async def _stopped_while_waited_for(child: Child) -> None:
    await child.wait_listening(_PATIENCE_S)


async def _stopped_in_its_life(child: Child) -> None:
    await child.wait_listening(_PATIENCE_S)
    await anyio.sleep_forever()


async def _stopped_while_stopping(child: Child) -> None:
    await child.wait_listening(_PATIENCE_S)
    await child.stop(_PATIENCE_S)


@pytest.mark.parametrize(
    "phase", [_stopped_before_it_spoke, _stopped_while_waited_for, _stopped_in_its_life, _stopped_while_stopping]
)
@pytest.mark.parametrize("after_s", [0.0, 0.01, 0.05, 0.2])
async def test_cancellation_in_any_phase_leaves_nothing(
    command: Callable[[str], Command], heard: Heard, phase: Callable[[Child], object], after_s: float
) -> None:
    pids = []
    with anyio.move_on_after(after_s):
        async with running(command("late_words"), _handshake(), heard.append, stop_grace_s=_PATIENCE_S) as child:
            pids.append(child.pid)
            await phase(child)  # type: ignore[misc]
    assert [pid for pid in pids if alive(pid)] == []
    assert children_of(psutil.Process().pid) == []


async def test_what_it_says_while_a_cancelled_block_stops_it_is_heard(
    command: Callable[[str], Command], heard: Heard
) -> None:
    with anyio.CancelScope() as scope:
        async with running(command("late_words"), _handshake(), heard.append, stop_grace_s=_PATIENCE_S) as child:
            await child.wait_listening(_PATIENCE_S)
            scope.cancel()
    assert heard.texts == [f"stopping {number}" for number in range(1, 6)]
    assert child.returncode == 0


async def test_a_failing_listener_ends_the_block_and_the_child(command: Callable[[str], Command]) -> None:
    def hear(_: Narration) -> None:
        raise LookupError("a defect of the listener")

    with pytest.raises(ExceptionGroup) as raised:
        async with running(command("well_behaved"), _handshake(), hear, stop_grace_s=1) as child:
            await anyio.sleep_forever()
    assert raised.group_contains(LookupError)
    assert child.returncode is not None


@pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")
async def test_without_a_grace_it_is_left_running(command: Callable[[str], Command], heard: Heard) -> None:
    async with running(command("deaf"), _handshake(), heard.append, stop_grace_s=None) as child:
        await child.wait_listening(_PATIENCE_S)
    try:
        assert alive(child.pid)
    finally:
        child.kill()
        with anyio.fail_after(_PATIENCE_S):
            while child.returncode is None:  # noqa: ASYNC110 - nobody listens to it any more
                await anyio.sleep(0.01)


async def test_many_short_lives_leak_nothing(tmp_path: Path, heard: Heard) -> None:
    async def once() -> None:
        command = Command(["/bin/cat"], stderr=tmp_path / "child.stderr")
        async with running(command, _handshake(), heard.append, stop_grace_s=_PATIENCE_S):
            pass

    await once()
    gc.collect()
    fds, threads = len(open_fds()), threading.active_count()
    for _ in range(200):
        await once()
    assert len(open_fds()) == fds
    assert threading.active_count() == threads
    assert psutil.Process().children() == [], "not even a zombie"


async def test_stopping_costs_no_more_than_the_child_takes(command: Callable[[str], Command], heard: Heard) -> None:
    """Cancelled or not: a bound that always runs out would be paid at every shutdown."""
    with anyio.CancelScope() as scope:
        async with running(command("well_behaved"), _handshake(), heard.append, stop_grace_s=_PATIENCE_S) as child:
            await child.wait_listening(_PATIENCE_S)
            began = time.monotonic()
            scope.cancel()
    assert heard.texts == ["up", "goodbye"]
    assert time.monotonic() - began < _PATIENCE_S / 2
