-- Delete a final job with all its keys.
-- KEYS: job, events, owner's index, ended
-- ARGV: id, owner
-- Returns 1, or 0 while the job is not final
local record = redis.call('HMGET', KEYS[1], 'status', 'idempotency')
if record[1] == 'queued' or record[1] == 'processing' then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
if record[2] then redis.call('DEL', record[2]) end
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1] .. ' ' .. ARGV[2])
return 1
