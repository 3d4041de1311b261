"""Changes to data files that keep what stands around them: the other cells of a row, the other objects of a file."""

from __future__ import annotations

from random import Random

from fuzz.json_mutations import json_text
from fuzz.mutations import MAX_BYTES, TEXTS, Mutation, lines

CELLS = b'" "" "a a"b "a,b" "a""b" # -DOCSTART- text label text_b O B B- I-PER E-LOC X-PER B-PER-X'.split()
CELLS += [b'"a\nb"', b"\r", b" ", b"# id = 1", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\x85", b"x" * 70_000]


def cells(separator: bytes) -> Mutation:
    """For a table: in one of its lines, a cell that is replaced, left out, doubled, quoted or exchanged; or its lines changed."""

    def mutate(data: bytes, rng: Random) -> bytes:
        if rng.random() < 0.3:
            return lines(data, rng)
        rows = data.split(b"\n")
        row = rng.randrange(len(rows))
        found = rows[row].split(separator)
        at, other = rng.randrange(len(found)), rng.randrange(len(found))
        match rng.randrange(6):
            case 0:
                del found[at]
            case 1:
                found[at:at] = [found[at]] * rng.choice((1, 2, 3000))
            case 2:
                found[at] = b'"' + found[at].replace(b'"', b'""') + b'"'
            case 3:
                found[at], found[other] = found[other], found[at]
            case 4:
                found[at] = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
            case _:
                found[at] = rng.choice(CELLS)
        rows[row] = separator.join(found)
        return b"\n".join(rows)[:MAX_BYTES]

    return mutate


def json_lines(data: bytes, rng: Random) -> bytes:
    """One object per line: one of them changed as JSON, or the lines."""
    if rng.random() < 0.2:
        return lines(data, rng)
    rows = data.split(b"\n")
    at = rng.randrange(len(rows))
    rows[at] = json_text(rows[at], rng)
    return b"\n".join(rows)[:MAX_BYTES]
