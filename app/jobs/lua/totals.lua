-- Included by end_job: what is counted once for each job, in the hash `llm:totals:<model>` (`app.jobs.totals` reads it). The
-- name of a field is that of a count and the values of its labels, separated by spaces. A histogram has a field for the
-- smallest bound that is not below the value, and its sum in microseconds.
-- What one job adds, by field: written in one call, as calls are what costs here.
local function observe(added, name, bounds, seconds)
  local bound = '+Inf'
  for _, candidate in ipairs(bounds) do
    if seconds <= candidate then
      bound = string.format('%.14g', candidate)
      break
    end
  end
  added[name .. ' ' .. bound] = 1
  added[name .. ' sum'] = math.floor(seconds * 1e6 + 0.5)
end

-- A value of cjson, whose null is a userdata.
local function number_of(value) return type(value) == 'number' and value or nil end

-- The bounds are in here, as a script makes its tables anew each time that it runs, and most runs end no job.
local function count_times(added, job)
  local request_bounds = {0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680}
  local first_token = number_of(job.metrics.time_to_first_token_seconds)
  local queue, rate = number_of(job.metrics.queue_seconds), number_of(job.metrics.tokens_per_second)
  if first_token then
    observe(added, 'first_token_seconds', {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5,
      10, 20, 40, 80, 160, 640, 2560}, first_token)
  end
  if queue then observe(added, 'queue_seconds', request_bounds, queue) end
  if rate and rate > 0 then
    observe(added, 'token_seconds', {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40,
      80}, 1 / rate)
  end
  if job.status == 'succeeded' or job.status == 'failed' then
    observe(added, 'request_seconds', request_bounds, math.max(0, job.now - job.ready_at))
  end
end

local function count_tokens(added, job)
  local source = job.is_cache_hit and 'cached' or 'computed'
  local counts = {prompt_tokens = job.prompt_tokens, cached_tokens = job.cached_tokens,
    generation_tokens = job.completion_tokens}
  for name, count in pairs(counts) do
    if count > 0 then added[name .. ' ' .. source] = count end
  end
end

local function add(totals_key, added)
  local names, values = {}, {}
  for name in pairs(added) do names[#names + 1] = name end
  for index, before in ipairs(redis.call('HMGET', totals_key, unpack(names))) do
    values[2 * index - 1] = names[index]
    values[2 * index] = string.format('%.0f', (tonumber(before or 0)) + added[names[index]])
  end
  redis.call('HSET', totals_key, unpack(values))
end

-- job: as of `facts` in end_job.lua.
local function count_totals(totals_key, job)
  local labels = {'jobs', job.status, job.finish_reason, job.kind, job.priority}
  local added = {[table.concat(labels, ' ')] = 1}
  if job.error_code ~= '' then added['errors ' .. job.error_code] = 1 end
  if job.is_cache_hit then added['cached_responses'] = 1 end
  if job.attempts > 0 then added['attempts'] = job.attempts end
  count_tokens(added, job)
  count_times(added, job)
  add(totals_key, added)
end
