"""Two thin drivers of the protocol's flows: ``requests`` on the worker, ``aiohttp`` in the triggerer."""
