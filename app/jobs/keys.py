"""The Redis keys: names, types, contents and lifetimes of everything that this service keeps.

Modules without a path are in `app.jobs`.

| key | type | holds | lives |
|---|---|---|---|
| `llm:job:<id>` | hash | the job record (`record`), until its end with a long request | until final, then `jobs.ttl` |
| `llm:events:<id>` | stream | what happened to the job (`events`) | as its record |
| `llm:waiting:<model>` | zset | ids of all waiting jobs, scored by class and when they rise by one | while queued |
| `llm:tenants:<model>` | zset | tenants with waiting jobs: the first is next (`lua/order.lua`) | while one waits |
| `llm:queue:<tenant>:<model>` | zset | ids of a tenant's waiting jobs, scored by their places | while queued |
| `llm:shares:<model>` | hash | how the tenants share it, see below | - |
| `llm:scheduled:<model>` | zset | ids of jobs that must not start yet, scored by `not_before` | until then |
| `llm:running:<model>` | zset | ids running, scored by the end of their lease | while running |
| `llm:queued:<model>` | zset | the order of releases up to 0.1, by places | until a reaper has taken it over |
| `llm:expiring:<model>` | zset | ids of waiting jobs with a time limit, scored by `expires_at` | while queued |
| `llm:ended:<model>` | zset | "id owner" of final jobs, scored by the end of their records | as their records |
| `llm:jobs:<owner>` | zset | an owner's ids, scored by creation time | entries: as their records |
| `llm:usage:<day>:<model>` | hash | usage of a day (days since 1970): rows (`app.ledger.usage`) | `usage.keep_days` |
| `llm:usage` | zset | "day model" of these hashes, scored by day | entries: as their hashes |
| `llm:audit` | stream | an entry for each ended job of any model (`app.ledger.audit`) | newest `audit.keep` |
| `llm:active:<owner>` | zset | ids of a limited key's jobs; 0: waiting, 1: running | while there are any |
| `llm:limits:<owner>` | hash | what a limited key has used (`lua/limits.lua`) | 45 days |
| `llm:idempotency:<owner>:<digest>` | hash | key of the record made under it, digest of the request | as its job |
| `llm:webhook:<id>` | hash | the record of a final job whose webhook is to be sent | until sent, 3 days at most |
| `llm:webhooks:<model>` | zset | ids with a webhook to send, scored by when | until sent |
| `llm:cached:<digest>` | string | id of the job with the same request (`workers.jobs.response_cache`) | `cache.ttl` |
| `llm:service:<model>` | string | mean seconds between a job's claim and its end, lately | - |
| `llm:totals:<model>` | hash | counts of ended jobs (`totals`) | - |
| `llm:reaper:<model>` | string | Unix seconds of the next turn of the reaper | - |
| `llm:loads:<host>:<digest>` | hash | workers that began to load a model (`workers.jobs.load_attempts`) | 1 day |
| `llm:trial:<worker>` | string | id of the job that this worker runs in quarantine | while it does |
| `llm:adapters:<model>` | hash | adapters loaded at run time: JSON by version (`adapter_registry`) | until unloaded |
| `llm:adapters-served:<model>` | hash | the version that requests get, by name | until unloaded |
| `llm:alive:<model>` | string | a worker of the model is alive | 15 s, renewed; until the last one gives up |
| `llm:worker:<id>` | string | one worker's state as JSON (`worker_registry`) | 15 s, renewed; a failure one day |
| `llm:workers` | set | worker ids, cleaned by readers | - |
| `llm:questions:<model>` | list | tokenizer calls for any worker (`tokenizer_rpc`) | until taken, 30 s at most |
| `llm:answer:<id>` | list | the reply to one call | until read, 30 s at most |
| `llm:file:<id>` | hash | fields (`app.api.batches.files`) | as `expires_at` says; longer while a batch reads it |
| `llm:file-lines:<id>` | list | its lines; of a file that a batch writes, those so far | as its hash |
| `llm:files:<owner>` | zset | an owner's files, scored by creation time | entries: cleaned by readers |
| `llm:batch:<id>` | hash | the record of a batch (`app.api.batches.batches`) | until its end, then `files.ttl` |
| `llm:batch-open:<id>` | set | numbers of lines that are submitted and have no result | while there are any |
| `llm:batches:<owner>` | zset | an owner's batches, scored by creation time | entries: cleaned by readers |
| `llm:unfinished:<model>` | zset | batches that have not ended, scored by creation time | until their end |
| `llm:driver:<model>` | string | the process that drives the batches (`app.api.batches.driver`) | 5 s, renewed |
| `llm:jobs.<model>` | list | Celery's queue: one doorbell for each waiting job (`order`) | until a worker takes it |
| `llm:claim:<worker>` | string | nonce and id of that worker's last claim, for a call whose reply was lost | 60 s |
| `llm:api-key:<id>` | hash | an API key without its secret (`app.access.key_store`) | until it is forgotten |
| `llm:api-key-of:<digest>` | string | id of the key whose secret has this SHA-256 | until revoked or replaced |
| `llm:api-keys` | zset | ids of API keys, revoked ones too, scored by creation time | - |
| `llm:api-key-names` | hash | ids of API keys that are not revoked, by name | - |

Channels: `llm:notifications:<process>` carries a line for each changed job for which an API process waits
(`notifications`). `llm:control` carries `cancel:<id>`, `follow:<id>` (a client follows this job's stream: publish it at
every step) and `adapters:<model>` (look what is to be loaded) to the workers. A lost message costs a delay, never a
result. Each worker also subscribes to `llm:control:<id>`, to which nothing is sent: Redis counts its subscribers, and
so knows at once when the worker is gone.

`llm:shares:<model>` has the fields `served <tenant>`: its counter; `length <tenant>`, `cost <tenant>`,
`seconds <tenant>`: of its jobs lately, the means of the tokens that they wrote, of their weighted tokens and of their
times; `start <class>`: the counter at which the last job of the class was claimed (`lua/shares.lua`).

`llm:probe` is a string that `/readyz` writes, to see whether Redis accepts writes.
"""

PREFIX = "llm:"
CONTROL_CHANNEL = PREFIX + "control"
WORKERS = PREFIX + "workers"
PROBE = PREFIX + "probe"
USAGE = PREFIX + "usage"
AUDIT = PREFIX + "audit"
API_KEYS = PREFIX + "api-keys"
API_KEY_NAMES = PREFIX + "api-key-names"


def notifications(process: str) -> str:
    return f"{PREFIX}notifications:{process}"


def job(job_id: str) -> str:
    return f"{PREFIX}job:{job_id}"


def events(job_id: str) -> str:
    return f"{PREFIX}events:{job_id}"


def waiting(model: str) -> str:
    return f"{PREFIX}waiting:{model}"


def tenants(model: str) -> str:
    return f"{PREFIX}tenants:{model}"


def queue(tenant: str, model: str) -> str:
    name = tenant.replace("%", "%25").replace(":", "%3A")  # so that no other model has the same key
    return f"{PREFIX}queue:{name}:{model}"


def shares(model: str) -> str:
    return f"{PREFIX}shares:{model}"


def scheduled(model: str) -> str:
    return f"{PREFIX}scheduled:{model}"


def doorbells(model: str) -> str:
    """The list behind the Celery queue `order.queue_name(model)`, as Kombu's Redis transport names it."""
    return f"{PREFIX}jobs.{model}"


def last_claim(worker_id: str) -> str:
    return f"{PREFIX}claim:{worker_id}"


def running(model: str) -> str:
    return f"{PREFIX}running:{model}"


def expiring(model: str) -> str:
    return f"{PREFIX}expiring:{model}"


def ended(model: str) -> str:
    return f"{PREFIX}ended:{model}"


def usage(day: int, model: str) -> str:
    """day: days since 1970."""
    return f"{USAGE}:{day}:{model}"


def idempotency(owner: str, digest: str) -> str:
    return f"{PREFIX}idempotency:{owner}:{digest}"


def webhook(job_id: str) -> str:
    return f"{PREFIX}webhook:{job_id}"


def webhooks(model: str) -> str:
    return f"{PREFIX}webhooks:{model}"


def cached(digest: str) -> str:
    return f"{PREFIX}cached:{digest}"


def totals(model: str) -> str:
    """`lua/end_job.lua` makes the same name."""
    return f"{PREFIX}totals:{model}"


def reaper(model: str) -> str:
    return f"{PREFIX}reaper:{model}"


def loads(host: str, digest: str) -> str:
    return f"{PREFIX}loads:{host}:{digest}"


def trial(worker_id: str) -> str:
    return f"{PREFIX}trial:{worker_id}"


def jobs_of(owner: str) -> str:
    return f"{PREFIX}jobs:{owner}"


def adapters(model: str) -> str:
    return f"{PREFIX}adapters:{model}"


def served_adapters(model: str) -> str:
    return f"{PREFIX}adapters-served:{model}"


def alive(model: str) -> str:
    return f"{PREFIX}alive:{model}"


def worker_channel(worker_id: str) -> str:
    return f"{CONTROL_CHANNEL}:{worker_id}"


def worker(worker_id: str) -> str:
    return f"{PREFIX}worker:{worker_id}"


def calls(model: str) -> str:
    return f"{PREFIX}questions:{model}"


def reply(call_id: str) -> str:
    return f"{PREFIX}answer:{call_id}"


def file(file_id: str) -> str:
    return f"{PREFIX}file:{file_id}"


def file_lines(file_id: str) -> str:
    return f"{PREFIX}file-lines:{file_id}"


def files_of(owner: str) -> str:
    return f"{PREFIX}files:{owner}"


def batch(batch_id: str) -> str:
    return f"{PREFIX}batch:{batch_id}"


def batch_open(batch_id: str) -> str:
    return f"{PREFIX}batch-open:{batch_id}"


def batches_of(owner: str) -> str:
    return f"{PREFIX}batches:{owner}"


def unfinished(model: str) -> str:
    return f"{PREFIX}unfinished:{model}"


def driver(model: str) -> str:
    return f"{PREFIX}driver:{model}"


def api_key(key_id: str) -> str:
    return f"{PREFIX}api-key:{key_id}"


def active(owner: str) -> str:
    return f"{PREFIX}active:{owner}"


def limits(owner: str) -> str:
    return f"{PREFIX}limits:{owner}"


def api_key_of(digest: str) -> str:
    return f"{PREFIX}api-key-of:{digest}"
