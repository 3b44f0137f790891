"""How people word what they want where it is evaluated: no frame, phrase or synonym of the training is among them."""

from recloop.encoders.instruction.facts import ALIKE, DECADE, TITLE, WORDS, YEAR
from recloop.encoders.instruction.phrases import PhraseBook

_DECADES = range(1920, 2000, 10)

SPOKEN = PhraseBook(
    frames=(
        "I'm in the mood for {}",
        "could you suggest {}",
        "tonight we would like to watch {}",
        "do you have {} for me?",
        "looking for {}",
    ),
    nouns={"film": ("picture", "feature", "motion picture"), "": ("article", "product")},
    before={"genre": ("really {}", "rather {}"), "language": ("{} spoken",)},
    after={
        "category": ("out of {}",),
        "director": ("that {} directed", "where {} was behind the camera", "by the maker {}"),
        "actor": ("featuring {}", "in which {} plays", "that has {} in the cast"),
        "writer": ("scripted by {}", "from the pen of {}"),
        "country": ("made in {}", "that comes from {}"),
        YEAR: ("released in {}", "that came out in {}"),
        DECADE: ("made {}", "that was shot {}"),
    },
    other=("having {value} as its {kind}", "where the {kind} is {value}"),
    whole={
        TITLE: ("the {noun} called {}", "that one {noun} named {}"),
        ALIKE: ("anything in the vein of {}", "what people who enjoyed {} also enjoy"),
        WORDS: ("a story in which these come up: {}", "a {noun} that deals with {}"),
    },
    synonyms={
        "Comedy": ("hilarious", "laugh-out-loud", "amusing"),
        "Horror": ("terrifying", "spine-chilling", "creepy"),
        "Drama": ("moving", "emotional"),
        "Action": ("explosive", "fast-paced"),
        "Thriller": ("nail-biting", "tense"),
        "Romance": ("heart-warming love-story", "passionate"),
        "Science Fiction": ("futuristic", "spaceship and alien"),
        "Family": ("kid-friendly", "suitable-for-all-ages"),
        "Animation": ("hand-drawn", "Disney-like drawn"),
        "Crime": ("mafia", "bank-robber"),
        "Adventure": ("swashbuckling", "treasure-hunting"),
        "Fantasy": ("fairy-tale", "wizardly"),
        "War": ("battlefield", "combat"),
        "Western": ("gunslinger", "wild-west"),
        "Music": ("song-filled", "singing and dancing"),
        "Mystery": ("whodunit", "puzzling"),
        "History": ("period", "true-to-the-past"),
        "Documentary": ("fact-based", "real-life reportage"),
        "Foreign": ("overseas", "non-American"),
        **{f"{year}s": (f"between {year} and {year + 9}", f"in the '{year % 100}s") for year in _DECADES},
    },
)
"""What simulated users speak by, and what held-out instructions are worded by."""
