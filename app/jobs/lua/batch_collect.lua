-- Answer open lines of a batch, each once, however often and by whichever process this is called.
-- KEYS: batch, open lines, output, errors
-- ARGV: of each line its number, 'completed' or 'failed', its answer, and the tokens read, cached and written for it
-- Returns how many were open
local COUNTED = {'input_tokens', 'cached_tokens', 'output_tokens'}
local collected = 0
for at = 1, #ARGV, 6 do
  if redis.call('SREM', KEYS[2], ARGV[at]) == 1 then
    local outcome, answer = ARGV[at + 1], ARGV[at + 2]
    redis.call('RPUSH', outcome == 'failed' and KEYS[4] or KEYS[3], answer)
    redis.call('HINCRBY', KEYS[1], outcome, 1)
    redis.call('HINCRBY', KEYS[1], outcome .. '_bytes', #answer)
    for index, name in ipairs(COUNTED) do redis.call('HINCRBY', KEYS[1], name, ARGV[at + 2 + index]) end
    collected = collected + 1
  end
end
return collected
