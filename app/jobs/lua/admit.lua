-- Accept a job or reject it, in one step: the record, its place in the order and a doorbell appear together.
-- KEYS: job, alive, doorbells, expiring, owner's index, idempotency key ('' = none), scheduled
-- ARGV: order, id, tenant, priority, max_queued (-1: no limit), doorbell, seconds it may wait ('' = for ever), fingerprint
--       of the request, names of the record's fields (comma-separated; both '' without a key), then field/value pairs
-- Returns {"ok", created_at} | {"same", values of the earlier job's record} | {"conflict"} | {"full", length} |
--         {"no_worker", length} | {"limited", limit of the API key, its number, seconds until it may be tried again (-1: not
--         known), jobs of the key that have not ended}
-- include: limits
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
if KEYS[6] ~= '' then
  local earlier, fingerprint = job_of_key(KEYS[6], ARGV[9])
  if earlier then return fingerprint == ARGV[8] and {'same', unpack(earlier)} or {'conflict'} end
end
local order = order_of(ARGV[1])
local sent = {}
for at = 10, #ARGV, 2 do sent[ARGV[at]] = ARGV[at + 1] end
local time = redis.call('TIME')
local now = time[1] .. string.format('.%06d', time[2])
local from, is_scheduled = start_of(sent.not_before, now)
local length = redis.call('ZCARD', order.waiting) + redis.call('ZCARD', KEYS[7])
if not is_scheduled and redis.call('EXISTS', KEYS[2]) == 0 then return {'no_worker', length} end
local limit = tonumber(ARGV[5])
if limit >= 0 and length >= limit then return {'full', length} end

local tokens = tonumber(sent.estimated_tokens)
local limits = tokens and limits_of(sent.owner)
if limits then
  local over = exceeded(sent.owner, limits, tokens, tonumber(sent.limit_share), tonumber(now))
  if over then return {'limited', over[1], over[2], over[3], redis.call('ZCARD', active_key(sent.owner))} end
end
local place = place_of(ARGV[4], string.match(from, '^(%d+)%.(%d+)$'))
redis.call('HSET', KEYS[1], 'created_at', now, 'status', 'queued', 'place', place, unpack(ARGV, 10))
if is_scheduled then
  schedule(KEYS[7], ARGV[2], from)
else
  enter_order(order, ARGV[3], ARGV[2], place, ARGV[4])
  redis.call('LPUSH', KEYS[3], ARGV[6])
end
if limits then count_admitted(KEYS[1], ARGV[2], sent.owner, limits, tokens, tonumber(now)) end
redis.call('ZADD', KEYS[5], now, ARGV[2])
if ARGV[7] ~= '' then
  local expires_at = tonumber(from) + tonumber(ARGV[7])
  redis.call('HSET', KEYS[1], 'expires_at', expires_at)
  redis.call('ZADD', KEYS[4], expires_at, ARGV[2])
end
if KEYS[6] ~= '' then
  redis.call('DEL', KEYS[6]) -- also removes the expiry left by a deleted job
  redis.call('HSET', KEYS[6], 'record', KEYS[1], 'fingerprint', ARGV[8])
  redis.call('HSET', KEYS[1], 'idempotency', KEYS[6])
end
return {'ok', now}
