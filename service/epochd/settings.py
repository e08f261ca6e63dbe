"""Everything an operator can set, by flag or by environment (prefix ``EPOCHD_``)."""

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


class Settings(BaseSettings):
    """The settings of one process; a flag of the command line wins over the environment."""

    model_config = SettingsConfigDict(env_prefix="EPOCHD_", extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port of the API; 0 takes a free one.")
    data_dir: Path = Field(
        Path("epochd-data"), description="Where artifacts, checkpoints and the SQLite file live."
    )
    database_url: str | None = Field(
        None, description="`sqlite:///…` or `postgresql://…`; by default `epochd.db` in the data directory."
    )
    api_workers: int = Field(
        1, ge=1, le=64, description="Processes that answer requests, all on the one address."
    )
    workers: int = Field(
        1, ge=0, le=64, description="Worker processes that `serve` starts beside the API; 0 is an API alone."
    )
    slots: int | None = Field(
        None, ge=1, le=64,
        description="Jobs that one worker trains at once; by default one a GPU, and one on CPU.",
    )  # fmt: skip
    threads: int | None = Field(
        None, ge=1, le=1024, description="CPU threads of one job; by default the cores divided by the slots."
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cuda|(cpu|cuda:[0-9]{1,3})(,(cpu|cuda:[0-9]{1,3}))*)$",
        description="Devices the workers may use: `auto`, `cpu`, `cuda`, or a list such as `cuda:0,cuda:1`.",
    )
    lease_seconds: float = Field(
        30.0,
        ge=1,
        le=3600,
        description="An attempt not renewed for so long is lost; renewed at least three times as often.",
    )
    retry_delay_seconds: float = Field(
        2.0,
        ge=0,
        le=3600,
        description="Wait before the second attempt of a job; doubles with each further one.",
    )
    shutdown_seconds: float = Field(
        10.0, ge=0.1, le=600, description="How long a clean shutdown may take before processes are killed."
    )
    heartbeat_seconds: float = Field(
        15.0, ge=0.05, le=30, description="Silence on an event stream after which a comment is sent."
    )
    slow_reader_seconds: float = Field(
        30.0,
        ge=0.1,
        le=3600,
        description="A reader of an event stream that takes nothing for so long is cut off, and told where to resume.",
    )
    max_body_bytes: int = Field(1_048_576, ge=1024, description="Largest JSON body of a request.")
    max_upload_bytes: int = Field(
        10 * 2**30, ge=1024, description="Largest file that can be uploaded, or fetched, as a data set."
    )
    max_unpacked_bytes: int = Field(
        64 * 2**30, ge=1024, description="Largest size of a data set once it is unpacked and decoded."
    )
    dataset_sources: str | None = Field(
        None,
        description="Prefixes of the addresses that data sets may be fetched from, separated by commas, such as "
        "`s3://bucket/,https://host/path/,file:///data/`; by default none.",
    )
    data_memory_bytes: int | None = Field(
        None,
        ge=0,
        description="Data sets that take more memory are read from disk while they train; by default a quarter of the "
        "machine's memory, divided by the slots.",
    )
    api_keys: SecretStr = Field(
        SecretStr(""), description="Accepted API keys, separated by commas; without any, loopback only."
    )
    insecure: bool = Field(False, description="Listen beyond loopback without API keys.")
    keep_iterations_days: float | None = Field(
        None,
        ge=0,
        le=36_500,
        allow_inf_nan=False,
        description="Days after a job's end after which its iterations move from the database into its artifact "
        "`metrics.parquet`; by default never.",
    )
    mirror_tensorboard: Path | None = Field(
        None, description="Directory in which every job appears as TensorBoard event files."
    )
    mirror_mlflow: str | None = Field(
        None,
        pattern=r"^https?://\S+$",
        description="MLflow tracking server on which every job appears, such as `http://mlflow:5000`.",
    )
    mirror_points: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Mirrors get at most so many iterations of a job, evenly spread, and every epoch.",
    )
    log_level: str = Field(
        "info", pattern="^(debug|info|warning|error)$", description="Verbosity of the logs."
    )

    @property
    def resolved_database_url(self) -> str:
        """The database in use: the one named, else SQLite in the data directory."""
        return self.database_url or f"sqlite:///{(self.data_dir / 'epochd.db').resolve()}"

    @property
    def shown_mirror_mlflow(self) -> str | None:
        """The MLflow server's address without a password."""
        scheme, _, rest = (self.mirror_mlflow or "").partition("://")
        host, slash, path = rest.rpartition("@")[2].partition("/")
        return f"{scheme}://{host}{slash}{path}" if self.mirror_mlflow else None

    @property
    def accepted_api_keys(self) -> tuple[str, ...]:
        """The API keys as separate strings; empty when authentication is off."""
        return tuple(key.strip() for key in self.api_keys.get_secret_value().split(",") if key.strip())

    @property
    def artifacts_dir(self) -> Path:
        """Where the artifacts of all jobs live."""
        return self.data_dir / "artifacts"

    @property
    def datasets_dir(self) -> Path:
        """Where the data sets that callers brought live."""
        return self.data_dir / "datasets"

    @property
    def accepted_sources(self) -> tuple[str, ...]:
        """The prefixes of addresses that data sets may be fetched from, as separate strings."""
        return tuple(prefix.strip() for prefix in (self.dataset_sources or "").split(",") if prefix.strip())

    @property
    def checkpoints_dir(self) -> Path:
        """Where the checkpoints of all jobs live."""
        return self.data_dir / "checkpoints"

    def environment(self) -> dict[str, str]:
        """The same settings as ``EPOCHD_`` variables for a child process: without API keys and others' passwords."""
        values = self.model_dump(mode="json", exclude={"api_keys", "mirror_mlflow"}, exclude_none=True)
        values["data_dir"] = str(self.data_dir.resolve())
        values["database_url"] = self.resolved_database_url
        return {f"EPOCHD_{name.upper()}": str(value) for name, value in values.items()}
