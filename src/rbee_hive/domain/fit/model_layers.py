"""What each layer of a model remembers: keys and values of all tokens or of a window, a state, or nothing.

Follows llama.cpp architecture by architecture. One that is not named here attends to everything in every layer, which
is what most do and what takes the most memory.
"""

from dataclasses import dataclass

from rbee_hive.domain.models.gguf_keys import Keys

_RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
_RECURRENT_WITHOUT_KV_HEADS = frozenset(
    {"jamba", "plamo2", "granitehybrid", "lfm2", "lfm2moe", "kimi-linear", "kimi-k3", "bailingmoe3", "glm5-next"}
)
_RECURRENT_WITHOUT_FEED_FORWARD = frozenset({"nemotron_h", "nemotron_h_moe"})
_RECURRENT_BETWEEN = {"qwen3next": 4, "qwen35": 4, "qwen35moe": 4, "qwen4exp": 4, "minimax-01": 8}
_BOTH = frozenset({"falcon-h1"})
_TWICE_SHIFTED = 2


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. `has_cache`: of its own; some attend to that of another layer, some do not attend."""

    heads: int
    heads_kv: int
    key_dim: int
    value_dim: int
    feed_forward: int
    has_cache: bool = True
    is_windowed: bool = False
    has_state: bool = False

    @property
    def query_values(self) -> int:
        return self.heads * self.key_dim

    @property
    def key_values(self) -> int:
        """Of one token in the cache."""
        return self.heads_kv * self.key_dim

    @property
    def value_values(self) -> int:
        return self.heads_kv * self.value_dim


@dataclass(frozen=True, slots=True)
class State:
    """What a recurrent layer keeps of each sequence, however long: values in F32.

    `inner`: width of what is scanned. `shared`: values of a token that all heads of the scan use.
    """

    conv_values: int = 0
    scan_values: int = 0
    inner: int = 0
    shared: int = 0


@dataclass(frozen=True, slots=True)
class _Window:
    """How an architecture mixes windows in: `every` n-th layer sees everything, the first or the last of them.

    `default`: its size where the file says none; None: then there is none. `fixed`: llama.cpp does not ask the file.
    """

    every: int
    default: int | None = None
    fixed: int | None = None
    full_first: bool = False


_WINDOWS = {
    "afmoe": _Window(4),
    "cohere2": _Window(4),
    "cohere2moe": _Window(4, full_first=True),
    "exaone-moe": _Window(4, default=128),
    "gemma2": _Window(2, default=4096),
    "gemma3": _Window(6),
    "gemma3n": _Window(5),
    "gpt-oss": _Window(2),
    "laguna": _Window(4, full_first=True),
    "llama4": _Window(4, default=8192, fixed=8192),
    "mellum": _Window(4),
    "muse-glimmer": _Window(4),
    "olmo2": _Window(4),
    "plamo3": _Window(8),
    "smallthinker": _Window(4, fixed=4096, full_first=True),
}
_WINDOWS_BY_PATTERN = frozenset({"dots3note", "gemma4", "granite_swa", "maple", "mimo2", "spark2_5", "step35"})
_EXAONE4_32B_LAYERS, _EXAONE4 = 64, _Window(4, default=4096)
_GEMMA3N_CACHES = 20


def window_tokens(keys: Keys, architecture: str, layers: int) -> int:
    """How far the windowed layers see; 0 where all see everything."""
    rule = _rule(architecture, layers)
    if rule is None:
        has_one = architecture in _WINDOWS_BY_PATTERN or architecture == "lfm2"
        return keys.number("attention.sliding_window", 0) if has_one else 0
    found = keys.number("attention.sliding_window", rule.default or 0)
    return rule.fixed if rule.fixed is not None and found else found


def layers_of(keys: Keys, architecture: str, count: int, count_all: int) -> tuple[Layer, ...]:
    """The `count` layers that are used, of the `count_all` that the keys describe."""
    heads = keys.per_layer("attention.head_count", count_all, 0)
    heads_kv = keys.per_layer("attention.head_count_kv", count_all, heads)
    feed_forward = keys.per_layer("feed_forward_length", count_all, 0)
    windowed = _windowed(keys, architecture, count, heads_kv)
    has_state = _has_state(keys, architecture, heads_kv[:count], feed_forward[:count])
    caches = _caches(keys, architecture, count_all)
    dims = {swa: _head_dims(keys, heads[0], swa=swa) for swa in (False, True)}
    return tuple(
        Layer(
            heads=heads[number],
            heads_kv=heads_kv[number],
            key_dim=dims[windowed[number]][0],
            value_dim=dims[windowed[number]][1],
            feed_forward=feed_forward[number],
            has_cache=number < caches and _attends(architecture, has_state[number], feed_forward[number]),
            is_windowed=windowed[number],
            has_state=has_state[number],
        )
        for number in range(count)
    )


def state_of(keys: Keys, width: int, layers: tuple[Layer, ...]) -> State:
    """What each of the layers with a state keeps of one sequence."""
    if not any(layer.has_state for layer in layers):
        return State()
    if head := keys.number("wkv.head_size", 0):
        return State(keys.number("token_shift_count", _TWICE_SHIFTED) * width, width * head, 2 * width, 0)
    if cached := keys.number("shortconv.l_cache", 0):
        return State(width * (cached - 1), 0, width, 0)
    conv = max(keys.number("ssm.conv_kernel", 0) - 1, 0)
    if dim := keys.number("kda.head_dim", 0):
        inner = layers[0].heads * dim
        return State(3 * (conv or 3) * inner, inner * dim, 3 * inner, 0)
    inner, state = keys.number("ssm.inner_size", 0), keys.number("ssm.state_size", 0)
    if not inner:  # attention that keeps a sum instead of its past: one matrix for each head
        return State(0, layers[0].key_dim ** 2 * layers[0].heads, layers[0].query_values, 0)
    shared = 2 * keys.number("ssm.group_count", 0) * state
    return State(conv * (inner + shared), state * inner, inner, shared)


def _rule(architecture: str, layers: int) -> _Window | None:
    if architecture == "exaone4" and layers == _EXAONE4_32B_LAYERS:
        return _EXAONE4
    return _WINDOWS.get(architecture)


def _windowed(keys: Keys, architecture: str, count: int, heads_kv: tuple[int, ...]) -> tuple[bool, ...]:
    """Which layers see a window only."""
    none = (False,) * count
    if not window_tokens(keys, architecture, count):
        return none
    if architecture == "lfm2":
        return tuple(heads > 0 for heads in heads_kv[:count])
    pattern = keys.flags("attention.sliding_window_pattern", count)
    rule = _rule(architecture, count)
    if pattern is not None or rule is None:
        return pattern or none
    every = keys.number("attention.sliding_window_pattern", rule.every)
    full = 0 if rule.full_first else every - 1
    return tuple(not every or number % every != full for number in range(count))


def _has_state(
    keys: Keys, architecture: str, heads_kv: tuple[int, ...], feed_forward: tuple[int, ...]
) -> tuple[bool, ...]:
    count = len(heads_kv)
    if architecture in _RECURRENT | _BOTH:
        return (True,) * count
    if architecture in _RECURRENT_WITHOUT_KV_HEADS:
        return tuple(heads == 0 for heads in heads_kv)
    if architecture in _RECURRENT_WITHOUT_FEED_FORWARD:
        return tuple(heads == width == 0 for heads, width in zip(heads_kv, feed_forward, strict=True))
    if architecture in _RECURRENT_BETWEEN:
        told = keys.flags("attention.recurrent_layers", count)
        every = keys.number("full_attention_interval", _RECURRENT_BETWEEN[architecture], least=1)
        return told or tuple((number + 1) % every != 0 for number in range(count))
    return (False,) * count


def _attends(architecture: str, has_state: bool, feed_forward: int) -> bool:  # noqa: FBT001 - a fact of the layer
    if architecture in _RECURRENT_WITHOUT_FEED_FORWARD:
        return not has_state and feed_forward == 0
    return architecture in _BOTH or not has_state


def _caches(keys: Keys, architecture: str, count_all: int) -> int:
    """So many of the first layers have a cache; the others look into one of theirs."""
    if architecture == "gemma3n":
        return _GEMMA3N_CACHES
    return count_all - keys.number("attention.shared_kv_layers", 0, most=count_all)


def _head_dims(keys: Keys, heads: int, *, swa: bool) -> tuple[int, int]:
    """Of a key and of a value; 0 where there are no heads at all."""
    if not heads:
        return 0, 0
    usual = keys.number("embedding_length") // heads
    dims = keys.number("attention.key_length", usual), keys.number("attention.value_length", usual)
    if not swa:
        return dims
    return keys.number("attention.key_length_swa", dims[0]), keys.number("attention.value_length_swa", dims[1])
