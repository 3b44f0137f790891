"""Downloads against a local server: checksums, resuming, and archives that are not to be trusted."""

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recloop.encoders.base.errors import LogError
from recloop.envs.logs.download import REGISTRY, download
from recloop.envs.logs.readers import read_log


def make_zip(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return buffer.getvalue()


ARCHIVE = make_zip({"top/t.sequences.txt": "1 a b c\n2 b c\n", "top/readme/LICENSE": "made up"})


class Home:
    """A server of one archive: what it holds, what it was asked, and where it cuts off."""

    def __init__(self) -> None:
        self.data, self.asked, self.cut_after, self.ranges = ARCHIVE, list[str | None](), -1, True
        home = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not self.path.endswith("/tiny.zip"):
                    self.send_error(404)
                    return
                asked = self.headers.get("Range")
                home.asked.append(asked)
                start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and home.ranges else 0
                if start >= len(home.data):
                    self.send_error(416)
                    return
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(home.data) - start))
                self.end_headers()
                end = len(home.data) if home.cut_after < 0 else home.cut_after
                self.wfile.write(home.data[start:end])

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/tiny.zip"

    @property
    def hash(self) -> str:
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"


@pytest.fixture
def home() -> Iterator[Home]:
    home = Home()
    thread = threading.Thread(target=home.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield home
    home.server.shutdown()
    home.server.server_close()
    thread.join()


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_fetched_checked_unpacked_and_read(tmp_path: Path, home: Home) -> None:
    folder = download(home.url, tmp_path, known_hash=home.hash, progress=False)
    assert names(tmp_path) == [
        "tiny/.download.json",
        "tiny/manifest.json",
        "tiny/readme/LICENSE",
        "tiny/t.sequences.txt",
    ]
    assert len(read_log(folder).interactions) == 5
    assert download(home.url, tmp_path, known_hash=home.hash, progress=False) == folder
    assert len(home.asked) == 1, "what is there is not fetched again"


def test_a_registered_name_from_a_mirror(tmp_path: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    known = replace(REGISTRY["ml-100k"], archive="tiny.zip", known_hash=home.hash)
    monkeypatch.setitem(REGISTRY, "tiny", known)
    base = home.url.removesuffix("/tiny.zip") + "/mirror/"
    assert download("tiny", tmp_path, base_url=base, progress=False) == tmp_path / "tiny"


def test_a_cut_download_is_carried_on(tmp_path: Path, home: Home) -> None:
    home.cut_after = 100
    with pytest.raises(LogError, match=r"cut off after 100 of \d+ bytes.*call again"):
        download(home.url, tmp_path, known_hash=home.hash, progress=False)
    assert names(tmp_path) == [".tiny.zip.part"]
    home.cut_after = -1
    download(home.url, tmp_path, known_hash=home.hash, progress=False)
    assert home.asked == [None, "bytes=100-"]
    assert ".tiny.zip.part" not in names(tmp_path)


def test_a_home_without_ranges_sends_all_again(tmp_path: Path, home: Home) -> None:
    (tmp_path / ".tiny.zip.part").write_bytes(b"something else")
    home.ranges = False
    assert (download(home.url, tmp_path, known_hash=home.hash, progress=False) / "t.sequences.txt").exists()


def test_a_whole_part_needs_no_more_bytes(tmp_path: Path, home: Home) -> None:
    (tmp_path / ".tiny.zip.part").write_bytes(ARCHIVE)
    assert (download(home.url, tmp_path, known_hash=home.hash, progress=False) / "t.sequences.txt").exists()


def test_a_wrong_checksum_leaves_nothing(tmp_path: Path, home: Home) -> None:
    wrong = "md5:0123456789abcdef0123456789abcdef"
    with pytest.raises(LogError, match=r"tiny\.zip: the checksum is wrong"):
        download(home.url, tmp_path, known_hash=wrong, progress=False)
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil", "top/../../evil", "C:\\evil", "..\\evil"])
def test_an_archive_that_reaches_outside(tmp_path: Path, home: Home, name: str) -> None:
    home.data = make_zip({"top/fine.txt": "x", name: "y"})
    with pytest.raises(LogError, match="reaches outside the folder"):
        download(home.url, tmp_path / "logs", known_hash=home.hash, progress=False)
    assert not (tmp_path / "logs" / "tiny").exists()
    assert not list(tmp_path.rglob("evil*"))


def test_what_is_no_archive(tmp_path: Path, home: Home) -> None:
    home.data = b"<html>not found</html>"
    with pytest.raises(LogError, match="is no zip archive"):
        download(home.url, tmp_path, known_hash=home.hash, progress=False)
    assert not (tmp_path / "tiny").exists()


def test_no_network_and_not_found(tmp_path: Path, home: Home) -> None:
    with pytest.raises(LogError, match=r"cannot be fetched \(Not Found\); check the network"):
        download("ml-100k", tmp_path, base_url=home.url, progress=False)
    home.server.server_close()
    with pytest.raises(LogError, match=r"cannot be fetched.*by hand from https://grouplens\.org"):
        download("ml-100k", tmp_path, base_url="http://127.0.0.1:9/", progress=False)
    assert names(tmp_path) == []


def test_a_folder_of_the_users_own_is_left_alone(tmp_path: Path, home: Home) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "mine.txt").write_text("mine")
    with pytest.raises(LogError, match="exists and is not this download"):
        download(home.url, tmp_path, known_hash=home.hash, progress=False)
    assert names(tmp_path) == ["tiny/mine.txt"]


def test_names_and_hashes(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="did you mean 'ml-100k'"):
        download("ml-100", tmp_path)
    with pytest.raises(LogError, match="no known checksum"):
        download("http://127.0.0.1:9/a.zip", tmp_path)
    with pytest.raises(LogError, match="is not algorithm:hex"):
        download("ml-1m", tmp_path, known_hash="0123")
    with pytest.raises(LogError, match="only zip archives"):
        download("http://127.0.0.1:9/a.tar", tmp_path, known_hash="md5:0")
    for log in REGISTRY.values():
        assert log.known_hash.startswith("md5:")
        assert log.licence
