"""Fetching one output: without the key, within bounds, and again while its URL lives."""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from http.cookiejar import DefaultCookiePolicy
from types import TracebackType
from typing import BinaryIO
from urllib.parse import urljoin

import requests
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError, ReadTimeoutError

from airflow_provider_flux.client.bounded_connections import BoundedAdapter, Exchange, carried_out
from airflow_provider_flux.client.settings_in_use import UnusableSettingError, proxy_for, trust_in
from airflow_provider_flux.client.transport_failures import transport_failure
from airflow_provider_flux.exceptions import (
    FluxError,
    FluxOutputError,
    FluxOutputExpiredError,
    FluxOutputNotStoredError,
)
from airflow_provider_flux.outputs.addresses import ForbiddenOriginError, check_address, check_url, without_secrets
from airflow_provider_flux.outputs.pictures import NotAPictureError, Picture, TruncatedPictureError, recognise
from airflow_provider_flux.protocol import schedule
from airflow_provider_flux.protocol.error_bodies import seconds_of
from airflow_provider_flux.protocol.messages import Delivery
from airflow_provider_flux.protocol.urls import tidy

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

SHORTEST_TRY = 5.0
"""Seconds that a try is given even where its caller's deadline has come: the picture is paid for."""

REDIRECTS = 5
CHUNK = 64 * 1024

_GONE = frozenset({403, 404, 410})
"""A signed URL that is past its time is answered with 403 by the object stores of Amazon, Google and Azure."""

_PASSING = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchRules:
    """The bounds of a fetch.

    :param allow_private: allow plain http, and addresses of this machine and of private networks.
    :param ca_file: PEM file of authorities to trust besides the usual ones.
    :param largest_file: bytes after which a file is refused.
    :param connect_timeout: seconds to make a connection.
    :param read_timeout: seconds of silence after which a try is given up.
    :param total_timeout: seconds after which a try is given up, however slowly it keeps coming.
    """

    allow_private: bool = False
    ca_file: str | None = None
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


class _FetchProblem(Exception):
    """One try failed.

    :param error: the error to raise if it is the last one.
    :param looks: how often in a row it must happen to be believed; None for a problem that may pass at any time.
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
        # What the environment says of proxies and authorities is found out in the way in which the gateway's is.
        self._session.trust_env = False
        self._proxies: dict[str, dict[str, str]] = {}
        # What one picture's host sets is nothing that the next one needs.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._adapter: BoundedAdapter | None = None

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def fetch(
        self,
        url: str,
        into: BinaryIO,
        *,
        about: str,
        expires_at: float | None = None,
        give_up_at: float | None = None,
    ) -> Fetched:
        """Fetch a picture, again and again if need be.

        :param into: a new file, open to be written and read. It holds a whole picture only if this returns.
        :param about: what the picture is, for messages.
        :param expires_at: when to stop trying, in seconds since the epoch: the earlier of the URL's end and the
            caller's own. At least one try is made. Without it there are :data:`TRIES`.
        :param give_up_at: when to end a try under way as well, however slowly it keeps coming.
        :raises FluxOutputExpiredError: if the host says that there is no such file any more.
        :raises FluxOutputError: if what is there can never be stored: no picture, too large, or at a forbidden address.
        :raises FluxOutputNotStoredError: if it could not be fetched in time; the file may still be there.
        """
        url = tidy(url)
        attempt = doubts = 0
        told = ""
        while True:
            attempt += 1
            try:
                return self._try_once(url, into, self._seconds_of_try(give_up_at))
            except _FetchProblem as problem:
                doubts = doubts + 1 if problem.looks is not None else 0
                pause = min(max(schedule.backoff(attempt), problem.retry_after), LONGEST_PAUSE)
                believed = problem.looks is not None and doubts >= problem.looks
                too_late = attempt >= TRIES if expires_at is None else time.time() + pause > expires_at
                too_late = too_late or (give_up_at is not None and time.time() + pause > give_up_at)
                if believed or too_late:
                    raise problem.error(_explain(url, about, problem, attempt)) from problem
                if str(problem) != told:
                    told = str(problem)
                    _log.warning("%s cannot be fetched yet and is tried again: %s", about, told)
            self._sleep(pause)

    def _seconds_of_try(self, give_up_at: float | None) -> float:
        longest = self._rules.total_timeout
        return longest if give_up_at is None else min(longest, max(SHORTEST_TRY, give_up_at - time.time()))

    def _try_once(self, url: str, into: BinaryIO, seconds: float) -> Fetched:
        now = time.monotonic()
        rules = self._rules
        exchange = Exchange(now + rules.connect_timeout, now + seconds, rules.read_timeout, self._check_peer)
        try:
            with carried_out(exchange), closing(self._follow(url, exchange)) as response:
                _check_status(response)
                return _write(response, into, self._rules)
        except ForbiddenOriginError as error:
            raise _FetchProblem(f"the URL must not be fetched, because {error}", FluxOutputError, looks=1) from error
        except UnusableSettingError as error:
            raise _FetchProblem(str(error), looks=1) from error
        except (requests.RequestException, HTTPError, HTTPException) as error:
            # Not its own words: they hold the whole URL, and with it what signs it.
            too_slow = time.monotonic() >= exchange.ends_at
            raise _FetchProblem("it came too slowly" if too_slow else _describe(error)) from None
        except OSError as error:
            # A full disk does not pass while other rows wait for the thread.
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise _FetchProblem(f"it could not be written ({error})", looks=1 if is_full else None) from error

    def _check_peer(self, address: str) -> None:
        check_address(ipaddress.ip_address(address.partition("%")[0]), allow_private=self._rules.allow_private)

    def _follow(self, url: str, exchange: Exchange) -> requests.Response:
        """Get a URL, checking each redirect's target before it is followed."""
        if self._adapter is None:
            self._adapter = BoundedAdapter(trust_in(self._rules.ca_file, and_the_usual=True))
            for scheme in ("https://", "http://"):
                self._session.mount(scheme, self._adapter)
        for _ in range(REDIRECTS + 1):
            check_url(url, allow_private=self._rules.allow_private)
            exchange.is_sent = False
            exchange.connect_by = min(time.monotonic() + self._rules.connect_timeout, exchange.ends_at)
            response = self._session.send(
                self._session.prepare_request(requests.Request("GET", url)),
                timeout=(self._rules.connect_timeout, self._rules.read_timeout),
                allow_redirects=False,
                stream=True,
                proxies=self._proxies_for(url),
            )
            target = self._session.get_redirect_target(response)
            if target is None:
                return response
            response.close()
            url = tidy(urljoin(url, tidy(target)))
        raise _FetchProblem(f"it was redirected more than {REDIRECTS} times", FluxOutputError, looks=LOOKS)

    def _proxies_for(self, url: str) -> dict[str, str]:
        """Return the proxy that the environment has for a host. Finding it out is slow."""
        origin = "/".join(url.split("/", 3)[:3])
        if origin not in self._proxies:
            proxy = proxy_for(url)
            self._proxies[origin] = {"all": proxy} if proxy else {}
        return self._proxies[origin]


def _explain(url: str, about: str, problem: _FetchProblem, attempts: int) -> str:
    tries = f" after {attempts} tries" if attempts > 1 else ""
    return f"{about} could not be fetched from {without_secrets(url)}{tries}: {problem}. {_ADVICE[problem.error]}"


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
        raise _FetchProblem(f"the host answered {status}", FluxOutputExpiredError, looks=LOOKS)
    if status in _PASSING or status >= 500:
        raise _FetchProblem(f"the host answered {status}", retry_after=_retry_after(response))
    raise _FetchProblem(f"the host answered {status}", FluxOutputError, looks=LOOKS)


def _retry_after(response: requests.Response) -> float:
    return seconds_of(response.headers.get("Retry-After")) or 0.0


def _describe(error: Exception) -> str:
    failure = transport_failure(error, is_sent=False, origin="its host")
    if failure.delivery is Delivery.UNTRUSTED:
        return f"{failure.message} ({type(error).__name__})"
    return f"the connection failed ({type(error).__name__})"


def _write(response: requests.Response, into: BinaryIO, rules: FetchRules) -> Fetched:
    announced = response.headers.get("Content-Length", "")
    if announced.isdigit():
        _check_size(int(announced), rules)
    digest, size = hashlib.sha256(), 0
    if into.tell():
        # What an earlier try has left.
        into.seek(0)
        into.truncate()
    for chunk in _chunks(response):
        size += len(chunk)
        _check_size(size, rules)
        digest.update(chunk)
        into.write(chunk)
    return Fetched(_recognise(into), digest.hexdigest(), size)


def _check_size(size: int, rules: FetchRules) -> None:
    if size > rules.largest_file:
        raise _FetchProblem(f"it is larger than {rules.largest_file} bytes", FluxOutputError, looks=1)


def _chunks(response: requests.Response) -> Iterator[bytes]:
    try:
        # Piece by piece as they come. A body that ends before its announced length is an error here.
        while chunk := response.raw.read1(CHUNK, decode_content=True):
            yield chunk
    except ReadTimeoutError:
        raise
    except (HTTPError, OSError) as error:
        raise _FetchProblem(f"the connection ended before the file was whole ({type(error).__name__})") from error


def _recognise(file: BinaryIO) -> Picture:
    try:
        return recognise(file)
    except TruncatedPictureError as error:
        raise _FetchProblem(str(error)) from error
    except NotAPictureError as error:
        raise _FetchProblem(f"it is no PNG, JPEG or WebP picture but {error}", FluxOutputError, looks=LOOKS) from error


class _NoKey(AuthBase):
    """Adds nothing. An auth object also keeps a .netrc from adding what it has for the host."""

    def __call__(self, prepared: requests.PreparedRequest) -> requests.PreparedRequest:
        return prepared
