"""What can be set on a running emulator."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

SHAPES = ("prediction", "envelope", "bfl")
CANCELS = ("works", "ignored", "404", "405", "html", "redirect")
CREATED_STATUSES = (200, 201, 202)
_CHOICES: dict[str, tuple[Any, ...]] = {
    "shape": SHAPES,
    "create_shape": SHAPES,
    "cancel": CANCELS,
    "list_answer": ("html", "redirect"),
    "rate_hint": ("header", "date", "body", "text", "none"),
    "wait_output": ("final", "data_uri", "url"),
    "id_style": ("replicate", "task"),
    "created_status": (None, *CREATED_STATUSES),
}
_POSITIVE = ("speed", "max_hang", "creates_per_minute", "reads_per_minute", "huge_bytes", "keep_requests")
_NOT_NEGATIVE = ("run_time", "output_life", "latency", "min_cancel_after", "balance")
_SEQUENCES = ("fraction_digits", "unsold", "drop_fields")


@dataclass(frozen=True)
class Settings:
    """The emulator's settings; replaced as a whole, so a request sees one consistent set.

    :param key: the key that is accepted; ``None`` accepts any key that is not empty.
    :param speed: divides every run time drawn from the catalogue.
    :param run_time: a fixed run time in seconds from creation to end, not divided by ``speed``.
    :param start_share: the part of a run time spent in ``starting``.
    :param seed: seeds run times, probabilities and pictures' seeds; ``None`` differs at every start.
    :param shape: the shape of the gateway's query responses: ``prediction``, ``envelope`` or ``bfl``.
    :param create_shape: the same for the gateway's create.
    :param created_status: HTTP status of a create; ``None`` gives 200 on the gateway, 201 or 202 on Replicate.
    :param cancel: what the gateway's cancel does: ``works``, ``ignored`` (200, the run goes on), ``404``, ``405``,
        ``html`` or ``redirect``. Replicate's own cancel works unless this is ``ignored``.
    :param list_answer: the gateway's response to a list: an ``html`` 404 page or a ``redirect``.
    :param alias: name an internal alias in ``model``.
    :param id_style: prediction ids like ``replicate``'s, or like a gateway's own ``task``.
    :param fraction_digits: digits of fractional seconds that timestamps cycle through.
    :param drop_fields: keys left out of every prediction object.
    :param output_life: seconds after its end at which a prediction loses input, output, logs and files.
    :param creates_per_minute: rate limit on creates, ``None`` for none.
    :param reads_per_minute: rate limit on all other API calls, ``None`` for none.
    :param burst: how many calls may come at once; ``None`` is a tenth of the rate, at least one.
    :param rate_hint: the hint in those 429 responses: ``header``, ``date``, ``body``, ``text`` or ``none``.
    :param gateway_prefer: whether the gateway honours ``Prefer: wait``.
    :param wait_output: what a finished blocking create shows: the ``final`` prediction, or still ``processing``
        with its output filled as ``data_uri`` or ``url``.
    :param min_cancel_after: the shortest ``Cancel-After`` accepted, in seconds.
    :param unsold: full model names that this gateway does not sell.
    :param error_type: ``type`` in the gateway's error bodies.
    :param balance: play money in USD from which list prices are taken.
    :param latency: seconds that every response takes at least.
    :param max_hang: seconds after which a hanging request is dropped.
    :param huge_bytes: length of the ``huge_body`` fault.
    :param keep_requests: how many request records are kept; counters stay exact.
    :param small_pictures: draw thumbnails of the asked proportions, for load tests.
    :param active_limit: how many predictions BFL itself lets run at once, ``None`` for any number.
    :param polling_origin: the origin that BFL's polling addresses name, when not this one.
    :param output_origin: the origin that file addresses name, when not the second origin itself.
    """

    key: str | None = "emulator-key"
    speed: float = 1.0
    run_time: float | None = None
    start_share: float = 0.1
    seed: int | None = 0
    shape: str = "prediction"
    create_shape: str = "prediction"
    created_status: int | None = None
    cancel: str = "works"
    list_answer: str = "html"
    alias: bool = False
    id_style: str = "replicate"
    fraction_digits: tuple[int, ...] = (3, 6, 8, 9)
    drop_fields: tuple[str, ...] = ()
    output_life: float = 3600.0
    creates_per_minute: float | None = None
    reads_per_minute: float | None = None
    burst: int | None = None
    rate_hint: str = "header"
    gateway_prefer: bool = False
    wait_output: str = "final"
    min_cancel_after: float = 5.0
    unsold: tuple[str, ...] = ()
    error_type: str = "comet_api_error"
    balance: float = 100.0
    latency: float = 0.0
    max_hang: float = 300.0
    huge_bytes: int = 64 * 1024 * 1024
    keep_requests: int = 100_000
    small_pictures: bool = False
    active_limit: int | None = 24
    polling_origin: str | None = None
    output_origin: str | None = None

    def __post_init__(self) -> None:
        for name in _SEQUENCES:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {choices}, not {getattr(self, name)!r}")
        for name in _POSITIVE:
            if (value := getattr(self, name)) is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, not {value!r}")
        for name in _NOT_NEGATIVE:
            if (value := getattr(self, name)) is not None and not value >= 0:
                raise ValueError(f"{name} must not be negative, not {value!r}")
        if not 0 <= self.start_share <= 1:
            raise ValueError("start_share must lie between 0 and 1")
        digits = self.fraction_digits
        if not digits or not all(0 <= count <= 9 for count in digits):
            raise ValueError("fraction_digits must name counts between 0 and 9")

    def early_output(self, ended: bool | None) -> str | None:
        """Return how a blocking create whose run has ended shows its output as if it had not, if it does."""
        return self.wait_output if ended and self.wait_output != "final" else None

    def as_json(self) -> dict[str, Any]:
        """Return the settings for display, without the key."""
        return {**dataclasses.asdict(self), "key": "any" if self.key is None else "(set, not shown)"}
