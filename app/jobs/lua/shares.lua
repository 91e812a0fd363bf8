-- Included by the scripts that charge tenants for jobs. A tenant's counter is what it was served, in weighted tokens
-- divided by its weight ("Fairness in Serving Large Language Models", arXiv 2401.00588). An estimate is charged when a
-- job is claimed, and replaced by the true figure when it ends. docs/decisions/0061 has the reasons.
local SPAN = 1e15 -- of the counters of one class, in the scores of `order.tenants`
local NEWEST_SHARE = 0.1 -- of a mean: about the last twenty jobs count
local UNKNOWN_LENGTH = 100 -- tokens that a job writes, until one of its tenant has ended

-- Read what `app.jobs.sharing.Sharing` has written. Every step of a job reads it: JSON would take twice as long.
local function order_of(text)
  local prefix, aging, prompt, cached, completion, model = string.match(text, '^(%S+) (%S+) (%S+) (%S+) (%S+) (.*)$')
  return {
    prefix = prefix, model = model, aging_seconds = tonumber(aging), prompt_weight = tonumber(prompt),
    cached_weight = tonumber(cached), completion_weight = tonumber(completion), waiting = prefix .. 'waiting:' .. model,
    tenants = prefix .. 'tenants:' .. model, shares = prefix .. 'shares:' .. model,
  }
end

local function score_of(class, counter) return class * SPAN + math.min(counter, SPAN - 1) end

local function weighted_tokens(order, prompt, cached, completion)
  return (prompt - cached) * order.prompt_weight + cached * order.cached_weight + completion * order.completion_weight
end

-- What a job should cost. published: tokens that earlier attempts wrote.
local function estimate(order, kind, prompt_estimate, mean_length, published)
  local length = kind == 'embed' and 0 or math.max(tonumber(mean_length or UNKNOWN_LENGTH), tonumber(published or 0))
  return weighted_tokens(order, tonumber(prompt_estimate or 0), 0, length)
end

-- Charge the tenant for a job that is claimed from this class, and return the estimate. An earlier attempt has been
-- charged already.
local function charge(order, tenant, class, kind, weight, prompt_estimate, published, charged)
  local start = 'start ' .. class
  local shares = redis.call('HMGET', order.shares, 'served ' .. tenant, 'length ' .. tenant, start)
  local counter, tokens = tonumber(shares[1] or 0), estimate(order, kind, prompt_estimate, shares[2], published)
  redis.call('HSET', order.shares, 'served ' .. tenant, counter + (tokens - tonumber(charged or 0)) / tonumber(weight or 1),
    start, math.max(counter, tonumber(shares[3] or 0)))
  return tokens
end

-- The next value of a mean. mean: a text, false without one.
local function mean_with(mean, value)
  mean = tonumber(mean or value)
  return mean + NEWEST_SHARE * (value - mean)
end

-- Replace the estimate by what a job took, which has just ended. A response from the cache took nothing. What a worker
-- has ended counts for the means of the tenant, and its time for that of all jobs. record: fields; job: the facts that
-- are counted (end_job.lua).
local function settle(order, record, job, now)
  local tokens, charged = 0, tonumber(record.charged or 0)
  if not job.is_cache_hit then
    tokens = weighted_tokens(order, job.prompt_tokens, job.cached_tokens, job.completion_tokens)
  end
  local names = {'served ' .. job.tenant, 'length ' .. job.tenant, 'cost ' .. job.tenant, 'seconds ' .. job.tenant, 'seconds'}
  local shares = redis.call('HMGET', order.shares, unpack(names))
  local counter = math.max(0, tonumber(shares[1] or 0) + (tokens - charged) / tonumber(record.weight or 1))
  local fields = tokens ~= charged and {names[1], counter} or {}
  local function keep(name, value) fields[#fields + 1], fields[#fields + 2] = name, value end
  if record.metrics then
    keep(names[3], mean_with(shares[3], tokens))
    local seconds = now - tonumber(record.claimed_at or now)
    keep(names[4], mean_with(shares[4], seconds))
    keep(names[5], mean_with(shares[5], seconds))
    if job.completion_tokens > 0 then keep(names[2], mean_with(shares[2], job.completion_tokens)) end
  end
  if #fields > 0 then redis.call('HSET', order.shares, unpack(fields)) end
  local score = tokens ~= charged and redis.call('ZSCORE', order.tenants, job.tenant)
  if score then redis.call('ZADD', order.tenants, score_of(math.floor(tonumber(score) / SPAN), counter), job.tenant) end
end
