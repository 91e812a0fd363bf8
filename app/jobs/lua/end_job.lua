-- Included by every script that ends a job. The record is final from here on, it is counted in the ledger, and all that is
-- kept for it has a time to live. A long request, which may have megabytes, goes unless it is a part of a stored response.
-- kept: "<seconds> <days> <entries>", how long jobs without a `ttl` of their own and days of usage are kept, and how many
-- entries of the audit stream (0: it is off). order: as of shares.lua. fields: further fields and values of the record,
-- `status` and `usage` among them.
-- include: shares
-- include: totals
-- include: usage
-- include: audit
-- include: limits
local LONG_REQUEST_BYTES = 16384
local WEBHOOK_SECONDS = 259200 -- the sender gives up after nine attempts in 15 hours, 24 hours at most

-- Queue a copy of the record, so that the webhook survives deletion of the job. now: a text.
local function queue_webhook(job_key, job_id, status, webhook, now)
  for _, event in ipairs(webhook.events) do
    if event == 'job.' .. status then
      redis.call('HSET', job_key, 'webhook_status', '{"state":"waiting","tries":0,"next_try_at":' .. now .. '}')
      redis.call('COPY', job_key, webhook.delivery)
      redis.call('HDEL', webhook.delivery, 'request')
      redis.call('EXPIRE', webhook.delivery, WEBHOOK_SECONDS)
      redis.call('ZADD', webhook.due, now, job_id)
    end
  end
end

-- How long workers ran the job, as a text: `ran`, in earlier attempts, and since the claim of the worker that holds it.
local function seconds_run(record, now)
  local last = record.lease_until and math.min(now, tonumber(record.lease_until)) - tonumber(record.claimed_at) or 0
  return string.format('%.6f', tonumber(record.ran or 0) + math.max(0, last))
end

local function read_unended(job_key)
  local names = {'ttl', 'idempotency', 'owner', 'webhook', 'keeps_request', 'lease_until', 'claimed_at', 'ran', 'model',
    'tenant', 'key_name', 'label', 'kind', 'priority', 'attempt', 'created_at', 'started_at', 'not_before', 'weight',
    'charged', 'counted_tokens', 'counted_at'}
  local record = {}
  for position, value in ipairs(redis.call('HMGET', job_key, unpack(names))) do record[names[position]] = value or nil end
  return record
end

-- The facts about an ended job that are counted. now: Unix seconds.
local function facts(job_id, record, event, now)
  local usage = event.usage or record.usage and cjson.decode(record.usage) or {} -- the same, and decoding takes a while
  local metrics = record.metrics and cjson.decode(record.metrics) or {}
  local source = metrics.source and metrics.source ~= cjson.null and metrics.source or ''
  return {
    id = job_id, kind = record.kind, model = record.model, status = record.status, owner = record.owner, now = now,
    tenant = record.tenant or record.owner, key_name = record.key_name or '', label = record.label or '',
    prompt_tokens = usage.prompt_tokens or 0, cached_tokens = usage.cached_tokens or 0,
    completion_tokens = usage.completion_tokens or 0, priority = record.priority,
    ran = record.ran, ran_seconds = tonumber(record.ran), source = source, is_cache_hit = source == 'cached',
    attempts = tonumber(record.attempt or 0), created_at = record.created_at, started_at = record.started_at or '',
    ready_at = math.max(tonumber(record.created_at), tonumber(record.not_before or 0)), metrics = metrics,
    finish_reason = event.finish_reason or '-', error_code = event.error and event.error.code or '',
  }
end

local function end_job(order, job_key, events_key, ended_key, job_id, kept, end_event, fields)
  local time = redis.call('TIME')
  local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
  local kept_seconds, usage_days, audit_entries = string.match(kept, '^(%d+) (%d+) (%d+)$')
  local record = read_unended(job_key)
  record.ran = seconds_run(record, now)
  for at = 1, #fields, 2 do record[fields[at]] = fields[at + 1] end
  local completed_at = time[1] .. string.format('.%06d', time[2])
  redis.call('HSET', job_key, 'completed_at', completed_at, 'ran', record.ran, unpack(fields))
  redis.call('HDEL', job_key, 'lease_until', 'claim', 'charged', 'counted_tokens', 'counted_at')
  redis.call('XADD', events_key, '*', 'type', 'end', 'data', end_event)
  if not record.keeps_request and redis.call('HSTRLEN', job_key, 'request') > LONG_REQUEST_BYTES then
    redis.call('HDEL', job_key, 'request')
  end
  if record.webhook then queue_webhook(job_key, job_id, record.status, cjson.decode(record.webhook), time[1]) end
  local ttl = tonumber(record.ttl or kept_seconds)
  redis.call('EXPIRE', job_key, ttl)
  redis.call('EXPIRE', events_key, ttl)
  if record.idempotency then redis.call('EXPIRE', record.idempotency, ttl) end
  local gone_at = tonumber(time[1]) + 1 + ttl
  redis.call('ZADD', ended_key, gone_at, job_id .. ' ' .. record.owner) -- for the owner's index
  local job = facts(job_id, record, cjson.decode(end_event), now)
  settle(order, record, job, now)
  count_totals(order.prefix .. 'totals:' .. order.model, job)
  count_usage(job, tonumber(time[1]), tonumber(usage_days))
  settle_limits(job_id, record, job.prompt_tokens + job.completion_tokens, now)
  if audit_entries ~= '0' then audit(job, audit_entries) end
end
