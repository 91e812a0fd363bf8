-- Included by every script that ends a job. The record is final from here on, and all that is kept for it has a time to
-- live: its own `ttl`, or `kept_seconds`. A long request, which may have megabytes, goes unless it is a part of a stored
-- response. `fields` are further fields and values of the record, `status` among them.
-- include: totals
local LONG_REQUEST_BYTES = 16384
local WEBHOOK_SECONDS = 259200 -- the sender gives up after nine attempts in 15 hours, 24 hours at most

-- Queue a copy of the record, so that the webhook survives deletion of the job.
local function queue_webhook(job_key, job_id, status, webhook, now)
  for _, event in ipairs(webhook.events) do
    if event == 'job.' .. status then
      redis.call('COPY', job_key, webhook.delivery)
      redis.call('HDEL', webhook.delivery, 'request')
      redis.call('EXPIRE', webhook.delivery, WEBHOOK_SECONDS)
      redis.call('ZADD', webhook.due, now, job_id)
    end
  end
end

local function end_job(job_key, events_key, ended_key, job_id, kept_seconds, end_event, fields)
  local time = redis.call('TIME')
  redis.call('HSET', job_key, 'completed_at', time[1] .. string.format('.%06d', time[2]), unpack(fields))
  redis.call('HDEL', job_key, 'lease_until', 'claim')
  redis.call('XADD', events_key, '*', 'type', 'end', 'data', end_event)
  count_job(job_key, ended_key, end_event)
  local record = redis.call('HMGET', job_key, 'ttl', 'idempotency', 'owner', 'webhook', 'status', 'keeps_request')
  if not record[6] and redis.call('HSTRLEN', job_key, 'request') > LONG_REQUEST_BYTES then
    redis.call('HDEL', job_key, 'request')
  end
  if record[4] then queue_webhook(job_key, job_id, record[5], cjson.decode(record[4]), time[1]) end
  local ttl = tonumber(record[1] or kept_seconds)
  redis.call('EXPIRE', job_key, ttl)
  redis.call('EXPIRE', events_key, ttl)
  if record[2] then redis.call('EXPIRE', record[2], ttl) end
  local gone_at = tonumber(time[1]) + 1 + ttl
  redis.call('ZADD', ended_key, gone_at, job_id .. ' ' .. (record[3] or '')) -- for the owner's index
end
