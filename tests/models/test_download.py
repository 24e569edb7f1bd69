"""Downloads against a server on this machine that breaks off, lies, or knows no ranges."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from ohmfold.errors import DataError, OutputError
from ohmfold.models.download import MIRRORS, MNIST_FILES, RemoteFile, download_mnist

CONTENT = {
    "a.gz": np.random.default_rng(1).bytes(300_000),
    "b.gz": np.random.default_rng(2).bytes(1_000),
}
FILES = [RemoteFile(name, len(body), hashlib.sha256(body).hexdigest()) for name, body in CONTENT.items()]


class Mirror(ThreadingHTTPServer):
    """Serves `CONTENT`; `breaks_after` bytes it hangs up, once per entry of the list."""

    def __init__(self, *, ranges: bool = True, breaks_after: list[int] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges = ranges
        self.breaks_after = breaks_after or []
        self.content = dict(CONTENT)
        self.requests: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        name, wanted = self.path[1:], self.headers.get("Range")
        self.server.requests.append((name, wanted))
        if name not in self.server.content:
            self.send_error(404)
            return
        body = self.server.content[name]
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        stop = start + self.server.breaks_after.pop(0) if self.server.breaks_after else len(body)
        self.wfile.write(body[start:stop])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the test output clean."""


@contextmanager
def _serving(mirror: Mirror) -> Iterator[Mirror]:
    thread = threading.Thread(target=mirror.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield mirror
    finally:
        mirror.shutdown()
        thread.join()
        mirror.server_close()


def _holds_all(home: Path) -> bool:
    return {path.name: path.read_bytes() for path in home.iterdir()} == CONTENT


def test_files_are_fetched_once(tmp_path: Path) -> None:
    with _serving(Mirror()) as mirror:
        for _ in range(2):
            assert download_mnist(tmp_path / "new", mirrors=[mirror.address], files=FILES) == tmp_path / "new"
    assert _holds_all(tmp_path / "new")
    assert mirror.requests == [("a.gz", None), ("b.gz", None)]


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(tmp_path: Path) -> None:
    seen = []
    with _serving(Mirror(breaks_after=[100_000, 150_000])) as mirror:
        download_mnist(
            tmp_path, mirrors=[mirror.address], files=FILES, progress=lambda *state: seen.append(state)
        )
    assert _holds_all(tmp_path)
    assert mirror.requests[:3] == [("a.gz", None), ("a.gz", "bytes=100000-"), ("a.gz", "bytes=250000-")]
    assert ("a.gz", 300_000, 300_000) in seen
    done = [done for name, done, _ in seen if name == "a.gz"]
    assert done == sorted(done)


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(tmp_path: Path) -> None:
    with _serving(Mirror(breaks_after=[1000, 1000, 1000])) as mirror:
        with pytest.raises(DataError, match="broke off after 3000 of 300000 bytes"):
            download_mnist(tmp_path, mirrors=[mirror.address], files=FILES)
        assert [path.name for path in tmp_path.iterdir()] == ["a.gz.part"]
        download_mnist(tmp_path, mirrors=[mirror.address], files=FILES)
    assert mirror.requests[3] == ("a.gz", "bytes=3000-")
    assert _holds_all(tmp_path)


def test_a_mirror_without_ranges_starts_again(tmp_path: Path) -> None:
    with _serving(Mirror(ranges=False, breaks_after=[1000])) as mirror:
        download_mnist(tmp_path, mirrors=[mirror.address], files=FILES)
    assert _holds_all(tmp_path)


@pytest.mark.parametrize("change", ["flipped", "longer"])
def test_a_file_with_another_checksum_never_gets_its_name(tmp_path: Path, change: str) -> None:
    with _serving(Mirror()) as mirror:
        body = CONTENT["a.gz"]
        mirror.content["a.gz"] = body + b"!" if change == "longer" else b"\0" + body[1:]
        with pytest.raises(DataError, match="another checksum"):
            download_mnist(tmp_path, mirrors=[mirror.address], files=FILES)
    assert list(tmp_path.iterdir()) == []


def test_the_second_mirror_takes_over(tmp_path: Path) -> None:
    with _serving(Mirror()) as empty, _serving(Mirror()) as mirror:
        empty.content.clear()
        download_mnist(tmp_path, mirrors=[empty.address, mirror.address], files=FILES)
    assert _holds_all(tmp_path)


def test_unreachable_mirrors_are_named_with_their_reasons(tmp_path: Path) -> None:
    with _serving(Mirror()) as gone:
        pass
    with pytest.raises(DataError, match=rf"a\.gz could not be downloaded \({gone.address}: .*refused"):
        download_mnist(tmp_path, mirrors=[gone.address], files=FILES)


def test_a_damaged_file_that_is_already_there_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "b.gz").write_bytes(bytes(1000))
    with _serving(Mirror()) as mirror:
        download_mnist(tmp_path, mirrors=[mirror.address], files=FILES)
    assert _holds_all(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        download_mnist(tmp_path / "file" / "mnist", mirrors=[], files=FILES)


def test_published_files_are_the_four_of_mnist() -> None:
    assert [file.name for file in MNIST_FILES] == [
        f"{stem}-{kind}-ubyte.gz" for stem in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    ]
    assert all(len(bytes.fromhex(file.sha256)) == 32 for file in MNIST_FILES)
    assert all(mirror.startswith("https://") and mirror.endswith("/mnist/") for mirror in MIRRORS)
