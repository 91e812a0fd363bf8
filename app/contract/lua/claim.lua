-- A worker takes a job: final or leased jobs are left alone, else attempt + 1, a new fencing token and a lease.
-- KEYS: job, queued, running, events
-- ARGV: id, worker id, lease_seconds, nonce of this call
-- Returns nil, or {request, token, attempt, created_at, now, followed}
local record = redis.call('HMGET', KEYS[1], 'status', 'lease_until', 'request', 'created_at', 'followed', 'started_at',
  'claim', 'token', 'attempt')
local status = record[1]
local time = redis.call('TIME')
local now = time[1] .. string.format('.%06d', time[2])
if not status or (status ~= 'queued' and status ~= 'processing') then
  redis.call('ZREM', KEYS[2], ARGV[1])
  return nil
end
if record[7] == ARGV[4] then -- the same call once more, after its first answer was lost
  return {record[3], tonumber(record[8]), tonumber(record[9]), record[4], now, record[5] or '0'}
end
if status == 'processing' and record[2] and tonumber(record[2]) > tonumber(now) then return nil end

local lease_until = tonumber(now) + tonumber(ARGV[3])
local token = tonumber(record[8] or 0) + 1
local attempt = tonumber(record[9] or 0) + 1
redis.call('HSET', KEYS[1], 'token', token, 'attempt', attempt, 'status', 'processing', 'worker', ARGV[2],
  'claim', ARGV[4], 'lease_until', lease_until, 'started_at', record[6] or now)
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], lease_until, ARGV[1])
redis.call('XADD', KEYS[4], '*', 'type', 'started', 'data', '{"attempt":' .. attempt .. '}')
return {record[3], token, attempt, record[4], now, record[5] or '0'}
