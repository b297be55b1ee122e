"""Sets that travel: to a folder, over HTTP, to an object store and to a hub, and what goes wrong on the way."""

import base64
import json
import os
import re
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

import dd_bench
from dd_bench.cli.inspect import list_choices, show, verify
from dd_bench.hub import hub, remote
from dd_bench.hub.hub import load, pull, pull_verb, push, push_verb, sets_at
from dd_bench.synthetic import storage
from dd_bench.synthetic.card import read_provenance
from dd_bench.synthetic.images import ImageSet

MANY = 5000
"""Images a class of a set of a megabyte: what a broken connection leaves in buffers is lost, and that is less."""


@pytest.fixture(autouse=True)
def at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("DD_BENCH_HOME", str(tmp_path / "home"))


@pytest.fixture
def made(real_set, tmp_path):
    """Writes the set of the first images of a real set of blobs; many make files of several blocks."""

    def make(name="set", per_class=2, first=0):
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
            citations=["nobody"],
            provenance={"device": "here"},
        )

    return make


def same(a: Path, b: Path) -> bool:
    return {p.name: p.read_bytes() for p in a.iterdir()} == {p.name: p.read_bytes() for p in b.iterdir()}


class Handler(SimpleHTTPRequestHandler):
    """A web server of files with ranges, that can be told to misbehave."""

    ranges = True
    cut: dict[str, int] = {}  # noqa: RUF012  file -> bytes after which the connection ends, once
    wrong: set[str] = set()  # noqa: RUF012  files whose first byte is another
    status: dict[str, int] = {}  # noqa: RUF012  answers instead of a file
    lists, missing = True, 404
    asked: list[tuple[str, str, str]] = []  # noqa: RUF012

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        self.asked.append((self.command, path.name, self.headers.get("Range", "")))
        if trouble := self.status.get(path.name):
            return self.send_error(trouble)
        if not (path.is_file() or (self.lists and path.is_dir())):
            return self.send_error(self.missing)
        if not path.is_file():
            return super().do_GET() if self.command == "GET" else super().do_HEAD()
        content = path.read_bytes()
        if path.name in self.wrong:
            content = bytes([content[0] ^ 1]) + content[1:]
        start, whole = 0, len(content)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.ranges else None
        if wanted:
            start, end = int(wanted[1]), int(wanted[2] or whole - 1)
            content = content[start : end + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{whole}")
        else:
            self.send_response(200)
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return None
        left = self.cut.get(path.name)
        if left is not None and start + len(content) > left:
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
    """A web server of the temporary folder; its handler can be told to misbehave."""
    kind = type("OfThisTest", (Handler,), {"cut": {}, "wrong": set(), "asked": [], "status": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(kind, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.url, server.how = f"http://127.0.0.1:{server.server_port}", kind
    yield server
    server.shutdown()
    server.server_close()


def there(tmp_path: Path) -> list[str]:
    """What a user sees in the folder of pulled sets."""
    return sorted(p.name for p in (tmp_path / "home" / "sets").glob("[!.]*"))


class TestFolder:
    def test_there_and_back(self, made, tmp_path):
        folder = made()
        url = f"file://{tmp_path}/there"
        digest = push(folder, url)
        assert same(folder, tmp_path / "there") and digest == storage.digest(folder)
        assert same(pull(url), folder) and there(tmp_path) == [f"random-blobs-ipc2-{digest[:16]}"]
        assert load(url).identity() == load(folder).identity() == dd_bench.load(str(folder)).identity()

    def test_what_is_there_is_not_sent_again(self, made, tmp_path, monkeypatch):
        folder, url = made(), f"file://{tmp_path}/there"
        push(folder, url)
        monkeypatch.setattr(remote.Remote, "write", lambda *_: pytest.fail("it was sent again"))
        push(folder, url)

    def test_a_set_that_was_sent_in_part_is_completed(self, made, tmp_path, monkeypatch):
        """The card comes last: until then nobody sees a set."""
        folder, url, write = made(), f"file://{tmp_path}/there", remote.Remote.write
        sent = []

        def broken(self, name, file):
            if len(sent) == 2:
                raise OSError("the line is dead")
            sent.append(name)
            write(self, name, file)

        monkeypatch.setattr(remote.Remote, "write", broken)
        with pytest.raises(OSError, match="the line is dead"):
            push(folder, url)
        with pytest.raises(FileNotFoundError, match=r"there is no .*card\.json"):
            pull(url)
        monkeypatch.setattr(remote.Remote, "write", lambda *a: (sent.append(a[1]), write(*a)))
        push(folder, url)
        assert len(sent) == len(set(sent)) and sent[-1] == "card.json" and same(folder, tmp_path / "there")

    def test_another_set_stays_unless_told(self, made, tmp_path):
        url = f"file://{tmp_path}/there"
        push(made("a"), url)
        with pytest.raises(ValueError, match=r"holds another set .* Use another URL, or --replace"):
            push(made("b", first=5), url)
        assert same(tmp_path / "a", tmp_path / "there")
        (tmp_path / "b" / "provenance.json").unlink()
        push(tmp_path / "b", url, replace=True)
        assert same(tmp_path / "b", tmp_path / "there"), "nor does the provenance of the old one stay"

    def test_a_damaged_set_is_not_sent(self, made, tmp_path):
        folder = made()
        (folder / "preview.png").write_bytes(b"no picture")
        with pytest.raises(ValueError, match="was changed or cut"):
            push(folder, f"file://{tmp_path}/there")
        assert not (tmp_path / "there").exists()

    def test_to_a_place_of_ones_own(self, made, tmp_path):
        folder, to = made(), tmp_path / "mine"
        assert pull(f"file://{folder}", to=to) == to and same(folder, to)
        assert pull(f"file://{folder}", to=to) == to, "it is there already"
        with pytest.raises(FileExistsError, match="Remove it first"):
            pull(f"file://{made('b', first=5)}", to=to)
        assert same(folder, to)

    def test_the_digest_that_is_wanted(self, made, tmp_path):
        folder = made()
        digest = storage.digest(folder)
        with pytest.raises(ValueError, match=f"has digest {digest[:16]}, wanted {'abc' * 3}"):
            pull(f"file://{folder}", digest="abc" * 3)
        with pytest.raises(ValueError, match="wanted abcabcabc"):
            load(folder, digest="ABC" * 3)
        for none in ("abc", "*" * 8, ""):
            with pytest.raises(ValueError, match="is no digest of a set: wanted its first 8 hexadecimal"):
                pull(f"file://{folder}", digest=none)
        kept = pull(f"file://{folder}", digest=digest[:8])
        assert pull("https://nowhere.invalid/set", digest=digest[:16]) == kept, "no connection is needed"

    def test_a_copy_that_was_damaged_is_fetched_again(self, made):
        folder = made()
        kept = pull(f"file://{folder}")
        for name in ("synthetic.safetensors", "card.json"):
            (kept / name).write_bytes(b"")
            assert same(pull(f"file://{folder}"), folder)

    def test_a_card_does_not_choose_where_it_lies(self, made, tmp_path):
        folder = made()
        card = json.loads((folder / "card.json").read_text())
        for changes, message in (
            ({"sha256": card["sha256"] | {"../evil": "0" * 64}}, "names a file outside its folder"),
            ({"method": "../../evil"}, None),
        ):
            (folder / "card.json").write_text(json.dumps(card | changes))
            if message:
                with pytest.raises(ValueError, match=message):
                    pull(f"file://{folder}")
                assert there(tmp_path) == []
            else:
                assert pull(f"file://{folder}").parent == hub.home()

    def test_a_stranger_s_card(self, made, tmp_path, capsys):
        """Whatever it says: it is refused with its address, nothing is left, and other sets are listed as before."""
        whole, folder = made("sets/a"), made("sets/b", first=5)
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
            assert [f.url for f in sets_at(f"file://{folder.parent}")] == [f"file://{whole}"]
            assert "b is not a valid card" in capsys.readouterr().err
        (folder / "card.json").write_text(json.dumps(card | {"set": card["set"] | {"factor": "x"}}))
        with pytest.raises(ValueError, match=rf"^file://{folder} is damaged"):
            pull(f"file://{folder}")
        assert there(tmp_path) == [] and not list((tmp_path / "home" / "sets").glob(".*.partial"))

    def test_a_stranger_s_words_are_words(self, made, capsys):
        folder = made("sets/a")
        card = json.loads((folder / "card.json").read_text())
        words = {"method": "[bold]x[/bold] [/]", "licence": "\x1b]0;pwn\x07\x1b[31m"}
        (folder / "card.json").write_text(json.dumps(card | words))
        assert show([str(folder)]) == list_choices(["--remote", f"file://{folder}"]) == 0
        assert verify([str(folder)]) == 0
        said = capsys.readouterr().out
        assert said.count("[bold]x[/bold] [/]") == 3 and "\x1b" not in said and "\x07" not in said
        (folder / "card.json").write_text(json.dumps(card | {"\x1b]0;pwn\x07": 1}))
        assert pull_verb([f"file://{folder}"]) == list_choices(["--remote", f"file://{folder.parent}"]) == 1
        said = capsys.readouterr().err
        assert said.count("pwn") > 1 and "\x1b" not in said and "\x07" not in said

    def test_a_link_is_not_sent(self, made, tmp_path):
        """No hash covers the provenance; git keeps links, and one may lead anywhere on the machine that publishes."""
        folder = made()
        (folder / "provenance.json").unlink()
        (tmp_path / "secret").write_text('{"device": "mine"}')
        (folder / "provenance.json").symlink_to(tmp_path / "secret")
        push(folder, f"file://{tmp_path}/b")
        assert read_provenance(folder) == {"device": "mine"}, "here it is known"
        assert sorted(p.name for p in (tmp_path / "b").iterdir()) == sorted(
            p.name for p in folder.iterdir() if not p.is_symlink()
        )


class TestWeb:
    @pytest.mark.parametrize("status", [503, 500, 401, 403, 429])
    def test_a_server_in_trouble_is_no_missing_file(self, made, web, status, monkeypatch):
        monkeypatch.setattr(remote, "ATTEMPTS", 1)
        made("a")
        web.how.status["card.json"] = status
        for act in (pull, sets_at):
            with pytest.raises(OSError, match=f"could not be reached: {status}") as told:
                act(f"{web.url}/a")
            assert not isinstance(told.value, FileNotFoundError)

    def test_an_index_where_nothing_is_listed(self, made, web, tmp_path, capsys):
        """Of pages, or of an object store over https, which forbids what is not there."""
        made("sets/a")
        made("sets/b", first=5)
        web.how.lists = False
        (index := tmp_path / "sets" / "index.json").write_text('{"sets": ["b", "gone", "a"]}')
        assert [f.url[-1] for f in sets_at(f"{web.url}/sets")] == ["a", "b"]
        assert "index.json names gone, which has no card.json" in capsys.readouterr().err
        index.write_text('{"sets": ["b", "a"]}')
        web.how.missing = 403
        assert [f.url[-1] for f in sets_at(f"{web.url}/sets")] == ["a", "b"]
        (tmp_path / "sets" / "a" / "provenance.json").unlink()
        assert same(pull(f"{web.url}/sets/a"), tmp_path / "sets" / "a"), "it may be absent"
        web.how.missing = 404
        for names in ('"abc"', '["../a"]', "[1]", '{"a": 1}'):
            index.write_text(f'{{"sets": {names}}}')
            with pytest.raises(ValueError, match=r'index\.json is not \{"sets": \[names of folders\]\}'):
                sets_at(f"{web.url}/sets")
        web.how.lists = True
        for other in ("<html>", '["a"]', '{"pages": []}', "[" * 100_000):  # of somebody else
            index.write_text(other)
            assert [f.url[-1] for f in sets_at(f"{web.url}/sets")] == ["a", "b"]
        index.unlink()
        with pytest.raises(ValueError, match=f"If it is a site of dd_bench, its sets are in {web.url}/sets"):
            sets_at(web.url)

    def test_a_card_is_small(self, made, web, tmp_path, monkeypatch):
        monkeypatch.setattr(remote, "SMALL", 100_000)
        (made("a") / "card.json").write_bytes(b" " * 200_000)
        for act in (pull, sets_at):
            with pytest.raises(OSError, match="larger than 100,000 bytes"):
                act(f"{web.url}/a")

    def test_pull_and_list(self, made, web, tmp_path, capsys):
        folder, url = made("sets/a"), web.url + "/sets"
        made("sets/b", first=7)
        (tmp_path / "sets" / "no_set").mkdir()
        (tmp_path / "sets" / "later").mkdir()
        (tmp_path / "sets" / "later" / "card.json").write_text('{"schema_version": 9}')
        assert same(pull(f"{url}/a/"), folder)
        assert [f.url for f in sets_at(url)] == [f"{url}/a", f"{url}/b"]
        assert "left out: " in capsys.readouterr().err, "a card of a later version hides no other"
        assert sets_at(f"{url}/a")[0].digest == storage.digest(folder)
        assert list_choices(["--remote", url]) == 0 and storage.digest(folder)[:16] in capsys.readouterr().out
        assert list_choices(["--remote", f"{url}/no_set"]) == 1
        assert "holds no synthetic set" in capsys.readouterr().err

    def test_a_pulled_set_is_not_asked_for_again(self, made, web):
        made("a")
        pull(f"{web.url}/a")
        web.how.asked.clear()
        pull(f"{web.url}/a")
        assert {name for _, name, _ in web.how.asked} == {"card.json"}

    @pytest.mark.parametrize("ranges", [True, False])
    def test_a_cut_connection_is_taken_up_again(self, made, web, monkeypatch, ranges):
        monkeypatch.setattr(remote, "BLOCK", 65_536)
        web.how.ranges = ranges
        folder = made("a", per_class=MANY)
        web.how.cut["synthetic.safetensors"] = 700_000
        assert same(pull(f"{web.url}/a"), folder)
        asked = [r for c, name, r in web.how.asked if name == "synthetic.safetensors" and c == "GET"]
        starts = [int(r[6:].split("-")[0]) for r in asked if r]
        assert min(starts) > 0 if ranges else asked.count("") == 2

    def test_a_dead_connection_leaves_nothing_to_see(self, made, web, tmp_path, monkeypatch):
        """What arrived is kept out of sight, and the next pull goes on from there."""
        monkeypatch.setattr(remote, "BLOCK", 65_536)
        folder = made("a", per_class=MANY)
        monkeypatch.setattr(remote, "ATTEMPTS", 1)
        web.how.cut["synthetic.safetensors"] = 700_000
        with pytest.raises(OSError, match=r"a/synthetic\.safetensors could not be reached"):
            pull(f"{web.url}/a")
        assert there(tmp_path) == []
        (part,) = (tmp_path / "home" / "sets").glob(".*.partial/synthetic.safetensors")
        have = part.stat().st_size
        assert 0 < have <= 700_000 and part.read_bytes() == (folder / part.name).read_bytes()[:have]
        web.how.asked.clear()
        assert same(pull(f"{web.url}/a"), folder)
        starts = [int(r[6:].split("-")[0]) for _, n, r in web.how.asked if n == part.name and r]
        assert min(starts) == have, "from where it ended"
        assert not list((tmp_path / "home" / "sets").glob(".*.partial"))

    def test_wrong_bytes_are_thrown_away(self, made, web, tmp_path):
        folder = made("a")
        web.how.wrong.add("synthetic.safetensors")
        with pytest.raises(ValueError, match=r"is not what its card says.*pull again, or ask"):
            pull(f"{web.url}/a")
        assert there(tmp_path) == []
        assert not list((tmp_path / "home" / "sets").glob(".*.partial")), "nothing of it was kept"
        web.how.wrong.clear()
        assert same(pull(f"{web.url}/a"), folder)

    def test_it_cannot_be_written(self, made, web):
        with pytest.raises(OSError, match="can be read and not written"):
            push(made("a"), f"{web.url}/b")

    def test_provenance_may_be_absent(self, made, web):
        (made("a") / "provenance.json").unlink()
        assert read_provenance(pull(f"{web.url}/a")) == {}

    def test_the_commands(self, made, web, tmp_path, capsys):
        folder = made("a")
        assert pull_verb([f"{web.url}/a"]) == 0
        assert same(Path(capsys.readouterr().out.strip()), folder)
        assert pull_verb([f"{web.url}/none"]) == 1
        assert f"there is no {web.url}/none/card.json" in capsys.readouterr().err
        assert push_verb([str(folder), f"file://{tmp_path}/b"]) == 0
        assert storage.digest(folder) in capsys.readouterr().out
        for url in ("b", "s3://", "s3:////", "hf://", "https://", "file://", "file:///", ""):
            assert push_verb([str(folder), url]) == 1
            assert f"{url!r} is no URL of a folder. Use e.g. file:///" in capsys.readouterr().err
        assert push_verb([str(folder), "s4://a/b"]) == 1
        assert "s4://a/b: no library knows such URLs" in capsys.readouterr().err
        assert push_verb([str(folder), "file:///proc/x"]) == 1
        assert "no folder can be made there" in capsys.readouterr().err
        assert pull_verb([f"{web.url}/a/card.json"]) == 1
        assert f"dd-bench list --remote {web.url}/a\n" in capsys.readouterr().err

    def test_a_server_that_is_not_there_is_no_missing_file(self, web, monkeypatch):
        monkeypatch.setattr(remote, "ATTEMPTS", 1)
        url = web.url
        web.shutdown()
        web.server_close()
        for act in (pull, sets_at):
            with pytest.raises(OSError, match="could not be reached") as told:
                act(f"{url}/a")
            assert not isinstance(told.value, FileNotFoundError)


FULL = """
import resource, sys
from dd_bench.hub import hub, remote
remote.BLOCK = 65_536
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))
try: hub.pull(sys.argv[1])
except OSError as error: print(error)
assert not list(hub.home().glob("[!.]*")), "a part of a set is to be seen"
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(hub.pull(sys.argv[1]))
"""


def test_a_full_disk_leaves_nothing_to_see(made, web, tmp_path):
    """The kernel refuses the bytes; with room again, the same command ends what it began."""
    folder = made("a", per_class=MANY)
    done = subprocess.run(
        [sys.executable, "-c", FULL, f"{web.url}/a"], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    message, kept = done.stdout.strip().splitlines()
    assert "what has arrived is kept" in message and "synthetic.safetensors" in message
    assert same(Path(kept), folder)


class TestObjectStore:
    """A server that speaks S3, in this process."""

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

    def test_there_and_back(self, made, s3):
        folder = made(per_class=MANY)
        push(folder, f"{s3}/x/a")
        push(folder, f"{s3}/x/a")
        assert same(pull(f"{s3}/x/a"), folder)
        assert [f.digest for f in sets_at(f"{s3}/x")] == [storage.digest(folder)]

    def test_no_such_set_or_bucket(self, made, s3):
        with pytest.raises(FileNotFoundError, match=r"there is no s3://sets/none/card\.json"):
            pull(f"{s3}/none")
        with pytest.raises(OSError, match="s3://no-bucket"):
            push(made(), "s3://no-bucket/a")


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as one commit and its reading need."""

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
            if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")):
                return self._send(content[int(wanted[1]) : int(wanted[2]) + 1], 206, **how)
            return self._send(content, **how)
        if re.fullmatch("/api/datasets/me/mine(/revision/[^/]+)?", path):
            return self._send({"id": "me/mine", "sha": "1" * 40, "siblings": [], "tags": []})
        if match := re.fullmatch("/api/datasets/me/mine/tree/[^/]+/?(.*)", path):
            inside = f"{match[1]}/" if match[1] else ""
            return self._send([self._entry(n) for n in self.files if n.startswith(inside)])
        return self._send({"error": "nothing here"}, 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            return self._send({"url": f"http://{self.headers['Host']}/datasets/me/mine"})
        if self.path == "/api/validate-yaml":
            return self._send({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            asked = json.loads(body)["files"]
            return self._send(
                {
                    "files": [
                        {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in asked
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
            asked = json.loads(body)["paths"]
            return self._send([self._entry(n) for n in asked if n in self.files])
        return self._send({}, 404)

    def log_message(self, *_):
        pass


HUB = """
import sys
from dd_bench.hub.hub import load, pull, push
url = "hf://datasets/me/mine/a"
print(push(__import__("pathlib").Path(sys.argv[1]), url))
print(pull(url))
try: push(__import__("pathlib").Path(sys.argv[2]), url)
except ValueError as error: print(error)
try: push(__import__("pathlib").Path(sys.argv[1]), "hf://datasets/me")
except ValueError as error: print(error)
"""


def test_the_hub(made, tmp_path):
    """In another process: the address of the hub is read when its library is imported."""
    kind = type("OfThisTest", (Hub,), {"files": {}, "commits": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = made()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    world = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "hf_x"}
    done = subprocess.run(
        [sys.executable, "-c", HUB, str(folder), str(made("other", first=9))],
        capture_output=True,
        text=True,
        env=world,
    )
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    digest, pulled, another, refused = done.stdout.strip().splitlines()
    assert "holds another set" in another
    assert digest == storage.digest(folder) and same(Path(pulled), folder)
    assert kind.commits == [f"Add {folder.name}"], "one commit: a set on the hub is whole or not there"
    assert set(kind.files) == {f"a/{p.name}" for p in folder.iterdir()}
    assert "names no dataset of the hub. Use hf://datasets/USER/NAME" in refused


def test_the_card_is_one_of_the_hub(made):
    """Its front matter is what the hub's own library reads."""
    from huggingface_hub import DatasetCard

    data = DatasetCard((made() / "README.md").read_text()).data
    assert data.license == "other" and re.fullmatch("[a-z0-9.-]+", data.license_name)
    assert {"dataset-distillation", "ipc-2", "random", "blobs"} <= set(data.tags)


def test_a_library_that_is_missing_is_named(monkeypatch):
    import fsspec

    def missing(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(ImportError, match=r"pip install 'dd-bench\[s3\]'"):
        pull("s3://sets/a")
    with pytest.raises(ImportError, match="Use: pip install s3fs"):
        pull("gs://sets/a")

    def nameless(*_, **__):
        raise ImportError("no module of that kind")

    monkeypatch.setattr(fsspec.core, "url_to_fs", nameless)
    with pytest.raises(ImportError, match=r"a library that is not installed \(no module of that kind\)$"):
        pull("gs://sets/a")
