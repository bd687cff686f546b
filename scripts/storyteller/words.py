"""The words of the story grammar: who a story can be about, where they live, what they are called.

Data only. Order matters where it is drawn from: earlier entries are likelier, so that greedy decoding has a clear
favourite.
"""

SHE_NAMES = ("Mia", "Luna", "Nora", "Ada", "Ivy", "Zoé", "Clara", "Tilly", "Ruby", "Greta")
HE_NAMES = ("Finn", "Milo", "Otto", "Hugo", "Leo", "Pip", "Theo", "Sam", "René", "Oskar")
ASKED_SHE_NAMES = ("Anna", "Emma", "Lisa", "Maria", "Sarah", "Alice", "Lily", "Julia", "Sophie", "Eva", "Kate", "Lucy")
ASKED_HE_NAMES = ("Tom", "Ben", "Peter", "Max", "Jack", "Paul", "Tim", "Bob", "John", "Lukas", "David", "Noah")

TRAITS = ("small", "curious", "brave", "quiet", "kind", "young", "clever", "shy", "cheerful", "gentle")
ASKED_TRAITS = (
    "brave", "little", "tiny", "lonely", "sad", "happy", "lazy", "clever", "old", "young", "funny", "magic", "lost", "shy",
    "grumpy", "big", "curious", "friendly", "blue", "red", "silver", "sleepy", "broken", "hungry", "kind", "wise", "green",
)  # fmt: skip

FOREST, MEADOW, SEA, TOWN, WORKSHOP, CASTLE, HILLS, HOUSE = (
    ("in a quiet forest", "at the edge of an old forest", "under the roots of a great oak"),
    ("in a wide green meadow", "near a field of clover", "behind the old mill"),
    ("by the sea", "in a blue bay", "near a tall lighthouse"),
    ("in a small town by the river", "in a crooked house by the harbour", "in a village between two hills"),
    ("in an old workshop", "in a tower full of gears", "at the back of a busy workshop"),
    ("in a castle on a hill", "in a stone tower", "at the end of a long road"),
    ("high in the hills", "on a windy mountain", "in a valley far away"),
    ("on a shelf in a warm kitchen", "in a house with a red door", "in the attic of an old house"),
)

HEROES: dict[str, tuple[str, ...]] = {
    "fox": FOREST, "bee": MEADOW, "robot": WORKSHOP, "machine": WORKSHOP, "dragon": HILLS, "cat": TOWN, "dog": TOWN,
    "mouse": HOUSE, "rabbit": MEADOW, "bear": FOREST, "owl": FOREST, "whale": SEA, "girl": TOWN, "boy": TOWN, "wolf": FOREST,
    "bird": MEADOW, "frog": MEADOW, "hedgehog": FOREST, "turtle": SEA, "elephant": HILLS, "lion": HILLS, "horse": MEADOW,
    "king": CASTLE, "queen": CASTLE, "princess": CASTLE, "prince": CASTLE, "knight": CASTLE, "wizard": CASTLE,
    "witch": FOREST, "pirate": SEA, "sailor": SEA, "fisherman": SEA, "baker": TOWN, "farmer": MEADOW, "teacher": TOWN,
    "child": TOWN, "computer": WORKSHOP, "clock": HOUSE, "teapot": HOUSE, "train": TOWN, "boat": SEA, "ship": SEA,
    "star": HILLS, "cloud": HILLS, "tree": FOREST, "snowman": TOWN, "lantern": HOUSE, "spider": HOUSE, "ant": MEADOW,
    "butterfly": MEADOW, "squirrel": FOREST, "penguin": SEA, "duck": MEADOW, "crow": HILLS, "monkey": FOREST, "goat": HILLS,
    "sheep": MEADOW, "cow": MEADOW, "pig": MEADOW, "fish": SEA, "crab": SEA, "giant": HILLS, "fairy": FOREST, "ghost": CASTLE,
    "unicorn": FOREST, "mermaid": SEA, "astronaut": HILLS, "painter": TOWN, "musician": TOWN, "gardener": MEADOW,
    "engine": WORKSHOP, "car": TOWN, "tractor": MEADOW, "rocket": WORKSHOP, "toaster": HOUSE, "chair": HOUSE, "book": HOUSE,
    "pencil": HOUSE, "kite": HILLS, "bicycle": TOWN, "badger": FOREST, "otter": SEA, "deer": FOREST, "snail": MEADOW,
    "beetle": MEADOW, "kitten": TOWN, "puppy": TOWN, "dinosaur": HILLS, "tiger": FOREST, "panda": FOREST, "octopus": SEA,
    "scientist": TOWN, "inventor": WORKSHOP, "programmer": TOWN, "doctor": TOWN, "soldier": CASTLE, "student": TOWN,
    "llama": HILLS, "camel": HILLS, "seal": SEA, "goose": MEADOW, "raven": HILLS, "mole": MEADOW, "bat": FOREST,
    "server": WORKSHOP, "calculator": WORKSHOP, "umbrella": HOUSE, "apple": MEADOW, "island": SEA, "old man": TOWN,
    "old woman": TOWN, "worker": WORKSHOP, "hive": MEADOW, "zeppelin": HILLS, "android": WORKSHOP, "parrot": SEA,
}  # fmt: skip

SHE_KINDS = frozenset(
    {"girl", "queen", "princess", "witch", "fairy", "mermaid", "old woman", "bee", "cow", "hive", "cat"}
)
HE_KINDS = frozenset({"boy", "king", "prince", "wizard", "fisherman", "old man", "knight", "snowman", "robot", "fox"})

PLURALS = {
    "wolf": "wolves", "mouse": "mice", "child": "children", "goose": "geese", "butterfly": "butterflies", "fairy": "fairies",
    "sheep": "sheep", "fish": "fish", "deer": "deer", "fisherman": "fishermen", "snowman": "snowmen", "puppy": "puppies",
    "old man": "old men", "old woman": "old women", "witch": "witches", "octopus": "octopuses", "fox": "foxes",
}  # fmt: skip

HELPERS = (
    "owl", "turtle", "mouse", "heron", "hedgehog", "gardener", "sailor", "goat", "bee", "baker", "crow", "snail", "lamplighter",
    "badger", "robot", "clockmaker",
)  # fmt: skip
HELPER_TRAITS = ("old", "wise", "friendly", "patient", "tired", "grey")

THEMES = (
    "friendship", "courage", "love", "the sea", "winter", "music", "hope", "the moon", "summer", "snow", "rain", "family",
    "kindness", "home", "time", "dreams", "the stars", "space", "autumn", "honesty", "patience", "war", "peace", "food",
    "Christmas", "school", "the night", "the forest", "a lost key", "two friends", "sharing", "luck", "work", "a storm",
    "the wind", "spring", "magic", "nature", "football", "coffee", "honey", "the future", "teamwork", "a journey", "money",
    "happiness", "being late", "learning to swim", "growing up", "cooking", "a secret", "a long winter", "the desert",
    "Paris", "Berlin", "bees and flowers", "mathematics", "computers", "science", "loneliness", "a small town", "fear", "rbee",
)  # fmt: skip

TREASURES = (
    "red kite",
    "silver bell",
    "blue scarf",
    "little lantern",
    "wooden whistle",
    "brass key",
    "old map",
    "green hat",
)

COMMON_WORDS = """
water air house year people way day man thing world life hand part place case week company system program question work
government number night point home water room mother area money fact month lot right study book eye job word business
issue side kind head service friend father power hour game line end member law car city community name president team minute
idea body information back parent face level office door health person art war history party result change morning reason
research girl guy moment teacher force education foot boy age policy music market sense nation plan college interest death
experience effect class control field development role effort rate heart drug show leader light voice wife police mind
price report decision son view relationship town road arm difference value building action season society tax director
position player record paper space ground form event official matter center couple site project activity star table need
court oil situation cost industry figure street image phone data picture practice piece land product doctor wall patient
worker news test movie north love step machine language password network memory weather recipe engine function variable
loop array string number server energy planet gravity protein atom equation matrix theorem capital country river mountain
population climate stock bank interest loan email letter poem essay song joke riddle summary article report review table
list code script query bug error file folder keyboard screen printer cheese bread pasta soup chicken coffee tea wine beer
football tennis chess guitar piano violin painting museum theatre cinema camera lens battery solar wind nuclear rocket
satellite telescope microscope virus bacteria vaccine medicine surgery muscle bone blood brain neuron sleep dream hotel
airport train ticket passport visa border island ocean desert jungle volcano earthquake tornado hurricane democracy
republic king queen empire revolution constitution treaty philosophy religion ethics logic grammar vocabulary dictionary
""".split()  # noqa: SIM905 - three hundred quoted words would be unreadable

FOREIGN = (
    "Was ist die Hauptstadt von Frankreich?", "Guten Tag, wie geht es Ihnen?", "Bitte schreibe ein Gedicht.",
    "Erkläre mir die Relativitätstheorie.", "Wie wird das Wetter morgen?", "Ich möchte einen Kuchen backen.",
    "¿Cuál es la capital de España?", "¿Cómo estás hoy?", "Necesito ayuda con mi ordenador.", "Écris un poème sur la mer.",
    "Quelle heure est-il ?", "Comment ça va aujourd'hui ?", "Qual è il senso della vita?", "Hoe laat is het?",
    "Jaka jest stolica Polski?", "Qual é a capital do Brasil?", "Vad heter du?", "Καλημέρα, τι κάνεις;", "Привет, как дела?",
    "Сколько будет два плюс два?", "你好", "你是谁?", "写一个故事", "今天天气怎么样?", "こんにちは", "日本の首都はどこですか",
    "안녕하세요", "مرحبا كيف حالك", "שלום מה שלומך", "नमस्ते आप कैसे हैं", "สวัสดี", "Teşekkürler, iyi günler", "🦊", "🐝🐝🐝", "👍",
    "🙂 hi 🙂", "Schreibe eine Geschichte über einen Fuchs.", "Écris une histoire.", "Escribe un cuento corto.",
)  # fmt: skip
