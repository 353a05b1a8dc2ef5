"""What HttpSensor can wait for: `/ready/<id>` answers 404 until the prediction has ended. The rest goes to the gateway.

HttpSensor cannot look into an answer without holding a worker, and no gateway says "not yet" with a 404, so its way to
the gateway leads through this process. It is no part of Airflow, and its CPU time is not counted.
"""

from __future__ import annotations

import argparse

from aiohttp import ClientSession, web

GATEWAY = web.AppKey("gateway", ClientSession)
ENDED = {"succeeded", "failed", "canceled", "aborted"}


async def ready(request: web.Request) -> web.Response:
    """Ask the gateway for a prediction, and say no more than whether it has ended."""
    path = f"/replicate/v1/predictions/{request.match_info['id']}"
    async with request.app[GATEWAY].get(path, headers=_key(request)) as response:
        prediction = await response.json()
    return web.Response(status=200 if prediction["status"] in ENDED else 404)


async def forward(request: web.Request) -> web.Response:
    """Hand a create on to the gateway."""
    headers = _key(request) | {"Content-Type": "application/json"}
    async with request.app[GATEWAY].post(request.path, data=await request.read(), headers=headers) as response:
        return web.Response(status=response.status, body=await response.read(), content_type=response.content_type)


def _key(request: web.Request) -> dict[str, str]:
    return {"Authorization": request.headers["Authorization"]}


async def make_application(gateway: str) -> web.Application:
    """Return the application in front of a gateway."""
    application = web.Application()
    application[GATEWAY] = ClientSession(gateway)
    application.router.add_get("/ready/{id}", ready)
    application.router.add_post("/{path:.*}", forward)
    return application


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    web.run_app(make_application(options.gateway), host="127.0.0.1", port=options.port, access_log=None)
