-- A worker that stops puts a job back into the order of waiting jobs, in its old place, for another one to continue; a
-- job whose cancellation was requested ends here.
-- KEYS: job, events, running, doorbells, ended
-- ARGV: order, id, fencing token, doorbell, kept (as of end_job)
-- Returns 1, or 0 when fenced
-- include: end_job
-- include: end_without_worker
-- include: notify
-- include: order
local record = redis.call('HMGET', KEYS[1], 'token', 'status', 'claimed_at', 'ran', 'place', 'cancel', 'tenant', 'priority',
  'owner', 'listeners')
if record[1] ~= ARGV[3] or record[2] ~= 'processing' then return 0 end
local order = order_of(ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[2])
if record[6] == '1' then
  end_without_worker(order, KEYS[1], KEYS[2], KEYS[5], ARGV[2], ARGV[5], 'canceled', 'canceled')
  notify(record[10], ARGV[2])
  return 1
end
local time = redis.call('TIME')
local ran = tonumber(record[4] or 0) + tonumber(time[1]) + tonumber(time[2]) / 1e6 - tonumber(record[3])
redis.call('HSET', KEYS[1], 'status', 'queued', 'ran', string.format('%.6f', ran))
redis.call('HDEL', KEYS[1], 'lease_until', 'claim')
enter_order(order, record[7] or '', ARGV[2], record[5], record[8])
note_waiting(record[9], ARGV[2])
redis.call('LPUSH', KEYS[4], ARGV[4])
return 1
