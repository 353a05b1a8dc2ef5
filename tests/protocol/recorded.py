"""Answers as the services gave them, with long texts left out. None holds a key."""

from __future__ import annotations

from typing import Any

COMETAPI_CREATE: dict[str, Any] = {
    "id": "q4chw5rey9rmt0cww76t4h3ma4",
    "model": "black-forest-labs/flux-schnell",
    "version": "hidden",
    "input": {
        "aspect_ratio": "1:1",
        "output_format": "webp",
        "output_quality": 80,
        "prompt": "A paper boat floating on calm water at sunrise.",
    },
    "logs": "",
    "output": None,
    "data_removed": False,
    "error": None,
    "source": "api",
    "status": "starting",
    "created_at": "2026-03-12T11:27:18.258Z",
    "urls": {
        "cancel": "https://api.replicate.com/v1/predictions/q4chw5rey9rmt0cww76t4h3ma4/cancel",
        "get": "https://api.replicate.com/v1/predictions/q4chw5rey9rmt0cww76t4h3ma4",
        "stream": "https://stream.replicate.com/v1/files/example",
        "web": "https://replicate.com/p/q4chw5rey9rmt0cww76t4h3ma4",
    },
}

DEERAPI_CREATE: dict[str, Any] = {
    "id": "e6je4zpgdxrmw0cww2xsb0515g",
    "model": "black-forest-labs/flux-1.1-pro",
    "version": "hidden",
    "input": {
        "aspect_ratio": "1:1",
        "output_format": "jpg",
        "prompt": "A red paper lantern on a wooden table, studio photo",
    },
    "logs": "",
    "output": None,
    "data_removed": False,
    "error": None,
    "source": "api",
    "status": "starting",
    "created_at": "2026-03-12T06:28:50.927Z",
    "urls": {
        "cancel": "https://api.replicate.com/v1/predictions/e6je4zpgdxrmw0cww2xsb0515g/cancel",
        "get": "https://api.replicate.com/v1/predictions/e6je4zpgdxrmw0cww2xsb0515g",
        "stream": "https://stream.replicate.com/v1/files/example-stream",
        "web": "https://replicate.com/p/e6je4zpgdxrmw0cww2xsb0515g",
    },
}

SDXL_SUCCEEDED_WITHOUT_MODEL: dict[str, Any] = {
    "id": "ccl3kfjbjpvmklfbpcqi5tlyte",
    "version": "39ed52f2a78e934b3ba6e2a89f5b1c712de7dfea535525255b1aa35c5565e08b",
    "input": {"prompt": "a studio photo of a rainbow colored corgi"},
    "logs": "Using seed: 36941",
    "output": ["https://replicate.delivery/pbxt/iVLRYVd/out-0.png"],
    "error": None,
    "status": "succeeded",
    "created_at": "2023-11-27T13:35:45.99397566Z",
    "started_at": "2023-11-27T13:35:46.2Z",
    "completed_at": "2023-11-27T13:35:50.123456Z",
    "metrics": {"predict_time": 3.2},
    "webhook_completed": None,
    "urls": {"get": "https://api.replicate.com/v1/predictions/ccl3kfjbjpvmklfbpcqi5tlyte"},
}

LLAMA_CANCELED: dict[str, Any] = {
    "id": "pwxmpvlbjxvylf4lt2vcrufqva",
    "model": "replicate/lifeboat-70b",
    "version": "hidden",
    "input": {"prompt": "Please write a haiku about llamas."},
    "logs": None,
    "output": None,
    "error": None,
    "status": "canceled",
    "created_at": "2023-11-27T13:35:45.993Z",
    "urls": {"stream": "https://stream.replicate.com/v1/predictions/pwxmpvlbjxvylf4lt2vcrufqva"},
}

SDXL_BLOCKING_WITH_INLINE_PICTURE: dict[str, Any] = {
    "id": "fkv1yxw1m9rme0chwdpb5zr8xm",
    "model": "stability-ai/sdxl",
    "version": "dp-4d0bcc010b3049749a251855f12800be",
    "input": {"prompt": "astronaut riding a rocket like a horse"},
    "logs": "",
    "output": ["data:image/png;base64,iVBORw0KGgo="],
    "data_removed": False,
    "error": None,
    "status": "processing",
    "created_at": "2024-10-11T10:40:41.943Z",
}

SCHNELL_SUCCEEDED: dict[str, Any] = {
    "id": "jd96x0dyqsrm00cj1jp90zeye0",
    "model": "replicate/flux-schnell-internal-model",
    "version": "dp-4d0bcc010b3049749a251855f12800be",
    "input": {"prompt": "black forest gateau cake spelling out the words FLUX SCHNELL", "num_outputs": 1},
    "logs": "Using seed: 55920",
    "output": ["https://replicate.delivery/yhqm/tlZvB/out-0.webp"],
    "error": None,
    "status": "succeeded",
    "created_at": "2024-09-03T13:22:01.123456789Z",
    "metrics": {"predict_time": 0.8},
}

PRO_SUCCEEDED_AT_BFL: dict[str, Any] = {
    "id": "kg1krwsdf9rg80ch1sgsrgq7h8",
    "model": "black-forest-labs/flux-pro",
    "version": "hidden",
    "input": {"prompt": "The world's largest black forest cake"},
    "output": "https://bflapistorage.blob.core.windows.net/public/ec0c/sample.png",
    "error": None,
    "status": "succeeded",
    "created_at": "2024-08-01T09:34:07.5Z",
    "metrics": {"predict_time": 14.0},
}

PROCESSING_WITH_OUTPUT: dict[str, Any] = {
    "id": "r4prrv83g9rma0cnh0vbhqhb2g",
    "model": "black-forest-labs/flux-schnell",
    "version": "dp-4d0bcc010b3049749a251855f12800be",
    "input": {"prompt": "a cat"},
    "logs": "",
    "output": ["https://replicate.delivery/xezq/cat/out-0.webp"],
    "data_removed": False,
    "error": None,
    "status": "processing",
    "created_at": "2025-02-27T08:00:00.000Z",
}

BFL_READY: dict[str, Any] = {
    "id": "a738c474-3d9e-421a-860d-c7825c547fbb",
    "status": "Ready",
    "result": {
        "seed": 42,
        "prompt": "a cat",
        "sample": "https://delivery-eu1.bfl.ai/results/a7/sample.jpeg?se=2026",
        "duration": 4.1,
        "start_time": 1773300000.1,
        "end_time": 1773300004.2,
    },
}

REPLICATE_UNAUTHENTICATED: dict[str, Any] = {
    "title": "Unauthenticated",
    "detail": "You did not pass a valid authentication token",
    "status": 401,
}


def envelope(status: str, inside: object = None, **fields: object) -> dict[str, Any]:
    """Make new-api's task envelope."""
    task = {
        "task_id": "task_0123456789",
        "status": status,
        "fail_reason": "",
        "progress": "50%",
        "submit_time": 1773300000,
        "start_time": 1773300001,
        "finish_time": 0,
        "data": inside,
        **fields,
    }
    return {"code": "success", "message": "", "data": task}
