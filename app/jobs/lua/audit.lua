-- Included by end_job: an entry of the audit stream, `llm:audit`, for each ended job. It has no prompt and no answer. All
-- entries have the same fields, so that Redis stores the names once for many.
local AUDIT = 'llm:audit'

-- job: as of count_usage, and id, kind, attempts, created_at, started_at ('' = never), error_code ('' = none), source ('' =
-- nothing was computed). most: entries that are kept at least; Redis removes older ones in blocks.
local function audit(job, most)
  redis.call('XADD', AUDIT, 'MAXLEN', '~', most, '*', 'job', job.id, 'owner', job.owner, 'tenant', job.tenant, 'key_name',
    job.key_name, 'label', job.label, 'kind', job.kind, 'model', job.model, 'outcome', job.status, 'error', job.error_code,
    'attempts', job.attempts, 'created_at', job.created_at, 'started_at', job.started_at, 'prompt_tokens', job.prompt_tokens,
    'cached_tokens', job.cached_tokens, 'completion_tokens', job.completion_tokens, 'compute_seconds', job.ran,
    'source', job.source)
end
