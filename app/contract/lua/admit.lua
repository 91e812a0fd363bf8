-- Accept a job or refuse it, in one step: the record, its place in the queue and the broker's message appear together.
-- KEYS: job, queued, owner's index, alive, broker list
-- ARGV: id, max_queued (-1: no limit), kept_seconds of the index, priority step, Celery message, then field/value pairs
-- Returns {"ok", created_at} | {"full", length} | {"no_worker"}
local known = redis.call('HGET', KEYS[1], 'created_at')
if known then return {'ok', known} end -- the same call once more, after its first answer was lost
if redis.call('EXISTS', KEYS[4]) == 0 then return {'no_worker'} end
local length = redis.call('ZCARD', KEYS[2])
local limit = tonumber(ARGV[2])
if limit >= 0 and length >= limit then return {'full', length} end

local time = redis.call('TIME')
local now = time[1] .. string.format('.%06d', time[2])
local microseconds = tonumber(time[1]) * 1e6 + tonumber(time[2])
redis.call('HSET', KEYS[1], 'created_at', now, 'status', 'queued', unpack(ARGV, 6))
redis.call('ZADD', KEYS[2], string.format('%.0f', tonumber(ARGV[4]) * 3e15 + microseconds), ARGV[1]) -- exact below 2^53
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', tonumber(now) - tonumber(ARGV[3]))
redis.call('ZADD', KEYS[3], now, ARGV[1])
redis.call('LPUSH', KEYS[5], ARGV[5])
return {'ok', now}
