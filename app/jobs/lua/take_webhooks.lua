-- Take webhooks that are due. No other process gets them while the lease lasts.
-- KEYS: webhooks
-- ARGV: most, lease_seconds, prefix of the deliveries' keys, names of the record's fields (comma-separated), prefix of the
--       jobs' keys
-- Returns {id, token, webhook JSON, failed attempts, values of the record} for each
-- include: webhook_status
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local names, taken = {}, {}

-- Give up a webhook that was not sent for days: its delivery has expired.
local function give_up(job_id)
  redis.call('ZREM', KEYS[1], job_id)
  local job_key = ARGV[5] .. job_id
  local status = redis.call('HGET', job_key, 'webhook_status')
  if status then note_webhook(job_key, 'given_up', cjson.decode(status).tries, 'it was not sent in time') end
end

for name in string.gmatch(ARGV[4], '[^,]+') do names[#names + 1] = name end
for _, job_id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])) do
  local delivery = ARGV[3] .. job_id
  local webhook = redis.call('HMGET', delivery, 'webhook', 'webhook_failures')
  if webhook[1] then
    redis.call('ZADD', KEYS[1], string.format('%.6f', now + tonumber(ARGV[2])), job_id)
    local token = redis.call('HINCRBY', delivery, 'webhook_token', 1)
    local values = redis.call('HMGET', delivery, unpack(names))
    taken[#taken + 1] = {job_id, token, webhook[1], tonumber(webhook[2] or 0), values}
  else
    give_up(job_id)
  end
end
return taken
