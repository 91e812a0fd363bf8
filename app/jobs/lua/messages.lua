-- Included by the scripts that look into a broker's list. Consumers take from its right end, so it is kept in the order of
-- the queue from there. A message counts while its job waits; one that does not call our task is not ours to judge.
local OUR_TASK = '"task": "llm_api.run_job"' -- with the space that Python's JSON has, and so Kombu's
local JOB_ID = '"correlation_id": "'

local function job_of(message)
  if not string.find(message, OUR_TASK, 1, true) then return nil end
  local _, before = string.find(message, JOB_ID, 1, true) -- plain: a pattern takes ten times as long
  local after = before and string.find(message, '"', before + 1, true)
  return after and string.sub(message, before + 1, after - 1)
end

-- The place of the message's job in the queue; nil where it waits no more, or the message is not ours.
local function place_of(message, queued_key)
  local job_id = job_of(message)
  return job_id and tonumber(redis.call('ZSCORE', queued_key, job_id))
end

local function is_void(message, queued_key)
  return job_of(message) and not place_of(message, queued_key)
end
