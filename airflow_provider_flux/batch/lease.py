"""The lease on a manifest: of the batches that would work on it at once, one works and the others wait.

A lease is a numbered file in the ledger's folder, created only if it does not exist yet; the highest number counts. A
holder rewrites its own file as a sign of life, and marks it when it is done. The last file stays: its number is never
given again, and it says whose manifest this is.

What makes two holders harmless is an order: a holder writes down an intent and then looks whether the lease is still
its own, and whoever takes over creates its lease and then reads the ledger. So either the old holder sees the new lease
and sends nothing, or the new one sees the intent and does not send it again. What remains is a create that its worker
was about to send when it stood still for longer than a minute, right after its last look. Where files cannot be created
exclusively, a second one remains: a sign of life that is written over the other's token before that one has looked.

S3, Google Cloud Storage and Azure create files exclusively through arguments of fsspec's ``pipe_file``. Where a storage
does not, or takes the argument and overwrites all the same, a file is written, and read back after a pause: who wrote
last has it. Two that write further apart than the pause are told apart by the file that is there already, or, if one
of them stood still after it had looked for that, by the token in it.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from uuid import uuid4

from airflow_provider_flux.batch.line_files import create_exclusively, join, list_names, read_text, remove, write_lines
from airflow_provider_flux.exceptions import FluxLeaseLostError, FluxManifestOwnerError, FluxOverlapError
from airflow_provider_flux.protocol.messages import Log
from airflow_provider_flux.protocol.times import iso

RELEASE_PATIENCE = 10.0
"""Seconds that a sign of life under way is waited for at the end: a storage that hangs must not hold up a task that has
made its pictures."""

HEARTBEAT = 15.0
"""Seconds between two signs of life: a write each, and eight of them may fail before the lease expires."""

EXPIRY = 120.0
"""Seconds without a sign of life after which a holder is taken for dead. A stalled worker or storage recovers within a
minute or two; waiting longer would only hold up the next run."""

OBSERVATION = 40.0
"""Seconds for which a lease must be seen unchanged at least, so that no wrong clock takes it from a holder alive."""

POLL_INTERVAL = 5.0
"""Seconds between two looks of a batch that waits."""

REPORT_INTERVAL = 60.0
"""Seconds between two lines in the log of a batch that waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Who works on a manifest, or has worked on it last.

    :param token: stands for this holder alone.
    :param since: when it began, in seconds since the epoch.
    :param alive_at: its last sign of life, by its own clock.
    :param released: whether it is done.
    """

    dag_id: str
    task_id: str
    run_id: str
    map_index: int
    try_number: int
    token: str = field(default_factory=lambda: uuid4().hex)
    since: float = field(default_factory=time.time)
    alive_at: float = field(default_factory=time.time)
    released: bool = False

    @classmethod
    def of_task(cls, task_instance: Any) -> Lease:
        """Return the lease that a task instance asks for."""
        return cls(
            dag_id=task_instance.dag_id,
            task_id=task_instance.task_id,
            run_id=task_instance.run_id,
            map_index=task_instance.map_index if task_instance.map_index is not None else -1,
            try_number=task_instance.try_number,
        )

    @classmethod
    def from_text(cls, text: str) -> Lease | None:
        """Read a lease file; None if it is torn. Fields that a later version has added are left out."""
        try:
            stored = json.loads(text)
            read = cls(**{name: stored[name] for name in cls.__slots__ if name in stored})
            return replace(
                read, try_number=int(read.try_number), since=float(read.since), alive_at=float(read.alive_at)
            )
        except (ValueError, TypeError):
            return None

    def as_text(self) -> str:
        """Return what its file holds."""
        return json.dumps(asdict(self))

    @property
    def owner(self) -> tuple[str, str]:
        """Whose manifest it is."""
        return self.dag_id, self.task_id

    def yields_to(self, other: Lease) -> bool:
        """Tell whether another lease is of the same task instance and no earlier try: then this one's is over."""
        is_same = (*self.owner, self.run_id, self.map_index) == (*other.owner, other.run_id, other.map_index)
        return is_same and self.try_number <= other.try_number

    def __str__(self) -> str:
        index = f", map index {self.map_index}" if self.map_index >= 0 else ""
        return (
            f"DAG {self.dag_id!r}, task {self.task_id!r}, run {self.run_id!r}{index}, try {self.try_number} (since "
            f"{iso(self.since)}, last sign of life {iso(self.alive_at)})"
        )


def has_expired(lease: Lease | None, *, unchanged_for: float, now: float) -> bool:
    """Tell whether a holder is to be taken for dead.

    ===================== ===================================== =======
    Seen unchanged for    Last sign of life, by its own clock   Expired
    ===================== ===================================== =======
    EXPIRY or longer      any, or the file is torn              yes
    OBSERVATION or longer longer ago than EXPIRY                yes
    OBSERVATION or longer not so long ago, or in the future     no
    less                  any                                   no
    ===================== ===================================== =======

    :param lease: what its file says; None if it is torn.
    :param unchanged_for: seconds for which it has been seen like this.
    :param now: seconds since the epoch.
    """
    if unchanged_for >= EXPIRY:
        return True
    return lease is not None and unchanged_for >= OBSERVATION and now - lease.alive_at > EXPIRY


class LeaseFile:
    """The lease of one batch on one manifest.

    :param folder: the ledger's folder.
    :param lease: who asks for it.
    :param manifest_path: for messages.
    """

    def __init__(
        self,
        folder: str,
        lease: Lease,
        manifest_path: str,
        log: Log,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._folder = folder
        self._lease = lease
        self._manifest_path = manifest_path
        self._log = log
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._number = 0
        self._verified_at = (0.0, 0.0)
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._heartbeat: threading.Thread | None = None
        self.is_lost = False

    def acquire(self, *, waits: bool, adopts: bool, is_stopped: Callable[[], bool]) -> bool:
        """Get the lease, waiting for whoever has it.

        :param waits: whether to wait; otherwise another holder is an error.
        :param adopts: whether to take over the manifest of another task.
        :param is_stopped: tells whether the task is being ended.
        :return: whether it was had; False only if the task is being ended.
        :raises FluxManifestOwnerError: if the manifest is another task's. Nothing was sent.
        :raises FluxOverlapError: if another batch has the lease, and it is not to be waited for. Nothing was sent.
        """
        seen, seen_since, reported_at = "", self._monotonic(), -REPORT_INTERVAL
        while not is_stopped():
            number, text = self._latest()
            if text != seen:
                seen, seen_since = text, self._monotonic()
            holder = Lease.from_text(text) if text else None
            if holder is not None and holder.owner != self._lease.owner and not adopts:
                raise self._owned_by(holder)
            if self._is_free(text, holder, self._monotonic() - seen_since):
                if self._create(number + 1):
                    return True
                continue
            if not waits:
                raise FluxOverlapError(
                    f"{holder or 'Another batch'} works on {self._manifest_path}, and on_overlap='fail' says not to "
                    "wait for it. Nothing was sent. A retry of this task goes on from what that one has made."
                )
            if self._monotonic() - reported_at >= REPORT_INTERVAL:
                reported_at = self._monotonic()
                self._log.info("Waiting for %s, which works on %s", holder or "another batch", self._manifest_path)
            self._sleep(POLL_INTERVAL)
        return False

    def start_heartbeat(self) -> None:
        """Give signs of life from now on, in a thread of its own."""
        self._heartbeat = threading.Thread(target=self._beat, name="flux-lease", daemon=True)
        self._heartbeat.start()

    def was_verified_within(self, seconds: float) -> bool:
        """Tell whether the last look was not longer ago than this."""
        # By both clocks: one stands still while the machine is suspended, the other may be set.
        return all(0.0 <= now - then <= seconds for now, then in zip(self._now(), self._verified_at, strict=True))

    def verify(self) -> None:
        """Make sure that the lease is still held. Blocks for one listing of the folder, and one small file.

        :raises FluxLeaseLostError: if another batch has taken it over: nothing more may be sent.
        """
        # Before the listing: a worker that stands still while it comes has an old one.
        asked_at = self._now()
        number, text = self._latest()
        holder = Lease.from_text(text)
        with self._lock:
            # The token as well: where files cannot be created exclusively, another batch may have written this one.
            is_own = number == self._number and (holder is None or holder.token == self._lease.token)
            self.is_lost = self.is_lost or not is_own
            if self.is_lost:
                raise FluxLeaseLostError(
                    f"{holder or 'Another batch'} has taken over {self._manifest_path}: this one gave no sign of life "
                    f"for {EXPIRY:.0f} s, a newer try of it has begun, or both began at once on a storage that cannot "
                    "create files exclusively. This one submits nothing more; what it had in flight is in its ledger, "
                    "where the other one finds it."
                )
            self._verified_at = asked_at

    def release(self) -> None:
        """Let the next batch begin at once."""
        self._done.set()
        if self._heartbeat is not None:
            self._heartbeat.join(RELEASE_PATIENCE)
            if self._heartbeat.is_alive():
                self._log.warning(
                    "The storage of %s does not respond, so its lease is not released: the next batch waits for %.0f s",
                    self._manifest_path,
                    EXPIRY,
                )
                return
        if self._number and not self.is_lost:
            self._lease = replace(self._lease, released=True)
            try:
                self._write()
            except Exception as error:  # noqa: BLE001 (what the batch has made counts more)
                self._log.warning(
                    "The lease on %s could not be released (%s): the next batch waits for %.0f s",
                    self._manifest_path,
                    error,
                    EXPIRY,
                )

    def _now(self) -> tuple[float, float]:
        return self._monotonic(), self._clock()

    def _latest(self) -> tuple[int, str]:
        """Return the number and the text of the lease that counts; 0 and nothing if there is none."""
        number = max(_numbers(list_names(self._folder)), default=0)
        return number, read_text(self._path(number)) or "?" if number else ""

    def _is_free(self, text: str, holder: Lease | None, unchanged_for: float) -> bool:
        if not text:
            return True
        if holder is not None and (holder.released or holder.yields_to(self._lease)):
            return True
        return has_expired(holder, unchanged_for=unchanged_for, now=self._clock())

    def _create(self, number: int) -> bool:
        """Create the lease with a number, and tell whether it is the one that counts."""
        now = self._clock()
        self._lease = replace(self._lease, since=now, alive_at=now)
        if not create_exclusively(self._path(number), self._lease.as_text()):
            return False
        asked_at = self._now()
        numbers = _numbers(list_names(self._folder))
        if max(numbers, default=0) != number:
            remove([self._path(number)])
            return False
        self._number, self._verified_at = number, asked_at
        remove(self._path(earlier) for earlier in numbers if earlier < number)
        return True

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT):
            try:
                self.verify()
                self._lease = replace(self._lease, alive_at=self._clock())
                self._write()
            except FluxLeaseLostError:
                return
            except Exception as error:  # noqa: BLE001 (the storage may recover; a create is verified for itself)
                self._log.warning("The lease on %s could not be renewed: %s", self._manifest_path, error)

    def _write(self) -> None:
        write_lines(self._path(self._number), [self._lease.as_text()])

    def _path(self, number: int) -> str:
        return join(self._folder, f"lease-{number:010d}.json")

    def _owned_by(self, holder: Lease) -> FluxManifestOwnerError:
        return FluxManifestOwnerError(
            f"{self._manifest_path} is the manifest of task {holder.task_id!r} of DAG {holder.dag_id!r}, and would be "
            f"replaced by that of task {self._lease.task_id!r} of DAG {self._lease.dag_id!r}. Nothing was sent. Give "
            "this task a manifest_path or an output_path of its own; if it is the same task under a new name, set "
            "adopt_manifest=True for one run."
        )


def _numbers(names: list[str]) -> list[int]:
    found = (re.fullmatch(r"lease-(\d+)\.json", name) for name in names)
    return [int(name[1]) for name in found if name]
