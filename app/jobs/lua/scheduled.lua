-- Included by the scripts that admit, cancel and clean up: jobs that must not start before a time. They wait outside of
-- the order, in a sorted set scored by that time, without a doorbell. The reaper moves them into the order.

-- From when on a job waits, as "seconds.microseconds": from now, or from its `not_before`. Also whether that is yet to come.
local function start_of(not_before, now)
  local is_scheduled = not_before and tonumber(not_before) > tonumber(now)
  return is_scheduled and not_before or now, is_scheduled
end

local function schedule(scheduled_key, job_id, not_before)
  redis.call('ZADD', scheduled_key, not_before, job_id)
end

-- Remove a job that is not to start any more.
local function leave_schedule(scheduled_key, job_id)
  redis.call('ZREM', scheduled_key, job_id)
end

-- Remove those whose time has come, at most `limit`. Returns their ids.
local function take_due(scheduled_key, now, limit)
  local job_ids = redis.call('ZRANGEBYSCORE', scheduled_key, '-inf', now, 'LIMIT', 0, limit)
  if #job_ids > 0 then redis.call('ZREM', scheduled_key, unpack(job_ids)) end
  return job_ids
end
