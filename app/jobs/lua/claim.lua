-- A worker takes a queued job: attempt + 1, a new fencing token and a lease. Jobs in any other state are left alone; one
-- that has waited longer than it may is ended here.
-- KEYS: job, queued, running, events, expiring, ended
-- ARGV: id, worker id, lease_seconds, nonce of this call, kept_seconds, notifications channel
-- Returns nil, or {request, token, attempt, created_at, started_at, followed, losses, ran_seconds, published tokens,
--         owner}
-- include: add_event
-- include: end_job
-- include: end_without_worker
local record = redis.call('HMGET', KEYS[1], 'status', 'request', 'created_at', 'followed', 'started_at', 'claim', 'token',
  'attempt', 'expires_at', 'losses', 'ran', 'published', 'owner')
local status = record[1]
local function taken(token, attempt, started_at)
  return {record[2], token, attempt, record[3], started_at, record[4] or '0', tonumber(record[10] or 0), record[11] or '0',
    tonumber(record[12] or 0), record[13]}
end
if status == 'processing' and record[6] == ARGV[4] then -- the same call once more, after its first answer was lost
  return taken(tonumber(record[7]), tonumber(record[8]), record[5])
end
if status ~= 'queued' then
  redis.call('ZREM', KEYS[2], ARGV[1])
  return nil
end

local time = redis.call('TIME')
local now = time[1] .. string.format('.%06d', time[2])
redis.call('ZREM', KEYS[2], ARGV[1])
if record[9] then
  redis.call('ZREM', KEYS[5], ARGV[1])
  if not record[5] and tonumber(record[9]) <= tonumber(now) then
    end_without_worker(KEYS[1], KEYS[4], KEYS[6], ARGV[1], ARGV[5], 'expired')
    redis.call('PUBLISH', ARGV[6], ARGV[1])
    return nil
  end
end
local lease_until = tonumber(now) + tonumber(ARGV[3])
local token = tonumber(record[7] or 0) + 1
local attempt = tonumber(record[8] or 0) + 1
local started_at = record[5] or now
redis.call('HSET', KEYS[1], 'token', token, 'attempt', attempt, 'status', 'processing', 'worker', ARGV[2],
  'claim', ARGV[4], 'claimed_at', now, 'lease_until', lease_until, 'started_at', started_at)
redis.call('ZADD', KEYS[3], lease_until, ARGV[1])
local notification = add_event(KEYS[4], ARGV[1], 'started', '{"attempt":' .. attempt .. '}')
if record[4] == '1' then redis.call('PUBLISH', ARGV[6], notification) end
return taken(token, attempt, started_at)
