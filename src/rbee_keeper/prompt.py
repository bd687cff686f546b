"""From the command line to a task: the prompt from argument, option or stdin, and a model named by its file."""

import os
import sys
from pathlib import Path
from typing import Any

from rbee_shared.errors import InvalidRequestError, PayloadTooLargeError

_MAX_BYTES = 1024 * 1024
_LOCAL_NODES = frozenset({None, "localhost"})


def read_prompt(argument: str | None, option: str | None) -> str:
    """The prompt: the argument or `--prompt`, or stdin for `-` or when neither is given and stdin is no terminal.

    Raises:
        InvalidRequestError: none is given, both are, or it is empty or no text.
    """
    if argument is not None and option is not None:
        raise InvalidRequestError("the prompt is given twice", hint="Give it as the argument or with --prompt.")
    given = argument if argument is not None else option
    if given is None and (sys.stdin is None or sys.stdin.isatty()):
        raise InvalidRequestError("there is no prompt", hint='Write: rbee-keeper infer "write a short story"')
    text = _read_stdin() if given in {None, "-"} else _as_text(os.fsencode(given or ""))
    if not text.strip():
        raise InvalidRequestError("the prompt is empty", hint='Write: rbee-keeper infer "write a short story"')
    return text


def _read_stdin() -> str:
    data = sys.stdin.buffer.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise PayloadTooLargeError("the prompt on stdin is larger than 1 MiB")
    return _as_text(data).removesuffix("\n").removesuffix("\r")


def _as_text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"the prompt is not UTF-8 text (byte {error.start})", hint="Convert it first, for example with iconv."
        ) from None


def model_named(text: str, node: str | None) -> str:
    """The model reference to send: a file that the user names here becomes `file:/absolute/path` for this machine.

    `./x.gguf`, `~/x.gguf`, `/x.gguf`, `file:x.gguf`, and `x.gguf` where such a file is. A file on another node is
    named by its path there, and stays as it is.
    """
    scheme, colon, rest = text.partition(":")
    if colon and scheme.lower() == "file":
        path = rest
    elif text.startswith(("/", "./", "../", "~/")) or (text.endswith(".gguf") and Path(text).is_file()):
        path = text
    else:
        return text
    if node not in _LOCAL_NODES or not path:
        return f"file:{path}"
    return f"file:{os.path.abspath(Path(path).expanduser())}"  # noqa: PTH100 - `..` goes, symbolic links stay


def device_named(text: str | None) -> int | str | None:
    """An index where it is a number, else an id."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else text


def check_request(request: dict[str, Any]) -> None:
    """Find what is wrong with a task before anybody is woken for it.

    Raises:
        InvalidRequestError: with every fault.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - 0.2 s that only a command which wakes the queen pays

    from rbee_shared.contracts.faults import invalid_request  # noqa: PLC0415
    from rbee_shared.contracts.tasks import TaskRequest  # noqa: PLC0415
    from rbee_shared.model_ref import parse_model_ref  # noqa: PLC0415

    try:
        task = TaskRequest.model_validate(request)
    except ValidationError as error:
        raise invalid_request(error) from None
    parse_model_ref(task.chosen_model)
