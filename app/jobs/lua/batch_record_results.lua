-- Write the results of submitted lines. A line already written is skipped.
-- KEYS: batch, open lines, output, errors
-- ARGV: of each line its number, 'completed' or 'failed', its result, and the tokens read, cached and written for it
-- Returns how many were open
local COUNTED = {'input_tokens', 'cached_tokens', 'output_tokens'}
local recorded = 0
for at = 1, #ARGV, 6 do
  if redis.call('SREM', KEYS[2], ARGV[at]) == 1 then
    local outcome, result = ARGV[at + 1], ARGV[at + 2]
    redis.call('RPUSH', outcome == 'failed' and KEYS[4] or KEYS[3], result)
    redis.call('HINCRBY', KEYS[1], outcome, 1)
    redis.call('HINCRBY', KEYS[1], outcome .. '_bytes', #result)
    for index, name in ipairs(COUNTED) do redis.call('HINCRBY', KEYS[1], name, ARGV[at + 2 + index]) end
    recorded = recorded + 1
  end
end
return recorded
