"""What the ledger knows of a row on its way, and what it costs: written down before a create is sent, and after."""

from __future__ import annotations

from dataclasses import replace

from airflow_provider_flux.batch.model import Entry, PlannedRow
from airflow_provider_flux.batch.resources import Resources
from airflow_provider_flux.exceptions import FluxLeaseLostError, FluxLedgerError
from airflow_provider_flux.protocol.resume import SubmissionRecord
from airflow_provider_flux.protocol.submission import NotSubmitted, Save


class RowEntry:
    """The ledger's entry of a row.

    :param row: as it is to be submitted, with what the ledger knows of it.
    :ivar row: the same, in the way in which it is being made.
    :ivar entry: what the ledger knows now.
    """

    def __init__(self, resources: Resources, row: PlannedRow) -> None:
        self._resources = resources
        self.row = row
        self.entry = row.entry
        self._is_creating = False

    async def save(self, effect: Save) -> None:
        """Write what the submission saves into the ledger, and count what it costs."""
        record, own = effect.record, self.own()
        if effect.is_intent and record is not None:
            await self._intend(record, own)
            return
        self.leave_creates()
        if record is None:
            own = self._without_create(own)
        else:
            own = replace(own, prediction_id=record.prediction_id, told=record.told, billed=record.billed)
        await self._add(own)

    async def _intend(self, record: SubmissionRecord, own: Entry) -> None:
        """Let the ledger know that a create is about to be sent.

        :raises NotSubmitted: if none is, because the batch stops, or the ledger cannot be written.
        """
        resources = self._resources
        if not self._is_creating:
            await resources.creates.acquire()
            self._is_creating = True
            resources.being_created[self.row.fingerprint] += 1
        if resources.control.is_stopped:
            raise NotSubmitted("the batch stops")
        resources.check_budget(self.row)
        intent = replace(
            own,
            generation=record.generation,
            try_number=record.try_number,
            fingerprint=record.fingerprint,
            sent_at=record.sent_at,
            sent_as=record.sent_as,
            prediction_id=None,
            told=False,
            attempts=own.attempts + 1,
            committed_usd=own.committed_usd + self.row.estimate,
            outcome=None,
            is_at_most=own.is_at_most or self.row.is_at_most,
            billed={},
            attempt=record.attempt,
            passed=record.passed,
        )
        resources.commit(own, intent)
        try:
            await self._add(intent, is_intent=True)
        except FluxLeaseLostError as lost:
            resources.control.stop(lost)
            # Whoever has taken over need not wonder what this one has sent.
            await self.write(self._without_create(intent))
            raise NotSubmitted("the lease is lost") from lost
        except Exception as error:
            # It may be there all the same, if only the storage's response was lost.
            await self.write(self._without_create(intent))
            resources.control.stop(
                FluxLedgerError(
                    f"The ledger could not be written ({type(error).__name__}: {error}), so nothing more is submitted, "
                    f"from row {self.row.key!r} on. Once the storage works again, another try goes on from there."
                )
            )
            raise NotSubmitted("the ledger could not be written") from error

    def _without_create(self, entry: Entry) -> Entry:
        """Return an entry without the create that it tells of, and what that would have cost: it has made nothing."""
        if not entry.attempts:
            # What another run has sent was never counted for this one.
            return replace(entry, sent_at=0.0)
        attempts = entry.attempts - 1
        committed_usd = entry.committed_usd - self.row.estimate if attempts else 0.0
        kept = replace(
            entry,
            sent_at=0.0,
            attempts=attempts,
            committed_usd=committed_usd,
            is_at_most=entry.is_at_most and attempts > 0,
        )
        self._resources.commit(entry, kept)
        return kept

    def leave_creates(self) -> None:
        """Let another row send its create: the outcome of this one's is known, or is to be found in the list."""
        if self._is_creating:
            self._is_creating = False
            self._resources.being_created[self.row.fingerprint] -= 1
            self._resources.creates.release()

    def own(self) -> Entry:
        """Return the row's entry as one of this run: what another run has spent is not counted again."""
        identity = self._resources.policy.identity
        entry = self.entry
        if entry is not None and entry.run == identity.run:
            return entry
        blank = Entry(
            key=self.row.key,
            revision=0,
            run=identity.run,
            generation=identity.generation,
            try_number=identity.try_number,
            fingerprint=self.row.fingerprint,
            attempt=self.row.at,
        )
        if entry is None:
            return blank
        blank = replace(entry, run=identity.run, generation=identity.generation, attempts=0, committed_usd=0.0)
        return replace(blank, is_at_most=False)

    @property
    def prediction_id(self) -> str:
        """The prediction of the row; empty as long as nobody knows whether there is one."""
        return (self.entry.prediction_id if self.entry is not None else None) or ""

    async def _add(self, entry: Entry, *, is_intent: bool = False) -> None:
        """Make an entry durable."""
        entry = replace(entry, revision=(self.entry.revision if self.entry is not None else 0) + 1)
        self.entry = entry
        await self._resources.ledger.add(entry, is_intent=is_intent)

    async def write(self, entry: Entry) -> None:
        """Make an entry durable if that is possible; whatever it tells of has happened anyway."""
        try:
            await self._add(entry)
        except Exception as error:  # noqa: BLE001 (the prediction is paid for: whatever is wrong, go on with it)
            self._resources.log.warning(
                "The ledger could not take note of row %r, prediction %s (%s). This try goes on with it; if it dies, "
                "the next one may not know of it",
                entry.key,
                entry.prediction_id,
                error,
            )
