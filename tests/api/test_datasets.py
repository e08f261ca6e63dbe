"""Data sets over HTTP: uploaded to a real server, read by a real process, on both databases."""

import hashlib
import resource
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from tests.api.conftest import serving
from tests.marks import postgres_in_torture
from tests.stored import register

from epochd.api import upload
from epochd.api.app import create_app
from epochd.settings import Settings

# What the database has to do with it is tested, on both, in tests/jobs.
pytestmark = postgres_in_torture

FLOWERS = b"length,width,species\n" + b"".join(
    b"%d.5,%d,%s\n" % (i % 7, i % 3, [b"setosa", b"virginica"][i % 2]) for i in range(40)
)
JOB = {"epochs": 1, "batch_size": 8}


@pytest.fixture
def one_database(database_kind):
    """What a test is about happens before there is a database."""
    if database_kind != "sqlite":
        pytest.skip("says nothing about the database")


@pytest.fixture
def bring(http):
    def post(content=FLOWERS, file_name="flowers.csv", headers=None, **fields):
        files = {"file": (file_name, content)}
        return http.post("/v1/datasets", files=files, data=fields, headers=headers)

    return post


@pytest.fixture
def left(data_dir):
    """What lies in the directory of data sets, files of locks aside."""

    def look():
        root = data_dir / "datasets"
        found = (
            {path.name for path in root.iterdir() if path.is_dir()} - {"incoming"} if root.is_dir() else set()
        )
        incoming = root / "incoming"
        arriving = {path.name for path in incoming.iterdir() if path.is_dir()} if incoming.is_dir() else set()
        return found, arriving

    return look


def eventually(condition):
    for _ in range(600):
        if value := condition():
            return value
        time.sleep(0.05)
    pytest.fail("it never came to that")


def readers():
    """The processes that read data sets for this one."""
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if "epochd.intake" in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def error(answer, status=422):
    assert answer.status_code == status, answer.text
    body = answer.json()
    return body["errors"][0] if "errors" in body else body


class TestUpload:
    def test_a_table_becomes_a_data_set_that_a_job_can_name(self, http, bring, left):
        answer = bring(name="flowers", target="species")
        assert answer.status_code == 201, answer.text
        made = answer.json()
        assert answer.headers["location"] == f"/v1/datasets/{made['id']}"
        assert made["classes"] == [{"name": "setosa", "samples": 20}, {"name": "virginica", "samples": 20}]
        assert [column["name"] for column in made["columns"]] == ["length", "width"]
        assert (made["samples"], made["task"], made["kind"]) == (40, "classification", "table")
        assert made["source"]["sha256"] == hashlib.sha256(FLOWERS).hexdigest()
        assert (made["source"]["bytes"], made["source"]["file"]) == (len(FLOWERS), "flowers.csv")
        assert made["preview"]["rows"]
        for key in (made["id"], "flowers"):
            assert http.get(f"/v1/datasets/{key}").json() == made
        folders, arriving = left()
        assert len(folders) == 1
        assert arriving == set()
        job = http.post("/v1/jobs", json={**JOB, "dataset": "flowers"})
        assert job.status_code == 201, job.text
        assert job.json()["spec"]["dataset"] == made["id"]
        assert job.json()["plan"]["train_samples"] == 32

    def test_the_name_is_that_of_the_file_unless_it_is_given(self, bring):
        assert bring(file_name="C:\\data\\my flowers.csv").json()["name"] == "my flowers"
        assert error(bring(file_name=".csv"))["param"] == "name"

    def test_fields_may_come_after_the_file(self, http):
        parts = [
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n' + FLOWERS,
            b'--x\r\nContent-Disposition: form-data; name="name"\r\n\r\nlate',
            b'--x\r\nContent-Disposition: form-data; name="features"\r\n\r\nwidth',
            b"--x--\r\n",
        ]
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = http.post("/v1/datasets", content=iter([b"\r\n".join(parts)]), headers=headers)
        assert answer.status_code == 201, answer.text
        assert answer.json()["name"] == "late"
        assert [column["name"] for column in answer.json()["columns"]] == ["width"]

    def test_the_same_contents_lie_on_the_disk_once(self, http, bring, left):
        first, second = bring(name="one").json(), bring(name="two").json()
        assert first["digest"] == second["digest"]
        assert len(left()[0]) == 1
        assert http.delete("/v1/datasets/one").status_code == 204
        assert len(left()[0]) == 1
        assert http.delete(f"/v1/datasets/{second['id']}").status_code == 204
        assert left() == (set(), set())

    def test_the_same_numbers_under_other_names_are_something_else(self, bring, left):
        bring(name="one")
        assert bring(FLOWERS.replace(b"width", b"girth"), name="two").status_code == 201
        assert len(left()[0]) == 2

    def test_many_at_once(self, bring, left):
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda n: bring(name="same" if n % 2 else f"own {n}"), range(4)))
        assert sorted(answer.status_code for answer in answers) == [201, 201, 201, 409]
        assert {answer.json().get("code") for answer in answers} == {None, "dataset_name_taken"}
        assert len(left()[0]) == 1
        assert left()[1] == set()

    def test_an_idempotency_key_counts_once(self, bring):
        key = {"Idempotency-Key": "k1"}
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda _: bring(name="one", headers=key), range(2)))
        assert sorted(answer.status_code for answer in answers) == [200, 201]
        assert answers[0].json() == answers[1].json()
        assert error(bring(name="two", headers=key))["code"] == "idempotency_key_reused"


@pytest.mark.usefixtures("one_database")
class TestRefuses:
    @pytest.mark.parametrize(
        ("fields", "param", "code"),
        [
            ({"taget": "species"}, "taget", "unknown_parameter"),
            ({"task": "clustering"}, "task", "not_one_of"),
            ({"header": "perhaps"}, "header", "wrong_type"),
            ({"image_size": "0"}, "image_size.0", "out_of_range"),
            ({"image_size": "1x2x3"}, "image_size", "wrong_type"),
            ({"name": "a/b"}, "name", "invalid_format"),
            ({"name": "dataset_1"}, "name", "invalid_format"),
            ({"name": ["a", "b"]}, "name", "repeated"),
            ({"format": "xlsx"}, "format", "not_one_of"),
        ],
    )
    def test_fields_that_mean_nothing(self, bring, left, fields, param, code):
        found = error(bring(**fields))
        assert (found["param"], found["code"]) == (param, code)
        assert left() == (set(), set())

    def test_a_bad_file_with_the_place(self, bring, left):
        found = error(bring(FLOWERS + b"1,2\n", name="ragged"))
        assert (found["param"], found["file"], found["row"]) == ("file", "flowers.csv", 41), found
        assert left() == (set(), set())

    @pytest.mark.parametrize("content", [b"", b"a,b\n"])
    def test_files_without_a_data_set(self, bring, left, content):
        assert error(bring(content))["param"] == "file"
        assert left() == (set(), set())

    def test_a_target_that_is_not_there(self, bring):
        assert error(bring(target="colour"))["param"] == "target"

    def test_names_that_are_taken(self, bring):
        assert error(bring(name="iris"), 409)["code"] == "dataset_name_taken"

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"nonsense",
            b"--x\r\n\r\n\r\n--x--",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf',
        ],
    )
    def test_a_body_that_is_no_form(self, http, body, left):
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answer = http.post("/v1/datasets", content=body, headers=headers)
        assert error(answer)["code"] == "malformed_multipart"
        assert left()[1] == set()

    def test_forms_without_one_file(self, http):
        form = {"name": (None, "a")}
        assert error(http.post("/v1/datasets", files=form))["code"] == "required"
        other = {"data": ("a.csv", FLOWERS)}
        assert error(http.post("/v1/datasets", files=other))["code"] == "unknown_parameter"
        two = [("file", ("a.csv", FLOWERS)), ("file", ("b.csv", FLOWERS))]
        assert error(http.post("/v1/datasets", files=two))["code"] == "repeated"

    def test_other_media_types(self, http):
        assert http.post("/v1/datasets", content=b"a,b").status_code == 415
        assert (
            http.post("/v1/datasets", content=b"a,b", headers={"Content-Type": "text/csv"}).status_code == 415
        )

    def test_references_where_none_are_allowed(self, http):
        found = error(http.post("/v1/datasets", json={"url": "file:///etc/passwd"}))
        assert (found["param"], found["code"]) == ("url", "source_not_accepted")
        assert error(http.post("/v1/datasets", json={"url": "s3://a/b", "nam": "c"}))["param"] == "nam"


@pytest.mark.usefixtures("one_database")
def test_a_reference_is_fetched_from_where_it_is_allowed(database_url, data_dir, tmp_path, left):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "flowers.csv").write_bytes(FLOWERS)
    (tmp_path / "other.csv").write_bytes(FLOWERS)
    source = f"file://{tmp_path}/files/"
    app = create_app(Settings(database_url=database_url, data_dir=data_dir, dataset_sources=source))
    with serving(app) as server, httpx.Client(base_url=server.url, timeout=30) as http:
        made = http.post("/v1/datasets", json={"url": f"{source}flowers.csv", "target": ["species"]})
        assert made.status_code == 201, made.text
        assert (made.json()["name"], made.json()["samples"]) == ("flowers", 40)
        assert made.json()["source"]["url"] == f"{source}flowers.csv"
        for url in (f"file://{tmp_path}/other.csv", f"{source}../other.csv"):
            found = error(http.post("/v1/datasets", json={"url": url, "name": "other"}))
            assert (found["param"], found["code"]) == ("url", "source_not_accepted")
        assert error(http.post("/v1/datasets", json={"url": f"{source}gone.csv"}))["param"] == "url"
    assert len(left()[0]) == 1
    assert left()[1] == set()


@pytest.fixture
def small(database_url, data_dir, one_database):
    """A server that takes small files only."""
    app = create_app(Settings(database_url=database_url, data_dir=data_dir, max_upload_bytes=100_000))
    with serving(app) as server:
        yield server.url


class TestLimits:
    @pytest.mark.parametrize("declared", [True, False])
    def test_more_bytes_than_allowed(self, small, left, declared):
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        body = [head, *[b"1,2\n" * 25_000] * 100]
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        content = b"".join(body) if declared else iter(body)
        answer = httpx.post(f"{small}/v1/datasets", content=content, headers=headers, timeout=30)
        assert error(answer, 413)["code"] == "upload_too_large"
        assert left() == (set(), set())

    def test_other_bodies_have_their_own_limit(self, http):
        answer = http.post("/v1/datasets", json={"url": "s3://a/" + "b" * 2_000_000})
        assert answer.status_code == 413

    @pytest.mark.usefixtures("one_database")
    def test_a_disk_that_is_full(self, bring, left):
        # A limit on the size of files fails as a full disk does, in this process and in those that it starts.
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))
        try:
            answer = bring(b"a,b\n" + b"1,2\n" * 2_000_000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert error(answer, 507)["code"] == "disk_full"
        assert left() == (set(), set())
        assert bring().status_code == 201


class TestCut:
    def begin(self, server, size):
        """Send the beginning of an upload by hand and return the connection."""
        host, port = server.url.removeprefix("http://").split(":")
        connection = socket.create_connection((host, int(port)))
        head = (
            "POST /v1/datasets HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n"
            "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
            '--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        )
        connection.sendall(head.encode() + b"1,2\n" * (size // 4))
        return connection

    @pytest.mark.usefixtures("one_database")
    def test_a_connection_that_is_cut_leaves_nothing(self, server, left):
        connection = self.begin(server, 3_000_000)
        eventually(lambda: left()[1])
        connection.close()
        eventually(lambda: left() == (set(), set()))

    @pytest.mark.usefixtures("one_database")
    def test_a_sender_that_falls_silent_is_not_waited_for(self, server, left, monkeypatch):
        monkeypatch.setattr(upload, "STALLED_SECONDS", 0.2)
        with self.begin(server, 1000) as connection:
            assert connection.recv(100).startswith(b"HTTP/1.1 408 ")
        assert left() == (set(), set())

    @pytest.mark.usefixtures("one_database")
    def test_the_reading_process_ends_with_the_client(self, server, left):
        """The connection is closed while the file is being read."""
        content = b"a,b\n" + b"1,x\n2,y\n" * 2_000_000
        head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        body = head + content + b"\r\n--x--\r\n"
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /v1/datasets HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n" % len(body)
            )
            connection.sendall(body)
            eventually(readers)
        eventually(lambda: not readers())
        eventually(lambda: left() == (set(), set()))

    @pytest.mark.usefixtures("one_database")
    def test_a_reading_process_that_is_killed(self, bring, left):
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(bring, b"a,b\n" + b"1,x\n2,y\n" * 2_000_000)
            eventually(readers)[0].kill()
            found = error(answer.result(), 503)
        assert found["code"] == "reader_killed"
        assert left() == (set(), set())


class TestListed:
    def test_newest_first_and_the_built_in_ones_last(self, http, database, data_dir):
        for name in ("one", "two", "three"):
            register(database, data_dir / "datasets", name)
        for limit in (1, 2, 3, 5, 50):
            names, after = [], None
            while True:
                page = http.get(
                    "/v1/datasets", params={"limit": limit} | ({"after": after} if after else {})
                ).json()
                assert len(page["data"]) <= limit
                names += [one["name"] for one in page["data"]]
                after = page["next"]
                if after is None:
                    break
            assert names[:4] == ["three", "two", "one", "digits"], limit
            assert len(names) == len(set(names)) == 8

    def test_a_built_in_one(self, http):
        iris = http.get("/v1/datasets/iris").json()
        assert (iris["id"], iris["built_in"], iris["samples"]) == ("iris", True, 150)
        assert [one["name"] for one in iris["classes"]] == ["setosa", "versicolor", "virginica"]

    def test_one_that_is_not_there(self, http):
        assert http.get("/v1/datasets/nothing").json()["code"] == "dataset_not_found"
        assert http.delete("/v1/datasets/nothing").status_code == 404
        assert error(http.get("/v1/datasets?after=nonsense"))["code"] == "invalid_cursor"


class TestRemoved:
    def test_not_while_a_job_needs_it(self, http, bring, left):
        bring(name="flowers")
        job = http.post("/v1/jobs", json={**JOB, "dataset": "flowers"}).json()["id"]
        assert error(http.delete("/v1/datasets/flowers"), 409)["code"] == "dataset_in_use"
        http.post(f"/v1/jobs/{job}/cancel")
        assert http.delete("/v1/datasets/flowers").status_code == 204
        assert left() == (set(), set())
        assert error(http.post(f"/v1/jobs/{job}/retry"), 409)["code"] == "dataset_gone"
        assert http.get(f"/v1/jobs/{job}").json()["status"] == "cancelled"
        assert http.delete(f"/v1/jobs/{job}").status_code == 204

    def test_a_built_in_one_stays(self, http):
        assert error(http.delete("/v1/datasets/iris"), 409)["code"] == "dataset_built_in"

    def test_a_job_names_what_is_not_there(self, http, bring):
        bring(name="flowers")
        found = error(http.post("/v1/jobs", json={**JOB, "dataset": "flower"}))
        assert found["code"] == "unknown_dataset"
        assert "'flowers'" in found["message"]


def test_what_a_killed_process_left_is_swept_up(app, settings, data_dir, left):
    root = data_dir / "datasets"
    (root / "incoming" / "left").mkdir(parents=True)
    (root / "incoming" / "left" / "upload").write_bytes(b"half")
    (root / ("a" * 64)).mkdir()
    app.state.intake.sweep(app.state.database)
    assert left() == (set(), set())


def test_nothing_is_swept_up_that_is_in_use(app, data_dir, left):
    from epochd.intake import incoming

    held = incoming.make(data_dir / "datasets" / "incoming")
    app.state.intake.sweep(app.state.database)
    assert held.path.is_dir()
    held.remove()
    assert left() == (set(), set())
