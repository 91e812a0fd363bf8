-- Close a batch: submit no more of its lines. The lines left get the reason as their result.
-- KEYS: batch
-- ARGV: 'cancelled', 'expired' or 'failed', field of the time, time
-- Returns 1, or 0 where it has ended, or is closed already
local record = redis.call('HMGET', KEYS[1], 'status', 'ending')
if record[1] ~= 'in_progress' or record[2] then return 0 end
redis.call('HSET', KEYS[1], 'ending', ARGV[1], ARGV[2], ARGV[3])
return 1
