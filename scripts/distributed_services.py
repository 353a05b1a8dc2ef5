"""PostgreSQL and Redis on loopback, for as long as a `with` block lasts: own ports, own data, nothing kept.

They are the programs of the Debian packages, not the services: those that run on this machine already are left alone.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from processes import LOOPBACK, ManagedProcess, end_processes, environment_for_loopback, free_ports

START_TIMEOUT = 60  # seconds
POSTGRES_USER = "postgres"


class ServiceError(RuntimeError):
    """A service did not start; the message shows why."""


def postgres_programs() -> Path | None:
    """Return the folder with PostgreSQL's server programs; Debian keeps them off PATH, one folder for each version."""
    initdb = shutil.which("initdb")
    folders = [Path(initdb).resolve().parent] if initdb else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists() and (folder / "postgres").exists()), None)


def redis_program() -> Path | None:
    """Return the path of the Redis server."""
    found = shutil.which("redis-server")
    return Path(found) if found else None


class Service:
    """One server with a folder of its own; subclasses say how it is prepared and started."""

    name = ""

    def __init__(self, log: Path):
        self.log = log.absolute()
        self.port = free_ports(1)[0]
        self.password = secrets.token_hex(16)
        self.folder = Path()
        self._process: ManagedProcess | None = None

    def __enter__(self) -> Service:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix=f"flux-{self.name}-"))
        try:
            self._process = ManagedProcess(
                self.name, self.prepare(), environment=environment_for_loopback({}), log=self.log, cwd=self.folder
            )
            self._wait_until_it_listens(self._process)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def prepare(self) -> list[str]:
        """Make what the server needs in its folder and return the command that starts it."""
        raise NotImplementedError

    def stop(self) -> None:
        """End the server and remove its data."""
        if self._process:
            end_processes([self._process])
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_until_it_listens(self, process: ManagedProcess) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            if process.returncode is not None or time.monotonic() > deadline:
                raise ServiceError(f"{self.name} did not start.\n--- end of {self.log} ---\n{process.tail()}")
            with socket.socket() as probe:
                if probe.connect_ex((LOOPBACK, self.port)) == 0:
                    return
            time.sleep(0.1)


class Postgres(Service):
    """A PostgreSQL server without its usual care for the disk: the data are not meant to outlive it.

    When its first process ends, it ends the others, which are in sessions of their own.
    """

    name = "postgres"

    @property
    def url(self) -> str:
        """Address for SQLAlchemy, without the scheme."""
        return f"{POSTGRES_USER}:{self.password}@{LOOPBACK}:{self.port}/postgres"

    def prepare(self) -> list[str]:
        """Make a new cluster."""
        programs = postgres_programs()
        if programs is None:
            raise ServiceError("PostgreSQL's server programs are not installed.")
        password_file, data = self.folder / "password", self.folder / "data"
        password_file.write_text(self.password)
        if os.geteuid() == 0:
            self._give_away(self.folder, password_file)
        initdb = [str(programs / "initdb"), "--pgdata", str(data), "--username", POSTGRES_USER]
        initdb += ["--auth", "scram-sha-256", "--pwfile", str(password_file), "--no-sync"]
        done = subprocess.run([*_as_postgres(), *initdb], cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ServiceError(f"initdb failed: {done.stdout}{done.stderr}")
        settings = {
            "listen_addresses": LOOPBACK,
            "port": self.port,
            "unix_socket_directories": "",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "max_connections": 200,
        }
        options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        return [*_as_postgres(), str(programs / "postgres"), "-D", str(data), *options]

    def _give_away(self, *paths: Path) -> None:
        owner = pwd.getpwnam(POSTGRES_USER)
        for path in paths:
            os.chown(path, owner.pw_uid, owner.pw_gid)


class Redis(Service):
    """A Redis server that keeps everything in memory."""

    name = "redis"

    @property
    def url(self) -> str:
        """Address for Celery."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    def prepare(self) -> list[str]:
        """Write the configuration; the password is not for the list of processes."""
        program = redis_program()
        if program is None:
            raise ServiceError("redis-server is not installed.")
        configuration = self.folder / "redis.conf"
        lines = (
            f"port {self.port}",
            f"bind {LOOPBACK}",
            f"requirepass {self.password}",
            f"dir {self.folder}",
            'save ""',
        )
        configuration.write_text("\n".join(lines) + "\n")
        return [str(program), str(configuration)]


def _as_postgres() -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={POSTGRES_USER}", f"--regid={POSTGRES_USER}", "--init-groups", "--"]
