"""What the programs on a node stand on: how they speak, one at a time in a home, and who runs from it.

Standard library only, from Python 3.11 on. A program here ends when the queen hangs up or falls silent: nothing that
she began goes on without her.
"""

import errno
import fcntl
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

LOCK = "install.lock"
_PRIVATE_FILE = 0o600
_PRIVATE_DIR = 0o700
_POLL_S = 0.1
_SHOWN_CHARACTERS = 4000
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class Refusal(Exception):  # noqa: N818 - it is one, whatever the reason
    """Why it is not done. `why` is one of the kinds that the queen knows."""

    def __init__(self, why: str, text: str, lines: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.why = why
        self.text = text
        self.lines = lines


class HungUp(BaseException):
    """The queen is gone, or this program was told to end. As KeyboardInterrupt: no handler of errors may swallow it."""


class Voice:
    """Speaks to the queen: one JSON object a line, behind the nonce by which she knows it from a shell's noise."""

    def __init__(self, nonce: str) -> None:
        self._nonce = nonce

    def say(self, **facts: object) -> None:
        line = f"\n{self._nonce} {json.dumps(facts)}\n".encode()
        try:
            os.write(1, line)
        except OSError:
            return  # nobody listens any more; the end of stdin says the rest

    def tell(self, human: str) -> None:
        self.say(say=human)

    def fail(self, refusal: Refusal) -> None:
        lines = [line[-_SHOWN_CHARACTERS:] for line in refusal.lines]
        self.say(failed={"why": refusal.why, "text": refusal.text[:_SHOWN_CHARACTERS], "lines": lines})


class Lifeline:
    """Ends this program with `HungUp` in its main thread, once, when the queen hangs up or is silent for `silence_s`.

    She is heard all the time: by `listening`, or by who reads what she uploads and says `heard`.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._heard_s = time.monotonic()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self._hung_up)
        threading.Thread(target=self._watch, daemon=True).start()

    def heard(self) -> None:
        self._heard_s = time.monotonic()

    @contextmanager
    def listening(self) -> Generator[None, None, None]:
        """For the length of the block nothing comes but signs of life."""
        over = threading.Event()
        listener = threading.Thread(target=self._listen, args=[over], daemon=True)
        listener.start()
        try:
            yield
        finally:
            over.set()
            listener.join()

    def close(self) -> None:
        """What happens from now on is not to be interrupted."""
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)

    def _watch(self) -> None:
        while time.monotonic() - self._heard_s < self._silence_s:
            time.sleep(min(self._silence_s, 1.0))
        os.kill(os.getpid(), signal.SIGTERM)

    def _listen(self, over: threading.Event) -> None:
        while not over.is_set():
            if not select.select([0], [], [], _POLL_S)[0]:
                continue
            if not os.read(0, 4096):
                os.kill(os.getpid(), signal.SIGTERM)
                return
            self.heard()

    def _hung_up(self, *_: object) -> None:
        self.close()  # cleaning up is done in peace
        raise HungUp


@contextmanager
def only_one(home: Path, voice: Voice, lifeline: Lifeline, wait_s: float) -> Generator[int, None, None]:
    """Hold the lock of `home`, which also tells that a queen has put rbee there. Yields its descriptor.

    What a program started here inherits it: as long as something of a killed one writes, nobody else begins.
    """
    with lifeline.listening():
        descriptor = _locked(home, voice, wait_s)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(home: Path, voice: Voice, wait_s: float) -> int:
    deadline_s = time.monotonic() + wait_s
    told = False
    while (descriptor := _try_lock(home)) is None:
        if time.monotonic() > deadline_s:
            raise Refusal("busy", f"another installation has been under way in {home} for {wait_s:.0f} s")
        if not told:
            voice.tell("another installation is under way there; waiting for it")
            told = True
        time.sleep(_POLL_S)
    return descriptor


def _try_lock(home: Path) -> int | None:
    """None: another one holds it, or takes it away with the home, as the first installation does when it fails."""
    make_directory(home)
    path = home / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE_FILE)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass  # held by another one, or removed by its last holder
    os.close(descriptor)
    return None


def is_held(lock: Path) -> bool:
    """Whether a living process holds that lock."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def make_directory(path: Path) -> None:
    """With what is missing above it, all of it the owner's alone."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(mode=_PRIVATE_DIR, exist_ok=True)


def processes_of(directory: Path) -> list[int]:
    """The processes that run from `directory`.

    Their command lines name files below it, for hives and workers are started so; or, where there is a /proc, they have
    files of it in memory, as compiled libraries are, whatever they were started by.
    """
    below = [f"{path}{os.sep}".encode() for path in (directory, directory.resolve())]
    return sorted(pid for pid, traces in _traces() if any(path in traces for path in below))


def _traces() -> list[tuple[int, bytes]]:
    """Every process, and the paths that tell what it runs."""
    if Path("/proc/self/cmdline").exists():
        return [(int(entry.name), _from_proc(entry)) for entry in Path("/proc").glob("[0-9]*")]
    return _from_ps()


def _from_proc(entry: Path) -> bytes:
    traces = b""
    for name in ("cmdline", "maps"):
        with suppress(OSError):  # another user's, or it has just ended
            traces += (entry / name).read_bytes() + b"\n"
    return traces


def _from_ps() -> list[tuple[int, bytes]]:
    import subprocess  # noqa: PLC0415 - where there is no /proc, which is macOS

    listed = subprocess.run(["/bin/ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, check=True).stdout
    lines = [line.split(None, 1) for line in listed.splitlines()]
    return [(int(pid), command) for pid, command in (line for line in lines if len(line) == 2)]  # noqa: PLR2004


def conclude(voice: Voice, lifeline: Lifeline, work: Callable[[], dict[str, Any]]) -> NoReturn:
    """Do `work`, and say how it ended."""
    try:
        done = work()
        lifeline.close()  # the queen hangs up when she has heard it
    except Refusal as error:
        refusal = error
    except HungUp:
        refusal = Refusal("interrupted", "it was broken off")
    except OSError as error:
        full = ": No space left on device" if error.errno in _NO_ROOM else ""  # whatever language the system speaks
        refusal = Refusal("system", f"{error}{full}")
    else:
        voice.say(done=done)
        _leave(0)
    lifeline.close()
    voice.fail(refusal)
    _leave(1)


def _leave(status: int) -> NoReturn:
    """End at once: a thread that waits for stdin must not hold the interpreter up."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
