-- Lock the role of the process that drives the batches, or extend the lock.
-- KEYS: driver
-- ARGV: name of the process, seconds
-- Returns 1, or 0 where another process is the driver
local driver = redis.call('GET', KEYS[1])
if driver and driver ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1
