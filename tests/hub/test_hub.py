"""Push and pull sets to a folder, over HTTP, to an object store and to a hub, also with failing connections."""

import base64
import gzip
import json
import os
import re
import shutil
import threading
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from dd_bench import load
from dd_bench.cli.inspect import list_choices, show, verify
from dd_bench.hub import download, hub, remote
from dd_bench.hub.hub import pull, pull_command, push, push_command, sets_at
from dd_bench.synthetic import storage
from dd_bench.synthetic.card import read_card, read_provenance
from dd_bench.synthetic.images import ImageSet

MANY = 5000
"""Images per class of a set of 1 MB, which is larger than the buffers that a broken connection loses."""

BOMB = gzip.compress(bytes(100_000_000), 1)
"""A compressed file that is much larger than the set."""


@pytest.fixture(autouse=True)
def dd_bench_home(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_BENCH_HOME", str(tmp_path / "home"))


@pytest.fixture
def make_set(real_set, tmp_path):
    """Write a set of the first images of a real set of blobs. With many images, the file has several blocks."""

    def write(name="set", per_class=2, first=0):
        real = real_set(per_class=max(40, first + per_class))
        index = torch.cat(
            [(real.train.labels == c).nonzero()[first : first + per_class, 0] for c in range(3)]
        )
        return storage.save(
            ImageSet.coreset(real, index),
            tmp_path / name,
            real=real,
            method="random",
            ipc=per_class,
            seed=0,
            config={},
            citations=["Authors"],
            provenance={"device": "here"},
        )

    return write


def same(a: Path, b: Path) -> bool:
    return {p.name: p.read_bytes() for p in a.iterdir()} == {p.name: p.read_bytes() for p in b.iterdir()}


class Handler(SimpleHTTPRequestHandler):
    """A web server of files that supports ranges and can simulate failures."""

    ranges = True
    cut: dict[str, int] = {}  # noqa: RUF012  file -> bytes after which the connection ends, once
    wrong: set[str] = set()  # noqa: RUF012  files sent with a wrong first byte
    status: dict[str, int] = {}  # noqa: RUF012  file -> HTTP error status
    always_cut = False  # end every connection there, not only the first
    stall: dict[str, int] = {}  # noqa: RUF012  file -> bytes after which each response stops without end
    endless: set[str] = set()  # noqa: RUF012  files sent with endless zeros after their content
    gzipped: set[str] = set()  # noqa: RUF012  files replaced by `BOMB`
    lists, missing = True, 404
    requests: list[tuple[str, str, str]] = []  # noqa: RUF012

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        self.requests.append((self.command, path.name, self.headers.get("Range", "")))
        if status := self.status.get(path.name):
            return self.send_error(status)
        if not (path.is_file() or (self.lists and path.is_dir())):
            return self.send_error(self.missing)
        if not path.is_file():
            return super().do_GET() if self.command == "GET" else super().do_HEAD()
        content = path.read_bytes()
        if path.name in self.wrong:
            content = bytes([content[0] ^ 1]) + content[1:]
        start, size = 0, len(content)
        requested = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.ranges else None
        if requested:
            start, end = int(requested[1]), int(requested[2] or size - 1)
            content = content[start : end + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{size}")
        else:
            self.send_response(200)
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if path.name in self.gzipped:
            self.send_header("Content-Encoding", "gzip")
            content = BOMB
        if path.name not in self.endless:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return None
        if path.name in self.endless:
            self.close_connection = True
            with suppress(OSError):
                self.wfile.write(content)
                while True:
                    self.wfile.write(bytes(65_536))
        if (part := self.stall.get(path.name)) is not None and part < len(content):
            self.wfile.write(content[:part])
            self.rfile.read(1)  # wait until the client closes the connection
            self.close_connection = True
            return None
        left = self.cut.get(path.name)
        if left is not None and start + len(content) > left:
            if not self.always_cut:
                self.cut.pop(path.name)
            content = content[: max(0, left - start)]
            self.close_connection = True
        self.wfile.write(content)
        return None

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    """A web server of the temporary folder; `server.how` is its handler class."""
    own = {
        "cut": {},
        "wrong": set(),
        "requests": [],
        "status": {},
        "stall": {},
        "endless": set(),
        "gzipped": set(),
    }
    kind = type("OfThisTest", (Handler,), own)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(kind, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url, server.how = f"http://127.0.0.1:{server.server_port}", kind
    yield server
    server.shutdown()
    server.server_close()


def visible_sets(tmp_path: Path) -> list[str]:
    """The names of complete sets in the folder of pulled sets."""
    return sorted(p.name for p in (tmp_path / "home" / "sets").glob("[!.]*"))


class TestFolder:
    def test_push_and_pull(self, make_set, tmp_path):
        folder = make_set()
        url = f"file://{tmp_path}/there"
        digest = push(folder, url)
        assert same(folder, tmp_path / "there") and digest == storage.digest(folder)
        assert same(pull(url), folder) and visible_sets(tmp_path) == [f"random-blobs-ipc2-{digest[:16]}"]
        assert load(url).identity() == load(folder).identity()

    def test_existing_files_are_not_sent_again(self, make_set, tmp_path, monkeypatch):
        folder, url = make_set(), f"file://{tmp_path}/there"
        push(folder, url)
        monkeypatch.setattr(remote.Remote, "write", lambda *_: pytest.fail("a file was sent again"))
        push(folder, url)

    def test_interrupted_push_is_completed(self, make_set, tmp_path, monkeypatch):
        """The card is written last, so an incomplete set is not visible."""
        folder, url, write = make_set(), f"file://{tmp_path}/there", remote.Remote.write
        sent = []

        def broken(self, name, file):
            if len(sent) == 2:
                raise OSError("connection lost")
            sent.append(name)
            write(self, name, file)

        monkeypatch.setattr(remote.Remote, "write", broken)
        with pytest.raises(OSError, match="connection lost"):
            push(folder, url)
        with pytest.raises(FileNotFoundError, match=r"card\.json does not exist"):
            pull(url)
        monkeypatch.setattr(remote.Remote, "write", lambda *a: (sent.append(a[1]), write(*a)))
        push(folder, url)
        assert len(sent) == len(set(sent)) and sent[-1] == "card.json" and same(folder, tmp_path / "there")

    def test_another_set_is_only_replaced_on_request(self, make_set, tmp_path):
        url = f"file://{tmp_path}/there"
        push(make_set("a"), url)
        with pytest.raises(ValueError, match=r"contains another set, .* Use another URL, or --replace"):
            push(make_set("b", first=5), url)
        assert same(tmp_path / "a", tmp_path / "there")
        (tmp_path / "b" / "provenance.json").unlink()
        push(tmp_path / "b", url, replace=True)
        assert same(tmp_path / "b", tmp_path / "there"), "the provenance of the old set must be removed"

    def test_damaged_set_is_not_pushed(self, make_set, tmp_path):
        folder = make_set()
        (folder / "preview.png").write_bytes(b"not an image")
        with pytest.raises(ValueError, match="was modified or truncated"):
            push(folder, f"file://{tmp_path}/there")
        assert not (tmp_path / "there").exists()

    def test_pull_to_a_given_folder(self, make_set, tmp_path):
        folder, to = make_set(), tmp_path / "mine"
        assert pull(f"file://{folder}", to=to) == to and same(folder, to)
        assert pull(f"file://{folder}", to=to) == to, "pulling again must succeed"
        with pytest.raises(FileExistsError, match="Remove it first"):
            pull(f"file://{make_set('b', first=5)}", to=to)
        assert same(folder, to)

    def test_required_digest(self, make_set, tmp_path):
        folder = make_set()
        digest = storage.digest(folder)
        with pytest.raises(ValueError, match=f"must have digest {'abc' * 3}, got {digest[:16]}"):
            pull(f"file://{folder}", digest="abc" * 3)
        with pytest.raises(ValueError, match="must have digest abcabcabc"):
            load(folder, digest="ABC" * 3)
        for invalid in ("abc", "*" * 8, ""):
            with pytest.raises(ValueError, match="the digest must be 8 to 64 hexadecimal digits"):
                pull(f"file://{folder}", digest=invalid)
        cached = pull(f"file://{folder}", digest=digest[:8])
        assert pull("https://nowhere.invalid/set", digest=digest[:16]) == cached, (
            "a cached set must need no connection"
        )

    def test_damaged_cached_set_is_pulled_again(self, make_set):
        folder = make_set()
        cached = pull(f"file://{folder}")
        for name in ("synthetic.safetensors", "card.json"):
            (cached / name).write_bytes(b"")
            assert same(pull(f"file://{folder}"), folder)

    def test_card_cannot_choose_the_folder(self, make_set, tmp_path):
        folder = make_set()
        card = json.loads((folder / "card.json").read_text())
        for changes, message in (
            ({"sha256": card["sha256"] | {"../evil": "0" * 64}}, "must list only files in the folder"),
            ({"method": "../../evil"}, None),
        ):
            (folder / "card.json").write_text(json.dumps(card | changes))
            if message:
                with pytest.raises(ValueError, match=message):
                    pull(f"file://{folder}")
                assert visible_sets(tmp_path) == []
            else:
                assert pull(f"file://{folder}").parent == hub.home()

    def test_untrusted_card(self, make_set, tmp_path, capsys):
        """An invalid card is rejected with its URL, leaves no file, and does not hide other sets."""
        valid, folder = make_set("sets/a"), make_set("sets/b", first=5)
        card = json.loads((folder / "card.json").read_text())
        deep = "[" * 100_000
        for text in (
            *(json.dumps(card | c) for c in (
                {"stored_bytes": 5}, {"stored_bytes": {"images": -1}}, {"stored_bytes": {"images": 10**30}},
                {"ipc": 10**30}, {"seed": 10**30}, {"method": "x" * 201}, {"sha256": {"y" * 300: "0"}},
                {"method": "a\ud800b"}, {"config": [1]}, {"dataset": None},
            )),
            "[]", "5", "{", deep,
        ):  # fmt: skip
            (folder / "card.json").write_text(text)
            with pytest.raises(ValueError, match=r"sets/b/card\.json is not a valid card"):
                pull(f"file://{folder}")
            assert [f.url for f in sets_at(f"file://{folder.parent}")] == [f"file://{valid}"]
            assert "b is not a valid card" in capsys.readouterr().err
        (folder / "card.json").write_text(json.dumps(card | {"set": card["set"] | {"factor": "x"}}))
        with pytest.raises(ValueError, match=rf"^file://{folder} is damaged"):
            pull(f"file://{folder}")
        assert visible_sets(tmp_path) == [] and not list((tmp_path / "home" / "sets").glob(".*.partial"))

    def test_markup_and_control_characters_are_removed(self, make_set, capsys):
        folder = make_set("sets/a")
        card = json.loads((folder / "card.json").read_text())
        words = {"method": "[bold]x[/bold] [/]", "licence": "\x1b]0;pwn\x07\x1b[31m"}
        (folder / "card.json").write_text(json.dumps(card | words))
        assert show([str(folder)]) == list_choices(["--remote", f"file://{folder}"]) == 0
        assert verify([str(folder)]) == 0
        output = capsys.readouterr().out
        assert output.count("[bold]x[/bold] [/]") == 3 and "\x1b" not in output and "\x07" not in output
        (folder / "card.json").write_text(json.dumps(card | {"\x1b]0;pwn\x07": 1}))
        assert (
            pull_command([f"file://{folder}"]) == list_choices(["--remote", f"file://{folder.parent}"]) == 1
        )
        output = capsys.readouterr().err
        assert output.count("pwn") > 1 and "\x1b" not in output and "\x07" not in output

    def test_symbolic_link_is_not_pushed(self, make_set, tmp_path):
        """The provenance has no hash. If it is a link, it could point to a private file of the publisher."""
        folder = make_set()
        (folder / "provenance.json").unlink()
        (tmp_path / "secret").write_text('{"device": "mine"}')
        (folder / "provenance.json").symlink_to(tmp_path / "secret")
        push(folder, f"file://{tmp_path}/b")
        assert read_provenance(folder) == {}, "a link must not be read"
        assert sorted(p.name for p in (tmp_path / "b").iterdir()) == sorted(
            p.name for p in folder.iterdir() if not p.is_symlink()
        )


class TestSpecialFiles:
    """Files of a set must be regular files. A FIFO or a device would be read without end."""

    @pytest.mark.parametrize("name", ["card.json", "provenance.json", "synthetic.safetensors", "preview.png"])
    @pytest.mark.parametrize("kind", ["link", "zero", "fifo", "folder"])
    def test_local_set(self, make_set, tmp_path, kind, name):
        folder = make_set()
        (folder / name).rename(tmp_path / name)
        if kind == "fifo":
            os.mkfifo(folder / name)
        elif kind == "folder":
            (folder / name).mkdir()
        else:
            (folder / name).symlink_to(tmp_path / name if kind == "link" else "/dev/zero")
        if name == "provenance.json":
            assert read_provenance(folder) == {}
            push(folder, f"file://{tmp_path}/there")
            assert not (tmp_path / "there" / name).exists()
            return
        found = {"link": "a symbolic link", "zero": "a symbolic link", "fifo": "a FIFO", "folder": "a folder"}
        for act in (storage.load, lambda f: push(f, f"file://{tmp_path}/there")):
            with pytest.raises(ValueError, match=rf"{name} must be a regular file, got {found[kind]}"):
                act(folder)
        with pytest.raises(OSError, match=rf"{name} must be a regular file"):
            pull(f"file://{folder}")

    def test_link_message_contains_the_command(self, make_set, tmp_path):
        folder = make_set()
        (folder / "card.json").rename(tmp_path / "card.json")
        (folder / "card.json").symlink_to(tmp_path / "card.json")
        with pytest.raises(ValueError, match=f"To replace links by copies: cp -rL {folder} COPY"):
            storage.load(folder)


class TestWeb:
    @pytest.mark.parametrize("status", [503, 500, 401, 403, 429])
    def test_server_error_is_not_a_missing_file(self, make_set, web, status, monkeypatch):
        monkeypatch.setattr(download, "ATTEMPTS", 1)
        make_set("a")
        web.how.status["card.json"] = status
        for act in (pull, sets_at):
            with pytest.raises(OSError, match=f"could not be reached: {status}") as error:
                act(f"{web.url}/a")
            assert not isinstance(error.value, FileNotFoundError)

    def test_index_file_of_a_server_without_listings(self, make_set, web, tmp_path, capsys):
        """Such as GitHub Pages, or an object store over https, which returns 403 for missing files."""
        make_set("sets/a")
        make_set("sets/b", first=5)
        web.how.lists = False
        (index := tmp_path / "sets" / "index.json").write_text('{"sets": ["b", "gone", "a"]}')
        assert [f.url[-1] for f in sets_at(f"{web.url}/sets")] == ["a", "b"]
        assert (
            f"skipped gone: it is listed in {web.url}/sets/index.json, but has no card.json"
            in capsys.readouterr().err
        )
        index.write_text('{"sets": ["b", "a"]}')
        web.how.missing = 403
        assert [f.url[-1] for f in sets_at(f"{web.url}/sets")] == ["a", "b"]
        (tmp_path / "sets" / "a" / "provenance.json").unlink()
        assert same(pull(f"{web.url}/sets/a"), tmp_path / "sets" / "a"), "provenance.json is optional"
        web.how.missing = 404
        for names in ('"abc"', '["../a"]', "[1]", '{"a": 1}'):
            index.write_text(f'{{"sets": {names}}}')
            with pytest.raises(ValueError, match=r'index\.json must contain \{"sets": \[folder names\]\}'):
                sets_at(f"{web.url}/sets")
        web.how.lists = True
        for other in ("<html>", '["a"]', '{"pages": []}', "[" * 100_000):  # not an index of sets
            index.write_text(other)
            assert [f.url[-1] for f in sets_at(f"{web.url}/sets")] == ["a", "b"]
        index.unlink()
        with pytest.raises(ValueError, match=f"If it is a website of dd_bench, use {web.url}/sets"):
            sets_at(web.url)

    def test_card_has_a_maximum_size(self, make_set, web, tmp_path, monkeypatch):
        monkeypatch.setattr(remote, "MAX_READ", 100_000)
        (make_set("a") / "card.json").write_bytes(b" " * 200_000)
        for act in (pull, sets_at):
            with pytest.raises(ValueError, match=r"card\.json must have at most 100,000 bytes, got more"):
                act(f"{web.url}/a")

    @pytest.mark.parametrize(
        "name", ["synthetic.safetensors", "README.md", "card.json", "provenance.json", "index.json"]
    )
    def test_endless_file(self, make_set, web, tmp_path, name, capsys):
        """At most the bytes stated in the card are downloaded, and wrong data are deleted."""
        make_set("a")
        (tmp_path / "a" / "index.json").touch()
        web.how.endless.add(name)
        if name in ("provenance.json", "index.json"):
            pull(f"{web.url}/a")
        else:
            with pytest.raises(ValueError, match=rf"{name} must have at most [0-9,]+ bytes, got more"):
                pull(f"{web.url}/a")
            assert not list((tmp_path / "home" / "sets").glob(".*.partial"))
        if name in ("card.json", "index.json"):
            with pytest.raises(ValueError, match=r"must have at most .* bytes, got more"):
                sets_at(f"{web.url}/a")

    def test_download_has_at_most_the_stated_bytes(self, make_set, web, tmp_path, monkeypatch):
        folder = make_set("a")
        web.how.endless.add("synthetic.safetensors")
        sizes = []

        @contextmanager
        def measure(to):
            yield
            sizes.append(to.stat().st_size)

        monkeypatch.setattr(download, "_local_writes", measure)
        with pytest.raises(ValueError, match=r"must have at most .* bytes, got more"):
            pull(f"{web.url}/a")
        assert max(sizes) <= read_card(folder).size_limit("synthetic.safetensors")

    @pytest.mark.parametrize("name", ["synthetic.safetensors", "card.json"])
    def test_compressed_response(self, make_set, web, tmp_path, monkeypatch, name):
        """A small gzip file can expand to gigabytes, so responses must not be compressed."""
        monkeypatch.setattr(download, "ATTEMPTS", 1)
        make_set("a")
        web.how.gzipped.add(name)
        with pytest.raises(OSError, match="must send the file uncompressed, got Content-Encoding: gzip"):
            pull(f"{web.url}/a")

    def test_slow_server_makes_progress(self, make_set, web, monkeypatch):
        """A connection that stalls is closed, and the next attempt continues there. There is no total time limit."""
        monkeypatch.setattr(remote, "STALL", 0.2)
        folder = make_set("a", per_class=MANY // 2)
        web.how.stall["synthetic.safetensors"] = 100_000
        assert same(pull(f"{web.url}/a"), folder)
        starts = [r for _, n, r in web.how.requests if n == "synthetic.safetensors"]
        assert starts[:3] == ["", "bytes=100000-", "bytes=200000-"] and len(starts) > download.ATTEMPTS

    def test_server_without_progress(self, make_set, web, monkeypatch):
        monkeypatch.setattr(remote, "STALL", 0.2)
        make_set("a")
        web.how.stall["synthetic.safetensors"] = 0
        with pytest.raises(
            OSError, match=r"safetensors could not be read: no data were received for 0\.2 seconds"
        ):
            pull(f"{web.url}/a")
        assert len([n for _, n, _ in web.how.requests if n == "synthetic.safetensors"]) == download.ATTEMPTS

    def test_list_of_sets_is_bounded(self, make_set, web, tmp_path, monkeypatch):
        make_set("sets/a")
        make_set("sets/b", first=5)
        monkeypatch.setattr(hub, "MAX_SETS", 1)
        names = tmp_path / "sets" / "index.json"
        for url in (f"{web.url}/sets", f"file://{tmp_path}/sets"):
            with pytest.raises(ValueError, match=r"lists 2 sets, but at most 1 can be read"):
                sets_at(url)
        names.write_text('{"sets": ["a", "b", "c"]}')
        with pytest.raises(ValueError, match=r"lists 3 sets, but at most 1 can be read"):
            sets_at(f"{web.url}/sets")
        monkeypatch.undo()
        monkeypatch.setattr(remote, "MAX_LISTING", 2000)
        with pytest.raises(ValueError, match=r"must have at most 2,000 bytes in total"):
            sets_at(f"file://{tmp_path}/sets")

    def test_pull_and_list(self, make_set, web, tmp_path, capsys):
        folder, url = make_set("sets/a"), web.url + "/sets"
        make_set("sets/b", first=7)
        (tmp_path / "sets" / "no_set").mkdir()
        (tmp_path / "sets" / "later").mkdir()
        (tmp_path / "sets" / "later" / "card.json").write_text('{"schema_version": 9}')
        assert same(pull(f"{url}/a/"), folder)
        assert [f.url for f in sets_at(url)] == [f"{url}/a", f"{url}/b"]
        assert "warning: skipped" in capsys.readouterr().err, "an unreadable card must not hide other sets"
        assert sets_at(f"{url}/a")[0].digest == storage.digest(folder)
        assert list_choices(["--remote", url]) == 0 and storage.digest(folder)[:16] in capsys.readouterr().out
        assert list_choices(["--remote", f"{url}/no_set"]) == 1
        assert "contains no synthetic set" in capsys.readouterr().err

    def test_pulled_set_is_not_downloaded_again(self, make_set, web):
        make_set("a")
        pull(f"{web.url}/a")
        web.how.requests.clear()
        pull(f"{web.url}/a")
        assert {name for _, name, _ in web.how.requests} == {"card.json"}

    @pytest.mark.parametrize("ranges", [True, False])
    def test_interrupted_download_is_resumed(self, make_set, web, monkeypatch, ranges):
        monkeypatch.setattr(remote, "BLOCK", 65_536)
        web.how.ranges = ranges
        folder = make_set("a", per_class=MANY)
        web.how.cut["synthetic.safetensors"] = 700_000
        assert same(pull(f"{web.url}/a"), folder)
        ranges_requested = [
            r for c, name, r in web.how.requests if name == "synthetic.safetensors" and c == "GET"
        ]
        starts = [int(r[6:].split("-")[0]) for r in ranges_requested if r]
        assert min(starts) > 0 if ranges else ranges_requested.count("") == 2

    def test_failed_download_is_not_visible(self, make_set, web, tmp_path, monkeypatch):
        """The received data is kept in a hidden folder, and the next pull continues there."""
        monkeypatch.setattr(remote, "BLOCK", 65_536)
        folder = make_set("a", per_class=MANY)
        monkeypatch.setattr(download, "ATTEMPTS", 1)
        web.how.cut["synthetic.safetensors"], web.how.always_cut = 700_000, True
        with pytest.raises(OSError, match=r"a/synthetic\.safetensors could not be reached"):
            pull(f"{web.url}/a")
        web.how.cut.clear()
        assert visible_sets(tmp_path) == []
        (partial_file,) = (tmp_path / "home" / "sets").glob(".*.partial/synthetic.safetensors")
        size = partial_file.stat().st_size
        assert (
            0 < size <= 700_000
            and partial_file.read_bytes() == (folder / partial_file.name).read_bytes()[:size]
        )
        web.how.requests.clear()
        assert same(pull(f"{web.url}/a"), folder)
        starts = [int(r[6:].split("-")[0]) for _, n, r in web.how.requests if n == partial_file.name and r]
        assert min(starts) == size, "the download must continue where it stopped"
        assert not list((tmp_path / "home" / "sets").glob(".*.partial"))

    def test_wrong_bytes_are_deleted(self, make_set, web, tmp_path):
        folder = make_set("a")
        web.how.wrong.add("synthetic.safetensors")
        with pytest.raises(ValueError, match=r"must have sha256 .* as in card.*Pull again"):
            pull(f"{web.url}/a")
        assert visible_sets(tmp_path) == []
        assert not list((tmp_path / "home" / "sets").glob(".*.partial")), "wrong data must be deleted"
        web.how.wrong.clear()
        assert same(pull(f"{web.url}/a"), folder)

    def test_web_server_is_read_only(self, make_set, web):
        with pytest.raises(OSError, match="is read-only"):
            push(make_set("a"), f"{web.url}/b")

    def test_provenance_is_optional(self, make_set, web):
        (make_set("a") / "provenance.json").unlink()
        assert read_provenance(pull(f"{web.url}/a")) == {}

    def test_commands(self, make_set, web, tmp_path, capsys):
        folder = make_set("a")
        assert pull_command([f"{web.url}/a"]) == 0
        assert same(Path(capsys.readouterr().out.strip()), folder)
        assert pull_command([f"{web.url}/none"]) == 1
        assert f"{web.url}/none/card.json does not exist" in capsys.readouterr().err
        assert push_command([str(folder), f"file://{tmp_path}/b"]) == 0
        assert storage.digest(folder) in capsys.readouterr().out
        for url in ("b", "s3://", "s3:////", "hf://", "https://", "file://", "file:///", ""):
            assert push_command([str(folder), url]) == 1
            assert f"expected the URL of a folder, got {url!r}. Examples: file:///" in capsys.readouterr().err
        assert push_command([str(folder), "s4://a/b"]) == 1
        assert "the URL s4://a/b is not supported" in capsys.readouterr().err
        assert push_command([str(folder), "file:///proc/x"]) == 1
        assert "the folder could not be created" in capsys.readouterr().err
        assert pull_command([f"{web.url}/a/card.json"]) == 1
        assert f"dd-bench list --remote {web.url}/a\n" in capsys.readouterr().err

    def test_unreachable_server_is_not_a_missing_file(self, web, monkeypatch):
        monkeypatch.setattr(download, "ATTEMPTS", 1)
        url = web.url
        web.shutdown()
        web.server_close()
        for act in (pull, sets_at):
            with pytest.raises(OSError, match="could not be reached") as error:
                act(f"{url}/a")
            assert not isinstance(error.value, FileNotFoundError)


FULL = """
import os, resource
os.environ["DD_BENCH_HOME"] = home
from dd_bench.hub import download, hub, remote
results = open(path, "w")
remote.BLOCK = 65_536
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
try: hub.pull(url)
except OSError as error: print(error, file=results)
assert not list(hub.home().glob("[!.]*")), "an incomplete set is visible"
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(hub.pull(url), file=results, flush=True)
"""


def test_full_disk(make_set, web, tmp_path, fork):
    """A failed write leaves no visible set, and the same command continues when there is space again."""
    folder = make_set("a", per_class=MANY)
    path, home = tmp_path / "results.txt", os.environ["DD_BENCH_HOME"]
    process = fork(FULL, url=f"{web.url}/a", home=home, path=str(path))
    assert process.wait(timeout=60) == 0, (tmp_path / "printed.txt").read_text()
    message, pulled = path.read_text().splitlines()
    assert "data received so far is kept" in message and "synthetic.safetensors" in message
    assert same(Path(pulled), folder)


class TestObjectStore:
    """An S3 server in this process."""

    @pytest.fixture(scope="class")
    def s3(self):
        pytest.importorskip("s3fs")
        boto3 = pytest.importorskip("boto3")
        server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
        server.start()
        with pytest.MonkeyPatch.context() as patch:
            host, port = server.get_host_and_port()
            for name, value in (
                ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
                ("AWS_ACCESS_KEY_ID", "a"),
                ("AWS_SECRET_ACCESS_KEY", "b"),
                ("AWS_DEFAULT_REGION", "us-east-1"),
            ):
                patch.setenv(name, value)
            boto3.client("s3").create_bucket(Bucket="sets")
            yield "s3://sets"
        server.stop()

    def test_push_and_pull(self, make_set, s3):
        folder = make_set(per_class=MANY)
        push(folder, f"{s3}/x/a")
        push(folder, f"{s3}/x/a")
        assert same(pull(f"{s3}/x/a"), folder)
        assert [f.digest for f in sets_at(f"{s3}/x")] == [storage.digest(folder)]

    def test_missing_set_or_bucket(self, make_set, s3):
        with pytest.raises(FileNotFoundError, match=r"s3://sets/none/card\.json does not exist"):
            pull(f"{s3}/none")
        with pytest.raises(OSError, match="s3://no-bucket"):
            push(make_set(), "s3://no-bucket/a")


class Hub(BaseHTTPRequestHandler):
    """The endpoints of the Hugging Face hub that one commit and its download need."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    commits: list[str] = []  # noqa: RUF012

    def _send(self, body, code=200, **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _entry(self, name):
        return {"type": "file", "path": name, "size": len(self.files[name]), "oid": "0" * 40}

    def do_GET(self):
        path = self.path.partition("?")[0]
        if match := re.fullmatch("/datasets/me/mine/resolve/[^/]+/(.+)", path):
            if match[1] not in self.files:
                return self._send({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            how = {"ETag": '"x"', "X_Repo_Commit": "1" * 40, "Accept_Ranges": "bytes"}
            content = self.files[match[1]]
            if requested := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
                return self._send(content[int(requested[1]) : int(requested[2]) + 1], 206, **how)
            return self._send(content, **how)
        if re.fullmatch("/api/datasets/me/mine(/revision/[^/]+)?", path):
            return self._send({"id": "me/mine", "sha": "1" * 40, "siblings": [], "tags": []})
        if match := re.fullmatch("/api/datasets/me/mine/tree/[^/]+/?(.*)", path):
            inside = f"{match[1]}/" if match[1] else ""
            return self._send([self._entry(n) for n in self.files if n.startswith(inside)])
        return self._send({"error": "not found"}, 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            return self._send({"url": f"http://{self.headers['Host']}/datasets/me/mine"})
        if self.path == "/api/validate-yaml":
            return self._send({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = json.loads(body)["files"]
            return self._send(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files
                    ]
                }
            )
        if "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                if line["key"] == "header":
                    self.commits.append(line["value"]["summary"])
            return self._send(
                {
                    "success": True,
                    "commitUrl": f"http://{self.headers['Host']}/datasets/me/mine/commit/1",
                    "commitOid": "1" * 40,
                }
            )
        if "/paths-info/" in self.path:
            paths = json.loads(body)["paths"]
            return self._send([self._entry(n) for n in paths if n in self.files])
        return self._send({}, 404)

    def log_message(self, *_):
        pass


def make_release(folder, to):
    """The layout of a release folder; its own files are in test_release.py."""
    (to / "data").mkdir(parents=True)
    (to / "README.md").write_text("---\nlicense: mit\n---\n")
    (to / "data" / "train.parquet").write_bytes(b"a table")
    shutil.copytree(folder, to / "set")
    return to


def test_release_folder(make_set, tmp_path, capsys):
    """All files are copied, the card of the set last, and a changed dataset card is sent again."""
    release = make_release(make_set(), tmp_path / "release")
    url = f"file://{tmp_path}/there"
    digest = storage.digest(release / "set")
    assert push_command([str(release), url]) == 0
    assert capsys.readouterr().out == f"{url}/set: {digest}\n"
    assert storage.digest(pull(f"{url}/set")) == digest
    sent = {p.relative_to(release).as_posix() for p in release.rglob("*") if p.is_file()}
    assert {p.relative_to(tmp_path / "there").as_posix() for p in (tmp_path / "there").rglob("*.*")} == sent
    (release / "README.md").write_text("new scores")
    push(release, url)
    assert (tmp_path / "there" / "README.md").read_text() == "new scores"
    other = make_release(make_set("other", first=9), tmp_path / "other_release")
    with pytest.raises(ValueError, match="already contains another set"):
        push(other, url)


HUB = """
import os, sys
from pathlib import Path
assert "huggingface_hub" not in sys.modules
os.environ.update(environment)
from dd_bench.hub.hub import pull, push
url, results = "hf://datasets/me/mine/a", open(path, "w")
print(push(Path(folder), url), file=results)
print(pull(url), file=results)
try: push(Path(other), url)
except ValueError as error: print(error, file=results)
try: push(Path(folder), "hf://datasets/me")
except ValueError as error: print(error, file=results, flush=True)
for _ in range(2): print(push(Path(release), "hf://datasets/me/mine"), file=results, flush=True)
"""


def test_hugging_face_hub(make_set, tmp_path, fork):
    """Runs in another process, because the hub's library reads its endpoint when it is imported."""
    kind = type("OfThisTest", (Hub,), {"files": {}, "commits": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = make_set()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_x"}
    environment["DD_BENCH_HOME"] = os.environ["DD_BENCH_HOME"]
    path, other = tmp_path / "results.txt", make_set("other", first=9)
    release = make_release(folder, tmp_path / "release")
    names = {"folder": str(folder), "other": str(other), "path": str(path), "environment": environment}
    names["release"] = str(release)
    process = fork(HUB, **names)
    assert process.wait(timeout=60) == 0, (tmp_path / "printed.txt").read_text()
    server.shutdown()
    server.server_close()
    digest, pulled, replaced, invalid_url, *released = path.read_text().splitlines()
    assert "contains another set" in replaced
    assert digest == storage.digest(folder) and same(Path(pulled), folder)
    assert kind.commits[:2] == [f"Add {folder.name}", "Add release"], "one commit for each push"
    assert released == [digest, digest]
    paths = {p.relative_to(release).as_posix() for p in release.rglob("*") if p.is_file()}
    assert set(kind.files) == {f"a/{p.name}" for p in folder.iterdir()} | paths
    assert "the URL must be hf://datasets/USER/NAME" in invalid_url


def test_readme_is_a_dataset_card_of_the_hub(make_set):
    """The hub's library can read its front matter."""
    from huggingface_hub import DatasetCard

    data = DatasetCard((make_set() / "README.md").read_text()).data
    assert data.license == "other" and re.fullmatch("[a-z0-9.-]+", data.license_name)
    assert {"dataset-distillation", "ipc-2", "random", "blobs"} <= set(data.tags)


def test_missing_library(monkeypatch):
    import fsspec

    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ImportError, match=r"pip install 'dd-bench\[s3\]'"):
        pull("s3://sets/a")
    with pytest.raises(ImportError, match="Use: pip install s3fs"):
        pull("gs://sets/a")

    def without_name(*_, **__):
        raise ImportError("no such module")

    monkeypatch.setattr(fsspec.core, "url_to_fs", without_name)
    with pytest.raises(ImportError, match=r"requires a library that is not installed \(no such module\)$"):
        pull("gs://sets/a")
