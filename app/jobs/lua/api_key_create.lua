-- Create an API key, whose name must be free.
-- KEYS: record, digest of its secret, ids of keys, ids by name
-- ARGV: id, name, then field/value pairs of the record
-- Returns "ok" | "taken": another key has the name
local owner_of_name = redis.call('HGET', KEYS[4], ARGV[2])
if owner_of_name and owner_of_name ~= ARGV[1] then return 'taken' end
if redis.call('EXISTS', KEYS[1]) == 1 then return 'ok' end -- the same call once more, after its first reply was lost
local time = redis.call('TIME')
local now = time[1] .. string.format('.%06d', time[2])
redis.call('HSET', KEYS[1], 'id', ARGV[1], 'name', ARGV[2], 'created_at', now, unpack(ARGV, 3))
redis.call('SET', KEYS[2], ARGV[1])
redis.call('ZADD', KEYS[3], now, ARGV[1])
redis.call('HSET', KEYS[4], ARGV[2], ARGV[1])
return 'ok'
