"""What the API asks of requests beyond what OpenAPI can say of them, for schemathesis.

JSON Schema speaks of one parameter at a time. The rules between two are held here, so that what is sent as valid is valid;
that breaking them is refused is tested in tests/it.
"""

import itertools
from urllib.parse import parse_qs, urlsplit

import requests
import schemathesis

unique = itertools.count()


def is_valid(case):
    return case.meta is not None and case.meta.generation.mode.is_positive


def said(case, name):
    body = case.body if isinstance(case.body, dict) else {}
    return (case.query or {}).get(name, body.get(name))


def day(text):
    return str(text)[:10]


# Which further rule a valid request to a path must keep.
RULES = {
    # Without one of them it would be about everything; the start must come before the end, days apart whatever their zones.
    "/replay/range": lambda case: (said(case, "start") or said(case, "end")) and comes_before(case, "start", "end"),
    "/replay/jobs": lambda case: case.method == "GET" or comes_before(case, "start", "end"),
    # A filter must have a condition.
    "/dlq/retry": lambda case: any(said(case, name) for name in ("topic", "error_reason", "since", "until", "group")),
    # What Kafka would say cannot be rehearsed; what goes through ingestion cannot be in Kafka already.
    "/dlq/{id}/retry": lambda case: not (
        said(case, "dry_run") if said(case, "mode") == "republish" else said(case, "again")
    ),
    "/events": lambda case: comes_before(case, "since", "until"),
    # All masks together have fifty names.
    "/export": lambda case: comes_before(case, "since", "until")
    and sum(mask.count(",") + 1 for mask in said(case, "mask") or ()) <= 50,
    # Events keep coming: only what has passed is pruned.
    "/prune": lambda case: day(said(case, "until")) < "2026",
    # A partition is one of a topic.
    "/consumer/resume": lambda case: said(case, "partition") is None or said(case, "topic"),
}


def comes_before(case, start, end):
    start, end = said(case, start), said(case, end)
    return not (start and end) or abs_days(start) + 2 < abs_days(end)


def abs_days(text):
    year, month, of_month = (int(part) for part in day(text).split("-"))
    return (year * 12 + month) * 31 + of_month


@schemathesis.hook
def before_call(context, case, kwargs):
    """schemathesis takes the last word of `/dlq/retry` for an id of `/dlq/{id}`, and sends it as a valid one."""
    id = (case.path_parameters or {}).get("id")
    if is_valid(case) and isinstance(id, str) and not id.isdigit():
        case.path_parameters["id"] = 1


def is_sent(query):
    """An empty list or nothing leaves no trace in the URL: what was to be wrong with the request is not."""
    url = requests.Request("GET", "http://localhost/", params=query).prepare().url
    return len(parse_qs(urlsplit(url).query, keep_blank_values=True)) >= len(query)


@schemathesis.hook
def filter_case(context, case):
    rule = RULES.get(case.path)
    if not is_valid(case) and not is_sent(case.query or {}):
        return False
    try:
        return not is_valid(case) or rule is None or bool(rule(case))
    except ValueError:
        return True


@schemathesis.hook
def map_case(context, case):
    """Keys are used once, as clients do, and nobody waits a minute for a job that was paused. A search goes on at the cursor
    of the page before alone."""
    if is_valid(case):
        if case.path in ("/events", "/events/{id}/history") and case.query:
            case.query.pop("cursor", None)
        if case.headers and "Idempotency-Key" in case.headers:
            case.headers["Idempotency-Key"] = f"key-{next(unique)}"
        for place in (case.query, case.body):
            if isinstance(place, dict) and isinstance(place.get("wait"), int):
                place["wait"] = min(place["wait"], 1)
    return case
