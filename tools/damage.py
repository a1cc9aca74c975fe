"""Damages of bytes and of text, from a random generator, for tests of what reads files."""

import random
from collections.abc import Callable, Mapping


def flip_bits(rng: random.Random, content: bytearray, first: int = 0, end: int | None = None) -> bytes:
    """Flip one to eight bits of the bytes from ``first`` to ``end``."""
    for _ in range(rng.choice((1, 1, 2, 8))):
        content[rng.randrange(first, end or len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def cut(rng: random.Random, content: bytearray) -> bytes:
    """Leave the end out."""
    return bytes(content[: rng.randrange(len(content))])


def lose_block(rng: random.Random, content: bytearray) -> bytes:
    """Leave a block out."""
    place = rng.randrange(len(content))
    del content[place : place + rng.choice((1, 100, 512))]
    return bytes(content)


def zero_block(rng: random.Random, content: bytearray) -> bytes:
    """Set a block to zero."""
    place, size = rng.randrange(len(content)), rng.choice((4, 64, 4096))
    content[place : place + size] = bytes(len(content[place : place + size]))
    return bytes(content)


def insert_noise(rng: random.Random, content: bytearray) -> bytes:
    """Insert random bytes."""
    place = rng.randrange(len(content))
    content[place:place] = rng.randbytes(rng.choice((1, 100, 4096)))
    return bytes(content)


def append_noise(rng: random.Random, content: bytearray) -> bytes:
    """Append random bytes."""
    return bytes(content) + rng.randbytes(1000)


def noise(rng: random.Random, content: bytearray) -> bytes:
    """Return random bytes."""
    return rng.randbytes(rng.randrange(5000))


def nothing(rng: random.Random, content: bytearray) -> bytes:
    """Return no bytes."""
    return b""


Damage = Callable[[random.Random, bytearray], bytes]

OF_BYTES: Mapping[str, Damage] = {
    "flipped": flip_bits,
    "cut": cut,
    "lost-block": lose_block,
    "zero-block": zero_block,
    "inserted-noise": insert_noise,
    "appended-noise": append_noise,
    "noise": noise,
    "empty": nothing,
}
"""Damages of any file."""

_VALUES = (
    *("nan", "-inf", "1e999", "-1", "0", "9" * 5000, "1000000000", "0x10", "true", "null", "~", "''", "[]", "{}"),
    *("2026-13-45", "!!int ''", "!!python/object/apply:os.system [true]", "=1+1", "${oc.env:HOME}", "${model}", "*a"),
    *("<<: *b", "&a [*a]", "..", "/dev/zero", "x" * 5000, "\N{ZERO WIDTH SPACE}", "os.system", '"', "'", "|", "\t"),
)
_ALIASES = "\n".join(
    ["a0: &a0 [x,x,x,x,x,x,x,x,x]", *(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10))]
)


def _replace_value(rng: random.Random, content: bytearray) -> bytes:
    """Replace a word, number or rest of a line."""
    lines = content.split(b"\n")
    row = rng.randrange(len(lines))
    separators = [place + 1 for place, byte in enumerate(lines[row]) if byte in b' :,=[]{}"']
    place = rng.choice(separators) if separators else 0
    end = rng.choice([other - 1 for other in separators if other > place + 1] or [len(lines[row])])
    lines[row] = lines[row][:place] + b" " * rng.randrange(2) + rng.choice(_VALUES).encode() + lines[row][end:]
    return b"\n".join(lines)


def _lose_line(rng: random.Random, content: bytearray) -> bytes:
    lines = content.split(b"\n")
    del lines[rng.randrange(len(lines))]
    return b"\n".join(lines)


def _repeat_line(rng: random.Random, content: bytearray) -> bytes:
    lines = content.split(b"\n")
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    return b"\n".join(lines)


def _shift_line(rng: random.Random, content: bytearray) -> bytes:
    """Change the indentation of a line."""
    lines = content.split(b"\n")
    row = rng.randrange(len(lines))
    if rng.random() < 0.5:
        lines[row][:0] = rng.choice((b"  ", b"\t", b"- "))
    else:
        lines[row] = lines[row].lstrip()
    return b"\n".join(lines)


OF_TEXT: Mapping[str, Damage] = {
    "other-value": _replace_value,
    "lost-line": _lose_line,
    "repeated-line": _repeat_line,
    "shifted-line": _shift_line,
    "deep": lambda rng, content: bytes(content) + rng.choice((b"[", b"{a: ", b'{"a":')) * rng.choice((60, 100_000)),
    "aliases": lambda rng, content: bytes(content) + b"\n" + _ALIASES.encode() + b"\n",
    "huge": lambda rng, content: bytes(content) + rng.choice((b"\n# x", b"\nx: y", b" x,")) * (1 << 20),
    "cyclic": lambda rng, content: b"model: &a\n  model: *a\n" + bytes(content),
    "utf-16": lambda rng, content: content.decode(errors="replace").encode("utf-16"),
    "bom-and-crlf": lambda rng, content: b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"),
    **OF_BYTES,
}
"""Damages of text files."""


def damaged(damages: Mapping[str, Damage], rng: random.Random, content: bytes) -> tuple[str, bytes]:
    """Return the name of a random damage, and damaged ``content``."""
    name = rng.choice(list(damages))
    return name, damages[name](rng, bytearray(content))
