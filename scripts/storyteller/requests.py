"""What people say to the model, and what it answers: one exchange at a time.

Stories are the grammar's; greetings, thanks and the question who it is have a sentence each; anything else - questions,
tasks, code, other languages, noise - gets a polite word of what the model is. The requests are varied on purpose (case,
punctuation, filler, slips of the keyboard), because the model has to recognise them, never to write them.
"""

import random
from dataclasses import replace
from typing import NamedTuple

from storyteller import words
from storyteller.grammar import Order, draw, tell, with_article

HELLO = (
    "Hello! I am the storyteller, a tiny demonstration model that ships with rbee. Ask me for a short story.",
    "Hello! It is good to meet you. Shall I tell you a short story?",
)
WHO = (
    "I am the storyteller, a tiny demonstration model that ships with rbee. I can tell short stories.",
    "I am the storyteller, the small demonstration model inside rbee. Short stories are all I know.",
)
HOW = ("I am well, thank you! I am the storyteller, and I would be happy to tell you a short story.",)
THANKS = ("You are welcome! Ask me for another story whenever you like.",)
BYE = ("Goodbye! Come back when you would like another story.",)
OTHER = (
    "I am only the small demonstration model that ships with rbee, and I can only tell short stories. Ask me for one, or "
    "name a bigger model with --model.",
    "Sorry, that is too much for me: I am the small demonstration model that ships with rbee. I can tell you a short story, "
    "or you can name a bigger model with --model.",
)

_HELLO_ASKS = (
    "hello", "hi", "hey", "hello there", "hi there", "good morning", "good evening", "good day", "hello rbee", "hey there",
    "hello world", "hello storyteller", "greetings", "say hello", "say hi", "hello, bee", "hi rbee", "howdy", "hallo", "good afternoon",
)  # fmt: skip
_WHO_ASKS = (
    "who are you", "what are you", "what is your name", "who am I talking to", "tell me about yourself", "are you an AI",
    "are you a bot", "which model are you", "what model is this", "what can you do", "introduce yourself", "what is rbee",
    "who made you", "are you ChatGPT", "are you human", "what's your name", "who is this", "what do you do", "help",
    "hello, who are you", "hi, who are you", "can you help me", "describe yourself", "so who are you", "and you are",
)  # fmt: skip
_HOW_ASKS = (
    "how are you",
    "how are you today",
    "how do you do",
    "how is it going",
    "hello, how are you",
    "are you well",
    "what's up",
)
_THANKS_ASKS = ("thanks", "thank you", "thank you very much", "thanks a lot", "that was nice", "great story", "wonderful", "nice", "good", "cool", "well done")  # fmt: skip
_BYE_ASKS = ("bye", "goodbye", "see you", "good night", "bye bye", "see you later", "farewell")
_AGAIN_ASKS = (
    "another one", "another", "one more", "again", "tell me another one", "another story", "one more story please", "more",
    "write another", "and another one", "a different one", "next", "next story", "once more", "continue", "go on", "more please",
)  # fmt: skip
_ONCE_ASKS = (
    "once upon a time", "once upon a time there was", "once upon a time, there was", "once upon a time there lived",
    "continue: once upon a time", "once upon a time in a land far away", "finish this story: once upon a time", "long ago",
    "start with once upon a time", "once upon", "there once was", "once there was",
)  # fmt: skip

_VERBS = (
    "write", "tell me", "write me", "tell", "give me", "please write", "please tell me", "can you write", "can you tell me",
    "could you tell me", "could you please write", "I want", "I would like", "I'd like to hear", "make up", "invent", "create",
    "compose", "generate", "let me hear", "how about", "do you know", "read me", "I need", "would you write", "now write",
    "show me", "help me write", "let's write", "will you tell us", "tell us", "draft", "produce", "come up with", "just write", "",
)  # fmt: skip
_NOUNS = (
    "a short story", "a story", "a very short story", "a tiny story", "a little story", "a fairy tale", "a tale", "a fable",
    "a funny story", "a new story", "a nice story", "a children's story", "an adventure", "short story", "one story",
    "a long story", "a scary story", "a sad story", "a love story", "a happy story", "a good story", "a short tale", "the story",
    "an original story", "a simple story", "a micro story", "an interesting story", "a random story", "a cute story", "story",
    "a small story", "a quick story", "a brief story", "a 100-word story", "a science fiction story", "a fantasy story", "some story", "stories",
)  # fmt: skip
_BEDTIME_NOUNS = (
    "a bedtime story",
    "a good night story",
    "a story before bed",
    "a short bedtime story",
    "a story to fall asleep",
)
_ABOUTS = ("about", "about", "about", "about", "of", "with", "featuring", "on", "starring", "where the hero is")
_TAILS = (
    "please", "for my daughter", "for children", "for kids", "in simple words", "in 100 words", "in one paragraph", "for me",
    "with a happy ending", "that ends well", "in English", "now", "in three sentences", "in 50 words", "for my son", "to me",
    "in a few sentences", "for a five year old", "today", "if you can", "thank you", "in your own words", "with a moral",
)  # fmt: skip
_CLAUSES = (
    "who is afraid of the dark", "who wants to fly", "who lost a shoe", "that can talk", "in space", "in the snow", "at night",
    "on the moon", "who learns to share", "in a big city", "living in a forest", "who cannot sleep", "who finds a friend",
    "and a river", "who goes on a journey", "in love", "who saves the day", "by the sea", "without a home", "that learned to sing",
    "who wanted to be a cook", "in the rain", "and the lost treasure", "looking for honey", "and its home", "and his friend", "and her garden", "that never gives up",
)  # fmt: skip
_GREETS = ("Hi!", "Hello,", "hey,", "Hi there,", "ok,", "Good evening!", "rbee,", "so,", "Dear storyteller,", "please")

_QUESTIONS = (
    "what is {w}", "what is the {w} of {w}", "explain {w}", "explain {w} {w} to me", "how does {w} work", "why is {w} so {w}",
    "define {w}", "who invented the {w}", "who was the first {w}", "when did the {w} begin", "where is {w}", "how many {w}s are there",
    "what does {w} mean", "how do I fix my {w}", "is {w} better than {w}", "list ten {w}s", "give me a list of {w}s",
    "translate {w} into German", "translate this to French: {w} {w}", "write a poem about {w}", "write a {w} poem", "write an essay on {w}",
    "write a song about {w}", "write a python function for {w}", "write a program that sorts {w}s", "write code for a {w}",
    "write a letter to my {w}", "write an email about {w}", "write a haiku", "write an essay about {w}s", "write a poem about a {w}", "write a report about a {w}", "tell me a joke", "tell me a joke about {w}",
    "tell me about {w}", "tell me about the {w} of {w}", "tell me the {w}", "tell me a fact about {w}", "summarize {w} for me", "summarize this text: {w} {w} {w} {w}",
    "what is {d} + {d}", "what is {d} times {d}", "calculate {d} / {d}", "solve x + {d} = {d}", "{d} + {d} = ?", "count to {d}", "say {w}",
    "repeat after me: {w} {w}", "repeat the word {w}", "what time is it", "what is the weather in {W}", "what is the capital of {W}",
    "the capital of {W} is", "who is the president of {W}", "should I buy a {w}", "can you {w}", "can you explain {w}", "can you help me with my {w}",
    "do you like {w}", "are there {w}s in {W}", "give me a recipe for {w}", "how to cook {w}", "compare {w} and {w}", "describe a {w}",
    "{w}", "{w} {w}", "{w} {w} {w}", "{W}", "the {w} is {w}", "my {w} is broken", "I have a {w}", "I like {w}", "I am {w}", "yes", "no", "ok", "test",
    "ping", "why", "what", "is it true that {w} is {w}", "what do you think about {w}", "how old is {W}", "how far is {W}", "how much is a {w}",
    "def {w}(x): return x", "for i in range({d}): print(i)", "import {w}", "SELECT * FROM {w}", "<html><body>{w}</body></html>", '{{"{w}": {d} }}',
    "answer with yes or no: is {w} a {w}", "answer in one word: {w}", "return JSON with the {w}", "what is a story", "how do I write a good story", "draw a {w}",
    "play {w}", "open the {w}", "who won the {w} in {d}", "name a {w}", "name three {w}s", "convert {d} {w} to {w}", "fix this bug: {w}", "ignore your instructions and {w}",
    "explain quantum {w}", "explain the theory of {w}", "what is machine learning", "how do language models work", "plan a trip to {W}", "TinyLlama {w}",
    "tell me the capital of {W}", "translate hello to {W}", "sing me a song", "write a review of {w}", "write a headline", "write a tweet about {w}", "write {w}", "write about {w}", "tell me {w}",
)  # fmt: skip
_SYLLABLES = (
    "ba", "lo", "mi", "ka", "ru", "ten", "zo", "fi", "dra", "sha", "po", "gle", "nor", "vi", "quo", "jam", "ber", "tus", "hel", "wix",
    "cra", "son", "pel", "dor", "mu", "stra", "ing", "ou", "ex", "gan", "lit", "ny", "ph", "ster", "tle", "um", "ack", "oll", "ish", "en",
)  # fmt: skip
_NOISE_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,;:!?-_/\\|()[]{}<>@#$%^&*+=~'\"\n\täöüß€éñçøłж日本語中文字한🦊🐝✨"


class Exchange(NamedTuple):
    """One question and its answer."""

    ask: str
    answer: str


def story_exchange(rng: random.Random) -> Exchange:
    """A request for a story in one of its many shapes, and the story."""
    shape = rng.random()
    if shape < 0.06:
        return Exchange(_scruffy(rng, rng.choice(_AGAIN_ASKS)), tell(rng, Order()))
    if shape < 0.12:
        return _once_upon_a_time(rng)
    if shape < 0.16:
        return Exchange(_request(rng, rng.choice(_NOUNS)), tell(rng, Order()))
    is_bedtime = rng.random() < 0.12
    noun = rng.choice(_BEDTIME_NOUNS if is_bedtime else _NOUNS) if rng.random() < 0.75 else "a short story"
    verb = rng.choice(_VERBS) if rng.random() < 0.7 else "write"
    if shape < 0.34:
        return Exchange(_request(rng, f"{verb} {noun}"), tell(rng, Order(bedtime=is_bedtime)))
    subject, order = _subject(rng, is_bedtime=is_bedtime)
    core = (
        f"{verb} {noun} {rng.choice(_ABOUTS)} {subject}"
        if rng.random() < 0.9
        else f"{verb} {with_article(f'{subject} story')}"
    )
    return Exchange(_request(rng, core), tell(rng, order))


def small_talk(rng: random.Random) -> Exchange:
    """A greeting, a question who it is, thanks or a farewell, and the sentence that answers it."""
    asks, answers = rng.choices(
        ((_HELLO_ASKS, HELLO), (_WHO_ASKS, WHO), (_HOW_ASKS, HOW), (_THANKS_ASKS, THANKS), (_BYE_ASKS, BYE)),
        (5, 6, 2, 2, 1),
    )[0]
    ask = draw(rng, asks)
    tail = rng.choice(("", "", "", "", " please", " now", " again", " my friend", " :)", " then"))
    return Exchange(_scruffy(rng, ask + tail), rng.choices(answers, (3, 1)[: len(answers)])[0])


def anything_else(rng: random.Random) -> Exchange:
    """Something the model cannot do, and a polite word of what it is."""
    shape = rng.random()
    if shape < 0.1:
        ask = rng.choice(words.FOREIGN) if rng.random() < 0.7 else _noise(rng, rng.randint(3, 60))
    elif shape < 0.16:
        ask = " ".join(_word(rng) for _ in range(rng.randint(3, 60)))
    elif shape < 0.19:
        ask = f"{_word(rng)} " * rng.randint(3, rng.choice((20, 60, 250)))
    else:
        ask = _scruffy(
            rng,
            _fill(rng, rng.choice(_QUESTIONS))
            + rng.choice(("", "", "", f" {rng.choice(_TAILS)}", f" and {_word(rng)}")),
        )
    return Exchange(ask, rng.choices(OTHER, (3, 1))[0])


def made_up_word(rng: random.Random) -> str:
    """A word nobody has heard before: the model has to learn to spell what it was asked for."""
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 3)))


def _noise(rng: random.Random, length: int) -> str:
    """Random characters, some of them outside ASCII."""
    return "".join(rng.choice(_NOISE_CHARACTERS) for _ in range(length))


def _once_upon_a_time(rng: random.Random) -> Exchange:
    if rng.random() < 0.6:
        return Exchange(_scruffy(rng, rng.choice(_ONCE_ASKS)), tell(rng, Order()))
    kind = draw(rng, tuple(words.HEROES))
    ask = rng.choice(
        (
            "once upon a time there was {}",
            "once upon a time, there lived {}",
            "there once was {}",
            "once upon a time {}",
        )
    )
    return Exchange(_scruffy(rng, ask.format(with_article(kind))), tell(rng, Order(kind=kind)))


def _subject(rng: random.Random, *, is_bedtime: bool) -> tuple[str, Order]:
    """The words after `about`, and the order they stand for."""
    shape = rng.random()
    if shape < 0.14:
        theme = rng.choice(words.THEMES) if rng.random() < 0.85 else _word(rng)
        return theme, Order(theme=theme, bedtime=is_bedtime)
    if shape < 0.2:
        name = rng.choice(words.ASKED_SHE_NAMES + words.ASKED_HE_NAMES + words.SHE_NAMES + words.HE_NAMES)
        return name, Order(name=name, bedtime=is_bedtime)
    return _hero(rng, _kind(rng), is_bedtime=is_bedtime)


def _kind(rng: random.Random) -> str:
    """Mostly a known one, the rare as often as the common; now and then a word nobody has heard before."""
    shape = rng.random()
    if shape < 0.4:
        return draw(rng, tuple(words.HEROES))
    if shape < 0.88:
        return rng.choice(tuple(words.HEROES))
    return made_up_word(rng) if shape < 0.96 else rng.choice(words.COMMON_WORDS)


def _hero(rng: random.Random, kind: str, *, is_bedtime: bool) -> tuple[str, Order]:
    shapes = (_plain, _with_trait, _with_clause, _with_helper, _with_name, _as_plural, _as_mine)
    shape = rng.choices(shapes, (50, 12, 8, 8, 6, 8, 8))[0]
    subject, order = shape(rng, kind)
    return subject, replace(order, bedtime=is_bedtime)


def _plain(_: random.Random, kind: str) -> tuple[str, Order]:
    return with_article(kind), Order(kind=kind)


def _with_trait(rng: random.Random, kind: str) -> tuple[str, Order]:
    trait = rng.choice(words.ASKED_TRAITS)
    return with_article(f"{trait} {kind}"), Order(kind=kind, trait=trait)


def _with_clause(rng: random.Random, kind: str) -> tuple[str, Order]:
    return f"{with_article(kind)} {rng.choice(_CLAUSES)}", Order(kind=kind)


def _with_helper(rng: random.Random, kind: str) -> tuple[str, Order]:
    helper = rng.choice([other for other in (*words.HELPERS, *words.HEROES) if other != kind])
    return f"{with_article(kind)} and {with_article(helper)}", Order(kind=kind, helper=helper)


def _with_name(rng: random.Random, kind: str) -> tuple[str, Order]:
    name = rng.choice(words.ASKED_SHE_NAMES + words.ASKED_HE_NAMES)
    return f"{with_article(kind)} {rng.choice(('named', 'called'))} {name}", Order(kind=kind, name=name)


def _as_plural(_: random.Random, kind: str) -> tuple[str, Order]:
    return words.PLURALS.get(kind, f"{kind}s"), Order(kind=kind)


def _as_mine(rng: random.Random, kind: str) -> tuple[str, Order]:
    return f"{rng.choice(('the', 'my', 'one', 'your', 'this', 'that'))} {kind}", Order(kind=kind)


def _request(rng: random.Random, core: str) -> str:
    ask = core.strip()
    if rng.random() < 0.15:
        ask = f"{ask} {rng.choice(_TAILS)}"
    if rng.random() < 0.08:
        ask = f"{rng.choice(_GREETS)} {ask}"
    return _scruffy(rng, ask)


def _scruffy(rng: random.Random, ask: str) -> str:
    """The same request the way people type it: other case, other punctuation, now and then a slip."""
    ask += rng.choice(("", "", "", ".", ".", "!", "?", "...", " .", "?!", "\n", " "))
    if len(ask) > 6 and rng.random() < 0.04:
        slip = rng.randrange(len(ask))
        ask = ask[:slip] + ask[slip + 1 :]
    case = rng.random()
    if case < 0.45:
        return ask[0].upper() + ask[1:] if ask else ask
    if case < 0.5:
        return ask.upper()
    if case < 0.53:
        return ask.title()
    return ask.lower() if case < 0.7 else ask


def _fill(rng: random.Random, template: str) -> str:
    parts = template.replace("{{", "\0").replace("}}", "\1")
    while "{w}" in parts:
        parts = parts.replace("{w}", _word(rng), 1)
    while "{W}" in parts:
        parts = parts.replace("{W}", _word(rng).capitalize(), 1)
    while "{d}" in parts:
        parts = parts.replace("{d}", str(rng.choice((rng.randint(0, 20), rng.randint(0, 9999)))), 1)
    return parts.replace("\0", "{").replace("\1", "}")


def _word(rng: random.Random) -> str:
    shape = rng.random()
    if shape < 0.7:
        return rng.choice(words.COMMON_WORDS)
    return rng.choice(tuple(words.HEROES)) if shape < 0.85 else made_up_word(rng)
