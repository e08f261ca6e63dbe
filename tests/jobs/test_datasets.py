"""Data sets as they are stored, shared, needed and removed; and what happens when two do that at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.stored import arrived, register

from epochd.contract.spec import JobSpec
from epochd.datasets.stored import open_stored
from epochd.errors import ConflictError, IdempotencyKeyReusedError, InvalidRequestError, NotFoundError
from epochd.jobs import datasets, delete, resolve
from epochd.jobs.cancel import cancel
from epochd.jobs.known import Known
from epochd.jobs.retry import retry
from epochd.jobs.submit import submit
from epochd.store import datasets as rows
from epochd.store import jobs, tables


@pytest.fixture
def root(data_dir):
    return data_dir / "datasets"


@pytest.fixture
def folders(root):
    return lambda: {path.name for path in root.iterdir() if path.is_dir()} - {"incoming"}


def code(call, *arguments):
    with pytest.raises((ConflictError, NotFoundError, InvalidRequestError)) as caught:
        call(*arguments)
    error = caught.value
    return error.errors[0].code if isinstance(error, InvalidRequestError) else error.code


class TestRegister:
    def test_the_folder_is_where_its_row_says(self, database, root, folders):
        row = register(database, root)
        assert folders() == {row.folder}
        assert open_stored(root / row.folder).digest == row.digest
        assert not list((root / "incoming").glob("*/data"))

    def test_a_name_is_given_once(self, database, root, folders):
        register(database, root)
        assert code(datasets.register, database, root, arrived(root, offset=1.0)) == "dataset_name_taken"
        assert code(datasets.check_new, database, "flowers", None, "") == "dataset_name_taken"
        assert code(datasets.check_new, database, "iris", None, "") == "dataset_name_taken"
        assert len(folders()) == 1

    def test_a_key_gives_the_first_answer_again(self, database, root):
        first = register(database, root, idempotency_key="k")
        again = datasets.register(database, root, arrived(root, idempotency_key="k"))
        assert (again.row, again.created) == (first, False)
        assert datasets.check_new(database, "flowers", "k", "digest") == again
        with pytest.raises(IdempotencyKeyReusedError):
            datasets.check_new(database, "flowers", "k", "another")

    def test_what_is_half_there_is_replaced(self, database, root):
        new = arrived(root)
        torn = root / datasets.folder_name(new.digest, new.info)
        torn.mkdir()
        (torn / "y.bin").write_bytes(b"half")
        row = datasets.register(database, root, new).row
        assert len(open_stored(root / row.folder)) == 40

    def test_a_folder_that_cannot_be_moved_is_no_data_set(self, database, root, folders):
        new = arrived(root)
        new.folder.rename(new.folder.with_name("elsewhere"))
        with pytest.raises(FileNotFoundError):
            datasets.register(database, root, new)
        assert folders() == set()
        with database.read() as tx:
            assert rows.names(tx) == []

    def test_many_of_one_name_and_contents(self, database, root, folders):
        news = [arrived(root, "one" if n % 2 else f"n{n}") for n in range(8)]

        def attempt(new):
            try:
                return datasets.register(database, root, new).created
            except ConflictError:
                return False

        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(attempt, news))
        assert sum(made) == 5
        assert len(folders()) == 1


class TestKnown:
    def test_a_spec_may_say_id_or_name_and_gets_the_id(self, database, root):
        row = register(database, root)
        for key in (row.id, "flowers"):
            with database.read() as tx:
                spec = resolve.resolve(JobSpec(dataset=key, epochs=1, batch_size=8), Known(tx))
                assert spec.dataset == row.id
                assert Known(tx).dataset(key).info.name == "flowers"
                assert Known(tx).dataset(key).number == row.number

    def test_without_a_database_it_is_unknown(self, database, root):
        register(database, root)
        assert code(Known().dataset, "flowers") == "unknown_dataset"

    def test_where_it_is_not_there(self, database, root):
        register(database, root)
        with database.read() as tx, pytest.raises(InvalidRequestError) as caught:
            Known(tx).dataset("flower", "validation.dataset")
        (error,) = caught.value.errors
        assert (error.param, error.code) == ("validation.dataset", "unknown_dataset")
        assert "Did you mean 'flowers'?" in error.message


class TestDelete:
    def test_the_folder_stays_while_it_is_shared(self, database, root, folders):
        first, second = register(database, root, "one"), register(database, root, "two")
        assert first.folder == second.folder
        datasets.delete(database, root, "one")
        assert folders() == {second.folder}
        datasets.delete(database, root, second.id)
        assert folders() == set()
        assert code(datasets.delete, database, root, "one") == "dataset_not_found"

    def test_not_while_a_job_needs_it_and_a_retry_says_that_it_is_gone(self, database, root, queue):
        register(database, root)
        job = queue(dataset="flowers")
        assert code(datasets.delete, database, root, "flowers") == "dataset_in_use"
        cancel(database, job.id, keep="nothing", grace_seconds=0)
        datasets.delete(database, root, "flowers")
        assert code(retry, database, job.id, "checkpoint") == "dataset_gone"

    def test_nor_while_one_validates_on_it(self, database, root, queue):
        register(database, root)
        register(database, root, "held out", offset=1.0)
        queue(dataset="flowers", validation={"dataset": "held out"})
        assert code(datasets.delete, database, root, "held out") == "dataset_in_use"

    def test_a_built_in_one_stays(self, database, root):
        assert code(datasets.delete, database, root, "iris") == "dataset_built_in"


class TestRaces:
    def test_submitted_and_removed_at_once(self, database, root):
        """Either the job has its data set, or there is no job."""
        spec = JobSpec(dataset="flowers", epochs=1, batch_size=8)
        for _ in range(10):
            register(database, root)
            with ThreadPoolExecutor(2) as pool:
                sent = pool.submit(_code_of, submit, database, spec)
                gone = pool.submit(_code_of, datasets.delete, database, root, "flowers")
            outcome = (sent.result(), gone.result())
            assert outcome in {(None, "dataset_in_use"), ("unknown_dataset", None)}
            if outcome[0] is None:
                _cancel_all(database)
                datasets.delete(database, root, "flowers")

    def test_retried_and_removed_at_once(self, database, root, queue):
        for _ in range(10):
            register(database, root)
            job = queue(dataset="flowers")
            cancel(database, job.id, keep="nothing", grace_seconds=0)
            with ThreadPoolExecutor(2) as pool:
                again = pool.submit(_code_of, retry, database, job.id, "scratch")
                gone = pool.submit(_code_of, datasets.delete, database, root, "flowers")
            outcome = (again.result(), gone.result())
            assert outcome in {(None, "dataset_in_use"), ("dataset_gone", None)}
            if outcome[0] is None:
                _cancel_all(database)
                datasets.delete(database, root, "flowers")


def _code_of(call, *arguments):
    try:
        call(*arguments)
    except (ConflictError, InvalidRequestError) as error:
        return error.errors[0].code if isinstance(error, InvalidRequestError) else error.code
    return None


def _cancel_all(database):
    with database.read() as tx:
        queued, _ = jobs.page(tx, limit=10, statuses=["queued"])
    for job in queued:
        cancel(database, job.id, keep="nothing", grace_seconds=0)


def test_what_no_row_names_is_swept_up(database, root, folders):
    row = register(database, root)
    (root / ("a" * 64)).mkdir()
    datasets.sweep(database, root)
    assert folders() == {row.folder}
    assert (root / "incoming").is_dir()


def test_a_job_that_another_starts_from_stays(database, queue, data_dir):
    first = queue()
    cancel(database, first.id, keep="nothing", grace_seconds=0)
    second = queue()
    with database.write() as tx:
        tx.execute(tables.jobs.update().where(tables.jobs.c.id == second.id).values(starts_from=first.id))
    assert code(delete.delete, database, first.id, data_dir, data_dir) == "job_in_use"
    cancel(database, second.id, keep="nothing", grace_seconds=0)
    delete.delete(database, first.id, data_dir, data_dir)
