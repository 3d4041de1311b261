"""Small changes to files: some that know nothing of a format, and some that keep it whole enough to reach the checks behind the first one.

A mutation takes the content and a random source and gives new content. All its chances come from that source, so that a campaign with
the same seed makes the same files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

Mutation = Callable[[bytes, Random], bytes]

MAX_BYTES = 1 << 17
"""What a mutation gives is cut here: the limits beyond it have tests of their own, and small files are tried faster."""

EDGES = [0, 1, 2, 3, 4, 7, 8, 16, 127, 128, 255, 256, 32767, 65535, 65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**62]
EDGES += [2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30]

TEXTS = [
    "",
    "\0",
    "a\nb",
    "\ud800",
    "../../etc/passwd",
    "/etc/passwd",
    "C:\\x",
    "é",
    "e\u0301",
    "\u200b",
    "😀",
    "x" * 300,
    "F32",
    "[PAD]",
    "[MASK]",
]
TEXTS += [
    "##",
    "$A",
    "a:0",
    "1",
    "-1",
    "01",
    "1e9",
    "NaN",
    "None",
    "__class__",
    "__metadata__",
    "model.safetensors",
    "%s%s",
    "{0}",
    "\ufeff",
    "💥" * 60,
]


def bytewise(data: bytes, rng: Random) -> bytes:
    """One to four changes that know nothing of the format."""
    content = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(content) + 1)
        length = min(rng.choice((1, 1, 2, 4, 8, 32, 200)), len(content))
        match rng.randrange(8):
            case 0:
                content[at : at + 1] = bytes([content[at] ^ 1 << rng.randrange(8)]) if at < len(content) else b"\0"
            case 1:
                content[at : at + 1] = bytes(
                    [rng.choice((0, 1, 9, 10, 32, 34, 44, 58, 91, 93, 123, 125, 127, 128, 255, rng.randrange(256)))]
                )
            case 2:
                del content[at : at + length]
            case 3:
                content[at:at] = content[at : at + length] * rng.choice((1, 1, 2, 300))
            case 4:
                content[at:at] = rng.randbytes(length)
            case 5:
                width = rng.choice((1, 2, 4, 8))
                number = rng.choice(EDGES) * rng.choice((1, -1)) + rng.choice((-1, 0, 1))
                content[at : at + width] = (number % 256**width).to_bytes(width, rng.choice(("little", "big")))  # type: ignore[arg-type]
            case 6:
                del content[at:]
            case _:
                start = rng.randrange(len(content) + 1)
                content[at : at + length] = content[start : start + length]
        content = content or bytearray(b"\0")
    return bytes(content[:MAX_BYTES])


def spliced(first: bytes, second: bytes, rng: Random) -> bytes:
    return (first[: rng.randrange(len(first) + 1)] + second[rng.randrange(len(second) + 1) :])[:MAX_BYTES]


def lines(data: bytes, rng: Random) -> bytes:
    """A text file with lines left out, doubled, exchanged or made of something else."""
    rows = data.split(b"\n")
    at, other = rng.randrange(len(rows)), rng.randrange(len(rows))
    match rng.randrange(6):
        case 0:
            del rows[at]
        case 1:
            rows[at:at] = rows[at : at + 1] * rng.choice((1, 1, 2000))
        case 2:
            rows[at], rows[other] = rows[other], rows[at]
        case 3:
            rows[at] = rng.choice(TEXTS).encode("utf-8", "surrogatepass")
        case 4:
            rows[at] = rows[at] + rng.choice((b"\r", b" ", b"\t", b"\xc2\x85", b"\xe2\x80\xa8", b"\x0c", b"x" * 60_000))
        case _:
            return bytewise(data, rng)
    return b"\n".join(rows)[:MAX_BYTES]


# ---- folders

MARK = b"\n\x1c\x1c\x1c "


def packed(files: dict[str, bytes]) -> bytes:
    """Several files as one input."""
    return b"".join(MARK + name.encode() + b"\n" + content for name, content in files.items())


def unpacked(data: bytes, names: Sequence[str]) -> dict[str, bytes]:
    """The files of an input; only those of `names`, so that an input cannot choose where something is written."""
    files: dict[str, bytes] = {}
    for part in data.split(MARK)[1:]:
        name, _, content = part.partition(b"\n")
        if name.decode("latin-1") in names:
            files[name.decode("latin-1")] = content
    return files


def folder(names: Sequence[str], mutations: dict[str, Mutation]) -> Mutation:
    """One or two of an input's files changed, each as its kind asks for; now and then one is left out."""

    def mutate(data: bytes, rng: Random) -> bytes:
        files = unpacked(data, names)
        if not files:
            return bytewise(data, rng)
        for _ in range(rng.choice((1, 1, 2))):
            name = rng.choice(list(files))
            files[name] = (mutations[name] if rng.random() < 0.85 else bytewise)(files[name], rng)
        if rng.random() < 0.05:
            del files[rng.choice(list(files))]
        return packed(files)

    return mutate
