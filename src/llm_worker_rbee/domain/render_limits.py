"""How much a chat template may make of what it is given: every text, every container, all of them, and the time.

Pure: the clock comes in. A container's weight is about the characters that it would have as text, with everything in
it counted as often as it occurs: a value within the limit can be printed, compared and sorted in milliseconds, although
it may hold one list a thousand times. Containers that a template makes carry their weight, so it is never counted anew.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

# of one text, in characters, and of one container, in characters and NODE_WEIGHT for each value in it
MAX_SIZE = 2 * 1024 * 1024
NODE_WEIGHT = 16
MAX_ITEMS = MAX_SIZE // NODE_WEIGHT
# of everything that one rendering prints, also into its own variables
MAX_PRINTED = 4 * 1024 * 1024
# of all values that one rendering makes, dropped or not: what it can hold at one time is less
MAX_MADE = 64 * 1024 * 1024
MAX_INT_BITS = 4096
_BITS_PER_DIGIT = 3


class TooMuchError(Exception):
    """A rendering went beyond a limit. The message continues "the template ..."."""


class WeighedList(list[Any]):
    """A list that knows its weight; nothing changes it."""

    __slots__ = ("weight",)
    weight: int


class WeighedTuple(tuple[Any, ...]):  # noqa: SLOT001 - a tuple has no room for a slot
    """A tuple that knows its weight."""

    weight: int


class WeighedDict(dict[Any, Any]):
    """A dictionary that knows its weight; nothing changes it."""

    __slots__ = ("weight",)
    weight: int


_Weighed = WeighedList | WeighedTuple | WeighedDict


class Meter:
    """Watches one rendering. Every method raises `TooMuchError` at the limit it watches."""

    def __init__(self, clock: Callable[[], float], limit_s: float) -> None:
        self._clock = clock
        self._limit_s = limit_s
        self._ends_at_s = clock() + limit_s
        self._made = 0
        self._printed = 0

    def tick(self) -> None:
        """To be called often: in every turn of a loop, and by everything that works."""
        if self._clock() >= self._ends_at_s:
            raise TooMuchError(f"takes longer than {self._limit_s:g} s")

    def room(self, size: int) -> None:
        """To be called before a text of `size` characters, or a container of that weight, is made."""
        if size > MAX_SIZE:
            raise TooMuchError(f"makes a value of more than {MAX_SIZE} characters")

    def items(self, count: int) -> None:
        """The same for a container, by its length."""
        self.room(count * NODE_WEIGHT)

    def each(self, values: Iterable[Any]) -> Iterator[Any]:
        """`values`, as long as there are not too many."""
        for count, value in enumerate(values):
            self.items(count)
            self.tick()
            yield value

    def text(self, value: Any) -> str:
        """`value` as text."""
        if type(value) is str:
            return value
        self.room(weigh(value))
        text = str(value)
        self._make(len(text))
        return text

    def keep(self, value: Any) -> Any:
        """To be given every value that was made; returns it in a form that can be bounded later."""
        if isinstance(value, str):
            self._make(len(value))
            return str(value)
        if isinstance(value, list | tuple | dict) and not isinstance(value, _Weighed):
            self._make(len(value) * NODE_WEIGHT)
            return _weighed(value)
        if isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
            raise TooMuchError("makes a number that is too large")
        return value

    def keep_all(self, value: Any) -> Any:
        """The same for JSON-like data and everything in it."""
        if isinstance(value, dict):
            return self.keep({key: self.keep_all(item) for key, item in value.items()})
        if isinstance(value, list | tuple):
            return self.keep([self.keep_all(item) for item in value])
        return self.keep(value)

    def printed(self, size: int) -> None:
        """To be told what is printed."""
        self._printed += size
        if self._printed > MAX_PRINTED:
            raise TooMuchError(f"prints more than {MAX_PRINTED} characters")

    def _make(self, size: int) -> None:
        self.room(size)
        self._made += size
        if self._made > MAX_MADE:
            raise TooMuchError(f"makes more than {MAX_MADE} characters in all")


def weigh(value: Any) -> int:
    """The weight of `value`.

    Raises:
        TooMuchError: it is more than `MAX_SIZE`.
    """
    if isinstance(value, str):
        return len(value) + NODE_WEIGHT
    if isinstance(value, _Weighed):
        return value.weight
    if isinstance(value, dict):
        return _sum(part for pair in value.items() for part in pair)
    if isinstance(value, list | tuple):
        return _sum(value)
    return NODE_WEIGHT + (value.bit_length() // _BITS_PER_DIGIT if isinstance(value, int) else 0)


def _sum(values: Iterable[Any]) -> int:
    weight = NODE_WEIGHT
    for value in values:
        weight += weigh(value)
        if weight > MAX_SIZE:  # at once: the rest may be endless
            raise TooMuchError(f"makes a value of more than {MAX_SIZE} characters")
    return weight


def _weighed(value: Any) -> _Weighed:
    weight = weigh(value)
    made: _Weighed
    if isinstance(value, dict):
        made = WeighedDict(value)
    else:
        made = WeighedList(value) if isinstance(value, list) else WeighedTuple(value)
    made.weight = weight
    return made
