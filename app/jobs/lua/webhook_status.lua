-- Included by the scripts that settle webhooks: what has become of a webhook is kept in the record of its job.

-- next_try_at: Unix seconds, or nil. Nothing is written where the job has been deleted.
local function note_webhook(job_key, state, tries, error, next_try_at)
  if redis.call('EXISTS', job_key) == 0 then return end
  local status = {state = state, tries = tonumber(tries), error = error, next_try_at = next_try_at}
  redis.call('HSET', job_key, 'webhook_status', cjson.encode(status))
end
