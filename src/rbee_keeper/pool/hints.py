"""What a hive advises its own operator to type, in the words of somebody at another machine."""

import re
import shlex

_POOL_HAS = {
    "builds": frozenset({"list", "make", "remove"}),
    "models": frozenset({"register", "download", "list", "catalog", "show", "unregister", "remove"}),
    "worker": frozenset({"spawn", "list", "stop", "stop-all"}),
}
_COMMAND = re.compile(rf"rbee-hive (?P<words>(?:{'|'.join(_POOL_HAS)})(?: [\w.:/@-]*[\w/@-])+)")


def from_here(hint: str, node: str) -> str:
    """`hint` with every `rbee-hive` command as the `rbee-keeper pool` one, or as one to be typed at `node`."""
    return _COMMAND.sub(lambda found: _from_here(found["words"].split(), shlex.quote(node)), hint)


def _from_here(words: list[str], node: str) -> str:
    if words[1] in _POOL_HAS[words[0]]:
        return f"rbee-keeper pool {' '.join(words)} --host {node}"
    return f"rbee-hive {' '.join(words)} (typed on {node})"
