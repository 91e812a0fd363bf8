-- Record what became of a webhook that was taken; nothing happens where another process has taken it since.
-- KEYS: webhooks, delivery
-- ARGV: id, token, seconds until it is due again ('' = it is over), failed attempts
-- Returns 1, or 0 when void
if redis.call('HGET', KEYS[2], 'webhook_token') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('DEL', KEYS[2])
  return 1
end
local time = redis.call('TIME')
local due = tonumber(time[1]) + tonumber(time[2]) / 1e6 + tonumber(ARGV[3])
redis.call('HSET', KEYS[2], 'webhook_failures', ARGV[4])
redis.call('ZADD', KEYS[1], string.format('%.6f', due), ARGV[1])
return 1
