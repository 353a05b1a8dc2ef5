"""HTTP connections that look at whom they reached before they say anything.

Looking a name up first and connecting later would leave the name time to change its mind (DNS rebinding), so it is
the address of the connected socket that is checked: before TLS begins, and before a byte of the request is sent.

Behind a proxy it is the proxy that resolves names and connects. A proxy is chosen by whoever runs the worker and is
often private itself, so its address is not checked; of the URL, only what :func:`check_url` sees is.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from airflow_provider_flux.outputs.addresses import check_address


def _checked(connected: socket.socket, *, allow_private: bool) -> socket.socket:
    try:
        check_address(ipaddress.ip_address(connected.getpeername()[0]), allow_private=allow_private)
    except BaseException:
        connected.close()
        raise
    return connected


class _PublicHTTPSConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn(), allow_private=False)


class _HTTPSConnection(HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn(), allow_private=True)


class _HTTPConnection(HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _checked(super()._new_conn(), allow_private=True)


class _PublicHTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _PublicHTTPSConnection


class _HTTPSPool(HTTPSConnectionPool):
    ConnectionCls = _HTTPSConnection


class _HTTPPool(HTTPConnectionPool):
    ConnectionCls = _HTTPConnection


class CheckedAdapter(HTTPAdapter):
    """Connects to allowed addresses only.

    :param allow_private: see :func:`airflow_provider_flux.outputs.addresses.check_address`.
    """

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Make the pools of direct connections; those through a proxy are made elsewhere."""
        super().init_poolmanager(*args, **options)
        pools = {"http": _HTTPPool, "https": _HTTPSPool} if self._allow_private else {"https": _PublicHTTPSPool}
        self.poolmanager.pool_classes_by_scheme = pools
