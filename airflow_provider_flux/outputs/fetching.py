"""Fetching one output: without the key, within bounds, and again while its URL lives."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import urljoin

import requests
from requests.auth import AuthBase
from requests.utils import requote_uri
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util import Retry

from airflow_provider_flux.exceptions import (
    FluxError,
    FluxOutputError,
    FluxOutputExpiredError,
    FluxOutputNotStoredError,
)
from airflow_provider_flux.outputs.addresses import ForbiddenOriginError, check_url, without_secrets
from airflow_provider_flux.outputs.fetch_connections import CheckedAdapter
from airflow_provider_flux.outputs.pictures import NotAPictureError, Picture, TruncatedPictureError, recognise
from airflow_provider_flux.protocol import schedule

_log = logging.getLogger(__name__)

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes. A PNG of four megapixels, the most that a FLUX model makes, stays below 17 MB."""

TRIES = 6
"""How often a file is asked for when nobody said how long its URL lives."""

LOOKS = 3
"""How often "gone" or "no picture" must be said in a row to be believed: a paid picture is at stake, and file hosts
have such moments."""

LONGEST_PAUSE = 60.0
"""Seconds that a host's wish for patience is heeded: the file does not live long."""

REDIRECTS = 5
CHUNK = 64 * 1024

_GONE = frozenset({403, 404, 410})
"""A signed URL that is past its time is answered with 403 by the object stores of Amazon, Google and Azure."""

_PASSING = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchRules:
    """The bounds of a fetch.

    :param allow_private: allow plain http, and addresses of this machine and of private networks.
    :param largest_file: bytes after which a file is refused.
    :param connect_timeout: seconds to make a connection.
    :param read_timeout: seconds of silence after which a try is given up.
    :param total_timeout: seconds after which a try is given up, however slowly it keeps coming.
    """

    allow_private: bool = False
    largest_file: int = LARGEST_FILE
    connect_timeout: float = 10.0
    read_timeout: float = 30.0
    total_timeout: float = 300.0


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that is here and whole.

    :param sha256: of its bytes, in hexadecimal.
    :param size: bytes.
    """

    picture: Picture
    sha256: str
    size: int


class _Trouble(Exception):
    """One try failed.

    :param error: the error to raise if it is the last one.
    :param looks: how often in a row it must happen to be believed; None for trouble that may pass at any time.
    :param retry_after: seconds that the host asked to wait.
    """

    def __init__(
        self,
        message: str,
        error: type[FluxError] = FluxOutputNotStoredError,
        *,
        looks: int | None = None,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.error = error
        self.looks = looks
        self.retry_after = retry_after


class Fetcher:
    """Fetches pictures over connections that it keeps from one to the next. For one thread at a time.

    It never makes a prediction, and never sends a key, a cookie or what a .netrc holds.
    """

    def __init__(self, rules: FetchRules, *, sleep: Callable[[float], object] = time.sleep) -> None:
        self._rules = rules
        self._sleep = sleep
        self._session = requests.Session()
        self._session.auth = _NoKey()
        # Pictures are compressed already, and what is packed can unpack to anything.
        self._session.headers.update({"Accept": "image/*", "Accept-Encoding": "identity"})
        self._environments: dict[str, Mapping[str, Any]] = {}
        # What one picture's host sets is nothing that the next one needs.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, CheckedAdapter(allow_private=rules.allow_private))

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def fetch(self, url: str, into: BinaryIO, *, about: str, expires_at: float | None = None) -> Fetched:
        """Fetch a picture, again and again if need be.

        :param into: a new file, open to be written and read. It holds a whole picture only if this returns.
        :param about: what the picture is, for messages.
        :param expires_at: when to stop trying, in seconds since the epoch: the earlier of the URL's end and the
            caller's own. At least one try is made. Without it there are :data:`TRIES`.
        :raises FluxOutputExpiredError: if the host says that there is no such file any more.
        :raises FluxOutputError: if what is there can never be stored: no picture, too large, or at a forbidden address.
        :raises FluxOutputNotStoredError: if it could not be fetched in time; the file may still be there.
        """
        attempt = doubts = 0
        told = ""
        while True:
            attempt += 1
            try:
                return self._try_once(url, into)
            except _Trouble as trouble:
                doubts = doubts + 1 if trouble.looks is not None else 0
                pause = min(max(schedule.backoff(attempt), trouble.retry_after), LONGEST_PAUSE)
                believed = trouble.looks is not None and doubts >= trouble.looks
                too_late = attempt >= TRIES if expires_at is None else time.time() + pause > expires_at
                if believed or too_late:
                    raise trouble.error(_explain(url, about, trouble, attempt)) from trouble
                if str(trouble) != told:
                    told = str(trouble)
                    _log.warning("%s cannot be fetched yet and is tried again: %s", about, told)
            self._sleep(pause)

    def _try_once(self, url: str, into: BinaryIO) -> Fetched:
        ends_at = time.monotonic() + self._rules.total_timeout
        try:
            with closing(self._follow(url)) as response:
                _check_status(response)
                return _write(response, into, self._rules, ends_at)
        except ForbiddenOriginError as error:
            raise _Trouble(f"the URL must not be fetched, because {error}", FluxOutputError, looks=1) from error
        except (requests.RequestException, HTTPError) as error:
            # Not its own words: they hold the whole URL, and with it what signs it.
            raise _Trouble(f"the connection failed ({type(error).__name__})") from None
        except OSError as error:
            raise _Trouble(f"it could not be written ({error})") from error

    def _follow(self, url: str) -> requests.Response:
        """Get a URL, checking each redirect's target before it is followed."""
        for _ in range(REDIRECTS + 1):
            check_url(url, allow_private=self._rules.allow_private)
            response = self._session.send(
                self._session.prepare_request(requests.Request("GET", url)),
                timeout=(self._rules.connect_timeout, self._rules.read_timeout),
                allow_redirects=False,
                **self._environment_for(url),
            )
            target = self._session.get_redirect_target(response)
            if target is None:
                return response
            response.close()
            url = requote_uri(urljoin(url, target))
        raise _Trouble(f"it was redirected more than {REDIRECTS} times", FluxOutputError, looks=LOOKS)

    def _environment_for(self, url: str) -> Mapping[str, Any]:
        """Return the proxies and authorities that the environment has for a host. Finding them out is slow."""
        origin = "/".join(url.split("/", 3)[:3])
        if origin not in self._environments:
            self._environments[origin] = self._session.merge_environment_settings(
                url, {}, stream=True, verify=None, cert=None
            )
        return self._environments[origin]


def _explain(url: str, about: str, trouble: _Trouble, attempts: int) -> str:
    tries = f" after {attempts} tries" if attempts > 1 else ""
    return f"{about} could not be fetched from {without_secrets(url)}{tries}: {trouble}. {_ADVICE[trouble.error]}"


_ADVICE: dict[type[FluxError], str] = {
    FluxOutputExpiredError: (
        "The file is gone: services delete it ten minutes to an hour after the prediction. Store it in the task that "
        "waits, which fetches it at once."
    ),
    FluxOutputError: "Fetching it again would not help.",
    FluxOutputNotStoredError: "It was paid for and may still be there: a retry can fetch it, as long as it lives.",
}


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    if status == 200:
        return
    if status in _GONE:
        raise _Trouble(f"the host answered {status}", FluxOutputExpiredError, looks=LOOKS)
    if status in _PASSING or status >= 500:
        raise _Trouble(f"the host answered {status}", retry_after=_retry_after(response))
    raise _Trouble(f"the host answered {status}", FluxOutputError, looks=LOOKS)


def _retry_after(response: requests.Response) -> float:
    hint = response.headers.get("Retry-After")
    try:
        return Retry().parse_retry_after(hint) if hint else 0.0
    except InvalidHeader:
        return 0.0


def _write(response: requests.Response, into: BinaryIO, rules: FetchRules, ends_at: float) -> Fetched:
    announced = response.headers.get("Content-Length", "")
    if announced.isdigit():
        _check_size(int(announced), rules)
    digest, size = hashlib.sha256(), 0
    if into.tell():
        # What an earlier try has left.
        into.seek(0)
        into.truncate()
    for chunk in _chunks(response, ends_at):
        size += len(chunk)
        _check_size(size, rules)
        digest.update(chunk)
        into.write(chunk)
    return Fetched(_recognise(into), digest.hexdigest(), size)


def _check_size(size: int, rules: FetchRules) -> None:
    if size > rules.largest_file:
        raise _Trouble(f"it is larger than {rules.largest_file} bytes", FluxOutputError, looks=1)


def _chunks(response: requests.Response, ends_at: float) -> Iterator[bytes]:
    try:
        # Piece by piece as they come, since a body that trickles meets no read timeout. One that ends before its
        # announced length is an error here.
        while chunk := response.raw.read1(CHUNK, decode_content=True):
            yield chunk
            if time.monotonic() > ends_at:
                raise _Trouble("it came too slowly")
    except (HTTPError, OSError) as error:
        raise _Trouble(f"the connection ended before the file was whole ({type(error).__name__})") from error


def _recognise(file: BinaryIO) -> Picture:
    try:
        return recognise(file)
    except TruncatedPictureError as error:
        raise _Trouble(str(error)) from error
    except NotAPictureError as error:
        raise _Trouble(f"it is no PNG, JPEG or WebP picture but {error}", FluxOutputError, looks=LOOKS) from error


class _NoKey(AuthBase):
    """Adds nothing. An auth object also keeps a .netrc from adding what it has for the host."""

    def __call__(self, prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        return prepared
