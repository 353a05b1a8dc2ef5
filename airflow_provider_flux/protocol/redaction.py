"""Taking the key out of what a gateway says, in whatever spelling it repeats it there.

A gateway that refuses a key tends to quote it, and what it says ends up in logs, errors and XComs. On its way the key
may have been written as JSON, as a URL, as HTML or as somebody's ``repr``, also one inside the other.
"""

from __future__ import annotations

import base64
import bisect
import functools
import html.entities
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

SHORTEST_HIDDEN_KEY = 8
"""Characters. A shorter key is no secret, and could be part of any word."""

HIDDEN = "***"

# Each repetition is bounded, so that no text makes the search take longer than in proportion to its length.
_BACKSLASH = r"(?:\\(?:u005c|x5c|134)?|%(?:25){0,4}(?:u00)?5c|&(?:amp;){0,4}(?:#0{0,6}92|#x0{0,6}5c|bsol);){1,8}"
_PERCENT = r"(?:%|\\{1,8}(?:u0025|x25|045)|&(?:amp;){0,4}(?:#0{0,6}37|#x0{0,6}25|percnt);)(?:25){0,4}"
_AMPERSAND = r"(?:&|\\{1,8}(?:u0026|x26|046)|%(?:25){0,4}(?:u00)?26)(?:amp;|#0{0,6}38;|#x0{0,6}26;){0,4}"

_ESCAPE = re.compile(
    r"\\{1,8}(?:u(?:0000)?00(?P<u>[0-9a-f]{2})|u\{0{0,6}(?P<b>[0-9a-f]{1,2})\}|x(?P<x>[0-9a-f]{2})|(?P<o>[01][0-7]{2})"
    r"|(?P<s>[^\w\s\\]))"
    r"|%(?:25){0,4}(?:u00)?(?P<p>[0-9a-f]{2})"
    r"|&(?:amp;){0,4}#(?:0{0,6}(?P<d>[0-9]{1,3})|x0{0,6}(?P<h>[0-9a-f]{1,2}));?",
    re.IGNORECASE,
)

NESTED = 3
"""How many spellings of a spelling are undone, besides the two that are looked for as they are."""

MOST_NESTED = 50
"""Times that the key is taken out of such a text. One that holds it more often than that is not shown at all."""

LARGEST_SEARCHED = 512 * 1024
"""Characters of a text in which every form is looked for, the most common ones in all of it: what people are shown is
at the beginning, and a gateway could hold up the triggerer's loop with a text that is all escapes."""

LARGEST_NESTED = 128 * 1024
"""Characters of a text in which a spelling of a spelling of a spelling is looked for. That takes a step for each."""

_STANDS_FOR = {"+": " ", "-": "+", "_": "/"}
"""A form's plus comes back as a space, and base64 has two alphabets."""


def hide(text: str, key: str) -> str:
    """Return a text without the key."""
    return hider(key)(text)


@functools.lru_cache(maxsize=64)
def hider(key: str) -> Callable[[str], str]:
    """Return what takes a key out of a text."""
    if len(key) < SHORTEST_HIDDEN_KEY:
        return str
    needles = [_needle(spelling) for spelling in _spellings(key)]
    common = {key, json.dumps(key)[1:-1], key.replace("/", "\\/"), quote(key), quote(key, safe="")}

    def hide_in(text: str) -> str:
        head, rest = text[:LARGEST_SEARCHED], text[LARGEST_SEARCHED:]
        text = _hide_nested(_hide_plain(head, needles), needles) + rest
        for spelling in common if rest else ():
            text = text.replace(spelling, HIDDEN)
        return text

    return hide_in


@dataclass(frozen=True, slots=True)
class _Needle:
    """One spelling of the key, to be found in every escaped form.

    :param core: its longest part of letters and digits. Few escape these; where they are escaped, they are found once
        the text is read. Looking for it first is what makes looking for the whole affordable in each answer.
    """

    spelling: str
    core: str

    @property
    def whole(self) -> re.Pattern[str]:
        """What finds all of it. Making that takes longer than a poll, and most answers do not name the key."""
        return _pattern(self.spelling)


def _hide_plain(text: str, needles: Sequence[_Needle]) -> str:
    for needle in needles:
        if needle.core in text.lower():
            text = needle.whole.sub(HIDDEN, text)
    return text


def _hide_nested(text: str, needles: Sequence[_Needle]) -> str:
    """Look for the key in what a text stands for, too, and take out the place from which it comes."""
    if len(text) > LARGEST_NESTED or _ESCAPE.search(text) is None:
        return text
    for _ in range(MOST_NESTED):
        span = _nested_span(text, needles)
        if span is None:
            return text
        text = f"{text[: span[0]]}{HIDDEN}{text[span[1] :]}"
    return HIDDEN


def _nested_span(text: str, needles: Sequence[_Needle]) -> tuple[int, int] | None:
    read, places = text, []
    for _ in range(NESTED):
        read, place = _read(read)
        places.append(place)
        lower = read.lower()
        for needle in needles:
            found = needle.whole.search(read) if needle.core in lower else None
            if found is not None:
                start, end = found.span()
                for come_from in reversed(places):
                    start, end = come_from(start), come_from(end)
                return start, end
    return None


def _read(text: str) -> tuple[str, Callable[[int], int]]:
    """Undo one escape everywhere. Return what is read then, and what tells from where in the text a place of it is."""
    pieces: list[str] = []
    read_at, came_from = [0], [0]
    length = end = 0
    for found in _ESCAPE.finditer(text):
        kind = found.lastgroup or ""
        character = found[kind] if kind == "s" else chr(int(found[kind], {"d": 10, "o": 8}.get(kind, 16)))
        pieces += (text[end : found.start()], character)
        length, end = length + found.start() - end + 1, found.end()
        # Behind the character the text goes on at the end of its escape; before it, at the beginning.
        read_at += (length - 1, length)
        came_from += (found.start(), end)
    pieces.append(text[end:])

    def place(position: int) -> int:
        nearest = bisect.bisect_right(read_at, position) - 1
        return came_from[nearest] + position - read_at[nearest]

    return "".join(pieces), place


def _spellings(key: str) -> list[str]:
    """Return the key, and its base64 wherever in a text of three-byte groups it begins, as in Basic authentication."""
    spellings = [key]
    raw = key.encode()
    for before, mixed in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.urlsafe_b64encode(bytes(before) + raw).decode()
        spellings.append(encoded[mixed : (before + len(raw)) * 8 // 6])
    return spellings


def _needle(spelling: str) -> _Needle:
    core = max(re.findall(r"[A-Za-z0-9]+", spelling) or [spelling[:1]], key=len)
    return _Needle(spelling, core.lower())


@functools.lru_cache(maxsize=256)
def _pattern(spelling: str) -> re.Pattern[str]:
    return re.compile("".join(map(_forms, spelling)), re.IGNORECASE)


@functools.lru_cache(maxsize=256)
def _forms(character: str) -> str:
    """Return a regular expression for one character in every form in which it may be written."""
    code = ord(character)
    plain = re.escape(character)
    named = "|".join(re.escape(name.rstrip(";")) for name in _entity_names().get(character, ()))
    # The longest first: a percent sign is also the beginning of its own escape.
    forms = [
        rf"{_BACKSLASH}(?:u00{code:02x}|u\{{0{{0,6}}{code:x}\}}|u000000{code:02x}|x{code:02x}|{code:03o})",
        rf"{_PERCENT}(?:u00)?{code:02x}",
        rf"{_AMPERSAND}(?:#0{{0,6}}{code}|#x0{{0,6}}{code:x}{f'|{named}' if named else ''});?",
    ]
    if not character.isalnum():
        forms.append(rf"{_BACKSLASH}{plain}")
    forms.append(plain)
    if character in _STANDS_FOR:
        forms.append(_STANDS_FOR[character] if character == "+" else _forms_of_twin(_STANDS_FOR[character]))
    return f"(?:{'|'.join(forms)})"


def _forms_of_twin(character: str) -> str:
    code = ord(character)
    return rf"{re.escape(character)}|{_PERCENT}{code:02x}|{_BACKSLASH}(?:u00{code:02x}|{re.escape(character)})"


@functools.cache
def _entity_names() -> Mapping[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name, character in html.entities.html5.items():
        names.setdefault(character, []).append(name)
    return names
