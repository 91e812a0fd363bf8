-- Count the waiting jobs of each priority class.
-- KEYS: waiting
-- ARGV: how many classes there are
-- Returns the counts, that of the class that starts first before the others
-- include: order
local counts = {}
for step = 0, tonumber(ARGV[1]) - 1 do
  counts[#counts + 1] = redis.call('ZCOUNT', KEYS[1], string.format('%.0f', step * CLASS), string.format('(%.0f', (step + 1) * CLASS))
end
return counts
