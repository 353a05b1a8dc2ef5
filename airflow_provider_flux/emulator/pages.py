"""The pages for people, and the answer where nothing lives."""

from __future__ import annotations

from html import escape

from aiohttp import web

from airflow_provider_flux.emulator import errors
from airflow_provider_flux.emulator.answers import Answers
from airflow_provider_flux.emulator.exchange import Call, Exchange, Route
from airflow_provider_flux.emulator.outcomes import TERMINAL
from airflow_provider_flux.emulator.predictions import Prediction
from airflow_provider_flux.emulator.state import State

NOTICE = "This is a local stand-in. No model runs here, and nothing costs anything."
LATEST = 50
SHORT_PROMPT = 120
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c1e21}"
    ".notice{background:#fff3cd;border:1px solid #e0c36a;padding:.6rem 1rem;border-radius:.4rem}"
    "img{max-width:100%;height:auto;border-radius:.4rem}dt{font-weight:600}dd{margin:0 0 .6rem}"
)


class PageRoutes:
    """A page per prediction, as ``urls.web`` names it, and a start page.

    :param state: the emulator's state.
    :param answers: writes predictions.
    """

    def __init__(self, state: State, answers: Answers) -> None:
        self._state = state
        self._answers = answers

    def add_to(self, app: web.Application, exchange: Exchange) -> None:
        """Register the routes; the last one takes every other address.

        :param app: the application of the gateway origin.
        :param exchange: wraps the handlers.
        """
        page = Route("page", needs_key=False)
        app.router.add_get("/", exchange.endpoint(page, self.start))
        app.router.add_get("/p/{id}", exchange.endpoint(page, self.one))
        app.router.add_route("*", "/v1/{tail:.*}", exchange.endpoint(Route("unknown", "replicate"), self.no_route))
        unknown = Route("unknown", needs_key=False)
        app.router.add_route("*", "/{tail:.*}", exchange.endpoint(unknown, self.no_page))

    async def start(self, call: Call) -> web.StreamResponse:
        """Show the latest predictions.

        :param call: the request.
        """
        latest = self._state.store.all()[: -LATEST - 1 : -1]
        items = "".join(self._item(prediction) for prediction in latest) or "<li>none yet</li>"
        return self._page("FLUX gateway emulator", f"<h2>Latest predictions</h2><ul>{items}</ul>", refresh=False)

    async def one(self, call: Call) -> web.StreamResponse:
        """Show one prediction and its picture.

        :param call: the request.
        """
        prediction = call.prediction()
        if prediction is None:
            return self._page("No such prediction", "<p>It is not known here.</p>", refresh=False, status=404)
        body = self._answers.prediction(prediction)
        rows = [
            ("Prompt", str(body.get("input", {}).get("prompt", "(removed)"))),
            ("Model", prediction.model.full_name),
            ("Status", str(body.get("status"))),
            ("Error", str(body["error"]) if body.get("error") else ""),
            ("Created", str(body.get("created_at", ""))),
        ]
        listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows if text)
        output = body.get("output")
        addresses = [output] if isinstance(output, str) else output or []
        pictures = "".join(f'<p><img src="{escape(address)}" alt=""></p>' for address in addresses)
        running = body.get("status") not in TERMINAL
        return self._page(f"Prediction {prediction.id}", f"<dl>{listed}</dl>{pictures}", refresh=running)

    async def no_page(self, call: Call) -> web.StreamResponse:
        """Answer where nothing lives, as gateways do: with a page.

        :param call: the request.
        """
        return errors.html_answer("404", "There is no such page on this local stand-in.", 404)

    async def no_route(self, call: Call) -> web.StreamResponse:
        """Answer where nothing lives, as Replicate does.

        :param call: the request.
        """
        return errors.not_found()

    def _item(self, prediction: Prediction) -> str:
        status = prediction.at(self._state.now).status
        text = f"{prediction.model.name}, {status}: {prediction.prompt[:SHORT_PROMPT]}"
        return f'<li><a href="/p/{escape(prediction.id)}">{escape(text)}</a></li>'

    def _page(self, title: str, body: str, refresh: bool, status: int = 200) -> web.Response:
        again = '<meta http-equiv="refresh" content="2">' if refresh else ""
        text = (
            f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">{again}<title>{escape(title)}</title>'
            f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
            f'<p class="notice">{escape(NOTICE)}</p>{body}</body></html>'
        )
        policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data: {self._state.output_origin}"
        headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
        return web.Response(text=text, status=status, content_type="text/html", headers=headers)
