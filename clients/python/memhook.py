"""Calls memhook's API with Python's standard library alone (3.9 or later).

    from memhook import Memhook, Problem

    memhook = Memhook("https://memhook.example", api_key)
    task = memhook.register("4b2d…", "https://customer.example/hooks", metadata={"order": "42"})
    for delivery in memhook.each("/v1/deliveries", task=task["id"]):
        print(delivery["status"])

Answers are dicts as the OpenAPI document describes them. `call` takes any operation; the other methods are those that apps use
most. A problem is raised as Problem. `verify` checks a webhook.
"""

import base64
import hashlib
import hmac
import json
import time
import urllib.error
import urllib.parse
import urllib.request


class Problem(Exception):
    """An error that memhook answered with. `errors` names the fields that are wrong."""

    def __init__(self, problem):
        super().__init__(f"{problem['code']} ({problem['status']}): {problem['detail']}")
        self.status = problem["status"]
        self.code = problem["code"]
        self.detail = problem["detail"]
        self.errors = problem.get("errors", [])
        self.request_id = problem.get("request_id")


class Memhook:
    """One app's view of a memhook. timeout is in seconds, for one request."""

    def __init__(self, url, token, timeout=30):
        self._url, self._token, self._timeout = url.rstrip("/"), token, timeout

    def call(self, method, path, body=None, query=None, idempotency_key=None):
        """Call an operation and return its answer, None where it has none."""
        query = {name: value for name, value in (query or {}).items() if value is not None}
        url = self._url + path + ("?" + urllib.parse.urlencode(query) if query else "")
        headers = {"Authorization": "Bearer " + self._token}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as response:
                answer = response.read()
        except urllib.error.HTTPError as error:
            with error:
                if not error.headers.get("Content-Type", "").startswith("application/problem+json"):
                    raise
                raise Problem(json.loads(error.read())) from None
        return json.loads(answer) if answer else None

    def each(self, path, **query):
        """Iterate over all entries of a list, page by page."""
        while True:
            page = self.call("GET", path, query=query)
            yield from page["data"]
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]

    def register(self, task_id, callback_url, idempotency_key=None, **fields):
        """Register a task. fields are those of the registration, such as metadata and expires_in."""
        body = {"task_id": task_id, "callback_url": callback_url, **fields}
        return self.call("POST", "/v1/tasks", body, idempotency_key=idempotency_key)

    def task(self, id):
        return self.call("GET", f"/v1/tasks/{_quoted(id)}")

    def cancel(self, id):
        self.call("DELETE", f"/v1/tasks/{_quoted(id)}")

    def wait(self, id, timeout=None, interval=1):
        """Return the task once it is no longer waiting. After timeout seconds, raise TimeoutError."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            task = self.task(id)
            if task["status"] != "waiting":
                return task
            if deadline is not None and time.monotonic() + interval > deadline:
                raise TimeoutError(f"task {id} is still waiting")
            time.sleep(interval)

    def resend(self, delivery_id):
        return self.call("POST", f"/v1/deliveries/{_quoted(delivery_id)}/resend")

    def secret(self, endpoint_id):
        return self.call("GET", f"/v1/endpoints/{_quoted(endpoint_id)}/secret")["secret"]

    def recover(self, endpoint_id, since):
        """Have all that failed since a time (RFC 3339) sent again and return its number."""
        return self.call("POST", f"/v1/endpoints/{_quoted(endpoint_id)}/recover", {"since": since})["recovered"]


def verify(headers, body, *secrets, tolerance=300):
    """Return the event of a webhook whose signature is by one of the secrets (whsec_…); otherwise raise ValueError.

    headers maps names to values, whatever their case; body is what came, in bytes, unparsed.
    """
    headers = {name.lower(): value for name, value in headers.items()}
    try:
        identifier, timestamp, given = (headers[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        age = abs(time.time() - int(timestamp))
    except (KeyError, ValueError, OverflowError):
        raise ValueError("this is no signed webhook") from None
    if age > tolerance:
        raise ValueError(f"the timestamp is {age:.0f} seconds off")
    signed = f"{identifier}.{timestamp}.".encode() + body
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        want = b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
        if any(hmac.compare_digest(want, signature.encode()) for signature in given.split()):
            return json.loads(body)
    raise ValueError("no signature is by this secret")


def _quoted(id):
    return urllib.parse.quote(id, safe="")
