"""Every failure rbee can report: its code, its HTTP status, and what to do next.

This is the list: `docs/protocol.md` repeats it and a test holds both together. An error is raised where it is known,
travels as `{"error": {...}}` (or as the last event of a stream), and is rebuilt on the other side by `error_from_body`.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from rbee_shared.redaction import redact, redact_all


class RbeeError(Exception):
    """A failure with a code, a cause (the message) and a next step (the hint)."""

    code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    default_hint: ClassVar[str] = "This is a defect in rbee: please report it with the log files in ~/.rbee/logs."
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        details: Mapping[str, Any] | None = None,
        source: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        self.details = dict(details or {})
        self.source = source

    def body(self) -> dict[str, Any]:
        """The wire form, secrets redacted, without the correlation id that the answering daemon adds."""
        return {
            "code": self.code,
            "message": redact(self.message),
            "hint": self.hint,
            "retryable": self.retryable,
            "details": redact_all(self.details),
            "source": self.source,
        }


class InternalError(RbeeError):
    """Something happened that the code did not foresee."""


# 400, 410, 413, 422: the request itself


class InvalidRequestError(RbeeError):
    """A value is missing, out of range or of the wrong type; `details.errors` lists every one."""

    code = "INVALID_REQUEST"
    http_status = 400
    default_hint = "Correct the fields named above; docs/protocol.md lists every field with its bounds."


class NotSupportedError(RbeeError):
    """The request asks for something this version knows of but has not built."""

    code = "NOT_SUPPORTED"
    http_status = 400
    default_hint = "Leave that option out; CHANGELOG.md says what this version can do."


class ContextOverflowError(RbeeError):
    """The prompt alone is longer than the model's context."""

    code = "CONTEXT_OVERFLOW"
    http_status = 400
    default_hint = "Shorten the prompt, or start the worker with a larger context."


class EventsGoneError(RbeeError):
    """The stream cannot be resumed from that event: it is no longer kept."""

    code = "EVENTS_GONE"
    http_status = 410
    default_hint = "Ask for the task itself with GET /v2/tasks/{id}, or read its events from the beginning."


class PayloadTooLargeError(RbeeError):
    """The request's body is larger than 1 MiB."""

    code = "PAYLOAD_TOO_LARGE"
    http_status = 413
    default_hint = "Send at most 1 MiB; shorten the prompt."


class ModelInvalidError(RbeeError):
    """The model file cannot be loaded: empty, truncated, damaged or not a GGUF file."""

    code = "MODEL_INVALID"
    http_status = 422
    default_hint = "Fetch the file again and compare its checksum; rbee reads GGUF files only."


class ChecksumMismatchError(RbeeError):
    """What was fetched, or lies on the disk, is not the file that its SHA-256 promises."""

    code = "CHECKSUM_MISMATCH"
    http_status = 422
    default_hint = "Fetch the model again; if it happens again the repository or a proxy on the way is broken."


# 401, 403: who is asking


class MissingApiKeyError(RbeeError):
    """The route wants a token and none was sent."""

    code = "MISSING_API_KEY"
    http_status = 401
    default_hint = "Send `Authorization: Bearer $(rbee-keeper token)`."


class InvalidApiKeyError(RbeeError):
    """A token was sent, and it is not the right one."""

    code = "INVALID_API_KEY"
    http_status = 401
    default_hint = (
        "Use the token of that cluster: `rbee-keeper token` prints this machine's, --token-file names another."
    )


class ForbiddenError(RbeeError):
    """The caller is known, and may not do this."""

    code = "FORBIDDEN"
    http_status = 403
    default_hint = "Use the key that belongs to this resource."


class HostNotAllowedError(RbeeError):
    """The request's Host or Origin header names a host that this daemon does not answer to."""

    code = "HOST_NOT_ALLOWED"
    http_status = 403
    default_hint = "Call it as localhost, or add the name to `allowed_hosts` in config.toml."


# 404, 405, 409: what is asked about


class NotFoundError(RbeeError):
    """No such route."""

    code = "NOT_FOUND"
    http_status = 404
    default_hint = "docs/protocol.md lists every route."


class MethodNotAllowedError(RbeeError):
    """The route exists, with another method."""

    code = "METHOD_NOT_ALLOWED"
    http_status = 405
    default_hint = "docs/protocol.md lists every route with its method."


class ModelNotFoundError(RbeeError):
    """No such model in the catalog, or its file is gone."""

    code = "MODEL_NOT_FOUND"
    http_status = 404
    default_hint = "Name it as hf:owner/repo or file:/absolute/path.gguf, or leave --model out for builtin:storyteller."


class NoGgufInRepoError(RbeeError):
    """The repository has no GGUF file, which is what llama.cpp reads, or not the one that was asked for."""

    code = "NO_GGUF_IN_REPO"
    http_status = 404
    default_hint = "Choose one of the files named above, or a repository whose name ends with -GGUF."


class NodeNotFoundError(RbeeError):
    """No machine of that name in the cluster."""

    code = "NODE_NOT_FOUND"
    http_status = 404
    default_hint = "`rbee-keeper node list` shows the nodes; leave --node out to let the queen choose."


class TaskNotFoundError(RbeeError):
    """No such task; finished ones are kept for a while only."""

    code = "TASK_NOT_FOUND"
    http_status = 404
    default_hint = "GET /v2/tasks lists the tasks this queen still knows."


class WorkerNotFoundError(RbeeError):
    """No such worker on this hive."""

    code = "WORKER_NOT_FOUND"
    http_status = 404
    default_hint = "`rbee-keeper status` lists the workers."


class AlreadyExistsError(RbeeError):
    """That name or id is taken by something else."""

    code = "ALREADY_EXISTS"
    http_status = 409
    default_hint = "Choose another name."


class InsufficientMemoryError(RbeeError):
    """The model does not fit into the device's free memory."""

    code = "INSUFFICIENT_MEMORY"
    http_status = 409
    default_hint = "Choose a smaller model or quantization, or free memory on that machine."
    retryable = True


class NotReadyError(RbeeError):
    """The worker is still loading its model."""

    code = "NOT_READY"
    http_status = 409
    default_hint = "Wait: GET /v1/ready answers 204 when the model is loaded."
    retryable = True


class VersionMismatchError(RbeeError):
    """The hive of that machine is of another version than this queen, and cannot be replaced now."""

    code = "VERSION_MISMATCH"
    http_status = 409
    default_hint = "Update it when its workers are done: rbee-keeper node update NAME."


class HiveOwnedError(RbeeError):
    """A hive already runs for this home on this machine, and it belongs to another queen."""

    code = "HIVE_OWNED"
    http_status = 409
    default_hint = "Stop the hive named above, or use that queen: `rbee-keeper COMMAND --queen-url URL`."


class StaleEpochError(RbeeError):
    """The order is from before the hive was taken anew, by another start of its queen or by herself."""

    code = "STALE_EPOCH"
    http_status = 409
    default_hint = "Run the command again with the queen who has the hive now; an older one must be shut down."


class ModelMismatchError(RbeeError):
    """The answer was begun with another model file than the one that shall go on with it."""

    code = "MODEL_MISMATCH"
    http_status = 409
    default_hint = "Resume it on a worker of the same file, or ask anew."


# 408, 429, 499: time and room


class RequestTimeoutError(RbeeError):
    """The request did not arrive, or its answer did not come, in time."""

    code = "REQUEST_TIMEOUT"
    http_status = 408
    default_hint = "Try again; if it happens again look into the log file of the daemon named above."
    retryable = True


class QueueFullError(RbeeError):
    """Too many tasks are waiting already."""

    code = "QUEUE_FULL"
    http_status = 429
    default_hint = "Try again after the number of seconds in Retry-After."
    retryable = True


class AllSlotsBusyError(RbeeError):
    """The worker generates as many answers as it has slots."""

    code = "ALL_SLOTS_BUSY"
    http_status = 429
    default_hint = "Send tasks to the queen: she queues them."
    retryable = True


class CancelledTaskError(RbeeError):
    """The task was cancelled before it could answer."""

    code = "CANCELLED"
    http_status = 499
    default_hint = "Submit it again if that was not meant."


# 502, 503, 507: somebody else failed


class WorkerCrashedError(RbeeError):
    """The worker process died."""

    code = "WORKER_CRASHED"
    http_status = 502
    default_hint = "Run the command again: a new worker is started. `details` holds the worker's last words."
    retryable = True


class StreamTruncatedError(RbeeError):
    """A stream closed before its last event."""

    code = "STREAM_TRUNCATED"
    http_status = 502
    default_hint = "What was printed is incomplete; run the command again."
    retryable = True


class BadPeerError(RbeeError):
    """Another program answered in a way rbee does not understand."""

    code = "BAD_PEER"
    http_status = 502
    default_hint = "Check that the address belongs to a daemon of this rbee version."


class DownloadFailedError(RbeeError):
    """A model could not be fetched: the network, the Hub or the address failed."""

    code = "DOWNLOAD_FAILED"
    http_status = 502
    default_hint = "Run the command again: what was fetched is kept, and the download goes on from there."
    retryable = True


class BuildFailedError(RbeeError):
    """A worker build could not be made on that machine."""

    code = "BUILD_FAILED"
    http_status = 502
    default_hint = "Look into the log named above; install what it says is missing, then run the command again."


class NodeUnreachableError(RbeeError):
    """The hive of that node does not answer."""

    code = "NODE_UNREACHABLE"
    http_status = 502
    default_hint = "Check that the machine is on and connected, then run the command again."
    retryable = True


class ShuttingDownError(RbeeError):
    """The daemon is on its way out and takes no new work."""

    code = "SHUTTING_DOWN"
    http_status = 503
    default_hint = "Wait a few seconds and run the command again."
    retryable = True


class BackendUnavailableError(RbeeError):
    """That machine has no such backend or device, or no worker build for it."""

    code = "BACKEND_UNAVAILABLE"
    http_status = 503
    default_hint = "Leave --backend and --device out to let the queen choose."


class NoCapacityError(RbeeError):
    """No worker could be started there: no port is free, or the process would not start."""

    code = "NO_CAPACITY"
    http_status = 503
    default_hint = "Stop a worker or free a port in the configured range, then try again."
    retryable = True


class PortInUseError(RbeeError):
    """The port is held by another program."""

    code = "PORT_IN_USE"
    http_status = 503
    default_hint = "Stop that program, or choose another port (0 lets the system choose)."


class DiskFullError(RbeeError):
    """No space is left where rbee keeps its files."""

    code = "DISK_FULL"
    http_status = 507
    default_hint = "Free space there, or set RBEE_HOME to a directory on another disk."


class MemoryNotReleasedError(RbeeError):
    """A worker is gone, and its memory did not come back."""

    code = "MEMORY_NOT_RELEASED"
    http_status = 507
    default_hint = "The processes named above still hold it; end them, or restart that machine."


# in a stream, or told by the keeper


class InferenceStalledError(RbeeError):
    """The engine has made no step for a long time."""

    code = "INFERENCE_STALLED"
    http_status = 504
    default_hint = "Run the command again; if it happens again try a smaller model."
    retryable = True


class LoadingTimeoutError(RbeeError):
    """The worker made no progress while loading its model."""

    code = "LOADING_TIMEOUT"
    http_status = 504
    default_hint = "Look for a slow or failing disk on that machine, then run the command again."
    retryable = True


class ClientTooSlowError(RbeeError):
    """The reader of a stream took nothing for so long that the stream was closed."""

    code = "CLIENT_TOO_SLOW"
    http_status = 408
    default_hint = "Read the stream as it comes; resume it with Last-Event-ID."


class QueenLostError(RbeeError):
    """The queen does not answer, or went away in mid-conversation."""

    code = "QUEEN_LOST"
    http_status = 502
    default_hint = "Look into ~/.rbee/logs/queen-rbee.log, then run the command again."
    retryable = True


# nodes over SSH


class SshUnreachableError(RbeeError):
    """No SSH server answers at that address."""

    code = "SSH_UNREACHABLE"
    http_status = 502
    default_hint = "Check that the machine is on and that `ssh HOST true` works from here; else correct host and port."
    retryable = True


class SshAuthFailedError(RbeeError):
    """The machine's SSH server lets none of the keys in."""

    code = "SSH_AUTH_FAILED"
    http_status = 502
    default_hint = (
        "Put your public key there (`ssh-copy-id HOST`), or name another: rbee-keeper node add NAME --key FILE."
    )


class SshHostKeyUnknownError(RbeeError):
    """The machine's host key has never been confirmed."""

    code = "SSH_HOST_KEY_UNKNOWN"
    http_status = 409
    default_hint = "Compare the fingerprint above with the machine's own, then confirm it: rbee-keeper node add NAME."


class SshHostKeyChangedError(RbeeError):
    """The machine shows another host key than the confirmed one: it was reinstalled, or it is not that machine."""

    code = "SSH_HOST_KEY_CHANGED"
    http_status = 409
    default_hint = "Find out why before you go on; if the new key is right, accept it: rbee-keeper node trust NAME."


class SshForwardingForbiddenError(RbeeError):
    """The machine's SSH server forbids port forwarding, so nothing can be reached inside the connection."""

    code = "SSH_FORWARDING_FORBIDDEN"
    http_status = 502
    default_hint = (
        "Set AllowTcpForwarding yes in sshd_config, or go beside SSH: rbee-keeper node add NAME --transport http."
    )


class ShellUnusableError(RbeeError):
    """The account's login shell does not run what it is given."""

    code = "SHELL_UNUSABLE"
    http_status = 502
    default_hint = "Try `ssh HOST echo hello`: it must print hello. Give the account a shell that runs commands."


class PythonMissingError(RbeeError):
    """The machine has no Python from 3.11 on where rbee looks for it."""

    code = "PYTHON_MISSING"
    http_status = 502
    default_hint = "Install one there: apt-get install python3, or brew install python; rbee does the rest."


class NotInstalledError(RbeeError):
    """Rbee is not installed on that machine, and was told not to install itself."""

    code = "NOT_INSTALLED"
    http_status = 409
    default_hint = "Install it: rbee-keeper node install NAME."


class InstallFailedError(RbeeError):
    """Rbee could not be installed on that machine; what was there before is untouched."""

    code = "INSTALL_FAILED"
    http_status = 502
    default_hint = "Read the lines above; for a machine without a package index: rbee-keeper node wheelhouse NAME."


def _all_errors(base: type[RbeeError]) -> dict[str, type[RbeeError]]:
    return {cls.code: cls for cls in base.__subclasses__()}


ERRORS_BY_CODE: dict[str, type[RbeeError]] = _all_errors(RbeeError)


def error_from_body(body: Mapping[str, Any]) -> RbeeError:
    """Rebuild an error from its wire form; a code this version does not know becomes a `BadPeerError` that names it."""
    code = str(body.get("code", ""))
    message = str(body.get("message", "no message"))
    details = body.get("details")
    known = ERRORS_BY_CODE.get(code)
    cls = known or BadPeerError
    return cls(
        message if known else f"{code}: {message}",
        hint=str(body["hint"]) if body.get("hint") else None,
        details=details if isinstance(details, Mapping) else None,
        source=str(body["source"]) if body.get("source") else None,
    )
