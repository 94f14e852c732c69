"""Dates in many spellings: what the model of this folder is trained and judged on.

A spelling is a combination of an order (with its separators) and a form for each part. Conventions where a spelling
is ambiguous: dots mean day.month.year, slashes month/day/year, two-digit years 69..99 are 19xx and 00..68 are 20xx.
"""

import datetime
import hashlib
import itertools
import random

MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December"]
WEEKDAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


def ordinal(n):
    suffix = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{suffix}"


DAY = {"plain": lambda d: str(d.day), "padded": lambda d: f"{d.day:02}", "ordinal": lambda d: ordinal(d.day)}
MONTH = {
    "full": lambda d: MONTHS[d.month - 1],
    "short": lambda d: MONTHS[d.month - 1][:3],
    "dotted": lambda d: MONTHS[d.month - 1][:3] + ".",
}
YEAR = {
    "full": lambda d: str(d.year),
    "quoted": lambda d: f"'{d.year % 100:02}",
    "two": lambda d: f"{d.year % 100:02}",
}
WEEKDAY = {
    "none": lambda d: "",
    "full": lambda d: WEEKDAYS[d.weekday()] + " ",
    "full comma": lambda d: WEEKDAYS[d.weekday()] + ", ",
    "short": lambda d: WEEKDAYS[d.weekday()][:3] + " ",
    "short comma": lambda d: WEEKDAYS[d.weekday()][:3] + ", ",
}
WORDED = ["{d} {m} {y}", "{d} {m}, {y}", "{m} {d}, {y}", "{m} {d} {y}", "{d} of {m} {y}", "{d} of {m}, {y}", "the {d} of {m} {y}",
          "the {d} of {m}, {y}", "{m} the {d}, {y}", "{d}-{m}-{y}", "{y} {m} {d}", "{y}, {m} {d}", "{d}/{m}/{y}"]
NUMERIC = ["{d:02}.{m:02}.{Y}", "{d}.{m}.{Y}", "{d}.{m}.{y:02}", "{m}/{d}/{Y}", "{m:02}/{d:02}/{Y}", "{m}/{d}/{y:02}", "{Y}-{m:02}-{d:02}",
           "{Y}/{m:02}/{d:02}", "{Y}.{m:02}.{d:02}", "{Y}{m:02}{d:02}"]


def spellings():
    """All combinations, as (key, function of a date)."""
    for order, day, month, year, weekday in itertools.product(WORDED, DAY, MONTH, YEAR, WEEKDAY):
        if order.startswith("{y}") and year != "full":
            continue

        def spell(date, order=order, day=day, month=month, year=year, weekday=weekday):
            text = order.format(d=DAY[day](date), m=MONTH[month](date), y=YEAR[year](date))
            return WEEKDAY[weekday](date) + text

        yield f"{order}|{day}|{month}|{year}|{weekday}", spell
    for order, weekday in itertools.product(NUMERIC, WEEKDAY):

        def spell(date, order=order, weekday=weekday):
            return WEEKDAY[weekday](date) + order.format(d=date.day, m=date.month, Y=date.year, y=date.year % 100)

        yield f"{order}|{weekday}", spell


def is_held_out(key):
    """One worded spelling in ten is never trained on."""
    return key.count("|") == 4 and hashlib.sha256(key.encode()).digest()[0] < 26


def random_date(rng, two_digit_years):
    first, last = (1969, 2068) if two_digit_years else (1900, 2099)
    start = datetime.date(first, 1, 1).toordinal()
    return datetime.date.fromordinal(rng.randint(start, datetime.date(last, 12, 31).toordinal()))


def samples(rng, spelling_list, count):
    """(text, ISO date) pairs; the tokenizer ignores case, so the text keeps it."""
    result = []
    for _ in range(count):
        key, spell = rng.choice(spelling_list)
        two = "|two|" in key or "|quoted|" in key or "{y:02}" in key
        date = random_date(rng, two)
        result.append((spell(date), date.isoformat()))
    return result


def split():
    everything = list(spellings())
    train = [s for s in everything if not is_held_out(s[0])]
    held_out = [s for s in everything if is_held_out(s[0])]
    # Numeric spellings are few and far from the worded ones: give them their weight.
    train += [s for s in train if s[0].count("|") == 1] * 8
    return train, held_out


if __name__ == "__main__":
    rng = random.Random(0)
    for text, iso in samples(rng, split()[1], 10):
        print(f"{iso}\t{text}")
