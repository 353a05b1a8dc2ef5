"""What Airflow keeps of a task while its processes come and go, in files: state, state store, XComs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


def write_whole(path: Path, value: Any) -> None:
    """Write JSON so that a reader, or a kill, finds either the old file or the new one."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(value))
    draft.replace(path)


def read(path: Path, default: Any = None) -> Any:
    """Read JSON, if it is there."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return default


class Journal:
    """Everything that was ever kept, with its time.

    :param path: the file, one line per entry.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, what: str, value: Any) -> None:
        """Add an entry, in one write."""
        line = json.dumps({"at": time.time(), "what": what, "value": value}) + "\n"
        with self._path.open("ab", buffering=0) as file:
            file.write(line.encode())

    def first_mentions(self, names: list[str]) -> dict[str, float]:
        """Return when each name was first kept anywhere."""
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        mentions: dict[str, float] = {}
        for line in lines:
            for name in names:
                if name in line:
                    mentions.setdefault(name, json.loads(line)["at"])
        return mentions


class Kept:
    """The files of one task.

    :param folder: where they are.
    :param task_id: the task.
    """

    def __init__(self, folder: Path, task_id: str) -> None:
        self.folder = folder
        self.task_id = task_id
        self.store = folder / f"{task_id}.store.json"
        self.xcoms = folder / f"{task_id}.xcoms.json"
        self.state = folder / f"{task_id}.state.json"
        self.log = folder / f"{task_id}.log"
        self.journal = Journal(folder / "journal.jsonl")

    def result(self, process: int) -> Path:
        """Return the file in which a process says how it ended."""
        return self.folder / f"{self.task_id}.process{process}.json"


class FileStore:
    """Airflow's task state store, in a file.

    :param kept: the files of the task.
    :param latency: seconds that each write takes, before and after it takes effect.
    """

    def __init__(self, kept: Kept, latency: float) -> None:
        self._kept = kept
        self._latency = latency

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value."""
        return read(self._kept.store, {}).get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Keep a value."""
        time.sleep(self._latency)
        write_whole(self._kept.store, {**read(self._kept.store, {}), key: value})
        self._kept.journal.add(f"{self._kept.task_id} store {key}", value)
        time.sleep(self._latency)

    def delete(self, key: str) -> None:
        """Forget a value."""
        write_whole(self._kept.store, {k: v for k, v in read(self._kept.store, {}).items() if k != key})


class FileXComs:
    """The XComs of one task instance.

    :param kept: the files of the task.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def push(self, key: str, value: Any) -> None:
        """Keep an XCom."""
        write_whole(self._kept.xcoms, {**read(self._kept.xcoms, {}), key: value})
        self._kept.journal.add(f"{self._kept.task_id} xcom {key}", value)

    def pull(self, key: str) -> Any:
        """Return an XCom, or None."""
        return read(self._kept.xcoms, {}).get(key)

    def clear(self) -> None:
        """Forget them all, as Airflow does before each try."""
        write_whole(self._kept.xcoms, {})
