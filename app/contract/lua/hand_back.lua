-- A worker that leaves puts a job back into the queue, at its old place, for another one to continue.
-- KEYS: job, queued, running, broker list
-- ARGV: id, fencing token, Celery message
-- Returns 1, or 0 when fenced
local record = redis.call('HMGET', KEYS[1], 'token', 'status', 'claimed_at', 'ran', 'place')
if record[1] ~= ARGV[2] or record[2] ~= 'processing' then return 0 end
local time = redis.call('TIME')
local ran = tonumber(record[4] or 0) + tonumber(time[1]) + tonumber(time[2]) / 1e6 - tonumber(record[3])
redis.call('HSET', KEYS[1], 'status', 'queued', 'ran', string.format('%.6f', ran))
redis.call('HDEL', KEYS[1], 'lease_until', 'claim', 'missed_at')
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZADD', KEYS[2], record[5], ARGV[1])
redis.call('RPUSH', KEYS[4], ARGV[3])
return 1
