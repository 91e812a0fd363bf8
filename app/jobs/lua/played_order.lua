-- Included by the scripts that predict the order of claims: it plays them through, without settlements and arrivals.
-- include: order

local function mean_seconds_of(order) return tonumber(redis.call('HGET', order.shares, 'seconds') or 0) end

-- What will be charged for a job, in weighted tokens, and the weight of its tenant.
local function cost_of(order, job_id, mean_length)
  local record = redis.call('HMGET', order.prefix .. 'job:' .. job_id, 'kind', 'prompt_estimate', 'published', 'charged',
    'weight')
  return estimate(order, record[1], record[2], mean_length, record[3]) - tonumber(record[4] or 0), tonumber(record[5] or 1)
end

-- A tenant with waiting jobs. time: the mean of its jobs, as a part of the mean of all.
local function read_tenant(order, name, score, mean_seconds)
  local means = redis.call('HMGET', order.shares, 'length ' .. name, 'cost ' .. name, 'seconds ' .. name)
  local seconds = tonumber(means[3] or mean_seconds)
  return {name = name, queue = queue_of(order, name), counter = tonumber(score) % SPAN, mean_length = means[1],
    mean_cost = means[2], time = mean_seconds > 0 and seconds / mean_seconds or 1, played = 0}
end

-- Read the tenant's next job that has not been played; false when there is none.
local function read_next(tenant)
  local entry = redis.call('ZRANGE', tenant.queue, tenant.played, tenant.played, 'WITHSCORES')
  tenant.job = entry[1] or false
  tenant.class = entry[1] and class_of(entry[2])
end

local function starts_before(one, other)
  if one.class ~= other.class then return one.class < other.class end
  if one.counter ~= other.counter then return one.counter < other.counter end
  return one.name < other.name
end

-- Take the first job of a tenant, and let the tenant enter the class of its next one.
local function play(order, tenant, starts)
  local job, class = tenant.job, tenant.class
  local cost, weight = cost_of(order, job, tenant.mean_length)
  starts[class] = math.max(starts[class], tenant.counter)
  tenant.counter, tenant.played = tenant.counter + cost / weight, tenant.played + 1
  read_next(tenant)
  if tenant.job and tenant.class ~= class then tenant.counter = math.max(tenant.counter, starts[tenant.class]) end
  return job
end

-- Play the first claims through. No other tenant than the first `limit` can have one of these. Returns a list of the jobs:
-- {id, how many start before it, the time of these in jobs of mean time}.
local function played_order(order, limit, mean_seconds)
  local tenants, starts, jobs, work = {}, {}, {}, 0
  for class = 0, 2 do starts[class] = tonumber(redis.call('HGET', order.shares, 'start ' .. class) or 0) end
  local entries = redis.call('ZRANGE', order.tenants, 0, limit - 1, 'WITHSCORES')
  for index = 1, #entries, 2 do
    local tenant = read_tenant(order, entries[index], entries[index + 1], mean_seconds)
    read_next(tenant)
    if tenant.job then table.insert(tenants, tenant) end
  end
  while #tenants > 0 and #jobs < limit do
    local first = 1
    for index = 2, #tenants do
      if starts_before(tenants[index], tenants[first]) then first = index end
    end
    table.insert(jobs, {play(order, tenants[first], starts), #jobs, work})
    work = work + tenants[first].time
    if not tenants[first].job then table.remove(tenants, first) end
  end
  return jobs
end
