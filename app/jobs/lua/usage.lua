-- Included by end_job: the ledger of usage. An ended job is added to its model and day (UTC) in the step that ends it.
-- The hash `llm:usage:<day>:<model>` has a row for each key and label: the field is the JSON list [owner, tenant, name of
-- the key, label], the value the counters in the order of `COUNTERS` in app/ledger/usage.py, with spaces between them.
-- `llm:usage` lists the hashes, "<day> <model>", scored by day. A day is a number: days since 1970.
local USAGE = 'llm:usage'
local DAY_SECONDS = 86400
local MOST_LABELS = 100 -- of one key, model and day, as clients choose labels; further ones are counted as `other`
local PARSED = '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)'
local WRITTEN = '%d %d %d %d %d %d %d %d %d'
local OUTCOMES = {succeeded = 1, failed = 2, canceled = 3, expired = 4} -- positions among the counters

-- The row of a job, and its counters so far; nil where it has none.
local function usage_row(usage_key, job)
  local row = cjson.encode({job.owner, job.tenant, job.key_name, job.label})
  local counters = redis.call('HGET', usage_key, row)
  if counters or job.label == '' then return row, counters end
  local labels = '#' .. job.owner
  if tonumber(redis.call('HGET', usage_key, labels) or 0) < MOST_LABELS then
    redis.call('HINCRBY', usage_key, labels, 1)
    return row, nil
  end
  row = cjson.encode({job.owner, job.tenant, job.key_name, 'other'})
  return row, redis.call('HGET', usage_key, row)
end

-- A new hash is listed, and lives until `days` days after its own.
local function keep_usage_day(usage_key, day, model, days)
  redis.call('EXPIREAT', usage_key, (day + 1 + days) * DAY_SECONDS)
  redis.call('ZADD', USAGE, day, day .. ' ' .. model)
  redis.call('ZREMRANGEBYSCORE', USAGE, '-inf', day - days - 1)
end

-- job: owner, tenant, key_name, label, model, status, prompt_tokens, cached_tokens, completion_tokens, ran_seconds,
-- is_cache_hit. now: Unix seconds, whole.
local function count_usage(job, now, days)
  local day = math.floor(now / DAY_SECONDS)
  local usage_key = USAGE .. ':' .. day .. ':' .. job.model
  local row, counters = usage_row(usage_key, job)
  local added = {0, 0, 0, 0, job.is_cache_hit and 1 or 0, job.prompt_tokens, job.cached_tokens, job.completion_tokens,
    math.floor(job.ran_seconds * 1e6 + 0.5)}
  added[OUTCOMES[job.status]] = 1
  if counters then
    for position, sum in ipairs({string.match(counters, PARSED)}) do added[position] = added[position] + sum end
  end
  redis.call('HSET', usage_key, row, string.format(WRITTEN, unpack(added)))
  if not counters and redis.call('TTL', usage_key) == -1 then keep_usage_day(usage_key, day, job.model, days) end
end
