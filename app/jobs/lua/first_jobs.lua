-- Predict which waiting jobs start first.
-- ARGV: order, how many
-- Returns for each {id, the time of the jobs before it in jobs of mean time}
-- include: played_order
local order = order_of(ARGV[1])
local jobs = played_order(order, tonumber(ARGV[2]), mean_seconds_of(order))
local replies = {}
for _, job in ipairs(jobs) do replies[#replies + 1] = {job[1], string.format('%.17g', job[3])} end
return replies
