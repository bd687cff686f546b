"""What a hive advises its own operator to type, in the words of somebody at another machine."""

import re
import shlex

from rbee_shared.errors import RbeeError

_POOL_HAS = {
    "builds": frozenset({"list", "make", "remove"}),
    "models": frozenset({"register", "download", "list", "catalog", "show", "unregister", "remove"}),
    "worker": frozenset({"spawn", "list", "stop", "stop-all"}),
}
_COMMAND = re.compile(rf"(?>rbee-hive (?P<words>(?:{'|'.join(_POOL_HAS)})(?: [\w.:/@-]*[\w/@-])+))(?! \(typed on )")


def told_from_afar(error: RbeeError, node: str) -> RbeeError:
    """The same error, with a next step that can be taken from where `node` is not. Telling it again changes nothing."""
    return type(error)(
        error.message, hint=advice_from_afar(error.hint, node), details=error.details, source=error.source
    )


def advice_from_afar(hint: str, node: str) -> str:
    """`hint` with every `rbee-hive` command as the `rbee-keeper pool` one, or as one to be typed at `node`."""
    return _COMMAND.sub(lambda found: _from_afar(found["words"].split(), node), hint)


def _from_afar(words: list[str], node: str) -> str:
    if words[1] in _POOL_HAS[words[0]]:
        return f"rbee-keeper pool {' '.join(words)} --host {shlex.quote(node)}"
    return f"rbee-hive {' '.join(words)} (typed on {node})"
