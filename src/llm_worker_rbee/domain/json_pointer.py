"""Where a `$ref` leads inside one JSON document (RFC 6901, as a URI fragment). Pure."""

import re
from collections.abc import Mapping
from typing import Any

_ENCODED = re.compile(rb"%([0-9A-Fa-f]{2})")


def resolve(document: Any, reference: str) -> Any:
    """What stands at `#/a/b`.

    Raises:
        LookupError: nothing does, or it leads out of the document.
    """
    if reference == "#":
        return document
    if not reference.startswith("#/"):
        raise LookupError("only references into the document itself, as #/$defs/name, are followed")
    found = document
    for part in reference[2:].split("/"):
        name = _decoded(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isascii() and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        else:
            raise LookupError("nothing is there")
    return found


def _decoded(part: str) -> str:
    data = part.encode(errors="replace")
    return _ENCODED.sub(lambda found: bytes.fromhex(found[1].decode()), data).decode(errors="replace")
