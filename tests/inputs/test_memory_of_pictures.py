"""Pictures that are checked at once take no more memory than one of the largest."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from airflow_provider_flux.inputs.picture_reading import LARGEST_FILE, _Room


def test_pictures_that_are_read_at_once_share_the_room() -> None:
    room, lock, held, most = _Room(), threading.Lock(), 0, 0

    def read(size: int) -> None:
        nonlocal held, most
        with room.taken(size):
            with lock:
                held += size
                most = max(most, held)
            time.sleep(0.005)
            with lock:
                held -= size

    sizes = [LARGEST_FILE // 5 * (1 + number % 4) for number in range(40)] + [LARGEST_FILE]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(read, sizes))
    assert LARGEST_FILE // 2 < most <= LARGEST_FILE


def test_an_error_gives_the_room_back() -> None:
    room, tries = _Room(), 0
    for _ in range(3):
        with suppress(OSError), room.taken(LARGEST_FILE):
            tries += 1
            raise OSError("gone")
    assert tries == 3
