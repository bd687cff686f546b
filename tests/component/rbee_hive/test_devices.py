"""The machine's own numbers, against what really happens to its memory."""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

from rbee_hive.devices import cpu

HELD_BYTES = 256 * 1024 * 1024
NOISE_BYTES = 64 * 1024 * 1024  # what other programs of the machine may do meanwhile
HOLD = f"""
import mmap, sys
memory = mmap.mmap(-1, {HELD_BYTES})
for page in range(0, {HELD_BYTES}, mmap.PAGESIZE):
    memory[page] = 1
print("held", flush=True)
sys.stdin.read()
"""


def test_memory_is_free_again_as_soon_as_its_holder_is_dead() -> None:
    for _ in range(3):  # Linux keeps more and more of it aside when programs come and go
        before_bytes = cpu.memory().free_bytes
        with memory_held():
            held_bytes = before_bytes - cpu.memory().free_bytes
        missing_bytes = before_bytes - cpu.memory().free_bytes

        assert held_bytes > HELD_BYTES - NOISE_BYTES
        assert missing_bytes < NOISE_BYTES


@contextmanager
def memory_held() -> Generator[None]:
    child = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        yield
    finally:
        child.kill()
        child.communicate()
