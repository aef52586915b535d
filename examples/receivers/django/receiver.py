"""A receiver of memhook's webhooks as a view of Django: a whole project in one file. In yours, take the view and its path.

With clients/python/memhook.py beside it (`standardwebhooks` on PyPI verifies as well):

    pip install django
    MEMHOOK_SECRET=whsec_… python receiver.py runserver --noreload 9000
"""

import json
import os
import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from memhook import verify

if not settings.configured:
    settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of this example alone", DATA_UPLOAD_MAX_MEMORY_SIZE=8 << 20)

seen = set()  # keep it in your database, together with what you do


@csrf_exempt  # the signature says who sent it
@require_POST
def receive(request):
    try:
        event = verify(request.headers, request.body, os.environ["MEMHOOK_SECRET"])  # the body as it came
    except ValueError:
        return HttpResponse(status=401)
    identifier = request.headers["webhook-id"]
    if identifier not in seen:
        seen.add(identifier)
        print("working on", json.dumps(event), flush=True)  # long work belongs into a queue: answer within seconds
    return HttpResponse(status=204)


urlpatterns = [path("hooks", receive)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
