-- Open the next lines of a batch, unless another process has opened them.
-- KEYS: batch, open lines
-- ARGV: first line to open, line after the last one to open, then the numbers of those to open (blank lines are not)
-- Returns 1 | 0
if redis.call('HGET', KEYS[1], 'next_line') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'next_line', ARGV[2])
if #ARGV > 2 then redis.call('SADD', KEYS[2], unpack(ARGV, 3)) end
return 1
