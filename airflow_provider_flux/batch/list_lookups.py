"""Finding what creates have made whose answers nobody saw: the gateway's list is read once for all rows that ask."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_flux.batch.model import PlannedRow
from airflow_provider_flux.batch.row_store import RowStore
from airflow_provider_flux.protocol import lookup
from airflow_provider_flux.protocol.classify import Verdict
from airflow_provider_flux.protocol.flows import CallFailed, Conversation
from airflow_provider_flux.protocol.lookup import OutcomeUnknown, candidates_of, doubtful_of, listed_since, match
from airflow_provider_flux.protocol.prediction import Prediction
from airflow_provider_flux.protocol.submission import LookUp

READ_PATIENCE = 120.0
"""Seconds for which transient problems with the list are retried in one look."""

SHORTEST_PAUSE = 1.0
"""Seconds between two looks that are due at once."""


@dataclass(frozen=True, slots=True, eq=False)
class _Asking:
    row: PlannedRow
    effect: LookUp
    until: float
    answer: asyncio.Future[Prediction | None]

    @property
    def sent_at(self) -> float:
        return self.effect.record.sent_at

    def give_up(self, candidates: Sequence[Prediction], failed: CallFailed | None = None) -> None:
        failure = self.effect.failure if failed is None else failed.failure
        ids = [prediction.id for prediction in candidates]
        self.tell(OutcomeUnknown(failure, self.sent_at, candidates=ids))

    def tell(self, answer: Prediction | Exception | None) -> None:
        if self.answer.done():
            return
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)


class ListLookups:
    """Answers all rows of a batch that ask for the prediction of a create.

    :param run: runs a flow.
    :param being_created: how many creates of each fingerprint are under way, whose answers may still come.
    """

    def __init__(
        self,
        conversation: Conversation,
        run: Callable[[Any], Awaitable[Any]],
        store: RowStore,
        being_created: Counter[str],
    ) -> None:
        self._conversation = conversation
        self._run = run
        self._store = store
        self._being_created = being_created
        self._asking: list[_Asking] = []
        self._reader: asyncio.Task[None] | None = None

    async def settle(self, row: PlannedRow, effect: LookUp, *, deadline: float) -> Prediction | None:
        """Find out from the list what a create of a row has made, as :func:`.lookup.settle` does for one alone.

        :raises OutcomeUnknown: if the list cannot be read, or does not tell by the deadline.
        """
        until = max(deadline, self._conversation.clock() + lookup.GRACE)
        asking = _Asking(row, effect, until, asyncio.get_running_loop().create_future())
        self._asking.append(asking)
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read())
        try:
            return await asking.answer
        finally:
            self._asking.remove(asking)

    async def _read(self) -> None:
        pause = self._pause()
        while self._asking:
            await asyncio.sleep(pause)
            asked_at = self._conversation.clock()
            asking = list(self._asking)
            try:
                await self._look(asking, asked_at)
            except Exception as error:  # noqa: BLE001 (raised where the answers are waited for)
                for one in asking:
                    one.tell(error)
            # Those that were answered leave in the next turn of the loop.
            pause = max(self._pause(), SHORTEST_PAUSE)

    def _pause(self) -> float:
        now = self._conversation.clock()
        return min((lookup.next_look(asking.sent_at, now) for asking in self._asking), default=0.0)

    async def _look(self, asking: list[_Asking], asked_at: float) -> None:
        since = min((one.sent_at for one in asking), default=asked_at)
        latest = max((one.until for one in asking), default=asked_at)
        flow = listed_since(self._conversation, since, deadline=min(latest, asked_at + READ_PATIENCE))
        try:
            listed = await self._run(flow)
        except CallFailed as failed:
            # A list that will not be read does not say that there is none; what may pass is left to the next look.
            for one in asking:
                if failed.verdict is Verdict.REFUSED or self._is_late(one):
                    one.give_up([], failed)
            return
        alike: dict[tuple[str, str], list[_Asking]] = defaultdict(list)
        for one in asking:
            alike[one.row.fingerprint, one.effect.record.sent_as].append(one)
        for (fingerprint, _), group in alike.items():
            # Another row with the same input may be about to get the prediction that is listed.
            if not self._being_created[fingerprint]:
                self._answer(group, listed, asked_at)
        for one in asking:
            if self._is_late(one):
                one.give_up([])

    def _answer(self, group: list[_Asking], listed: list[Prediction], asked_at: float) -> None:
        group.sort(key=lambda asking: asking.sent_at)
        first = group[0]
        model, asked = first.row.model, first.row.input
        found = candidates_of(listed, model, asked, sent_at=first.sent_at, sent_as=first.effect.record.sent_as)
        candidates = [prediction for prediction in found if not self._store.knows_prediction(prediction.id)]
        # Rows that have not asked yet may have made some of them.
        others = self._store.unsettled(first.row.fingerprint) - len(group)
        if len(group) < len(candidates) <= len(group) + others:
            candidates = candidates[: len(group)]
        files_url = self._conversation.gateway.files_url
        doubtful = [
            prediction
            for prediction in doubtful_of(listed, model, asked, sent_at=first.sent_at, files_url=files_url)
            if not self._store.knows_prediction(prediction.id)
        ]
        told = match([asking.sent_at for asking in group], candidates, asked_at=asked_at, doubtful=doubtful)
        for asking in group if told.candidates else ():
            asking.give_up(told.candidates)
        for asking, prediction in zip(group, told.made, strict=False):
            asking.tell(prediction)
        for asking in group[len(group) - told.not_made :] if told.not_made else ():
            asking.tell(None)

    def _is_late(self, asking: _Asking) -> bool:
        now = self._conversation.clock()
        return now + lookup.next_look(asking.sent_at, now) > asking.until
