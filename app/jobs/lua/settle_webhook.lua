-- Record what became of a webhook that was taken; nothing happens where another process has taken it since.
-- KEYS: webhooks, delivery, job
-- ARGV: id, token, state, tries so far, error of the last one ('' = none), seconds until it is due again ('' = it is over)
-- Returns 1, or 0 when void
-- include: webhook_status
local error = ARGV[5] ~= '' and ARGV[5] or nil
if redis.call('HGET', KEYS[2], 'webhook_token') ~= ARGV[2] then return 0 end
if ARGV[6] == '' then
  redis.call('ZREM', KEYS[1], ARGV[1]) -- first: a Redis without memory lets a step be done that begins with this
  redis.call('DEL', KEYS[2])
  note_webhook(KEYS[3], ARGV[3], ARGV[4], error)
  return 1
end
local time = redis.call('TIME')
local due = tonumber(time[1]) + tonumber(time[2]) / 1e6 + tonumber(ARGV[6])
redis.call('HSET', KEYS[2], 'webhook_failures', ARGV[4])
redis.call('ZADD', KEYS[1], string.format('%.6f', due), ARGV[1])
note_webhook(KEYS[3], ARGV[3], ARGV[4], error, due)
return 1
