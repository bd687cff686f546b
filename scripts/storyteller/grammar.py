"""The story grammar: an order for a story goes in, a whole story comes out.

Every story has a hero who keeps one name and one set of pronouns, a want, an obstacle, a helper, a resolution and an
ending. Choices are skewed towards the earlier options, and names and plots are turned by the hero's kind, so that a
model trained on the stories has a clear favourite at every step and tells different stories about different heroes.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from storyteller import plots, words

T = TypeVar("T")
_SKEW = 0.7
_ALL_PLACES = (
    words.FOREST + words.TOWN + words.MEADOW + words.SEA + words.HOUSE + words.HILLS + words.WORKSHOP + words.CASTLE
)
_KINDS = tuple(words.HEROES)


@dataclass(frozen=True)
class Order:
    """What a story has to contain; everything left out is the grammar's choice."""

    kind: str | None = None
    trait: str | None = None
    name: str | None = None
    helper: str | None = None
    theme: str | None = None
    bedtime: bool = False


def draw(rng: random.Random, options: Sequence[T], turn: int = 0) -> T:
    """One of `options`, the earlier the likelier; `turn` says which of them counts as the first."""
    weights = [(place + 1) ** -_SKEW for place in range(len(options))]
    place = rng.choices(range(len(options)), weights)[0]
    return options[(place + turn) % len(options)]


def with_article(noun: str) -> str:
    """`a fox`, `an old owl`."""
    return f"{'an' if noun[0].lower() in 'aeiou' and not noun.startswith('uni') else 'a'} {noun}"


def tell(rng: random.Random, order: Order) -> str:
    """A whole story, of seven to twelve sentences."""
    slots = _cast(rng, order)
    plot = draw(rng, plots.PLOTS, _turn(order.kind))
    beats = [draw(rng, plots.OPENINGS)]
    beats += [draw(rng, beat) for beat in plot]
    beats.append(draw(rng, plots.BEDTIME_ENDINGS if order.bedtime else plots.ENDINGS))
    if order.theme is not None:
        beats.insert(0, plots.THEME_OPENING)
        beats[-1] = plots.THEME_ENDING
    story = " ".join(beats).format_map(slots)
    return f"{story} The end." if not order.bedtime and rng.random() < 0.1 else story


def _turn(kind: str | None) -> int:
    return _KINDS.index(kind) if kind in words.HEROES else 0


def _cast(rng: random.Random, order: Order) -> dict[str, str]:
    kind = order.kind or draw(rng, _KINDS)
    name, is_she = _name(rng, order, kind)
    trait = order.trait or draw(rng, words.TRAITS)
    place = draw(rng, words.HEROES.get(kind, _ALL_PLACES))
    helper = order.helper or draw(rng, [h for h in words.HELPERS if h != kind], _turn(kind))
    a_helper = with_article(f"{draw(rng, words.HELPER_TRAITS)} {helper}")
    thing = draw(rng, words.TREASURES)
    he, his, him = ("she", "her", "her") if is_she else ("he", "his", "him")
    return {
        "n": name, "k": kind, "he": he, "his": his, "him": him, "He": he.capitalize(), "His": his.capitalize(),
        "a_hero": with_article(f"{trait} {kind}"), "place": place, "Place": place[0].upper() + place[1:],
        "a_helper": a_helper, "A_helper": a_helper.capitalize(), "helper": helper, "Helper": helper.capitalize(),
        "thing": thing, "a_thing": with_article(thing), "theme": order.theme or "",
    }  # fmt: skip


def _name(rng: random.Random, order: Order, kind: str) -> tuple[str, bool]:
    """The hero's name, and whether the hero is a she."""
    if order.name is not None:
        return order.name, order.name in words.ASKED_SHE_NAMES + words.SHE_NAMES
    is_she = kind in words.SHE_KINDS or (
        kind not in words.HE_KINDS and rng.random() < (0.65 if _turn(kind) % 2 else 0.35)
    )
    return draw(rng, words.SHE_NAMES if is_she else words.HE_NAMES, _turn(kind)), is_she
