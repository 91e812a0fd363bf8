"""Names, types and lifetimes of everything this service keeps in Redis.

| key | type | holds | lives |
|---|---|---|---|
| `llm:job:<id>` | hash | the job record (`job_store`) | until final, then `jobs.ttl` |
| `llm:events:<id>` | stream | what happened to the job, `event_stream` | as its record |
| `llm:queued:<model>` | zset | ids waiting, scored by priority and age | while queued |
| `llm:running:<model>` | zset | ids running, scored by the end of their lease | while running |
| `llm:jobs:<owner>` | zset | an owner's ids, scored by creation time | entries: `jobs.ttl` and a day |
| `llm:alive:<model>` | string | some worker of the model lives | 15 s, renewed |
| `llm:worker:<id>` | string | one worker's state as JSON (`worker_registry`) | 15 s, renewed; a failure one day |
| `llm:workers` | set | worker ids, cleaned by readers | - |
| `llm:jobs.<model>[:<step>]` | list | Celery messages, one list per priority (`queues`) | while queued |

Channels: `llm:hints` carries comma-separated ids of jobs with news, or the whole record of a job that has ended, as a
JSON list (`job_record.RECORD_FIELDS`); `llm:control` carries `cancel:<id>` and `follow:<id>` to the workers. Both are
hints: a lost one costs a delay, never an answer.
"""

PREFIX = "llm:"
HINTS_CHANNEL = PREFIX + "hints"
CONTROL_CHANNEL = PREFIX + "control"
WORKERS = PREFIX + "workers"


def job(job_id: str) -> str:
    return f"{PREFIX}job:{job_id}"


def events(job_id: str) -> str:
    return f"{PREFIX}events:{job_id}"


def queued(model: str) -> str:
    return f"{PREFIX}queued:{model}"


def running(model: str) -> str:
    return f"{PREFIX}running:{model}"


def jobs_of(owner: str) -> str:
    return f"{PREFIX}jobs:{owner}"


def alive(model: str) -> str:
    return f"{PREFIX}alive:{model}"


def worker(worker_id: str) -> str:
    return f"{PREFIX}worker:{worker_id}"
