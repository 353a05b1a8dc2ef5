"""The address at which a gateway calls back, and what makes its calls known as its own.

Both are derived from the connection's key, so that nothing has to be kept or told to anybody: whoever can compute them
has the key already.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from urllib.parse import quote

PATH = "/flux/webhooks"
"""Where the plugin receives the calls."""

ASSET = "flux://predictions/{}"
"""URI of the asset that has an event for each prediction of a connection that has ended, as a call has told."""


_CONN_ID = re.compile(r"[\w.-]{1,250}", re.ASCII)


def may_receive(conn_id: str) -> bool:
    """Tell whether calls for a connection of this id can be received: it is a part of a path."""
    return _CONN_ID.fullmatch(conn_id) is not None


def asset_uri(conn_id: str) -> str:
    """Return the URI of the asset whose events tell of a connection's predictions."""
    return ASSET.format(quote(conn_id, safe=""))


def url_token(key: str, conn_id: str) -> str:
    """Return what a gateway's calls have in their URL, where nothing else tells that they are its own."""
    return _derived(key, f"flux webhook token of {conn_id}")


def shared_secret(key: str, conn_id: str) -> str:
    """Return what BFL signs its calls with."""
    return _derived(key, f"flux webhook secret of {conn_id}")


def webhook_url(base_url: str, conn_id: str, token: str = "") -> str:
    """Return where a gateway is to call.

    :param base_url: of the API server, as the gateway reaches it.
    """
    query = f"?token={token}" if token else ""
    return f"{base_url.rstrip('/')}{PATH}/{quote(conn_id, safe='')}{query}"


def _derived(key: str, purpose: str) -> str:
    return hmac.new(key.encode(), purpose.encode(), hashlib.sha256).hexdigest()
