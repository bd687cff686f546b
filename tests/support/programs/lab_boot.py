"""Boots a host of the lab, as process 1 of its namespaces: mounts its disk as `/`, takes its name, then only reaps.

`lab_boot.py NAME DISK [PATH...]`; each PATH of the machine is seen, read-only. Of the machine there is nothing else
but `/usr`, and that under a layer of the host's own. Prints `up`; then its stdout is closed.
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


def mount(kind: str, target: Path, options: str = "rw") -> None:
    subprocess.run(["mount", "-t", kind, "-o", options, kind, str(target)], check=True)


def bind(source: Path, target: Path, options: str = "ro") -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.touch()
    subprocess.run(["mount", "-o", f"bind,{options}", str(source), str(target)], check=True)


def mount_programs(disk: Path) -> None:
    layer, work = (disk.with_name(f"{disk.name}.{part}") for part in ("usr", "work"))
    mount("overlay", disk / "usr", f"lowerdir=/usr,upperdir={layer},workdir={work}")
    for name in _MERGED:
        theirs, ours = Path("/", name), disk / name
        if not theirs.is_symlink():
            if theirs.is_dir():
                bind(theirs, ours)
        elif not ours.is_symlink():
            ours.symlink_to(theirs.readlink())


def mount_kernel(disk: Path) -> None:
    mount("proc", disk / "proc")
    mount("sysfs", disk / "sys", "ro")
    for name, mode in (("dev", "755"), ("run", "755"), ("tmp", "1777")):
        mount("tmpfs", disk / name, f"mode={mode}")
    for name in _DEVICES:
        bind(Path("/dev", name), disk / "dev" / name, "rw")
    for name, target in _LINKS.items():
        (disk / "dev" / name).symlink_to(target)
    for name in ("dev/pts", "dev/shm", "run/sshd"):
        (disk / name).mkdir()
    mount("devpts", disk / "dev/pts", "newinstance,ptmxmode=0666,mode=620,gid=5")
    mount("tmpfs", disk / "dev/shm", "mode=1777")


def enter(disk: Path) -> None:
    """Make `disk` the root, and let go of everything outside of it."""
    os.chdir(disk)
    subprocess.run(["pivot_root", ".", "old"], check=True)
    os.chdir("/")
    subprocess.run(["umount", "--lazy", "/old"], check=True)


def main() -> None:
    name, disk = sys.argv[1], Path(sys.argv[2])
    bind(disk, disk, "rw")
    mount_programs(disk)
    mount_kernel(disk)
    for path in sys.argv[3:]:
        bind(Path(path), disk / path.lstrip("/"))
    enter(disk)
    socket.sethostname(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps for whoever ignores this
    print("up", flush=True)
    os.close(1)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
