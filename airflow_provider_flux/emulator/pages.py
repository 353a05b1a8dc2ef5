"""The pages for people, one per prediction, as ``urls.web`` names it; and the response where nothing lives."""

from __future__ import annotations

from html import escape

from aiohttp import web

from airflow_provider_flux.emulator.calls import Call
from airflow_provider_flux.emulator.responses import NOTICE, no_such_page
from airflow_provider_flux.emulator.rules import TERMINAL
from airflow_provider_flux.emulator.shapes import View

LATEST = 50
SHORT_PROMPT = 120
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c1e21}"
    ".notice{background:#fff3cd;border:1px solid #e0c36a;padding:.6rem 1rem;border-radius:.4rem}"
    "img{max-width:100%;height:auto;border-radius:.4rem}dt{font-weight:600}dd{margin:0 0 .6rem}"
)


async def start(call: Call) -> web.StreamResponse:
    items = ""
    for made in call.state.predictions()[: -LATEST - 1 : -1]:
        text = f"{made.model.name}, {made.at(call.state.now).status}: {made.prompt[:SHORT_PROMPT]}"
        items += f'<li><a href="/p/{escape(made.id)}">{escape(text)}</a></li>'
    return _page(call, "FLUX gateway emulator", f"<h2>Latest predictions</h2><ul>{items or '<li>none yet</li>'}</ul>")


async def one(call: Call) -> web.StreamResponse:
    prediction = call.prediction()
    if prediction is None:
        return _page(call, "No such prediction", "<p>It is not known here.</p>", status=404)
    body = View(call.state, prediction).prediction()
    rows = {
        "Prompt": str(body.get("input", {}).get("prompt", "(removed)")),
        "Model": prediction.model.full_name,
        "Status": str(body.get("status")),
        "Error": str(body.get("error") or ""),
        "Created": str(body.get("created_at", "")),
    }
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows.items() if text)
    output = body.get("output")
    addresses = [output] if isinstance(output, str) else output or []
    pictures = "".join(f'<p><img src="{escape(address)}" alt=""></p>' for address in addresses)
    running = body.get("status") not in TERMINAL
    return _page(call, f"Prediction {prediction.id}", f"<dl>{listed}</dl>{pictures}", refresh=running)


async def no_page(call: Call) -> web.StreamResponse:
    """Respond where nothing lives, as gateways do: with a page."""
    return no_such_page()


async def no_route(call: Call) -> web.StreamResponse:
    """Respond where nothing lives, as Replicate does."""
    return call.wording.error(404)


def _page(call: Call, title: str, body: str, refresh: bool = False, status: int = 200) -> web.Response:
    again = '<meta http-equiv="refresh" content="2">' if refresh else ""
    text = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">{again}<title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f'<p class="notice">{escape(NOTICE)}</p>{body}</body></html>'
    )
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data: {call.state.output_origin}"
    headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
    return web.Response(text=text, status=status, content_type="text/html", headers=headers)
