-- Renew one lease, and return what has been requested for the job meanwhile.
-- KEYS: job, running
-- ARGV: id, token, lease_seconds
-- Returns {"lost"} | {"ok", cancel requested ("0"/"1"), followed ("0"/"1")}
local record = redis.call('HMGET', KEYS[1], 'token', 'status', 'cancel', 'followed')
if record[1] ~= ARGV[2] or record[2] ~= 'processing' then return {'lost'} end
local time = redis.call('TIME')
local lease_until = tonumber(time[1]) + tonumber(time[2]) / 1e6 + tonumber(ARGV[3])
redis.call('HSET', KEYS[1], 'lease_until', lease_until)
redis.call('ZADD', KEYS[2], lease_until, ARGV[1])
return {'ok', record[3] or '0', record[4] or '0'}
