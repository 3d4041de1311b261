"""Hub repositories through the real huggingface_hub, against a small server here that speaks as much of the hub's protocol as it needs.

Look-ups run in processes of their own: huggingface_hub reads HF_ENDPOINT and its like once, when it is imported.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest

from minigrad.io import open_weights
from minigrad.io.sharded_write import save_weights

REPOSITORY = Path(__file__).resolve().parents[2]
MAIN, TAGGED = "1" * 40, "2" * 40

LOOK_UP = """
import json, sys
from minigrad.errors import CheckpointUnavailableError
from minigrad.io import find_checkpoint
for line in sys.stdin:
    try:
        found = {"path": str(find_checkpoint(json.loads(line)))}
    except CheckpointUnavailableError as error:
        found = {"error": str(error), "code": error.code}
    print(json.dumps(found), flush=True)
"""


def saved(folder: Path, max_shard_size: int | str = "5GB") -> dict[str, bytes]:
    """The files of two small tensors."""
    arrays = {"a": np.arange(6, dtype=np.float32), "b": np.ones(6, np.float32)}
    save_weights(arrays, folder, max_shard_size=max_shard_size, dtype=None, metadata={"format": "pt"})
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@dataclass
class Hub:
    """The repositories of a hub: the files of each revision. What is asked of it is written down."""

    revisions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Files by commit, of the one repository owner/tiny."""
    names: dict[str, str] = field(default_factory=lambda: {"main": MAIN})
    refuses: int | None = None
    """An HTTP status for every request."""
    gated: bool = False
    cut: set[str] = field(default_factory=set)
    """Files of which half arrives before the connection ends."""
    redirect: bool = False
    """Whether large files lie elsewhere, as the hub's do."""
    asked: list[str] = field(default_factory=list)
    url: str = ""


def handler_of(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None: ...

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def send(self, status: int, content: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def refuse(self, status: int, code: str) -> None:
            self.send(status, json.dumps({"error": code}).encode(), X_Error_Code=code, X_Error_Message=f"{code} of the test's hub")

        def answer(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.asked.append(f"{self.command} {path}")
            if hub.refuses is not None:
                self.refuse(hub.refuses, "GatedRepo" if hub.gated else "")
            elif match := re.fullmatch(r"/api/models/owner/tiny/(revision|tree)/([^/]+)", path):
                commit = hub.names.get(match[2], match[2])
                if commit not in hub.revisions:
                    self.refuse(404, "RevisionNotFound")
                else:
                    self.describe(match[1], commit)
            elif path == "/api/models/owner/tiny":
                self.describe("revision", MAIN)
            elif match := re.fullmatch(r"/(owner/tiny/resolve|elsewhere)/([^/]+)/(.+)", path):
                commit = hub.names.get(match[2], match[2])
                content = hub.revisions.get(commit, {}).get(match[3])
                if content is None:
                    self.refuse(404, "EntryNotFound")
                else:
                    self.give(match[1], commit, match[3], content)
            else:
                self.refuse(404, "RepoNotFound")

        def describe(self, what: str, commit: str) -> None:
            files = hub.revisions[commit]
            entries = [{"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for n, c in files.items()]
            described = {"id": "owner/tiny", "modelId": "owner/tiny", "sha": commit, "siblings": [{"rfilename": name} for name in files]}
            self.send(200, json.dumps(described if what == "revision" else entries).encode(), Content_Type="application/json")

        def give(self, place: str, commit: str, name: str, content: bytes) -> None:
            headers = {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X_Repo_Commit": commit, "Accept_Ranges": "bytes"}
            if hub.redirect and place != "elsewhere" and name.endswith(".safetensors"):
                linked = {
                    "X_Linked_Etag": headers["ETag"],
                    "X_Linked_Size": str(len(content)),
                    "Location": f"{hub.url}/elsewhere/{commit}/{name}",
                }
                self.send(302, b"", **headers, **linked)
                return
            begin = 0
            if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
                begin = int(match[1])
                headers["Content_Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            if name in hub.cut and self.command == "GET":
                half = content[: len(content) // 2][begin:]
                self.send_response(206 if begin else 200)
                for key, value in headers.items():
                    self.send_header(key.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(content) - begin))
                self.end_headers()
                self.wfile.write(half)
                self.close_connection = True
                return
            self.send(206 if begin else 200, content[begin:], **headers)

    return Handler


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub()
    weights = saved(tmp_path / "weights")["model.safetensors"]
    other = {
        "README.md": b"# hello",
        "pytorch_model.bin": b"unread",
        "tf_model.h5": b"unread",
        "modeling.py": b"raise SystemExit",
        "onnx/model.onnx": b"",
    }
    files = {
        "config.json": b'{"model_type": "bert"}',
        "vocab.txt": b"[PAD]\n",
        "1_Pooling/config.json": b"{}",
        "model.safetensors": weights,
    }
    hub.revisions = {MAIN: other | files, TAGGED: files | {"vocab.txt": b"[UNK]\n"}}
    hub.names["v1.0"] = TAGGED
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


class Reader:
    """A process that knows this hub alone, keeps its cache under `home`, and looks up one name after the other."""

    def __init__(self, hub: Hub, home: Path, **environment: str) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and not key.lower().endswith("_proxy")}
        own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
        own |= {
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_XET": "1",
            "PYTHONPATH": str(REPOSITORY),
            "MINIGRAD_CACHE": str(home / "own"),
        }
        self._notices = open(home / "notices", "ab")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-c", LOOK_UP],
            env=kept | own | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._notices,
            text=True,
        )

    def __call__(self, name: str) -> dict[str, str]:
        """What `find_checkpoint(name)` gives or says."""
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(name), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, "the process ended: " + Path(self._notices.name).read_text()[-2000:]
        found: dict[str, str] = json.loads(line)
        return found

    def close(self) -> None:
        self._process.communicate(timeout=60)
        self._notices.close()


Start = Callable[..., Reader]


@pytest.fixture
def reader(served: Hub, tmp_path: Path) -> Iterator[Start]:
    """Starts readers of the served hub with a cache in common."""
    started: list[Reader] = []

    def start(**environment: str) -> Reader:
        started.append(Reader(served, tmp_path, **environment))
        return started[-1]

    yield start
    for one in started:
        one.close()


def names_of(folder: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file()}


def refusal(found: dict[str, str]) -> str:
    """The message, which must name the ways out and be no longer than a screen."""
    assert found["code"] == "checkpoint-unavailable"
    assert "Ways to get it:" in found["error"] and "pass the path of a directory" in found["error"]
    assert len(found["error"]) < 2500 and "Traceback" not in found["error"]
    return found["error"]


@pytest.mark.parametrize("redirect", [False, True])
def test_what_is_needed_is_fetched_once_and_found_without_a_network(served: Hub, reader: Start, redirect: bool) -> None:
    served.redirect = redirect
    online = reader()
    found = online("owner/tiny")
    wanted = {"config.json", "vocab.txt", "1_Pooling/config.json", "model.safetensors"}
    assert names_of(found["path"]) == wanted, "safetensors and not .bin as well; no code"
    assert Path(found["path"]).name == MAIN
    with open_weights(found["path"]) as source:
        assert source.names() == ("a", "b") and source.read("a").tolist() == list(range(6))
    served.asked.clear()
    assert online("owner/tiny") == found, "the local copy is used"
    assert reader(HF_HUB_OFFLINE="1")("owner/tiny") == found
    assert served.asked == [], "nobody was asked"


def test_shards_are_fetched_together_and_a_missing_one_again(served: Hub, reader: Start, tmp_path: Path) -> None:
    shards = saved(tmp_path / "shards", 24)
    served.revisions[MAIN].pop("model.safetensors")
    served.revisions[MAIN] |= shards
    online = reader()
    found = online("owner/tiny")
    assert shards.keys() <= names_of(found["path"]) and "pytorch_model.bin" not in names_of(found["path"])
    with open_weights(found["path"]) as source:
        assert source.read("b").tolist() == [1.0] * 6
    lost = Path(found["path"], next(name for name in shards if name.endswith("00001-of-00002.safetensors")))
    lost.resolve().unlink()
    lost.unlink()
    assert "missing" in refusal(reader(HF_HUB_OFFLINE="1")("owner/tiny"))
    assert online("owner/tiny") == found
    assert shards.keys() <= names_of(found["path"])


def test_pytorch_weights_where_there_are_no_others(served: Hub, reader: Start) -> None:
    served.revisions[MAIN].pop("model.safetensors")
    found = reader()("owner/tiny")
    assert {"pytorch_model.bin", "config.json"} <= names_of(found["path"])
    assert not {"tf_model.h5", "modeling.py", "README.md"} & names_of(found["path"])


def test_a_revision_is_pinned(served: Hub, reader: Start) -> None:
    online = reader()
    newest, tagged = (online(name)["path"] for name in ("owner/tiny", "owner/tiny@v1.0"))
    assert (Path(newest, "vocab.txt").read_bytes(), Path(tagged, "vocab.txt").read_bytes()) == (b"[PAD]\n", b"[UNK]\n")
    served.asked.clear()
    assert online(f"owner/tiny@{TAGGED}")["path"] == tagged, "a commit that is here already"
    assert reader(HF_HUB_OFFLINE="1")("owner/tiny@v1.0")["path"] == tagged
    assert served.asked == []
    assert "has no revision 'v9'" in refusal(online("owner/tiny@v9"))


def test_a_broken_download_leaves_no_half_file_and_can_be_taken_up(served: Hub, reader: Start, tmp_path: Path) -> None:
    served.cut = {"model.safetensors"}
    online = reader()
    message = refusal(online("owner/tiny"))
    tries = sum(asked.startswith("GET ") and asked.endswith("model.safetensors") for asked in served.asked)
    assert 1 <= tries < 10, "huggingface_hub may try again, but not for ever"
    assert "hub repository owner/tiny: " in message
    snapshots = list(tmp_path.rglob("snapshots/*"))
    assert snapshots and all("model.safetensors" not in names_of(str(folder)) for folder in snapshots), "only whole files have their names"
    assert "cannot be used" in refusal(reader(HF_HUB_OFFLINE="1")("owner/tiny")), "what is there is not taken for whole"
    served.cut = set()
    found = online("owner/tiny")
    assert Path(found["path"], "model.safetensors").read_bytes() == served.revisions[MAIN]["model.safetensors"]


def test_repositories_that_cannot_be_had(served: Hub, reader: Start) -> None:
    online = reader()
    assert "no such repository, or it is private" in refusal(online("owner/absent"))
    served.refuses = 401
    assert "refuses the access token or the lack of one (401)" in refusal(online("owner/tiny"))
    served.refuses, served.gated = 403, True
    message = refusal(online("owner/tiny"))
    assert "its owner grants access on its page" in message and "HF_TOKEN" in message
    served.refuses, served.gated = 403, False
    assert "refuses the access token" in refusal(online("owner/tiny"))
    assert "HF_HUB_OFFLINE is set" in refusal(reader(HF_HUB_OFFLINE="1")("owner/tiny"))


@pytest.mark.parametrize("absent, reason", [("config.json", "no config.json"), ("model.safetensors", "no weights in a known format")])
def test_a_repository_that_lacks_a_file(served: Hub, reader: Start, absent: str, reason: str) -> None:
    for name in (absent, "pytorch_model.bin"):
        served.revisions[MAIN].pop(name)
    assert reason in refusal(reader()("owner/tiny"))
