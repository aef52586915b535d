"""Drives the Python client against a running memhook, receives a webhook and verifies it."""

import http.server
import os
import queue
import sys
import threading
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.environ["CLIENT"])
from memhook import Memhook, Problem, verify

arrived = queue.Queue()


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        arrived.put((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


receiver = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
threading.Thread(target=receiver.serve_forever, daemon=True).start()
callback = f"http://127.0.0.1:{receiver.server_port}/hooks"
memhook = Memhook(os.environ["BASE"], os.environ["API_KEY"])

task = memhook.register("py-task", callback, metadata={"order": "42"}, idempotency_key="py-1")
assert memhook.register("py-task", callback, metadata={"order": "42"}, idempotency_key="py-1")["id"] == task["id"]
assert memhook.wait(task["id"], timeout=20, interval=0.1)["video_ids"] == ["PI-1"]

secret = memhook.secret(task["subscriptions"][0]["endpoint_id"])
headers, body = arrived.get(timeout=10)
event = verify(headers, body, "whsec_" + "A" * 32, secret)
assert event["type"] == "task.ready" and event["data"]["metadata"] == {"order": "42"}, event
fakes = [{**headers, "webhook-timestamp": fake} for fake in ("abc", "9" * 400, "9" * 5000)] + [{**headers, "webhook-signature": "v1,\u00e9"}]
for wrong in ((headers, body + b" ", secret), (headers, body, "whsec_" + "A" * 32), ({}, body, secret), *((fake, body, secret) for fake in fakes)):
    try:
        verify(*wrong)
    except ValueError:
        continue
    raise AssertionError(f"verified {wrong}")

(delivery,) = memhook.each("/v1/deliveries", task=task["id"])
memhook.resend(delivery["id"])
assert verify(*arrived.get(timeout=10), secret) == event
assert memhook.recover(delivery["endpoint_id"], "2026-01-01T00:00:00Z") == 0

assert [event["type"] for event in memhook.each(f"/v1/tasks/{task['id']}/events", limit=1)] == ["task.ready"]
memhook.call("POST", f"/v1/endpoints/{delivery['endpoint_id']}/test")
deadline = time.monotonic() + 20  # other transactions on the server hold the feed back
while (seen := [event["type"] for event in memhook.each("/v1/events", limit=1)]) != ["task.ready", "webhook.test"]:
    assert time.monotonic() < deadline, seen
    time.sleep(0.1)

never = memhook.register("never", callback)
assert {t["task_id"] for t in memhook.each("/v1/tasks", limit=1)} == {"py-task", "never"}
try:
    memhook.wait(never["id"], timeout=0.2, interval=0.1)
    raise AssertionError("it ended")
except TimeoutError:
    memhook.cancel(never["id"])
for attempt, code, field in (
    (lambda: memhook.cancel(never["id"]), "conflict", None),
    (lambda: memhook.register("x", "ftp://x"), "invalid-request", "callback_url"),
    (lambda: memhook.task("no/such"), "not-found", None),
    (lambda: Memhook(os.environ["BASE"], "wrong").task(task["id"]), "unauthorized", None),
):
    try:
        attempt()
    except Problem as problem:
        assert problem.code == code and (field is None or problem.errors[0]["field"] == field), problem
    else:
        raise AssertionError(f"{code} was accepted")
print("driven")
