"""Dates as people write them, in many languages, and as ISO 8601 writes them: the data that need no download."""

import datetime
import random

# Where the order of day and month could be mistaken the month is a word.
LANGUAGES = {"en": ("medium", "long", "full"), "en_GB": ("medium", "long", "full"), "de": ("medium", "long", "full"),
             "fr": ("medium", "long", "full"), "es": ("medium", "long", "full"), "it": ("long", "full"),
             "pt": ("long", "full"), "nl": ("long", "full"), "sv": ("long", "full"), "pl": ("long", "full"),
             "ru": ("long", "full"), "ja": ("medium", "long", "full"), "zh": ("long", "full")}
FIRST, LAST = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
NUM_PAIRS = 24_000


def generate(count=NUM_PAIRS, seed=0):
    """Pairs (a date in some language and style, the same as YYYY-MM-DD), all different.

    Days are drawn evenly over two centuries, so most days of the test were never seen in training, and no text was.

    Raises:
        ValueError: Babel is not installed.
    """
    try:
        from babel.dates import format_date
    except ImportError:
        raise ValueError("--data=dates needs the package babel, which is not installed. Install usagi-suite[nlp], or "
                         "give data of your own with --data=tsv.") from None
    chance, pairs = random.Random(seed), {}
    days = (LAST - FIRST).days + 1
    while len(pairs) < count:
        date = FIRST + datetime.timedelta(chance.randrange(days))
        language = chance.choice(sorted(LANGUAGES))
        style = chance.choice(LANGUAGES[language])
        text = format_date(date, style, locale=language).replace("\u202f", " ").replace("\xa0", " ")
        if chance.random() < 0.2:
            text = text.lower()
        pairs[text] = date.isoformat()
    return list(pairs.items())
