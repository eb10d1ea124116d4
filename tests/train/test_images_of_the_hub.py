"""Sets of the hub, or what answers in its place; the network is never asked."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest
from pictures import seeds_of, told, written_by_datasets

from lisabench.errors import LisaBenchError, UnavailableError
from lisabench.train import images


class Refusing(BaseHTTPRequestHandler):
    """Answers as the hub does for a set that it has not, or that not everyone may have."""

    def do_GET(self) -> None:
        status, code = (403, "GatedRepo") if "gated" in self.path else (401, "RepoNotFound")
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing listens there; a folder for what `datasets` keeps."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "kept")
    return tmp_path / "kept"


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("name", ["no-such-owner/no-such-set", "a/b/c", "", "sp ace/x"])
def test_a_name_that_is_not_on_the_hub(name: str) -> None:
    assert f"the Hugging Face hub has no image set {name!r}; valid: the name of a set there" in told(f"hub:{name}")


@pytest.mark.usefixtures("hub")
def test_a_set_that_is_not_open_to_all() -> None:
    with pytest.raises(UnavailableError, match="hub:owner/gated is open only to whom its owners let in"):
        images.find("hub:owner/gated")


@pytest.mark.usefixtures("no_hub")
def test_no_network(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        LisaBenchError, match=r"the Hugging Face hub does not answer \(ConnectError.*no copy is kept here; connect"
    ) as error:
        images.find("hub:no-such-owner/no-such-set")
    assert error.value.exit_code == 3
    assert capfd.readouterr() == ("", "")


def test_a_copy_that_is_kept_is_read_without_network(tmp_path: Path, no_hub: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files = {"train": str(written_by_datasets(tmp_path / "a.parquet")), "test": str(written_by_datasets(tmp_path / "b.parquet", 4, 20))}
    from datasets.packaged_modules.parquet.parquet import Parquet

    builder = Parquet(cache_dir=str(no_hub), dataset_name="here", config_name="small", hash="0" * 8, data_files=files)
    builder.download_and_prepare()
    shutil.move(builder.cache_dir, no_hub / "made___here" / "small" / "0.0.0" / builder.hash)  # where a set of the hub is kept
    capfd.readouterr()
    for name in ("hub:made/here", "hub:made/here:small"):
        split = images.find(name).read()
        assert seeds_of(split.train) == list(range(10))
        assert sorted(zip(seeds_of(split.test), split.test.labels.tolist(), strict=True)) == [(20, 1), (21, 0), (22, 1), (23, 0)]
    assert capfd.readouterr() == ("", "")
    assert "hub:made/here:large cannot be loaded: Couldn't find cache for made/here" in told("hub:made/here:large")
