"""Reads a model's own keys out of its metadata: numbers in their bounds, one for all layers or one for each.

Whatever is missing, of another type or out of bounds is a `ModelInvalidError` that names the key.
"""

from collections.abc import Mapping

from rbee_hive.domain.models.gguf_bytes import quoted
from rbee_hive.domain.models.gguf_values import Omitted, Value
from rbee_shared.errors import ModelInvalidError

MAX_LAYERS = 512  # llama.cpp's own
_MOST = 1 << 31


class Keys:
    """The keys that begin with the architecture's name; they are given without it."""

    def __init__(self, metadata: Mapping[str, Value], architecture: str) -> None:
        self._metadata = metadata
        self._architecture = architecture

    def number(self, name: str, default: int | None = None, *, least: int = 0, most: int = _MOST) -> int:
        """One number. `default` None: it has to be there."""
        value = self._metadata.get(self._key(name), default)
        if value is None:
            raise ModelInvalidError(f"the metadata has no {self._key(name)}")
        return self._checked(name, value, least, most)

    def per_layer(self, name: str, layers: int, default: int | tuple[int, ...] | None = None) -> tuple[int, ...]:
        """A number for each layer; one that stands alone is for all of them."""
        value = self._metadata.get(self._key(name), default)
        if not isinstance(value, tuple):
            return (self.number(name, value if isinstance(value, int) else None),) * layers
        if len(value) != layers:
            raise ModelInvalidError(f"{self._key(name)} has {len(value)} numbers for {layers} layers")
        return tuple(self._checked(name, one, 0, _MOST) for one in value)

    def flags(self, name: str, layers: int) -> tuple[bool, ...] | None:
        """A yes or no for each layer, no where the array ends early; None where it is no array."""
        value = self._metadata.get(self._key(name))
        if not isinstance(value, tuple):
            return None
        if len(value) > MAX_LAYERS:
            raise ModelInvalidError(f"{self._key(name)} has {len(value)} values for {layers} layers")
        return tuple(number < len(value) and bool(value[number]) for number in range(layers))

    def _key(self, name: str) -> str:
        return f"{self._architecture}.{name}"

    def _checked(self, name: str, value: Value, least: int, most: int) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            shown = "too long an array" if isinstance(value, Omitted) else quoted(str(value))
            raise ModelInvalidError(f"{self._key(name)} is {shown}; it has to be a number from {least} to {most}")
        return value
