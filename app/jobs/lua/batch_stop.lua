-- Submit no more lines of a batch; those left are answered with the reason.
-- KEYS: batch
-- ARGV: 'cancelled' or 'expired', field of the time, time
-- Returns 1, or 0 where it has ended, or is being stopped already
local record = redis.call('HMGET', KEYS[1], 'status', 'ending')
if record[1] ~= 'in_progress' or record[2] then return 0 end
redis.call('HSET', KEYS[1], 'ending', ARGV[1], ARGV[2], ARGV[3])
return 1
