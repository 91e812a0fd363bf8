"""Why the Hub does not provide a model, in one line that names the fix."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from huggingface_hub import errors, get_token

from app.errors import ModelUnavailable
from workers.models.hub_source import HubSource


class ConnectionLost(Exception):
    """The bytes of a file stopped coming, again and again."""


@contextmanager
def hub_errors_explained(source: HubSource) -> Iterator[None]:
    """Turn what huggingface_hub and its HTTP client raise into `ModelUnavailable`."""
    try:
        yield
    except (OSError, errors.HFValidationError, httpx2.RequestError, httpx2.InvalidURL, ConnectionLost) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's; the library's own have no number
        covers = isinstance(error, errors.LocalEntryNotFoundError)  # raised in place of what a request came upon
        raise ModelUnavailable(_explain(error.__cause__ if covers and error.__cause__ else error, source)) from error


def _explain(error: BaseException, source: HubSource) -> str:
    repo, endpoint = source.repo_id, source.endpoint
    fix = "set HF_TOKEN or setup_params.token"
    if source.token or get_token():
        fix = "use a token that may read it in HF_TOKEN or setup_params.token (the one given is not enough)"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    match error:
        case errors.GatedRepoError():
            return f"{repo} is gated: accept its terms at {endpoint}/{repo}, then {fix}"
        case errors.RepositoryNotFoundError():
            return f"{endpoint} has no model {repo}: check {source.section}.repo_id; if it is private, {fix}"
        case errors.RevisionNotFoundError():
            return f"{repo} has no revision {source.revision}: correct {source.section}.revision (default: main)"
        case errors.HFValidationError():
            return f"{source.section}.repo_id must look like owner/name, not {repo}"
        case errors.OfflineModeIsEnabled():
            return f"{repo} is not downloaded yet and HF_HUB_OFFLINE is set: unset it for the first start"
        case errors.FileMetadataError():
            return f"{endpoint} does not respond like a Hugging Face Hub: check HF_ENDPOINT and the proxy settings"
        case _ if status in (401, 403):
            return f"{endpoint} rejects the request for {repo} (HTTP {status}): {fix}"
        case _ if status == 429:
            return f"{endpoint} limits our requests (HTTP 429): wait a few minutes, or {fix}"
        case _ if status:
            return f"{endpoint} is in trouble (HTTP {status}): try again later, or set {source.section}.path"
    reason = str(error) if isinstance(error, ConnectionLost) else type(error).__name__
    return (
        f"cannot reach {endpoint} for {repo} ({reason}): "
        f"check the network, the proxy and HF_ENDPOINT, or set {source.section}.path to a local copy"
    )
