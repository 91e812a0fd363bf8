-- Find the API key of a secret, and note that it is used, so often at most.
-- KEYS: digest of the secret
-- ARGV: prefix of records, seconds between two notes of the last use
-- Returns the record as field/value pairs, nil where there is none
local id = redis.call('GET', KEYS[1])
if not id then return nil end
local key = ARGV[1] .. id
local record = redis.call('HGETALL', key)
if #record == 0 then return nil end
local now = tonumber(redis.call('TIME')[1])
local times = redis.call('HMGET', key, 'last_used_at', 'expires_at')
local is_expired = (tonumber(times[2]) or math.huge) <= now
if not is_expired and now - (tonumber(times[1]) or 0) >= tonumber(ARGV[2]) then
  redis.pcall('HSET', key, 'last_used_at', now) -- a Redis without memory or disk for it still finds keys
end
return record
