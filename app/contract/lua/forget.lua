-- Delete a final job with all its keys.
-- KEYS: job, events, owner's index
-- ARGV: id
-- Returns 1, or 0 while the job is not final
local status = redis.call('HGET', KEYS[1], 'status')
if status == 'queued' or status == 'processing' then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[1])
return 1
