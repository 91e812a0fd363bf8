"""`/usage`: what ended jobs have used, by day, model, key and label."""

from datetime import UTC, date, datetime
from typing import Any

from flask import Response, request

from app.api.access import OWNER_PARAMETER, viewed_owner
from app.api.json_response import CSV, JSON, json_response
from app.api.openapi import Blueprint, describe_response
from app.api.request_context import services
from app.api.schemas.usage import UsageQuerySchema, UsageReportSchema
from app.api.usage_report import usage_report
from app.ledger.usage import Group

blueprint = Blueprint("usage", __name__, description="What jobs have used, counted in the step that ends each.")

DEFAULT_DAYS = 30
DEFAULT_GROUPS = (Group.DAY, Group.MODEL)
_REPORT = UsageReportSchema()


@blueprint.endpoint(
    "GET",
    "/usage",
    query=UsageQuerySchema,
    responses={200: describe_response("The usage.", {JSON: UsageReportSchema, CSV: None})},
    scope=None,
    parameters=[OWNER_PARAMETER],
    problems=(404, 422, 503),
)
def read_usage(query: dict[str, Any]) -> Response:
    """The tokens, outcomes and seconds of ended jobs, summed by what `by` lists."""
    last = query.get("last") or datetime.now(UTC).date()
    first = query.get("first") or date.fromordinal(max(1, last.toordinal() - DEFAULT_DAYS + 1))
    report = usage_report(services().redis, first, last, query.get("by", DEFAULT_GROUPS), owner=viewed_owner())
    if query.get("format", _accepted()) == "csv":
        name = f"usage-{first}-{last}.csv"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Vary": "Accept"}
        return Response(report.to_csv(), headers=headers, content_type=f"{CSV}; charset=utf-8; header=present")
    return json_response(_REPORT.dump(report.to_json()), headers={"Vary": "Accept"})


def _accepted() -> str:
    return "csv" if request.accept_mimetypes.best_match([JSON, CSV], JSON) == CSV else "json"
