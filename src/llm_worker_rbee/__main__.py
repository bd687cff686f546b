"""`llm-worker-rbee`: the kernel is asked to kill this process with its parent before anything else is loaded."""

import gc
import signal

from rbee_shared.parent_death import die_with_parent


def main() -> None:
    die_with_parent(signal.SIGKILL)
    gc.disable()  # until `run_daemon`
    from llm_worker_rbee.cli import run  # noqa: PLC0415 - heavy: only after the guard

    run()


if __name__ == "__main__":
    main()
