"""Asks the Hub for a model's repository, once and without a download."""

from typing import Any

from huggingface_hub.errors import FileMetadataError
from huggingface_hub.utils import (  # type: ignore[attr-defined] # documented
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from workers.models.hub_errors import hub_errors_explained
from workers.models.hub_source import HubSource

REPLY_SECONDS = 10.0
_KEYS = ("repo_id", "filename", "revision", "token")


def check_hub(setup_params: dict[str, Any]) -> str:
    """Return a sentence about what the Hub has. Raises ModelUnavailable with one that names the fix.

    A download asks through the library's own client, which tries for two minutes.
    """
    source = HubSource(**{name: setup_params[name] for name in _KEYS if name in setup_params})
    url = f"{source.endpoint}/api/models/{source.repo_id}/revision/{source.revision}"
    with hub_errors_explained(source):
        response = get_session().get(url, headers=build_hf_headers(token=source.token), timeout=REPLY_SECONDS)
        hf_raise_for_status(response)
        try:
            names = [file["rfilename"] for file in response.json()["siblings"]]
        except (ValueError, TypeError, LookupError) as error:
            raise FileMetadataError("not the response of a hub") from error
        source.wanted_files(names)
    return f"{source.endpoint} has {source.label}, which the first start downloads"
