"""Every error that epochd raises on purpose.

::

    EpochdError
    ├── InvalidRequestError          the request is wrong: 422, with one entry per parameter
    │   ├── IdempotencyKeyReusedError    the key came before with another body: 422
    │   └── InvalidDatasetError          the file cannot be read as a data set; names file, row or column: 422
    ├── UnauthorizedError            401
    ├── NotFoundError                404
    ├── ConflictError                the state of the thing does not allow it: 409
    ├── PayloadTooLargeError         413
    ├── InsufficientStorageError     507
    ├── ServiceUnavailableError      503
    │   ├── ArchiveUnreadableError       the file that iterations were moved to is missing or damaged
    │   ├── DatabaseUnavailableError     the database does not answer
    │   └── DatabaseNotMigratedError     the schema is older or newer than the code
    ├── ConfigurationError           the operator's settings contradict each other
    ├── DuplicateKeyError            a row with this unique key exists already
    ├── AttemptLostError             the attempt was given to somebody else: write nothing more
    ├── MirrorError                  what a job is mirrored or exported to does not take it
    │   ├── MirrorAwayError              it cannot be used for now: try again
    │   └── MirrorRefusedError           it does not take this job
    ├── ExportError                  a trained model cannot be written as a file that runs without epochd
    ├── CorruptCheckpointError       a checkpoint's file is torn, damaged or cannot be read: use the one before it
    └── TrainingError                ends a job as ``failed``; has a category
        ├── ModelError                   category ``spec``: an operator's model does not take the job
        ├── DataError                    category ``data``
        ├── NumericError                 category ``numeric``; names the iteration
        ├── OutOfMemoryError             category ``out_of_memory``
        └── InfrastructureError          category ``infrastructure``; may be tried again

``code`` is stable and meant for programs; the message is meant for people and says what is wrong and what
would be right.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

ErrorCategory = Literal["spec", "data", "out_of_memory", "numeric", "infrastructure", "time_limit"]


@dataclass(frozen=True, slots=True)
class ParamError:
    """What is wrong with one parameter of a request.

    ``param`` is its dotted path (``early_stopping.patience``); empty for the body as a whole.
    """

    param: str
    message: str
    code: str


class EpochdError(Exception):
    """The root of the tree."""

    code: str = "internal_error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class InvalidRequestError(EpochdError):
    """The request cannot be carried out as it stands."""

    code = "invalid_request"

    def __init__(self, message: str, errors: tuple[ParamError, ...] = (), *, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.errors = errors

    @classmethod
    def of(cls, *errors: ParamError) -> "InvalidRequestError":
        """Make one error out of what is wrong with each parameter."""
        first = errors[0]
        where = f"{first.param}: " if first.param else ""
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        return cls(f"{where}{first.message}{more}", errors)


class IdempotencyKeyReusedError(InvalidRequestError):
    """The same Idempotency-Key came before with another body."""

    code = "idempotency_key_reused"

    @classmethod
    def because(cls, message: str) -> "IdempotencyKeyReusedError":
        """Make the error; the message says what the key was used for, and what to send instead."""
        return cls(message, (ParamError("Idempotency-Key", message, cls.code),))


class InvalidDatasetError(InvalidRequestError):
    """A file that cannot be read as a data set, or not as the one that was described.

    ``file`` is a name within an archive or the upload's own; ``row`` counts samples from 1, a header not included;
    ``column`` is a column's name. Each is None where it has no meaning. ``code`` is stable, such as ``ragged_rows``.
    """

    code = "invalid_dataset"

    def __init__(  # noqa: PLR0913 - each says where, all but the first two by name
        self,
        message: str,
        code: str,
        *,
        param: str = "file",
        file: str | None = None,
        row: int | None = None,
        column: str | None = None,
    ) -> None:
        super().__init__(message, (ParamError(param, message, code),))
        self.file, self.row, self.column = file, row, column

    @property
    def place(self) -> dict[str, str | int]:
        """Where it is, by those of file, row and column that have a meaning."""
        named = {"file": self.file, "row": self.row, "column": self.column}
        return {name: value for name, value in named.items() if value is not None}


class UnauthorizedError(EpochdError):
    """No valid API key."""

    code = "unauthorized"


class NotFoundError(EpochdError):
    """There is no such thing."""

    code = "not_found"


class ConflictError(EpochdError):
    """The thing is in a state that does not allow what was asked."""

    code = "conflict"


class PayloadTooLargeError(EpochdError):
    """The request body is larger than the service accepts."""

    code = "payload_too_large"


class InsufficientStorageError(EpochdError):
    """The disk has no room for what was sent."""

    code = "disk_full"


class ServiceUnavailableError(EpochdError):
    """Try again later."""

    code = "unavailable"


class ArchiveUnreadableError(ServiceUnavailableError):
    """The file that iterations were moved to is missing or damaged: no numbers are better than wrong ones."""

    code = "archive_unreadable"


class DatabaseUnavailableError(ServiceUnavailableError):
    """The database does not answer."""

    code = "database_unavailable"


class DatabaseNotMigratedError(ServiceUnavailableError):
    """The schema in the database is not the one this version works with."""

    code = "database_not_migrated"


class ConfigurationError(EpochdError):
    """The settings contradict each other or name something that is not there."""

    code = "configuration"


class DuplicateKeyError(EpochdError):
    """A row with this unique key exists already: somebody else was first."""

    code = "duplicate_key"


class AttemptLostError(EpochdError):
    """The attempt has ended or belongs to another worker: whoever sees this writes nothing more."""

    code = "attempt_lost"


class MirrorError(EpochdError):
    """What a job is mirrored or exported to does not take it."""

    code = "mirror_failed"


class MirrorAwayError(MirrorError):
    """The target cannot be used for now: it does not answer, or its disk is full."""

    code = "mirror_away"


class MirrorRefusedError(MirrorError):
    """The target does not take this job: its run was removed there, say."""

    code = "mirror_refused"


class ExportError(EpochdError):
    """A trained model cannot be exported, or the file does something else than the model (``export_differs``)."""

    code = "export_failed"


class CorruptCheckpointError(EpochdError):
    """A checkpoint's file is not what was once written: never loaded; the one before it is used."""

    code = "corrupt_checkpoint"


class TrainingError(EpochdError):
    """Ends a job as ``failed``."""

    code = "training_failed"
    category: ClassVar[ErrorCategory] = "infrastructure"
    retryable: ClassVar[bool] = False


class ModelError(TrainingError):
    """An operator's model cannot be made with the job's parameters and data, or is not what a model has to be."""

    code = "model_refused"
    category = "spec"


class DataError(TrainingError):
    """The data cannot be trained on."""

    code = "bad_data"
    category = "data"


class NumericError(TrainingError):
    """The training loss became NaN or infinite at ``iteration`` (counted from 1)."""

    code = "non_finite_loss"
    category = "numeric"

    def __init__(self, message: str, *, iteration: int, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.iteration = iteration


class OutOfMemoryError(TrainingError):
    """A mini-batch, the model or the data did not fit into memory."""

    code = "out_of_memory"
    category = "out_of_memory"


class InfrastructureError(TrainingError):
    """A failure around the training, not of it."""

    code = "infrastructure"
    category = "infrastructure"
    retryable = True
