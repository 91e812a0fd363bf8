-- Accept a job or reject it, in one step: the record, its place in the order and a doorbell appear together.
-- KEYS: job, queued, alive, doorbells, expiring, owner's index, idempotency key ('' = none), scheduled
-- ARGV: id, max_queued (-1: no limit), priority step, doorbell, seconds it may wait ('' = for ever), fingerprint of the
--       request, names of the record's fields (comma-separated; both '' without a key), then field/value pairs
-- Returns {"ok", created_at} | {"same", values of the earlier job's record} | {"conflict"} | {"full", length} |
--         {"no_worker", length}
-- include: order
-- include: scheduled

-- The record of the job that the key stands for, and the fingerprint of its request; nil where there is none.
local function job_of_key(idempotency_key, fields)
  local made = redis.call('HMGET', idempotency_key, 'record', 'fingerprint')
  if not made[1] or redis.call('EXISTS', made[1]) == 0 then return nil end
  local names = {}
  for name in string.gmatch(fields, '[^,]+') do names[#names + 1] = name end
  return redis.call('HMGET', made[1], unpack(names)), made[2]
end

local known = redis.call('HGET', KEYS[1], 'created_at')
if known then return {'ok', known} end -- the same call once more, after its first reply was lost
if KEYS[7] ~= '' then
  local earlier, fingerprint = job_of_key(KEYS[7], ARGV[7])
  if earlier then return fingerprint == ARGV[6] and {'same', unpack(earlier)} or {'conflict'} end
end
local length = redis.call('ZCARD', KEYS[2]) + redis.call('ZCARD', KEYS[8])
if redis.call('EXISTS', KEYS[3]) == 0 then return {'no_worker', length} end
local limit = tonumber(ARGV[2])
if limit >= 0 and length >= limit then return {'full', length} end

local time = redis.call('TIME')
local now = time[1] .. string.format('.%06d', time[2])
redis.call('HSET', KEYS[1], 'created_at', now, 'status', 'queued', unpack(ARGV, 8))
local from, is_scheduled = start_of(redis.call('HGET', KEYS[1], 'not_before'), now)
local place = place_of(ARGV[3], string.match(from, '^(%d+)%.(%d+)$'))
redis.call('HSET', KEYS[1], 'place', place)
if is_scheduled then
  schedule(KEYS[8], ARGV[1], from)
else
  enter_order(KEYS[2], ARGV[1], place)
  redis.call('LPUSH', KEYS[4], ARGV[4])
end
redis.call('ZADD', KEYS[6], now, ARGV[1])
if ARGV[5] ~= '' then
  local expires_at = tonumber(from) + tonumber(ARGV[5])
  redis.call('HSET', KEYS[1], 'expires_at', expires_at)
  redis.call('ZADD', KEYS[5], expires_at, ARGV[1])
end
if KEYS[7] ~= '' then
  redis.call('DEL', KEYS[7]) -- also removes the expiry left by a deleted job
  redis.call('HSET', KEYS[7], 'record', KEYS[1], 'fingerprint', ARGV[6])
  redis.call('HSET', KEYS[1], 'idempotency', KEYS[7])
end
return {'ok', now}
