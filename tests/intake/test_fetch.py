import http.server
import os
import socket
import subprocess
import sys
import threading

import boto3
import pytest
from moto.server import ThreadedMotoServer

from epochd.errors import InvalidDatasetError, PayloadTooLargeError, ServiceUnavailableError
from epochd.intake.fetch import fetch

CONTENT = b"a,label\n" + b"1,x\n2,y\n" * 200_000
LIMIT = 2 * len(CONTENT)


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "fetched"
    folder.mkdir()
    return folder


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "a file.csv").write_bytes(CONTENT)
    return folder


def refused(url, accepted, target, limit=LIMIT):
    with pytest.raises(InvalidDatasetError) as caught:
        fetch(url, accepted, target, limit)
    assert list(target.iterdir()) == []
    (error,) = caught.value.errors
    assert error.param == "url"
    return error.code


def test_a_file_below_an_accepted_folder(data, target):
    source = fetch(f"file://{data}/below/a%20file.csv", [f"file://{data}"], target, LIMIT)
    assert (source.name, source.path.parent, source.path.read_bytes()) == ("a file.csv", target, CONTENT)


@pytest.mark.parametrize(
    "accepted", [[], ["file:///elsewhere"], ["https://host/"], ["file://host/"], ["s3://b"]]
)
def test_nothing_is_fetched_that_no_prefix_allows(data, target, accepted):
    assert refused(f"file://{data}/below/a%20file.csv", accepted, target) == "source_not_accepted"


@pytest.mark.parametrize(
    "path", ["../secret", "below/../../secret", "%2e%2e/secret", "link", "folder/secret", "-2/secret"]
)
def test_links_dots_and_neighbours_lead_nowhere(data, tmp_path, target, path):
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "data-2").mkdir()
    (tmp_path / "data-2" / "secret").write_bytes(b"secret")
    (data / "link").symlink_to(tmp_path / "secret")
    (data / "folder").symlink_to(tmp_path)
    separator = "" if path == "-2/secret" else "/"
    assert refused(f"file://{data}{separator}{path}", [f"file://{data}"], target) == "source_not_accepted"


def test_a_prefix_may_be_a_link_itself(data, tmp_path, target):
    (tmp_path / "way").symlink_to(data)
    source = fetch(f"file://{tmp_path}/way/below/a%20file.csv", [f"file://{tmp_path}/way/"], target, LIMIT)
    assert source.path.read_bytes() == CONTENT


def test_what_is_no_file(data, target):
    os.mkfifo(data / "pipe")
    accepted = [f"file://{data}"]
    assert refused(f"file://{data}/nothing.csv", accepted, target) == "source_not_found"
    assert refused(f"file://{data}/below", accepted, target) == "bad_url"
    assert refused(f"file://{data}/pipe", accepted, target) == "bad_url"


@pytest.mark.parametrize(
    "url",
    ["", "data.csv", "ftp://host/a", "https://me:secret@host/a", "https://host:port/a", "https://host/a/../b",
     "https://host/a/%2e%2e/b", "https://host/a%5C..%5Cb", "https://host/%00", "https://[::1/a"],
)  # fmt: skip
def test_addresses_that_are_none(target, url):
    assert refused(url, ["https://host/"], target) == "bad_url"


def test_a_file_that_is_too_large(data, target):
    with pytest.raises(PayloadTooLargeError, match="1000 bytes"):
        fetch(f"file://{data}/below/a%20file.csv", [f"file://{data}"], target, 1000)


class Pages(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        getattr(
            self, "answer_" + self.path.split("?", maxsplit=1)[0].strip("/").split("/")[-1].replace(".", "_")
        )()

    def reply(self, status, content=b"", length=None, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length != "none":
            self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def answer_data_csv(self):
        self.reply(200, CONTENT)

    def answer_endless(self):
        self.reply(200, length="none")
        with self.ignoring():
            while True:
                self.wfile.write(bytes(2**16))

    def answer_huge(self):
        self.reply(200, length=2**40)

    def answer_cut(self):
        self.reply(200, CONTENT[:5000], length=len(CONTENT))

    def answer_hop(self):
        self.reply(302, Location="data.csv")

    def answer_out(self):
        self.reply(302, Location="/private/data.csv")

    def answer_metadata(self):
        self.reply(307, Location="http://169.254.169.254/latest/meta-data")

    def answer_file(self):
        self.reply(302, Location="file:///etc/passwd")

    def answer_loop(self):
        self.reply(302, Location="loop")

    def answer_absent(self):
        self.reply(404, b"nothing")

    def answer_denied(self):
        self.reply(403)

    def answer_broken(self):
        self.reply(500)

    def ignoring(self):
        import contextlib

        return contextlib.suppress(OSError)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("page", ["data.csv", "data.csv?key=secret", "hop"])
def test_a_page_and_where_it_redirects_to(site, target, page):
    source = fetch(f"{site}/open/{page}", [f"{site}/open/"], target, LIMIT)
    assert source.path.read_bytes() == CONTENT
    assert source.name == page.partition("?")[0]


@pytest.mark.parametrize(
    ("page", "code"),
    [
        ("/private/data.csv", "source_not_accepted"),
        ("/opened/data.csv", "source_not_accepted"),
        ("/open/out", "source_not_accepted"),
        ("/open/metadata", "source_not_accepted"),
        ("/open/file", "source_not_accepted"),
        ("/open/loop", "bad_url"),
        ("/open/absent", "source_not_found"),
        ("/open/denied", "source_denied"),
    ],
)
def test_pages_that_are_refused(site, target, page, code):
    assert refused(f"{site}{page}", [f"{site}/open"], target) == code


def test_a_redirect_to_an_accepted_file_is_none_to_follow(site, target):
    assert refused(f"{site}/open/file", [f"{site}/open", "file:///"], target) == "bad_url"


@pytest.mark.parametrize("page", ["endless", "huge", "data.csv"])
def test_no_more_comes_than_is_allowed(site, target, page):
    with pytest.raises(PayloadTooLargeError):
        fetch(f"{site}/{page}", [site], target, 1_000_000)


@pytest.mark.parametrize("page", ["cut", "broken"])
def test_an_answer_that_is_not_whole_is_none(site, target, page):
    with pytest.raises(ServiceUnavailableError) as caught:
        fetch(f"{site}/{page}?signature=secret", [site], target, LIMIT)
    assert caught.value.code == "source_unreachable"
    assert "secret" not in caught.value.message


def test_a_server_that_is_not_there(target):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and never listening
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/data.csv"
        with pytest.raises(ServiceUnavailableError) as caught:
            fetch(url, [url], target, LIMIT)
    assert caught.value.code == "source_unreachable"


@pytest.fixture(scope="module")
def bucket():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    endpoint = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    client.create_bucket(Bucket="lake")
    client.put_object(Bucket="lake", Key="open/data set.csv", Body=CONTENT)
    client.put_object(Bucket="lake", Key="private/data.csv", Body=CONTENT)
    yield endpoint
    server.stop()


@pytest.fixture
def lake(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.mark.usefixtures("lake")
def test_an_object_of_a_bucket(target):
    source = fetch("s3://lake/open/data%20set.csv", ["s3://lake/open/"], target, LIMIT)
    assert (source.name, source.path.read_bytes()) == ("data set.csv", CONTENT)


@pytest.mark.usefixtures("lake")
def test_objects_that_are_refused(target):
    accepted = ["s3://lake/open/", "s3://nowhere"]
    assert refused("s3://lake/private/data.csv", accepted, target) == "source_not_accepted"
    assert refused("s3://lake2/open/data.csv", accepted, target) == "source_not_accepted"
    assert refused("s3://lake/open/../private/data.csv", accepted, target) == "bad_url"
    assert refused("s3://lake/open/absent.csv", accepted, target) == "source_not_found"
    assert refused("s3://nowhere/absent.csv", accepted, target) == "source_not_found"
    assert refused("s3://nowhere", accepted, target) == "bad_url"
    with pytest.raises(PayloadTooLargeError):
        fetch("s3://lake/open/data%20set.csv", accepted, target, 1000)


def test_an_object_store_that_is_not_there(target, lake, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(ServiceUnavailableError) as caught:
            fetch("s3://lake/open/data.csv", ["s3://lake"], target, LIMIT)
    assert caught.value.code == "source_unreachable"


@pytest.mark.parametrize(
    "url",
    ["hf://", "hf://..", "hf://a/b/c", "hf://a/../b", "hf://owner/name?revision=x", "hf://tests/intake"],
)
def test_names_that_the_hub_cannot_have(target, url):
    assert refused(url, ["hf://"], target) == "bad_url"


def test_the_hub_needs_an_extra(target, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert refused("hf://owner/name", ["hf://owner"], target) == "extra_not_installed"
    assert refused("hf://other/name", ["hf://owner"], target) == "source_not_accepted"


HUB = """
import sys
from pathlib import Path

from epochd.errors import ServiceUnavailableError
from epochd.intake import hub
from epochd.intake.fetch import fetch
from datasets import ClassLabel, Dataset, Features, Value

folder = Path(sys.argv[1])
features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
split = Dataset.from_dict({"text": ["ä", "b"], "label": [1, 0]}, features)
source = hub.write(split, "texts", folder, 10_000)
assert source.name == "texts.jsonl"
assert source.path.read_text() == '{"text":"ä","label":"good"}\\n{"text":"b","label":"bad"}\\n', source.path.read_text()
source.path.unlink()
source = hub.write(Dataset.from_dict({"a": [1, 2], "label": ["x", "y"]}), "table", folder, 10_000)
assert source.name == "table.parquet"
assert source.path.read_bytes()[:4] == b"PAR1"
source.path.unlink()
try:
    fetch("hf://owner/name", ["hf://owner/"], folder, 10_000)
except ServiceUnavailableError as error:
    assert error.code == "source_unreachable"
    print("told")
"""


def test_splits_of_the_hub_and_a_hub_that_is_away(target):
    # In a process of its own: the library reads the environment once, and takes seconds to import.
    done = subprocess.run(
        [sys.executable, "-c", HUB, str(target)],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(target / "home")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "told", done.stderr
