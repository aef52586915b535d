"""A receiver of memhook's webhooks with Python's standard library alone.

It verifies as the Standard Webhooks specification says (the project's own library, `standardwebhooks` on
PyPI, does the same), deduplicates by webhook-id, answers at once and works afterwards.

    MEMHOOK_SECRET=whsec_… python3 receiver.py 9000
"""

import base64
import hashlib
import hmac
import json
import os
import queue
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = base64.b64decode(os.environ["MEMHOOK_SECRET"].removeprefix("whsec_"))
TOLERANCE = 300  # seconds
seen = set()  # keep it in your database, together with what you do
work = queue.Queue()


def verify(headers, body):
    """Tell whether one of the signatures is by our secret, and the timestamp is of now."""
    identifier, timestamp, given = (headers[f"webhook-{name}"] or "" for name in ("id", "timestamp", "signature"))
    try:
        age = abs(time.time() - int(timestamp))
    except (ValueError, OverflowError):
        return False
    signed = f"{identifier}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest())
    return age <= TOLERANCE and any(hmac.compare_digest(expected, s.encode()) for s in given.split())


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(min(int(self.headers.get("content-length", 0)), 8 << 20))
        if not verify(self.headers, body):
            self.send_response(401)
            self.end_headers()
            return
        self.send_response(204)
        self.end_headers()
        identifier = self.headers["webhook-id"]
        if identifier not in seen:
            seen.add(identifier)
            work.put(json.loads(body))

    def log_message(self, *_):
        pass


def do_the_work():
    while True:
        print("working on", json.dumps(work.get()), flush=True)


threading.Thread(target=do_the_work, daemon=True).start()
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()
