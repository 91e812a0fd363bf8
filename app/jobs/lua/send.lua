-- Another message for a job that waits and has none.
-- KEYS: queued, broker list
-- ARGV: id, Celery message
-- Returns 1, or 0 where the job waits no more
-- include: messages
-- include: put_message
local place = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not place then return 0 end
put_message(KEYS[2], KEYS[1], tonumber(place), ARGV[2])
return 1
