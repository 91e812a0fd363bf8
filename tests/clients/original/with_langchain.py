"""`langchain-llm-api` 0.0.1: `python with_langchain.py URL` prints the result of each call as one JSON object."""

import json
import sys
from typing import Any

from langchain import LLMChain, PromptTemplate
from langchain.callbacks.base import CallbackManager
from langchain.callbacks.streaming_stdout import StreamingStdOutCallbackHandler
from langchain_llm_api import LLMAPI, APIEmbeddings

PARAMS = {"n_predict": 12, "temp": 0, "repeat_penalty": 1.0}
PROMPT = "The capital of France is"


class Listener(StreamingStdOutCallbackHandler):
    """Keeps the tokens that the handler of the README prints."""

    def __init__(self) -> None:
        self.tokens: list[str] = []

    def on_llm_new_token(self, token: str, **options: Any) -> None:
        self.tokens.append(token)


def main(url: str) -> dict[str, Any]:
    llm = LLMAPI(host_name=url, params=dict(PARAMS))
    listener = Listener()
    streaming = LLMAPI(
        host_name=url, params=dict(PARAMS), streaming=True, callback_manager=CallbackManager([listener]), verbose=True
    )
    chain = LLMChain(
        llm=llm, prompt=PromptTemplate(template="The capital of {country} is", input_variables=["country"])
    )
    embeddings = APIEmbeddings(host_name=url)
    return {
        "called": llm(PROMPT),
        "called with stop": llm(PROMPT, stop=["."]),
        "called again": llm(PROMPT),
        "streamed": streaming(PROMPT),
        "tokens": listener.tokens,
        "chained": chain.run("France"),
        "documents": embeddings.embed_documents(["a cat", "a dog"]),
        "query": embeddings.embed_query("a cat"),
    }


print(json.dumps(main(sys.argv[1])))
