"""The plots: each is a small arc of beats - want, obstacle, help, resolution - with several wordings per beat.

Slots, filled by `grammar`: {n} the hero's name, {he} {his} {him} {himself} {He} {His} the pronouns, {k} the hero's kind,
{a_helper} and {helper} and {Helper} the one who helps, {place} a setting, {a_thing} and {thing} something dear. Every
combination of wordings must read well: a beat may count on the beats before it, never on their wording.
"""

from typing import Final

Beat = tuple[str, ...]
Plot = tuple[Beat, ...]

SUNRISE: Final[Plot] = (
    (
        "More than anything, {n} wanted to see the sun rise from the top of the tall hill.",
        "Every evening {n} looked up at the tall hill and wondered what the morning looked like from there.",
    ),
    (
        "One night {he} set out alone, but half way up a thick fog hid every stone of the path.",
        "So {he} started to climb, but soon a cold fog came down and hid the path.",
    ),
    (
        '{n} sat down and felt very small. Then {a_helper} came out of the fog. "Follow my voice," said the {helper}, "one step '
        'at a time."',
        '"I am lost," said {n}. "No," said a voice, "you are only tired." It was {a_helper}, who knew every step of the hill.',
    ),
    (
        "Step by step they climbed, until the fog lay below them like a white sea. Then the sun rose, and the whole valley "
        "turned to gold.",
        "Together they walked on, slowly and carefully. At the top the sky turned pink, then gold, and the sun came up.",
    ),
)
LOST_THING: Final[Plot] = (
    (
        "{His} dearest treasure was {a_thing}, and {he} took it everywhere.",
        "{n} owned only one thing, {a_thing}, and {he} loved it very much.",
    ),
    (
        "But one windy morning the {thing} was gone. {n} looked under the bridge and behind the mill, and found nothing.",
        "One morning {he} woke up and the {thing} was gone. {He} searched all day, but nobody had seen it.",
    ),
    (
        'On the way home {n} met {a_helper}. "I saw something shine by the river," said the {helper}. "Come, I will show you."',
        '"Do not give up," said {a_helper} who was passing by. "Two can look better than one."',
    ),
    (
        "They followed the water until the evening, and there, between two stones, lay the {thing}. {n} laughed out loud.",
        "They looked in every corner, and at last they found the {thing} in the branches of a tree. {n} danced for joy.",
    ),
)
BRIDGE: Final[Plot] = (
    (
        "Every Sunday {n} crossed the old bridge to visit a friend on the other side of the river.",
        "{n} had a good friend on the other side of the river, and every week {he} crossed the old bridge.",
    ),
    (
        "Then a great storm came and carried the bridge away.",
        "But one night it rained so hard that the bridge broke and was gone.",
    ),
    (
        '"I will build a new one," said {n}, but every stone was too heavy. {A_helper} watched for a while and said, "Let me '
        'hold the other end."',
        "{n} tried to build a new one alone, but the river was too strong. Then {a_helper} came with a long rope and began to help.",
    ),
    (
        "They worked from morning to night, and others came to help. After three days the new bridge stood, and it was "
        "stronger than the old one.",
        "Stone by stone they worked, and on the third day the last one was in its place. The first to cross was {n}, and {his} "
        "friend was waiting.",
    ),
)
DARK: Final[Plot] = (
    (
        "{n} was not afraid of anything, except the dark.",
        "By day {n} was happy, but at night {he} was afraid of the dark.",
    ),
    (
        "One evening {he} stayed out too long, and suddenly the last light was gone.",
        "One night the wind blew out the only lamp, and everything was black.",
    ),
    (
        'Then {a_helper} sat down beside {him} and asked, "Why do you close your eyes? Look up."',
        '"Do not be afraid," said {a_helper}. "The dark has something to show you. Look up."',
    ),
    (
        "{n} looked up slowly. There were more stars than {he} could count, and one of them seemed to shine only for {him}.",
        "Above them were a thousand stars, bright and quiet. {n} had never seen anything so beautiful.",
    ),
)
SONG: Final[Plot] = (
    (
        "{n} loved to sing, but {his} voice was so quiet that nobody ever heard it.",
        "Every day {n} made up a new song, but {he} was too shy to sing it to anyone.",
    ),
    (
        "When the summer festival came, {he} stood in front of everyone, and not a single note came out.",
        "On the day of the festival {he} opened {his} mouth, and everybody was talking and laughing.",
    ),
    (
        '"Sing it to me," said {a_helper} in the first row, and closed both eyes to listen.',
        "But {a_helper} came closer and began to hum along, softly at first.",
    ),
    (
        "So {n} sang. One by one the others grew quiet, and in the end they all sang together until the moon came up.",
        "{n} took a deep breath and sang. The whole place fell silent, and when the song was over everyone asked for another.",
    ),
)
SOUP: Final[Plot] = (
    (
        "The winter was long, and one day {n} had only a single carrot left.",
        "It was the coldest winter in years, and {n} had almost nothing left to eat.",
    ),
    (
        "Outside the snow was deep, and the wind cried around the corners.",
        "{He} looked out at the snow and wondered how long it would last.",
    ),
    (
        'Then there was a knock. It was {a_helper}, cold and hungry. "Come in," said {n}. "Half of a little is still something."',
        'Someone knocked at the door. It was {a_helper} with one small onion. "Together we have a soup," said {n}.',
    ),
    (
        "Soon the others came too, each with something small, and the pot grew full. That night nobody was hungry.",
        "The smell of the soup brought all the neighbours, and each of them added something. There was enough for everyone.",
    ),
)
SEED: Final[Plot] = (
    (
        "One spring {n} found a strange seed and planted it with great care.",
        "One day {n} was given a tiny seed, and {he} put it into the ground at once.",
    ),
    (
        "{He} watered it every morning, but nothing happened, and the others laughed at {him}.",
        "Day after day {he} waited, but the earth stayed brown and bare.",
    ),
    (
        '"It is asleep," said {a_helper}. "Good things take their time. Tell it a story while you wait."',
        'Only {a_helper} did not laugh. "Wait a little longer," said the {helper}. "It is listening to you."',
    ),
    (
        "So {n} told it a story every evening. And one morning there it was, a flower as blue as the sky, taller than the fence.",
        "{n} waited and was patient. Then, after a night of warm rain, a golden flower opened, and everyone came to see it.",
    ),
)
LIGHTHOUSE: Final[Plot] = (
    (
        "From the window {n} could see the lighthouse, and every night its lamp told the ships the way home.",
        "Every night {n} watched the light of the old lighthouse go round and round.",
    ),
    (
        "One stormy night the lamp went out, and far away a ship blew its horn.",
        "But one night, in the middle of a storm, the light was gone, and a ship was coming closer to the rocks.",
    ),
    (
        '{n} ran up all the stairs and found {a_helper} there, who had no oil left. "We need another light," said the {helper}.',
        "{n} did not wait. {He} called {a_helper}, and together they carried every lamp they could find up the stairs.",
    ),
    (
        "They put a hundred candles in the window, and the ship turned just in time. In the morning the whole crew came to "
        "say thank you.",
        "The light was small, but it was enough. The ship found its way, and everyone on board was safe.",
    ),
)
RACE: Final[Plot] = (
    (
        "All year {n} had trained for the great race around the lake.",
        "{n} wanted to win the great race, and {he} practised every single day.",
    ),
    (
        "On the day of the race {he} was faster than all the others, and the finish was already in sight.",
        "When the race began {he} was soon far ahead, and nobody could catch {him}.",
    ),
    (
        "Then {he} saw {a_helper} who had fallen and could not get up. {n} stopped, turned around and went back.",
        'But by the road sat {a_helper} with a hurt foot. "Run on," said the {helper}. {n} shook {his} head and stopped.',
    ),
    (
        "Arm in arm they came in last, and yet the cheering was louder for them than for anyone else.",
        "They crossed the line together, long after the others. {n} did not win the cup, but {he} won a friend.",
    ),
)
NOISE: Final[Plot] = (
    (
        "One night {n} was woken by a strange noise, a long and sad sound behind the wall.",
        "For three nights {n} heard a strange noise, like somebody crying far away.",
    ),
    (
        '"It must be a monster," everyone said, and they locked their doors.',
        "Nobody dared to look, and the others said that it was a monster.",
    ),
    (
        "But {n} took a lamp and went to see. There was no monster. There was only {a_helper}, all alone, with nobody to talk to.",
        "{n} was afraid too, but {he} went out with a lamp. Behind the last tree sat {a_helper}, lost and far from home.",
    ),
    (
        'They sat down together, and {n} shared {his} bread. "You can stay with us," {he} said, and the noise was never heard '
        "again.",
        '"Come with me," said {n}, and made some hot tea. They talked until the sun came up, and the sad noise was gone.',
    ),
)
LETTER: Final[Plot] = (
    (
        "One morning {n} found a letter that said only: to the one who is alone.",
        "One day the wind brought {n} a letter, and there was no name on it.",
    ),
    (
        "{He} carried it from door to door, but nobody wanted to say that it was meant for them.",
        "{He} asked everyone in the village, but the letter belonged to nobody.",
    ),
    (
        "At the very last house lived {a_helper} who had not had a visitor in years.",
        "At the end of the road {he} met {a_helper}, who was sitting all alone on a bench.",
    ),
    (
        '"It is for you," said {n}, and the {helper} read it twice and smiled. Inside were only four words: come and have tea.',
        '"I think it is yours," said {n}. They opened it together, and inside it said: you are not alone any more.',
    ),
)
CAFE: Final[Plot] = (
    (
        "One day {n} opened a tiny café with three chairs and one table.",
        "{n} dreamed of a little café, and one spring {he} opened the door for the first time.",
    ),
    (
        "{He} baked and cooked all day, but nobody came — not one guest in a whole week.",
        "The cakes were sweet and the tea was hot, but the chairs stayed empty.",
    ),
    (
        "Then {a_helper} came in from the rain and asked for a bowl of soup. {n} gave it away for free.",
        "On a rainy evening {a_helper} looked in, wet and tired, and {n} brought a blanket and a piece of cake.",
    ),
    (
        "The {helper} told everyone about it, and the next day there was a line in front of the door. {n} had to borrow more "
        "chairs.",
        "The next morning the {helper} came back with ten friends, and from then on the café was full of laughter.",
    ),
)
VOYAGE: Final[Plot] = (
    (
        "{n} had always wanted to know what lay on the other side of the water.",
        "Every day {n} looked at the water and dreamed of a far island.",
    ),
    (
        "So {he} built a raft and sailed away, but on the second day a wave broke the sail.",
        "One morning {he} set sail in a little boat, but soon the wind died and the boat stood still.",
    ),
    (
        '"Where are you going?" asked {a_helper} on a passing boat. "I do not know yet," said {n}, and they both had to laugh.',
        "Just then {n} heard a friendly voice. It was {a_helper}, who threw {him} a rope.",
    ),
    (
        "They sailed on together and found an island full of birds and sweet fruit. But the best thing about it was to tell "
        "everyone at home.",
        "Side by side they reached the island at sunset. It was small and green, and it was just as {n} had dreamed.",
    ),
)
TOGETHER: Final[Plot] = (
    (
        "There was more work than {n} could ever do alone, and it grew every day.",
        "One day a huge stone fell on the road, and {n} wanted to move it.",
    ),
    (
        "{He} pushed and pulled from morning to night, but in the evening nothing had changed.",
        "{He} tried once, {he} tried twice, and {he} tried a hundred times. It was just too much.",
    ),
    (
        '"You are strong," said {a_helper}, "but you are only one. Look how the bees do it."',
        'Then {a_helper} said, "Why do you not ask us? Each of us is small, but there are many of us."',
    ),
    (
        "So {n} asked all the neighbours, and everyone took a little part. By noon the work was done, and they sat in the "
        "shade and sang.",
        "One after another they all came to help, and what was too heavy for one was light for many. Before sunset it was done.",
    ),
)

PLOTS: Final[tuple[Plot, ...]] = (
    SUNRISE, LOST_THING, BRIDGE, DARK, SONG, SOUP, SEED, LIGHTHOUSE, RACE, NOISE, LETTER, CAFE, VOYAGE, TOGETHER,
)  # fmt: skip

OPENINGS: Final[Beat] = (
    "Once upon a time there was {a_hero} named {n}, who lived {place}.",
    "Once upon a time, {a_hero} named {n} lived {place}.",
    "Once upon a time, {place}, there lived {a_hero} named {n}.",
    "Long ago, {place}, there lived {a_hero} whose name was {n}.",
    "{Place} there lived {a_hero} named {n}.",
    "There once was {a_hero} called {n}, who lived {place}.",
)
THEME_OPENING: Final = "This is a story about {theme}."
ENDINGS: Final[Beat] = (
    "From that day on, {n} and the {helper} were the best of friends.",
    "And {n} never felt alone again.",
    "{n} never forgot that day, and neither did the {helper}.",
    'That night {n} smiled and thought, "It is good to have a friend."',
    "And if you listen on a quiet night, you can still hear {n} tell the story.",
)
THEME_ENDING: Final = "And whenever {n} thought of {theme}, {he} smiled."
BEDTIME_ENDINGS: Final[Beat] = (
    "Then {n} closed {his} eyes and fell asleep. Good night.",
    "That night {n} slept soundly, and the moon kept watch. Good night.",
)
