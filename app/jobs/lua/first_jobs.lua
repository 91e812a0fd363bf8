-- Predict which waiting jobs start first.
-- KEYS: service time
-- ARGV: order, how many
-- Returns for each {id, the time of the jobs before it in jobs of mean time}
-- include: played_order
local jobs = played_order(order_of(ARGV[1]), tonumber(ARGV[2]), tonumber(redis.call('GET', KEYS[1]) or 0))
local replies = {}
for _, job in ipairs(jobs) do replies[#replies + 1] = {job[1], string.format('%.17g', job[3])} end
return replies
