"""Commands about jobs: what they print, and how they end."""

import json
import sys
import threading

import pytest

from epochd import Client, cli
from epochd.cli.spec import given
from epochd.client import calls
from epochd.store import workers

SPEC = {"dataset": "iris", "epochs": 4, "batch_size": 12, "early_stopping": {"patience": 3}}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(calls, "pause", lambda _: 0.01)


@pytest.fixture
def run(server, monkeypatch, capsys):
    """Run a command as a shell would; give its exit code, output and errors."""
    monkeypatch.setenv("EPOCHD_URL", server.url)
    monkeypatch.setenv("COLUMNS", "160")

    def command(*words):
        monkeypatch.setattr(sys, "argv", ["epochd", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
            sys.exit(0)
        return ended.value.code or 0, *capsys.readouterr()

    return command


@pytest.fixture
def client(server):
    with Client(server.url) as client:
        yield client


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("dataset: iris\nepochs: 4\nbatch_size: 12\nmodel: {name: mlp}\n")
    return path


def answer(ran):
    code, output, errors = ran
    assert (code, errors) == (0, "")
    return json.loads(output)


def refused(ran, code=1):
    assert ran[0] == code, ran
    assert ran[1] == ""
    (line,) = ran[2].splitlines()
    assert line.startswith("epochd: ")
    return line


def test_flags_go_before_the_file_and_fields_before_both(run, file):
    sent = answer(
        run("submit", file, "--epochs", 9, "--name", "mine", "--set", "model.dropout=0.25", "--json")
    )
    assert (sent["name"], sent["spec"]["epochs"], sent["spec"]["batch_size"]) == ("mine", 9, 12)
    assert (sent["spec"]["model"]["name"], sent["spec"]["model"]["dropout"]) == ("mlp", 0.25)
    flags = ["--dataset", "iris", "--batch-size", 8, "--learning-rate", 0.5, "--patience", 2, "--epochs", 3]
    sent = answer(run("submit", *flags, "--json"))["spec"]
    assert (sent["optimizer"]["name"], sent["optimizer"]["learning_rate"]) == ("adamw", 0.5)
    assert (sent["early_stopping"]["patience"], sent["batch_size"]) == (2, 8)
    assert answer(run("submit", *flags, "--batch-size", "auto", "--json"))["spec"]["batch_size"] == "auto"


@pytest.mark.parametrize(
    ("written", "read"),
    [("1e-3", 0.001), ("2.5E+1", 25.0), (".5e0", 0.5), ("0.1", 0.1), ("'1e-3'", "1e-3"), ("1e3x", "1e3x")],
)
def test_numbers_in_yaml_are_numbers(tmp_path, written, read):
    path = tmp_path / "spec.yaml"
    path.write_text(f"optimizer: {{learning_rate: {written}}}\n")
    assert given(path, {}, [])["optimizer"]["learning_rate"] == read


def test_a_spec_from_standard_input(run, monkeypatch, tmp_path):
    path = tmp_path / "spec.json"
    path.write_text(json.dumps(SPEC))
    with path.open() as standard_input:
        monkeypatch.setattr(sys, "stdin", standard_input)
        assert answer(run("submit", "-", "--json"))["spec"]["early_stopping"]["patience"] == 3


def test_what_is_wrong_is_told_in_one_line(run, file, tmp_path):
    assert "no FIELD=VALUE" in refused(run("submit", file, "--set", "epochs"), 2)
    assert "has no fields" in refused(run("submit", file, "--set", "epochs.x=1"), 2)
    assert "No such file" in refused(run("submit", tmp_path / "none.json"), 2)
    (tmp_path / "list.yaml").write_text("- a\n")
    assert "holds no spec" in refused(run("submit", tmp_path / "list.yaml"), 2)
    (tmp_path / "broken.json").write_text('{"dataset": ')
    assert "neither JSON nor YAML" in refused(run("submit", tmp_path / "broken.json"), 2)
    assert "epochs: must be at least 1" in refused(run("submit", file, "--epochs", 0))
    assert "no job 'job_none'" in refused(run("show", "job_none"))
    assert "no address" in refused(run("list", "--url", "nowhere"), 2)
    assert "is the service running" in refused(run("list", "--url", "http://127.0.0.1:9"))
    assert "status: must be" in refused(run("list", "--status", "nonsense"))


@pytest.mark.parametrize(("end", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 3)])
@pytest.mark.parametrize("how", ["wait", "watch"])
def test_the_exit_code_says_how_it_ended(run, client, trainer, end, code, how):
    job = client.jobs.submit(SPEC)
    trainer.start().iterate(10)
    trainer.complete_epoch(validation_accuracy=0.5)
    later = threading.Timer(0.3, trainer.finish, [end])
    later.start()
    ended, output, errors = run(how, job.id)
    later.join()
    assert (ended, errors) == (code, "")
    assert f"{job.id} {end}" in output.replace("\n", "")


def test_ctrl_c_leaves_the_job_training_and_says_so(run, client, trainer, monkeypatch):
    job = client.jobs.submit(SPEC)
    trainer.start()

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("epochd.client.blocking.read_events", interrupted)
    code, _, errors = run("watch", job.id)
    assert code == 130
    assert f"goes on training: epochd watch {job.id}" in errors
    assert job.refresh().status == "running"


def test_waiting_ends_in_time(run, client):
    job = client.jobs.submit(SPEC)
    assert "is queued after" in refused(run("wait", job.id, "--timeout", 0.2))


def test_a_list_and_a_job(run, client, trainer):
    assert "No jobs." in run("list")[1]
    job = client.jobs.submit(SPEC, name="[red]mine")
    trainer.start().iterate(10)
    trainer.complete_epoch()
    code, output, _ = run("list")
    assert code == 0
    assert f"{job.id}  [red]mine  running" in output
    assert [one["id"] for one in answer(run("list", "--json"))] == [job.id]
    assert [one["id"] for one in answer(run("list", "--search", "RED", "--json"))] == [job.id]
    assert "No jobs." in run("list", "--search", "blue")[1]
    code, output, _ = run("show", job.id)
    assert code == 0
    for said in ("[red]mine", "1 epochs, 10 iterations", "undetermined", "no power of two"):
        assert said in " ".join(output.split())
    assert answer(run("show", job.id, "--json"))["id"] == job.id


def test_what_steers_a_job(run, client):
    job = client.jobs.submit(SPEC)
    assert "is paused: epochd resume" in run("pause", job.id)[1]
    assert "is queued: epochd watch" in run("resume", job.id)[1]
    assert "is cancelled." in run("cancel", job.id, "--keep", "nothing")[1]
    assert answer(run("retry", job.id, "--json"))["status"] == "queued"
    assert job.id in refused(run("retry", job.id))


def test_a_plan(run, file):
    code, output, _ = run("plan", file, "--set", "batch_size=12")
    assert code == 0
    assert (
        "120 training samples in mini-batches of 12: 10 iterations an epoch, 40 in at most 4 epochs" in output
    )
    assert "batch_size: The batch size 12 is no power of two" in output
    assert answer(run("plan", file, "--json"))["plan"]["total_iterations"] == 40


def test_files_are_fetched(run, client, trainer, tmp_path):
    job = client.jobs.submit(SPEC)
    assert "no files so far" in run("download", job.id)[1]
    assert "has no file weights.bin" in refused(run("download", job.id, "weights.bin"), 2)


def test_models(run):
    assert "hidden_sizes" in run("models")[1]
    assert {"mlp", "cnn"} <= {one["name"] for one in answer(run("models", "--json"))}


def test_data_sets_are_brought_and_listed(run, tmp_path):
    file = tmp_path / "flowers.csv"
    file.write_text("a,kind,b\n" + "1,x,2\n3,y,4\n" * 10)
    code, output, _ = run("data", "upload", file, "--target", "kind")
    assert code == 0
    assert output.startswith("flowers (dataset_")
    assert "20 samples, classification" in output
    assert "flowers  20 samples  classification" in run("data", "list")[1]
    assert {"flowers", "iris"} <= {one["name"] for one in answer(run("data", "list", "--json"))}
    assert "flowers" in refused(run("data", "upload", file))
    assert "is no file" in refused(run("data", "upload", tmp_path / "none.csv"), 2)
    (tmp_path / "ragged.csv").write_text("a,b\n1,2\n3\n")
    assert "row 2" in refused(run("data", "upload", tmp_path / "ragged.csv"))


def test_workers(run, database):
    assert "No worker lives" in run("workers")[1]
    with database.write() as tx:
        memory = {"cpu": {"used": 2**30, "total": 2**34}}
        workers.register(tx, id="box:7", host="box", pid=7, devices=["cpu"], slots=1, memory=memory)
    assert "box:7   cpu (1.0 of 16.0 GiB)  1      idle" in run("workers")[1]
    assert answer(run("workers", "--json"))[0]["id"] == "box:7"
