-- Cancel a job: a queued one ends here, a running one is marked for its worker, a final one stays as it is.
-- KEYS: job, queued, events
-- ARGV: id, ttl
-- Returns nil (unknown) | the status after the call
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return nil end
if status == 'processing' then
  redis.call('HSET', KEYS[1], 'cancel', '1')
elseif status == 'queued' then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'status', 'canceled', 'completed_at', time[1] .. string.format('.%06d', time[2]))
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('XADD', KEYS[3], '*', 'type', 'end', 'data', '{"status":"canceled"}')
  redis.call('EXPIRE', KEYS[1], ARGV[2])
  redis.call('EXPIRE', KEYS[3], ARGV[2])
  return 'canceled'
end
return status
