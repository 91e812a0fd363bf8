-- Cancel a job: a queued one ends here, as does one whose worker has let its lease run out; a running one is marked for
-- its worker, a final one stays as it is.
-- KEYS: job, queued, events, running
-- ARGV: id, ttl
-- Returns nil (unknown) | the status after the call
local record = redis.call('HMGET', KEYS[1], 'status', 'lease_until', 'token')
local status = record[1]
if not status then return nil end
if status ~= 'queued' and status ~= 'processing' then return status end

local time = redis.call('TIME')
local now = time[1] .. string.format('.%06d', time[2])
if status == 'processing' and tonumber(record[2] or 0) > tonumber(now) then
  redis.call('HSET', KEYS[1], 'cancel', '1')
  return status
end
-- the next token: what a worker that comes back might still write is void
redis.call('HSET', KEYS[1], 'status', 'canceled', 'completed_at', now, 'token', tonumber(record[3] or 0) + 1)
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('XADD', KEYS[3], '*', 'type', 'end', 'data', '{"status":"canceled"}')
redis.call('EXPIRE', KEYS[1], ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[2])
return 'canceled'
