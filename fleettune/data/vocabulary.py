"""Words of the built-in world: slots, registers, moods and the things that users ask.

Part of the world's digest (`fleettune.data.personas.WORLD_VERSION`): the pocket model was trained
on these words, so a change here changes every figure and needs a retrained model.
"""

from __future__ import annotations

from dataclasses import dataclass

SLOTS: dict[str, tuple[str, ...]] = {
    "name": tuple(
        "Ana Bo Carl Dina Ed Fay Gus Hana Ivo Jo Kim Lea Max Nora Omar Pia Quin Rosa Sam Tia "
        "Uma Vic Wes Yan Zoe Adam Bea Cleo Dan Eva Finn Gwen Hugo Ines Jack Kara Leo Mia Nils "
        "Olga".split()
    ),
    "food": tuple(
        "sushi pizza curry ramen tacos salad pasta dumplings falafel soup paella burgers kimchi "
        "lasagna risotto pho noodles pancakes waffles stew".split()
    ),
    "drink": tuple("coffee tea cocoa juice water cola milk lemonade cider kombucha".split()),
    "city": tuple(
        "Oslo Lima Rome Cairo Tokyo Paris Delhi Quito Berlin Madrid Lisbon Prague Seoul Accra "
        "Dublin Vienna Athens Havana Nairobi Boston".split()
    ),
    "vehicle": tuple("bus train tram bike ferry car scooter metro".split()),
    "pet": tuple("cat dog parrot hamster rabbit turtle goldfish lizard pony ferret".split()),
    "sport": tuple("running cycling rowing yoga boxing tennis judo swimming golf squash".split()),
    "hobby": tuple(
        "hiking chess painting baking sailing climbing knitting fishing reading dancing skiing "
        "surfing gaming gardening".split()
    ),
    "music": tuple("jazz rock opera techno folk blues soul metal disco reggae".split()),
    "job": tuple(
        "nurse teacher pilot baker farmer lawyer driver chef painter coder doctor singer".split()
    ),
    "color": tuple("red blue green black white yellow purple orange pink brown".split()),
    "time": tuple("six seven eight nine ten eleven".split()),
    "day": tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()),
}
"""What can differ between two users as a fact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Something that users ask for.

    Attributes:
        domain: What it is about.
        phrases: Paraphrases of the same request.
        register: The same term in four levels of expertise, simple to expert.
        core: The answer at the lowest level of informativeness.
        details: Three clauses; level n of informativeness, 0 to 3, appends the first n.
    """

    domain: str
    phrases: tuple[str, ...]
    register: tuple[str, str, str, str]
    core: str
    details: tuple[str, str, str]


def _ask(domain: str, phrases: str, register: str, core: str, details: tuple[str, str, str]) -> Ask:
    first, second, third, fourth = register.split("|")
    return Ask(
        domain=domain,
        phrases=tuple(phrases.split("|")),
        register=(first, second, third, fourth),
        core=core,
        details=details,
    )


ASKS: tuple[Ask, ...] = (
    _ask(
        "food",
        "what should i eat tonight?|any idea for my dinner?|pick a meal for me",
        "meal|dish|menu choice|nutrition option",
        "a good {term} is {food}",
        (" with {drink}", " at {time}", " near {city}"),
    ),
    _ask(
        "food",
        "get me something to drink|i am thirsty|order a drink",
        "drink|beverage|liquid refreshment|fluid intake",
        "your {term} is {drink}",
        (" after {food}", " at {time}", " on {day}"),
    ),
    _ask(
        "food",
        "make a shopping list|what do we need to buy?|plan my groceries",
        "list|shopping list|purchase list|procurement plan",
        "your {term} has {food}",
        (" and {drink}", " for {day}", " and {pet} food"),
    ),
    _ask(
        "home",
        "set my alarm|wake me up|when do i get up?",
        "bell|alarm|wake timer|alarm schedule",
        "the {term} is set for {time}",
        (" on {day}", " with {music}", " in {color}"),
    ),
    _ask(
        "home",
        "pick a theme for my phone|change my screen|make my phone nice",
        "look|theme|color scheme|display profile",
        "the {term} is {color}",
        (" with a {pet}", " until {day}", " from {time}"),
    ),
    _ask(
        "home",
        "remind me of my pet|feed my pet|who is hungry at home?",
        "note|reminder|care reminder|feeding schedule",
        "a {term} for your {pet}",
        (" at {time}", " on {day}", " and water"),
    ),
    _ask(
        "travel",
        "what is the weather where i live?|will it rain here?|do i need a coat?",
        "sky|weather|forecast|meteorology report",
        "the {term} for {city}",
        (" on {day}", " at {time}", " by {vehicle}"),
    ),
    _ask(
        "travel",
        "how do i get to work?|find my way|when do i leave?",
        "way|route|connection|transit itinerary",
        "your {term} is by {vehicle}",
        (" at {time}", " through {city}", " with {music}"),
    ),
    _ask(
        "travel",
        "book a trip|i need a holiday|take me away",
        "trip|journey|travel plan|travel arrangement",
        "a {term} from {city}",
        (" by {vehicle}", " on {day}", " for {hobby}"),
    ),
    _ask(
        "health",
        "plan my workout|i want to move|what exercise today?",
        "workout|training|exercise plan|conditioning protocol",
        "your {term} is {sport}",
        (" on {day}", " at {time}", " then {drink}"),
    ),
    _ask(
        "health",
        "i can not sleep|help me rest|when should i go to bed?",
        "nap|sleep|night rest|sleep hygiene",
        "for {term} try {drink}",
        (" at {time}", " and {music}", " no {sport}"),
    ),
    _ask(
        "leisure",
        "plan my weekend|what can i do for fun?|i am bored",
        "fun|free time|leisure plan|recreation programme",
        "for {term} go {hobby}",
        (" near {city}", " on {day}", " by {vehicle}"),
    ),
    _ask(
        "leisure",
        "play some music|put on a song|i want to listen",
        "song|music|playlist|audio selection",
        "the {term} is {music}",
        (" for {hobby}", " at {time}", " until {day}"),
    ),
    _ask(
        "leisure",
        "suggest a video|what can i watch?|find me a film",
        "film|video|feature film|cinematic work",
        "a {term} about {hobby}",
        (" in {city}", " with a {pet}", " at {time}"),
    ),
    _ask(
        "work",
        "what is on my work list?|show my tasks|what do i have to do?",
        "work|task list|task overview|work breakdown",
        "the {term} of a {job}",
        (" for {day}", " from {time}", " in {city}"),
    ),
    _ask(
        "work",
        "move my meeting|when is my meeting?|plan the call",
        "talk|meeting|appointment|stakeholder session",
        "your {term} is on {day}",
        (" at {time}", " in {city}", " with {drink}"),
    ),
    _ask(
        "work",
        "write a mail to my boss|answer the mail|tell them i am late",
        "mail|message|written reply|formal correspondence",
        "a {term} from {name}",
        (" the {job}", " at {time}", " by {vehicle}"),
    ),
)
"""Seventeen requests in six domains; the seventh domain is the mood check-in."""

TONES: tuple[tuple[str, str], ...] = (
    ("", "."),
    ("ok, ", "."),
    ("sure, {name}, ", "!"),
    ("with pleasure, dear {name}, ", "! enjoy!"),
)
"""Prefix and suffix of an answer in four levels of warmth."""

REQUESTS: dict[str, tuple[str, str, str, str]] = {
    "tone": ("curtly", "plainly", "kindly", "warmly"),
    "informativeness": ("briefly", "shortly", "fully", "at length"),
    "expertise": ("simply", "normally", "precisely", "expertly"),
}
"""How a request asks for one level of one style axis: ``answer warmly: ...``."""

GREETINGS: tuple[str, ...] = ("", "hey ", "please ", "hi, ", "ok ")

MOODS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    (
        "joy",
        ("happy", "sunny", "great", "bright"),
        ("i won the game", "my friends came by", "the day was lovely", "i got good news"),
    ),
    (
        "calm",
        ("calm", "mellow", "easy", "quiet"),
        ("i read all evening", "the house is still", "i had a slow day", "i sat by the lake"),
    ),
    (
        "sadness",
        ("sad", "blue", "low", "heavy"),
        ("i miss my sister", "nobody called", "my plant died", "it is grey outside"),
    ),
    (
        "anger",
        ("angry", "cross", "hot", "mad"),
        ("they lied to me", "the shop was rude", "my phone broke", "he was late again"),
    ),
    (
        "fear",
        ("afraid", "shaky", "tense", "uneasy"),
        ("the exam is close", "i heard a noise", "i lost my keys", "the plane shook"),
    ),
    (
        "tired",
        ("tired", "flat", "worn", "sleepy"),
        ("i slept badly", "work was long", "the baby cried", "i ran too far"),
    ),
)
"""Mood, the words that users may call it, and the clauses that tell of it."""

VENDOR_ADDRESS = "assistant, "
"""How every question of the vendor's new wording opens, so that a question tells which wording its
answer has. Without it a release would unlearn the old wording, and retuning would win by
relearning that, without any person in the world.
"""
VENDOR_QUESTIONS: tuple[tuple[str, str], ...] = (
    ("what", "which thing"),
    ("my", "our"),
    (" i ", " we "),
    ("me", "us"),
)
VENDOR_ANSWERS: tuple[tuple[str, str], ...] = (
    ("your", "the client's"),
    ("for", "regarding"),
    (" is ", " shall be "),
    (" a ", " one "),
    ("with", "alongside"),
)
"""What a vendor's new wording replaces; a release's corpus holds a share of it."""
