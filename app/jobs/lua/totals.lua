-- Included by end_job: what is counted once for each job, in the hash `llm:totals:<model>` (`app.jobs.totals` reads it). The
-- name of a field is that of a count and the values of its labels, separated by spaces. A histogram has a field for the
-- smallest bound that is not below the value, and its sum in microseconds.
local FIRST_TOKEN_BOUNDS = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160,
  640, 2560}
local TOKEN_BOUNDS = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80}
local REQUEST_BOUNDS = {0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680}

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

local function count_times(added, metrics, record, status)
  local first_token, queue = number_of(metrics.time_to_first_token_seconds), number_of(metrics.queue_seconds)
  local rate = number_of(metrics.tokens_per_second)
  if first_token then observe(added, 'first_token_seconds', FIRST_TOKEN_BOUNDS, first_token) end
  if queue then observe(added, 'queue_seconds', REQUEST_BOUNDS, queue) end
  if rate and rate > 0 then observe(added, 'token_seconds', TOKEN_BOUNDS, 1 / rate) end
  if status == 'succeeded' or status == 'failed' then
    observe(added, 'request_seconds', REQUEST_BOUNDS, math.max(0, tonumber(record[5]) - math.max(tonumber(record[4]), tonumber(record[8] or 0))))
  end
end

-- Tokens of a job that ends without a worker: those that were published.
local function count_tokens(added, usage, source, published)
  local counts = {prompt_tokens = usage.prompt_tokens, cached_tokens = usage.cached_tokens,
    generation_tokens = usage.completion_tokens or published}
  for name, count in pairs(counts) do
    if tonumber(count) > 0 then added[name .. ' ' .. source] = tonumber(count) end
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

-- end_event: the JSON of the event that ends the job, with its status, usage and error.
local function count_job(job_key, ended_key, end_event)
  local event = cjson.decode(end_event)
  local record = redis.call('HMGET', job_key, 'kind', 'priority', 'metrics', 'created_at', 'completed_at', 'attempt', 'published',
    'not_before')
  local metrics = record[3] and cjson.decode(record[3]) or {}
  local source = metrics.source == 'cached' and 'cached' or 'computed'
  local added = {[table.concat({'jobs', event.status, event.finish_reason or '-', record[1] or '-', record[2] or '-'}, ' ')] = 1}
  if event.error then added['errors ' .. event.error.code] = 1 end
  if source == 'cached' then added['cached_responses'] = 1 end
  if record[6] then added['attempts'] = tonumber(record[6]) end
  count_tokens(added, event.usage or {}, source, record[7] or 0)
  count_times(added, metrics, record, event.status)
  add((string.gsub(ended_key, ':ended:', ':totals:', 1)), added)
end
