"""Mutations of valid inputs, the same for the same number, aware of what a file is made of.

An input is a few named parts, as a folder is a few files. A name's ending says how a part is
mutated: ``.json``, ``.safetensors``, text (``.csv``, ``.yaml``, ``.txt``, ``.jsonl``), else bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

Parts = Mapping[str, bytes]

MARK = "\x01raw"
"""Stands in a JSON value for text that no JSON writer would write."""
MOST_BYTES = 1 << 20
"""No part grows beyond this: what a decoder may use is measured for inputs of that size."""
_SEVERAL = (1, 1, 1, 1, 2, 2, 3, 8)
_DEEP = (40, 400, 1_500, 30_000)
_NUMBERS = (
    *(0, 1, -1, 2, 7, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32, 2**53),
    *(2**63 - 1, 2**63, -(2**63), 2**64, 10**18, 10**30, 10**400, 0.5, -0.0, 1e-320, 1e-45),
    *(1e39, 1e300, 1.7976931348623157e308, float("nan"), float("inf"), float("-inf")),
)
_VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        "",
        "x",
        " ",
        "a/b",
        "../..",
        "/",
        "\x00",
        "\ud800",
        "é" * 40,
        "0" * 5_000,
    ),
    *([], {}, [[]], [None], [0], {"": 0}, {"type": "x"}, {"type": 0}, {"_target_": "os.system"}),
)
_RAW = (
    *("NaN", "-Infinity", "1e400", "1" * 400, "1" * 5_000, "-0", '"\\ud800"', '"\\u0000"'),
    *('{"a":1,"a":2}', "nul", "", "'x'", "[1,]", "0x1f", "1_000"),
)
_TOKENS = (
    *(
        "0",
        "-1",
        "1e308",
        "1e400",
        "-1e-320",
        "nan",
        "inf",
        "-inf",
        "9" * 30,
        "9" * 5_000,
        "\uff11\uff12",
    ),
    *("", " ", "\t", "\n", "\r", "\r\n\r\n", "\x00", "\ufeff", "\u2028", "\ud800", "é", '"', '""'),
    *("'", ",", ",,,", ":", ": ", "#", "[", "]", "{", "}", "&a ", "*a", "!!python/name:os.system "),
    *("!!binary ", "!!timestamp 2001-99-99", "<<: ", "? ", "- ", "|", ">", "---\n", "%YAML 9\n"),
    *("null", "true", "2001-02-30", "2024-05-01T00:00:00+99:99", "1:2:3", "0o8", ".nan", "~"),
)
_DTYPES = {
    8: ("F64", "I64", "U64", "C64"),
    4: ("F32", "I32", "U32"),
    2: ("F16", "BF16", "I16", "U16"),
    1: ("U8", "I8", "BOOL", "F8_E4M3", "F8_E5M2"),
}


def mutate(rng: Random, seeds: Sequence[Parts]) -> dict[str, bytes]:
    """Returns a seed with one to eight changes; parts of other seeds may be spliced in."""
    parts = dict(rng.choice(seeds))
    for _ in range(rng.choice(_SEVERAL)):
        name = rng.choice(list(parts))
        other = rng.choice(seeds).get(name, parts[name])
        parts[name] = _change_part(rng, name, parts[name], other)[:MOST_BYTES]
    return parts


def _change_part(rng: Random, name: str, data: bytes, other: bytes) -> bytes:
    drawn = rng.random()
    if drawn < 0.03:
        return other
    if name.endswith(".json") and drawn < 0.85:
        return change_json(rng, data)
    if name.endswith(".safetensors") and drawn < 0.8:
        return _change_safetensors(rng, data)
    if name.endswith(".jsonl") and drawn < 0.6:
        return _change_a_line(rng, data)
    if name.endswith((".json", ".jsonl", ".csv", ".yaml", ".txt")) and drawn < 0.93:
        return _change_text(rng, data)
    # the end of such a file says where everything else is
    is_late = name.endswith(".parquet") and rng.random() < 0.5
    return _change_bytes(rng, data, other, len(data) * 2 // 3 if is_late else 0)


def change_json(rng: Random, data: bytes) -> bytes:
    """Returns JSON with one place changed: another value, key, number, depth, or broken text."""
    try:
        value = json.loads(data)
        raw: list[str] = []
        changed = json.dumps(_changed(rng, value, value, raw))
    except (ValueError, RecursionError, OverflowError):
        return _change_text(rng, data)
    for text in raw:
        changed = changed.replace(json.dumps(MARK), text, 1)
    return changed.encode("utf-8", "surrogatepass")


def _changed(rng: Random, value: Any, whole: Any, raw: list[str]) -> Any:  # noqa: ANN401 - JSON
    """Returns a value with one change, at a place that is found by a random walk down."""
    if isinstance(value, str) and value[:1] in ("{", "[") and rng.random() < 0.9:
        return change_json(rng, value.encode()).decode("utf-8", "replace")
    if isinstance(value, dict) and value and rng.random() < 0.9:
        return _changed_object(rng, value, whole, raw)
    if isinstance(value, list) and value and rng.random() < 0.85:
        return _changed_list(rng, value, whole, raw)
    return _replaced(rng, value, whole, raw)


def _changed_object(rng: Random, value: dict[str, Any], whole: Any, raw: list[str]) -> Any:  # noqa: ANN401
    key, drawn, found = rng.choice(list(value)), rng.random(), dict(value)
    if drawn < 0.75:
        found[key] = _changed(rng, value[key], whole, raw)
    elif drawn < 0.85:
        del found[key]
    elif drawn < 0.9:
        found[rng.choice(("", "x", "type", key * 2, key.upper()))] = found.pop(key)
    elif drawn < 0.95:
        found[rng.choice(("", "x", "type", "__metadata__", "a.b"))] = value[key]
    else:
        found[key] = value[rng.choice(list(value))]
    return found


def _changed_list(rng: Random, value: list[Any], whole: Any, raw: list[str]) -> Any:  # noqa: ANN401
    place, drawn, found = rng.randrange(len(value)), rng.random(), list(value)
    if drawn < 0.7:
        found[place] = _changed(rng, value[place], whole, raw)
    elif drawn < 0.8:
        del found[place]
    elif drawn < 0.9:
        found.insert(place, found[rng.randrange(len(found))])
    elif drawn < 0.95:
        found.reverse()
    else:
        found = (found * rng.choice((2, 100, 3_000)))[:3_000]
    return found


def _replaced(rng: Random, value: Any, whole: Any, raw: list[str]) -> Any:  # noqa: ANN401 - JSON
    drawn = rng.random()
    if drawn < 0.2 and isinstance(value, int | float) and not isinstance(value, bool):
        return rng.choice((value + 1, value - 1, -value, value / 2, value * 1_000, str(value)))
    if drawn < 0.25 and isinstance(value, str):
        return _change_text(rng, value.encode("utf-8", "replace")).decode("utf-8", "replace")
    if drawn < 0.6:
        return rng.choice(_NUMBERS)
    if drawn < 0.8:
        return rng.choice(_VALUES)
    if drawn < 0.87:
        return _somewhere(rng, whole)
    raw.append(_deep(rng) if drawn < 0.92 else rng.choice(_RAW))
    return MARK


def _deep(rng: Random) -> str:
    depth = rng.choice(_DEEP)
    opens, closes = rng.choice((("[", "]"), ('{"a":', "}"), ('{"type":', "}")))
    return opens * depth + "0" + closes * rng.choice((depth, 0))


def _somewhere(rng: Random, value: Any) -> Any:  # noqa: ANN401 - JSON
    """Returns a value that stands elsewhere in the same document."""
    while isinstance(value, dict | list) and value and rng.random() < 0.8:
        value = rng.choice(list(value.values()) if isinstance(value, dict) else value)
    return value


def _change_safetensors(rng: Random, data: bytes) -> bytes:
    size = int.from_bytes(data[:8], "little")
    header, body, drawn = data[8 : 8 + size], data[8 + size :], rng.random()
    if drawn < 0.45:
        header = change_json(rng, header)
    elif drawn < 0.65:
        header = _reshaped(rng, header)
    elif drawn < 0.85:
        body = _change_bytes(rng, body, body)
    elif drawn < 0.95:
        length = rng.choice((0, 1, size - 1, size + 1, len(data), 10**8, 2**32, 2**63, 2**64 - 1))
        return (length % 2**64).to_bytes(8, "little") + data[8:]
    else:
        return data[: rng.randrange(len(data) + 1)]
    return len(header).to_bytes(8, "little") + header + body


def _reshaped(rng: Random, header: bytes) -> bytes:
    """Returns a header that fits its data, and says another type or shape of one tensor."""
    try:
        named = json.loads(header)
        name = rng.choice([name for name in named if name != "__metadata__"])
        tensor = named[name]
        first, last = tensor["data_offsets"]
        width = rng.choice(tuple(_DTYPES))
        entries = (last - first) // width
        tensor["dtype"] = rng.choice(_DTYPES[width])
        tensor["shape"] = rng.choice(
            ([entries], [1, entries], [entries, 1, 1], [1] * 40 + [entries], [0, 2**40], [])
        )
        if rng.random() < 0.1:
            named[rng.choice((f"{name}x", "7.q.a", "tie0/a", "a/b/c"))] = named.pop(name)
        return json.dumps(named).encode()
    except (ValueError, KeyError, TypeError, IndexError, RecursionError, AttributeError):
        return change_json(rng, header)


def _change_a_line(rng: Random, data: bytes) -> bytes:
    lines = data.split(b"\n")
    place = rng.randrange(len(lines))
    lines[place] = change_json(rng, lines[place])
    return b"\n".join(lines)


def _change_text(rng: Random, data: bytes) -> bytes:
    text = data.decode("utf-8", "surrogateescape")
    return rng.choice(_TEXT)(rng, text).encode("utf-8", rng.choice(("replace", "surrogatepass")))


def _with_token(rng: Random, text: str) -> str:
    place = rng.randrange(len(text) + 1)
    return text[:place] + rng.choice(_TOKENS) + text[place:]


def _with_word(rng: Random, text: str) -> str:
    """Returns a text with one word or number in another's place."""
    spans = [found.span() for found in re.finditer(r"[\w.+-]+", text[:20_000])]
    if not spans:
        return _with_token(rng, text)
    first, last = rng.choice(spans)
    begin, end = rng.choice(spans)
    new = rng.choice((rng.choice(_TOKENS), text[begin:end], str(rng.choice(_NUMBERS[:24]))))
    return text[:first] + new + text[last:]


def _with_line(rng: Random, text: str) -> str:
    """Returns a text with a line left out, doubled, moved, cut or repeated often."""
    lines = text.split("\n")
    place, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    drawn = rng.random()
    if drawn < 0.3:
        del lines[place]
    elif drawn < 0.5:
        lines.insert(other, lines[place])
    elif drawn < 0.7:
        lines[place], lines[other] = lines[other], lines[place]
    elif drawn < 0.9:
        lines[place] = lines[place][: rng.randrange(len(lines[place]) + 1)]
    else:
        most = MOST_BYTES // (1 + len(lines[place]))
        lines[place:place] = [lines[place]] * min(most, rng.choice((10, 300, 2_000)))
    return "\n".join(lines)


def _with_depth(rng: Random, text: str) -> str:
    place = rng.randrange(len(text) + 1)
    depth, opens = rng.choice(_DEEP), rng.choice(("[", "{", "- ", "(", "{a: ", "[[", "#", "a"))
    return text[:place] + opens * depth + text[place:]


_TEXT: tuple[Callable[[Random, str], str], ...] = (
    *(_with_token, _with_word, _with_word, _with_word),
    *(_with_line, _with_line, _with_depth),
)


def _change_bytes(rng: Random, data: bytes, other: bytes, first: int = 0) -> bytes:
    """Returns bytes with flips, a splice, a cut, a copy, or a number put over them."""
    if not data:
        return rng.randbytes(rng.randrange(64))
    found, drawn = bytearray(data), rng.random()
    place = rng.randrange(first, len(data))
    length = rng.choice((1, 2, 4, 8, 64, 1_000))
    if drawn < 0.35:
        for _ in range(rng.choice((1, 1, 2, 6))):
            found[rng.randrange(first, len(data))] ^= 1 << rng.randrange(8)
    elif drawn < 0.6:
        number = _edge(rng)
        found[place : place + len(number)] = number
    elif drawn < 0.7:
        del found[place : place + length]
    elif drawn < 0.8:
        found[place:place] = found[place : place + length] * rng.choice((1, 3, 50))
    elif drawn < 0.94:
        begin = rng.randrange(len(other) + 1)
        new = rng.choice((rng.randbytes(length), other[begin : begin + length]))
        found[place : place + length] = new
    else:
        del found[place:]
    return bytes(found)


def _edge(rng: Random) -> bytes:
    """Returns a number at an edge of its type, as one to eight bytes."""
    width = rng.choice((1, 2, 4, 8))
    number = rng.choice((0, 1, 127, 128, 255, 2**15, 2**31 - 1, 2**31, 2**63, 2**64 - 1))
    return (number % 256**width).to_bytes(width, rng.choice(("little", "big")))
