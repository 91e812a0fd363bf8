-- A client reads this job's stream from now on: its worker writes deltas as they come.
-- KEYS: job
-- ARGV: id, control channel
-- Returns 0 where there is no such job
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'followed', '1')
redis.call('PUBLISH', ARGV[2], 'follow:' .. ARGV[1])
return 1
