"""What an exit status of rbee's command lines says: the table that scripts may rely on (docs/protocol.md repeats it).

0 done, 1 failed, 2 wrong usage, 3 cannot reach, 4 not allowed, 5 no room or busy, 129 the terminal was closed, 130
Ctrl+C, 141 nobody reads stdout any more, 143 TERM. The keeper adds two of its own.
"""

import signal

DONE = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
NOT_ALLOWED = 4
NO_ROOM = 5
_SIGNAL_BASE = 128
NOBODY_READS = _SIGNAL_BASE + signal.SIGPIPE

BY_CODE: dict[str, int] = {
    "INTERNAL": FAILED,
    "INVALID_REQUEST": USAGE,
    "NOT_SUPPORTED": USAGE,
    "CONTEXT_OVERFLOW": USAGE,
    "PAYLOAD_TOO_LARGE": USAGE,
    "EVENTS_GONE": FAILED,
    "MODEL_INVALID": FAILED,
    "MODEL_MISMATCH": FAILED,
    "MODEL_NOT_FOUND": FAILED,
    "NO_GGUF_IN_REPO": FAILED,
    "CHECKSUM_MISMATCH": FAILED,
    "NODE_NOT_FOUND": FAILED,
    "TASK_NOT_FOUND": FAILED,
    "WORKER_NOT_FOUND": FAILED,
    "NOT_FOUND": FAILED,
    "METHOD_NOT_ALLOWED": FAILED,
    "ALREADY_EXISTS": FAILED,
    "CANCELLED": FAILED,
    "WORKER_CRASHED": FAILED,
    "BACKEND_UNAVAILABLE": FAILED,
    "BUILD_FAILED": FAILED,
    "MEMORY_NOT_RELEASED": FAILED,
    "INFERENCE_STALLED": FAILED,
    "LOADING_TIMEOUT": FAILED,
    "CLIENT_TOO_SLOW": FAILED,
    "HIVE_OWNED": FAILED,
    "STALE_EPOCH": FAILED,
    "VERSION_MISMATCH": FAILED,
    "SSH_HOST_KEY_UNKNOWN": NOT_ALLOWED,
    "SSH_HOST_KEY_CHANGED": NOT_ALLOWED,
    "SSH_AUTH_FAILED": NOT_ALLOWED,
    "SSH_FORWARDING_FORBIDDEN": NOT_ALLOWED,
    "SHELL_UNUSABLE": FAILED,
    "PYTHON_MISSING": FAILED,
    "NOT_INSTALLED": FAILED,
    "INSTALL_FAILED": FAILED,
    "BAD_PEER": UNREACHABLE,
    "SSH_UNREACHABLE": UNREACHABLE,
    "DOWNLOAD_FAILED": UNREACHABLE,
    "NODE_UNREACHABLE": UNREACHABLE,
    "PORT_IN_USE": UNREACHABLE,
    "QUEEN_LOST": UNREACHABLE,
    "REQUEST_TIMEOUT": UNREACHABLE,
    "SHUTTING_DOWN": UNREACHABLE,
    "STREAM_TRUNCATED": UNREACHABLE,
    "MISSING_API_KEY": NOT_ALLOWED,
    "INVALID_API_KEY": NOT_ALLOWED,
    "FORBIDDEN": NOT_ALLOWED,
    "HOST_NOT_ALLOWED": NOT_ALLOWED,
    "ALL_SLOTS_BUSY": NO_ROOM,
    "DISK_FULL": NO_ROOM,
    "INSUFFICIENT_MEMORY": NO_ROOM,
    "NO_CAPACITY": NO_ROOM,
    "NOT_READY": NO_ROOM,
    "QUEUE_FULL": NO_ROOM,
}


def of_error(error_code: str) -> int:
    """The exit status for an error; a code that this version does not know is a failure."""
    return BY_CODE.get(error_code, FAILED)


def after_signal(number: int) -> int:
    """As a shell has it: 130 for Ctrl+C, 143 for TERM, 129 for a closed terminal."""
    return _SIGNAL_BASE + number
