"""A receiver of memhook's webhooks with FastAPI. It verifies, deduplicates by webhook-id and works after it has answered.

With clients/python/memhook.py beside it (`standardwebhooks` on PyPI verifies as well):

    pip install fastapi uvicorn
    MEMHOOK_SECRET=whsec_… uvicorn receiver:app --port 9000
"""

import json
import os

from fastapi import BackgroundTasks, FastAPI, Request, Response
from memhook import verify

app = FastAPI()
seen = set()  # keep it in your database, together with what you do


@app.post("/hooks")
async def receive(request: Request, tasks: BackgroundTasks):
    body = await request.body()  # the signature is of the body as it came
    try:
        event = verify(request.headers, body, os.environ["MEMHOOK_SECRET"])
    except ValueError:
        return Response(status_code=401)
    identifier = request.headers["webhook-id"]
    if identifier not in seen:
        seen.add(identifier)
        tasks.add_task(work, event)
    return Response(status_code=204, background=tasks)


def work(event):
    print("working on", json.dumps(event), flush=True)
