"""What the gateways speak, as pure functions: no network, no Airflow, no clock of its own.

Read in this order: :mod:`.wire` (what crosses the wire), :mod:`.gateways` (which request goes where),
:mod:`.prediction` (what an answer says), :mod:`.verdicts` (what an answer means for the next step),
:mod:`.schedule` (when to ask again) and :mod:`.flows` (the conversations made of all these).
"""
