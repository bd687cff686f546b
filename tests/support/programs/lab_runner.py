"""Has a lab with a busy host in it, then ends as its argument says: `leave`, `raise`, or `wait` until it is killed.

Prints one JSON line when the host is up: `{"pids": [...]}`, every process of the lab as it is numbered outside.
"""

import json
import signal
import sys

from tests.support.lab import running_lab


def main(ending: str) -> None:
    with running_lab(["mac"]) as lab:
        busy = lab.mac.popen(["sh", "-c", "trap '' TERM HUP INT; while :; do sleep 1; done"])
        frozen = lab.mac.popen(["sleep", "1000"])
        frozen.send_signal(signal.SIGSTOP)
        first = [lab.spaces.pid, lab.mac.spaces.pid]
        pids = [*first, busy.pid, frozen.pid, *(process.pid for process in lab.mac.processes())]
        print(json.dumps({"pids": pids}), flush=True)
        if ending == "raise":
            raise RuntimeError("a test failed")
        if ending == "wait":
            signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
