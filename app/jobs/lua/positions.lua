-- Predict where waiting jobs stand in line. With few waiting jobs the claims are played through; with many, each tenant
-- counts with the mean cost of its jobs, and with many tenants a sample of them stands for all.
-- ARGV: order, then ids of jobs
-- Returns for each {jobs that start before it, their time in jobs of mean time}, or {-1, "0"} where it does not wait
-- include: played_order
local MOST_PLAYED = 64 -- waiting jobs; some microseconds each
local MOST_TENANTS = 50

local order = order_of(ARGV[1])
local mean_seconds = mean_seconds_of(order)
local tenants_read = {}

-- What a job of a tenant adds to its counter.
local function step_of(tenant)
  local cost, weight = cost_of(order, redis.call('ZRANGE', tenant.queue, 0, 0)[1], tenant.mean_length)
  return math.max(tonumber(tenant.mean_cost or cost), 1e-9) / weight
end

-- Some tenants with waiting jobs, at equal distances in the order, and how many.
local function sample()
  local count = redis.call('ZCARD', order.tenants)
  local taken = math.min(count, MOST_TENANTS)
  for number = 0, taken - 1 do
    local rank = math.floor(number * count / taken)
    local entry = redis.call('ZRANGE', order.tenants, rank, rank, 'WITHSCORES')
    local tenant = read_tenant(order, entry[1], entry[2], mean_seconds)
    tenant.step = step_of(tenant)
    table.insert(tenants_read, tenant)
  end
  return count
end

-- How many jobs of another tenant start before the counter of a job's tenant is `counter`.
local function jobs_of_other(other, class, counter)
  local better = redis.call('ZCOUNT', other.queue, '-inf', '(' .. string.format('%.0f', class * CLASS))
  local equal = redis.call('ZCOUNT', other.queue, string.format('%.0f', class * CLASS),
    '(' .. string.format('%.0f', (class + 1) * CLASS))
  local turns = math.ceil((counter - other.counter) / other.step - better)
  return better + math.max(0, math.min(equal, turns))
end

local function estimated(job_id, count)
  local record = redis.call('HMGET', order.prefix .. 'job:' .. job_id, 'tenant', 'place')
  local name = record[1] or ''
  local rank = record[2] and redis.call('ZRANK', queue_of(order, name), job_id)
  if not rank then return nil end
  local own = read_tenant(order, name, redis.call('ZSCORE', order.tenants, name), mean_seconds)
  local counter, ahead, work, others = own.counter + rank * step_of(own), 0, 0, 0
  for _, other in ipairs(tenants_read) do
    if other.name ~= name then
      local jobs = jobs_of_other(other, class_of(record[2]), counter)
      ahead, work, others = ahead + jobs, work + jobs * other.time, others + 1
    end
  end
  local scale = others > 0 and (count - 1) / others or 0
  return {rank + math.floor(ahead * scale + 0.5), rank * own.time + work * scale}
end

local is_small = redis.call('ZCARD', order.waiting) <= MOST_PLAYED
local ahead, count = {}, not is_small and sample()
if is_small then
  for _, job in ipairs(played_order(order, MOST_PLAYED, mean_seconds)) do ahead[job[1]] = {job[2], job[3]} end
end
local replies = {}
for index = 2, #ARGV do
  local result
  if is_small then result = ahead[ARGV[index]] else result = estimated(ARGV[index], count) end
  replies[#replies + 1] = result and {result[1], string.format('%.17g', result[2])} or {-1, '0'}
end
return replies
