-- Cancel a job: a queued one ends here, as does one whose lease has expired; a running one is marked for
-- its worker, a final one stays as it is.
-- KEYS: job, events, running, expiring, ended, doorbells, scheduled
-- ARGV: order, id, kept (as of end_job), control channel, lease_seconds
-- Returns nil (unknown) | the status after the call
-- include: end_job
-- include: end_without_worker
-- include: notify
-- include: order
-- include: scheduled
local record = redis.call('HMGET', KEYS[1], 'status', 'lease_until', 'ran', 'claimed_at', 'tenant', 'listeners')
local status = record[1]
if not status then return nil end
if status ~= 'queued' and status ~= 'processing' then return status end

local time = redis.call('TIME')
if status == 'processing' and tonumber(record[2] or 0) > tonumber(time[1]) + tonumber(time[2]) / 1e6 then
  redis.call('HSET', KEYS[1], 'cancel', '1')
  redis.call('PUBLISH', ARGV[4], 'cancel:' .. ARGV[2])
  return status
end
local order = order_of(ARGV[1])
leave_order(order, KEYS[6], record[5] or '', ARGV[2])
leave_schedule(KEYS[7], ARGV[2])
for _, index in ipairs({KEYS[3], KEYS[4]}) do redis.call('ZREM', index, ARGV[2]) end
if status == 'processing' then -- its worker is lost
  redis.call('HSET', KEYS[1], 'ran', ran_until_lost(record[3], record[4], record[2], ARGV[5]))
  redis.call('HDEL', KEYS[1], 'lease_until')
end
end_without_worker(order, KEYS[1], KEYS[2], KEYS[5], ARGV[2], ARGV[3], 'canceled', 'canceled')
notify(record[6], ARGV[2])
return 'canceled'
